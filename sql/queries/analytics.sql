-- Analyst tables are restated, never patched. Binds of the cohorts: as_of; from_day and to_day (null: no limit) name
-- the sign-up days whose cohorts are restated; periods is how many offsets a cohort has, day_cohorts for how
-- many days back there are cohorts by day.

-- name: clear_cohorts
-- Takes out the cohorts that are about to be restated, and day cohorts that are no longer kept.
delete from analytics.contact_cohorts
where (
        cohort_start <= coalesce(cast(:to_day as date), 'infinity')
        and cohort_start + case granularity
            when 'day' then interval '1 day'
            when 'week' then interval '7 days'
            else interval '1 month'
        end > coalesce(cast(:from_day as date), '-infinity')
    )
    or (
        granularity = 'day'
        and cohort_start
            < cast(:as_of as timestamptz) - make_interval(days => cast(:day_cohorts as int))
    )

-- name: grains
-- How long a cohort takes to sign up, how long its own periods are, and how far back there are cohorts.
select granularity, period_days, cohort_length, oldest
from (
    values
        ('day', 1, interval '1 day', cast(:as_of as timestamptz)
            - make_interval(days => cast(:day_cohorts as int))),
        ('week', 7, interval '7 days', '-infinity'),
        ('month', 30, interval '1 month', '-infinity')
) as given (granularity, period_days, cohort_length, oldest)

-- name: cohort_sizes
-- Contacts by sign-up period (UTC), for each granularity.
with grains as (
    -- include: grains
),
signup_days as (
    select
        signup_day::timestamp at time zone 'UTC' as signup_day, contact_count, subscribed_count
    from (
        select
            date '1970-01-01' + floor(date_part('epoch', created_at) / 86400)::int as signup_day,
            count(*) as contact_count,
            count(*) filter (where subscribed) as subscribed_count
        from contacts
        where created_at < cast(:as_of as timestamptz)
        group by 1
    ) as living
    union all
    -- Erased people stay counted.
    select signup_day::timestamp at time zone 'UTC', contact_count, 0
    from erased_signups
    where signup_day::timestamp at time zone 'UTC' < cast(:as_of as timestamptz)
)
select
    grains.granularity, grains.period_days, starts.cohort_start,
    starts.cohort_start + grains.cohort_length as cohort_end,
    sum(signup_days.contact_count)::bigint as cohort_size,
    sum(signup_days.subscribed_count)::bigint as subscribed_count
from signup_days
cross join grains
cross join lateral (
    select date_trunc(grains.granularity, signup_days.signup_day, 'UTC') as cohort_start
) as starts
where starts.cohort_start >= grains.oldest
    and starts.cohort_start <= coalesce(cast(:to_day as date), 'infinity')
    and starts.cohort_start + grains.cohort_length > coalesce(cast(:from_day as date), '-infinity')
group by 1, 2, 3, 4

-- name: cohort_cells
-- The cells of cohorts that have begun, and whether they are over for everybody. Binds: what cohort_sizes gave.
with cohorts as (
    select *
    from unnest(
        cast(:granularities as text[]), cast(:period_days as int[]),
        cast(:starts as timestamptz[]), cast(:ends as timestamptz[]), cast(:sizes as bigint[]),
        cast(:subscribed as bigint[])
    ) as given (
        granularity, period_days, cohort_start, cohort_end, cohort_size, subscribed_count)
)
select
    cohorts.*, spans.period_offset, spans.begins_at, spans.ends_at,
    spans.ends_at <= cast(:as_of as timestamptz) as is_complete
from cohorts
cross join lateral (
    select
        period_offset,
        cohorts.cohort_start + make_interval(days => period_offset * cohorts.period_days)
            as begins_at,
        cohorts.cohort_end + make_interval(days => (period_offset + 1) * cohorts.period_days)
            as ends_at
    from generate_series(0, cast(:periods as int) - 1) as period_offset
) as spans
where spans.begins_at < cast(:as_of as timestamptz)

