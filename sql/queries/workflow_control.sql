-- Workflows over HTTP: their lists, and ending what a deleted one leaves behind.

-- name: versions
-- The versions of a workflow before a number, newest first, each with how many enrollments on it have not ended.
with chosen as (
    select version, trigger_type, trigger_config, steps, created_by, created_at
    from workflow_versions
    where workflow_id = cast(:workflow_id as bigint)
        and (cast(:before as int) is null or version < cast(:before as int))
    order by version desc
    limit cast(:limit as int) offset cast(:skip as int)
),

going as (
    select version, count(*) as enrollment_count
    from enrollments
    where workflow_id = cast(:workflow_id as bigint)
        and finished_at is null
        and version >= (select min(version) from chosen)
        and version <= (select max(version) from chosen)
    group by version
)

select chosen.*, coalesce(going.enrollment_count, 0) as active_enrollments
from chosen
left join going on going.version = chosen.version
order by chosen.version desc;

-- name: resume
-- Lets a paused enrollment go on: one that waits looks at once whether that has happened meanwhile.
update enrollments
set status = held.status,
    until_at = case
        when held.status = 'waiting' then coalesce(until_at, resume_at) else until_at
    end,
    resume_at = case
        when held.status = 'running' then coalesce(resume_at, cast(:now as timestamptz))
        when resume_at is not null then least(resume_at, cast(:now as timestamptz))
    end,
    paused_from = null
from (
    select
        enrollment_id as held_id,
        -- One put on hold without a word stands at a step it has not taken, unless it waits.
        coalesce(paused_from, case
            when resume_at is null and waiting_for is null then 'running' else 'waiting'
        end) as status
    from enrollments
    where contact_id = cast(:contact_id as bigint)
        and enrollment_id = cast(:enrollment_id as bigint)
) as held
where enrollments.contact_id = cast(:contact_id as bigint)
    and enrollments.enrollment_id = held.held_id
    and enrollments.status = 'paused';

-- name: end_enrollments
-- Ends every enrollment of a workflow that has not ended; one that is being moved is waited for.
update enrollments
set status = 'exited', exit_reason = cast(:reason as text), resume_at = null, waiting_for = null,
    paused_from = null, finished_at = cast(:now as timestamptz)
where workflow_id = cast(:workflow_id as bigint)
    and finished_at is null;

-- name: remove_logs
-- Removes so many logs of a workflow, the oldest first.
delete from workflow_logs
where log_id in (
    select log_id
    from workflow_logs
    where workflow_id = cast(:workflow_id as bigint)
    order by log_id
    limit cast(:size as int)
);

-- name: left_behind
-- The workflows that have logs, and are gone; goes from one workflow to the next by the index.
with recursive logged as (
    (select workflow_id from workflow_logs order by workflow_id limit 1)
    union all
    select (
        select workflow_logs.workflow_id
        from workflow_logs
        where workflow_logs.workflow_id > logged.workflow_id
        order by workflow_logs.workflow_id
        limit 1
    )
    from logged
    where logged.workflow_id is not null
)

select workflow_id
from logged
where workflow_id is not null
    and not exists (select 1 from workflows where workflows.workflow_id = logged.workflow_id);

-- name: wake
-- Wakes whoever moves enrollments, once this transaction is committed.
select pg_notify('mauto_events', 'enrollments');
