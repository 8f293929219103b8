-- Retention by country: who of a sign-up month was active in which week since?
select
    country, signup_month, (week_start - signup_month) / 7 as week, count(*) as active
from contact_period_activity
inner join dim_contacts using (contact_id)
where human_opens + human_clicks > 0 and week_start >= signup_month
group by 1, 2, 3
order by 1, 2, 3;

-- Orders and revenue by week.
select week_start, sum(orders) as orders, sum(revenue) as revenue, reporting_currency
from contact_period_activity
group by week_start, reporting_currency
order by week_start;
