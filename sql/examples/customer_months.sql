-- What [order_cohorts](#order_cohorts) is added up from. With [dim_contacts](#dim_contacts), cohorts by country, language,
-- source or tag, by the month of the sign-up or by the campaign that brought the customer are one query.

-- Cohorts by country and language.
select
    country, language, cohort_month, month_offset, count(*) as active, sum(revenue) as revenue
from customer_months
inner join dim_contacts using (contact_id)
group by 1, 2, 3, 4
order by 1, 2, 3, 4;

-- The same by tag.
select tag, month_offset, count(*) as active, sum(revenue) as revenue
from customer_months
inner join dim_contacts using (contact_id)
cross join unnest(tags) as tag
group by 1, 2
order by 1, 2;

-- By the campaign that brought the customer.
select campaign_name, month_offset, count(*) as active, sum(revenue) as revenue
from customer_months
inner join dim_contacts using (contact_id)
inner join dim_campaigns on campaign_id = acquisition_campaign_id
group by 1, 2
order by 1, 2;

-- By the month of the sign-up instead of the first order.
select signup_month, order_month, count(*) as active
from customer_months
inner join dim_contacts using (contact_id)
group by 1, 2
order by 1, 2;
