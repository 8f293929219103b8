-- What analysts read of orders: months of customers, cohorts, RFM, customer value, attribution. A month is a month of
-- the calendar in UTC throughout.

create function analytics.amount(given numeric) returns numeric
language sql immutable parallel safe as $$
    -- A sum that its column cannot hold would spoil the whole table.
    select case
        when given is not null
            then cast(greatest(least(given, 99999999999999.9999), -99999999999999.9999) as numeric(18, 4))
    end
$$;
comment on function analytics.amount(numeric) is 'An amount as amounts are stored: 4 decimals, below 10^14.';

create table analytics.customer_months (
    contact_id bigint not null,
    order_month date not null,
    cohort_month date not null,
    month_offset int not null,
    orders bigint not null,
    converted_orders bigint not null,
    revenue numeric(18,4),
    reporting_currency char(3) not null,
    refreshed_at timestamptz not null,
    primary key (contact_id, order_month),
    constraint the_first_month_is_the_cohort check (order_month >= cohort_month and month_offset >= 0),
    constraint revenue_is_that_of_converted_orders check ((converted_orders > 0) = (revenue is not null))
);
comment on table analytics.customer_months is
    'One row per customer and calendar month (UTC) with an order: what cohorts by any attribute of dim_contacts are counted from.';
comment on column analytics.customer_months.contact_id is 'Who bought; orders of nobody we know (0) are left out.';
comment on column analytics.customer_months.order_month is 'First day of the month the orders were placed in.';
comment on column analytics.customer_months.cohort_month is 'First day of the month of the customer''s first order.';
comment on column analytics.customer_months.month_offset is 'Calendar months from cohort_month to order_month.';
comment on column analytics.customer_months.orders is 'Orders placed in the month, refunded ones included.';
comment on column analytics.customer_months.converted_orders is
    'Those of them that revenue is the sum of: not those in unconverted_orders.';
comment on column analytics.customer_months.revenue is
    'Net of refunds in reporting_currency, each order at the rate of its day; null if none could be converted.';
comment on column analytics.customer_months.reporting_currency is 'Currency of the revenue: that of the newest order.';
comment on column analytics.customer_months.refreshed_at is 'When this row was computed.';

create table analytics.order_cohorts (
    cohort_month date not null,
    cohort_customers bigint not null,
    month_offset int not null,
    active_customers bigint,
    retention_rate numeric(7,4),
    orders bigint not null,
    revenue numeric(18,4),
    cumulative_revenue numeric(18,4) not null,
    aov numeric(18,4),
    is_complete boolean not null,
    reporting_currency char(3) not null,
    refreshed_at timestamptz not null,
    primary key (cohort_month, month_offset),
    constraint an_incomplete_cell_is_null check (is_complete = (active_customers is not null))
);
comment on table analytics.order_cohorts is
    'One row per month of first orders and calendar month since: who bought again, and for how much. Months are UTC.';
comment on column analytics.order_cohorts.cohort_month is 'First day of the month of the customers'' first orders.';
comment on column analytics.order_cohorts.cohort_customers is 'Customers whose first order was placed in that month.';
comment on column analytics.order_cohorts.month_offset is
    'Calendar months since cohort_month: 0 is the month itself. Up to 240, and later ones with an order.';
comment on column analytics.order_cohorts.active_customers is
    'Customers of the cohort with an order in that month, refunded or not; null until the month is over.';
comment on column analytics.order_cohorts.retention_rate is 'active_customers / cohort_customers in percent.';
comment on column analytics.order_cohorts.orders is 'Orders of the cohort in that month, so far if it is not over.';
comment on column analytics.order_cohorts.revenue is
    'Those orders net of refunds in reporting_currency, each at the rate of its day, so far; without orders in unconverted_orders, null if there are no others.';
comment on column analytics.order_cohorts.cumulative_revenue is 'Revenue of the cohort up to and with that month.';
comment on column analytics.order_cohorts.aov is 'revenue / the orders it is the sum of; null without one.';
comment on column analytics.order_cohorts.is_complete is 'The month is over.';
comment on column analytics.order_cohorts.reporting_currency is
    'Currency of the amounts: that of the newest order. Orders booked under another one are in unconverted_orders.';
comment on column analytics.order_cohorts.refreshed_at is 'When this row was computed.';

