-- The global hold-out: which share of contacts gets no marketing mail, since when, and who that is.

create table holdout_periods (
    period_id bigint generated always as identity primary key,
    salt text not null,
    percent numeric not null,
    bound bigint not null generated always as (cast(round(percent * 45035996273704.96) as bigint)) stored,
    begun_at timestamptz not null,
    ended_at timestamptz not null default 'infinity',
    changed_by text not null,
    constraint holdout_is_more_than_0_to_50_percent check (percent > 0 and percent <= 50),
    constraint percent_has_two_decimals_at_most check (percent = round(percent, 2)),
    constraint salt_is_1_to_64_plain_characters check (salt ~ '^[a-z0-9_-]{1,64}$'),
    constraint a_period_ends_after_it_began check (ended_at >= begun_at),
    constraint one_holdout_at_a_time exclude using gist (tstzrange(begun_at, ended_at) with &&)
);
create unique index one_open_holdout on holdout_periods ((ended_at = 'infinity')) where ended_at = 'infinity';
comment on table holdout_periods is
    'Which share of contacts got no marketing mail when; the open one (ended_at = infinity) is what holds now.';
comment on column holdout_periods.salt is
    'What the draw is made of: the same people as long as it stays, other ones with another.';
comment on column holdout_periods.bound is 'Draws below it are held out: percent of 2^52.';

create function holdout_draw(salt text, contact bigint) returns bigint
language sql immutable parallel safe as $$
    select cast(cast('x' || substr(encode(sha256(cast(
        'holdout:' || salt || ':contact:' || cast(contact as text) as bytea
    )), 'hex'), 1, 13) as bit(52)) as bigint)
$$;
comment on function holdout_draw(text, bigint) is
    'A number from 0 to 2^52 - 1 for a contact, always the same under one salt: the first 13 hex digits of SHA-256 of
    holdout:<salt>:contact:<contact>. Below the bound of the open period a contact is held out.';

-- Last of all reasons: it speaks only of those who would be mailed. Without an open period no draw is computed.
create or replace view contact_mailability as
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
        when (select count(*) from holdout_periods where ended_at = 'infinity') = 0 then null
        when holdout_draw((select salt from holdout_periods where ended_at = 'infinity'), contacts.contact_id)
            < (select bound from holdout_periods where ended_at = 'infinity') then 'global_holdout'
    end as refusal
from contacts
left join suppressions on suppressions.email_key = contacts.email_key;
comment on column contact_mailability.refusal is
    'Null: subscribed, consent unknown or granted, address of at most 254 octets, not suppressed and not held out.';

-- Whom a hold-out is about, whatever their draw: everybody from the first moment they could have been mailed. Who was
-- mailed may leave because of it, so nothing later counts. Consent unknown or granted, whatever is required now.
create view holdout_entries as
select
    begun.salt, begun.started_at, people.contact_id, people.entered_at,
    holdout_draw(begun.salt, people.contact_id) as draw
from (
    select salt, min(begun_at) as started_at from holdout_periods group by salt
) as begun
cross join lateral (
    select distinct on (versions.contact_id)
        versions.contact_id, versions.email_key,
        greatest(versions.valid_from, begun.started_at) as entered_at
    from (
        select contact_id, email_key, coalesce(updated_at, created_at) as valid_from
        from contacts
        where subscribed and consent_status in ('unknown', 'granted')
        union all
        select past.contact_id, past.email_key, past.valid_from
        from contact_history as past
        inner join contacts on contacts.contact_id = past.contact_id
        where past.valid_to > begun.started_at and past.valid_to > past.valid_from
            and past.subscribed and past.consent_status in ('unknown', 'granted')
    ) as versions
    order by versions.contact_id, versions.valid_from
) as people
where not exists (
        select from suppressions
        where suppressions.email_key = people.email_key and suppressions.created_at <= people.entered_at
    )
    and not exists (
        select from suppression_history as lifted
        where lifted.email_key = people.email_key
            and lifted.valid_from <= people.entered_at and lifted.valid_to > people.entered_at
    );
comment on view holdout_entries is
    'One row per salt and contact who could be mailed at some time since it is used: when that began, and their draw.';
