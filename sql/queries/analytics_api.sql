-- What the API's analytics show. Marketing mail is that of campaigns, workflows and automation rules; times are UTC.
-- Binds: since and now bound a stretch of time, both inclusive, until (infinity: none) ends a part of it, exclusive;
-- campaign_id null means all marketing mail.

-- name: ledger_size
-- About how many mails of campaigns there are, as last recounted.
select coalesce(sum(recipients), 0)::bigint as mail_count
from campaign_totals

-- name: live_figures
-- What became of the mails of each campaign, counted now; without orders, which take most of the view's time.
select
    campaign_id, campaign_name, status, sent_at, attempted, sent, delivered, bounced, complained,
    unsubscribed, raw_opens, human_opens, unique_opens, raw_clicks, human_clicks, unique_clicks
from analytics.campaign_performance

-- name: recounted_figures
-- The same as last recounted; zeros for a campaign that was never planned.
select
    campaigns.campaign_id, campaigns.name as campaign_name, campaigns.status, campaigns.sent_at,
    coalesce(totals.attempted, 0) as attempted,
    coalesce(totals.sent, 0) as sent,
    coalesce(totals.delivered, 0) as delivered,
    coalesce(totals.bounced, 0) as bounced,
    coalesce(totals.complained, 0) as complained,
    coalesce(totals.unsubscribed, 0) as unsubscribed,
    coalesce(totals.raw_opens, 0) as raw_opens,
    coalesce(totals.human_opens, 0) as human_opens,
    coalesce(totals.unique_opens, 0) as unique_opens,
    coalesce(totals.raw_clicks, 0) as raw_clicks,
    coalesce(totals.human_clicks, 0) as human_clicks,
    coalesce(totals.unique_clicks, 0) as unique_clicks
from campaigns
left join campaign_totals as totals on totals.campaign_id = campaigns.campaign_id

-- name: live_campaign
-- What became of the mails of one campaign, counted now.
select *
from (
    -- include: live_figures
) as figures
where campaign_id = cast(:campaign_id as bigint)

-- name: recounted_campaign
-- The same as last recounted.
select *
from (
    -- include: recounted_figures
) as figures
where campaign_id = cast(:campaign_id as bigint)

-- name: live_sums
-- The mails of all campaigns, counted now.
select
    coalesce(sum(attempted), 0)::bigint as attempted,
    coalesce(sum(sent), 0)::bigint as sent,
    coalesce(sum(delivered), 0)::bigint as delivered,
    coalesce(sum(bounced), 0)::bigint as bounced,
    coalesce(sum(unique_opens), 0)::bigint as unique_opens,
    coalesce(sum(unique_clicks), 0)::bigint as unique_clicks
from (
    -- include: live_figures
) as figures

-- name: recounted_sums
-- The mails of all campaigns, as last recounted.
select
    coalesce(sum(attempted), 0)::bigint as attempted,
    coalesce(sum(sent), 0)::bigint as sent,
    coalesce(sum(delivered), 0)::bigint as delivered,
    coalesce(sum(bounced), 0)::bigint as bounced,
    coalesce(sum(unique_opens), 0)::bigint as unique_opens,
    coalesce(sum(unique_clicks), 0)::bigint as unique_clicks
from (
    -- include: recounted_figures
) as figures

-- name: live_sent
-- The figures of all sent campaigns that reached enough people, counted now.
select *
from (
    -- include: live_figures
) as figures
where status = 'sent' and sent >= cast(:min_sent as bigint)

-- name: recounted_sent
-- The same as last recounted.
select *
from (
    -- include: recounted_figures
) as figures
where status = 'sent' and sent >= cast(:min_sent as bigint)

-- name: campaign_sales
-- The orders that belong to one campaign, and what they brought.
select orders, revenue, reporting_currency
from analytics.campaign_performance
where campaign_id = cast(:campaign_id as bigint)

