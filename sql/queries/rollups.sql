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
-- Marks of what changed since the last refresh.
select distinct subject, day, contact_id
from rollups.marks
where xact >= pg_snapshot_xmin(cast(cast(:since as text) as pg_snapshot))
    and not pg_visible_in_snapshot(xact, cast(cast(:since as text) as pg_snapshot));

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
