-- Order tables of schema analytics. Binds throughout: as_of (nothing placed or refunded later counts); contact_ids
-- (whose rows; null: everybody's); currency (the reporting currency amounts are in). People are unnested where rows are
-- looked up by them: to estimate thousands of constants, once for each index and month, costs more than the look-ups.

-- name: counted_orders
-- Orders as they stood at as_of, with their amounts in the reporting currency where they have one.
with later as (
    select source, order_id, sum(amount) as amount
    from refunds
    where applied_at is not null and occurred_at >= cast(:as_of as timestamptz)
    group by source, order_id
)
select
    orders.contact_id, orders.order_key, orders.placed_at, orders.currency, orders.fx_rate,
    orders.fx_date, orders.reporting_currency, amounts.order_net,
    -- The same rounding, and the same limit, as in fct_orders.
    case
        when abs(amounts.order_net * orders.fx_rate) < 99999999999999
            then cast(amounts.order_net * orders.fx_rate as numeric(18, 4))
    end as net_booked,
    case
        when orders.reporting_currency = cast(:currency as text)
            and abs(amounts.order_net * orders.fx_rate) < 99999999999999
            then cast(amounts.order_net * orders.fx_rate as numeric(18, 4))
    end as net_revenue,
    case
        when orders.reporting_currency = cast(:currency as text)
            and abs(amounts.order_net * orders.fx_rate) < 99999999999999
            then analytics.amount(orders.total * orders.fx_rate)
    end as gross_revenue
from orders
left join later on later.source = orders.source and later.order_id = orders.order_id
cross join lateral (select orders.net_total + coalesce(later.amount, 0) as order_net) as amounts
where orders.contact_id > 0
    and orders.placed_at < cast(:as_of as timestamptz)
    and (
        cast(:contact_ids as bigint[]) is null
        or orders.contact_id = any(array(select unnest(cast(:contact_ids as bigint[]))))
    )

-- name: order_news
-- Whose orders, or touches before them, have changed since the last refresh (rollups.news), and who is moved by time
-- alone: orders and refunds come into view, orders leave the last months that are counted apart. Bind: months (0: none).
with news as (
    -- include: rollups.news
),
spans as (
    select
        cast(:previous_as_of as timestamptz) - span as since,
        cast(:as_of as timestamptz) - span as until
    from (
        values (interval '0'), (make_interval(months => cast(:months as int)))
    ) as given (span)
)
select contact_id
from news
where subject in ('orders', 'touches') and contact_id > 0
union
select orders.contact_id
from spans
inner join orders on orders.placed_at >= spans.since and orders.placed_at < spans.until
where orders.contact_id > 0
union
select orders.contact_id
from refunds
inner join orders on orders.source = refunds.source and orders.order_id = refunds.order_id
where orders.contact_id > 0 and refunds.applied_at is not null
    and refunds.occurred_at >= cast(:previous_as_of as timestamptz)
    and refunds.occurred_at < cast(:as_of as timestamptz)

-- name: buyers_between
-- Who bought on the days from from_day to to_day (UTC; null: no limit).
select distinct contact_id
from orders
where contact_id > 0
    and placed_at >= coalesce(
        cast(cast(:from_day as date) as timestamp) at time zone 'UTC', '-infinity')
    and placed_at < coalesce(
        cast(cast(:to_day as date) + 1 as timestamp) at time zone 'UTC', 'infinity')

-- name: last_as_of
-- As of when a table is; null: it was never refreshed.
select as_of
from rollups.states
where table_name = cast(:table as text)

-- name: keep_windows
-- Notes the windows of attribution where they are others than before, and forgets what was made by the old ones.
with changed as (
    insert into rollups.attribution_windows (click_days, open_days)
    values (cast(:click_days as int), cast(:open_days as int))
    on conflict (is_only) do update
    set click_days = excluded.click_days, open_days = excluded.open_days
    where (attribution_windows.click_days, attribution_windows.open_days)
        <> (excluded.click_days, excluded.open_days)
    returning is_only
)
delete from rollups.states
using changed
where states.table_name in ('attribution', 'campaign_revenue', 'customer_value')

-- name: windows
-- The windows attribution is made by.
select click_days, open_days
from rollups.attribution_windows

-- name: clear_customer_months
-- Takes out the months of these customers.
delete from analytics.customer_months
where cast(:contact_ids as bigint[]) is null
    or contact_id = any(array(select unnest(cast(:contact_ids as bigint[]))))

-- name: restate_customer_months
-- Writes the months of these customers.
with counted as (
    -- include: counted_orders
),
months as (
    select
        contact_id, date_trunc('month', placed_at, 'UTC')::date as order_month,
        count(*) as orders, count(net_revenue) as converted_orders,
        analytics.amount(sum(net_revenue)) as revenue
    from counted
    group by 1, 2
),
followed as (
    -- Sorted by contact for this, and so written in the order of the key.
    select months.*, min(order_month) over (partition by contact_id) as cohort_month
    from months
)
insert into analytics.customer_months (
    contact_id, order_month, cohort_month, month_offset, orders, converted_orders, revenue,
    reporting_currency, refreshed_at
)
select
    contact_id, order_month, cohort_month,
    12 * (date_part('year', order_month) - date_part('year', cohort_month))::int
    + (date_part('month', order_month) - date_part('month', cohort_month))::int,
    orders, converted_orders, revenue, cast(:currency as text), now()
from followed

-- name: clear_order_cohorts
-- Takes out all cells: they are few.
delete from analytics.order_cohorts

-- name: restate_order_cohorts
-- Adds the months of customers up to cells; who was active is null until the month is over.
with cells as (
    select
        cohort_month, month_offset, count(*) as customers, sum(orders)::bigint as orders,
        sum(converted_orders)::bigint as converted_orders, sum(revenue) as revenue
    from analytics.customer_months
    group by cohort_month, month_offset
),
sizes as (
    -- Every customer has an order in the first month, which is how it is the first.
    select cohort_month, customers as cohort_customers
    from cells
    where month_offset = 0
),
grid as (
    select sizes.cohort_month, generate_series(0, least(240,
        12 * (extract(year from moments.last_month) - extract(year from sizes.cohort_month))::int
        + (extract(month from moments.last_month) - extract(month from sizes.cohort_month))::int
    )) as month_offset
    from sizes
    cross join (
        select
            (cast(:as_of as timestamptz) - interval '1 microsecond') at time zone 'UTC'
                as last_month
    ) as moments
    union
    select cohort_month, month_offset
    from cells
),
filled as (
    select
        grid.cohort_month, grid.month_offset, sizes.cohort_customers,
        coalesce(cells.customers, 0) as customers, coalesce(cells.orders, 0) as orders,
        coalesce(cells.converted_orders, 0) as converted_orders,
        case when cells.orders is null then 0 else cells.revenue end as revenue,
        (grid.cohort_month + make_interval(months => grid.month_offset + 1)) at time zone 'UTC'
            <= cast(:as_of as timestamptz) as is_complete
    from grid
    inner join sizes on sizes.cohort_month = grid.cohort_month
    left join cells
        on cells.cohort_month = grid.cohort_month and cells.month_offset = grid.month_offset
)
insert into analytics.order_cohorts (
    cohort_month, cohort_customers, month_offset, active_customers, retention_rate, orders, revenue,
    cumulative_revenue, aov, is_complete, reporting_currency, refreshed_at
)
select
    cohort_month, cohort_customers, month_offset,
    case when is_complete then customers end,
    case when is_complete then analytics.percent(customers, cohort_customers) end,
    orders, analytics.amount(revenue),
    analytics.amount(coalesce(sum(revenue) over (
        partition by cohort_month order by month_offset), 0)),
    analytics.amount(revenue / nullif(converted_orders, 0)),
    is_complete, cast(:currency as text), now()
from filled

-- name: human_touches
-- Human clicks before each order, or human opens where there is no click, by the newest verdict on them.
-- Binds: click_days, open_days.
with counted as (
    -- include: counted_orders
),
near as (
    select
        counted.order_key, hits.hit_id, hits.kind, hits.occurred_at as touch_at, hits.message_id
    from counted
    inner join hits
        on hits.contact_id = counted.contact_id
        and hits.kind in ('open', 'click')
        and hits.occurred_at <= counted.placed_at
        -- The wider window first: by it, only the months around an order are looked at.
        and hits.occurred_at >= counted.placed_at - make_interval(
            days => greatest(cast(:click_days as int), cast(:open_days as int)))
        and hits.occurred_at >= counted.placed_at - case hits.kind
            when 'click' then make_interval(days => cast(:click_days as int))
            else make_interval(days => cast(:open_days as int))
        end
    -- Said of hits, too, so that those of few people are found by an index.
    where cast(:contact_ids as bigint[]) is null
        or hits.contact_id = any(array(select unnest(cast(:contact_ids as bigint[]))))
),
judged as (
    select
        near.order_key, near.hit_id, near.kind, near.touch_at, near.message_id,
        messages.campaign_id, min(near.kind) over (partition by near.order_key) as best_kind
    from near
    inner join messages
        on messages.message_id = near.message_id
        and messages.kind in ('campaign', 'workflow', 'automation')
    inner join hit_verdicts as given
        on given.hit_id = near.hit_id and given.verdict = 'human'
        and not exists (
            select from hit_verdicts as later
            where later.hit_id = given.hit_id and later.rule_version > given.rule_version)
)
select
    order_key, touch_at, message_id, campaign_id,
    row_number() over (
        partition by order_key order by touch_at desc, message_id desc, hit_id desc
    ) as from_last,
    count(*) over (partition by order_key) as touch_count
from judged
where kind = best_kind

-- name: clear_attribution
-- Takes out what is known of the orders of these customers.
delete from analytics.attribution
where cast(:contact_ids as bigint[]) is null
    or contact_id = any(array(select unnest(cast(:contact_ids as bigint[]))))

-- name: order_shares
-- Shares each touched order among campaigns, by each model. Shares are cut, so that the last touch, which takes what is
-- left, never has less than its own.
with touches as (
    -- include: human_touches
),
shares as (
    select
        touches.order_key, models.model, touches.campaign_id, min(touches.from_last) as place,
        trunc(cast(count(*) as numeric) / min(touches.touch_count), 8) as share
    from touches
    cross join (values ('last_touch'), ('first_touch'), ('linear')) as models (model)
    where case models.model
        when 'last_touch' then touches.from_last = 1
        when 'first_touch' then touches.from_last = touches.touch_count
        else true
    end
    group by touches.order_key, models.model, touches.campaign_id
),
weighted as (
    select
        order_key, model, campaign_id, place, place = min(place) over models as is_last,
        case
            when place > min(place) over models then share
            else 1 - coalesce(sum(share) over (
                models order by place desc rows between unbounded preceding and 1 preceding), 0)
        end as weight
    from shares
    window models as (partition by order_key, model)
)
select weighted.*, touches.message_id, touches.touch_at
from weighted
inner join touches
    on touches.order_key = weighted.order_key and touches.from_last = weighted.place

-- name: restate_attribution
-- Writes the shares of the orders of these customers; the last touch takes what is left of both amounts.
with counted as (
    -- include: counted_orders
),
shared as (
    -- include: order_shares
),
priced as (
    select
        shared.*, counted.contact_id, counted.placed_at, counted.currency, counted.fx_rate,
        counted.fx_date, counted.reporting_currency, counted.net_booked,
        analytics.amount(counted.order_net) as order_net,
        trunc(shared.weight * analytics.amount(counted.order_net), 4) as amount,
        trunc(shared.weight * counted.net_booked, 4) as reporting
    from shared
    inner join counted on counted.order_key = shared.order_key
)
insert into analytics.attribution (
    order_id, contact_id, placed_at, model, campaign_id, message_id, touch_at, weight, currency,
    order_net, attributed_amount, fx_rate, fx_date, attributed_reporting, reporting_currency,
    refreshed_at
)
select
    order_key, contact_id, placed_at, model, campaign_id, message_id, touch_at, weight, currency,
    order_net,
    case when is_last then order_net - coalesce(sum(amount) over earlier, 0) else amount end,
    fx_rate, fx_date,
    case when is_last then net_booked - coalesce(sum(reporting) over earlier, 0)
        else reporting end,
    reporting_currency, now()
from priced
window earlier as (
    partition by order_key, model order by place desc
    rows between unbounded preceding and 1 preceding)

-- name: clear_campaign_revenue
-- Takes out all sums: they are few.
delete from analytics.campaign_revenue

-- name: restate_campaign_revenue
-- Adds attribution up by campaign, model and month.
insert into analytics.campaign_revenue (
    campaign_id, model, month, reporting_currency, orders, credited_orders, waiting_orders, revenue,
    refreshed_at
)
select
    campaign_id, model, cast(date_trunc('month', placed_at, 'UTC') as date), reporting_currency,
    count(*), sum(weight), count(*) filter (where attributed_reporting is null),
    coalesce(analytics.amount(sum(attributed_reporting)), 0), now()
from analytics.attribution
group by 1, 2, 3, 4

-- name: revenue_news
-- Days of orders that changed since the last refresh, came into view by time, or were refunded meanwhile.
with news as (
    -- include: rollups.news
)
select day
from news
where subject = 'orders'
union
select utc_day(placed_at)
from orders
where placed_at >= cast(:previous_as_of as timestamptz) and placed_at < cast(:as_of as timestamptz)
union
select utc_day(orders.placed_at)
from refunds
inner join orders on orders.source = refunds.source and orders.order_id = refunds.order_id
where refunds.applied_at is not null
    and refunds.occurred_at >= cast(:previous_as_of as timestamptz)
    and refunds.occurred_at < cast(:as_of as timestamptz)

-- name: clear_revenue_days
-- Takes out the days that are about to be added up anew: from `first` to before `until` (null: no limit).
delete from rollups.revenue_days
where day >= coalesce(cast(:first as date), '-infinity')
    and day < coalesce(cast(:until as date), 'infinity')

-- name: restate_revenue_days
-- Adds all orders of these days up by currency, as they stood at as_of.
with later as (
    select source, order_id, sum(amount) as amount
    from refunds
    where applied_at is not null and occurred_at >= cast(:as_of as timestamptz)
    group by source, order_id
),
counted as (
    select
        orders.placed_at, orders.currency, orders.reporting_currency, orders.total, orders.fx_date,
        orders.net_total + coalesce(later.amount, 0) as order_net,
        case
            when abs((orders.net_total + coalesce(later.amount, 0)) * orders.fx_rate)
                < 99999999999999
                then cast((orders.net_total + coalesce(later.amount, 0)) * orders.fx_rate
                    as numeric(18, 4))
        end as net_revenue
    from orders
    left join later on later.source = orders.source and later.order_id = orders.order_id
    where orders.placed_at < cast(:as_of as timestamptz)
        and orders.placed_at >= coalesce(
            cast(cast(:first as date) as timestamp) at time zone 'UTC', '-infinity')
        and orders.placed_at < coalesce(
            cast(cast(:until as date) as timestamp) at time zone 'UTC', 'infinity')
)
insert into rollups.revenue_days (
    day, currency, reporting_currency, orders, gross, order_net, converted_orders, net_revenue,
    first_fx_date, last_fx_date
)
select
    utc_day(placed_at), currency, reporting_currency, count(*), sum(total), sum(order_net),
    count(net_revenue), sum(net_revenue), min(fx_date) filter (where net_revenue is not null),
    max(fx_date) filter (where net_revenue is not null)
from counted
group by 1, 2, 3

-- name: clear_revenue_by_month
-- Takes out the months that are about to be restated: from the first day `first` to before `until` (null: no limit).
delete from analytics.revenue_by_month
where month >= coalesce(cast(:first as date), '-infinity')
    and month < coalesce(cast(:until as date), 'infinity')

-- name: restate_revenue_by_month
-- Adds the days of these months up.
insert into analytics.revenue_by_month (
    month, currency, reporting_currency, orders, gross, order_net, converted_orders, net_revenue,
    first_fx_date, last_fx_date, refreshed_at
)
select
    cast(date_trunc('month', cast(day as timestamp)) as date), currency, reporting_currency,
    sum(orders), analytics.amount(sum(gross)), analytics.amount(sum(order_net)),
    sum(converted_orders), analytics.amount(sum(net_revenue)), min(first_fx_date),
    max(last_fx_date), now()
from rollups.revenue_days
where day >= coalesce(cast(:first as date), '-infinity')
    and day < coalesce(cast(:until as date), 'infinity')
group by 1, 2, 3

-- name: acquisitions
-- The campaign of the last touch before each order, one row per moment: orders placed at one have the same.
select distinct on (contact_id, placed_at) contact_id, placed_at, campaign_id
from analytics.attribution
where model = 'last_touch'
    and (
        cast(:contact_ids as bigint[]) is null
        or contact_id = any(array(select unnest(cast(:contact_ids as bigint[]))))
    )
order by contact_id, placed_at

-- name: correct_acquisitions
-- Gives customers the campaign that brought them, where attribution says another one now.
with acquisitions as (
    -- include: acquisitions
)
update analytics.customer_value
set acquisition_campaign_id = found.campaign_id, refreshed_at = now()
from (
    select known.contact_id, acquisitions.campaign_id
    from analytics.customer_value as known
    left join acquisitions
        on acquisitions.contact_id = known.contact_id
        and acquisitions.placed_at = known.first_order_at
    where (
            cast(:contact_ids as bigint[]) is null
            or known.contact_id = any(array(select unnest(cast(:contact_ids as bigint[]))))
        )
        and known.acquisition_campaign_id is distinct from acquisitions.campaign_id
) as found
where customer_value.contact_id = found.contact_id

-- name: clear_customer_value
-- Takes out these customers.
delete from analytics.customer_value
where cast(:contact_ids as bigint[]) is null
    or contact_id = any(array(select unnest(cast(:contact_ids as bigint[]))))

-- name: restate_customer_value
-- What each of these customers has bought; attribution is up to date before.
with counted as (
    -- include: counted_orders
),
sums as (
    select
        contact_id, min(placed_at) as first_order_at, max(placed_at) as last_order_at,
        count(*) as orders, count(net_revenue) as converted_orders,
        sum(gross_revenue) as gross_revenue, sum(net_revenue) as net_revenue,
        sum(net_revenue) filter (
            where placed_at >= cast(:as_of as timestamptz) - interval '12 months'
        ) as net_revenue_12m
    from counted
    group by contact_id
),
acquired as (
    -- include: acquisitions
)
insert into analytics.customer_value (
    contact_id, acquisition_month, acquisition_campaign_id, first_order_at, last_order_at, orders,
    gross_revenue, refunds, net_revenue, net_revenue_12m, aov, avg_days_between_orders,
    reporting_currency, refreshed_at
)
select
    sums.contact_id, date_trunc('month', sums.first_order_at, 'UTC')::date, acquired.campaign_id,
    sums.first_order_at, sums.last_order_at, sums.orders,
    analytics.amount(sums.gross_revenue),
    analytics.amount(sums.gross_revenue - sums.net_revenue),
    analytics.amount(sums.net_revenue),
    case when sums.converted_orders > 0
        then analytics.amount(coalesce(sums.net_revenue_12m, 0)) end,
    analytics.amount(sums.net_revenue / nullif(sums.converted_orders, 0)),
    case when sums.orders > 1 then cast(
        (date_part('epoch', sums.last_order_at) - date_part('epoch', sums.first_order_at))
        / 86400 / (sums.orders - 1) as numeric(9, 2)) end,
    cast(:currency as text), now()
from sums
left join acquired
    on acquired.contact_id = sums.contact_id and acquired.placed_at = sums.first_order_at
order by sums.contact_id

-- name: rfm_news
-- Whether an order of before midnight (UTC) has changed since the last refresh: those of the day do not count yet.
with news as (
    -- include: rollups.news
)
select exists (
    select from news
    where subject = 'orders' and contact_id > 0 and day < utc_day(cast(:as_of as timestamptz)))

-- name: rfm_customers
-- Figures of all customers, and the scores they have: as kept, but for contact_ids, whose orders are counted.
with counted as (
    -- include: counted_orders
)
select
    contact_id, last_order_day, frequency, monetary, cast(monetary as float8) as money, r_score,
    f_score, m_score
from rollups.rfm_scores
where contact_id <> all(cast(:contact_ids as bigint[]))
union all
select
    contact_id, last_order_day, frequency, monetary, cast(monetary as float8), null, null, null
from (
    select
        contact_id, utc_day(max(placed_at)) as last_order_day, count(*) as frequency,
        analytics.amount(sum(net_revenue)) as monetary
    from counted
    group by contact_id
) as sums
where monetary is not null

-- name: rfm_scores
-- Scores of all customers at midnight (UTC): as_of is that midnight here.
with customers as materialized (
    -- include: rfm_customers
),
cuts as materialized (
    select
        percentile_cont(array[0.2, 0.4, 0.6, 0.8]) within group (
            order by utc_day(cast(:as_of as timestamptz)) - last_order_day) as r,
        percentile_cont(array[0.2, 0.4, 0.6, 0.8]) within group (order by frequency) as f,
        percentile_cont(array[0.2, 0.4, 0.6, 0.8]) within group (order by money) as m
    from customers
)
select
    contact_id, last_order_day, frequency, monetary,
    r_score as known_r, f_score as known_f, m_score as known_m,
    cast(5 - (recency_days > r[1])::int - (recency_days > r[2])::int
        - (recency_days > r[3])::int - (recency_days > r[4])::int as smallint) as r_score,
    cast(1 + (frequency > f[1])::int + (frequency > f[2])::int
        + (frequency > f[3])::int + (frequency > f[4])::int as smallint) as f_score,
    cast(1 + (money > m[1])::int + (money > m[2])::int
        + (money > m[3])::int + (money > m[4])::int as smallint) as m_score
from (
    select *, utc_day(cast(:as_of as timestamptz)) - last_order_day as recency_days
    from customers
) as aged
cross join cuts

-- name: keep_rfm_day
-- Notes the day the scores are as of.
insert into rollups.rfm_day (as_of)
values (cast(cast(:as_of as timestamptz) at time zone 'UTC' as date))
on conflict (is_only) do update set as_of = excluded.as_of

-- name: clear_rfm_scores
-- Takes out everybody; or, of contact_ids, who is no customer any more.
with counted as (
    -- include: counted_orders
)
delete from rollups.rfm_scores as old
where cast(:contact_ids as bigint[]) is null
    or (
        contact_id = any(array(select unnest(cast(:contact_ids as bigint[]))))
        and not exists (
            select from counted
            where counted.contact_id = old.contact_id and counted.net_revenue is not null)
    )

-- name: restate_rfm_scores
-- Writes the scores of contact_ids, and of others where they changed.
insert into rollups.rfm_scores as old (
    contact_id, last_order_day, frequency, monetary, reporting_currency, r_score, f_score, m_score,
    rfm_segment, refreshed_at
)
with scores as (
    -- include: rfm_scores
)
select
    contact_id, last_order_day, frequency, monetary, cast(:currency as text), r_score, f_score,
    m_score, analytics.rfm_segment(r_score, f_score, m_score), now()
from scores
where known_r is null or known_r <> r_score or known_f <> f_score or known_m <> m_score
order by contact_id
on conflict (contact_id) do update
set last_order_day = excluded.last_order_day, frequency = excluded.frequency,
    monetary = excluded.monetary, reporting_currency = excluded.reporting_currency,
    r_score = excluded.r_score, f_score = excluded.f_score, m_score = excluded.m_score,
    rfm_segment = excluded.rfm_segment, refreshed_at = excluded.refreshed_at
where (old.last_order_day, old.frequency, old.monetary, old.r_score, old.f_score, old.m_score)
    <> (excluded.last_order_day, excluded.frequency, excluded.monetary, excluded.r_score,
        excluded.f_score, excluded.m_score)

-- name: unfollowed_buyers
-- Whose orders analytics.attribution does not show as they are now: with news since its last refresh, or later orders
-- or refunds than it counts. Binds: since and previous_as_of of that refresh.
with news as (
    -- include: rollups.news
)
select contact_id
from news
where subject in ('orders', 'touches') and contact_id > 0
union
select contact_id
from orders
where contact_id > 0 and placed_at >= cast(:previous_as_of as timestamptz)
union
select orders.contact_id
from refunds
inner join orders on orders.source = refunds.source and orders.order_id = refunds.order_id
where orders.contact_id > 0 and refunds.applied_at is not null
    and refunds.occurred_at >= cast(:previous_as_of as timestamptz)

-- name: campaign_sales
-- The orders whose last touch was one campaign, and what they brought, now: from analytics.attribution, but for
-- contact_ids (unfollowed_buyers), whose orders are counted here. Binds: campaign_id; as_of infinity.
with counted as (
    -- include: counted_orders
),
touches as (
    -- include: human_touches
),
sold as (
    select counted.reporting_currency, counted.net_booked
    from touches
    inner join counted on counted.order_key = touches.order_key
    where touches.from_last = 1 and touches.campaign_id = cast(:campaign_id as bigint)
    union all
    select reporting_currency, attributed_reporting
    from analytics.attribution
    where model = 'last_touch' and campaign_id = cast(:campaign_id as bigint)
        and contact_id <> all(cast(:contact_ids as bigint[]))
)
select
    count(*) as orders,
    cast(greatest(least(coalesce(
        sum(net_booked) filter (where reporting_currency = cast(:currency as text)),
        0), 99999999999999), -99999999999999) as numeric(18, 4)) as revenue,
    cast(:currency as text) as reporting_currency
from sold
