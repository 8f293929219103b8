-- A/B tests as the sender sees them: when their test mail is through, and who still waits for the decision.

-- name: to_work_on
-- Tests with people who wait, or test mail under way.
select test_id from ab_tests where planned_at is not null and released_at is null order by test_id;

-- name: end_of_ended
-- A test of a campaign that is over without it ends as well.
update ab_tests
set status = 'cancelled', completed_at = cast(:now as timestamptz), version = ab_tests.version + 1,
    updated_at = cast(:now as timestamptz)
from campaigns
where campaigns.campaign_id = ab_tests.campaign_id
    and campaigns.status in ('cancelled', 'failed')
    and ab_tests.status = 'running'
returning ab_tests.test_id;

-- name: lock
-- A test to work on, unless somebody is at it.
select test_id
from ab_tests
where test_id = cast(:test_id as bigint) and planned_at is not null and released_at is null
for update skip locked;

-- name: is_open
-- Whether test mail waits or is in flight; what was refused, skipped or is in doubt waits no more.
select
    exists (
        select from messages
        where messages.status = 'queued'
            and coalesce(messages.campaign_id, 0) = ab_tests.campaign_id
            and messages.next_try_at < timestamptz '9999-01-01 00:00+00'
            and messages.occurrence = ab_tests.planned_occurrence
            and messages.ab_part = 'test'
    ) or exists (
        select from messages
        where messages.status = 'sending'
            and messages.campaign_id = ab_tests.campaign_id
            and messages.occurrence = ab_tests.planned_occurrence
            and messages.ab_part = 'test'
    ) as is_open
from ab_tests
where test_id = cast(:test_id as bigint);

-- name: open_again
-- Test mail is under way (again): there is no deadline yet.
update ab_tests
set last_handover_at = null, deadline_at = null
where test_id = cast(:test_id as bigint) and last_handover_at is not null;

-- name: handed_over
-- All test mail is through: the deadline counts from the last hand-over, or the planning where nothing was sent.
update ab_tests
set last_handover_at = through.last_at,
    deadline_at = through.last_at + make_interval(hours => ab_tests.wait_hours)
from (
    select coalesce(max(messages.sent_at), min(planned.planned_at)) as last_at
    from ab_tests as planned
    inner join ab_variants on ab_variants.test_id = planned.test_id
    left join messages
        on messages.variant_id = ab_variants.variant_id and messages.ab_part = 'test'
    where planned.test_id = cast(:test_id as bigint)
) as through
where ab_tests.test_id = cast(:test_id as bigint) and ab_tests.last_handover_at is null;

-- name: release
-- Gives some of those who wait for a decision their variant, content and time, by the time zone where that matters.
with held as materialized (
    select messages.contact_id, messages.message_id
    from messages
    inner join ab_tests
        on ab_tests.campaign_id = messages.campaign_id
        and ab_tests.planned_occurrence = messages.occurrence
    where ab_tests.test_id = cast(:test_id as bigint)
        and messages.status = 'queued'
        and coalesce(messages.campaign_id, 0) = ab_tests.campaign_id
        and messages.next_try_at = timestamptz '9999-01-01 00:00+00'
        and messages.held_for = 'ab_test'
        and messages.ab_part = 'rest'
    limit cast(:size as int)
    for update of messages skip locked
),
timings as materialized (
    select *
    from jsonb_to_recordset(cast(:timings as jsonb)) as given (timezone text, due_at timestamptz)
),
contents as materialized (
    select *
    from jsonb_to_recordset(cast(:contents as jsonb)) as given (locale text, content_id bigint)
),
chosen as materialized (
    select
        held.contact_id, held.message_id,
        coalesce(own.due_at, everywhere.due_at) as due_at,
        coalesce(exact.content_id, base.content_id, plain.content_id) as content_id
    from held
    left join contacts on contacts.contact_id = held.contact_id
    left join timings as own on own.timezone = contacts.timezone and own.timezone <> ''
    inner join timings as everywhere on everywhere.timezone = ''
    cross join lateral (
        select btrim(replace(lower(contacts.language), '_', '-')) as tag
    ) as wanted
    left join contents as exact on exact.locale = wanted.tag and exact.locale <> ''
    left join contents as base
        on base.locale = split_part(wanted.tag, '-', 1) and base.locale <> ''
    inner join contents as plain on plain.locale = ''
)
update messages
set variant_id = cast(:variant_id as bigint), content_id = chosen.content_id, held_for = null,
    due_at = chosen.due_at, next_try_at = chosen.due_at,
    give_up_at = chosen.due_at + make_interval(hours => cast(:patience_hours as int))
from chosen
where messages.contact_id = chosen.contact_id
    and messages.message_id = chosen.message_id
    and messages.status = 'queued'
    and messages.held_for = 'ab_test';

-- name: is_held
-- Whether somebody still waits for the decision of a test.
select exists (
    select from messages
    inner join ab_tests
        on ab_tests.campaign_id = messages.campaign_id
        and ab_tests.planned_occurrence = messages.occurrence
    where ab_tests.test_id = cast(:test_id as bigint)
        and messages.status = 'queued'
        and coalesce(messages.campaign_id, 0) = ab_tests.campaign_id
        and messages.next_try_at = timestamptz '9999-01-01 00:00+00'
        and messages.held_for = 'ab_test'
);