-- name: cohort_activity
-- How many contacts of each cohort had a human open or click in each period since their own sign-up.
with grains as (
    -- include: grains
),
active_days as materialized (
    select
        events.contact_id, (contacts.created_at at time zone 'UTC')::date as signup_day,
        floor((date_part('epoch', events.occurred_at) - date_part('epoch', contacts.created_at))
            / 86400)::int as day_offset
    from events
    inner join contacts on contacts.contact_id = events.contact_id
    where events.event_type in ('email_opened', 'email_clicked')
        and events.occurred_at < cast(:as_of as timestamptz)
        and events.occurred_at >= contacts.created_at
        -- The longest cohort that touches the range begins and ends within 31 days of it.
        and contacts.created_at >= coalesce(cast(:from_day as date) - 31, '-infinity')
        and events.occurred_at >= coalesce(cast(:from_day as date) - 31, '-infinity')
        and contacts.created_at < coalesce(cast(:to_day as date) + 32, 'infinity')
),
-- Whole numbers only up to here, and one branch a granularity: half the time of a join with grains.
by_signup_day as (
    select 'day' as granularity, signup_day, period_offset, count(*) as active_count
    from (
        select distinct contact_id, signup_day, day_offset as period_offset
        from active_days
        where day_offset < cast(:periods as int)
            and signup_day >= (select oldest from grains where granularity = 'day')
    ) as days
    group by 2, 3
    union all
    select 'week', signup_day, period_offset, count(*)
    from (
        select distinct contact_id, signup_day, day_offset / 7 as period_offset
        from active_days
        where day_offset < 7 * cast(:periods as int)
    ) as weeks
    group by 2, 3
    union all
    select 'month', signup_day, period_offset, count(*)
    from (
        select distinct contact_id, signup_day, day_offset / 30 as period_offset
        from active_days
        where day_offset < 30 * cast(:periods as int)
    ) as months
    group by 2, 3
    union all
    select granularity, signup_day, period_offset, contact_count
    from erased_activity
    where period_offset < cast(:periods as int)
)
select
    granularity,
    date_trunc(granularity, signup_day::timestamp) at time zone 'UTC' as cohort_start,
    period_offset,
    sum(active_count)::bigint as active_count
from by_signup_day
group by 1, 2, 3

-- name: restate_cohorts
-- Writes the cells of the cohorts; what is not over yet for everybody of a cohort is null.
with activity as (
    -- include: cohort_activity
),
cells as (
    -- include: cohort_cells
)
insert into analytics.contact_cohorts (
    granularity, cohort_start, cohort_label, cohort_size, period_offset, active_count,
    subscribed_count, retention_rate, is_complete, refreshed_at
)
select
    cells.granularity, cells.cohort_start::date,
    to_char(cells.cohort_start, case cells.granularity
        when 'day' then 'YYYY-MM-DD' when 'week' then 'IYYY-"W"IW' else 'YYYY-MM' end),
    cells.cohort_size, cells.period_offset,
    case when cells.is_complete then coalesce(activity.active_count, 0) end,
    cells.subscribed_count,
    case when cells.is_complete
        then analytics.percent(coalesce(activity.active_count, 0), cells.cohort_size) end,
    cells.is_complete, now()
from cells
left join activity
    on activity.granularity = cells.granularity
    and activity.cohort_start = cells.cohort_start
    and activity.period_offset = cells.period_offset

-- name: touched_cells
-- Cells that late events of single people lie in, by the marks since the last refresh (rollups.news).
with grains as (
    -- include: grains
),
news as (
    -- include: rollups.news
)
select distinct
    grains.granularity, date_trunc(grains.granularity, people.created_at, 'UTC') as cohort_start,
    period_offset
from news
inner join contacts as people on people.contact_id = news.contact_id
cross join grains
cross join lateral generate_series(
    floor((news.day - cast(people.created_at at time zone 'UTC' as date) - 1.0)
        / grains.period_days)::int,
    floor((news.day - cast(people.created_at at time zone 'UTC' as date) + 1.0)
        / grains.period_days)::int
) as period_offset
where news.subject = 'activity'

