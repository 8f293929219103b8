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

-- name: recounted_at
-- When the mails of one campaign, or of all, were last recounted: those longest ago.
select min(refreshed_at) as oldest
from campaign_totals
where cast(:campaign_id as bigint) is null or campaign_id = cast(:campaign_id as bigint);

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

-- name: counted_links
-- Clicks on the links of a campaign, counted now.
select
    coalesce(touches.url, '') as url, count(*) as raw_clicks,
    count(*) filter (where is_human) as human_clicks,
    count(distinct message_id) filter (where is_human) as unique_clicks
from (
    -- include: campaign_hits
) as touches
where kind = 'click'
group by coalesce(touches.url, '')

-- name: rolled_links
-- The same as of the last refresh.
select
    name as url, sum(raw)::bigint as raw_clicks, sum(human)::bigint as human_clicks,
    sum(messages)::bigint as unique_clicks
from rollups.campaign_days
where campaign_id = cast(:campaign_id as bigint) and part = 'link'
group by name

-- name: campaign_links
-- The links of a campaign that were clicked, the most clicked by people first.
select
    url, raw_clicks, human_clicks, unique_clicks,
    analytics.percent(human_clicks, cast(sum(human_clicks) over () as bigint)) as click_share
from (
    -- include: rolled_links
) as counted
order by human_clicks desc, raw_clicks desc, url
limit cast(:limit as int);

-- name: live_campaign_links
-- The same, counted now.
-- include: campaign_links with rolled_links = counted_links

-- name: campaign_hours
-- Opens or clicks of a campaign by people, by weekday (1 is Monday) and hour, UTC; hours without one are left out.
select
    extract(isodow from day)::int as weekday, cast(split_part(name, ':', 1) as int) as hour,
    sum(human)::bigint as hits
from rollups.campaign_days
where campaign_id = cast(:campaign_id as bigint) and part = cast(:kind as text) || 's' and human > 0
group by 1, 2;

-- name: live_campaign_hours
-- The same, counted now.
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

-- name: counted_domains
-- What became of the mails of a campaign by the domain of the address at the hand-over, counted now.
with touched as (
    -- include: campaign_hits
),
opened as (
    select distinct message_id
    from touched
    where is_human
),
addressed as (
    select
        messages.*, opened.message_id is not null as is_opened,
        tries.tried_at is not null as is_attempted,
        case when messages.to_key is null and contacts.contact_id is null then 'erased'
            else split_part(
                coalesce(messages.to_key, earlier.email_key, contacts.email_key), '@', -1)
        end as domain
    from messages
    cross join lateral (
        select attempted_at(status, last_code, sent_at, bounced_at, next_try_at) as tried_at
    ) as tries
    left join contacts on contacts.contact_id = messages.contact_id
    left join contact_history as earlier
        on earlier.contact_id = messages.contact_id
        and earlier.valid_from <= tries.tried_at and earlier.valid_to > tries.tried_at
    left join opened on opened.message_id = messages.message_id
    where messages.campaign_id = cast(:campaign_id as bigint) and messages.kind = 'campaign'
)
select
    domain,
    count(*) filter (where is_attempted) as attempted,
    count(*) filter (where sent_at is not null) as sent,
    count(*) filter (where sent_at is not null and status <> 'bounced') as delivered,
    count(*) filter (where status = 'bounced') as bounced,
    count(*) filter (where is_opened) as unique_opens
from addressed
group by domain

-- name: rolled_domains
-- The same as of the last refresh.
select
    name as domain, sum(attempted)::bigint as attempted, sum(sent)::bigint as sent,
    sum(delivered)::bigint as delivered, sum(bounced)::bigint as bounced,
    sum(messages)::bigint as unique_opens
from rollups.campaign_days
where campaign_id = cast(:campaign_id as bigint) and part in ('mails', 'readers')
group by name

-- name: campaign_domains
-- The largest mail domains of the mails of a campaign; those of erased people are one without a name.
select
    domain, sent, delivered, bounced, analytics.percent(bounced, attempted) as bounce_rate,
    analytics.percent(unique_opens, delivered) as open_rate
from (
    -- include: rolled_domains
) as counted
where attempted > 0
order by sent desc, domain
limit cast(:limit as int);

-- name: live_campaign_domains
-- The same, counted now.
-- include: campaign_domains with rolled_domains = counted_domains

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
-- The enrollments of one version by step, as analytics.workflow_funnel counts them for all workflows in seconds.
with people as not materialized (
    select enrollment_id, step_path, status
    from enrollments
    where workflow_id = cast(:workflow_id as bigint) and version = cast(:version as int)
),
visits as (
    -- An enrollment comes to a step once: counting first visits needs no sorting.
    select
        logs.step_path,
        count(*) filter (where logs.visit = 1 and logs.status <> 'skipped') as reached,
        count(*) filter (where logs.status = 'completed') as completed,
        count(*) filter (where logs.status = 'failed') as failed,
        count(*) filter (where logs.status = 'skipped') as skipped
    from workflow_logs as logs
    where logs.workflow_id = cast(:workflow_id as bigint)
        and (
            -- Most workflows have one version: whose logs these are is not asked for then.
            (
                select count(*) = 1 from workflow_versions
                where workflow_id = cast(:workflow_id as bigint)
            )
            or logs.enrollment_id in (select enrollment_id from people)
        )
    group by logs.step_path
),
places as (
    select
        people.step_path, count(*) filter (where logs.log_id is null) as reached,
        count(*) filter (where people.status not in ('exited', 'failed')) as waiting,
        count(*) filter (where people.status = 'exited') as exited
    from people
    left join workflow_logs as logs
        on logs.enrollment_id = people.enrollment_id and logs.step_path = people.step_path
        and logs.visit = 1 and logs.status <> 'skipped'
    where people.status <> 'completed'
    group by people.step_path
)
select
    step_path, coalesce(visits.reached, 0) + coalesce(places.reached, 0) as reached,
    coalesce(visits.completed, 0) as completed, coalesce(visits.failed, 0) as failed,
    coalesce(visits.skipped, 0) as skipped, coalesce(places.waiting, 0) as waiting,
    coalesce(places.exited, 0) as exited
