-- A/B tests: their variants, which part of the audience each message is in, and what was observed elsewhere.

create table ab_tests (
    test_id bigint generated always as identity primary key,
    campaign_id bigint not null references campaigns on delete cascade,
    name text not null,
    test_type text not null default 'subject',
    status text not null default 'draft',
    winner_metric text not null default 'open_rate',
    auto_select_winner boolean not null default true,
    test_percentage double precision not null default 20,
    wait_hours integer not null default 4,
    holdout_percentage double precision not null default 0,
    no_winner_action text not null default 'control',
    conversion_days integer not null default 5,
    winner_variant_id bigint,
    decision text,
    decision_reason text,
    started_at timestamptz,
    planned_at timestamptz,
    planned_occurrence integer,
    last_handover_at timestamptz,
    deadline_at timestamptz,
    completed_at timestamptz,
    version integer not null default 1,
    created_by text not null default '',
    created_at timestamptz not null default now(),
    updated_at timestamptz,
    constraint test_type_is_known check (test_type in ('subject', 'content', 'send_time')),
    constraint test_status_is_known check (status in ('draft', 'running', 'completed', 'cancelled')),
    constraint winner_metric_is_known check (
        winner_metric in ('open_rate', 'click_rate', 'conversion_rate', 'revenue_per_recipient')),
    constraint no_winner_action_is_known check (no_winner_action in ('control', 'hold')),
    constraint decision_is_known check (
        decision in ('winner', 'no_difference', 'not_enough_data', 'srm_detected')),
    constraint test_percentage_is_5_to_50 check (test_percentage between 5 and 50),
    constraint holdout_percentage_is_0_to_50 check (holdout_percentage between 0 and 50),
    constraint a_test_waits_1_to_72_hours check (wait_hours between 1 and 72),
    constraint conversions_are_waited_for_1_to_3650_days check (conversion_days between 1 and 3650),
    constraint a_running_test_was_started check (status <> 'running' or started_at is not null),
    constraint a_test_has_its_end_once_it_is_over
        check ((status in ('completed', 'cancelled')) = (completed_at is not null)),
    constraint a_completed_test_says_why check (status <> 'completed' or decision is not null),
    constraint only_a_completed_test_has_a_winner check (status = 'completed' or winner_variant_id is null),
    constraint a_planned_test_knows_its_run check ((planned_at is null) = (planned_occurrence is null))
);
create unique index one_running_test_per_campaign on ab_tests (campaign_id) where status = 'running';
create index ab_tests_by_campaign on ab_tests (campaign_id, test_id);
comment on table ab_tests is 'Which of a few variants of a campaign does best: asked of a part of its audience, answered to the rest.';
comment on column ab_tests.conversion_days is
    'An order counts if it is placed within so many days after the hand-over; as set when the test was armed.';
comment on column ab_tests.decision is 'What the figures said when the test was decided or last looked at for that.';
comment on column ab_tests.started_at is 'When it was armed; its mail goes when the campaign is sent.';
comment on column ab_tests.planned_at is 'When the audience of the run that it is part of (planned_occurrence) was frozen.';
comment on column ab_tests.last_handover_at is 'The last hand-over of test mail, as the sender saw it; null while some waits.';

create table ab_variants (
    variant_id bigint generated always as identity primary key,
    test_id bigint not null references ab_tests on delete cascade,
    position smallint not null,
    name text not null,
    subject text,
    html_body text,
    locales jsonb not null default '{}',
    send_delay_minutes integer not null default 0,
    constraint one_variant_per_position unique (test_id, position),
    constraint send_delay_is_at_most_a_week check (send_delay_minutes between 0 and 10080)
);
comment on column ab_variants.position is '0 is the control.';
comment on column ab_variants.subject is 'Takes the place of the campaign''s; null: the campaign''s.';
comment on column ab_variants.html_body is 'Takes the place of the campaign''s; null: the campaign''s.';

create table ab_test_observations (
    observation_id bigint generated always as identity primary key,
    variant_id bigint not null references ab_variants on delete cascade,
    event_type text not null,
    contact_id bigint,
    observed_at timestamptz not null default now(),
    constraint observed_event_is_known check (event_type in ('sent', 'opened', 'clicked', 'bounced')),
    constraint a_contact_counts_once unique (variant_id, event_type, contact_id)
);
comment on table ab_test_observations is
    'Results told by callers because they were seen elsewhere; added to what the ledger knows.';

alter table messages
    add column ab_part text,
    add constraint ab_part_is_known check (ab_part in ('test', 'rest', 'holdout')),
    add constraint a_test_mail_has_a_variant check (ab_part <> 'test' or variant_id is not null);
comment on column messages.ab_part is
    'In a run with an A/B test: test (compared), rest (gets what was decided), holdout (gets nothing); else null.';
-- Counting a test reads nothing but its own part of this index.
create index messages_of_ab_tests on messages (variant_id, message_id)
    include (contact_id, status, last_code, queued_at, sent_at) where ab_part = 'test';
create index messages_held_out on messages (campaign_id, occurrence) include (contact_id, due_at)
    where ab_part = 'holdout';

-- What the rest of an audience gets is not known when it is queued.
drop trigger a_message_keeps_its_content on messages;
create trigger a_message_keeps_its_content before update of content_id on messages
    for each row when (
        old.content_id is distinct from new.content_id
        and not coalesce(
            old.ab_part = 'rest' and old.status = 'queued' and old.variant_id is null and old.attempt_no = 0, false))
    execute function what_was_sent_stays();

