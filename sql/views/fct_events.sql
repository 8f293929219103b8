-- Grain: one row per event. What happened, without its properties, which may hold personal data.
drop view if exists analytics.fct_events cascade;
create view analytics.fct_events as
select
    event_id, contact_id, event_type, source, occurred_at, received_at, campaign_id, message_id,
    order_key as order_id,
    cast(occurred_at at time zone (select analytics.reporting_timezone()) as date) as reporting_day
from events;
comment on view analytics.fct_events is 'One row per event, without properties.';
comment on column analytics.fct_events.event_id is 'Key; the API shows the same number as text.';
comment on column analytics.fct_events.contact_id is 'Who; 0 is nobody.';
comment on column analytics.fct_events.event_type is 'Type: a word of the vocabulary, or a custom one.';
comment on column analytics.fct_events.source is 'Who told us; mauto is this service.';
comment on column analytics.fct_events.occurred_at is 'When it happened. Filter on this: events are partitioned by it.';
comment on column analytics.fct_events.received_at is 'When we learned of it.';
comment on column analytics.fct_events.campaign_id is 'Campaign it belongs to, if any.';
comment on column analytics.fct_events.message_id is 'Message it belongs to, if any.';
comment on column analytics.fct_events.order_id is 'Order it belongs to (fct_orders), if any.';
comment on column analytics.fct_events.reporting_day is
    'Day of occurred_at on the clocks of the reporting time zone (MAUTO_REPORTING_TIMEZONE).';