-- name: stale_cells
-- Cells to be counted again: over now and not before, of a cohort that somebody joined, or with news.
-- Somebody who was erased left no trace of the own cells: a mark of theirs means the day. Bind: days.
with cells as materialized (
    -- include: cohort_cells
),
touched as materialized (
    -- include: touched_cells
),
news as (
    -- include: rollups.news
),
changed_days as materialized (
    select day from unnest(cast(:days as date[])) as given (day)
    union
    select news.day
    from news
    left join contacts on contacts.contact_id = news.contact_id
    where news.subject = 'activity' and news.contact_id > 0 and contacts.contact_id is null
)
select
    cells.granularity, cells.cohort_start, cells.cohort_end, cells.period_offset, cells.begins_at,
    cells.ends_at
from cells
left join analytics.contact_cohorts as known
    on known.granularity = cells.granularity and known.cohort_start = cells.cohort_start::date
    and known.period_offset = cells.period_offset
left join touched
    on touched.granularity = cells.granularity and touched.cohort_start = cells.cohort_start
    and touched.period_offset = cells.period_offset
where cells.is_complete
    and (
        known.active_count is null
        or known.cohort_size <> cells.cohort_size
        or touched.granularity is not null
        or exists (
            select from changed_days
            where changed_days.day < cells.ends_at
                and changed_days.day + interval '1 day' > cells.begins_at)
    )

-- name: stale
-- Those cells, as stale_cells gave them.
select granularity, cohort_start, period_offset, begins_at, ends_at
from unnest(
    cast(:stale_granularities as text[]), cast(:stale_starts as timestamptz[]),
    cast(:stale_offsets as int[]), cast(:stale_begins as timestamptz[]),
    cast(:stale_ends as timestamptz[])
) as given (granularity, cohort_start, period_offset, begins_at, ends_at)

-- name: stale_activity
-- How many contacts were active in each of the cells to be counted again, and in parts of other cells: each
-- granularity is counted from where its first such cell begins to where its last one ends.
with stale as (
    -- include: stale
),
spans as materialized (
    select
        granularity, min(begins_at) as begins_at, max(ends_at) as ends_at,
        cast(min(cohort_start) at time zone 'UTC' as date) as first_day
    from stale
    group by granularity
),
acts as materialized (
    select
        events.contact_id, events.occurred_at,
        -- By whole numbers: naming a time zone costs more than the rest of the row.
        date '1970-01-01'
        + floor(date_part('epoch', contacts.created_at) / 86400)::int as signup_day,
        floor((date_part('epoch', events.occurred_at) - date_part('epoch', contacts.created_at))
            / 86400)::int as day_offset
    from events
    inner join contacts on contacts.contact_id = events.contact_id
    where events.event_type in ('email_opened', 'email_clicked')
        and events.occurred_at >= cast(:first as timestamptz)
        and events.occurred_at < cast(:last as timestamptz)
        and events.occurred_at >= contacts.created_at
),
-- One branch a granularity: half the time of a join with them.
by_signup_day as (
    select 'day' as granularity, signup_day, period_offset, count(*) as contact_count
    from (
        select distinct acts.contact_id, acts.signup_day, acts.day_offset as period_offset
        from acts
        inner join spans
            on spans.granularity = 'day' and acts.signup_day >= spans.first_day
            and acts.occurred_at >= spans.begins_at and acts.occurred_at < spans.ends_at
    ) as days
    group by 2, 3
    union all
    select 'week', signup_day, period_offset, count(*)
    from (
        select distinct acts.contact_id, acts.signup_day, acts.day_offset / 7 as period_offset
        from acts
        inner join spans
            on spans.granularity = 'week' and acts.signup_day >= spans.first_day
            and acts.occurred_at >= spans.begins_at and acts.occurred_at < spans.ends_at
    ) as weeks
    group by 2, 3
    union all
    select 'month', signup_day, period_offset, count(*)
    from (
        select distinct acts.contact_id, acts.signup_day, acts.day_offset / 30 as period_offset
        from acts
        inner join spans
            on spans.granularity = 'month' and acts.signup_day >= spans.first_day
            and acts.occurred_at >= spans.begins_at and acts.occurred_at < spans.ends_at
    ) as months
    group by 2, 3
    union all
    select granularity, signup_day, period_offset, contact_count
    from erased_activity
)
select
    granularity, date_trunc(granularity, signup_day::timestamp) at time zone 'UTC' as cohort_start,
    period_offset, sum(contact_count)::bigint as active_count
