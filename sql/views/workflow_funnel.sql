-- Grain: one row per workflow, version and step. Counted from enrollments and their logs as they are now.
drop view if exists analytics.workflow_funnel cascade;
create view analytics.workflow_funnel as
with people as not materialized (
    select workflow_id, version, enrollment_id, step_path, status, entered_at
    from enrollments
),
totals as (
    select workflow_id, version, count(*) as enrolled
    from people
    group by workflow_id, version
),
facts as (
    select
        people.workflow_id, people.version, logs.step_path, logs.enrollment_id, logs.status as fact,
        date_part('epoch', logs.created_at - lag(logs.created_at, 1, people.entered_at) over (
            partition by people.workflow_id, people.version, logs.enrollment_id order by logs.log_id
        )) / 60 as minutes
    from workflow_logs as logs
    inner join people
        on people.workflow_id = logs.workflow_id and people.enrollment_id = logs.enrollment_id
    union all
    select
        workflow_id, version, step_path, enrollment_id,
        case status when 'exited' then 'exited' when 'failed' then 'stuck' else 'waiting' end, null
    from people
    where status <> 'completed'
),
counted as (
    select
        workflow_id, version, step_path,
        count(distinct enrollment_id) filter (where fact <> 'skipped') as entered,
        count(*) filter (where fact = 'completed') as completed,
        count(*) filter (where fact = 'failed') as failed,
        count(*) filter (where fact = 'skipped') as skipped,
        count(*) filter (where fact = 'waiting') as waiting,
        count(*) filter (where fact = 'exited') as exited,
        percentile_cont(0.5) within group (order by minutes)
            filter (where fact in ('completed', 'failed')) as median_minutes
    from facts
    group by workflow_id, version, step_path
)
select
    versions.workflow_id,
    versions.version,
    steps.step_path,
    steps.step_index,
    steps.step_type,
    coalesce(counted.entered, 0) as entered,
    coalesce(counted.completed, 0) as completed,
    coalesce(counted.failed, 0) as failed,
    coalesce(counted.skipped, 0) as skipped,
    coalesce(counted.waiting, 0) as waiting,
    coalesce(counted.exited, 0) as exited,
    cast(analytics.percent(coalesce(counted.entered, 0), totals.enrolled) as numeric(7, 4))
        as reach_rate,
    cast(
        case when counted.median_minutes is not null
            then greatest(least(counted.median_minutes, 9999999999.99), 0)
        end as numeric(12, 2)
    ) as median_wait_minutes
from workflow_versions as versions
cross join lateral analytics.workflow_steps(versions.steps) as steps
left join totals
    on totals.workflow_id = versions.workflow_id and totals.version = versions.version
left join counted
    on counted.workflow_id = versions.workflow_id and counted.version = versions.version
    and counted.step_path = steps.step_path;

comment on view analytics.workflow_funnel is
    'One row per workflow, version and step, branches included: who came there and what became of them. Counted live.';
comment on column analytics.workflow_funnel.workflow_id is 'The workflow; the API shows the same number as text.';
comment on column analytics.workflow_funnel.version is 'Version of its trigger and steps; whoever entered stays on theirs.';
comment on column analytics.workflow_funnel.step_path is
    'Place of the step: 0 is the first one, 1.then.0 the first of a branch of the second.';
comment on column analytics.workflow_funnel.step_index is 'The top-level step it belongs to, from 0.';
comment on column analytics.workflow_funnel.step_type is 'delay, condition, wait_for_event, goal, exit, ...; of an action its name (send_email).';
comment on column analytics.workflow_funnel.entered is
    'Enrollments that came to the step: completed, failed, waiting or ended there; not those it was skipped for.';
comment on column analytics.workflow_funnel.completed is 'Times the step was done.';
comment on column analytics.workflow_funnel.failed is 'Times it could not be done; the enrollment goes on.';
comment on column analytics.workflow_funnel.skipped is 'Times it was left out because the enrollment had ended before.';
comment on column analytics.workflow_funnel.waiting is 'Enrollments that stand there now, waiting, due or paused.';
comment on column analytics.workflow_funnel.exited is 'Enrollments that left the workflow there before its end.';
comment on column analytics.workflow_funnel.reach_rate is 'entered / all enrollments of the version.';
comment on column analytics.workflow_funnel.median_wait_minutes is
    'Median minutes from coming to the step until it was done or failed; null without such a visit.';
