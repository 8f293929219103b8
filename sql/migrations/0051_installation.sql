-- Which database this is, and whether mail may leave it: a restored snapshot is another epoch and starts with sending off.

create table installation (
    is_only boolean primary key default true,
    installation_id uuid not null default gen_random_uuid(),
    epoch integer not null default 1,
    database_key text,
    sending_enabled boolean not null default true,
    reason text not null default '',
    restored_at timestamptz,
    is_reviewed boolean not null default true,
    changed_at timestamptz not null default now(),
    changed_by text not null default '',
    constraint there_is_one_installation check (is_only),
    constraint sending_that_is_off_says_why check (sending_enabled or reason <> '')
);
insert into installation default values;
comment on table installation is 'One row. Every claim of mail shares a lock on it, so switching off waits for claims under way.';
comment on column installation.epoch is 'Raised whenever the database went back in time: by a restore, or when a sender notices.';
comment on column installation.database_key is
    'The server and the database a sender last saw itself in; another one means that this is a copy.';
comment on column installation.restored_at is
    'When it went back in time; intentions of before may have been carried out since the snapshot.';
comment on column installation.is_reviewed is 'False after a restore until somebody switches sending on.';

-- Not every managed server tells its identity to everybody.
create function database_key() returns text language plpgsql stable as $$
declare
    own text := (select oid::text from pg_database where datname = current_database());
begin
    return (select system_identifier::text from pg_control_system()) || '/' || own;
exception
    when insufficient_privilege or feature_not_supported or undefined_function then
        return own;
end
$$;
comment on function database_key() is 'Identity of this server and database: a copy has another one.';
