-- Grain: one row per order.
drop view if exists analytics.fct_orders cascade;
create view analytics.fct_orders as
select
    order_key as order_id, contact_id, source, order_id as order_number, placed_at,
    date_trunc('month', placed_at, 'UTC')::date as placed_month, currency, total, discount,
    shipping, tax, refunded_total, net_total as order_net,
    cast(
        case when abs(net_total * fx_rate) < 99999999999999 then net_total * fx_rate end
        as numeric(18, 4)) as net_revenue, reporting_currency, fx_rate, fx_date,
    jsonb_array_length(lines)::bigint as line_count, received_at,
    cast(placed_at at time zone (select analytics.reporting_timezone()) as date) as reporting_day
from orders;
comment on view analytics.fct_orders is 'One row per order, without its lines.';
comment on column analytics.fct_orders.order_id is 'Key; the API shows the same number as text.';
comment on column analytics.fct_orders.contact_id is 'Who bought; 0 is nobody we know.';
comment on column analytics.fct_orders.source is 'Shop or system the order came from.';
comment on column analytics.fct_orders.order_number is 'The shop''s own number, unique within source.';
comment on column analytics.fct_orders.placed_at is 'When it was placed.';
comment on column analytics.fct_orders.placed_month is 'First day of the month of placed_at (UTC).';
comment on column analytics.fct_orders.currency is 'Currency of the amounts of this order.';
comment on column analytics.fct_orders.total is 'Total as placed, in currency.';
comment on column analytics.fct_orders.discount is 'Discount contained in the total, in currency.';
comment on column analytics.fct_orders.shipping is 'Shipping contained in the total, in currency.';
comment on column analytics.fct_orders.tax is 'Tax contained in the total, in currency.';
comment on column analytics.fct_orders.refunded_total is 'Refunded so far, in currency.';
comment on column analytics.fct_orders.order_net is 'total - refunded_total, in currency.';
comment on column analytics.fct_orders.net_revenue is
    'order_net in reporting_currency; null while the order waits for a rate, and for 10^14 or more.';
comment on column analytics.fct_orders.reporting_currency is 'Currency of net_revenue.';
comment on column analytics.fct_orders.fx_rate is 'Units of reporting_currency for one unit of currency.';
comment on column analytics.fct_orders.fx_date is 'Day of that rate: the last one on or before the order''s day.';
comment on column analytics.fct_orders.line_count is 'Lines of the order.';
comment on column analytics.fct_orders.received_at is 'When we learned of it.';
comment on column analytics.fct_orders.reporting_day is
    'Day of placed_at on the clocks of the reporting time zone (MAUTO_REPORTING_TIMEZONE).';