create table analytics.rfm_segments (
    contact_id bigint primary key,
    as_of date not null,
    recency_days int not null,
    frequency bigint not null,
    monetary numeric(18,4) not null,
    reporting_currency char(3) not null,
    r_score smallint not null,
    f_score smallint not null,
    m_score smallint not null,
    rfm_segment text not null,
    refreshed_at timestamptz not null,
    constraint scores_are_one_to_five check (
        r_score between 1 and 5 and f_score between 1 and 5 and m_score between 1 and 5)
);
comment on table analytics.rfm_segments is
    'One row per customer: recency, frequency and money of the orders before 00:00 UTC of as_of, scored by cut points (quintiles; equal values get equal scores).';
comment on column analytics.rfm_segments.contact_id is 'Customer; who has no order with an amount in the reporting currency is left out.';
comment on column analytics.rfm_segments.as_of is 'Orders placed and refunds made before 00:00 UTC of this day count.';
comment on column analytics.rfm_segments.recency_days is 'Days from the day (UTC) of the last order to as_of.';
comment on column analytics.rfm_segments.frequency is 'Orders, refunded ones included.';
comment on column analytics.rfm_segments.monetary is
    'Net of refunds in reporting_currency, each order at the rate of its day; without orders in unconverted_orders.';
comment on column analytics.rfm_segments.reporting_currency is 'Currency of monetary: that of the newest order.';
comment on column analytics.rfm_segments.r_score is
    '5 less the number of the 20th, 40th, 60th and 80th percentile of recency_days (interpolated) below the customer''s: 5 is recent.';
comment on column analytics.rfm_segments.f_score is
    '1 plus the number of the 20th, 40th, 60th and 80th percentile of frequency (interpolated) below the customer''s: 5 is often.';
comment on column analytics.rfm_segments.m_score is
    '1 plus the number of the 20th, 40th, 60th and 80th percentile of monetary (interpolated) below the customer''s: 5 is much.';
comment on column analytics.rfm_segments.rfm_segment is 'Name of these scores: analytics.rfm_segment(r, f, m).';
comment on column analytics.rfm_segments.refreshed_at is 'When this row was computed.';

create function analytics.rfm_segment(r_score smallint, f_score smallint, m_score smallint) returns text
language sql immutable parallel safe as $$
    select case
        when r_score = 5 and f_score >= 4 and m_score >= 4 then 'champions'
        when r_score >= 3 and f_score >= 4 then 'loyal'
        when r_score >= 4 and f_score >= 2 then 'potential_loyalists'
        when r_score = 5 then 'new_customers'
        when r_score = 4 then 'promising'
        when r_score = 3 and f_score = 3 then 'need_attention'
        when r_score = 3 then 'about_to_sleep'
        when f_score = 5 and m_score >= 4 then 'cannot_lose'
        when f_score >= 3 then 'at_risk'
        else 'hibernating'
    end
$$;
comment on function analytics.rfm_segment(smallint, smallint, smallint) is
    'champions: r 5, f 4-5, m 4-5; loyal: r 3-5, f 4-5 otherwise; potential_loyalists: r 4-5, f 2-3; new_customers: r 5, f 1; promising: r 4, f 1; need_attention: r 3, f 3; about_to_sleep: r 3, f 1-2; cannot_lose: r 1-2, f 5, m 4-5; at_risk: r 1-2, f 3-5 otherwise; hibernating: r 1-2, f 1-2.';

create table analytics.customer_value (
    contact_id bigint primary key,
    acquisition_month date not null,
    acquisition_campaign_id bigint,
    first_order_at timestamptz not null,
    last_order_at timestamptz not null,
    orders bigint not null,
    gross_revenue numeric(18,4),
    refunds numeric(18,4),
    net_revenue numeric(18,4),
    net_revenue_12m numeric(18,4),
    aov numeric(18,4),
    avg_days_between_orders numeric(9,2),
    reporting_currency char(3) not null,
    refreshed_at timestamptz not null
);
comment on table analytics.customer_value is
    'One row per customer: what they have bought so far. Amounts in reporting_currency, each order at the rate of its day, without orders in unconverted_orders; null if all of them are.';
comment on column analytics.customer_value.contact_id is
    'Customer; orders of nobody we know (0) are left out. The number of somebody erased leads to nobody.';
comment on column analytics.customer_value.acquisition_month is 'First day of the month (UTC) of the first order.';
comment on column analytics.customer_value.acquisition_campaign_id is
    'Campaign of the last touch before the first order (attribution); null without one.';
