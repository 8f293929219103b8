-- Appending events: each fact once, whoever tells it how often.

-- name: append
-- Stores events given as arrays; an event whose (source, external_id) is known is not stored again.
with given as materialized (
    select nextval('event_ids') as event_id, incoming.*
    from unnest(
        cast(:contact_id as bigint[]), cast(:occurred_at as timestamptz[]),
        cast(:event_type as text[]),
        cast(:source as text[]), cast(:external_id as text[]), cast(:content_hash as bytea[]),
        cast(:properties as text[]), cast(:campaign_id as bigint[]), cast(:message_id as bigint[]),
        cast(:order_key as bigint[])
    ) with ordinality as incoming (
        contact_id, occurred_at, event_type, source, external_id, content_hash, properties,
        campaign_id, message_id, order_key, ordinal)
),

-- Ordered, so that two writers with the same keys wait for each other instead of deadlocking.
claimed as (
    insert into event_keys (source, external_id, event_id, occurred_at, content_hash)
    select distinct on (source, external_id)
        source, external_id, event_id, occurred_at, content_hash
    from given
    where external_id is not null
    order by source, external_id, ordinal
    on conflict (source, external_id) do nothing
    returning source, external_id, event_id, content_hash
),

stored as (
    insert into events (
        event_id, contact_id, occurred_at, received_at, event_type, source, external_id, properties,
        campaign_id, message_id, order_key)
    select
        given.event_id, given.contact_id, given.occurred_at, cast(:now as timestamptz),
        given.event_type, given.source, given.external_id, cast(given.properties as jsonb),
        given.campaign_id, given.message_id, given.order_key
    from given
    left join claimed on claimed.event_id = given.event_id
    where given.external_id is null or claimed.event_id is not null
    returning event_id, contact_id, occurred_at
),

waiting as (
    insert into event_pending (event_id, bucket, contact_id, occurred_at)
    select event_id, contact_id % 64, contact_id, occurred_at
    from stored
    where cast(:effects as boolean)
)

select
    given.ordinal, stored.event_id is not null as is_new,
    coalesce(stored.event_id, claimed.event_id, event_keys.event_id) as event_id,
    coalesce(claimed.content_hash, event_keys.content_hash) as content_hash
from given
left join stored on stored.event_id = given.event_id
left join claimed
    on claimed.source = given.source and claimed.external_id = given.external_id
left join event_keys
    on event_keys.source = given.source and event_keys.external_id = given.external_id
order by given.ordinal;

-- name: find_keys
-- The events behind keys that another transaction stored while `append` was running.
select incoming.ordinal, event_keys.event_id, event_keys.content_hash
from unnest(cast(:source as text[]), cast(:external_id as text[]), cast(:ordinal as bigint[]))
    as incoming (source, external_id, ordinal)
inner join event_keys
    on event_keys.source = incoming.source and event_keys.external_id = incoming.external_id;

-- name: ensure_months_of_batch
-- Makes the monthly partitions that a staged batch needs; returns the new ones.
select made.partition_name
from (
    select distinct cast(date_trunc('month', occurred_at at time zone 'utc') as date) as month_start
    from staging.event_rows
    where batch_id = cast(:batch_id as bigint)
) as months
cross join lateral ensure_month_partition(cast('events' as regclass), months.month_start)
    as made (partition_name)
where made.partition_name is not null;

-- name: append_batch
-- Stores a staged batch like `append`; returns how many rows were given and how many were new.
with given as materialized (
    select nextval('event_ids') as event_id, staged.*
    from (
        select * from staging.event_rows where batch_id = cast(:batch_id as bigint) order by ordinal
    ) as staged
),

claimed as (
    insert into event_keys (source, external_id, event_id, occurred_at)
    select distinct on (source, external_id) source, external_id, event_id, occurred_at
    from given
    where external_id is not null
    order by source, external_id, ordinal
    on conflict (source, external_id) do nothing
    returning event_id
),

stored as (
    insert into events (
        event_id, contact_id, occurred_at, received_at, event_type, source, external_id, properties,
        campaign_id, message_id, order_key)
    select
        given.event_id, given.contact_id, given.occurred_at,
        coalesce(given.received_at, cast(:now as timestamptz)), given.event_type, given.source,
        given.external_id, given.properties, given.campaign_id, given.message_id, given.order_key
    from given
    left join claimed on claimed.event_id = given.event_id
    where given.external_id is null or claimed.event_id is not null
    returning event_id, contact_id, occurred_at
),

waiting as (
    insert into event_pending (event_id, bucket, contact_id, occurred_at)
    select event_id, contact_id % 64, contact_id, occurred_at
    from stored
    where cast(:effects as boolean)
)

select (select count(*) from given) as given_count, (select count(*) from stored) as new_count;

-- name: forget_batch
-- Empties the staging rows of a batch.
delete from staging.event_rows
where batch_id = cast(:batch_id as bigint);

-- name: record_hits
-- Stores a batch of hits with verdicts, and an event for each human hit of a known contact.
with given as materialized (
    select
        nextval('hit_ids') as hit_id, nextval('event_ids') as event_id, incoming.*,
        known.contact_id is not null as is_known,
        -- Somebody erased: the hit stays, nothing personal does.
        incoming.contact_id > 0 and known.contact_id is null as is_gone
    from unnest(
        cast(:occurred_at as timestamptz[]), cast(:kind as text[]), cast(:verdict as text[]),
        cast(:contact_id as bigint[]), cast(:campaign_id as bigint[]),
        cast(:message_id as bigint[]), cast(:link_position as int[]), cast(:url as text[]),
        cast(:user_agent as text[]), cast(:network as text[]), cast(:is_head as boolean[]),
        cast(:purpose as text[])
    ) with ordinality as incoming (
        occurred_at, kind, verdict, contact_id, campaign_id, message_id, link_position, url,
        user_agent, network, is_head, purpose, ordinal)
    left join existing_contacts(cast(:contact_id as bigint[])) as known
        on known.contact_id = incoming.contact_id
),

kept as (
    insert into hits (
        hit_id, occurred_at, kind, contact_id, campaign_id, message_id, link_position, url,
        user_agent, network, is_head, purpose, batch_key)
    select
        hit_id, occurred_at, kind, case when is_gone then 0 else contact_id end, campaign_id,
        message_id, link_position, url, case when is_gone then '' else user_agent end,
        case when is_gone then '' else network end, is_head, purpose,
        case when ordinal = 1 then cast(:batch_key as text) end
    from given
),

judged as (
    insert into hit_verdicts (hit_id, rule_version, verdict, decided_at)
    select hit_id, cast(:rule_version as int), verdict, occurred_at
    from given
),

effective as (
    select *
    from given
    where verdict = 'human' and is_known and kind in ('open', 'click')
),

-- The hit is the key of its event: both are written or neither, so event_keys is not needed.
stored as (
    insert into events (
        event_id, contact_id, occurred_at, event_type, source, external_id, properties,
        campaign_id, message_id)
    select
        event_id, contact_id, occurred_at,
        case kind when 'open' then 'email_opened' else 'email_clicked' end, 'mauto',
        'hit:' || hit_id,
        case kind when 'open' then '{}' else jsonb_build_object('url', url) end,
        campaign_id, message_id
    from effective
),

waiting as (
    insert into event_pending (event_id, bucket, contact_id, occurred_at)
    select event_id, contact_id % 64, contact_id, occurred_at
    from effective
)

select count(*) as hit_count
from given;
