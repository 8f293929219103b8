-- Converted into `MAUTO_REPORTING_CURRENCY` at the rate of the order's day.

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
