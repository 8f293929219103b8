-- Imports: claiming one, and merging its rows. import_rows, import_people and import_touched
-- are the temporary tables of the import at work; the tables of these names in the schema are their
-- patterns and stay empty.

-- name: claim
-- Takes the oldest import that waits or whose worker is gone, under a new attempt.
with next as materialized (
    select import_id
    from imports
    where (
            (status = 'queued' and coalesce(lease_until, '-infinity') < clock_timestamp())
            or (status in ('running', 'cancelling') and lease_until < clock_timestamp()))
        and (cast(:only as bigint[]) is null or import_id = any(cast(:only as bigint[])))
    order by import_id
    limit 1
    for update skip locked
)

update imports
set
    status = case when imports.status = 'cancelling' then 'cancelling' else 'running' end,
    attempt_id = nextval('attempt_ids'),
    stalled_attempts = imports.stalled_attempts + 1,
    lease_until = clock_timestamp() + make_interval(secs => cast(:lease_seconds as float8)),
    started_at = coalesce(imports.started_at, cast(:now as timestamptz))
from next
where imports.import_id = next.import_id
returning imports.*;

-- name: beat
-- Keeps the lease and shows progress; returns the status, no row when it has another worker.
update imports
set
    lease_until = clock_timestamp() + make_interval(secs => cast(:lease_seconds as float8)),
    total_rows = greatest(total_rows, cast(:total_rows as bigint))
where import_id = cast(:import_id as bigint) and attempt_id = cast(:attempt_id as bigint)
    and status in ('running', 'cancelling')
returning status;

-- name: finish
-- Ends an import with its counts, if it is still this attempt's and in the state expected.
update imports
set
    status = cast(:status as text), finished_at = cast(:now as timestamptz),
    error = cast(:error as text), total_rows = cast(:total_rows as bigint),
    created = cast(:created as bigint), updated = cast(:updated as bigint),
    skipped = cast(:skipped as bigint), rejected = cast(:rejected as bigint),
    suppressed = cast(:suppressed as bigint),
    attempt_id = null, lease_until = null
where import_id = cast(:import_id as bigint) and attempt_id = cast(:attempt_id as bigint)
    and status = cast(:expected as text);

-- name: give_back
-- Lets another worker take the import, at once or after a while.
update imports
set
    status = 'queued', attempt_id = null,
    stalled_attempts = greatest(stalled_attempts - 1, 0),
    lease_until = clock_timestamp()
        + nullif(make_interval(secs => cast(:wait_seconds as float8)), interval '0')
where import_id = cast(:import_id as bigint) and attempt_id = cast(:attempt_id as bigint)
    and status = 'running';

-- name: revive_erased
-- Turns the keyed hashes of erased addresses that the file brings back into ordinary entries.
update suppressions
set email = given.email_key, email_key = given.email_key, email_hash = null
from (
    select distinct
        email_key,
        sha256(cast(:outer_key as bytea) || sha256(
            cast(:inner_key as bytea) || convert_to(email_key, 'UTF8'))) as email_hash
    from import_rows
    where reject_code is null
) as given
where suppressions.email_hash = given.email_hash
    and not exists (select from suppressions as known where known.email_key = given.email_key);

-- name: opt_out_erased
-- Contacts of this import whose address was erased while their row waited for that: as for any known no.
update contacts
set subscribed = false
from import_rows
inner join suppressions
    on suppressions.email_key = import_rows.email_key
    and suppressions.reason in ('unsubscribe', 'complaint', 'compliance')
where import_rows.reject_code is null
    and contacts.email_key = import_rows.email_key and contacts.subscribed
    and exists (
        select from events
        where events.contact_id = contacts.contact_id
            and events.occurred_at = cast(:now as timestamptz)
            and events.event_type = 'contact_created'
            and events.properties = cast(:properties as jsonb)
    );

-- name: count_rows
-- How many rows there are, how many were not taken, how many of the others are suppressed.
select
    count(*) as total_rows, count(reject_code) as rejected,
    (
        select count(*)
        from import_rows as taken
        inner join suppressions on suppressions.email_key = taken.email_key
        where taken.reject_code is null
    ) as suppressed
from import_rows;

-- name: keep_rejects
-- Keeps what was not taken.
insert into import_rejects (import_id, line, column_name, code, reason, value)
select
    cast(:import_id as bigint), import_rows.line, coalesce(import_rows.reject_column, ''),
    import_rows.reject_code, cast(:reasons as jsonb) ->> import_rows.reject_code,
    coalesce(import_rows.reject_value, '')
from import_rows
where import_rows.reject_code is not null
order by import_rows.line;

