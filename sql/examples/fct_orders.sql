-- Converted into `MAUTO_REPORTING_CURRENCY` at the rate of the order's day.

-- `reporting_day` is the day on the clocks of `MAUTO_REPORTING_TIMEZONE` (UTC), as noted by the last refresh of the tables;
-- `analytics.reporting_day(moment)` gives that of any moment. Tables by day, week or month keep UTC days: they are kept
-- for years, added up and compared with each other, and another time zone would change what they said of the past.

-- Revenue by month in the reporting currency.
select
    placed_month, count(*) as orders, sum(net_revenue) as net_revenue, reporting_currency
from fct_orders
where placed_at >= now() - interval '1 year'
group by placed_month, reporting_currency
order by placed_month;

-- Who buys: buyers and mean order by grade.
select
    grade, count(distinct contact_id) as buyers, round(avg(net_revenue), 2) as mean_order
from fct_orders
inner join dim_contacts using (contact_id)
group by grade
order by grade;

-- Revenue by day on the shop's own clocks; days of 23 or 25 hours included.
select
    reporting_day, count(*) as orders, sum(net_revenue) as net_revenue, reporting_currency
from fct_orders
where placed_at >= now() - interval '30 days'
group by reporting_day, reporting_currency
order by reporting_day;
