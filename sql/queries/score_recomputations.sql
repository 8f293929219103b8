-- Recomputations of past days: taking one up, and keeping what a day gave.

-- name: claim
-- Take up the oldest that is due and that nobody holds.
update score_recomputations
set status = 'running', due_at = cast(:lease_until as timestamptz), tries = tries + 1,
    started_at = coalesce(started_at, cast(:now as timestamptz))
where recomputation_id = (
    select recomputation_id
    from score_recomputations
    where due_at <= cast(:now as timestamptz)
    order by due_at, recomputation_id
    for update skip locked
    limit 1
)
returning recomputation_id

-- name: hold
-- The day to do next; nothing if another worker is at it, or if it is done.
select
    coalesce(done_through + 1, from_day) as day, rule_version,
    coalesce(known_at, created_at) as known_at
from score_recomputations
where recomputation_id = cast(:recomputation_id as bigint) and status = 'running'
for update skip locked

-- name: keep_day
-- A day is done; the matrix is that of the last one.
update score_recomputations
set done_through = cast(:day as date), contact_count = :contacts,
    snapshot_count = snapshot_count + :snapshots,
    grade_matrix = cast(:grade_matrix as jsonb), tries = 1, error = null,
    status = case when to_day = cast(:day as date) then 'completed' else 'running' end,
    due_at = case when to_day = cast(:day as date) then null
        else cast(:lease_until as timestamptz) end,
    finished_at = case when to_day = cast(:day as date) then cast(:now as timestamptz) end
where recomputation_id = cast(:recomputation_id as bigint)
returning status

-- name: release
-- Whoever worked on it has no more time; the next one goes on at once.
update score_recomputations
set due_at = cast(:now as timestamptz), tries = 0
where recomputation_id = cast(:recomputation_id as bigint) and status = 'running'

-- name: fail
-- A day went wrong: try again later, or give up after the last try.
update score_recomputations
set error = :error,
    status = case when tries >= cast(:most as int) then 'failed' else 'running' end,
    due_at = case when tries < cast(:most as int) then cast(:again_at as timestamptz) end,
    finished_at = case when tries >= cast(:most as int) then cast(:now as timestamptz) end
where recomputation_id = cast(:recomputation_id as bigint) and status = 'running'
