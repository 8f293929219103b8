-- Contacts, suppression, tags: what is done to a set at once.

-- name: suppress
-- Suppresses addresses; a stronger reason replaces a weaker one. One row per address, by key.
with ranks (reason, strength) as (
    values ('manual', 1), ('bounce', 2), ('unsubscribe', 3), ('complaint', 4), ('compliance', 5)
),

given as materialized (
    select distinct on (email_key) email, email_key
    from unnest(cast(:email as text[]), cast(:email_key as text[]))
        with ordinality as incoming (email, email_key, ordinal)
    order by email_key, ordinal
),

before as materialized (
    select suppressions.email_key, suppressions.reason
    from suppressions
    inner join given on given.email_key = suppressions.email_key
),

-- Ordered, so that two writers of the same addresses wait for each other instead of deadlocking.
-- A weaker reason updates a row to itself, so that every address comes back.
written as (
    insert into suppressions (email, email_key, reason, source, notes, created_at)
    select email, email_key, cast(:reason as text), cast(:source as text), cast(:notes as text),
        cast(:now as timestamptz)
    from given
    order by email_key
    on conflict (email_key) do update
    set
        (reason, source, notes, created_at) = (
            select
                case when stronger.is_so then excluded.reason else suppressions.reason end,
                case when stronger.is_so then excluded.source else suppressions.source end,
                case when stronger.is_so then excluded.notes else suppressions.notes end,
                case when stronger.is_so then excluded.created_at else suppressions.created_at end
            from (
                select
                    (select strength from ranks where reason = excluded.reason)
                    > (select strength from ranks where reason = suppressions.reason) as is_so
            ) as stronger
        )
    returning *
)

select
    written.*, before.email_key is null as is_new,
    before.reason is distinct from written.reason as is_changed
from written
left join before on before.email_key = written.email_key
order by written.email_key;

-- name: attach_tags
-- Adds tags to contacts; unknown tags and known pairs are passed over. Returns the new pairs.
insert into contact_tags (contact_id, tag_id, added_at)
select contacts.contact_id, tags.tag_id, cast(:now as timestamptz)
from contacts
cross join tags
where contacts.contact_id = any(cast(:contact_ids as bigint[]))
    and tags.tag_id = any(cast(:tag_ids as bigint[]))
order by contacts.contact_id, tags.tag_id
on conflict (contact_id, tag_id) do nothing
returning contact_id, tag_id, (select name from tags where tags.tag_id = contact_tags.tag_id);

-- name: delete_contact
-- Removes a person with all that describes them now; events, messages and consents stay.
with gone as (
    delete from contacts where contact_id = cast(:contact_id as bigint) returning contact_id
),

histories as (
    delete from contact_history where contact_id in (select contact_id from gone)
),

memberships as (
    delete from segment_memberships where contact_id in (select contact_id from gone)
),

scores as (
    delete from contact_scores where contact_id in (select contact_id from gone)
),

states as (
    delete from score_states where contact_id in (select contact_id from gone)
),

-- A night that is under way may write them again; the next one finds the mark.
marked as (
    insert into score_stale (contact_id) select contact_id from gone
),

stages as (
    delete from contact_stages where contact_id in (select contact_id from gone)
),

reached as (
    delete from contact_milestones where contact_id in (select contact_id from gone)
),

entered as (
    delete from enrollments where contact_id in (select contact_id from gone)
),

timers as (
    delete from cart_timers where contact_id in (select contact_id from gone)
),

-- Runs of rules that wait are over.
waits as (
    delete from automation_waits where contact_id in (select contact_id from gone) returning log_id
),

ended as (
    update automation_logs
    set status = 'failed', error = coalesce(error, 'Contact deleted')
    where log_id in (select log_id from waits)
)

select contact_id from gone;

-- name: details
-- For contacts on one page of a list: stage, suppression, tags by name and segments by name.
-- A contact deleted since the page was read has its row, too.
select
    wanted.contact_id, contact_stages.lifecycle_stage,
    suppressions.suppression_id is not null as is_suppressed,
    coalesce(labels.tags, '[]') as tags, coalesce(groups.segments, '[]') as segments
