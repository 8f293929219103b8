-- Erasure: what is counted before a person goes, and cleaning every store the person left rows in.
-- The cleaning statements take many erased people at once and return rows changed by contact.

-- name: traces_of
-- How a contact was ever spelled: addresses and keys, names, phone numbers.
with versions as (
    select email_key, first_name, last_name, phone
    from contacts
    where contact_id = cast(:contact_id as bigint)
    union
    select email_key, first_name, last_name, phone
    from contact_history
    where contact_id = cast(:contact_id as bigint)
)

select
    array(
        select email_key from versions
        union
        select email from contacts where contact_id = cast(:contact_id as bigint)
        union
        select to_email from messages
        where contact_id = cast(:contact_id as bigint) and to_email is not null
    ) as addresses,
    array(
        select first_name from versions where first_name <> ''
        union
        select last_name from versions where last_name <> ''
    ) as names,
    array(select phone from versions where phone <> '') as phones;

-- name: taken_keys
-- Which of these address keys belong to a contact.
select contact_id, email_key
from contacts
where email_key = any(cast(:email_keys as text[]));

-- name: neighbours
-- Longer address keys that end with one of these: no letter or digit stands before it.
select contacts.email_key
from contacts
inner join unnest(cast(:email_keys as text[])) as given (email_key)
    on right(contacts.email_key, length(given.email_key)) = given.email_key
    and contacts.email_key <> given.email_key;

-- name: bury
-- The tombstone, and the sign-up day without the person.
with person as (
    select contact_id, created_at, country
    from contacts
    where contact_id = cast(:contact_id as bigint)
),

counted as (
    insert into erased_signups (signup_day, contact_count)
    select cast(created_at at time zone 'UTC' as date), 1 from person
    on conflict (signup_day) do update set contact_count = erased_signups.contact_count + 1
)

insert into erased_contacts (contact_id, signup_month, country, erased_on)
select
    contact_id, cast(date_trunc('month', created_at at time zone 'UTC') as date), country,
    cast(cast(:now as timestamptz) at time zone 'UTC' as date)
from person;

-- name: count_activity
-- In which periods since sign-up the person opened or clicked, added up without the person. As in
-- analytics.cohort_activity; 100 periods are more than any cohort shows.
insert into erased_activity (granularity, signup_day, period_offset, contact_count)
select granularity, signup_day, period_offset, 1
from (
    select distinct
        grains.granularity, cast(people.created_at at time zone 'UTC' as date) as signup_day,
        cast(floor(
            (date_part('epoch', events.occurred_at) - date_part('epoch', people.created_at)) / 86400
        ) as int) / grains.period_days as period_offset
    from contacts as people
    inner join events
        on events.contact_id = people.contact_id and events.occurred_at >= people.created_at
        and events.event_type in ('email_opened', 'email_clicked')
    cross join (values ('day', 1), ('week', 7), ('month', 30)) as grains (granularity, period_days)
    where people.contact_id = cast(:contact_id as bigint)
) as periods
where period_offset < 100
order by granularity, signup_day, period_offset
on conflict (granularity, signup_day, period_offset) do update
set contact_count = erased_activity.contact_count + 1;

-- name: skip_mail_to
-- Gives up mail that waits for one of these addresses without a contact.
update messages
set status = 'skipped', reason = 'erased'
where status = 'queued' and contact_id = 0 and to_key = any(cast(:email_keys as text[]));

-- name: due
-- Erasures maintenance has work with, oldest first.
select erasure_id, contact_id, requested_at, traces
from erasures
where status <> 'completed' and next_try_at <= cast(:now as timestamptz)
order by erasure_id
limit cast(:limit as int);

-- name: unsettled
-- Whose erasure cannot end yet: mail is being handed over, or an import is at work that may know the person.
select erasures.erasure_id
from erasures
where erasures.erasure_id = any(cast(:erasure_ids as bigint[]))
    and (
        exists (
            select from messages
            where messages.contact_id = erasures.contact_id and messages.status = 'sending')
        or exists (
            select from imports
            where imports.status in ('running', 'cancelling')
                and imports.created_at <= erasures.requested_at)
    );

-- name: add_counts
-- Adds rows cleaned to the counts of an erasure.
update erasures
set tables = erasures.tables || (
    select coalesce(
        jsonb_object_agg(
            given.key,
            cast(given.value as bigint)
            + coalesce(cast(erasures.tables ->> given.key as bigint), 0)),
        '{}')
    from jsonb_each_text(cast(:counts as jsonb)) as given
)
where erasure_id = cast(:erasure_id as bigint);

