-- What each event and each contact costs when a million of them are written (docs/decisions/0011).

-- (event_id, occurred_at) and (occurred_at, event_id) were the same uniqueness twice, and imports tell nearly all events
-- of two types. What these indexes found besides is found through blocks: numbers are handed out in the order of arrival,
-- and a filter of each block says which types it holds, so that rare ones are found at once. The number is asked for as
-- event_id + 0, because for event_id alone PostgreSQL may prefer to read the whole primary key.
alter table events drop constraint events_pkey;
drop index events_newest;
drop index events_by_time;
alter table events add primary key (occurred_at, event_id);
drop index events_by_type;
create index events_by_type on events (event_type, occurred_at, event_id) include (contact_id)
    where event_type not in ('contact_created', 'contact_updated');
create index events_by_block on events
    using brin ((event_id + 0), event_type text_bloom_ops (n_distinct_per_range = 100))
    with (autosummarize = on);

-- New contacts come last instead of first: the rightmost page of an index is found without a search and never split
-- in halves.
drop index contacts_by_creation;
create index contacts_by_creation on contacts (created_at, contact_id);

-- Every statement of an import asks first whether a row is taken, and nearly every one then for its key: such columns are
-- found at once near the front, and only behind all others near the end. The pattern is empty, so nothing moves.
alter table import_rows
    drop column email, drop column email_key, drop column flags, drop column first_name, drop column last_name,
    drop column phone, drop column country, drop column language, drop column timezone, drop column currency,
    drop column custom_fields, drop column subscribed, drop column created_at, drop column consent_status,
    drop column consent_source, drop column consent_at, drop column tags, drop column reject_column,
    drop column reject_code, drop column reject_value;
alter table import_rows
    add column flags smallint, add column reject_code text, add column email_key text, add column email text,
    add column first_name text, add column last_name text, add column phone text, add column country text,
    add column language text, add column timezone text, add column currency text, add column custom_fields jsonb,
    add column subscribed boolean, add column created_at timestamptz, add column consent_status text,
    add column consent_source text, add column consent_at timestamptz, add column tags jsonb,
    add column reject_column text, add column reject_value text;
comment on column import_rows.flags is '1 disposable, 2 free provider, 4 role-based, added up.';

-- Counting the characters of every address, twice each, was a third of what the constraints of contacts cost: what is
-- short enough in octets is so in characters.
alter table contacts
    drop constraint address_has_at_most_320_characters,
    add constraint address_has_at_most_320_characters
        check (email <> '' and (octet_length(email) <= 320 or length(email) <= 320));
