-- Outbound webhooks are delivered: since when an endpoint listens, what came of it, and the commit that wakes it.

alter table webhook_endpoints
    add column listens_since timestamptz not null default now(),
    add column failing_since timestamptz,
    add column total_deliveries bigint not null default 0,
    add column total_failures bigint not null default 0;
comment on column webhook_endpoints.listens_since is
    'Facts recorded before are not told to it: its making, or its last coming back. Kept by a trigger.';
comment on column webhook_endpoints.failing_since is
    'The first failed attempt since the last success; 5 days of that disable it. Cleared by a trigger on coming back.';
comment on column webhook_endpoints.total_deliveries is 'Deliveries that ended, well or not, and tests.';
comment on column webhook_endpoints.total_failures is 'Of these, the dead ones and the failed tests.';

create function begin_to_listen() returns trigger language plpgsql as $$
begin
    new.listens_since := clock_timestamp();
    new.failing_since := null;
    return new;
end
$$;
create trigger begins_to_listen before update of active on webhook_endpoints
    for each row when (new.active and not old.active) execute function begin_to_listen();

-- A test is a delivery of no fact. What was replayed begins its schedule again, and its attempts go on counting.
alter table webhook_deliveries
    alter column outbox_id drop not null,
    add column replayed_after integer not null default 0;
comment on column webhook_deliveries.outbox_id is 'The fact it tells of; null for a test.';
comment on column webhook_deliveries.replayed_after is
    'Attempts made before somebody asked for it again; the schedule counts from there.';
comment on column webhook_deliveries.next_attempt_at is
    'When it is due. While an attempt holds it: when its lease ends, so that what a dead worker held is due again.';
create sequence webhook_attempt_ids;

drop index webhook_deliveries_due;
create index webhook_deliveries_due on webhook_deliveries (endpoint_id, next_attempt_at)
    where status = 'pending';
create index webhook_deliveries_of_endpoint on webhook_deliveries (endpoint_id, delivery_id);
-- For retention: rows lie in the order of their making.
create index webhook_deliveries_by_age on webhook_deliveries using brin (created_at);
create index outbox_by_age on outbox using brin (created_at);

create function wake_webhooks() returns trigger language plpgsql as $$
begin
    -- With nobody listening a fact costs its row and nothing else.
    if exists (select from webhook_endpoints where active) then
        perform pg_notify('mauto_webhooks', tg_table_name);
    end if;
    return null;
end
$$;
create trigger wakes_the_webhooks after insert on outbox
    for each statement execute function wake_webhooks();
create trigger wakes_the_webhooks_again after update of active on webhook_endpoints
    for each row when (new.active and not old.active) execute function wake('mauto_webhooks');
create trigger wakes_the_webhooks_to_replay after update of replayed_after on webhook_deliveries
    for each statement execute function wake('mauto_webhooks');