-- name: settle
-- Ends an erasure, or says when it is taken up again.
update erasures
set status = cast(:status as text), completed_at = cast(:completed_at as timestamptz),
    next_try_at = cast(:next_try_at as timestamptz),
    traces = case when cast(:status as text) = 'completed' then null else traces end
where erasure_id = cast(:erasure_id as bigint) and status <> 'completed';

-- name: own_messages
-- Messages to erased people, by contact or, without one, by an address they had; person: whose they are.
select messages.contact_id, messages.message_id, messages.content_id, messages.kind,
    messages.contact_id as person_id
from messages
where messages.contact_id = any(cast(:contact_ids as bigint[]))
union all
select messages.contact_id, messages.message_id, messages.content_id, messages.kind,
    people.contact_id
from messages
inner join unnest(
        cast(:key_contact_ids as bigint[]), cast(:email_keys as text[]),
        cast(:key_moments as timestamptz[])
    ) as people (contact_id, email_key, requested_at)
    on people.email_key = messages.to_key and messages.queued_at <= people.requested_at
where messages.contact_id = 0;

-- name: clean_message_contents
-- Texts written for nobody else: single mails, not campaigns, workflows or templates.
with own as materialized (
    -- include: own_messages
),

texts as materialized (
    select message_contents.content_id, min(own.person_id) as person_id
    from own
    inner join message_contents on message_contents.content_id = own.content_id
    where own.kind in ('transactional', 'test', 'confirmation', 'internal')
        and message_contents.campaign_id is null and message_contents.template_id is null
        and message_contents.workflow_id is null
    group by message_contents.content_id
),

changed as (
    update message_contents
    set subject = '', preheader = '', html_body = '', text_body = '', digest = null
    from texts
    where message_contents.content_id = texts.content_id
        and (message_contents.subject, message_contents.html_body, message_contents.text_body)
        <> ('', '', '')
        and not exists (
            select from messages
            where messages.content_id = texts.content_id
                and messages.message_id not in (select own.message_id from own))
    returning texts.person_id
)

select person_id as contact_id, count(*) as row_count from changed group by 1;

-- name: clean_message_attempts
-- What the receiving side said about each attempt: it quotes the address.
with own as materialized (
    -- include: own_messages
),

changed as (
    update message_attempts
    set reply = null
    from own
    where message_attempts.contact_id = own.contact_id
        and message_attempts.message_id = own.message_id and message_attempts.reply is not null
    returning own.person_id
)

select person_id as contact_id, count(*) as row_count from changed group by 1;

-- name: clean_messages
-- Addresses, variables and words of the receiving side; what waited was skipped before.
-- Mail to nobody needs an address: the sweep takes that one.
with own as materialized (
    -- include: own_messages
),

changed as (
    update messages
    set to_email = case when messages.contact_id = 0 then messages.to_email end,
        to_key = case when messages.contact_id = 0 then messages.to_key end,
        context = null, last_error = null
    from own
    where messages.contact_id = own.contact_id and messages.message_id = own.message_id
        and (messages.context is not null or messages.last_error is not null
            or (messages.contact_id > 0 and num_nonnulls(messages.to_email, messages.to_key) > 0))
    returning own.person_id
)

select person_id as contact_id, count(*) as row_count from changed group by 1;

-- name: clean_events
-- Properties that may say who somebody is; amounts and numbers that totals are made of stay.
with kept as materialized (
    select
        events.event_id, events.occurred_at,
        coalesce(
            (
                select jsonb_object_agg(
                    entry.key,
                    case entry.key when 'lines' then bare_order_lines(entry.value)
                        else entry.value end)
                from jsonb_each(events.properties) as entry
                where entry.key = any(cast(:kept_properties as text[]))
                    and (entry.key = 'lines' or jsonb_typeof(entry.value) <> 'object')
            ), '{}') as properties
    from events
    where events.contact_id = any(cast(:contact_ids as bigint[]))
),

changed as (
    update events
    set properties = kept.properties
    from kept
    where events.event_id = kept.event_id and events.occurred_at = kept.occurred_at
        and events.properties <> kept.properties
    returning events.contact_id
)

select contact_id, count(*) as row_count from changed group by contact_id;

-- name: clean_event_keys
-- Hashes of what an event said.
with changed as (
    update event_keys
    set content_hash = null
    from events
    where events.contact_id = any(cast(:contact_ids as bigint[]))
        and event_keys.source = events.source and event_keys.external_id = events.external_id
        and event_keys.event_id = events.event_id and event_keys.content_hash is not null
    returning events.contact_id
)

select contact_id, count(*) as row_count from changed group by contact_id;

