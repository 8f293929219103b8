-- All orders, those of nobody we know as well: in the currency they were paid in, and converted.

-- Revenue by month.
select month, sum(orders) as orders, sum(net_revenue) as net_revenue, reporting_currency
from revenue_by_month
group by month, reporting_currency
order by month;

-- In which currencies do people pay, and what waits for a rate?
select
    currency, sum(order_net) as order_net, sum(net_revenue) as net_revenue,
    sum(orders - converted_orders) as waiting_for_a_rate
from revenue_by_month
group by currency
order by currency;
