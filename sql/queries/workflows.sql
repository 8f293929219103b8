-- Workflows: entering them, moving through them, leaving them - always for a whole set of people.

-- name: exit_on_events
-- Ends enrollments whose workflow stops on an event of the batch that happened after their cause.
with happened as materialized (
    select events.contact_id, events.event_type, max(events.occurred_at) as last_at
    from unnest(cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]))
        as batch (event_id, occurred_at)
    inner join events
        on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
    where events.contact_id > 0
        and events.event_type in (
            select coalesce(cast(:synonyms as jsonb) ->> stops.event_type, stops.event_type)
            from workflows
            cross join lateral unnest(workflows.exit_on) as stops (event_type)
        )
    group by events.contact_id, events.event_type
),

ending as materialized (
    select enrollments.contact_id, enrollments.enrollment_id, min(happened.event_type) as event_type
    from happened
    inner join enrollments
        on enrollments.contact_id = happened.contact_id
        and enrollments.finished_at is null
        and enrollments.caused_at < happened.last_at
    inner join workflows
        on workflows.workflow_id = enrollments.workflow_id
        and exists (
            select 1
            from unnest(workflows.exit_on) as stops (event_type)
            where coalesce(cast(:synonyms as jsonb) ->> stops.event_type, stops.event_type)
                = happened.event_type
        )
    group by enrollments.contact_id, enrollments.enrollment_id
)

update enrollments
set status = 'exited', exit_reason = ending.event_type, resume_at = null,
    finished_at = cast(:now as timestamptz)
from ending
where enrollments.contact_id = ending.contact_id
    and enrollments.enrollment_id = ending.enrollment_id
    and enrollments.finished_at is null
returning enrollments.enrollment_id;

-- name: enroll_on_events
-- Enrols whom an event of the batch brings into an active workflow, as re-entry allows.
with happened as materialized (
    select
        events.event_id, events.contact_id, events.occurred_at, events.event_type,
        events.properties, contacts.source as contact_source
    from unnest(cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]))
        as batch (event_id, occurred_at)
    inner join events
        on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
    inner join contacts on contacts.contact_id = events.contact_id
),

matching as materialized (
    select
        workflows.workflow_id, workflows.version, happened.event_id, happened.contact_id,
        happened.occurred_at, happened.properties,
        coalesce(workflows.re_entry ->> 'policy', 'after_exit') as policy,
        cast(workflows.re_entry ->> 'cooldown_hours' as float8) as cooldown_hours,
        row_number() over (
            partition by workflows.workflow_id, happened.contact_id
            order by happened.occurred_at, happened.event_id
        ) as entry_number
    from workflows
    inner join happened on case workflows.trigger_type
        when 'event' then
            happened.event_type = coalesce(
                cast(:synonyms as jsonb) ->> (workflows.trigger_config ->> 'event_type'),
                workflows.trigger_config ->> 'event_type')
            and happened.properties @> coalesce(workflows.trigger_config -> 'where', '{}')
        when 'signup' then
            happened.event_type = 'contact_created'
            and happened.occurred_at >= cast(:signups_since as timestamptz)
            and coalesce(workflows.trigger_config ->> 'source' = happened.contact_source, true)
        else false
    end
    where workflows.active
),

entered as (
    insert into enrollments (
        workflow_id, version, contact_id, entry_key, status, resume_at, context, caused_at,
        entered_at)
    select
        matching.workflow_id, matching.version, matching.contact_id, 'event:' || matching.event_id,
        'running', cast(:now as timestamptz), matching.properties, matching.occurred_at,
        cast(:now as timestamptz)
    from matching
    where matching.policy = 'always'
        or (matching.entry_number = 1 and not exists (
            select 1
            from enrollments as earlier
            where earlier.workflow_id = matching.workflow_id
                and earlier.contact_id = matching.contact_id
                and case matching.policy
                    when 'after_exit' then earlier.finished_at is null
                    when 'cooldown' then earlier.entered_at > cast(:now as timestamptz)
                        - make_interval(secs => matching.cooldown_hours * 3600)
                    else true
                end
        ))
    order by matching.occurred_at, matching.event_id
    on conflict (workflow_id, entry_key) do nothing
    returning enrollment_id, workflow_id, contact_id
)

