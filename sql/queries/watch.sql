-- What waits longer than it should: each statement counts what is older than a moment, and says since when the
-- oldest is. All read indexes of what is open, never the past.

-- name: imports_waiting
-- Imports that nobody works on: queued, or their worker's lease ran out.
select count(*) as row_count, min(coalesce(lease_until, created_at)) as since
from imports
where status in ('queued', 'running', 'cancelling')
    and coalesce(lease_until, created_at) < cast(:before as timestamptz);

-- name: campaigns_unplanned
-- Campaigns whose time has come and whose audience is not frozen yet.
select count(*) as row_count, min(due.since) as since
from (
    select coalesce(plan_at, scheduled_at) as since from campaigns where status = 'scheduled'
    union all
    select requested_at from campaigns where status = 'sending' and planned_at is null
) as due
where due.since < cast(:before as timestamptz);

-- name: campaigns_without_progress
-- Campaigns with mail that is due and may go by their pace, of which nothing was handed over since.
-- What a mail server that is away puts off, a quarter of an hour at most, waits since it was due.
select count(*) as row_count, min(due.since) as since
from campaigns
left join campaign_paces as paces on paces.campaign_id = campaigns.campaign_id
left join campaign_paces as common on common.campaign_id = 0
cross join lateral (
    select
        greatest(
            case
                when messages.attempt_no = 0 and messages.held_for is null then messages.due_at
                else messages.next_try_at
            end,
            paces.wake_at, common.wake_at
        ) as since
    from messages
    where messages.status = 'queued'
        and coalesce(messages.campaign_id, 0) = campaigns.campaign_id
    order by messages.next_try_at
    limit 1
) as due
where campaigns.status = 'sending'
    and due.since < cast(:before as timestamptz)
    and (select sending_enabled from installation)
    and not exists (
        select from messages
        where messages.campaign_id = campaigns.campaign_id
            and messages.sent_at >= cast(:before as timestamptz)
    );

-- name: messages_overdue
-- Mail of no campaign (workflows, rules, transactional) that is due, also if a server that is away
-- puts it off, a quarter of an hour at most.
select count(*) as row_count, min(known.since) as since
from (
    select waiting.since
    from messages
    cross join lateral (
        select
            case when attempt_no = 0 and held_for is null then due_at else next_try_at end
                as since
    ) as waiting
    where status = 'queued'
        and coalesce(campaign_id, 0) = 0
        and next_try_at < cast(:before as timestamptz) + interval '30 minutes'
        and waiting.since < cast(:before as timestamptz)
        and (select sending_enabled from installation)
    limit 100000
) as known;

-- name: messages_in_flight
-- Messages in the hands of a sender whose lease ran out.
select count(*) as row_count, min(lease_until) as since
from messages
where status = 'sending' and lease_until < cast(:before as timestamptz);

-- name: messages_in_doubt
-- Messages that may or may not have been accepted, without evidence since.
select count(*) as row_count, min(known.recorded_at) as since
from (
    select message_attempts.recorded_at
    from messages
    inner join message_attempts
        on message_attempts.contact_id = messages.contact_id
        and message_attempts.message_id = messages.message_id
        and message_attempts.attempt_id = messages.attempt_id
        and message_attempts.outcome = 'unknown'
    where messages.status = 'unknown'
        and message_attempts.recorded_at < cast(:before as timestamptz)
    limit 100000
) as known;

-- name: tests_undecided
-- A/B tests whose deadline is over and that should have been decided.
select count(*) as row_count, min(deadline_at) as since
from ab_tests
where status = 'running'
    and planned_at is not null
    and auto_select_winner
    and decision is null
    and deadline_at < cast(:before as timestamptz);

-- name: events_without_effect
-- Events that nobody dispatched; they wait since they were received, whenever they happened.
select
    case when oldest.received_at < cast(:before as timestamptz) then pending.row_count else 0 end
        as row_count,
    case when oldest.received_at < cast(:before as timestamptz) then oldest.received_at end as since
