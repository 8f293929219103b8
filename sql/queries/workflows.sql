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
-- Takes enrollments whose moment has come; others that move some at the same time are passed by.
select
    enrollment_id, contact_id, workflow_id, version, step_path, visit, context, entered_at,
    status = 'waiting' as resumed
from enrollments
where status in ('running', 'waiting')
    and resume_at <= cast(:now as timestamptz)
    and (cast(:workflow_id as bigint) is null or workflow_id = cast(:workflow_id as bigint))
order by resume_at
limit cast(:size as int)
for update skip locked;

-- name: claim_one
-- Takes one enrollment that has just begun.
select
    enrollment_id, contact_id, workflow_id, version, step_path, visit, context, entered_at,
    status = 'waiting' as resumed
from enrollments
where enrollment_id = cast(:enrollment_id as bigint)
    and contact_id = cast(:contact_id as bigint)
    and status = 'running'
for update;

-- name: count_due
-- How many enrollments would move now, by workflow, version and step.
select workflow_id, version, step_path, count(*) as enrollment_count
from enrollments
where status in ('running', 'waiting')
    and resume_at <= cast(:now as timestamptz)
    and (cast(:workflow_id as bigint) is null or workflow_id = cast(:workflow_id as bigint))
group by workflow_id, version, step_path
order by workflow_id, version, step_path;

-- name: next_due
-- When the next enrollment has to move; null when none waits.
select min(resume_at)
from enrollments
where status in ('running', 'waiting');

-- name: write_logs
-- Logs visits of steps, each (enrollment, step, visit) once.
insert into workflow_logs (
    workflow_id, enrollment_id, contact_id, step_path, step_index, visit, status, result,
    created_at)
select
    logged.workflow_id, logged.enrollment_id, logged.contact_id, logged.step_path,
    logged.step_index, logged.visit, logged.status, logged.result, cast(:now as timestamptz)
from jsonb_to_recordset(cast(:logs as jsonb)) as logged (
    workflow_id bigint, enrollment_id bigint, contact_id bigint, step_path text, step_index int,
    visit int, status text, result jsonb)
on conflict (enrollment_id, step_path, visit) do nothing;

-- name: move
-- Puts enrollments where they stand now; who has reached the end is told to webhooks.
with moved as (
    update enrollments
    set status = stands.status, step_path = stands.step_path, resume_at = stands.resume_at,
        exit_reason = stands.exit_reason,
        finished_at = case
            when stands.status in ('completed', 'exited', 'failed') then cast(:now as timestamptz)
        end
    from jsonb_to_recordset(cast(:stands as jsonb)) as stands (
        contact_id bigint, enrollment_id bigint, status text, step_path text, resume_at timestamptz,
        exit_reason text)
    where enrollments.contact_id = stands.contact_id
        and enrollments.enrollment_id = stands.enrollment_id
    returning enrollments.enrollment_id, enrollments.workflow_id, enrollments.contact_id,
        enrollments.status
)

insert into outbox (event_name, occurred_at, data)
select 'workflow.' || moved.status, cast(:now as timestamptz), jsonb_build_object(
    'workflow_id', cast(moved.workflow_id as text),
    'enrollment_id', cast(moved.enrollment_id as text),
    'contact_id', cast(moved.contact_id as text))
from moved
where moved.status in ('completed', 'failed');

-- name: contact_facts
-- What a condition may ask about contacts.
select
    contacts.contact_id, contacts.email, contacts.first_name, contacts.last_name,
    contacts.phone, contacts.country, contacts.language, contacts.timezone, contacts.currency,
    contacts.custom_fields, contacts.subscribed, contacts.consent_status,
    contacts.consent_source, contacts.source,
    contact_scores.total_score as score,
    array(
        select tags.name
        from contact_tags
        inner join tags on tags.tag_id = contact_tags.tag_id
        where contact_tags.contact_id = contacts.contact_id
    ) as tags
from contacts
left join contact_scores on contact_scores.contact_id = contacts.contact_id
where contacts.contact_id = any(cast(:contact_ids as bigint[]));

-- name: mail_facts
-- Where mail to contacts would go, and why it may not.
select
    contact_id, email,
    case
        when refusal is not null then refusal
        when cast(:require_consent as boolean) and consent_status <> 'granted' then 'no_consent'
    end as refusal
from contact_mailability
where contact_id = any(cast(:contact_ids as bigint[]));

-- name: messages_of
-- The messages behind dedupe keys.
select dedupe_key, message_id
from message_keys
where dedupe_key = any(cast(:dedupe_keys as text[]));

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
    versions.version, versions.created_at as since
from template_versions as versions
inner join templates on templates.template_id = versions.template_id
where versions.template_id = cast(:template_id as bigint)
order by versions.version;