insert into outbox (event_name, occurred_at, data)
select 'workflow.triggered', cast(:now as timestamptz), jsonb_build_object(
    'workflow_id', cast(workflow_id as text), 'enrollment_id', cast(enrollment_id as text),
    'contact_id', cast(contact_id as text))
from entered;

-- name: claim_due
-- Takes enrollments whose moment has come, by where they stand; others that move some at the same time are passed by.
with due as materialized (
    select
        enrollment_id, contact_id, workflow_id, version, step_path, visit, depth,
        case
            when status = 'running' then 'fresh'
            when coalesce(until_at, resume_at) <= cast(:now as timestamptz) then 'expired'
            else 'woken'
        end as arrival
    from enrollments
    where status in ('running', 'waiting')
        and resume_at <= cast(:now as timestamptz)
        and (cast(:workflow_id as bigint) is null or workflow_id = cast(:workflow_id as bigint))
    order by resume_at
    limit cast(:size as int)
    for update skip locked
)

select
    workflow_id, version, step_path, visit, depth, arrival,
    array_agg(enrollment_id order by contact_id, enrollment_id) as enrollment_ids,
    array_agg(contact_id order by contact_id, enrollment_id) as contact_ids
from due
group by workflow_id, version, step_path, visit, depth, arrival;

-- name: claim_one
-- Takes one enrollment that has just begun.
with one as materialized (
    select enrollment_id, contact_id, workflow_id, version, step_path, visit, depth
    from enrollments
    where enrollment_id = cast(:enrollment_id as bigint)
        and contact_id = cast(:contact_id as bigint)
        and status = 'running'
    for update
)

select
    workflow_id, version, step_path, visit, depth, 'fresh' as arrival,
    array[enrollment_id] as enrollment_ids, array[contact_id] as contact_ids
from one;

-- name: count_due
-- How many enrollments would move now, by workflow, version and step.
select workflow_id, version, step_path, count(*) as enrollment_count
from enrollments
where status in ('running', 'waiting')
    and resume_at <= cast(:now as timestamptz)
    and (cast(:workflow_id as bigint) is null or workflow_id = cast(:workflow_id as bigint))
group by workflow_id, version, step_path
order by workflow_id, version, step_path;

-- name: count_ways
-- Where enrollments that stood at `origins` stand now.
select
    enrollments.workflow_id, enrollments.version, members.origin,
    case when enrollments.status = 'waiting' then enrollments.step_path else enrollments.status end
        as goes_to,
    count(*) as enrollment_count
from unnest(
    cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]), cast(:origins as text[])
) as members (enrollment_id, contact_id, origin)
inner join enrollments
    on enrollments.contact_id = members.contact_id
    and enrollments.enrollment_id = members.enrollment_id
group by 1, 2, 3, 4
order by 1, 2, 3, 4;

-- name: next_due
-- When the next enrollment has to move; null when none waits.
select min(resume_at)
from enrollments
where status in ('running', 'waiting');

-- name: write_logs
-- Logs one visit of one step for many, each (enrollment, step, visit) once.
insert into workflow_logs (
    workflow_id, enrollment_id, contact_id, step_path, step_index, visit, status, result,
    created_at)
select
    cast(:workflow_id as bigint), members.enrollment_id, members.contact_id,
    cast(:step_path as text), cast(:step_index as int), cast(:visit as int), cast(:status as text),
    case
        when members.own is null then cast(:result as jsonb)
        else cast(:result as jsonb) || cast(members.own as jsonb)
    end,
    cast(:now as timestamptz)