from by_signup_day
group by 1, 2, 3

-- name: follow_cohorts
-- Writes the cells that are others than before; contacts leave by erasure alone, which counts them on.
with cells as materialized (
    -- include: cohort_cells
),
stale as (
    -- include: stale
),
activity as (
    -- include: stale_activity
),
figures as materialized (
    select
        cells.granularity, cells.cohort_start::date as cohort_start,
        to_char(cells.cohort_start, case cells.granularity
            when 'day' then 'YYYY-MM-DD' when 'week' then 'IYYY-"W"IW' else 'YYYY-MM' end) as label,
        cells.cohort_size, cells.period_offset, cells.subscribed_count, cells.is_complete,
        case
            when stale.granularity is not null then coalesce(activity.active_count, 0)
            when cells.is_complete then known.active_count
        end as active_count
    from cells
    left join stale using (granularity, cohort_start, period_offset)
    left join activity using (granularity, cohort_start, period_offset)
    left join analytics.contact_cohorts as known
        on known.granularity = cells.granularity and known.cohort_start = cells.cohort_start::date
        and known.period_offset = cells.period_offset
),
gone as (
    delete from analytics.contact_cohorts as old
    where not exists (
        select from figures
        where figures.granularity = old.granularity and figures.cohort_start = old.cohort_start
            and figures.period_offset = old.period_offset)
)
insert into analytics.contact_cohorts as old (
    granularity, cohort_start, cohort_label, cohort_size, period_offset, active_count,
    subscribed_count, retention_rate, is_complete, refreshed_at
)
select
    granularity, cohort_start, label, cohort_size, period_offset, active_count, subscribed_count,
    case when active_count is not null then analytics.percent(active_count, cohort_size) end,
    is_complete, now()
from figures
on conflict (granularity, cohort_start, period_offset) do update
set cohort_size = excluded.cohort_size, active_count = excluded.active_count,
    subscribed_count = excluded.subscribed_count, retention_rate = excluded.retention_rate,
    is_complete = excluded.is_complete, refreshed_at = excluded.refreshed_at
where (old.cohort_size, old.active_count, old.subscribed_count, old.is_complete)
    is distinct from (excluded.cohort_size, excluded.active_count, excluded.subscribed_count,
        excluded.is_complete)

-- name: score_days
-- The last complete scoring of everybody on each UTC day, and when the one before it was. What was scored on the day
-- goes before what was computed about it later. Bind: as_of (nothing later).
with runs as (
    select
        as_of, source, rule_version, is_current, max(run_id) as run_id,
        max(finished_at) as finished_at
    from score_runs
    where as_of <= cast(:as_of as timestamptz)
    group by as_of, source, rule_version, known_at, buckets, is_current
    having count(distinct bucket) = buckets
),
chosen as (
    select distinct on (cast(as_of at time zone 'UTC' as date))
        cast(as_of at time zone 'UTC' as date) as score_day, as_of, source, rule_version,
        finished_at
    from runs
    order by cast(as_of at time zone 'UTC' as date), is_current desc, as_of desc, run_id desc
)
select
    chosen.*, lag(as_of) over earlier as previous_as_of,
    coalesce(lag(finished_at) over earlier, finished_at) as previous_finished_at
from chosen
window earlier as (order by score_day)