-- name: house
-- Contacts, campaigns and workflows now.
select people.*, mailings.*, flows.*
from (
    select
        count(*) as total_contacts,
        count(*) filter (where is_subscribed) as subscribed_contacts
    from analytics.dim_contacts
) as people
cross join (
    select
        count(*) as total_campaigns,
        count(*) filter (where status = 'sent') as campaigns_sent,
        count(*) filter (where status = 'draft') as campaigns_draft
    from analytics.dim_campaigns
) as mailings
cross join (
    select count(*) as total_workflows, count(*) filter (where active) as active_workflows
    from workflows
) as flows

-- name: campaign_touches
-- Opens and clicks of people of the mails of one campaign, with the time of each mail.
select messages.message_id, messages.sent_at, hits.kind, hits.occurred_at
from messages
inner join hits on hits.message_id = messages.message_id
inner join hit_verdicts as given on given.hit_id = hits.hit_id and given.verdict = 'human'
where messages.campaign_id = cast(:campaign_id as bigint)
    and messages.kind = 'campaign'
    and hits.kind in ('open', 'click')
    and not exists (
        select 1
        from hit_verdicts as later
        where later.hit_id = given.hit_id and later.rule_version > given.rule_version
    )

-- name: engagement_hours
-- Opens and clicks of people of one campaign by the hour of the day in a time zone; 24 rows. Each row has the mean
-- minutes from a mail to the first open or click of its reader, too: null when nobody opened.
with touches as materialized (
    -- include: campaign_touches
),
counted as (
    select
        date_part('hour', occurred_at at time zone cast(:timezone as text))::int as hour,
        count(*) filter (where kind = 'open') as opens,
        count(*) filter (where kind = 'click') as clicks
    from touches
    group by 1
),
first_touches as (
    select min(sent_at) as sent_at, min(occurred_at) as opened_at
    from touches
    where sent_at is not null
    group by message_id
),
waited as (
    select
        avg(greatest(0, extract(epoch from opened_at - sent_at))) / 60 as minutes
    from first_touches
)
select
    hours.hour, coalesce(counted.opens, 0) as opens, coalesce(counted.clicks, 0) as clicks,
    waited.minutes
from generate_series(0, 23) as hours (hour)
left join counted on counted.hour = hours.hour
cross join waited
order by hours.hour

-- name: rolled_engagement_hours
-- The same as of the last refresh.
with counted as (
    select
        date_part(
            'hour',
            (day + cast(name as time)) at time zone 'UTC' at time zone cast(:timezone as text)
        )::int as hour,
        sum(human) filter (where part = 'opens') as opens,
        sum(human) filter (where part = 'clicks') as clicks
    from rollups.campaign_days
    where campaign_id = cast(:campaign_id as bigint) and part in ('opens', 'clicks')
    group by 1
),
waited as (
    select sum(seconds) / nullif(sum(timed), 0) / 60 as minutes
    from rollups.campaign_days
    where campaign_id = cast(:campaign_id as bigint) and part = 'readers'
)
select
    hours.hour, cast(coalesce(counted.opens, 0) as bigint) as opens,
    cast(coalesce(counted.clicks, 0) as bigint) as clicks, waited.minutes
from generate_series(0, 23) as hours (hour)
left join counted on counted.hour = hours.hour
cross join waited
order by hours.hour

-- name: campaign_size
-- How many mails a campaign has as last recounted, when it began, and as of when its days are counted; all may be null.
select totals.recipients, campaigns.started_at, states.as_of
from campaigns
left join campaign_totals as totals on totals.campaign_id = campaigns.campaign_id
left join rollups.states on states.table_name = 'campaign_days'
where campaigns.campaign_id = cast(:campaign_id as bigint)

-- name: marketing_mails
-- The ledger of marketing mail, or of one campaign's.
select messages.*
from messages
where messages.kind in ('campaign', 'workflow', 'automation')
    and (
        cast(:campaign_id as bigint) is null
        or (messages.campaign_id = cast(:campaign_id as bigint) and messages.kind = 'campaign')
    )