-- name: fold_repeated
-- Other policies: addresses with several rows, each applied to what the ones before it left.
insert into import_people
with ranked as materialized (
    select
        rows.*, cast(:policy as text) = 'overwrite' as keeps,
        case when cast(:policy as text) = 'fill_empty' then rows.line else -rows.line end as rank,
        coalesce(not rows.subscribed and cast(:policy as text) <> 'fill_empty', false) as is_opt_out
    from import_rows as rows
    inner join (
        select email_key from import_rows
        where reject_code is null
        group by email_key having count(*) > 1
    ) as repeated on repeated.email_key = rows.email_key
    where rows.reject_code is null
),

entries as (
    select
        ranked.email_key,
        jsonb_object_agg(entry.key, entry.value order by -ranked.rank) as custom_fields
    from ranked
    cross join lateral jsonb_each(ranked.custom_fields) as entry
    group by ranked.email_key
),

folded as (
    select
        email_key, count(*) as row_count, min(line) as first_line,
        bool_or(is_opt_out) as is_opt_out,
        (array_agg(first_name order by rank) filter (where keeps or first_name <> ''))[1]
            as first_name,
        (array_agg(last_name order by rank) filter (where keeps or last_name <> ''))[1]
            as last_name,
        (array_agg(phone order by rank) filter (where keeps or phone <> ''))[1] as phone,
        (array_agg(country order by rank) filter (where keeps or country <> ''))[1] as country,
        (array_agg(language order by rank) filter (where keeps or language <> ''))[1] as language,
        (array_agg(timezone order by rank) filter (where keeps or timezone <> ''))[1] as timezone,
        (array_agg(currency order by rank) filter (where keeps or currency <> ''))[1] as currency
    from ranked
    group by email_key
)

select
    coalesce(first.email, first.email_key), first.email_key, first.flags, folded.row_count,
    (folded.first_name, folded.last_name, folded.phone, folded.country, folded.language,
        folded.timezone, folded.currency, entries.custom_fields, folded.is_opt_out)
    is distinct from
    (first.first_name, first.last_name, first.phone, first.country, first.language, first.timezone,
        first.currency, first.custom_fields, first.is_opt_out),
    folded.is_opt_out, folded.first_name, folded.last_name, folded.phone, folded.country,
    folded.language, folded.timezone, folded.currency, entries.custom_fields, first.subscribed,
    first.created_at, first.consent_status, first.consent_source, first.consent_at
from folded
inner join ranked as first on first.email_key = folded.email_key and first.line = folded.first_line
left join entries on entries.email_key = folded.email_key;

-- name: fold_single
-- Other policies: addresses with one row (those with several are folded already), as the row says.
insert into import_people
select
    coalesce(single.email, single.email_key), single.email_key, single.flags, 1, false,
    coalesce(not single.subscribed and cast(:policy as text) <> 'fill_empty', false),
    single.first_name, single.last_name, single.phone, single.country, single.language,
    single.timezone, single.currency, single.custom_fields, single.subscribed, single.created_at,
    single.consent_status, single.consent_source, single.consent_at
from import_rows as single
left join import_people as repeated on repeated.email_key = single.email_key
where single.reject_code is null and repeated.email_key is null;

-- name: new_people
-- Whom the rows name and nobody knows. Policy skip takes the first row of each address. The address as typed is null
-- where it is the key, as it mostly is (and so it is staged): that much less to sort.
select * from (
    select distinct on (given.email_key)
        given.email_key, given.email, given.flags,
        false as is_opt_out, given.first_name, given.last_name, given.phone, given.country,
        given.language, given.timezone, given.currency, given.custom_fields, given.subscribed,
        given.created_at, given.consent_status, given.consent_source, given.consent_at
    from import_rows as given
    left join contacts on contacts.email_key = given.email_key
    where cast(:policy as text) = 'skip'
        and given.reject_code is null and contacts.contact_id is null
    order by given.email_key, given.line
) as first_of_each
union all
select
    given.email_key, nullif(given.email, given.email_key), given.flags, given.is_opt_out,
    given.first_name, given.last_name, given.phone, given.country, given.language, given.timezone,
    given.currency, given.custom_fields, given.subscribed, given.created_at, given.consent_status,
    given.consent_source, given.consent_at
from import_people as given
left join contacts on contacts.email_key = given.email_key
where cast(:policy as text) <> 'skip' and contacts.contact_id is null;

-- name: insert_people
-- Makes the contacts that are not known and tells contact_created; returns how many. In the order of keys, so that
-- imports of the same addresses wait for each other instead of deadlocking. Who said no before starts opted out.
with people as (
    -- include: new_people
),

