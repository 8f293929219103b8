-- What an operator watches: depths and ages of queues, read by indexes only and counted to 100000 at most.

-- name: messages
-- Messages that are not at their end, by state: how many, and since when the oldest is due or in doubt.
select 'queued' as state, counted.row_count, oldest.since
from (
    select count(*) as row_count
    from (select from messages where status = 'queued' limit 100000) as known
) as counted
cross join (
    select min(sources.since) as since
    from (
        select
            (
                select min(messages.next_try_at)
                from messages
                where messages.status = 'queued'
                    and coalesce(messages.campaign_id, 0) = keys.campaign_key
            ) as since
        from (
            select cast(0 as bigint) as campaign_key
            union all
            select campaign_id from campaigns where status = 'sending'
        ) as keys
    ) as sources
) as oldest
union all
select 'sending', count(*), min(lease_until) - interval '15 minutes'
from (select lease_until from messages where status = 'sending' limit 100000) as known
union all
select 'unknown', count(*), min(queued_at)
from (select queued_at from messages where status = 'unknown' limit 100000) as known;

-- name: queues
-- Every other queue: how much waits, and since when the oldest does.
select 'imports' as queue, count(*) as row_count, min(created_at) as since
from imports
where status in ('queued', 'running', 'cancelling')
union all
select 'events', coalesce(sum(event_count), 0), min(occurred_at)
from (select event_count, occurred_at from event_pending limit 100000) as known
union all
select 'webhook_facts', count(*), min(created_at)
from (
    select created_at from outbox where expanded_at is null order by outbox_id limit 100000
) as known
where exists (select from webhook_endpoints where active and is_listed)
union all
select 'webhook_deliveries', count(*), min(next_attempt_at)
from (
    select webhook_deliveries.next_attempt_at
    from webhook_deliveries
    inner join webhook_endpoints
        on webhook_endpoints.endpoint_id = webhook_deliveries.endpoint_id
    where webhook_deliveries.status = 'pending' and webhook_endpoints.active
    limit 100000
) as known
union all
select 'webhook_dead_letters', count(*), cast(null as timestamptz)
from (select from webhook_deliveries where status = 'dead' limit 100000) as known
union all
select 'notices', count(*), min(next_look_at)
from (
    select next_look_at from provider_notices where next_look_at is not null limit 100000
) as known
union all
select 'erasures', count(*), min(requested_at)
from erasures
where status <> 'completed'
union all
select 'score_recomputations', count(*), min(due_at)
from score_recomputations
where due_at is not null;

-- name: campaigns
-- Campaigns by state.
select status, count(*) as row_count from campaigns group by status;

-- name: campaign_results
-- What became of the messages of all campaigns; recounted while one is sending.
select
    coalesce(sum(sent), 0) as sent, coalesce(sum(delivered), 0) as delivered,
    coalesce(sum(bounced), 0) as bounced, coalesce(sum(complained), 0) as complained,
    coalesce(sum(failed), 0) as failed, coalesce(sum(skipped), 0) as skipped
from campaign_totals;

-- name: last_minute
-- Events of the minute before a moment, by type; read from the index of types.
select kinds.event_type, count(recent.occurred_at) as row_count
from unnest(cast(
    '{email_sent,email_opened,email_clicked,email_bounced,email_complained,unsubscribed}' as text[]
)) as kinds (event_type)
left join lateral (
    select events.occurred_at
    from events
    where events.event_type = kinds.event_type
        -- The index has neither.
        and events.event_type not in ('contact_created', 'contact_updated')
        and events.occurred_at > cast(:now as timestamptz) - interval '1 minute'
        and events.occurred_at <= cast(:now as timestamptz)
    limit 100000
) as recent on true
group by kinds.event_type;

-- name: webhook_results
-- Attempts of webhooks ever made, and those that failed.
select
    coalesce(sum(total_deliveries), 0) as attempts, coalesce(sum(total_failures), 0) as failures
from webhook_endpoints;

-- name: beats
-- When each background component gave its last sign of life.
select component, beat_at from heartbeats;

-- name: schema
-- How many migrations were applied, and the number of the newest.
select
    count(*) as applied,
    coalesce(max(cast(substring(name from 'migrations/([0-9]+)_') as int)), 0) as newest
from schema_migrations
where name like 'migrations/%';

-- name: month_ahead
-- Which partitioned tables have no partition for a day.
select parents.parent
from unnest(cast('{events,hits,score_history}' as text[])) as parents (parent)
where to_regclass(
    parents.parent || to_char(cast(:day as date), '"_y"YYYY"m"MM')
) is null;
