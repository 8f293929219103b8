-- [attribution](#attribution) added up: what the dashboard shows by campaign. A month is a month of the calendar in UTC.

-- What did each campaign earn, by model?
select
    coalesce(campaign_name, 'workflows and rules') as campaign, model, sum(orders) as orders,
    sum(revenue) as revenue, reporting_currency
from campaign_revenue
left join dim_campaigns using (campaign_id)
group by 1, 2, reporting_currency
order by 1, 2;

-- How much of each month's revenue came by mail?
select month, sum(revenue) as from_mail, reporting_currency
from campaign_revenue
where model = 'last_touch'
group by month, reporting_currency
order by month;