from unnest(cast(:contact_ids as bigint[])) as wanted (contact_id)
left join contacts on contacts.contact_id = wanted.contact_id
left join contact_stages on contact_stages.contact_id = wanted.contact_id
left join suppressions on suppressions.email_key = contacts.email_key
left join lateral (
    select jsonb_agg(
        jsonb_build_array(tags.tag_id, tags.name, tags.color) order by lower(tags.name)) as tags
    from contact_tags
    inner join tags on tags.tag_id = contact_tags.tag_id
    where contact_tags.contact_id = wanted.contact_id
) as labels on true
left join lateral (
    select jsonb_agg(
        jsonb_build_array(segments.segment_id, segments.name)
        order by lower(segments.name)) as segments
    from segment_memberships
    inner join segments on segments.segment_id = segment_memberships.segment_id
    where segment_memberships.contact_id = wanted.contact_id
        and segment_memberships.valid_to = 'infinity'
) as groups on true;

-- name: detach_tag
-- Takes a tag off a contact; returns its name, no row when it was not there.
delete from contact_tags
using tags
where contact_tags.contact_id = cast(:contact_id as bigint)
    and contact_tags.tag_id = cast(:tag_id as bigint) and tags.tag_id = contact_tags.tag_id
returning tags.name;

-- name: detach_tag_of_many
-- Takes the tag of a name, in whatever case, off contacts; returns who had it.
delete from contact_tags
using tags
where contact_tags.contact_id = any(cast(:contact_ids as bigint[]))
    and lower(tags.name) = lower(cast(:tag_name as text))
    and tags.tag_id = contact_tags.tag_id
returning contact_tags.contact_id, tags.tag_id, tags.name;

-- name: change_many
-- Writes the columns given of each contact, a version each; columns that are not given stay.
update contacts
set first_name = coalesce(given.first_name, contacts.first_name),
    last_name = coalesce(given.last_name, contacts.last_name),
    phone = coalesce(given.phone, contacts.phone),
    country = coalesce(given.country, contacts.country),
    language = coalesce(given.language, contacts.language),
    timezone = coalesce(given.timezone, contacts.timezone),
    currency = coalesce(given.currency, contacts.currency),
    custom_fields = coalesce(given.custom_fields, contacts.custom_fields),
    subscribed = coalesce(given.subscribed, contacts.subscribed),
    consent_status = coalesce(given.consent_status, contacts.consent_status),
    consent_source = coalesce(given.consent_source, contacts.consent_source),
    consent_at = coalesce(given.consent_at, contacts.consent_at),
    version = contacts.version + 1,
    updated_at = cast(:now as timestamptz)
from jsonb_to_recordset(cast(:changes as jsonb)) as given (
    contact_id bigint, first_name text, last_name text, phone text, country text, language text,
    timezone text, currency text, custom_fields jsonb, subscribed boolean, consent_status text,
    consent_source text, consent_at timestamptz)
where contacts.contact_id = given.contact_id;

-- name: revive_erased
-- Turns the keyed hashes (HMAC-SHA256) of addresses that are known again into ordinary entries.
update suppressions
set email = given.email_key, email_key = given.email_key, email_hash = null
from (
    select
        email_key,
        sha256(cast(:outer_key as bytea) || sha256(
            cast(:inner_key as bytea) || convert_to(email_key, 'UTF8'))) as email_hash
    from unnest(cast(:email_keys as text[])) as incoming (email_key)
) as given
where suppressions.email_hash = given.email_hash
    and not exists (select from suppressions as known where known.email_key = given.email_key)
returning suppressions.email_key, suppressions.reason;

-- name: erase_contact
-- Removes a person's row with every version and mark of it; returns how many rows of each table.
-- Tags went before, since taking one off leaves a line in their history.
with given as (
    select cast(:contact_id as bigint) as contact_id
),

people as (
    delete from contacts where contact_id in (select contact_id from given) returning contact_id
),

