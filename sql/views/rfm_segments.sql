-- Grain: one row per customer. The scores of the last refresh (rollups.rfm_scores) with the days since the last order.
drop view if exists analytics.rfm_segments cascade;
create view analytics.rfm_segments as
select
    scores.contact_id, given.as_of, given.as_of - scores.last_order_day as recency_days, scores.frequency,
    scores.monetary, scores.reporting_currency, scores.r_score, scores.f_score, scores.m_score, scores.rfm_segment,
    scores.refreshed_at
from rollups.rfm_scores as scores
cross join rollups.rfm_day as given;
comment on view analytics.rfm_segments is
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
