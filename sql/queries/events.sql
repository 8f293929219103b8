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
    insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)
    select contact_id % 64, occurred_at, min(event_id), array_agg(event_id), count(*)
    from stored
    where cast(:effects as boolean)
    group by contact_id % 64, occurred_at, event_id / 8192
),

-- What dispatch never sees, scores learn here.
marked as (
    insert into score_stale (contact_id)
    select distinct contact_id
    from stored
    where not cast(:effects as boolean) and contact_id > 0
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
    insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)
    select contact_id % 64, occurred_at, min(event_id), array_agg(event_id), count(*)
    from stored
    where cast(:effects as boolean)
    group by contact_id % 64, occurred_at, event_id / 8192
),

-- What dispatch never sees, scores learn here.
marked as (
    insert into score_stale (contact_id)
    select distinct contact_id
    from stored
    where not cast(:effects as boolean) and contact_id > 0
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
        timestamptz 'epoch' + at_microseconds * interval '1 microsecond' as occurred_at,
        known.contact_id is not null as is_known,
        -- Somebody erased: the hit stays, nothing personal does.
        incoming.contact_id > 0 and known.contact_id is null as is_gone
    from unnest(
        cast(cast(:at_microseconds as text) as bigint[]), cast(cast(:kind as text) as text[]),
        cast(cast(:verdict as text) as text[]), cast(cast(:contact_id as text) as bigint[]),
        cast(cast(:campaign_id as text) as bigint[]), cast(cast(:message_id as text) as bigint[]),
        cast(cast(:link_position as text) as int[]), cast(cast(:url as text) as text[]),
        cast(cast(:user_agent as text) as text[]), cast(cast(:network as text) as text[]),
        cast(cast(:is_head as text) as boolean[]), cast(cast(:purpose as text) as text[])
    ) with ordinality as incoming (
        at_microseconds, kind, verdict, contact_id, campaign_id, message_id, link_position, url,
        user_agent, network, is_head, purpose, ordinal)
    left join existing_contacts(cast(cast(:contact_id as text) as bigint[])) as known
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
    insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)
    select contact_id % 64, occurred_at, min(event_id), array_agg(event_id), count(*)
    from effective
    group by contact_id % 64, occurred_at, event_id / 8192
)

select count(*) as hit_count
from given;

-- name: reserve
-- Gives each told event its number and claims its (source, external_id); is_new: nobody told it before.
with given as materialized (
    select incoming.*, nextval('event_ids') as event_id
    from json_to_recordset(cast(:rows as json)) as incoming (
        ordinal int, source text, external_id text, occurred_at timestamptz)
),

-- Ordered, so that two writers with the same keys wait for each other instead of deadlocking.
claimed as (
    insert into event_keys (source, external_id, event_id, occurred_at)
    select distinct on (source, external_id) source, external_id, event_id, occurred_at
    from given
    where external_id is not null
    order by source, external_id, ordinal
    on conflict (source, external_id) do nothing
    returning event_id
)

select
    given.ordinal, given.event_id,
    given.external_id is null or claimed.event_id is not null as is_new
from given
left join claimed on claimed.event_id = given.event_id
order by given.ordinal;

-- name: release
-- Gives up claims made in this transaction, of events that will not be stored.
delete from event_keys
using json_to_recordset(cast(:rows as json)) as incoming (source text, external_id text)
where event_keys.source = incoming.source and event_keys.external_id = incoming.external_id;

-- name: find_first
-- The events behind known keys; keys nobody told are left out.
select incoming.ordinal, event_keys.event_id, event_keys.occurred_at
from json_to_recordset(cast(:rows as json)) as incoming (
    ordinal int, source text, external_id text)
inner join event_keys
    on event_keys.source = incoming.source and event_keys.external_id = incoming.external_id;

-- name: find_owners
-- Whose these events are. Apart from `find_first`: planning it over all months costs more than that finds.
select events.event_id, events.contact_id
from json_to_recordset(cast(:rows as json)) as incoming (event_id bigint, occurred_at timestamptz)
inner join events
    on events.event_id = incoming.event_id and events.occurred_at = incoming.occurred_at;

-- name: store
-- Stores events that have their numbers, and queues them for dispatch where effects are wanted.
with stored as (
    insert into events (
        event_id, contact_id, occurred_at, received_at, event_type, source, external_id, properties,
        order_key)
    select
        event_id, contact_id, occurred_at, cast(:now as timestamptz), event_type, source,
        external_id, properties, order_key
    from json_to_recordset(cast(:rows as json)) as incoming (
        event_id bigint, contact_id bigint, occurred_at timestamptz, event_type text, source text,
        external_id text, properties jsonb, order_key bigint)
    returning event_id, contact_id, occurred_at
),

-- What dispatch never sees, scores learn here.
marked as (
    insert into score_stale (contact_id)
    select distinct contact_id
    from stored
    where not cast(:effects as boolean) and contact_id > 0
)

insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)
select contact_id % 64, occurred_at, min(event_id), array_agg(event_id), count(*)
from stored
where cast(:effects as boolean)
group by contact_id % 64, occurred_at, event_id / 8192;

-- name: lock_orders
-- An order and a refund of it are never stored side by side, each blind to the other: refunds hold the bucket of
-- their order's number alone. Orders and rates likewise: whoever stores orders keeps new rates waiting.
select
    case
        when is_exclusive then cast(pg_advisory_xact_lock(space, bucket) as text)
        else cast(pg_advisory_xact_lock_shared(space, bucket) as text)
    end as locked
from (
    select incoming.space, incoming.bucket, bool_or(incoming.is_exclusive) as is_exclusive
    from json_to_recordset(cast(:rows as json)) as incoming (
        space int, bucket int, is_exclusive boolean)
    group by incoming.space, incoming.bucket
    order by incoming.space, incoming.bucket
) as wanted;

-- name: insert_orders
-- Stores orders, each (source, order_id) once, with the last exchange rate before it; gives the new ones.
with given as materialized (
    select incoming.*, cast(incoming.placed_at at time zone 'utc' as date) as placed_on
    from json_to_recordset(cast(:rows as json)) as incoming (
        ordinal int, event_id bigint, contact_id bigint, source text, order_id text,
        placed_at timestamptz, currency text, total numeric, discount numeric, shipping numeric,
        tax numeric, lines jsonb, cart_id text)
),

rates as materialized (
    select days.currency, days.placed_on, fx.rate, fx.rate_date
    from (select distinct currency, placed_on from given) as days
    cross join lateral fx_rate_on(
        days.currency, cast(:reporting_currency as text), days.placed_on) as fx
    where fx.rate < 9999999999
),

stored as (
    insert into orders (
        contact_id, source, order_id, placed_at, currency, total, discount, shipping, tax, lines,
        cart_id, reporting_currency, fx_rate, fx_date, received_at, event_id)
    select distinct on (given.source, given.order_id)
        given.contact_id, given.source, given.order_id, given.placed_at, given.currency,
        given.total, given.discount, given.shipping, given.tax, given.lines, given.cart_id,
        cast(:reporting_currency as text), rates.rate, rates.rate_date, cast(:now as timestamptz),
        given.event_id
    from given
    left join rates
        on rates.currency = given.currency and rates.placed_on = given.placed_on
    order by given.source, given.order_id, given.ordinal
    on conflict (source, order_id) do nothing
    returning order_key, event_id
)

select given.ordinal, stored.order_key
from given
inner join stored on stored.event_id = given.event_id;

-- name: reach_orders
-- Notes which numbers of orders contacts have reached; gives those nobody noted before.
with missing as materialized (
    select people.contact_id, counts.place
    from unnest(cast(:contact_ids as bigint[])) as people (contact_id)
    cross join unnest(cast(:counts as int[])) as counts (place)
    where not exists (
            select 1
            from contact_milestones as known
            where known.contact_id = people.contact_id and known.kind = 'orders'
                and known.milestone = 'orders_' || counts.place
        )
        -- Looks at no more orders than it asks for: some shops have one contact for all walk-in customers.
        and exists (
            select 1 from orders where orders.contact_id = people.contact_id offset counts.place - 1
        )
)

insert into contact_milestones (contact_id, kind, milestone, reached_at, is_told)
select missing.contact_id, 'orders', 'orders_' || missing.place, reached.placed_at, true
from missing
cross join lateral (
    select orders.placed_at
    from orders
    where orders.contact_id = missing.contact_id
    order by orders.placed_at, orders.order_key
    offset missing.place - 1
    limit 1
) as reached
order by missing.contact_id, missing.place
on conflict (contact_id, kind, milestone) do nothing
returning
    contact_id, milestone, reached_at, cast(substring(milestone from 8) as int) as place;

-- name: compare_orders
-- Known orders that are told again: whose they are, their event, and whether the content is the same.
select
    incoming.ordinal, orders.order_key, orders.event_id, orders.contact_id,
    (orders.currency, orders.total, orders.discount, orders.shipping, orders.tax, orders.lines,
        orders.cart_id)
    is not distinct from
    (cast(incoming.currency as char(3)), cast(incoming.total as numeric(19, 4)),
        cast(incoming.discount as numeric(19, 4)), cast(incoming.shipping as numeric(19, 4)),
        cast(incoming.tax as numeric(19, 4)), incoming.lines, incoming.cart_id)
    as is_same
from json_to_recordset(cast(:rows as json)) as incoming (
    ordinal int, source text, order_id text, currency text, total numeric, discount numeric,
    shipping numeric, tax numeric, lines jsonb, cart_id text)
inner join orders on orders.source = incoming.source and orders.order_id = incoming.order_id;