from (
    select coalesce(sum(event_count), 0) as row_count, min(first_event_id) as first_event_id
    from (select event_count, first_event_id from event_pending limit 100000) as known
) as pending
left join lateral (
    select events.received_at from events where events.event_id = pending.first_event_id limit 1
) as oldest on true;

-- name: enrollments_overdue
-- People in workflows whose next step is due.
select count(*) as row_count, min(known.resume_at) as since
from (
    select resume_at
    from enrollments
    where status in ('running', 'waiting') and resume_at < cast(:before as timestamptz)
    limit 100000
) as known;

-- name: rules_overdue
-- Runs of rules whose wait is over.
select count(*) as row_count, min(known.resume_at) as since
from (
    select resume_at
    from automation_waits
    where resume_at < cast(:before as timestamptz)
    limit 100000
) as known;

-- name: segments_overdue
-- Segments whose evaluation is due.
select count(*) as row_count, min(evaluation_due_at) as since
from segments
where evaluation_due_at < cast(:before as timestamptz);

-- name: facts_untold
-- Facts for webhooks of which no delivery was made though somebody listens.
select count(*) as row_count, min(known.created_at) as since
from (
    select created_at from outbox where expanded_at is null order by outbox_id limit 100000
) as known
where known.created_at < cast(:before as timestamptz)
    and exists (select from webhook_endpoints where active and is_listed);

-- name: deliveries_overdue
-- Deliveries to active webhooks whose next attempt is due, or whose lease ran out.
select count(*) as row_count, min(known.next_attempt_at) as since
from (
    select webhook_deliveries.next_attempt_at
    from webhook_endpoints
    inner join webhook_deliveries
        on webhook_deliveries.endpoint_id = webhook_endpoints.endpoint_id
    where webhook_endpoints.active
        and webhook_deliveries.status = 'pending'
        and webhook_deliveries.next_attempt_at < cast(:before as timestamptz)
    limit 100000
) as known;

-- name: notices_unapplied
-- Notices of the provider that nobody looked at though they are due.
select count(*) as row_count, min(next_look_at) as since
from provider_notices
where next_look_at < cast(:before as timestamptz);

-- name: notices_parked
-- Notices that wait for the message they are about.
select count(*) as row_count, min(received_at) as since
from provider_notices
where next_look_at is not null
    and status = 'parked'
    and received_at < cast(:before as timestamptz);

-- name: erasures_unfinished
-- Erasures that are not carried out.
select count(*) as row_count, min(requested_at) as since
from erasures
where status <> 'completed' and requested_at < cast(:before as timestamptz);

-- name: recomputations_waiting
-- Recomputations of scores that nobody works on.
select count(*) as row_count, min(due_at) as since
from score_recomputations
where due_at < cast(:before as timestamptz);

-- name: tables_not_refreshed
-- Tables of schema analytics whose last refresh is long ago.
select count(*) as row_count, min(refreshed_at) as since
from rollups.states
where refreshed_at < cast(:before as timestamptz);

-- name: sending_off
-- Whether mail is held back.
select count(*) as row_count, min(changed_at) as since
from installation
where not sending_enabled and changed_at < cast(:before as timestamptz);

-- name: dag_beats
-- When each of these DAGs last ended well; one that never did counts from the migration that watches it.
select wanted.dag, coalesce(heartbeats.beat_at, installed.applied_at) as beat_at
from unnest(cast(:dags as text[])) as wanted (dag)
left join heartbeats on heartbeats.component = 'airflow.' || wanted.dag
cross join (
    select min(applied_at) as applied_at
    from schema_migrations
    where name like 'migrations/0054%'
) as installed;

-- name: beat_of
-- The last sign of life of one component, and what it said.
select beat_at, detail from heartbeats where component = cast(:component as text);
