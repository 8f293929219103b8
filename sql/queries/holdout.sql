-- The global hold-out: its periods, and what those held out and those mailed bought.

-- name: lock
-- One change at a time; whoever mails is not kept waiting.
select pg_advisory_xact_lock(hashtext('holdout_periods'));

-- name: periods
-- All periods that lasted, the oldest first; ended_at is null for the open one.
select
    period_id, salt, percent, bound, begun_at, nullif(ended_at, 'infinity') as ended_at, changed_by
from holdout_periods
where ended_at > begun_at
order by begun_at;

-- name: close
-- Ends the open period.
update holdout_periods
set ended_at = greatest(begun_at, cast(:now as timestamptz))
where ended_at = 'infinity';

-- name: open
-- Begins a period when the one before it ended, or now.
insert into holdout_periods (salt, percent, begun_at, changed_by)
select
    cast(:salt as text), cast(:percent as numeric),
    greatest(cast(:now as timestamptz), max(ended_at)), cast(:by as text)
from holdout_periods;

-- name: sums
-- Both groups with what they spent in a time (y) and before the hold-out (x), as sums for the statistics.
with people as materialized (
    select contact_id, entered_at, draw < cast(:held_below as bigint) as is_held
    from holdout_entries
    where salt = cast(:salt as text)
        and entered_at < cast(:to_at as timestamptz)
        and (draw < cast(:held_below as bigint) or draw >= cast(:mailed_from as bigint))
),
bought as (
    select
        people.contact_id,
        count(*) filter (where counted.is_within) as order_count,
        coalesce(sum(counted.net) filter (where counted.is_within), 0) as spent,
        coalesce(sum(counted.net) filter (
            where orders.placed_at < cast(:before_to as timestamptz)), 0) as spent_before
    from people
    inner join orders on orders.contact_id = people.contact_id
    cross join lateral (
        select
            orders.placed_at >= people.entered_at
                and orders.placed_at >= cast(:from_at as timestamptz) as is_within,
            case
                when orders.reporting_currency = (select analytics.reporting_currency())
                    and abs(orders.net_total * orders.fx_rate) < 99999999999999
                    then orders.net_total * orders.fx_rate
            end as net
    ) as counted
    where orders.placed_at >= cast(:before_from as timestamptz)
        and orders.placed_at < cast(:to_at as timestamptz)
    group by people.contact_id
)
select
    people.is_held, count(*) as contacts,
    count(*) filter (where bought.order_count > 0) as customers,
    cast(coalesce(sum(bought.order_count), 0) as bigint) as orders,
    coalesce(sum(spent), 0) as y, coalesce(sum(spent * spent), 0) as yy,
    coalesce(sum(spent_before), 0) as x, coalesce(sum(spent_before * spent_before), 0) as xx,
    coalesce(sum(spent * spent_before), 0) as xy,
    (select analytics.reporting_currency()) as reporting_currency
from people
left join bought on bought.contact_id = people.contact_id
group by people.is_held;

-- name: clear_sums
-- Takes out the sums of the last refresh.
delete from rollups.holdout_sums;

-- name: keep_sums
-- Keeps the sums of both groups for the dashboard.
insert into rollups.holdout_sums (
    is_held, from_at, to_at, contacts, customers, orders, y, yy, x, xx, xy, reporting_currency
)
select
    is_held, cast(:from_at as timestamptz), cast(:to_at as timestamptz), contacts, customers,
    orders, y, yy, x, xx, xy, reporting_currency
from (
    -- include: sums
) as counted
returning *;

-- name: kept_sums
-- The sums of both groups as last counted.
select *
from rollups.holdout_sums
order by is_held;