-- name: stale_score_days
-- Days whose figures are missing or older than what they are made of; or those of a range, where one is given.
with days as (
    -- include: score_days
),
known as (
    select as_of, min(refreshed_at) as refreshed_at
    from analytics.lifecycle_funnel
    group by as_of
)
select days.*
from days
left join known on known.as_of = days.score_day
where case
    when cast(:rebuild as boolean) then true
    when cast(:from_day as date) is not null or cast(:to_day as date) is not null then
        days.score_day >= coalesce(cast(:from_day as date), '-infinity')
        and days.score_day <= coalesce(cast(:to_day as date), 'infinity')
    -- A scoring is dated by its beginning, and may have ended after the figures were made.
    else known.as_of is null
        or greatest(days.finished_at, days.previous_finished_at)
            > known.refreshed_at - interval '1 hour'
end
order by days.score_day

-- name: clear_score_days
-- Takes out the figures of days that are about to be restated.
with distribution as (
    delete from analytics.score_distribution where as_of = any(cast(:days as date[]))
)
delete from analytics.lifecycle_funnel where as_of = any(cast(:days as date[]))

-- name: restate_score_distribution
-- The scores of one day by grade and by buckets of ten points.
insert into analytics.score_distribution (
    as_of, rule_version, grade, bucket_from, bucket_to, contacts, avg_engagement, avg_profile,
    avg_recency, refreshed_at
)
select
    cast(:day as date), rule_version, grade, bucket_from,
    case when bucket_from < 100 then bucket_from + 10 end,
    count(*), least(avg(engagement_score)::numeric, 9999999.99), avg(profile_score),
    avg(recency_score), now()
from score_history
cross join lateral (
    select least(floor(total_score / 10), 10)::int * 10 as bucket_from
) as bucket
where as_of = cast(:moment as timestamptz) and source = cast(:source as text)
    and rule_version = cast(:rule_version as int)
group by rule_version, grade, bucket_from

-- name: last_moves
-- When contacts last moved before a moment: by their present stage, or by the moves where that is younger.
select contact_id, since
from contact_stages
where since <= cast(:moment as timestamptz)
union all
select stage_transitions.contact_id, max(stage_transitions.occurred_at)
from contact_stages
inner join stage_transitions on stage_transitions.contact_id = contact_stages.contact_id
where contact_stages.since > cast(:moment as timestamptz)
    and stage_transitions.occurred_at <= cast(:moment as timestamptz)
group by stage_transitions.contact_id

-- name: restate_lifecycle_funnel
-- The stages of one day: who is in them, for how long, and the moves since the scoring before.
with last_moves as (
    -- include: last_moves
),
people as (
    select
        snapshots.lifecycle_stage as stage, count(*) as contacts,
        avg(snapshots.total_score) as avg_score,
        percentile_cont(0.5) within group (
            order by date_part('epoch', cast(:moment as timestamptz) - last_moves.since) / 86400
        ) as median_days
    from score_history as snapshots
    left join last_moves on last_moves.contact_id = snapshots.contact_id
    where snapshots.as_of = cast(:moment as timestamptz)
        and snapshots.source = cast(:source as text)
        and snapshots.rule_version = cast(:rule_version as int)
    group by snapshots.lifecycle_stage
),
moves as (
    select
        stages.stage, count(*) filter (where stages.is_entry) as entered,
        count(*) filter (where not stages.is_entry) as departed
    from stage_transitions
    cross join lateral (
        values (stage_transitions.new_stage, true), (stage_transitions.previous_stage, false)
    ) as stages (stage, is_entry)
    where stage_transitions.occurred_at > coalesce(cast(:previous as timestamptz), '-infinity')
        and stage_transitions.occurred_at <= cast(:moment as timestamptz)
    group by stages.stage
)
insert into analytics.lifecycle_funnel (
    as_of, stage, stage_order, contacts, contact_share, entered, departed, median_days_in_stage,
    avg_score, refreshed_at
)
select
    cast(:day as date), lifecycle_stages.stage, lifecycle_stages.stage_order,
    coalesce(people.contacts, 0),
    analytics.percent(coalesce(people.contacts, 0), cast(sum(people.contacts) over () as bigint)),
    coalesce(moves.entered, 0), coalesce(moves.departed, 0), people.median_days,
    case when people.contacts > 0 then least(people.avg_score, 9999999.99) end, now()