-- name: clean_orders
-- Free text of the lines; amounts stay.
with changed as (
    update orders
    set lines = bare_order_lines(lines)
    where contact_id = any(cast(:contact_ids as bigint[])) and lines <> bare_order_lines(lines)
    returning contact_id
)

select contact_id, count(*) as row_count from changed group by contact_id;

-- name: clean_hits
-- Devices and networks, and what a link carried beyond its address.
with changed as (
    update hits
    set user_agent = '', network = '', purpose = '', url = regexp_replace(url, '[?#].*$', '')
    where contact_id = any(cast(:contact_ids as bigint[]))
        and (user_agent <> '' or network <> '' or purpose <> '' or url ~ '[?#]')
    returning contact_id
)

select contact_id, count(*) as row_count from changed group by contact_id;

-- name: clean_consents
-- Where a consent came from and what was noted; that, when and how it was given stays as evidence.
with changed as (
    update consents
    set ip = null, note = null
    where contact_id = any(cast(:contact_ids as bigint[])) and (ip is not null or note is not null)
    returning contact_id
)

select contact_id, count(*) as row_count from changed group by contact_id;

-- name: clean_workflow_logs
-- Results of steps.
with changed as (
    update workflow_logs
    set result = '{}'
    where contact_id = any(cast(:contact_ids as bigint[])) and result <> '{}'
    returning contact_id
)

select contact_id, count(*) as row_count from changed group by contact_id;

-- name: clean_automation_logs
-- Results of rules.
with changed as (
    update automation_logs
    set error = null, actions = '[]',
        status = case status when 'waiting' then 'failed' else status end
    where contact_id = any(cast(:contact_ids as bigint[]))
        and (error is not null or actions <> '[]')
    returning contact_id
)

select contact_id, count(*) as row_count from changed group by contact_id;

-- name: clean_score_awards
-- Reasons of points given by hand.
with changed as (
    update score_awards
    set reason = '', metadata = '{}'
    where contact_id = any(cast(:contact_ids as bigint[])) and (reason <> '' or metadata <> '{}')
    returning contact_id
)

select contact_id, count(*) as row_count from changed group by contact_id;

-- name: clean_stage_transitions
-- Reasons of stages set by hand.
with changed as (
    update stage_transitions
    set reason = ''
    where contact_id = any(cast(:contact_ids as bigint[])) and reason <> ''
    returning contact_id
)

select contact_id, count(*) as row_count from changed group by contact_id;