-- What the ledger, hits and orders know of each variant: the test mail alone, never the rest that got it later.
create view ab_variant_ledger as
select
    variants.test_id, variants.variant_id, ledger.assigned, ledger.waiting, ledger.attempted, ledger.sent,
    ledger.delivered, ledger.bounced, touched.opens as unique_opens, touched.clicks as unique_clicks,
    bought.conversions, bought.revenue, bought.revenue_squares, ledger.last_handover_at
from ab_variants as variants
inner join ab_tests as tests on tests.test_id = variants.test_id
cross join lateral (
    select
        count(*) as assigned,
        count(*) filter (where status in ('queued', 'sending')) as waiting,
        count(*) filter (
            where sent_at is not null or status in ('bounced', 'unknown')
                or (status = 'failed' and last_code between 500 and 599)
        ) as attempted,
        count(sent_at) as sent,
        count(*) filter (where sent_at is not null and status <> 'bounced') as delivered,
        count(*) filter (where status = 'bounced') as bounced,
        -- Rows of one run are queued by one statement; hits are looked for from then on.
        least(min(queued_at), tests.planned_at) - interval '1 hour' as since,
        max(sent_at) as last_handover_at
    from messages
    where variant_id = variants.variant_id and ab_part = 'test'
) as ledger
cross join lateral (
    select count(*) as opens, count(*) filter (where is_click) as clicks
    from (
        select messages.message_id, bool_or(hits.kind = 'click') as is_click
        from messages
        inner join hits on hits.message_id = messages.message_id and hits.occurred_at >= ledger.since
        inner join hit_verdicts as given on given.hit_id = hits.hit_id and given.verdict = 'human'
        where messages.variant_id = variants.variant_id and messages.ab_part = 'test'
            and hits.kind in ('open', 'click')
            and not exists (
                select from hit_verdicts as later
                where later.hit_id = given.hit_id and later.rule_version > given.rule_version)
        group by messages.message_id
    ) as people
) as touched
cross join lateral (
    select
        count(*) as conversions, coalesce(sum(spent), 0) as revenue,
        coalesce(sum(spent * spent), 0) as revenue_squares
    from (
        select
            messages.contact_id,
            coalesce(sum(orders.net_total * orders.fx_rate) filter (
                where orders.reporting_currency = (
                    select newest.reporting_currency
                    from orders as newest
                    order by newest.placed_at desc, newest.order_key desc
                    limit 1
                )), 0) as spent
        from messages
        inner join orders on orders.contact_id = messages.contact_id
            and orders.placed_at between messages.sent_at
                and messages.sent_at + make_interval(hours => 24 * tests.conversion_days)
        where messages.variant_id = variants.variant_id and messages.ab_part = 'test'
            and messages.contact_id > 0
        group by messages.contact_id
    ) as customers
) as bought;
comment on view ab_variant_ledger is
    'One row per variant of an A/B test: what its test mail brought. Reading one test costs its own messages only.';

create view ab_variant_observed as
select
    variants.test_id, variants.variant_id, seen.sent, seen.bounced, seen.openers, seen.clickers, seen.last_sent_at
from ab_variants as variants
cross join lateral (
    select
        count(*) filter (where event_type = 'sent') as sent,
        count(*) filter (where event_type = 'bounced') as bounced,
        -- Who clicked has opened; of those nobody names, as many as the larger of both.
        count(distinct contact_id) filter (where event_type in ('opened', 'clicked'))
            + greatest(
                count(*) filter (where event_type = 'opened' and contact_id is null),
                count(*) filter (where event_type = 'clicked' and contact_id is null)
            ) as openers,
        count(*) filter (where event_type = 'clicked') as clickers,
        max(observed_at) filter (where event_type = 'sent') as last_sent_at
    from ab_test_observations
    where variant_id = variants.variant_id
) as seen;
comment on view ab_variant_observed is 'One row per variant of an A/B test: what callers told was seen elsewhere.';

-- One definition for the results and the analysts' view.
create view ab_variant_figures as
select
    known.test_id, known.variant_id,
    known.assigned + greatest(seen.sent, seen.bounced) as assigned,
    known.waiting,
    known.attempted + greatest(seen.sent, seen.bounced) as attempted,
    known.sent + seen.sent as sent,
    known.delivered + greatest(seen.sent - seen.bounced, 0) as delivered,
    known.bounced + seen.bounced as bounced,
    known.unique_opens + seen.openers as unique_opens,
    known.unique_clicks + seen.clickers as unique_clicks,
    known.conversions, known.revenue, known.revenue_squares,
    known.last_handover_at, seen.last_sent_at as last_observed_at
from ab_variant_ledger as known
inner join ab_variant_observed as seen on seen.variant_id = known.variant_id;
comment on view ab_variant_figures is
    'One row per variant of an A/B test: what its test mail brought, and what was seen elsewhere.';

create table ab_variant_totals (
    variant_id bigint primary key references ab_variants on delete cascade,
    sent bigint not null,
    bounced bigint not null,
    unique_opens bigint not null,
    unique_clicks bigint not null,
    conversions bigint not null,
    revenue numeric not null,
    refreshed_at timestamptz not null
);
comment on table ab_variant_totals is
    'ab_variant_ledger as last counted, for lists: recounted together with campaign_totals.';