-- name: marketing_touches
-- Opens and clicks of marketing mail by people from since until a moment.
select hits.message_id, hits.kind, hits.occurred_at
from hits
inner join messages on messages.message_id = hits.message_id
inner join hit_verdicts as given on given.hit_id = hits.hit_id and given.verdict = 'human'
where hits.occurred_at >= cast(:since as timestamptz)
    and hits.occurred_at < cast(:until as timestamptz)
    and hits.occurred_at <= cast(:now as timestamptz)
    and hits.kind in ('open', 'click')
    and messages.kind in ('campaign', 'workflow', 'automation')
    and (
        cast(:campaign_id as bigint) is null
        or (messages.campaign_id = cast(:campaign_id as bigint) and messages.kind = 'campaign')
    )
    and not exists (
        select 1
        from hit_verdicts as later
        where later.hit_id = given.hit_id and later.rule_version > given.rule_version
    )

-- name: marketing_opt_outs
-- Who unsubscribed from the mails of a campaign, or from another mail, for the first time in a stretch of time.
select events.contact_id, min(events.occurred_at) as occurred_at
from events
left join messages on messages.message_id = events.message_id and events.campaign_id is null
where events.event_type = 'unsubscribed'
    and events.source = 'mauto'
    and case when cast(:campaign_id as bigint) is null
        then events.campaign_id is not null or messages.kind not in ('test', 'internal')
        else events.campaign_id = cast(:campaign_id as bigint)
    end
group by events.contact_id, events.campaign_id, messages.message_id
having min(events.occurred_at) >= cast(:since as timestamptz)
    and min(events.occurred_at) < cast(:until as timestamptz)
    and min(events.occurred_at) <= cast(:now as timestamptz)

-- name: mails_handed_over
-- Marketing mail the receiving side accepted in a stretch of time; the ledger may know of a bounce without its time.
select
    sent_at as occurred_at, status <> 'bounced' as is_delivered,
    status = 'bounced' and bounced_at is null as is_bounced
from (
    -- include: marketing_mails
) as mails
where sent_at >= cast(:since as timestamptz) and sent_at < cast(:until as timestamptz)

-- name: mails_refused
-- Marketing mail that was attempted in a stretch of time and came to nothing, or is in doubt.
select
    coalesce(bounced_at, next_try_at) as occurred_at,
    status = 'bounced' and bounced_at is null as is_bounced
from (
    -- include: marketing_mails
) as mails
where sent_at is null
    and status in ('bounced', 'failed', 'unknown')
    and (status <> 'failed' or last_code between 500 and 599)
    and coalesce(bounced_at, next_try_at) >= cast(:since as timestamptz)
    and coalesce(bounced_at, next_try_at) < cast(:until as timestamptz)

-- name: mails_noticed
-- Bounces and complaints of marketing mail in a stretch of time.
select 'bounced' as fact, bounced_at as occurred_at
from (
    -- include: marketing_mails
) as mails
where status = 'bounced'
    and bounced_at >= cast(:since as timestamptz) and bounced_at < cast(:until as timestamptz)
union all
select 'complained', complained_at
from (
    -- include: marketing_mails
) as mails
where complained_at >= cast(:since as timestamptz) and complained_at < cast(:until as timestamptz)

-- name: mail_series
-- What happened to marketing mail, by type and period (hour, day or ISO week); periods without anything are left out.
with handed_over as (
    select
        date_trunc(cast(:granularity as text), occurred_at, 'UTC') as period_start,
        count(*) as sent,
        count(*) filter (where is_delivered) as delivered,
        count(*) filter (where is_bounced) as bounced
    from (
        -- include: mails_handed_over
    ) as mails
    where occurred_at <= cast(:now as timestamptz)
    group by 1
),
happened as (
    select fact, occurred_at
    from (
        -- include: mails_noticed
    ) as noticed
    union all
    select 'bounced', occurred_at
    from (
        -- include: mails_refused
    ) as refused
    where is_bounced
    union all
    select case touches.kind when 'open' then 'opened' else 'clicked' end, touches.occurred_at
    from (
        -- include: marketing_touches
    ) as touches
    union all
    select 'unsubscribed', opt_outs.occurred_at
    from (
        -- include: marketing_opt_outs
    ) as opt_outs
)
select facts.fact, handed_over.period_start, facts.fact_count
from handed_over
cross join lateral (
    values ('sent', sent), ('delivered', delivered), ('bounced', bounced)
) as facts (fact, fact_count)
where facts.fact_count > 0
union all
select fact, date_trunc(cast(:granularity as text), occurred_at, 'UTC') as period_start, count(*)
from happened
where occurred_at <= cast(:now as timestamptz)
group by fact, period_start
order by fact, period_start