-- name: clean_outbox
-- Facts about the person keep the ids alone.
with changed as (
    update outbox
    set data = case
            when data ? 'contact' then jsonb_build_object(
                'contact', jsonb_build_object('id', data #> '{contact,id}'), 'changed', '[]'::jsonb)
            else data - '{email,url,reason}'::text[]
        end
    where (
            data #>> '{contact,id}' = any(cast(:ids_as_text as text[]))
            or data ->> 'contact_id' = any(cast(:ids_as_text as text[])))
        and (data ?| '{email,url,reason}'
            or (data -> 'contact') - 'id' <> '{}' or data -> 'changed' <> '[]')
    returning coalesce(data #>> '{contact,id}', data ->> 'contact_id') as contact_id
)

select cast(contact_id as bigint) as contact_id, count(*) as row_count from changed group by 1;

-- name: clean_webhook_deliveries
-- Payloads about the person keep the ids alone, whether or not the fact is still in the outbox.
with found as materialized (
    select
        delivery_id, payload,
        coalesce(
            payload #>> '{data,contact,id}', payload #>> '{data,contact_id}',
            payload #>> '{contact,id}', payload ->> 'contact_id') as contact_id
    from webhook_deliveries
),

cleaned as (
    select
        delivery_id, contact_id,
        payload - '{contact,email,url,reason,changed,data}'::text[]
        || case when payload ? 'contact' then jsonb_build_object(
            'contact', jsonb_build_object('id', contact_id)) else '{}' end
        || case
            when payload #> '{data,contact}' is not null then jsonb_build_object(
                'data', jsonb_build_object('contact', jsonb_build_object('id', contact_id)))
            when payload ? 'data' then jsonb_build_object(
                'data', (payload -> 'data') - '{email,url,reason}'::text[])
            else '{}'
        end as payload
    from found
    where contact_id = any(cast(:ids_as_text as text[]))
),

answered as (
    update webhook_attempts
    set error = null, response_body = null
    from cleaned
    where webhook_attempts.delivery_id = cleaned.delivery_id
        and (webhook_attempts.error is not null or webhook_attempts.response_body is not null)
),

changed as (
    update webhook_deliveries
    set error = null, payload = cleaned.payload
    from cleaned
    where webhook_deliveries.delivery_id = cleaned.delivery_id
        and (webhook_deliveries.payload <> cleaned.payload or webhook_deliveries.error is not null)
    returning cleaned.contact_id
)

select cast(contact_id as bigint) as contact_id, count(*) as row_count from changed group by 1;

-- name: clean_idempotency_keys
-- Kept answers of calls about the person.
with changed as (
    update idempotency_keys
    set body = convert_to('{"erased": true}', 'UTF8')
    where substring(path from '/contacts/([0-9]+)(?:/|$)') = any(cast(:ids_as_text as text[]))
        and body <> convert_to('{"erased": true}', 'UTF8')
    returning substring(path from '/contacts/([0-9]+)(?:/|$)') as contact_id
)

select cast(contact_id as bigint) as contact_id, count(*) as row_count from changed group by 1;

-- name: clean_audit_log
-- Of what was changed only the names of fields stay.
with changed as (
    update audit_log
    set changes = (
            select coalesce(jsonb_object_agg(entry.key, entry.value), '{}')
            from jsonb_each(audit_log.changes) as entry
            where entry.key in ('fields', 'code', 'erasure_id'))
    where resource_type = 'contact' and resource_id = any(cast(:ids_as_text as text[]))
        and changes - '{fields,code,erasure_id}'::text[] <> '{}'
    returning resource_id
)

select cast(resource_id as bigint) as contact_id, count(*) as row_count from changed group by 1;

-- name: clean_contact_search
-- Search words that were being written while the person went.
with gone as (
    delete from contact_search
    where contact_id = any(cast(:contact_ids as bigint[])) returning contact_id
)

select contact_id, count(*) as row_count from gone group by contact_id;

-- name: text_columns
-- Every column of our schemas that can hold text, with what tells rows of one contact and of a time apart.
select
    spaces.nspname as schema_name, relations.relname as table_name,
    array_agg(columns.attname order by columns.attnum) filter (
        where types.typname in ('text', 'varchar', 'json', 'jsonb', 'bytea', '_text')) as columns,
    array_agg(types.typname order by columns.attnum) filter (
        where types.typname in ('text', 'varchar', 'json', 'jsonb', 'bytea', '_text')) as types,
    bool_or(columns.attname = 'contact_id') as has_contact,
    (array_agg(columns.attname order by array_position(
        array['created_at', 'received_at', 'recorded_at', 'queued_at', 'claimed_at', 'at'],
        cast(columns.attname as text))) filter (
        where types.typname = 'timestamptz' and columns.attname in (
            'created_at', 'received_at', 'recorded_at', 'queued_at', 'claimed_at', 'at')))[1]
        as made_at
from pg_class as relations
inner join pg_namespace as spaces on spaces.oid = relations.relnamespace
inner join pg_attribute as columns
    on columns.attrelid = relations.oid and columns.attnum > 0 and not columns.attisdropped
inner join pg_type as types on types.oid = columns.atttypid
where spaces.nspname in ('public', 'staging')
    and relations.relkind in ('r', 'p') and not relations.relispartition
    -- Rows that wait for their import, which `staged` cleans: they have to stay rows.
    and not (spaces.nspname = 'staging' and relations.relname ~ '^import_[0-9]+_[0-9]+$')
group by spaces.nspname, relations.relname
having bool_or(types.typname in ('text', 'varchar', 'json', 'jsonb', 'bytea', '_text'))
order by spaces.nspname, relations.relname;


-- name: export_history
-- Earlier versions of a contact, newest first.
select
    valid_from, valid_to, email_key, first_name, last_name, phone, country, language, timezone,
    currency, custom_fields, subscribed, consent_status
from contact_history
where contact_id = cast(:contact_id as bigint)
order by version desc;

-- name: export_consents
-- The consent history, newest first.
select
    consent_id as id, contact_id, status, source, wording_version, cast(ip as text) as ip, actor,
    note, recorded_at as at
from consents
where contact_id = cast(:contact_id as bigint)
order by consent_id desc;

-- name: export_events
-- Events, newest first.
select
    event_id as id, event_type as type, source, external_id, contact_id, occurred_at, received_at,
    properties, campaign_id, message_id, order_key as order_id
from events
where contact_id = cast(:contact_id as bigint)
order by occurred_at desc, event_id desc;

-- name: export_orders
-- Orders, newest first.
select
    order_key as id, order_id, source, contact_id, placed_at, currency, total, discount, shipping,
    tax, refunded_total, net_total,
    case
        when refunded_total <= 0 then 'placed'
        when refunded_total >= total then 'refunded'
        else 'partially_refunded'
    end as status, lines, cart_id, cast(net_total * fx_rate as numeric(38, 4)) as net_reporting,
    reporting_currency, fx_rate, fx_date
from orders
where contact_id = cast(:contact_id as bigint)
order by placed_at desc, order_key desc;

-- name: export_variables
-- What single messages were filled in with, beside the contact.
select message_id, context
from messages
where contact_id = cast(:contact_id as bigint) and context is not null;

-- name: export_hits
-- Raw opens, clicks and unsubscribe requests with the newest verdict, newest first.
select
    hits.hit_id as id, hits.kind, hits.occurred_at, hits.campaign_id, hits.message_id, hits.url,
    hits.user_agent, hits.network, newest.verdict
from hits
left join lateral (
    select verdict
    from hit_verdicts
    where hit_verdicts.hit_id = hits.hit_id
    order by rule_version desc
    limit 1
) as newest on true
where hits.contact_id = cast(:contact_id as bigint)
order by hits.occurred_at desc, hits.hit_id desc;

-- name: export_score
-- The current score.
select
    total_score, engagement_score, profile_score, recency_score, grade, last_activity_at, as_of,
    rule_version
from contact_scores
where contact_id = cast(:contact_id as bigint);

-- name: export_score_history
-- Snapshots of the score, newest first.
select
    as_of, total_score, engagement_score, profile_score, recency_score, grade, lifecycle_stage,
    last_activity_at, rule_version, source
from score_history
where contact_id = cast(:contact_id as bigint)
order by as_of desc, recorded_at desc;

-- name: export_score_awards
-- Points given by hand, and by rules for events processed on request, newest first.
select award_id as id, event_type, points, reason, metadata, occurred_at
from score_awards
where contact_id = cast(:contact_id as bigint)
union all
select award_id, event_type, points, reason, '{}', occurred_at
from score_rule_awards
where contact_id = cast(:contact_id as bigint)
order by occurred_at desc, id desc;

-- name: export_stages
-- Changes of the lifecycle stage, newest first.
select
    transition_id as id, previous_stage, new_stage, reason, occurred_at
from stage_transitions
where contact_id = cast(:contact_id as bigint)
order by occurred_at desc, transition_id desc;

-- name: export_enrollments
-- Ways through workflows, newest first, with the steps taken.
select
    enrollments.enrollment_id as id, enrollments.workflow_id, enrollments.version,
    enrollments.status, enrollments.step_path, enrollments.resume_at, enrollments.waiting_for,
    enrollments.context, enrollments.exit_reason, enrollments.entered_at, enrollments.finished_at,
    coalesce(taken.steps, '[]') as steps
from enrollments
left join lateral (
    select jsonb_agg(
        jsonb_build_object(
            'step', workflow_logs.step_path, 'status', workflow_logs.status,
            'result', workflow_logs.result, 'at', to_char(
                workflow_logs.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        order by workflow_logs.log_id) as steps
    from workflow_logs
    where workflow_logs.workflow_id = enrollments.workflow_id
        and workflow_logs.enrollment_id = enrollments.enrollment_id
) as taken on true
where enrollments.contact_id = cast(:contact_id as bigint)
order by enrollments.enrollment_id desc;

-- name: export_segments
-- Segments the person was ever in, by evaluation or by hand.
select segments.segment_id as id, segments.name, given.valid_from, given.valid_to, given.by
from (
    select segment_id, valid_from, nullif(valid_to, 'infinity') as valid_to, 'rules' as by
    from segment_memberships
    where contact_id = cast(:contact_id as bigint)
    union all
    select segment_id, added_at, null, case when is_excluded then 'excluded' else 'hand' end
    from segment_static_members
    where contact_id = cast(:contact_id as bigint)
) as given
inner join segments on segments.segment_id = given.segment_id
order by given.valid_from desc, segments.segment_id;

-- name: export_imports
-- Imports that made the contact or changed it, newest first. File names may name others.
select
    imports.import_id as id, imports.format, imports.status, imports.created_at, imports.finished_at
from imports
where imports.import_id in (
        select cast(properties ->> 'import_id' as bigint)
        from events
        where contact_id = cast(:contact_id as bigint) and source = 'mauto'
            and event_type in ('contact_created', 'contact_updated')
            and properties ->> 'import_id' ~ '^[0-9]{1,18}$')
order by imports.import_id desc;

-- name: export_audit
-- What was done to the contact over the API, newest first; not who did it, which is about others.
select audit_id as id, at, actor_type, action, status, changes
from audit_log
where resource_type = 'contact' and resource_id = cast(cast(:contact_id as bigint) as text)
order by audit_id desc;