from visits
full join places using (step_path);

-- name: refreshed
-- As of when the oldest of some tables is; null if one of them was never made.
select case
    when count(states.as_of) = count(*) then min(states.as_of)
end as as_of
from unnest(cast(:tables as text[])) as wanted (table_name)
left join rollups.states on states.table_name = wanted.table_name;

-- name: rfm_cells
-- Customers by scores and name: how many, what they brought, their orders, and the days since the last ones.
select
    r_score, f_score, rfm_segment, count(*) as customers, sum(monetary) as revenue,
    sum(frequency)::bigint as orders, sum(recency_days)::bigint as days,
    (select reporting_currency from analytics.rfm_segments limit 1) as reporting_currency,
    (select as_of from analytics.rfm_segments limit 1) as as_of
from analytics.rfm_segments
group by r_score, f_score, rfm_segment;

-- name: customer_cells
-- Customers by what they have brought (the place in steps that end before the next one begins; null: their money is in
-- no figure) and by the number of their orders, of which the last step is open.
select
    case when net_revenue is not null
        then greatest(1, width_bucket(net_revenue, cast(:steps as numeric[])))
    end as place,
    least(orders, 6) as orders, count(*) as customers, coalesce(sum(net_revenue), 0) as revenue,
    coalesce(sum(orders), 0)::bigint as all_orders, count(*) - count(net_revenue) as unconverted
from analytics.customer_value
group by 1, 2
order by 1, 2;

-- name: order_cohorts
-- The newest cohorts of first orders with what each did in its first months, oldest first.
with newest as (
    select distinct cohort_month
    from analytics.order_cohorts
    order by cohort_month desc
    limit cast(:cohorts as int)
)
select
    cells.cohort_month, cells.cohort_customers, cells.month_offset, cells.active_customers,
    cells.retention_rate, cells.cumulative_revenue, cells.is_complete, cells.reporting_currency
from analytics.order_cohorts as cells
inner join newest on newest.cohort_month = cells.cohort_month
where cells.month_offset < cast(:offsets as int)
order by cells.cohort_month, cells.month_offset;

-- name: revenue_months
-- Orders of each of the newest months, and how much of the revenue belongs to the last mail touched before.
with months as (
    select cast(generate_series(
        greatest(cast(:first as date), min(month)), cast(:last as date), interval '1 month'
    ) as date) as month
    from analytics.revenue_by_month
),
sold as (
    select
        month, sum(orders)::bigint as orders,
        sum(orders - case when reporting_currency = analytics.reporting_currency()
            then converted_orders else 0 end)::bigint as left_out,
        sum(net_revenue) filter (where reporting_currency = analytics.reporting_currency())
            as revenue
    from analytics.revenue_by_month
    group by month
),
mailed as (
    select month, sum(revenue) as revenue
    from analytics.campaign_revenue
    where model = 'last_touch' and reporting_currency = analytics.reporting_currency()
    group by month
)
select
    months.month, coalesce(sold.orders, 0) as orders, coalesce(sold.revenue, 0) as revenue,
    coalesce(mailed.revenue, 0) as mail_revenue,
    coalesce(sold.revenue, 0) - coalesce(mailed.revenue, 0) as other_revenue,
    coalesce(sold.left_out, 0) as left_out
from months
left join sold on sold.month = months.month
left join mailed on mailed.month = months.month
order by months.month;

-- name: revenue_currencies
-- Orders since a month by their currency: as they are, and in the reporting currency with the days of its rates.
select
    currency, reporting_currency, sum(orders)::bigint as orders,
    sum(gross) as gross, sum(order_net) as order_net, sum(net_revenue) as net_revenue,
    sum(orders - converted_orders)::bigint as waiting_orders,
    min(first_fx_date) as first_fx_date, max(last_fx_date) as last_fx_date,
    reporting_currency = analytics.reporting_currency() as is_current
from analytics.revenue_by_month
where month between cast(:first as date) and cast(:last as date)
group by currency, reporting_currency
order by is_current desc, net_revenue desc nulls last, currency, reporting_currency;

-- name: revenue_campaigns
-- Campaigns with orders since a month: what each model of attribution gives them.
with given as (
    select
        campaign_id,
        sum(orders) filter (where model = 'last_touch')::bigint as orders,
        sum(revenue) filter (where model = 'last_touch') as last_touch,
        sum(revenue) filter (where model = 'first_touch') as first_touch,
        sum(revenue) filter (where model = 'linear') as linear,
        sum(waiting_orders) filter (where model = 'last_touch')::bigint as waiting_orders
    from analytics.campaign_revenue
    where month between cast(:first as date) and cast(:last as date)
        and reporting_currency = analytics.reporting_currency()
    group by campaign_id
)
select
    given.campaign_id, campaigns.name as campaign_name,
    coalesce(given.orders, 0) as orders, coalesce(given.last_touch, 0) as last_touch,
    coalesce(given.first_touch, 0) as first_touch, coalesce(given.linear, 0) as linear,
    coalesce(given.waiting_orders, 0) as waiting_orders
from given
left join campaigns on campaigns.campaign_id = given.campaign_id
order by last_touch desc, linear desc, given.campaign_id
limit cast(:limit as int);

-- name: reporting_currency
-- The currency amounts are in: that of the newest order; null without one.
select analytics.reporting_currency() as reporting_currency;
