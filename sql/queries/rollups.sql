-- How far each table of schema analytics has come, and what changed since. Binds of all that read changes: since (the
-- snapshot of the last refresh), previous_as_of and as_of (this one).

-- name: take_turn
-- One refresh of a table at a time.
select pg_advisory_xact_lock(hashtext('rollups.' || cast(:table as text)));

-- name: last_refresh
-- The snapshot of now, and where the last refresh of a table stands; since is null where nothing can be built on it.
select
    cast(pg_current_snapshot() as text) as snapshot,
    case
        when states.as_of <= cast(:as_of as timestamptz)
            and states.reporting_currency is not distinct from analytics.reporting_currency()
            -- Transactions are numbered anew after a dump and its restoration.
            and pg_snapshot_xmax(states.snapshot) <= pg_snapshot_xmax(pg_current_snapshot())
            then cast(states.snapshot as text)
    end as since,
    states.as_of as previous_as_of
from (select) as nothing
left join rollups.states on states.table_name = cast(:table as text);

-- name: keep_state
-- Notes a refresh that was not limited to a range.
insert into rollups.states (
    table_name, snapshot, as_of, reporting_currency, row_count, seconds, refreshed_at
)
values (
    cast(:table as text), cast(cast(:snapshot as text) as pg_snapshot), cast(:as_of as timestamptz),
    analytics.reporting_currency(), cast(:rows as bigint), cast(:seconds as double precision), now()
)
on conflict (table_name) do update
set snapshot = excluded.snapshot, as_of = excluded.as_of,
    reporting_currency = excluded.reporting_currency, row_count = excluded.row_count,
    seconds = excluded.seconds, refreshed_at = excluded.refreshed_at;

-- name: usable_state
-- The last refresh of a table, for readers that add what changed since; none where they cannot know that.
select cast(snapshot as text) as since, as_of
from rollups.states
where table_name = cast(:table as text)
    and pg_snapshot_xmax(snapshot) <= pg_snapshot_xmax(pg_current_snapshot());

-- name: states
-- How far each table is.
select table_name, as_of, row_count, seconds, refreshed_at
from rollups.states;

-- name: has_timezone
-- Whether the database knows a time zone.
select exists (select from pg_timezone_names where name = cast(:timezone as text));

-- name: keep_timezone
-- Notes the reporting time zone where it is another than before.
insert into rollups.reporting_clock (timezone)
values (cast(:timezone as text))
on conflict (is_only) do update
set timezone = excluded.timezone
where reporting_clock.timezone <> excluded.timezone;

-- name: prune_marks
-- Takes out marks that every table has seen.
delete from rollups.marks
using (
    select min(cast(cast(pg_snapshot_xmin(states.snapshot) as text) as numeric)) as oldest
    from unnest(cast(:tables as text[])) as wanted (table_name)
    left join rollups.states on states.table_name = wanted.table_name
    having count(*) = count(states.table_name)
) as seen
where marks.xact < cast(cast(seen.oldest as text) as xid8);

-- name: news
-- Marks of what changed since the last refresh. A snapshot counts the transaction that took it among those it sees
-- wherever a later one has ended meanwhile; what the caller's own transaction marked is news always.
select distinct subject, day, contact_id
from rollups.marks
where xact >= pg_snapshot_xmin(cast(cast(:since as text) as pg_snapshot))
    and (
        xact = pg_current_xact_id_if_assigned()
        or not pg_visible_in_snapshot(xact, cast(cast(:since as text) as pg_snapshot))
    );

-- name: changed_days
-- UTC days of one subject in which something changed for whom it may be, and those since the last refresh.
with news as (
    -- include: news
)
select day
from news
where subject = cast(:subject as text) and contact_id = 0
    and day <= utc_day(cast(:as_of as timestamptz))
union
select cast(day as date)
from generate_series(
    utc_day(cast(:previous_as_of as timestamptz)), utc_day(cast(:as_of as timestamptz)),
    interval '1 day'
) as day;

