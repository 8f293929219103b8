-- Contacts, consent, suppression, tags, segments - and what is needed to know them as of any past moment.

create table contacts (
    contact_id bigint generated always as identity primary key,
    email text not null,
    email_key text not null,
    first_name text not null default '',
    last_name text not null default '',
    phone text not null default '',
    country text not null default '',
    language text not null default 'en',
    timezone text not null default '',
    currency text not null default '',
    custom_fields jsonb not null default '{}',
    subscribed boolean not null default true,
    consent_status text not null default 'unknown',
    consent_source text,
    consent_at timestamptz,
    source text not null default 'api',
    is_disposable boolean not null default false,
    is_free_provider boolean not null default false,
    is_role_based boolean not null default false,
    version integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz,
    constraint one_contact_per_address unique (email_key),
    constraint contact_id_zero_means_nobody check (contact_id > 0),
    constraint consent_status_is_known
        check (consent_status in ('unknown', 'pending', 'granted', 'withdrawn')),
    constraint address_has_at_most_320_characters check (length(email) between 1 and 320),
    constraint custom_fields_are_an_object check (jsonb_typeof(custom_fields) = 'object')
) with (fillfactor = 90);
create index contacts_by_creation on contacts (created_at desc, contact_id desc);
comment on table contacts is 'One row per person, as known now. Earlier versions: contact_history.';
comment on column contacts.email is 'Address as typed, domain in lower case.';
comment on column contacts.email_key is
    'What decides uniqueness and suppression: NFKC, lower case, domain in punycode.';
comment on column contacts.updated_at is
    'Start of this version; null while the first version (from created_at) still holds.';

-- Closed versions only: the open one is the row in contacts. A new contact therefore costs nothing here.
create table contact_history (
    contact_id bigint not null,
    valid_from timestamptz not null,
    valid_to timestamptz not null,
    version integer not null,
    email_key text not null,
    first_name text not null,
    last_name text not null,
    phone text not null,
    country text not null,
    language text not null,
    timezone text not null,
    currency text not null,
    custom_fields jsonb not null,
    subscribed boolean not null,
    consent_status text not null,
    primary key (contact_id, version),
    constraint a_version_ends_after_it_began check (valid_to >= valid_from)
);
comment on table contact_history is
    'Earlier versions of contacts; valid in [valid_from, valid_to). Written by a trigger.';

create function keep_contact_version() returns trigger language plpgsql as $$
begin
    insert into contact_history (
        contact_id, valid_from, valid_to, version, email_key, first_name, last_name, phone, country,
        language, timezone, currency, custom_fields, subscribed, consent_status
    )
    select
        before.contact_id, coalesce(before.updated_at, before.created_at),
        greatest(after.updated_at, coalesce(before.updated_at, before.created_at)), before.version,
        before.email_key, before.first_name, before.last_name, before.phone, before.country,
        before.language, before.timezone, before.currency, before.custom_fields,
        before.subscribed, before.consent_status
    from before
    inner join after on after.contact_id = before.contact_id
    where after.version > before.version;
    return null;
end
$$;
create trigger contact_version_is_kept
    after update on contacts
    referencing old table as before new table as after
    for each statement execute function keep_contact_version();

create table consents (
    consent_id bigint generated always as identity primary key,
    contact_id bigint not null,
    status text not null,
    source text not null,
    wording_version text,
    ip inet,
    actor text not null,
    note text,
    recorded_at timestamptz not null default now(),
    constraint consent_status_is_known
        check (status in ('unknown', 'pending', 'granted', 'withdrawn'))
);
create index consents_by_contact on consents (contact_id, consent_id desc);
comment on table consents is 'Append-only: every change of a contact''s consent, with source, actor and time.';

create table suppressions (
    suppression_id bigint generated always as identity primary key,
    email text,
    email_key text,
    email_hash bytea,
    reason text not null,
    source text not null default '',
    notes text not null default '',
    created_at timestamptz not null default now(),
    constraint one_suppression_per_address unique (email_key),
    constraint one_suppression_per_hash unique (email_hash),
    constraint suppression_names_an_address_or_the_hash_of_an_erased_one
        check (num_nonnulls(email_key, email_hash) = 1),
    constraint suppression_reason_is_known
        check (reason in ('bounce', 'complaint', 'unsubscribe', 'manual', 'compliance'))
);
comment on table suppressions is 'Addresses that must not be mailed. Only mautolib.contacts.consent writes here.';
comment on column suppressions.email_hash is 'Keyed hash of the address of an erased person.';