from unnest(
    cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]), cast(:results as text[])
) as members (enrollment_id, contact_id, own)
on conflict (enrollment_id, step_path, visit) do nothing;

-- name: put_down
-- Puts enrollments where they stand now; of whom has reached the end webhooks are told.
with moved as (
    update enrollments
    set status = cast(:status as text), step_path = cast(:step_path as text),
        resume_at = coalesce(members.until_at, cast(:until as timestamptz)),
        until_at = coalesce(members.until_at, cast(:until as timestamptz)),
        waiting_for = cast(:waiting_for as text), exit_reason = cast(:exit_reason as text),
        arrived_at = case
            when enrollments.status = 'waiting' and enrollments.until_at <= cast(:now as timestamptz)
                then enrollments.until_at
            else coalesce(enrollments.arrived_at, enrollments.caused_at)
        end,
        finished_at = case
            when cast(:status as text) <> 'waiting' then cast(:now as timestamptz)
        end
    from unnest(
        cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]),
        cast(:untils as timestamptz[])
    ) as members (enrollment_id, contact_id, until_at)
    where enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    returning enrollments.enrollment_id, enrollments.workflow_id, enrollments.contact_id
)

insert into outbox (event_name, occurred_at, data)
select 'workflow.' || cast(:status as text), cast(:now as timestamptz), jsonb_build_object(
    'workflow_id', cast(moved.workflow_id as text),
    'enrollment_id', cast(moved.enrollment_id as text),
    'contact_id', cast(moved.contact_id as text))
from moved
where cast(:status as text) in ('completed', 'failed');

-- name: read_waits
-- Until when enrollments wait at most.
select
    coalesce(enrollments.until_at, enrollments.resume_at) as until_at,
    array_agg(members.enrollment_id order by members.contact_id, members.enrollment_id)
        as enrollment_ids,
    array_agg(members.contact_id order by members.contact_id, members.enrollment_id) as contact_ids
from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
    as members (enrollment_id, contact_id)
inner join enrollments
    on enrollments.contact_id = members.contact_id
    and enrollments.enrollment_id = members.enrollment_id
group by coalesce(enrollments.until_at, enrollments.resume_at)
order by 1;

-- name: find_awaited
-- Who of those at a step had the event they wait for, and when first: after they came there, and in time. From then on
-- time counts for what they do next.
with found as materialized (
    select members.enrollment_id, members.contact_id, happened.first_at
    from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
        as members (enrollment_id, contact_id)
    inner join enrollments
        on enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    cross join lateral (
        select min(events.occurred_at) as first_at
        from events
        where events.contact_id = members.contact_id
            and events.event_type = cast(:event_type as text)
            and events.properties @> cast(:where as jsonb)
            and events.occurred_at > case
                when cast(:is_fresh as boolean) and enrollments.status = 'waiting'
                    and enrollments.until_at <= cast(:now as timestamptz)
                    then enrollments.until_at
                else coalesce(enrollments.arrived_at, enrollments.caused_at)
            end
            and events.occurred_at <= case
                when cast(:is_fresh as boolean) then cast(:deadline as timestamptz)
                else coalesce(enrollments.until_at, cast(:deadline as timestamptz))
            end
    ) as happened
    where members.contact_id > 0
        and happened.first_at is not null
),

noted as (
    update enrollments
    set arrived_at = found.first_at, until_at = least(found.first_at, cast(:now as timestamptz))
    from found
    where enrollments.contact_id = found.contact_id
        and enrollments.enrollment_id = found.enrollment_id
    returning enrollments.enrollment_id, enrollments.contact_id
)

select enrollment_id, contact_id
from noted
order by contact_id, enrollment_id;