-- name: changed_people
-- People and UTC days of one subject in which something changed.
with news as (
    -- include: news
)
select contact_id, day
from news
where subject = cast(:subject as text) and contact_id > 0
    and day <= utc_day(cast(:as_of as timestamptz));

-- name: clear_activity
-- Takes out the weeks that touch a range of days; no limits: all.
delete from analytics.contact_period_activity
where week_start > coalesce(cast(:from_day as date), '-infinity') - 7
    and week_start <= coalesce(cast(:to_day as date), 'infinity');

-- name: restate_activity
-- Counts the weeks that touch a range of days, for everybody; both halves are sorted by the key, and joined so.
with bounds as materialized (
    select
        date_trunc('week', cast(coalesce(cast(:from_day as date), '-infinity') as timestamp))
            as begins_at,
        least(
            cast(:as_of as timestamptz),
            date_trunc('week', cast(coalesce(cast(:to_day as date), 'infinity') as timestamp))
                + interval '7 days'
        ) as ends_at
),
acts as not materialized (
    select
        contact_id, analytics.iso_week(occurred_at) as week_start,
        case event_type when 'email_opened' then 1 when 'email_clicked' then 2 else 3 end as kind
    from events
    where contact_id > 0
        and event_type in (
            'email_opened', 'email_clicked', 'page_viewed', 'form_submitted', 'cart_updated',
            'checkout_started')
        and occurred_at >= (select begins_at from bounds)
        and occurred_at < (select ends_at from bounds)
),
done as (
    select
        contact_id, week_start, count(*) filter (where kind = 1) as human_opens,
        count(*) filter (where kind = 2) as human_clicks,
        count(*) filter (where kind = 3) as site_events
    from acts
    group by contact_id, week_start
),
bought as (
    select
        contact_id, analytics.iso_week(placed_at) as week_start, count(*) as orders,
        sum(net_total * fx_rate) filter (
            where reporting_currency = (select analytics.reporting_currency())) as revenue
    from orders
    where contact_id > 0
        and placed_at >= (select begins_at from bounds)
        and placed_at < (select ends_at from bounds)
    group by 1, 2
)
insert into analytics.contact_period_activity (
    contact_id, week_start, human_opens, human_clicks, site_events, orders, revenue,
    reporting_currency, refreshed_at
)
select
    contact_id, week_start, coalesce(done.human_opens, 0), coalesce(done.human_clicks, 0),
    coalesce(done.site_events, 0), coalesce(bought.orders, 0),
    case when bought.revenue is null then 0
        else greatest(least(bought.revenue, 99999999999999), -99999999999999) end,
    (select analytics.reporting_currency()), now()
from done
full join bought using (contact_id, week_start);

-- name: marked_activity
-- People and weeks that have marks of their own.
with news as (
    -- include: news
)
select distinct
    cast(date_trunc('week', cast(day as timestamp)) as date) as week_start, contact_id
from news
where subject in ('activity', 'orders') and contact_id > 0
    and day <= utc_day(cast(:as_of as timestamptz));

