-- Grain: one row per currency, reporting currency and reason. Orders whose money is in no converted figure.
drop view if exists analytics.unconverted_orders cascade;
create view analytics.unconverted_orders as
select
    orders.currency, orders.reporting_currency,
    case
        when orders.fx_rate is null then 'waits_for_a_rate'
        when orders.reporting_currency <> (select analytics.reporting_currency()) then 'other_reporting_currency'
        else 'too_large'
    end as reason,
    count(*) as orders,
    count(distinct orders.contact_id) filter (where orders.contact_id > 0) as customers,
    cast(analytics.amount(sum(orders.net_total)) as numeric(18, 4)) as order_net,
    min(orders.placed_at) as first_placed_at,
    max(orders.placed_at) as last_placed_at
from orders
where orders.fx_rate is null
    or orders.reporting_currency <> (select analytics.reporting_currency())
    or abs(orders.net_total * orders.fx_rate) >= 99999999999999
group by 1, 2, 3;
comment on view analytics.unconverted_orders is
    'One row per currency, reporting currency and reason: orders that count as orders but whose money is in no figure in the reporting currency. Empty: all of it is.';
comment on column analytics.unconverted_orders.currency is 'Currency of the orders.';
comment on column analytics.unconverted_orders.reporting_currency is 'Reporting currency they were booked under.';
comment on column analytics.unconverted_orders.reason is
    'waits_for_a_rate: none was loaded for their day or before; other_reporting_currency: booked under another one than the newest order; too_large: 10^14 or more.';
comment on column analytics.unconverted_orders.orders is 'Orders.';
comment on column analytics.unconverted_orders.customers is 'Customers they are of.';
comment on column analytics.unconverted_orders.order_net is 'Net of refunds, in currency.';
comment on column analytics.unconverted_orders.first_placed_at is 'When the first of them was placed.';
comment on column analytics.unconverted_orders.last_placed_at is 'When the last of them was placed.';