create table suppression_history (
    suppression_id bigint not null,
    email_key text,
    reason text not null,
    valid_from timestamptz not null,
    valid_to timestamptz not null,
    primary key (suppression_id, valid_to, reason)
);
comment on table suppression_history is 'Suppressions that were lifted or changed their reason.';
create function keep_suppression() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' or old.reason is distinct from new.reason then
        insert into suppression_history (suppression_id, email_key, reason, valid_from, valid_to)
        values (old.suppression_id, old.email_key, old.reason, old.created_at, clock_timestamp());
    end if;
    return null;
end
$$;
create trigger suppression_is_kept after update or delete on suppressions
    for each row execute function keep_suppression();

create table tags (
    tag_id bigint generated always as identity primary key,
    name text not null,
    color text not null default '#3B82F6',
    created_at timestamptz not null default now(),
    constraint tag_name_has_1_to_100_characters check (length(name) between 1 and 100)
);
create unique index one_tag_per_name on tags (lower(name));
create table contact_tags (
    contact_id bigint not null references contacts on delete cascade,
    tag_id bigint not null references tags on delete cascade,
    added_at timestamptz not null default now(),
    primary key (contact_id, tag_id)
);
create index contact_tags_by_tag on contact_tags (tag_id);
create table contact_tag_history (
    contact_id bigint not null,
    tag_id bigint not null,
    valid_from timestamptz not null,
    valid_to timestamptz not null,
    primary key (contact_id, tag_id, valid_to)
);
create function keep_contact_tag() returns trigger language plpgsql as $$
begin
    insert into contact_tag_history (contact_id, tag_id, valid_from, valid_to)
    select contact_id, tag_id, added_at, greatest(added_at, clock_timestamp()) from before;
    return null;
end
$$;
create trigger contact_tag_is_kept after delete on contact_tags
    referencing old table as before for each statement execute function keep_contact_tag();

create table segments (
    segment_id bigint generated always as identity primary key,
    name text not null,
    description text not null default '',
    rules jsonb not null default '[]',
    match_type text not null default 'all',
    exclude_unsubscribed boolean not null default false,
    exclude_suppressed boolean not null default false,
    exclude_bounced boolean not null default false,
    exclude_campaign_ids bigint[] not null default '{}',
    evaluation_status text not null default 'ready',
    evaluated_at timestamptz,
    version integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz,
    constraint match_type_is_known check (match_type in ('all', 'any', 'none')),
    constraint evaluation_status_is_known check (evaluation_status in ('ready', 'pending'))
);
create table segment_static_members (
    segment_id bigint not null references segments on delete cascade,
    contact_id bigint not null references contacts on delete cascade,
    is_excluded boolean not null default false,
    added_at timestamptz not null default now(),
    primary key (segment_id, contact_id)
);
comment on table segment_static_members is
    'Contacts put into (or kept out of, is_excluded) a segment by hand.';
create table segment_memberships (
    segment_id bigint not null,
    contact_id bigint not null,
    valid_from timestamptz not null,
    valid_to timestamptz not null default 'infinity',
    primary key (segment_id, contact_id, valid_from),
    constraint membership_ends_after_it_began check (valid_to >= valid_from)
);
comment on table segment_memberships is
    'Who was in a segment when: open rows (valid_to = infinity) are the members of the last evaluation.';

-- The one predicate of who may be mailed (a setting may add: only granted consent), with the reason if not.
create view contact_mailability as
select
    contacts.contact_id, contacts.email, contacts.email_key, contacts.first_name, contacts.last_name,
    contacts.phone, contacts.country, contacts.language, contacts.timezone, contacts.currency,
    contacts.custom_fields, contacts.source, contacts.consent_status, contacts.created_at,
    suppressions.reason as suppression_reason,
    case
        when suppressions.reason <> 'unsubscribe' then 'suppressed'
        when suppressions.reason = 'unsubscribe' or not contacts.subscribed then 'unsubscribed'
        when contacts.consent_status not in ('unknown', 'granted') then 'no_consent'
        when octet_length(contacts.email) > 254 then 'invalid_address'
    end as refusal
from contacts
left join suppressions on suppressions.email_key = contacts.email_key;
comment on view contact_mailability is 'Every contact, and why marketing mail may not go there.';
comment on column contact_mailability.refusal is
    'Null: subscribed, consent unknown or granted, address of at most 254 octets and not suppressed.';
create view mailable_contacts as
select
    contact_id, email, email_key, first_name, last_name, phone, country, language, timezone, currency,
    custom_fields, consent_status, created_at
from contact_mailability
where refusal is null;
comment on view mailable_contacts is 'The contacts marketing mail may go to.';
create view suppressed_addresses as
select email_key, reason from suppressions where email_key is not null;
comment on view suppressed_addresses is
    'For the ledger: what a message to an address without a contact is checked against.';