from lifecycle_stages
left join people on people.stage = lifecycle_stages.stage
left join moves on moves.stage = lifecycle_stages.stage

-- name: signup_weeks
-- Contacts by calendar week of their sign-up (ISO, UTC), the current week last; empty weeks are zeros.
with weeks as (
    select generate_series(
        date_trunc('week', cast(:now as timestamptz), 'UTC')
            - make_interval(weeks => cast(:weeks as int) - 1),
        date_trunc('week', cast(:now as timestamptz), 'UTC'),
        interval '7 days'
    ) as week_start
),
people as (
    -- Weeks are 7 times 24 hours in UTC: no calendar has to be asked for each contact.
    select
        date_bin(interval '7 days', signed_up_at, timestamptz '2024-01-01 00:00Z') as week_start,
        count(*) as total, count(*) filter (where is_subscribed) as subscribed
    from analytics.dim_contacts
    where signed_up_at >= (select min(week_start) from weeks)
        and signed_up_at <= cast(:now as timestamptz)
    group by 1
),
signups as (
    select week_start, sum(total)::bigint as total, sum(subscribed)::bigint as subscribed
    from (
        select week_start, total, subscribed from people
        union all
        -- Erased people stay counted.
        select
            date_trunc('week', signup_day::timestamp) at time zone 'UTC', sum(contact_count), 0
        from erased_signups
        where signup_day::timestamp at time zone 'UTC' <= cast(:now as timestamptz)
        group by 1
    ) as given
    group by week_start
)
select
    weeks.week_start::date as week_start,
    to_char(weeks.week_start, 'IYYY-"W"IW') as week_label,
    coalesce(signups.total, 0) as total,
    coalesce(signups.subscribed, 0) as subscribed
from weeks
left join signups on signups.week_start = weeks.week_start
order by weeks.week_start

-- name: grade_distribution
-- How many scored contacts have each grade, best first.
select grades.grade, count(people.contact_id) as contact_count
from unnest(array['A+', 'A', 'B+', 'B', 'C', 'D', 'F']) with ordinality as grades (grade, place)
left join analytics.dim_contacts as people on people.grade = grades.grade
group by grades.grade, grades.place
order by grades.place

-- name: recent_campaigns
-- Performance of the newest campaigns that began to send; without orders, which take most of the view's time.
select
    performance.campaign_id, performance.campaign_name, performance.status, performance.sent_at,
    performance.recipients, performance.skipped, performance.attempted, performance.sent,
    performance.delivered, performance.bounced, performance.unique_opens,
    performance.unique_clicks, performance.unsubscribed, performance.open_rate,
    performance.click_rate, performance.ctor, performance.bounce_rate,
    performance.unsubscribe_rate
from analytics.campaign_performance as performance
inner join (
    select campaign_id, coalesce(sent_at, started_at, requested_at) as moved_at
    from campaigns
    where requested_at is not null
    order by moved_at desc, campaign_id desc
    limit cast(:limit as int)
) as newest on newest.campaign_id = performance.campaign_id
order by newest.moved_at desc, performance.campaign_id desc

-- name: campaign_performance_of
-- Performance of one campaign.
select *
from analytics.campaign_performance
where campaign_id = cast(:campaign_id as bigint)

-- name: comments
-- The comments of every relation of schema analytics (name empty) and of each of its columns.
select
    relations.relname as relation,
    coalesce(cast(columns.attname as text), '') as name,
    coalesce(
        case
            when columns.attnum is null then obj_description(relations.oid, 'pg_class')
            else col_description(relations.oid, columns.attnum)
        end, '') as description
from pg_class as relations
inner join pg_namespace as schemas on schemas.oid = relations.relnamespace
inner join lateral (
    select cast(null as name) as attname, cast(null as smallint) as attnum
    union all
    select attname, attnum
    from pg_attribute
    where attrelid = relations.oid and attnum > 0 and not attisdropped
) as columns on true
where schemas.nspname = 'analytics' and relations.relkind in ('r', 'p', 'v', 'm')