-- name: find_refunded
-- For refunds: the order they are of and, where their number is known, the event that told it first.
select
    incoming.ordinal, orders.order_key, orders.currency,
    coalesce(orders.contact_id, 0) as contact_id,
    refunds.refund_key is not null as is_known, refunds.event_id, refunds.occurred_at
from json_to_recordset(cast(:rows as json)) as incoming (
    ordinal int, source text, order_id text, refund_id text)
left join orders on orders.source = incoming.source and orders.order_id = incoming.order_id
left join refunds
    on refunds.source = incoming.source and refunds.order_id = incoming.order_id
    and refunds.refund_id = incoming.refund_id;

-- name: insert_refunds
-- Stores refunds, a numbered one once; gives the new ones.
insert into refunds (source, order_id, refund_id, currency, amount, occurred_at, event_id)
select source, order_id, refund_id, currency, amount, occurred_at, event_id
from json_to_recordset(cast(:rows as json)) as incoming (
    ordinal int, source text, order_id text, refund_id text, currency text, amount numeric,
    occurred_at timestamptz, event_id bigint)
order by source, order_id, refund_id, ordinal
on conflict (source, order_id, refund_id) where refund_id is not null do nothing
returning event_id;

-- name: apply_refunds
-- Takes waiting refunds off the orders of these numbers, where both are here; returns how many.
with numbers as (
    select distinct incoming.source, incoming.order_id
    from json_to_recordset(cast(:rows as json)) as incoming (source text, order_id text)
),

-- Ordered, so that two writers of the same orders wait for each other instead of deadlocking.
held as materialized (
    select orders.contact_id, orders.order_key, orders.source, orders.order_id, orders.currency
    from orders
    inner join numbers
        on numbers.source = orders.source and numbers.order_id = orders.order_id
    where exists (
        select 1
        from refunds
        where refunds.source = orders.source and refunds.order_id = orders.order_id
            and refunds.currency = orders.currency and refunds.applied_at is null
    )
    order by orders.order_key
    for update of orders
),

waiting as materialized (
    select refunds.refund_key, held.contact_id, held.order_key, refunds.amount
    from held
    inner join refunds
        on refunds.source = held.source and refunds.order_id = held.order_id
        and refunds.currency = held.currency
    where refunds.applied_at is null
    order by refunds.refund_key
    for update of refunds
),

sums as (
    select contact_id, order_key, sum(amount) as amount
    from waiting
    group by contact_id, order_key
),

reduced as (
    update orders
    -- More than the column holds is more than any order: it is refunded either way.
    set refunded_total = least(orders.refunded_total + sums.amount, 999999999999999.9999)
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
-- Stores exchange rates; returns how many are given, how many were new or changed, and the first day of these.
with given as materialized (
    select distinct on (incoming.base, incoming.quote, incoming.rate_date) incoming.*
    from json_to_recordset(cast(:rows as json)) as incoming (
        ordinal int, rate_date date, base text, quote text, rate numeric, source text)
    order by incoming.base, incoming.quote, incoming.rate_date, incoming.ordinal desc
),

stored as (
    insert into fx_rates (rate_date, base, quote, rate, source, loaded_at)
    select rate_date, base, quote, rate, source, cast(:now as timestamptz)
    from given
    order by base, quote, rate_date
    on conflict (base, quote, rate_date) do update
    set rate = excluded.rate, source = excluded.source, loaded_at = excluded.loaded_at
    where fx_rates.rate is distinct from excluded.rate
        or fx_rates.source is distinct from excluded.source
    returning rate_date
)

select
    (select count(*) from given) as given_count, count(*) as rate_count,
    min(rate_date) as first_day
from stored;

-- name: convert_orders
-- Gives orders placed since a day, and those that wait for a rate, the last rate before them.
with wanted as materialized (
    select
        orders.contact_id, orders.order_key, orders.currency, orders.reporting_currency,
        cast(orders.placed_at at time zone 'utc' as date) as placed_on
    from orders
    where orders.fx_rate is null or orders.placed_at >= cast(:since as timestamptz)
),

-- A rate for each day and currency, not for each order.
rates as materialized (
    select days.currency, days.reporting_currency, days.placed_on, fx.rate, fx.rate_date
    from (select distinct currency, reporting_currency, placed_on from wanted) as days
    cross join lateral fx_rate_on(days.currency, days.reporting_currency, days.placed_on) as fx
    where fx.rate < 9999999999
)

update orders
set fx_rate = rates.rate, fx_date = rates.rate_date
from wanted
inner join rates
    on rates.currency = wanted.currency and rates.placed_on = wanted.placed_on
    and rates.reporting_currency = wanted.reporting_currency
where orders.contact_id = wanted.contact_id and orders.order_key = wanted.order_key
    and (orders.fx_rate, orders.fx_date)
    is distinct from (cast(rates.rate as numeric(18, 8)), rates.rate_date);
