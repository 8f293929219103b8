-- name: cohorts
-- The newest sign-up cohorts of a granularity with who was active in each of their first periods, oldest first.
with newest as (
    select distinct cohort_start
    from analytics.contact_cohorts
    where granularity = cast(:granularity as text)
    order by cohort_start desc
    limit cast(:cohorts as int)
)
select
    cells.cohort_start, cells.cohort_label, cells.cohort_size, cells.period_offset,
    cells.active_count, cells.retention_rate
from analytics.contact_cohorts as cells
inner join newest on newest.cohort_start = cells.cohort_start
where cells.granularity = cast(:granularity as text)
    and cells.period_offset < cast(:offsets as int)
order by cells.cohort_start, cells.period_offset;

-- name: waiting_messages
-- How many messages are due and waiting to be handed over.
select count(*) as message_count
from messages
where status = 'queued' and due_at <= cast(:now as timestamptz);

-- name: list_size
-- How many contacts there are, and how many of them are subscribed.
select count(*) as total, count(*) filter (where subscribed) as subscribed
from contacts;

-- name: counted_now
-- What became of the mails of each campaign, counted now.
-- include: analytics_api.live_figures

-- name: recounted
-- The same as last recounted.
-- include: analytics_api.recounted_figures

-- name: campaigns
-- All campaigns with what became of their mails, as last recounted, the newest first.
with figures as (
    -- include: recounted
)
select figures.*, coalesce(campaigns.sent_at, campaigns.started_at) as moved_at
from figures
inner join campaigns on campaigns.campaign_id = figures.campaign_id
order by
    coalesce(campaigns.sent_at, campaigns.started_at) desc nulls last, campaigns.campaign_id desc;

-- name: live_campaigns
-- The same, counted now.
-- include: campaigns with recounted = counted_now

-- name: campaign
-- One campaign: what it is, without its figures.
select
    campaign_id, name as campaign_name, subject, status, status_reason, scheduled_at, started_at,
    sent_at
from campaigns
where campaign_id = cast(:campaign_id as bigint);

-- name: message_states
-- The messages of a campaign by state, and by reason where a state has one.
select
    status, coalesce(reason, '') as reason, count(*) as messages,
    analytics.percent(count(*), cast(sum(count(*)) over () as bigint)) as share
from messages
where campaign_id = cast(:campaign_id as bigint) and kind = 'campaign'
group by status, coalesce(reason, '')
order by messages desc, status, reason;

-- name: campaign_hits
-- Opens and clicks of a campaign's mails, each with the newest verdict on it.
select
    hits.kind, hits.message_id, hits.occurred_at, hits.url,
    coalesce(judged.verdict = 'human', false) as is_human
from messages
inner join hits on hits.message_id = messages.message_id
left join lateral (
    select verdict
    from hit_verdicts
    where hit_verdicts.hit_id = hits.hit_id
    order by rule_version desc
    limit 1
) as judged on true
where messages.campaign_id = cast(:campaign_id as bigint)
    and messages.kind = 'campaign'
    and hits.kind in ('open', 'click')

-- name: campaign_links
-- The links of a campaign that were clicked, the most clicked by people first.
with touches as (
    -- include: campaign_hits
)
select
    coalesce(url, '') as url,
    count(*) as raw_clicks,
    count(*) filter (where is_human) as human_clicks,
    count(distinct message_id) filter (where is_human) as unique_clicks,
    analytics.percent(
        count(*) filter (where is_human),
        cast(sum(count(*) filter (where is_human)) over () as bigint)
    ) as click_share
from touches
where kind = 'click'
group by coalesce(url, '')
order by human_clicks desc, raw_clicks desc, url
limit cast(:limit as int);

-- name: campaign_hours
-- Opens or clicks of a campaign by people, by weekday (1 is Monday) and hour, UTC; hours without one are left out.
with touches as (
    -- include: campaign_hits
)
select
    extract(isodow from occurred_at at time zone 'UTC')::int as weekday,
    extract(hour from occurred_at at time zone 'UTC')::int as hour,
    count(*) as hits
from touches
where kind = cast(:kind as text) and is_human
group by 1, 2;

-- name: campaign_domains
-- The largest mail domains of a campaign's recipients; those of erased people are one without a name.
with touched as (
    -- include: campaign_hits
),
opened as (
    select distinct message_id
    from touched
    where is_human
),
counted as (
    select
        coalesce(split_part(contacts.email_key, '@', 2), 'erased') as domain,
        count(*) filter (
            where messages.sent_at is not null or messages.status in ('bounced', 'unknown')
                or (messages.status = 'failed' and messages.last_code between 500 and 599)
        ) as attempted,
        count(*) filter (where messages.sent_at is not null) as sent,
        count(*) filter (
            where messages.sent_at is not null and messages.status <> 'bounced'
        ) as delivered,
        count(*) filter (where messages.status = 'bounced') as bounced,
        count(opened.message_id) as unique_opens
    from messages
    left join contacts on contacts.contact_id = messages.contact_id
    left join opened on opened.message_id = messages.message_id
    where messages.campaign_id = cast(:campaign_id as bigint)
        and messages.kind = 'campaign'
        and messages.status <> 'skipped'
    group by 1
)
select
    domain, sent, delivered, bounced, analytics.percent(bounced, attempted) as bounce_rate,
    analytics.percent(unique_opens, delivered) as open_rate