-- name: find_goal_reached
-- Who of those on their way had the event that is their goal since what brought them in.
with found as materialized (
    select members.enrollment_id, members.contact_id, happened.first_at
    from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
        as members (enrollment_id, contact_id)
    inner join enrollments
        on enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    cross join lateral (
        select min(events.occurred_at) as first_at
        from events
        where events.contact_id = members.contact_id
            and events.event_type = cast(:event_type as text)
            and events.properties @> cast(:where as jsonb)
            and events.occurred_at > enrollments.caused_at
    ) as happened
    where members.contact_id > 0
        and happened.first_at is not null
),

noted as (
    update enrollments
    set arrived_at = greatest(found.first_at, enrollments.arrived_at),
        until_at = least(greatest(found.first_at, enrollments.arrived_at), cast(:now as timestamptz))
    from found
    where not cast(:is_fresh as boolean)
        and enrollments.contact_id = found.contact_id
        and enrollments.enrollment_id = found.enrollment_id
)

select enrollment_id, contact_id
from found
order by contact_id, enrollment_id;

-- name: find_goal_members
-- Who of those on their way is a member of the segment that is their goal.
select members.enrollment_id, members.contact_id
from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
    as members (enrollment_id, contact_id)
inner join segment_memberships
    on segment_memberships.contact_id = members.contact_id
    and segment_memberships.segment_id = cast(:segment_id as bigint)
    and segment_memberships.valid_to = 'infinity'
where members.contact_id > 0
order by members.contact_id, members.enrollment_id;

-- name: group_by_zone
-- Enrollments by the time zone of their contacts; '' where there is none.
select
    coalesce(contacts.timezone, '') as timezone,
    array_agg(members.enrollment_id order by members.contact_id, members.enrollment_id)
        as enrollment_ids,
    array_agg(members.contact_id order by members.contact_id, members.enrollment_id) as contact_ids
from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
    as members (enrollment_id, contact_id)
left join contacts on contacts.contact_id = members.contact_id
group by coalesce(contacts.timezone, '')
order by 1;

-- name: judge
-- Who passes a condition on a field of the contact, or of the enrollment's context. Text is compared case-blind, numbers
-- as numbers; what is missing or blank passes only the test for that.
with looked_at as materialized (
    select
        members.enrollment_id, members.contact_id,
        case cast(:field as text)
            when 'context' then enrollments.context -> cast(:key as text)
            when 'custom' then contacts.custom_fields -> cast(:key as text)
            when 'subscribed' then to_jsonb(contacts.subscribed)
            when 'score' then (
                select to_jsonb(contact_scores.total_score)
                from contact_scores
                where contact_scores.contact_id = contacts.contact_id)
            when 'tags' then (
                select jsonb_agg(tags.name)
                from contact_tags
                inner join tags on tags.tag_id = contact_tags.tag_id
                where contact_tags.contact_id = contacts.contact_id)
            else to_jsonb(case cast(:field as text)
                when 'email' then contacts.email when 'first_name' then contacts.first_name
                when 'last_name' then contacts.last_name when 'phone' then contacts.phone
                when 'country' then contacts.country when 'language' then contacts.language
                when 'timezone' then contacts.timezone when 'currency' then contacts.currency
                when 'consent_status' then contacts.consent_status
                when 'consent_source' then contacts.consent_source
                when 'source' then contacts.source
            end)
        end as actual
    from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
        as members (enrollment_id, contact_id)
    left join enrollments
        on cast(:field as text) = 'context'
        and enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    left join contacts
        on cast(:field as text) <> 'context' and contacts.contact_id = members.contact_id
),