comment on column analytics.customer_value.first_order_at is 'When the first order was placed.';
comment on column analytics.customer_value.last_order_at is 'When the last order was placed.';
comment on column analytics.customer_value.orders is 'Orders, refunded and unconverted ones included.';
comment on column analytics.customer_value.gross_revenue is 'Totals of the orders as placed.';
comment on column analytics.customer_value.refunds is 'What of it was refunded: gross_revenue - net_revenue.';
comment on column analytics.customer_value.net_revenue is 'Net of refunds.';
comment on column analytics.customer_value.net_revenue_12m is 'Net of refunds, of orders of the last 12 months.';
comment on column analytics.customer_value.aov is 'net_revenue / the orders it is the sum of.';
comment on column analytics.customer_value.avg_days_between_orders is
    'Days from the first to the last order / (orders - 1); null with one order.';
comment on column analytics.customer_value.reporting_currency is 'Currency of the amounts: that of the newest order.';
comment on column analytics.customer_value.refreshed_at is 'When this row was computed.';

create table analytics.attribution (
    order_id bigint not null,
    contact_id bigint not null,
    placed_at timestamptz not null,
    model text not null,
    campaign_id bigint,
    message_id bigint not null,
    touch_at timestamptz not null,
    weight numeric(9,8) not null,
    currency char(3) not null,
    order_net numeric(18,4) not null,
    attributed_amount numeric(18,4) not null,
    fx_rate numeric(18,8),
    fx_date date,
    attributed_reporting numeric(18,4),
    reporting_currency char(3) not null,
    refreshed_at timestamptz not null,
    constraint one_row_per_order_model_and_campaign
        unique nulls not distinct (order_id, model, campaign_id),
    constraint model_is_known check (model in ('last_touch', 'first_touch', 'linear')),
    constraint weight_is_a_share check (weight between 0 and 1)
);
create index attribution_by_campaign on analytics.attribution (campaign_id, model);
create index attribution_by_contact on analytics.attribution (contact_id);
comment on table analytics.attribution is
    'One row per order, model and campaign that touched the buyer before: by human clicks, else by human opens, within the windows of the settings. Weights add up to 1 per order and model; an order nothing touched has no row.';
comment on column analytics.attribution.order_id is 'Order (fct_orders).';
comment on column analytics.attribution.contact_id is 'Who bought; orders of nobody we know (0) are left out.';
comment on column analytics.attribution.placed_at is 'When the order was placed.';
comment on column analytics.attribution.model is
    'last_touch, first_touch (all of it to that touch) or linear (as much to each touch).';
comment on column analytics.attribution.campaign_id is
    'Campaign of the touched mail; null: mails of workflows and rules, together.';
comment on column analytics.attribution.message_id is 'Message of the touch; of several of the campaign, the last one.';
comment on column analytics.attribution.touch_at is 'When that touch happened.';
comment on column analytics.attribution.weight is 'Share of the order; cut at 8 decimals, the last touch has the rest.';
comment on column analytics.attribution.currency is 'Currency of order_net and attributed_amount.';
comment on column analytics.attribution.order_net is 'The whole order net of refunds, in currency.';
comment on column analytics.attribution.attributed_amount is
    'order_net by weight; adds up to order_net per order and model.';
comment on column analytics.attribution.fx_rate is
    'Units of reporting_currency for one unit of currency on fx_date; null: the order waits for a rate.';
comment on column analytics.attribution.fx_date is 'Day of that rate: the last one on or before the order''s day.';
comment on column analytics.attribution.attributed_reporting is
    'attributed_amount in reporting_currency; adds up to net_revenue of fct_orders, and is null where that is.';
comment on column analytics.attribution.reporting_currency is
    'Currency of attributed_reporting: the one the order was booked under. Sums are by this column.';
comment on column analytics.attribution.refreshed_at is 'When this row was computed.';

create table rollups.attribution_windows (
    is_only boolean primary key default true,
    click_days int not null,
    open_days int not null,
    constraint there_is_one_row check (is_only)
);
comment on table rollups.attribution_windows is
    'The windows that analytics.attribution was made by; campaign_performance counts by them too, so that both agree.';
comment on column rollups.attribution_windows.click_days is 'How many days before an order a human click counts.';
comment on column rollups.attribution_windows.open_days is 'How many days before an order a human open counts.';

-- A refund counts from the moment it was made, also in tables as of a past day.
create index refunds_by_time on refunds (occurred_at);
