-- Automation rules: which of them events trigger, their runs, and those that wait.

-- name: match
-- The rules that events of a batch trigger, and whether their conditions hold; a pair that was looked at before is
-- passed over. Deeper events trigger nothing: they end a chain of rules and workflows. Those that surely do not hold are
-- logged here.
with awake as materialized (
    select
        rule_id, priority, trigger_type, trigger_config, conditions,
        coalesce(cast(:synonyms as jsonb) ->> trigger_type, trigger_type) as event_type,
        exists (
            select 1
            from jsonb_array_elements(conditions) as condition
            where condition.value ->> 'field' = any(cast(:contact_fields as text[]))
                or starts_with(condition.value ->> 'field', 'custom_fields.')
        ) as asks_contact
    from automation_rules
    where active
),

happened as materialized (
    select
        events.event_id, events.contact_id, events.occurred_at, events.event_type, batch.depth,
        automation_data(events.properties, events.campaign_id, events.message_id) as data
    from unnest(
        cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]), cast(:depths as int[])
    ) as batch (event_id, occurred_at, depth)
    inner join events
        on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
    where batch.depth < cast(:most_links as int)
        and events.event_type = any(array(select awake.event_type from awake))
),

held as materialized (
    select
        happened.*, awake.rule_id, awake.priority, awake.trigger_type, awake.asks_contact,
        awake.conditions = '[]'
        or automation_conditions_hold(awake.conditions, happened.data, happened.contact_id)
            as passes
    from happened
    inner join awake on awake.event_type = happened.event_type
    where (
        awake.trigger_config = '{}'
        or automation_trigger_matches(awake.trigger_config, happened.data)
    )
        and not exists (
            select 1
            from automation_logs
            where automation_logs.rule_id = awake.rule_id
                and automation_logs.event_id = happened.event_id
        )
),

-- What the contact has no say in is settled: no other rule can change it.
settled as (
    insert into automation_logs (
        rule_id, contact_id, event_id, trigger_type, status, error, created_at)
    select
        rule_id, contact_id, event_id, trigger_type, 'skipped', cast(:reason as text),
        cast(:now as timestamptz)
    from held
    where not passes and not asks_contact
)

select
    rule_id, event_id, contact_id, occurred_at, depth, priority, passes,
    case when passes then data end as data
from held
where passes or asks_contact
order by occurred_at, event_id, priority desc, rule_id;

-- name: match_fired
-- The rules that something fired by hand triggers, and whether their conditions hold.
select
    rule_id, priority,
    automation_conditions_hold(conditions, cast(:data as jsonb), cast(:contact_id as bigint))
        as passes
from automation_rules
where active
    and coalesce(cast(:synonyms as jsonb) ->> trigger_type, trigger_type)
        = cast(:trigger_type as text)
    and automation_trigger_matches(trigger_config, cast(:data as jsonb))
order by priority desc, rule_id;

-- name: look_again
-- Whether the conditions of a rule hold now, for contacts that another rule has just changed.
select
    given.ordinal, given.data,
    automation_conditions_hold(automation_rules.conditions, given.data, given.contact_id) as passes
from (
    select
        wanted.ordinal, wanted.contact_id,
        coalesce(
            cast(:data as jsonb),
            automation_data(events.properties, events.campaign_id, events.message_id), '{}') as data
    from unnest(
        cast(:contact_ids as bigint[]), cast(:event_ids as bigint[]),
        cast(:occurred_ats as timestamptz[])
    ) with ordinality as wanted (contact_id, event_id, occurred_at, ordinal)
    left join events
        on events.event_id = wanted.event_id and events.occurred_at = wanted.occurred_at
) as given
inner join automation_rules on automation_rules.rule_id = cast(:rule_id as bigint)
order by given.ordinal;

-- name: hold_totals
-- How often rules have run; nobody else runs them before the transaction ends.
select rule_id, executions
from automation_totals
where rule_id = any(cast(:rule_ids as bigint[]))
order by rule_id
for update;

-- name: cooling_down
-- Contacts that a rule ran for after a moment.
select distinct contact_id
from automation_logs
where rule_id = cast(:rule_id as bigint)
    and contact_id = any(cast(:contact_ids as bigint[]))
    and status <> 'skipped'
    and created_at > cast(:since as timestamptz);

-- name: number_runs
-- Numbers for runs that are about to begin.
select nextval('automation_logs_log_id_seq') from generate_series(1, cast(:size as int));

-- name: write_runs
-- Logs runs, and counts them for the limits of their rules.
with given as materialized (
    select *
    from jsonb_to_recordset(cast(:runs as jsonb)) as run (
        log_id bigint, rule_id bigint, contact_id bigint, event_id bigint, status text, error text,
        duration_ms int, actions jsonb)
),

