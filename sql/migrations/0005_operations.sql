-- Users and keys, imports, outbox and webhooks, audit, idempotency.

create table users (
    user_id bigint generated always as identity primary key,
    email text not null,
    email_key text not null,
    name text not null default '',
    role text not null default 'viewer',
    password_hash text not null,
    is_active boolean not null default true,
    sessions_valid_from timestamptz not null default now(),
    last_login_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz,
    constraint one_user_per_address unique (email_key),
    constraint role_is_known check (role in ('viewer', 'editor', 'admin'))
);
comment on column users.sessions_valid_from is 'Tokens issued before this moment are dead.';
create table refresh_tokens (
    token_hash bytea primary key,
    family uuid not null,
    user_id bigint not null references users on delete cascade,
    access_jti uuid not null,
    issued_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz,
    revoked_at timestamptz
);
comment on column refresh_tokens.access_jti is
    'The access token handed out beside this one: ending a family ends its access tokens too.';
create index refresh_tokens_by_access_token on refresh_tokens (access_jti);
create index refresh_tokens_of_family on refresh_tokens (family);
create index refresh_tokens_of_user on refresh_tokens (user_id);
create table revoked_tokens (
    jti uuid primary key,
    expires_at timestamptz not null
);
create table api_keys (
    api_key_id bigint generated always as identity primary key,
    name text not null,
    prefix text not null,
    key_hash bytea not null unique,
    role text not null default 'viewer',
    scopes text[] not null default '{*}',
    created_by text not null,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz not null default now(),
    constraint role_is_known check (role in ('viewer', 'editor', 'admin'))
);
create table sign_in_failures (
    failure_id bigint generated always as identity primary key,
    account_hash bytea not null,
    network text not null,
    failed_at timestamptz not null
);
create index sign_in_failures_by_account on sign_in_failures (account_hash, failed_at);
create index sign_in_failures_by_network on sign_in_failures (network, failed_at);

create table imports (
    import_id bigint generated always as identity primary key,
    status text not null default 'queued',
    filename text,
    format text not null default 'csv',
    options jsonb not null default '{}',
    storage_uri text,
    content_sha256 text,
    total_rows bigint,
    created bigint not null default 0,
    updated bigint not null default 0,
    skipped bigint not null default 0,
    rejected bigint not null default 0,
    suppressed bigint not null default 0,
    error text,
    attempt_id bigint,
    lease_until timestamptz,
    created_by text not null default '',
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    constraint import_status_is_known check (
        status in ('queued', 'running', 'cancelling', 'completed', 'failed', 'cancelled')),
    constraint import_format_is_known check (format in ('csv', 'csv.gz', 'json')),
    constraint a_finished_import_has_its_time check (
        (status in ('completed', 'failed', 'cancelled')) = (finished_at is not null)),
    constraint a_failed_import_says_why check (status <> 'failed' or error is not null)
);
create index imports_to_do on imports (import_id) where status in ('queued', 'running', 'cancelling');
create table import_rejects (
    import_id bigint not null references imports on delete cascade,
    line bigint not null,
    column_name text not null default '',
    code text not null,
    reason text not null,
    value text not null default '',
    primary key (import_id, line, column_name, code)
);
comment on table import_rejects is 'Every row of a file that was not taken: physical line, column and reason.';

create schema staging;
comment on schema staging is 'Rows on their way in; unlogged, gone after a crash, never the only copy.';
create unlogged table staging.event_rows (
    batch_id bigint not null,
    ordinal bigint not null,
    contact_id bigint not null,
    occurred_at timestamptz not null,
    received_at timestamptz,
    event_type text not null,
    source text not null,
    external_id text,
    properties jsonb not null,
    campaign_id bigint,
    message_id bigint,
    order_key bigint
);
-- Patterns, always empty: each import works in temporary tables of these names and columns, which stand before
-- them in the search path. Temporary: nothing is logged, no import waits for another one's locks, and what a
-- killed worker leaves behind goes with its connection.
create table import_rows (
    line bigint not null,
    email text,
    email_key text,
    flags smallint,
    first_name text,
    last_name text,
    phone text,
    country text,
    language text,
    timezone text,
    currency text,
    custom_fields jsonb,
    subscribed boolean,
    created_at timestamptz,
    consent_status text,
    consent_source text,
    consent_at timestamptz,
    tags jsonb,
    reject_column text,
    reject_code text,
    reject_value text
);
comment on table import_rows is
    'Pattern of an import''s rows: one per row of the file; null: blank or not in the file.';
