-- Revenue added up by month: what the dashboard shows of orders without reading them all.

create table analytics.revenue_by_month (
    month date not null,
    currency char(3) not null,
    reporting_currency char(3) not null,
    orders bigint not null,
    gross numeric(18,4) not null,
    order_net numeric(18,4) not null,
    converted_orders bigint not null,
    net_revenue numeric(18,4),
    first_fx_date date,
    last_fx_date date,
    refreshed_at timestamptz not null,
    primary key (month, currency, reporting_currency),
    constraint revenue_is_that_of_converted_orders check ((converted_orders > 0) = (net_revenue is not null))
);
comment on table analytics.revenue_by_month is
    'One row per month (UTC), currency and reporting currency: all orders, those of nobody we know as well.';
comment on column analytics.revenue_by_month.month is 'First day of the month the orders were placed in.';
comment on column analytics.revenue_by_month.currency is 'Currency of the orders, of gross and of order_net.';
comment on column analytics.revenue_by_month.reporting_currency is
    'Reporting currency the orders were booked under, and that of net_revenue.';
comment on column analytics.revenue_by_month.orders is 'Orders placed, refunded ones included.';
comment on column analytics.revenue_by_month.gross is 'Their totals as placed, in currency.';
comment on column analytics.revenue_by_month.order_net is 'Their totals net of refunds, in currency.';
comment on column analytics.revenue_by_month.converted_orders is
    'Those of them with an amount in reporting_currency; the others wait for a rate.';
comment on column analytics.revenue_by_month.net_revenue is
    'The converted orders net of refunds in reporting_currency, each at the rate of its day; null without one.';
comment on column analytics.revenue_by_month.first_fx_date is 'Oldest day of the rates they were converted at.';
comment on column analytics.revenue_by_month.last_fx_date is 'Newest day of those rates.';
comment on column analytics.revenue_by_month.refreshed_at is 'When this row was computed.';

create table analytics.campaign_revenue (
    campaign_id bigint,
    model text not null,
    month date not null,
    reporting_currency char(3) not null,
    orders bigint not null,
    credited_orders numeric(18,8) not null,
    waiting_orders bigint not null,
    revenue numeric(18,4) not null,
    refreshed_at timestamptz not null,
    constraint one_row_per_campaign_model_month_and_currency
        unique nulls not distinct (campaign_id, model, month, reporting_currency),
    constraint model_is_known check (model in ('last_touch', 'first_touch', 'linear'))
);
comment on table analytics.campaign_revenue is
    'One row per campaign, model, month (UTC) of the orders and reporting currency: attribution added up.';
comment on column analytics.campaign_revenue.campaign_id is
    'Campaign (dim_campaigns); null: mails of workflows and rules, together.';
comment on column analytics.campaign_revenue.model is 'last_touch, first_touch or linear, as in attribution.';
comment on column analytics.campaign_revenue.month is 'First day of the month the orders were placed in.';
comment on column analytics.campaign_revenue.reporting_currency is 'Currency of revenue.';
comment on column analytics.campaign_revenue.orders is 'Orders it has a share in.';
comment on column analytics.campaign_revenue.credited_orders is 'Those shares added up: what all campaigns have adds up to orders.';
comment on column analytics.campaign_revenue.waiting_orders is 'Orders it has a share in that wait for a rate: not in revenue.';
comment on column analytics.campaign_revenue.revenue is 'Its shares of the others net of refunds, in reporting_currency.';
comment on column analytics.campaign_revenue.refreshed_at is 'When this row was computed.';
