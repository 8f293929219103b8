-- `waits_for_a_rate` is mended by loading a rate. The reporting currency of all figures is that of the newest order.

-- Which orders are in no figure of money, and why?
select reason, currency, orders, customers, order_net, first_placed_at, last_placed_at
from unconverted_orders
order by orders desc;

-- Since when?
select reason, sum(orders) as orders, min(first_placed_at) as first_placed_at
from unconverted_orders
group by reason;
