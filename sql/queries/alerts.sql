-- Findings that are open, and the notes that tell of them.

-- name: see
-- Opens findings or sees them again; returns those nobody was told of that are sure by now.
with seen as (
    insert into alerts (finding, summary, advice, row_count, opened_at, seen_at)
    select
        given.finding, given.summary, given.advice, given.row_count,
        cast(:now as timestamptz), cast(:now as timestamptz)
    from unnest(
        cast(:findings as text[]), cast(:summaries as text[]), cast(:advices as text[]),
        cast(:row_counts as bigint[])
    ) as given (finding, summary, advice, row_count)
    order by given.finding
    on conflict (finding) do update
    set summary = excluded.summary, advice = excluded.advice, row_count = excluded.row_count,
        seen_at = greatest(alerts.seen_at, excluded.seen_at)
    returning finding, summary, advice, opened_at, is_told
)

select finding, summary, advice, opened_at
from seen
where not is_told;

-- name: mark_told
-- Notes are made of these findings; returns those that nobody else has marked meanwhile.
update alerts set is_told = true
where finding = any(cast(:findings as text[])) and not is_told
returning finding, summary, advice;

-- name: resolve_absent
-- Closes the findings of some kinds that are not among those found now.
delete from alerts
where split_part(finding, '.', 1) = any(cast(:kinds as text[]))
    and not finding = any(cast(:findings as text[]))
    and seen_at <= cast(:now as timestamptz)
returning finding, summary, advice, is_told, opened_at;

-- name: resolve_succeeded
-- Closes the failures of DAGs that have had a whole run since.
delete from alerts
using heartbeats
where split_part(alerts.finding, '.', 1) in ('dag_failed', 'dag_deadline')
    and heartbeats.component = 'airflow.' || split_part(alerts.finding, '.', 2)
    and heartbeats.beat_at > alerts.seen_at
returning alerts.finding, alerts.summary, alerts.advice, alerts.is_told, alerts.opened_at;

-- name: add_notes
-- One note for each finding and channel.
insert into alert_notes (channel, kind, finding, summary, advice, created_at, next_try_at)
select
    channels.channel, cast(:kind as text), given.finding, given.summary, given.advice,
    cast(:now as timestamptz), cast(:now as timestamptz)
from unnest(cast(:findings as text[]), cast(:summaries as text[]), cast(:advices as text[]))
    with ordinality as given (finding, summary, advice, place)
cross join unnest(cast(:channels as text[])) as channels (channel)
order by given.place;

-- name: claim_notes
-- Takes the notes that are due, oldest first; nobody else takes them before the next try.
with due as materialized (
    select note_id
    from alert_notes
    where next_try_at <= cast(:now as timestamptz)
    order by note_id
    limit 100
    for update skip locked
)

update alert_notes
set next_try_at = cast(:next_try_at as timestamptz), tries = alert_notes.tries + 1
from due
where alert_notes.note_id = due.note_id
returning
    alert_notes.note_id, alert_notes.channel, alert_notes.kind, alert_notes.finding,
    alert_notes.summary, alert_notes.advice, alert_notes.created_at;

-- name: forget_notes
-- Removes notes that a channel has taken, those of channels that are gone, and those too old to be news.
delete from alert_notes
where note_id = any(cast(:taken as bigint[]))
    or not channel = any(cast(:channels as text[]))
    or created_at < cast(:older_than as timestamptz);

-- name: open_alerts
-- The findings that are open, oldest first.
select finding, summary, advice, row_count, opened_at, seen_at, is_told
from alerts
order by opened_at, finding;
