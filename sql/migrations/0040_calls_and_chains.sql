-- Calls of workflows and rules ride on the delivery of webhooks; mail carries the depth of its chain.

-- An address that only actions call is an endpoint that listens to nothing: lanes, leases and the schedule are the same.
alter table webhook_endpoints
    add column is_listed boolean not null default true,
    alter column secret_encrypted drop not null,
    add constraint a_listed_endpoint_has_a_secret check (not is_listed or secret_encrypted is not null),
    add constraint an_unlisted_endpoint_listens_to_nothing check (is_listed or events = '{}');
comment on column webhook_endpoints.is_listed is
    'False: an address that actions of workflows and rules call; unsigned, never disabled, nobody''s to edit.';
-- By digest: a URL may be longer than an entry of an index.
create unique index one_unlisted_endpoint_per_url on webhook_endpoints (md5(url)) where not is_listed;

alter table webhook_deliveries add column dedupe_key text;
comment on column webhook_deliveries.dedupe_key is
    'Of a call: who makes it, at which step and visit; null for facts and tests.';
create unique index one_delivery_per_call on webhook_deliveries (dedupe_key) where dedupe_key is not null;

create or replace function wake_webhooks() returns trigger language plpgsql as $$
begin
    -- With nobody listening a fact costs its row and nothing else.
    if exists (select from webhook_endpoints where active and is_listed) then
        perform pg_notify('mauto_webhooks', tg_table_name);
    end if;
    return null;
end
$$;

-- As for event_pending: who queues mail need not know what caused it.
alter table messages add column depth smallint not null
    default coalesce(cast(nullif(current_setting('mauto.depth', true), '') as smallint), 0);
comment on column messages.depth is
    'How many rules and workflows lie between the mail and what came from outside; its events are as deep.';
