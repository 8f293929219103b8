-- What those held out of all marketing mail and those mailed bought: whole days of an unchanged share only. For lift with an interval:
-- `mauto holdout report` ([incrementality](incrementality.md)).

-- Revenue per contact of both arms in a month.
select arm, sum(revenue) / max(contacts) as revenue_per_contact, reporting_currency
from holdout_daily
where day >= date '2026-11-01' and day < date '2026-12-01'
group by arm, reporting_currency;

-- Orders of a hundred contacts, week by week.
select
    date_trunc('week', day)::date as week, arm,
    round(100.0 * sum(orders) / max(contacts), 2) as orders_per_100
from holdout_daily
group by week, arm
order by week, arm;