-- name: kept_mails
-- Marketing mail of whole UTC days as analytics.daily_email_metrics has it; people opt out from single mails, too.
select
    day, sent, delivered, bounced, complained, attempted, human_opens as opened,
    human_clicks as clicked, unique_opens, unique_clicks, 0 as unsubscribed
from analytics.daily_email_metrics
where day = any(cast(:days as date[]))
    and kind in ('campaign', 'workflow', 'automation')
    and (cast(:campaign_id as bigint) is null or campaign_id = cast(:campaign_id as bigint))
union all
select day, 0, 0, 0, 0, 0, 0, 0, 0, 0, unsubscribed
from analytics.daily_email_metrics
where day = any(cast(:days as date[]))
    and (cast(:campaign_id as bigint) is null or campaign_id = cast(:campaign_id as bigint))
    and unsubscribed > 0

-- name: kept_series
-- The same by type and period, as mail_series tells it.
select
    facts.fact,
    date_trunc(cast(:granularity as text), cast(kept.day as timestamp)) at time zone 'UTC'
        as period_start,
    cast(sum(facts.fact_count) as bigint) as fact_count
from (
    -- include: kept_mails
) as kept
cross join lateral (
    values
        ('sent', sent), ('delivered', delivered), ('opened', opened), ('clicked', clicked),
        ('bounced', bounced), ('complained', complained), ('unsubscribed', unsubscribed)
) as facts (fact, fact_count)
where facts.fact_count > 0
group by facts.fact, period_start

-- name: kept_period
-- The same in one row, as period_mails tells it.
select
    cast(sum(sent) as bigint) as sent,
    cast(sum(delivered) as bigint) as delivered,
    cast(sum(bounced) as bigint) as bounced,
    cast(sum(attempted) as bigint) as attempted,
    cast(sum(opened) as bigint) as opened,
    cast(sum(clicked) as bigint) as clicked,
    cast(sum(unique_opens) as bigint) as unique_opens,
    cast(sum(unique_clicks) as bigint) as unique_clicks,
    cast(sum(unsubscribed) as bigint) as unsubscribed
from (
    -- include: kept_mails
) as kept

-- name: period_mails
-- What happened to marketing mail in a stretch of time; a message is opened or clicked when a person does so first.
with handed_over as (
    select
        count(*) as sent,
        count(*) filter (where is_delivered) as delivered,
        count(*) filter (where is_bounced) as bounced
    from (
        -- include: mails_handed_over
    ) as mails
),
refused as (
    select count(*) as attempted, count(*) filter (where is_bounced) as bounced
    from (
        -- include: mails_refused
    ) as mails
),
noticed as (
    select count(*) as bounced
    from (
        -- include: mails_noticed
    ) as notices
    where fact = 'bounced'
),
touches as materialized (
    -- include: marketing_touches
),
touched as (
    select message_id, bool_or(kind = 'click') as is_clicked
    from touches
    group by message_id
),
-- Those somebody had opened or clicked before.
known as (
    select hits.message_id, bool_or(hits.kind = 'click') as is_clicked
    from touched
    inner join hits on hits.message_id = touched.message_id
    inner join lateral (
        select given.verdict
        from hit_verdicts as given
        where given.hit_id = hits.hit_id
        order by given.rule_version desc
        limit 1
    ) as newest on newest.verdict = 'human'
    where hits.occurred_at < cast(:since as timestamptz)
        and hits.kind in ('open', 'click')
    group by hits.message_id
),
reactions as (
    select
        (select count(*) from touches where kind = 'open') as opened,
        (select count(*) from touches where kind = 'click') as clicked,
        count(*) filter (where known.message_id is null) as unique_opens,
        count(*) filter (where touched.is_clicked and not coalesce(known.is_clicked, false))
            as unique_clicks
    from touched
    left join known on known.message_id = touched.message_id
),
opt_outs as (
    select count(*) as unsubscribed
    from (
        -- include: marketing_opt_outs
    ) as told
)
select
    handed_over.sent, handed_over.delivered,
    handed_over.bounced + refused.bounced + noticed.bounced as bounced,
    handed_over.sent + refused.attempted as attempted, reactions.*, opt_outs.*
