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

-- name: record_orders
-- Stores orders, each (source, order_id) once, with the last exchange rate before it.
with given as materialized (
    select incoming.*
    from unnest(
        cast(:contact_id as bigint[]), cast(:source as text[]), cast(:order_id as text[]),
        cast(:placed_at as timestamptz[]), cast(:currency as text[]), cast(:total as numeric[]),
        cast(:discount as numeric[]), cast(:shipping as numeric[]), cast(:tax as numeric[]),
        cast(:lines as text[]), cast(:cart_id as text[])
    ) with ordinality as incoming (
        contact_id, source, order_id, placed_at, currency, total, discount, shipping, tax, lines,
        cart_id, ordinal)
),

stored as (
    insert into orders (
        contact_id, source, order_id, placed_at, currency, total, discount, shipping, tax, lines,
        cart_id, reporting_currency, fx_rate, fx_date, received_at)
    select distinct on (given.source, given.order_id)
        given.contact_id, given.source, given.order_id, given.placed_at, given.currency,
        given.total, given.discount, given.shipping, given.tax, cast(given.lines as jsonb),
        given.cart_id,
        cast(:reporting_currency as text), fx.rate, fx.rate_date, cast(:now as timestamptz)
    from given
    left join lateral fx_rate_on(
        given.currency, cast(:reporting_currency as text),
        cast(given.placed_at at time zone 'utc' as date)) as fx on true
    order by given.source, given.order_id, given.ordinal
    on conflict (source, order_id) do nothing
    returning source, order_id, order_key
)

select given.ordinal, stored.order_key
from given
inner join stored on stored.source = given.source and stored.order_id = given.order_id
where not exists (
    select 1
    from given as earlier
    where earlier.source = given.source and earlier.order_id = given.order_id
        and earlier.ordinal < given.ordinal
);

-- name: compare_orders
-- Known orders that were told again: their key, and whether the content is the same.
select
    incoming.ordinal, orders.order_key,
    (orders.currency, orders.total, orders.discount, orders.shipping, orders.tax, orders.lines,
        orders.cart_id)
    is not distinct from
    (cast(incoming.currency as char(3)), cast(incoming.total as numeric(19, 4)),
        cast(incoming.discount as numeric(19, 4)), cast(incoming.shipping as numeric(19, 4)),
        cast(incoming.tax as numeric(19, 4)), cast(incoming.lines as jsonb), incoming.cart_id)
    as is_same
from unnest(
    cast(:source as text[]), cast(:order_id as text[]), cast(:currency as text[]),
    cast(:total as numeric[]), cast(:discount as numeric[]), cast(:shipping as numeric[]),
    cast(:tax as numeric[]), cast(:lines as text[]), cast(:cart_id as text[])
) with ordinality as incoming (
    source, order_id, currency, total, discount, shipping, tax, lines, cart_id, ordinal)
inner join orders on orders.source = incoming.source and orders.order_id = incoming.order_id;

-- name: record_refunds
-- Stores refunds, a numbered one once; says which are new and whose the order is, if it is here.
with given as materialized (
    select incoming.*
    from unnest(
        cast(:source as text[]), cast(:order_id as text[]), cast(:refund_id as text[]),
        cast(:currency as text[]), cast(:amount as numeric[]), cast(:occurred_at as timestamptz[])
    ) with ordinality as incoming (
        source, order_id, refund_id, currency, amount, occurred_at, ordinal)
),

fresh as (
    select distinct on (source, order_id, coalesce(refund_id, 'unnumbered ' || ordinal)) *
    from given
    order by source, order_id, coalesce(refund_id, 'unnumbered ' || ordinal), ordinal
),

numbered as (
    insert into refunds (source, order_id, refund_id, currency, amount, occurred_at)
    select source, order_id, refund_id, currency, amount, occurred_at
    from fresh
    where refund_id is not null
    on conflict (source, order_id, refund_id) where refund_id is not null do nothing
    returning source, order_id, refund_id
),

unnumbered as (
    insert into refunds (source, order_id, currency, amount, occurred_at)
    select source, order_id, currency, amount, occurred_at
    from fresh
    where refund_id is null
)

select fresh.ordinal, coalesce(orders.contact_id, 0) as contact_id, orders.order_key
from fresh
left join numbered
    on numbered.source = fresh.source and numbered.order_id = fresh.order_id
    and numbered.refund_id = fresh.refund_id
left join orders on orders.source = fresh.source and orders.order_id = fresh.order_id
where fresh.refund_id is null or numbered.refund_id is not null
order by fresh.ordinal;

-- name: apply_refunds
-- Takes waiting refunds off their orders, now that both are here; returns how many.
with waiting as materialized (
    select refunds.refund_key, orders.contact_id, orders.order_key, refunds.amount
    from refunds
    inner join orders
        on orders.source = refunds.source and orders.order_id = refunds.order_id
        and orders.currency = refunds.currency
    where refunds.applied_at is null
    order by refunds.refund_key
    for update of refunds skip locked
),

sums as (
    select contact_id, order_key, sum(amount) as amount
    from waiting
    group by contact_id, order_key
),

reduced as (
    update orders
    set refunded_total = orders.refunded_total + sums.amount
    from sums
    where orders.contact_id = sums.contact_id and orders.order_key = sums.order_key
),

applied as (
    update refunds
    set applied_at = cast(:now as timestamptz)
    from waiting
    where refunds.refund_key = waiting.refund_key
    returning refunds.refund_key
)

select count(*) as refund_count
from applied;

-- name: upsert_rates
-- Stores exchange rates; returns how many were new or changed, and the first day of these.
with stored as (
    insert into fx_rates (rate_date, base, quote, rate, source, loaded_at)
    select distinct on (incoming.base, incoming.quote, incoming.rate_date)
        incoming.rate_date, incoming.base, incoming.quote, incoming.rate, cast(:source as text),
        cast(:now as timestamptz)
    from unnest(
        cast(:rate_date as date[]), cast(:base as text[]), cast(:quote as text[]),
        cast(:rate as numeric[])
    ) with ordinality as incoming (rate_date, base, quote, rate, ordinal)
    order by incoming.base, incoming.quote, incoming.rate_date, incoming.ordinal desc
    on conflict (base, quote, rate_date) do update
    set rate = excluded.rate, source = excluded.source, loaded_at = excluded.loaded_at
    where fx_rates.rate is distinct from excluded.rate
    returning rate_date
)

select count(*) as rate_count, min(rate_date) as first_day
from stored;

-- name: convert_orders
-- Gives orders placed since a day, and those that wait for a rate, the last rate before them.
with wanted as (
    select orders.contact_id, orders.order_key, fx.rate, fx.rate_date
    from orders
    inner join lateral fx_rate_on(
        orders.currency, orders.reporting_currency,
        cast(orders.placed_at at time zone 'utc' as date)) as fx on true
    where orders.fx_rate is null or orders.placed_at >= cast(:since as timestamptz)
)

update orders
set fx_rate = wanted.rate, fx_date = wanted.rate_date
from wanted
where orders.contact_id = wanted.contact_id and orders.order_key = wanted.order_key
    and (orders.fx_rate, orders.fx_date)
    is distinct from (cast(wanted.rate as numeric(18, 8)), wanted.rate_date);