from counted
order by sent desc, domain
limit cast(:limit as int);

-- name: score_day
-- The newest day with scores.
select max(as_of) as score_day from analytics.score_distribution;

-- name: grades
-- The contacts of a day by grade, best first.
select
    grades.grade,
    coalesce(sum(scores.contacts), 0)::bigint as contacts,
    analytics.percent(
        coalesce(sum(scores.contacts), 0)::bigint,
        cast(sum(coalesce(sum(scores.contacts), 0)) over () as bigint)
    ) as share
from unnest(array['A+', 'A', 'B+', 'B', 'C', 'D', 'F']) with ordinality as grades (grade, place)
left join analytics.score_distribution as scores
    on scores.grade = grades.grade and scores.as_of = cast(:day as date)
group by grades.grade, grades.place
order by grades.place;

-- name: score_buckets
-- The contacts of a day by buckets of ten points; the last one is open.
select
    case when buckets.start < 100 then buckets.start || '–' || buckets.start + 10 else '100+' end
        as bucket,
    coalesce(sum(scores.contacts), 0)::bigint as contacts
from generate_series(0, 100, 10) as buckets (start)
left join analytics.score_distribution as scores
    on scores.bucket_from = buckets.start and scores.as_of = cast(:day as date)
group by buckets.start
order by buckets.start;

-- name: stages
-- The stages of a day, in their order.
select
    stage, contacts, contact_share, entered, departed, median_days_in_stage, avg_score
from analytics.lifecycle_funnel
where as_of = cast(:day as date)
order by stage_order;

-- name: stage_days
-- How many contacts were in each stage, by day.
select as_of, stage, contacts
from analytics.lifecycle_funnel
where as_of > cast(:day as date) - cast(:days as int) and as_of <= cast(:day as date)
order by as_of, stage_order;

-- name: workflows
-- The newest workflows with their enrollments by state.
select
    workflows.workflow_id, workflows.name as workflow_name, workflows.trigger_type,
    case when workflows.active then 'active' else 'off' end as status,
    coalesce(counted.enrolled, 0) as enrolled, coalesce(counted.going, 0) as going,
    coalesce(counted.completed, 0) as completed, coalesce(counted.exited, 0) as exited,
    coalesce(counted.failed, 0) as failed,
    analytics.percent(counted.completed, counted.enrolled) as completion_rate
from workflows
left join (
    select
        workflow_id, count(*) as enrolled,
        count(*) filter (where finished_at is null) as going,
        count(*) filter (where status = 'completed') as completed,
        count(*) filter (where status = 'exited') as exited,
        count(*) filter (where status = 'failed') as failed
    from enrollments
    group by workflow_id
) as counted on counted.workflow_id = workflows.workflow_id
order by workflows.workflow_id desc
limit cast(:limit as int);

-- name: workflow
-- One workflow at one of its versions.
select
    workflows.workflow_id, workflows.name as workflow_name, workflows.active,
    workflows.trigger_type, versions.version, versions.steps,
    (
        select count(*) from enrollments
        where enrollments.workflow_id = workflows.workflow_id
            and enrollments.version = versions.version
    ) as enrolled
from workflows
inner join workflow_versions as versions
    on versions.workflow_id = workflows.workflow_id
    and versions.version = cast(:version as int)
where workflows.workflow_id = cast(:workflow_id as bigint);

-- name: workflow_versions
-- The newest versions of a workflow.
select version
from workflow_versions
where workflow_id = cast(:workflow_id as bigint)
order by version desc
limit cast(:limit as int);

-- name: workflow_steps
-- The enrollments of one version by step: what became of their visits, who stands at it now, who left at it.
with people as materialized (
    select enrollment_id, step_path, status
    from enrollments
    where workflow_id = cast(:workflow_id as bigint) and version = cast(:version as int)
),
visits as (
    select
        logs.step_path, logs.enrollment_id,
        count(*) filter (where logs.status = 'completed') as completed,
        count(*) filter (where logs.status = 'failed') as failed,
        count(*) filter (where logs.status = 'skipped') as skipped
    from workflow_logs as logs
    inner join people on people.enrollment_id = logs.enrollment_id
    where logs.workflow_id = cast(:workflow_id as bigint)
    group by logs.step_path, logs.enrollment_id
),
places as (
    select
        step_path, enrollment_id, status in ('running', 'waiting', 'paused') as is_here,
        status = 'exited' as is_exit
    from people
    where status in ('running', 'waiting', 'paused', 'exited')
)
select
    step_path, count(*) as reached,
    coalesce(sum(visits.completed), 0)::bigint as completed,
    coalesce(sum(visits.failed), 0)::bigint as failed,
    coalesce(sum(visits.skipped), 0)::bigint as skipped,
    count(*) filter (where places.is_here) as waiting,
    count(*) filter (where places.is_exit) as exited
from visits
full join places using (step_path, enrollment_id)
group by step_path;
