-- Which database this is, and whether mail may leave it.

-- name: is_open
-- Whether messages may be claimed; switching off waits for the transactions that asked.
select sending_enabled from installation for share;

-- name: read
-- The installation, with what its database and its attempts say now.
select
    cast(installation_id as text) as installation_id, epoch, sending_enabled, reason, restored_at,
    is_reviewed, changed_at, changed_by, database_key, database_key() as key_now,
    coalesce(pg_sequence_last_value('attempt_ids'), 0) as last_attempt
from installation;

-- name: lock
-- Takes the row for a change.
select epoch, restored_at from installation for update;

-- name: note_database
-- Remembers where the installation lives.
update installation set database_key = database_key() where database_key is null;

-- name: switch_off
-- From the commit on nothing is claimed.
update installation
set sending_enabled = false, reason = cast(:reason as text), changed_by = cast(:by as text),
    changed_at = cast(:now as timestamptz);

-- name: new_epoch
-- The database went back in time: sending is off, and what was meant before is not believed.
update installation
set sending_enabled = false, reason = cast(:reason as text), epoch = epoch + 1,
    database_key = database_key(), restored_at = cast(:now as timestamptz), is_reviewed = false,
    changed_by = cast(:by as text), changed_at = cast(:now as timestamptz);

-- name: switch_on
-- Lets mail go.
update installation
set sending_enabled = true, reason = '', database_key = database_key(), is_reviewed = true,
    changed_by = cast(:by as text), changed_at = cast(:now as timestamptz);

-- name: advance_sequences
-- After a restore no id is given out again that somebody outside may know from the time that was lost.
select count(setval(
    cast(format('%I.%I', schemaname, sequencename) as regclass),
    least(coalesce(last_value, 0) + cast(:gap as bigint), max_value)
)) as advanced
from pg_sequences
where schemaname = 'public' and data_type = cast('bigint' as regtype);

-- name: not_surfaced
-- After a restore: what was due before it and is not in the queue yet, so nobody can say whether it went out.
select what, item_count
from (
    select 'campaigns that are due and not planned' as what, count(*) as item_count
    from campaigns
    where (status = 'scheduled' and coalesce(plan_at, scheduled_at) <= cast(:now as timestamptz))
        or (status = 'sending' and planned_at is null)
    union all
    select 'enrollments that are due', count(*)
    from enrollments
    where status in ('running', 'waiting') and resume_at <= cast(:now as timestamptz)
    union all
    select 'rules whose wait is over', count(*)
    from automation_waits
    where resume_at <= cast(:now as timestamptz)
    union all
    select 'events without effect', coalesce(sum(event_count), 0)
    from event_pending
    where occurred_at <= cast(:now as timestamptz)
) as waiting
where item_count > 0;

-- name: doubt_queued
-- After a restore: what the queue holds from before it becomes a doubt, as if its sender had not come back.
with waiting as materialized (
    select messages.contact_id, messages.message_id
    from messages
    cross join installation
    left join campaigns on campaigns.campaign_id = messages.campaign_id
    left join enrollments
        on enrollments.contact_id = messages.contact_id
        and enrollments.enrollment_id = messages.enrollment_id
    where messages.status = 'queued'
        and installation.restored_at is not null
        and case
            when messages.kind = 'campaign'
                then coalesce(campaigns.requested_at < installation.restored_at, true)
            when messages.kind = 'workflow'
                then coalesce(enrollments.caused_at < installation.restored_at, true)
            when messages.kind = 'automation' then true
            else messages.queued_at < installation.restored_at
        end
    for update of messages
),
doubted as (
    update messages
    set status = 'unknown', held_for = null, attempt_no = messages.attempt_no + 1,
        attempt_id = cast(:attempt_id as bigint), last_error = cast(:why as text),
        rfc_message_id = coalesce(
            messages.rfc_message_id,
            encode(substr(sha256(cast(:outer_key as bytea) || sha256(
                cast(:inner_key as bytea) || convert_to(messages.dedupe_key, 'utf8')
            )), 1, 16), 'hex') || '@' || cast(:domain as text)
        )
    from waiting
    where messages.contact_id = waiting.contact_id and messages.message_id = waiting.message_id
    returning messages.contact_id, messages.message_id, messages.attempt_no
),
logged as (
    insert into message_attempts (
        contact_id, message_id, attempt_no, attempt_id, claimed_at, outcome, reply
    )
    select
        contact_id, message_id, attempt_no, cast(:attempt_id as bigint),
        cast(:now as timestamptz), 'unknown', cast(:why as text)
    from doubted
)
select count(*) from doubted;

-- name: queue_now
-- What would go at once if sending were on, by kind and campaign.
select
    messages.kind, messages.campaign_id, coalesce(campaigns.name, '') as campaign_name,
    count(*) as message_count, min(messages.queued_at) as oldest
from messages
left join campaigns on campaigns.campaign_id = messages.campaign_id
where messages.status = 'queued'
group by messages.kind, messages.campaign_id, campaigns.name
order by messages.kind, messages.campaign_id;