agreed as (
    select
        people.*,
        coalesce(people.subscribed, cast(:subscribed_default as boolean))
        and not people.is_opt_out
        and not exists (
            select from suppressions
            where suppressions.email_key = people.email_key
                and suppressions.reason in ('unsubscribe', 'complaint', 'compliance')
        ) as is_subscribed
    from people
),

made as (
    insert into contacts (
        email, email_key, first_name, last_name, phone, country, language, timezone, currency,
        custom_fields, subscribed, consent_status, consent_source, consent_at, source,
        is_disposable, is_free_provider, is_role_based, created_at)
    select
        coalesce(email, email_key), email_key, coalesce(first_name, ''), coalesce(last_name, ''),
        coalesce(phone, ''), coalesce(country, ''),
        coalesce(language, cast(:blank_language as text)), coalesce(timezone, ''),
        coalesce(currency, ''),
        coalesce(
            case when cast(:drops_nulls as boolean) then jsonb_strip_nulls(custom_fields)
                else custom_fields end, '{}'),
        is_subscribed, status.new,
        case when status.new <> 'unknown'
            then coalesce(consent_source, cast(:consent_source as text), 'import')
            else consent_source end,
        case when status.new <> 'unknown'
            then coalesce(
                consent_at, cast(:consent_at as timestamptz), cast(:now as timestamptz))
            else consent_at end,
        'import', flags & 1 > 0, flags & 2 > 0, flags & 4 > 0,
        coalesce(created_at, cast(:now as timestamptz))
    from agreed
    cross join lateral (
        select coalesce(
            consent_status,
            case when is_subscribed and cast(:consent_source as text) is not null
                then 'granted' end,
            'unknown')
    ) as status (new)
    order by email_key
    on conflict (email_key) do nothing
    returning contact_id, nextval('event_ids') as event_id
),

told as (
    insert into events (
        event_id, contact_id, occurred_at, received_at, event_type, source, properties)
    select
        event_id, contact_id, cast(:now as timestamptz), cast(:now as timestamptz),
        'contact_created', 'mauto', cast(:properties as jsonb)
    from made
),

queued as (
    insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)
    select
        contact_id % 64, cast(:now as timestamptz), min(event_id), array_agg(event_id), count(*)
    from made
    group by contact_id % 64, event_id / 8192
    returning event_count
),

remembered as (
    insert into import_touched (contact_id, is_new, row_count, is_opt_out)
    select contact_id, true, 1, false
    from made
    where cast(:remembers_new as boolean)
        or exists (
            select from webhook_endpoints
            where active and events && array['*', 'contact.created'])
)

select coalesce(sum(event_count), 0) as contact_count
from queued;

-- name: update_people
-- Applies the policy to contacts that were known, and remembers those it changed; only they are locked, in the order
-- of keys.
with known as materialized (
    select contacts.contact_id, people.row_count, applied.*
    from import_people as people
    inner join contacts on contacts.email_key = people.email_key
    left join import_touched on import_touched.contact_id = contacts.contact_id
    cross join lateral (
        select
            people.is_opt_out and contacts.subscribed as is_opt_out,
            imported_text(:policy, contacts.first_name, people.first_name,
                'first_name' = any(cast(:mapped as text[])), '') as first_name,
            imported_text(:policy, contacts.last_name, people.last_name,
                'last_name' = any(cast(:mapped as text[])), '') as last_name,
            imported_text(:policy, contacts.phone, people.phone,
                'phone' = any(cast(:mapped as text[])), '') as phone,
            imported_text(:policy, contacts.country, people.country,
                'country' = any(cast(:mapped as text[])), '') as country,
            imported_text(:policy, contacts.language, people.language,
                'language' = any(cast(:mapped as text[])), cast(:blank_language as text))
                as language,
            imported_text(:policy, contacts.timezone, people.timezone,
                'timezone' = any(cast(:mapped as text[])), '') as timezone,
            imported_text(:policy, contacts.currency, people.currency,
                'currency' = any(cast(:mapped as text[])), '') as currency,
            case
                when people.custom_fields is null then contacts.custom_fields
                when cast(:policy as text) = 'fill_empty'
                    then people.custom_fields || contacts.custom_fields
                when cast(:policy as text) = 'overwrite'
                    then (contacts.custom_fields || people.custom_fields) - array(
                        select entry.key
                        from jsonb_each(people.custom_fields) as entry
                        where entry.value = 'null')
                else contacts.custom_fields || people.custom_fields
            end as custom_fields
    ) as applied
    where import_touched.contact_id is null
        and (
            applied.is_opt_out
            or (contacts.first_name, contacts.last_name, contacts.phone, contacts.country,
                contacts.language, contacts.timezone, contacts.currency, contacts.custom_fields)
            is distinct from
            (applied.first_name, applied.last_name, applied.phone, applied.country,
                applied.language, applied.timezone, applied.currency, applied.custom_fields))
    order by contacts.email_key
    for update of contacts
),

