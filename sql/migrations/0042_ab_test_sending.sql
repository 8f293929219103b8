-- Sending A/B tests: who is in which part of an audience, and who still waits for the decision.

create function ab_draw(test bigint, contact bigint, draw integer) returns bigint
language sql immutable parallel safe as $$
    select cast(cast('x' || substr(encode(sha256(cast(
        'ab_test:' || cast(test as text) || ':contact:' || cast(contact as text) as bytea
    )), 'hex'), 1 + 13 * draw, 13) as bit(52)) as bigint)
$$;
comment on function ab_draw(bigint, bigint, integer) is
    'A number from 0 to 2^52 - 1 for a contact in an A/B test, always the same: 13 hex digits of SHA-256 of
    ab_test:<test>:contact:<contact>. Draw 0 decides about hold-out, test and rest, draw 1 modulo the number of
    variants is the variant.';

comment on column messages.held_for is
    'Why a queued message waits until next_try_at: window, quiet or limit, or ab_test for the decision of an A/B test;
    null: its due time or a retry.';

alter table ab_tests add column released_at timestamptz;
comment on column ab_tests.released_at is
    'When the last recipient who waited for the decision was given a variant; null while somebody waits.';
create index ab_tests_to_work_on on ab_tests (test_id) where planned_at is not null and released_at is null;
create trigger wakes_the_sender_for_an_ab_test after update of status, released_at on ab_tests
    for each row when (new.status in ('completed', 'cancelled') and new.planned_at is not null)
    execute function wake('mauto_messages');