compared as materialized (
    select
        enrollment_id, contact_id, coalesce(actual in ('null', '""', '[]'), true) as is_missing,
        case jsonb_typeof(actual)
            when 'array' then array(select lower(jsonb_array_elements_text(actual)))
            else array[lower(actual #>> '{}')]
        end as texts,
        jsonb_typeof(actual) <> 'array' as is_one,
        case
            when jsonb_typeof(actual) in ('number', 'string')
                and actual #>> '{}' ~ '^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*$'
                then cast(actual #>> '{}' as numeric)
        end as number
    from looked_at
),

judged as (
    select
        enrollment_id, contact_id,
        case
            when is_missing then cast(:test as text) = 'missing'
            else coalesce(case cast(:test as text)
                when 'among' then texts && cast(:texts as text[])
                when 'contains' then
                    case when is_one then strpos(texts[1], cast(:text as text)) > 0
                        else texts && cast(:texts as text[])
                    end
                when 'above' then number > cast(:number as numeric)
                when 'below' then number < cast(:number as numeric)
                else cast(:test as text) = 'present'
            end <> cast(:negated as boolean), false)
        end as passed
    from compared
)

select
    passed, array_agg(enrollment_id order by contact_id, enrollment_id) as enrollment_ids,
    array_agg(contact_id order by contact_id, enrollment_id) as contact_ids
from judged
group by passed
order by passed desc;

-- name: mail_groups
-- Who of those at a step may be mailed which version of a template - that of when they entered, or the first one - and
-- why others may not.
with versions as materialized (
    select
        version,
        case when version > min(version) over () then created_at else '-infinity' end as since,
        lead(created_at, 1, 'infinity') over (order by version) as until
    from template_versions
    where template_id = cast(:template_id as bigint)
),

facts as materialized (
    select
        members.enrollment_id, members.contact_id, enrollments.entered_at,
        contact_mailability.contact_id is not null as exists,
        case
            when contact_mailability.refusal is not null then contact_mailability.refusal
            when cast(:require_consent as boolean)
                and contact_mailability.consent_status <> 'granted' then 'no_consent'
        end as refusal
    from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
        as members (enrollment_id, contact_id)
    left join enrollments
        on enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    left join contact_mailability on contact_mailability.contact_id = members.contact_id
)

select
    facts.exists, facts.refusal, versions.version,
    array_agg(facts.enrollment_id order by facts.contact_id, facts.enrollment_id) as enrollment_ids,
    array_agg(facts.contact_id order by facts.contact_id, facts.enrollment_id) as contact_ids
from facts
left join versions on facts.entered_at >= versions.since and facts.entered_at < versions.until
group by facts.exists, facts.refusal, versions.version
order by versions.version, facts.exists, facts.refusal;

-- name: mail_results
-- What the logs say of mails queued at a step.
select
    array_agg(members.enrollment_id order by members.contact_id, members.enrollment_id)
        as enrollment_ids,
    array_agg(members.contact_id order by members.contact_id, members.enrollment_id) as contact_ids,
    array_agg(
        cast(json_build_object(
            'to', contacts.email, 'message_id', cast(message_keys.message_id as text)) as text)
        order by members.contact_id, members.enrollment_id) as results
from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
    as members (enrollment_id, contact_id)
inner join contacts on contacts.contact_id = members.contact_id
inner join message_keys
    on message_keys.dedupe_key = 'enrollment:' || members.enrollment_id || cast(:step as text);

-- name: ensure_tag
-- Makes a tag unless there is one of that name, in whatever case.
insert into tags (name, created_at)
select cast(:tag_name as text), cast(:now as timestamptz)
where not exists (select 1 from tags where lower(name) = lower(cast(:tag_name as text)))
on conflict (lower(name)) do nothing;

-- name: find_tag
-- The tag of a name, in whatever case.
select tag_id
from tags
where lower(name) = lower(cast(:tag_name as text));

-- name: hold_contacts
-- Those of the contacts that exist; they cannot be deleted before the transaction ends.
select contact_id
from contacts
where contact_id = any(cast(:contact_ids as bigint[]))
order by contact_id
for key share;

-- name: template_texts
-- Every version of a template, oldest first.
select
    versions.subject, versions.html_body, versions.text_body, versions.variables, templates.strict,
    versions.version
from template_versions as versions
inner join templates on templates.template_id = versions.template_id
where versions.template_id = cast(:template_id as bigint)
order by versions.version;