comment on column import_rows.flags is '1 disposable, 2 free provider, 4 role-based, added up.';
create table import_people (
    email text not null,
    email_key text not null,
    flags smallint not null,
    row_count bigint not null,
    is_folded boolean not null,
    is_opt_out boolean not null,
    first_name text,
    last_name text,
    phone text,
    country text,
    language text,
    timezone text,
    currency text,
    custom_fields jsonb,
    subscribed boolean,
    created_at timestamptz,
    consent_status text,
    consent_source text,
    consent_at timestamptz
);
comment on table import_people is
    'Pattern of an import''s people: the rows of one address folded by the update policy.';
comment on column import_people.is_folded is 'Later rows of the address say something the first does not.';
create table import_touched (
    contact_id bigint not null,
    is_new boolean not null,
    row_count bigint not null,
    is_opt_out boolean not null
);
comment on table import_touched is 'Pattern of the contacts an import made or changed.';
create function imported_text(policy text, known text, given text, is_mapped boolean, empty text) returns text
language sql immutable parallel safe as $$
    select case policy
        when 'fill_empty' then coalesce(nullif(known, ''), given, known)
        when 'merge' then coalesce(given, known)
        when 'overwrite' then case when is_mapped then coalesce(given, empty) else known end
        else known
    end
$$;
comment on function imported_text(text, text, text, boolean, text) is
    'What an import makes of a known text: policy, value known, value given (null: blank), mapped, value if cleared.';

create table outbox (
    outbox_id bigint generated always as identity primary key,
    event_name text not null,
    occurred_at timestamptz not null,
    data jsonb not null,
    created_at timestamptz not null default now(),
    expanded_at timestamptz,
    constraint webhook_event_is_known check (event_name in (
        'contact.created', 'contact.updated', 'contact.deleted', 'contact.subscribed',
        'contact.unsubscribed', 'campaign.created', 'campaign.sent', 'campaign.completed',
        'email.sent', 'email.opened', 'email.clicked', 'email.bounced', 'email.unsubscribed',
        'workflow.triggered', 'workflow.completed', 'workflow.failed',
        'ab_test.started', 'ab_test.completed', 'ab_test.winner_selected'))
);
create index outbox_to_expand on outbox (outbox_id) where expanded_at is null;
comment on table outbox is
    'Facts for outbound webhooks, written in the transaction of the fact; one row per fact.';
create table webhook_endpoints (
    endpoint_id bigint generated always as identity primary key,
    url text not null,
    secret_encrypted bytea not null,
    previous_secret_encrypted bytea,
    previous_valid_until timestamptz,
    events text[] not null default '{*}',
    active boolean not null default true,
    description text not null default '',
    consecutive_failures integer not null default 0,
    max_failures integer not null default 10,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    disabled_reason text,
    created_at timestamptz not null default now()
);
create table webhook_deliveries (
    delivery_id bigint generated always as identity primary key,
    endpoint_id bigint not null references webhook_endpoints on delete cascade,
    outbox_id bigint not null,
    event_type text not null,
    webhook_message_id text not null,
    payload jsonb not null,
    status text not null default 'pending',
    attempt integer not null default 0,
    attempt_id bigint,
    lease_until timestamptz,
    next_attempt_at timestamptz,
    response_status integer,
    duration_ms integer not null default 0,
    error text,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint one_delivery_per_endpoint_and_fact unique (endpoint_id, outbox_id),
    constraint delivery_status_is_known check (status in ('pending', 'succeeded', 'dead')),
    constraint a_pending_delivery_has_a_next_attempt
        check ((status = 'pending') = (next_attempt_at is not null))
);
create index webhook_deliveries_due on webhook_deliveries (next_attempt_at) where status = 'pending';
create table webhook_attempts (
    delivery_id bigint not null references webhook_deliveries on delete cascade,
    attempt integer not null,
    at timestamptz not null,
    response_status integer not null,
    duration_ms integer not null,
    error text,
    response_body text,
    primary key (delivery_id, attempt)
);

create table audit_log (
    audit_id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor_type text not null,
    actor_id bigint,
    actor_label text not null default '',
    action text not null,
    resource_type text not null,
    resource_id text,
    status integer not null,
    request_id text not null default '',
    changes jsonb not null default '{}',
    constraint actor_type_is_known check (actor_type in ('user', 'api_key', 'system', 'public'))
);
create index audit_log_by_resource on audit_log (resource_type, resource_id);
comment on table audit_log is 'Append-only: who did what. A success is written in the transaction of its effect.';

create table idempotency_keys (
    caller text not null,
    method text not null,
    path text not null,
    idempotency_key text not null,
    request_hash bytea not null,
    claimed_at timestamptz not null,
    completed_at timestamptz,
    status integer,
    headers jsonb,
    body bytea,
    primary key (caller, method, path, idempotency_key),
    constraint a_completed_call_has_its_answer
        check ((completed_at is null) = (status is null))
);

create table heartbeats (
    component text primary key,
    beat_at timestamptz not null,
    detail jsonb not null default '{}'
);
comment on table heartbeats is 'Last sign of life of each background component; /ready reads it.';