versions as (
    delete from contact_history where contact_id in (select contact_id from given)
    returning contact_id
),

labels as (
    delete from contact_tag_history where contact_id in (select contact_id from given)
    returning contact_id
),

members as (
    delete from segment_memberships where contact_id in (select contact_id from given)
    returning contact_id
),

scores as (
    delete from contact_scores where contact_id in (select contact_id from given)
    returning contact_id
),

states as (delete from score_states where contact_id in (select contact_id from given) returning 1),

-- A night that is under way may write them again; the next one finds the mark.
marked as (insert into score_stale (contact_id) select contact_id from people),

stages as (
    delete from contact_stages where contact_id in (select contact_id from given)
    returning contact_id
),

reached as (
    delete from contact_milestones where contact_id in (select contact_id from given) returning 1),

entered as (
    delete from enrollments where contact_id in (select contact_id from given)
    returning contact_id
),

told as materialized (
    select event_id, occurred_at from events where contact_id in (select contact_id from given)
),

-- Rows of the queue that hold events of this person, and what they hold of others.
waiting as materialized (
    select
        bucket, occurred_at, first_event_id, event_count,
        array(
            select event.event_id
            from unnest(event_ids) as event (event_id)
            where event.event_id not in (select event_id from told)
        ) as others
    from event_pending
    where bucket = cast(:contact_id as bigint) % 64
        and occurred_at in (select occurred_at from told)
        and event_ids && (select array_agg(event_id) from told)
    order by occurred_at, first_event_id
    for update
),

unqueued as (
    delete from event_pending
    using waiting
    where event_pending.bucket = waiting.bucket
        and event_pending.occurred_at = waiting.occurred_at
        and event_pending.first_event_id = waiting.first_event_id
        and cardinality(waiting.others) = 0
),

-- In its place, so that a dispatcher that waits for the row finds it in its turn.
shared as (
    update event_pending
    set event_ids = waiting.others, event_count = cardinality(waiting.others)
    from waiting
    where event_pending.bucket = waiting.bucket
        and event_pending.occurred_at = waiting.occurred_at
        and event_pending.first_event_id = waiting.first_event_id
        and cardinality(waiting.others) > 0
)

select 'contacts' as table_name, (select count(*) from people) as row_count
union all select 'contact_history', (select count(*) from versions)
union all select 'contact_tag_history', (select count(*) from labels)
union all select 'segment_memberships', (select count(*) from members)
union all select 'contact_scores', (select count(*) from scores)
union all select 'score_states', (select count(*) from states)
union all select 'contact_stages', (select count(*) from stages)
union all select 'contact_milestones', (select count(*) from reached)
union all select 'enrollments', (select count(*) from entered)
union all
select 'event_pending', coalesce(sum(event_count - cardinality(others)), 0) from waiting;

-- name: find_many
-- Which of these contacts exist, asked for by id or by address key.
select contact_id, email_key
from contacts
where contact_id = any(cast(:contact_ids as bigint[]))
union
select contact_id, email_key
from contacts
where email_key = any(cast(:email_keys as text[]));

-- name: create_first_seen
-- Makes opted-out contacts of addresses nobody has; one made elsewhere at this moment stays.
insert into contacts (
    email, email_key, subscribed, source, created_at, is_disposable, is_free_provider,
    is_role_based, country)
select
    email, email_key, false, cast(:source as text), cast(:now as timestamptz), is_disposable,
    is_free_provider, is_role_based, country
from json_to_recordset(cast(:rows as json)) as incoming (
    email text, email_key text, is_disposable boolean, is_free_provider boolean,
    is_role_based boolean, country text)
-- Ordered, so that two writers of the same addresses wait for each other instead of deadlocking.
order by email_key
on conflict (email_key) do nothing
returning *;

-- name: hold_existing
-- Those of the contacts that exist; they cannot be deleted before the transaction ends.
select contact_id
from contacts
where contact_id = any(cast(:contact_ids as bigint[]))
order by contact_id
for key share;
