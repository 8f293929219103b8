-- Customer value: what is known of each customer, and storing what is expected of them.

-- name: customers
-- Each contact's days with orders before a moment: repeats, first and last day, mean value of the repeats, and what
-- followed until another moment. Orders below zero and those refunded in full are no orders; free ones are.
with days as materialized (
    select
        orders.contact_id, cast(orders.placed_at at time zone 'utc' as date) as day,
        case
            when bool_and(orders.fx_rate is not null
                and orders.reporting_currency = cast(:currency as text))
                then cast(sum(orders.net_total * orders.fx_rate) as double precision)
        end as revenue
    from orders
    where orders.contact_id > 0 and orders.total >= 0
        and orders.placed_at < cast(:until as timestamptz)
    group by orders.contact_id, cast(orders.placed_at at time zone 'utc' as date)
    having sum(orders.net_total) > 0 or bool_and(orders.total = 0)
),

firsts as (
    select contact_id, min(day) as first_day
    from days
    group by contact_id
    having min(day) < cast(:as_of as date)
)

select
    firsts.contact_id, firsts.first_day,
    max(days.day) filter (where days.day < cast(:as_of as date)) as last_day,
    count(*) filter (where days.day < cast(:as_of as date)) - 1 as repeats,
    avg(days.revenue) filter (
        where days.day < cast(:as_of as date) and days.day > firsts.first_day) as mean_value,
    count(*) filter (where days.day >= cast(:as_of as date)) as later_count
from firsts
inner join days on days.contact_id = firsts.contact_id
inner join contacts on contacts.contact_id = firsts.contact_id
group by firsts.contact_id, firsts.first_day
order by firsts.contact_id;

-- name: first_order
-- The first day anybody ordered.
select min(cast(placed_at at time zone 'utc' as date)) as first_day
from orders
where contact_id > 0 and total >= 0 and placed_at < cast(:as_of as timestamptz);

-- name: keep_model
-- Writes down a fit.
insert into analytics.value_models (
    as_of, fitted_at, horizon_days, customers, repeat_customers, refusal, r, alpha_weeks, a, b,
    log_likelihood, value_refusal, p, q, v, value_log_likelihood, correlation, reporting_currency,
    check_from, check_expected_orders, check_actual_orders)
values (
    cast(:as_of as timestamptz), cast(:now as timestamptz), cast(:horizon_days as int),
    cast(:customers as bigint), cast(:repeat_customers as bigint), cast(:refusal as text),
    cast(:r as float8), cast(:alpha as float8), cast(:a as float8), cast(:b as float8),
    cast(:log_likelihood as float8), cast(:value_refusal as text), cast(:p as float8),
    cast(:q as float8), cast(:v as float8), cast(:value_log_likelihood as float8),
    cast(:correlation as float8), cast(:currency as text), cast(:check_from as timestamptz),
    cast(:check_expected as float8), cast(:check_actual as bigint))
returning model_id;

-- name: forget_predictions
-- Empties the predictions, for others to come or none.
delete from analytics.predicted_value;

-- name: keep_predictions
-- Stores predictions of those who are still contacts; somebody who is deleted at this moment is passed over.
insert into analytics.predicted_value (
    contact_id, model_id, as_of, horizon_days, repeat_orders, alive_probability, expected_orders,
    expected_order_value, expected_revenue, reporting_currency)
select
    people.contact_id, cast(:model_id as bigint), cast(:as_of as timestamptz),
    cast(:horizon_days as int), incoming.repeats, incoming.alive, incoming.orders,
    incoming.worth, incoming.revenue, cast(:currency as text)
from json_to_recordset(cast(:rows as json)) as incoming (
    contact_id bigint, repeats bigint, alive numeric, orders numeric, worth numeric,
    revenue numeric)
inner join contacts as people on people.contact_id = incoming.contact_id
for key share of people;