from handed_over
cross join refused
cross join noticed
cross join reactions
cross join opt_outs

-- name: period_people
-- Contacts now, those new since a moment, and how many unsubscribed since then, from whatever.
select people.*, left_us.unsubscribed
from (
    select
        count(*) as total,
        count(*) filter (where is_subscribed) as subscribed,
        count(*) filter (
            where signed_up_at >= cast(:since as timestamptz)
                and signed_up_at <= cast(:now as timestamptz)
        ) as new_in_period
    from analytics.dim_contacts
) as people
cross join (
    select count(distinct contact_id) as unsubscribed
    from events
    where event_type = 'unsubscribed'
        and source = 'mauto'
        and occurred_at >= cast(:since as timestamptz)
        and occurred_at <= cast(:now as timestamptz)
) as left_us

-- name: period_campaigns
-- How many campaigns were sent, ever and since a moment, and how many were created since then.
select
    count(*) filter (where status = 'sent') as total_sent,
    count(*) filter (where status = 'sent' and sent_at >= cast(:since as timestamptz)
        and sent_at <= cast(:now as timestamptz)) as sent_in_period,
    count(*) filter (where created_at >= cast(:since as timestamptz)
        and created_at <= cast(:now as timestamptz)) as created_in_period
from analytics.dim_campaigns

-- name: cohort_cells
-- The newest sign-up cohorts of a granularity, each with all its offsets; a cell that is not over is null.
with newest as (
    select distinct cohort_start, cohort_label, cohort_size
    from analytics.contact_cohorts
    where granularity = cast(:granularity as text)
        and cohort_start >= (
            date_trunc(cast(:granularity as text), cast(:now as timestamptz), 'UTC')
            - (cast(:periods as int) - 1)
                * cast('1 ' || cast(:granularity as text) as interval)
        )::date
)
select
    newest.cohort_start, newest.cohort_label, newest.cohort_size, offsets.period_offset,
    cells.active_count
from newest
cross join generate_series(0, cast(:periods as int) - 1) as offsets (period_offset)
left join analytics.contact_cohorts as cells
    on cells.granularity = cast(:granularity as text)
    and cells.cohort_start = newest.cohort_start
    and cells.period_offset = offsets.period_offset
order by newest.cohort_start, offsets.period_offset

-- name: relations
-- What there is to read in schema analytics: name, comment, key, and columns with their types.
select
    relations.relname as view,
    relations.relkind <> 'v' or 'refreshed_at' = any(columns.names) as is_stored,
    coalesce(obj_description(relations.oid, 'pg_class'), '') as description,
    keys.key_columns,
    columns.names,
    columns.types
from pg_class as relations
inner join pg_namespace as schemas on schemas.oid = relations.relnamespace
cross join lateral (
    select
        array_agg(cast(attname as text) order by attnum) as names,
        array_agg(format_type(atttypid, atttypmod) order by attnum) as types
    from pg_attribute
    where attrelid = relations.oid and attnum > 0 and not attisdropped
) as columns
left join lateral (
    select array_agg(cast(pg_attribute.attname as text) order by parts.place) as key_columns
    from pg_index
    cross join lateral unnest(pg_index.indkey) with ordinality as parts (attnum, place)
    inner join pg_attribute
        on pg_attribute.attrelid = pg_index.indrelid and pg_attribute.attnum = parts.attnum
    where pg_index.indexrelid = (
        select indexrelid
        from pg_index as candidates
        where candidates.indrelid = relations.oid and candidates.indisunique
            and candidates.indpred is null and candidates.indexprs is null
        order by candidates.indisprimary desc, candidates.indexrelid
        limit 1
    )
) as keys on true
where schemas.nspname = 'analytics'
    and relations.relkind in ('r', 'p', 'v', 'm')
    and not relations.relispartition
    and columns.names is not null
    and (cast(:view as text) is null or relations.relname = cast(:view as text))
order by relations.relname