changed as (
    update contacts
    set
        first_name = known.first_name, last_name = known.last_name, phone = known.phone,
        country = known.country, language = known.language, timezone = known.timezone,
        currency = known.currency, custom_fields = known.custom_fields,
        subscribed = contacts.subscribed and not known.is_opt_out,
        consent_status = case when known.is_opt_out then 'withdrawn'
            else contacts.consent_status end,
        consent_source = case when known.is_opt_out then 'import' else contacts.consent_source end,
        consent_at = case when known.is_opt_out then cast(:now as timestamptz)
            else contacts.consent_at end,
        version = contacts.version + 1, updated_at = cast(:now as timestamptz)
    from known
    where contacts.contact_id = known.contact_id
    returning contacts.contact_id, known.row_count, known.is_opt_out
)

insert into import_touched (contact_id, is_new, row_count, is_opt_out)
select contact_id, false, row_count, is_opt_out from changed;

-- name: count_updated
-- Rows that changed a known contact or one this import made.
select
    (select coalesce(sum(row_count), 0) from import_touched where not is_new)
    + (
        select coalesce(sum(people.row_count - 1), 0)
        from import_people as people
        inner join contacts on contacts.email_key = people.email_key
        inner join import_touched on import_touched.contact_id = contacts.contact_id
        where people.is_folded and import_touched.is_new
    ) as updated;

-- name: tell_updates
-- contact_updated, and unsubscribed for known contacts a row opted out.
with happened as (
    insert into events (contact_id, occurred_at, received_at, event_type, source, properties)
    select
        import_touched.contact_id, cast(:now as timestamptz), cast(:now as timestamptz),
        told.event_type, 'mauto', cast(:properties as jsonb)
    from import_touched
    inner join (values ('contact_updated', false), ('unsubscribed', true))
        as told (event_type, is_opt_out) on told.is_opt_out <= import_touched.is_opt_out
    where not import_touched.is_new
    returning event_id, contact_id, occurred_at
)

insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)
select contact_id % 64, occurred_at, min(event_id), array_agg(event_id), count(*)
from happened
group by contact_id % 64, occurred_at, event_id / 8192;

-- name: keep_consents
-- A consent line for new contacts that come with a status and known ones that a row opted out.
insert into consents (contact_id, status, source, actor, recorded_at)
select
    contacts.contact_id, contacts.consent_status, coalesce(contacts.consent_source, 'import'),
    cast(:actor as text), cast(:now as timestamptz)
from import_touched
inner join contacts on contacts.contact_id = import_touched.contact_id
where import_touched.is_opt_out or (import_touched.is_new and contacts.consent_status <> 'unknown')
order by contacts.contact_id;

-- name: opted_out
-- Known contacts that a row opted out.
select contact_id from import_touched where is_opt_out order by contact_id;

-- name: make_tags
-- Makes the tags that rows name and nobody has made yet.
insert into tags (name)
select distinct on (lower(named.name)) named.name
from import_rows
cross join lateral jsonb_array_elements_text(import_rows.tags) as named (name)
where import_rows.reject_code is null
    and not exists (select from tags where lower(tags.name) = lower(named.name))
order by lower(named.name), import_rows.line
on conflict (lower(name)) do nothing;

-- name: attach_tags
-- Adds the tags of rows and of the whole import to new contacts, and to known ones not skipped.
with wanted as (
    select import_rows.email_key, tags.tag_id, import_rows.line
    from import_rows
    cross join lateral jsonb_array_elements_text(import_rows.tags) as named (name)
    inner join tags on lower(tags.name) = lower(named.name)
    where import_rows.reject_code is null
    union all
    select import_people.email_key, tags.tag_id, 0
    from import_people
    inner join tags on tags.tag_id = any(cast(:tag_ids as bigint[]))
    where cast(:policy as text) <> 'skip'
    union all
    select contacts.email_key, tags.tag_id, 0
    from import_touched
    inner join contacts on contacts.contact_id = import_touched.contact_id
    inner join tags on tags.tag_id = any(cast(:tag_ids as bigint[]))
    where cast(:policy as text) = 'skip'
),

