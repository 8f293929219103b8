-- Inbound sources: doors through which shops tell events, each with an address of its own and a secret that signs.

create table inbound_sources (
    source_id bigint generated always as identity primary key,
    name text not null,
    kind text not null default 'generic',
    token_hash bytea not null,
    secret_encrypted bytea not null,
    active boolean not null default true,
    mapping jsonb not null default '{}',
    last_received_at timestamptz,
    created_at timestamptz not null default now(),
    constraint one_source_per_token unique (token_hash),
    constraint source_kind_is_known check (
        kind in ('generic', 'standard_webhooks', 'shopify', 'woocommerce')),
    constraint a_mapping_is_an_object check (jsonb_typeof(mapping) = 'object')
);
create index inbound_sources_by_time on inbound_sources (created_at desc, source_id desc);
comment on table inbound_sources is
    'Who may tell events without signing in: the token is the address, the signature the proof.';
comment on column inbound_sources.token_hash is
    'SHA-256 of the token: who reads this table learns no address. The token is shown once.';
comment on column inbound_sources.secret_encrypted is
    'Sealed with the key ring: a signature cannot be checked with a hash.';
comment on column inbound_sources.last_received_at is
    'Kept to the minute, so that many messages at once do not wait for one row.';

-- Dead deliveries are few among many, and what people look for.
create index webhook_deliveries_dead on webhook_deliveries (delivery_id) where status = 'dead';