-- name: follow_week
-- Counts one week again for people with marks, and for who did something from first_day to last_day (null: nobody).
with marked as materialized (
    select contact_id from unnest(cast(:contact_ids as bigint[])) as given (contact_id)
),
done as (
    select
        contact_id,
        count(*) filter (where event_type = 'email_opened') as human_opens,
        count(*) filter (where event_type = 'email_clicked') as human_clicks,
        count(*) filter (where event_type not in ('email_opened', 'email_clicked')) as site_events,
        count(*) filter (where occurred_at >= cast(:first_day as date)
            and occurred_at < cast(:last_day as date) + 1) as news
    from events
    where contact_id > 0
        and event_type in (
            'email_opened', 'email_clicked', 'page_viewed', 'form_submitted', 'cart_updated',
            'checkout_started')
        and occurred_at >= cast(:week_start as date) and occurred_at < cast(:week_start as date) + 7
        and occurred_at < cast(:as_of as timestamptz)
    group by contact_id
),
bought as (
    select
        contact_id, count(*) as orders,
        sum(net_total * fx_rate) filter (
            where reporting_currency = (select analytics.reporting_currency())) as revenue,
        count(*) filter (where placed_at >= cast(:first_day as date)
            and placed_at < cast(:last_day as date) + 1) as news
    from orders
    where contact_id > 0
        and placed_at >= cast(:week_start as date) and placed_at < cast(:week_start as date) + 7
        and placed_at < cast(:as_of as timestamptz)
    group by contact_id
),
emptied as (
    delete from analytics.contact_period_activity as old
    using marked
    where old.contact_id = marked.contact_id and old.week_start = cast(:week_start as date)
        and not exists (select from done where done.contact_id = marked.contact_id)
        and not exists (select from bought where bought.contact_id = marked.contact_id)
)
insert into analytics.contact_period_activity (
    contact_id, week_start, human_opens, human_clicks, site_events, orders, revenue,
    reporting_currency, refreshed_at
)
select
    contact_id, cast(:week_start as date), coalesce(done.human_opens, 0),
    coalesce(done.human_clicks, 0), coalesce(done.site_events, 0), coalesce(bought.orders, 0),
    greatest(least(coalesce(bought.revenue, 0), 99999999999999), -99999999999999),
    (select analytics.reporting_currency()), now()
from done
full join bought using (contact_id)
where done.news > 0 or bought.news > 0 or contact_id in (select contact_id from marked)
order by contact_id
on conflict (week_start, contact_id) do update
set human_opens = excluded.human_opens, human_clicks = excluded.human_clicks,
    site_events = excluded.site_events, orders = excluded.orders, revenue = excluded.revenue,
    reporting_currency = excluded.reporting_currency, refreshed_at = excluded.refreshed_at;

-- name: follow_cells
-- Counts single weeks of people again; by their own events and orders.
with cells as materialized (
    select contact_id, week_start
    from unnest(cast(:contact_ids as bigint[]), cast(:weeks as date[]))
        as given (contact_id, week_start)
),
figures as materialized (
    select
        cells.contact_id, cells.week_start, done.*, bought.*
    from cells
    cross join lateral (
        select
            count(*) filter (where event_type = 'email_opened') as human_opens,
            count(*) filter (where event_type = 'email_clicked') as human_clicks,
            count(*) filter (where event_type not in ('email_opened', 'email_clicked'))
                as site_events
        from events
        where events.contact_id = cells.contact_id
            and events.event_type in (
                'email_opened', 'email_clicked', 'page_viewed', 'form_submitted',
                'cart_updated', 'checkout_started')
            and events.occurred_at >= cells.week_start
            and events.occurred_at < cells.week_start + 7
            and events.occurred_at < cast(:as_of as timestamptz)
    ) as done
    cross join lateral (
        select
            count(*) as orders,
            coalesce(sum(net_total * fx_rate) filter (
                where reporting_currency = (select analytics.reporting_currency())), 0) as revenue
        from orders
        where orders.contact_id = cells.contact_id
            and orders.placed_at >= cells.week_start and orders.placed_at < cells.week_start + 7
            and orders.placed_at < cast(:as_of as timestamptz)
    ) as bought
),
emptied as (
    delete from analytics.contact_period_activity as old
    using figures
    where old.contact_id = figures.contact_id and old.week_start = figures.week_start
        and figures.human_opens + figures.human_clicks + figures.site_events + figures.orders = 0
)
insert into analytics.contact_period_activity (
    contact_id, week_start, human_opens, human_clicks, site_events, orders, revenue,
    reporting_currency, refreshed_at
)
select
    contact_id, week_start, human_opens, human_clicks, site_events, orders,
    greatest(least(revenue, 99999999999999), -99999999999999),
    (select analytics.reporting_currency()), now()
from figures
where human_opens + human_clicks + site_events + orders > 0
on conflict (week_start, contact_id) do update
set human_opens = excluded.human_opens, human_clicks = excluded.human_clicks,
    site_events = excluded.site_events, orders = excluded.orders, revenue = excluded.revenue,
    reporting_currency = excluded.reporting_currency, refreshed_at = excluded.refreshed_at;