counted as materialized (
    select totals.rule_id, totals.executions
    from automation_totals as totals
    where totals.rule_id in (select given.rule_id from given)
    order by totals.rule_id
    for update
),

raised as (
    update automation_totals
    set executions = automation_totals.executions + runs.run_count
    from (
        select counted.rule_id, count(*) as run_count
        from counted
        inner join given on given.rule_id = counted.rule_id
        group by counted.rule_id
    ) as runs
    where automation_totals.rule_id = runs.rule_id
)

insert into automation_logs (
    log_id, rule_id, contact_id, event_id, trigger_type, status, error, duration_ms, actions,
    created_at)
overriding system value
select
    given.log_id, given.rule_id, given.contact_id, given.event_id, automation_rules.trigger_type,
    given.status, given.error, given.duration_ms, given.actions, cast(:now as timestamptz)
from given
inner join automation_rules on automation_rules.rule_id = given.rule_id
order by given.log_id;

-- name: write_skipped
-- Logs why rules that were triggered did not run.
insert into automation_logs (
    rule_id, contact_id, event_id, trigger_type, status, error, created_at)
select
    given.rule_id, given.contact_id, given.event_id, automation_rules.trigger_type, 'skipped',
    given.reason, cast(:now as timestamptz)
from unnest(
    cast(:rule_ids as bigint[]), cast(:contact_ids as bigint[]), cast(:event_ids as bigint[]),
    cast(:reasons as text[])
) with ordinality as given (rule_id, contact_id, event_id, reason, ordinal)
inner join automation_rules on automation_rules.rule_id = given.rule_id
order by given.ordinal;

-- name: claim_due
-- Takes runs whose wait is over; others that take some at the same time are passed by.
select
    automation_waits.*, automation_logs.error
from automation_waits
inner join automation_logs on automation_logs.log_id = automation_waits.log_id
where automation_waits.resume_at <= cast(:now as timestamptz)
order by automation_waits.resume_at, automation_waits.log_id
limit cast(:size as int)
for update of automation_waits skip locked;

-- name: go_on
-- Writes what runs did after their wait, and lets them wait on or end.
with given as materialized (
    select *
    from jsonb_to_recordset(cast(:runs as jsonb)) as run (
        log_id bigint, status text, error text, duration_ms int, actions jsonb, next_action int,
        resume_at timestamptz)
),

ended as (
    delete from automation_waits
    using given
    where automation_waits.log_id = given.log_id and given.resume_at is null
),

put_down as (
    update automation_waits
    set resume_at = given.resume_at, next_action = given.next_action
    from given
    where automation_waits.log_id = given.log_id and given.resume_at is not null
)

update automation_logs
set status = given.status, error = coalesce(automation_logs.error, given.error),
    duration_ms = automation_logs.duration_ms + given.duration_ms,
    actions = automation_logs.actions || given.actions
from given
where automation_logs.log_id = given.log_id;

-- name: next_due
-- When the next run has to go on; null when none waits.
select min(resume_at) from automation_waits;

-- name: stats
-- How often a rule was triggered, by what became of it.
select status, count(*) as log_count
from automation_logs
where rule_id = cast(:rule_id as bigint)
group by status;

-- name: mail_groups
-- Who of some runs may be mailed which version of a template - that of when they began, or the first one - and why
-- others may not.
with versions as materialized (
    -- include: workflows.template_spans
),

facts as materialized (
    select
        runs.run_id, runs.contact_id, runs.begun_at, person.contact_id is not null as exists,
        case
            when person.refusal is not null then person.refusal
            when cast(:require_consent as boolean) and person.consent_status <> 'granted'
                then 'no_consent'
        end as refusal
    from unnest(
        cast(:run_ids as bigint[]), cast(:contact_ids as bigint[]),
        cast(:begun_ats as timestamptz[])
    ) as runs (run_id, contact_id, begun_at)
    left join contact_mailability as person on person.contact_id = runs.contact_id
)

select
    facts.exists, facts.refusal, versions.version,
    array_agg(facts.run_id order by facts.run_id) as enrollment_ids,
    array_agg(facts.contact_id order by facts.run_id) as contact_ids
from facts
left join versions on facts.begun_at >= versions.since and facts.begun_at < versions.until
group by facts.exists, facts.refusal, versions.version
order by versions.version, facts.exists, facts.refusal;

-- name: mail_results
-- What the logs say of mails queued, in the order of their keys.
select cast(json_build_object(
    'to', contacts.email, 'message_id', cast(message_keys.message_id as text)) as text) as result
from unnest(cast(:dedupe_keys as text[])) with ordinality as wanted (dedupe_key, ordinal)
inner join message_keys on message_keys.dedupe_key = wanted.dedupe_key
inner join contacts on contacts.contact_id = message_keys.contact_id
order by wanted.ordinal;