attached as (
    insert into contact_tags (contact_id, tag_id, added_at)
    select distinct contacts.contact_id, wanted.tag_id, cast(:now as timestamptz)
    from wanted
    inner join contacts on contacts.email_key = wanted.email_key
    left join import_touched on import_touched.contact_id = contacts.contact_id
    where cast(:policy as text) <> 'skip' or import_touched.is_new
    order by contacts.contact_id, wanted.tag_id
    on conflict (contact_id, tag_id) do nothing
    returning contact_id, tag_id
),

happened as (
    insert into events (contact_id, occurred_at, received_at, event_type, source, properties)
    select
        attached.contact_id, cast(:now as timestamptz), cast(:now as timestamptz), 'tag_added',
        'mauto',
        jsonb_build_object('tag_id', cast(tags.tag_id as text), 'tag_name', tags.name)
    from attached
    inner join tags on tags.tag_id = attached.tag_id
    returning event_id, contact_id, occurred_at
)

insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)
select contact_id % 64, occurred_at, min(event_id), array_agg(event_id), count(*)
from happened
group by contact_id % 64, occurred_at, event_id / 8192;

-- name: tell_webhooks
-- contact.created, .updated and .unsubscribed of touched contacts, if any endpoint listens to them.
with listened as (
    select told.event_name, told.is_new, told.is_opt_out
    from (
        values ('contact.created', true, false), ('contact.updated', false, false),
            ('contact.unsubscribed', false, true)
    ) as told (event_name, is_new, is_opt_out)
    where exists (
        select from webhook_endpoints
        where active and events && array['*', told.event_name])
)

insert into outbox (event_name, occurred_at, data)
select
    listened.event_name, cast(:now as timestamptz),
    jsonb_build_object('contact', jsonb_build_object(
        'id', cast(contacts.contact_id as text), 'email', contacts.email,
        'first_name', contacts.first_name, 'last_name', contacts.last_name, 'phone', contacts.phone,
        'country', contacts.country, 'language', contacts.language, 'timezone', contacts.timezone,
        'currency', contacts.currency, 'custom_fields', contacts.custom_fields,
        'subscribed', contacts.subscribed, 'suppressed', suppressions.suppression_id is not null,
        'consent_status', contacts.consent_status, 'consent_source', contacts.consent_source,
        'consent_at', contacts.consent_at, 'lifecycle_stage', contact_stages.lifecycle_stage,
        'tags', coalesce(labels.tags, '[]'), 'segments', coalesce(groups.segments, '[]'),
        'created_at', contacts.created_at, 'updated_at', contacts.updated_at),
        'changed', jsonb_build_array())
from import_touched
inner join listened
    on listened.is_new = import_touched.is_new and listened.is_opt_out <= import_touched.is_opt_out
inner join contacts on contacts.contact_id = import_touched.contact_id
left join suppressions on suppressions.email_key = contacts.email_key
left join contact_stages on contact_stages.contact_id = contacts.contact_id
left join lateral (
    select jsonb_agg(
        jsonb_build_object(
            'id', cast(tags.tag_id as text), 'name', tags.name, 'color', tags.color)
        order by lower(tags.name)) as tags
    from contact_tags
    inner join tags on tags.tag_id = contact_tags.tag_id
    where contact_tags.contact_id = contacts.contact_id
) as labels on true
left join lateral (
    select jsonb_agg(
        jsonb_build_object('id', cast(segments.segment_id as text), 'name', segments.name)
        order by lower(segments.name)) as segments
    from segment_memberships
    inner join segments on segments.segment_id = segment_memberships.segment_id
    where segment_memberships.contact_id = contacts.contact_id
        and segment_memberships.valid_to = 'infinity'
) as groups on true
order by contacts.contact_id;

-- name: first_rejects
-- The first rows that are not taken, of the import at work.
select line, email, reject_column, reject_code, reject_value
from import_rows
where reject_code is not null
order by line
limit cast(:limit as int);

-- name: rejects_csv
-- The rows that were not taken, for COPY; a cell a spreadsheet would run gets one quote before it.
select
    line,
    regexp_replace(column_name, '^(''*[=+@\t\r-])', '''\1') as "column", code, reason,
    case when value ~ '^[+0-9 ().-]*$' then value
        else regexp_replace(value, '^(''*[=+@\t\r-])', '''\1') end as value
from import_rejects
where import_id = cast(:import_id as bigint)
order by line, column_name;

-- name: touched_of
-- Which contacts of some addresses this import made or changed.
select contacts.contact_id
from import_touched
inner join contacts on contacts.contact_id = import_touched.contact_id
where contacts.email_key = any(cast(:email_keys as text[]));
