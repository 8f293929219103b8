-- Events, orders and rates as lists, newest first, and which event an order or a refund was told by.

-- Newest first over all months, alone or by type, campaign or teller (the service's own events are most of all, and
-- where they are meant the newest-first index finds them soon enough).
create index events_newest on events (occurred_at, event_id);
create index events_by_type on events (event_type, occurred_at, event_id);
create index events_by_campaign on events (campaign_id, occurred_at, event_id)
    where campaign_id is not null;
create index events_by_source on events (source, occurred_at, event_id) where source <> 'mauto';

-- A repetition names the event that was stored first. No synthetic key is needed for that any more.
alter table orders add column event_id bigint;
comment on column orders.event_id is 'The order_placed event that told of it.';
alter table refunds add column event_id bigint;
comment on column refunds.event_id is 'The order_refunded event that told of it.';

update orders
set event_id = events.event_id
from events
where events.order_key = orders.order_key and events.event_type = 'order_placed';
update refunds
set event_id = events.event_id
from events
where events.event_type = 'order_refunded' and events.source = refunds.source
    and events.properties ->> 'order_id' = refunds.order_id
    and events.properties ->> 'refund_id' = refunds.refund_id;

drop index orders_by_time;
create index orders_by_time on orders (placed_at, order_key);
create index orders_refunded on orders (placed_at, order_key) where refunded_total > 0;
create index orders_by_currency on orders (currency, placed_at, order_key);
create unique index orders_by_key on orders (order_key);
create index fx_rates_by_day on fx_rates (rate_date, base, quote);
