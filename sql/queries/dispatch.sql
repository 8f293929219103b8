-- Dispatch: taking events off the queue and telling webhooks what people did.

-- name: waiting_buckets
-- The buckets that have events waiting, found by jumping through the key instead of reading it all.
with recursive buckets (bucket) as (
    (select bucket from event_pending order by bucket limit 1)
    union all
    select (
        select event_pending.bucket
        from event_pending
        where event_pending.bucket > buckets.bucket
        order by event_pending.bucket
        limit 1
    )
    from buckets
    where buckets.bucket is not null
)

select bucket
from buckets
where bucket is not null;

-- name: lock_buckets
-- Holds buckets until the transaction ends; gives those that nobody else holds.
select wanted.bucket
from unnest(cast(:buckets as int[])) as wanted (bucket)
where pg_try_advisory_xact_lock(722617, wanted.bucket);

-- name: take
-- Takes the oldest events of each bucket off the queue, bucket after bucket until there are enough (a row more than
-- the size at most); they take effect in the same transaction. Small queues are spread over all buckets: one
-- transaction for each would cost the most.
with oldest as materialized (
    select waiting.*
    from (
        select
            entry.*,
            sum(entry.event_count) over (rows between unbounded preceding and current row)
            - entry.event_count as count_before
        from unnest(cast(:buckets as smallint[])) as held (bucket)
        cross join lateral (
            select
                event_pending.bucket, event_pending.occurred_at, event_pending.first_event_id,
                event_pending.event_count
            from event_pending
            where event_pending.bucket = held.bucket
            order by event_pending.occurred_at, event_pending.first_event_id
            limit cast(:size as int)
        ) as entry
        limit cast(:size as int)
    ) as waiting
    where waiting.count_before < cast(:size as int)
),

taken as (
    delete from event_pending
    using oldest
    where event_pending.bucket = oldest.bucket
        and event_pending.occurred_at = oldest.occurred_at
        and event_pending.first_event_id = oldest.first_event_id
    returning event_pending.event_ids, event_pending.occurred_at, event_pending.depth
)

select event.event_id, taken.occurred_at, taken.depth
from taken
cross join lateral unnest(taken.event_ids) as event (event_id)
order by taken.occurred_at, event.event_id;

-- name: tell_engagement
-- Offers human opens and clicks to webhooks; what a caller merely observed is not ours to tell.
insert into outbox (event_name, occurred_at, data)
select
    case events.event_type when 'email_opened' then 'email.opened' else 'email.clicked' end,
    events.occurred_at,
    jsonb_strip_nulls(jsonb_build_object(
        'message_id', cast(events.message_id as text),
        'campaign_id', cast(events.campaign_id as text),
        'contact_id', cast(events.contact_id as text), 'email', contacts.email,
        'url', events.properties ->> 'url'))
from unnest(cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]))
    as batch (event_id, occurred_at)
inner join events
    on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
left join contacts on contacts.contact_id = events.contact_id
where events.event_type in ('email_opened', 'email_clicked')
    and events.source = 'mauto'
order by events.occurred_at, events.event_id;

-- name: last_fact
-- The newest fact for webhooks.
select coalesce(max(outbox_id), 0)
from outbox;

-- name: count_entries
-- How many entered which workflow since a fact.
select cast(data ->> 'workflow_id' as bigint) as workflow_id, count(*) as entry_count
from outbox
where outbox_id > cast(:told as bigint)
    and event_name = 'workflow.triggered'
group by data ->> 'workflow_id'
order by 1;
