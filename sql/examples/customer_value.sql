-- What is a customer worth, by the month of the first order?
select
    acquisition_month, count(*) as customers, round(avg(net_revenue), 2) as mean_value,
    round(avg(orders), 2) as mean_orders
from customer_value
group by acquisition_month
order by acquisition_month;

-- Which campaigns brought customers who stayed?
select
    coalesce(campaign_name, 'none') as brought_by, count(*) as customers,
    sum(net_revenue) as net_revenue, sum(net_revenue_12m) as last_12_months
from customer_value
left join dim_campaigns on campaign_id = acquisition_campaign_id
group by 1
order by net_revenue desc;
