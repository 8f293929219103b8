-- Grain: one row per UTC day and arm. What those held out and those mailed bought.
drop view if exists analytics.holdout_daily cascade;
create view analytics.holdout_daily as
with periods as (
    select period_id, salt, percent, bound, begun_at, least(ended_at, now()) as ended_at
    from holdout_periods
    where ended_at > begun_at
),
people as materialized (
    select
        periods.period_id, periods.begun_at, periods.ended_at, entries.contact_id, entries.entered_at,
        case when entries.draw < periods.bound then 'held_out' else 'mailed' end as arm
    from periods
    inner join holdout_entries as entries
        on entries.salt = periods.salt and entries.entered_at < periods.ended_at
),
days as (
    select periods.period_id, periods.percent, moments.day, arms.arm
    from periods
    cross join lateral generate_series(
        date_trunc('day', periods.begun_at, 'UTC'), periods.ended_at, interval '24 hours'
    ) as moments (day)
    cross join (values ('held_out'), ('mailed')) as arms (arm)
    -- Whole days under one share only.
    where moments.day >= periods.begun_at and moments.day + interval '24 hours' <= periods.ended_at
),
comers as (
    select period_id, arm, date_trunc('day', entered_at, 'UTC') as day, count(*) as contacts
    from people
    group by 1, 2, 3
),
sales as (
    select
        people.period_id, people.arm, date_trunc('day', orders.placed_at, 'UTC') as day,
        count(*) as orders, count(distinct people.contact_id) as customers,
        sum(orders.net_total * orders.fx_rate) filter (
            where orders.reporting_currency = (select analytics.reporting_currency())
                and abs(orders.net_total * orders.fx_rate) < 99999999999999
        ) as revenue
    from people
    inner join orders on orders.contact_id = people.contact_id
        and orders.placed_at >= greatest(people.entered_at, people.begun_at)
        and orders.placed_at < people.ended_at
    group by 1, 2, 3
)
select
    cast(days.day at time zone 'UTC' as date) as day, days.arm, days.percent as holdout_percent,
    cast(coalesce((
        select sum(comers.contacts)
        from comers
        where comers.period_id = days.period_id and comers.arm = days.arm and comers.day <= days.day
    ), 0) as bigint) as contacts,
    coalesce(sales.customers, 0) as customers, coalesce(sales.orders, 0) as orders,
    analytics.amount(coalesce(sales.revenue, 0)) as revenue,
    (select analytics.reporting_currency()) as reporting_currency
from days
left join sales
    on sales.period_id = days.period_id and sales.arm = days.arm and sales.day = days.day;
comment on view analytics.holdout_daily is
    'One row per UTC day and arm: what those held out of all marketing mail and those mailed bought. Whole days of an unchanged share only. Counted live.';
comment on column analytics.holdout_daily.day is 'UTC day.';
comment on column analytics.holdout_daily.arm is 'held_out (no marketing mail) or mailed.';
comment on column analytics.holdout_daily.holdout_percent is 'Share of contacts held out that day.';
comment on column analytics.holdout_daily.contacts is
    'Contacts of the arm until the end of the day: all who could have been mailed at some time, whether or not they left since.';
comment on column analytics.holdout_daily.customers is 'Those of them who ordered that day.';
comment on column analytics.holdout_daily.orders is 'Their orders.';
comment on column analytics.holdout_daily.revenue is
    'Net of refunds, in reporting_currency; orders whose money is in no converted figure count with 0.';
comment on column analytics.holdout_daily.reporting_currency is 'Currency of revenue.';
