-- Does a higher score mean more later orders? Scores of a past moment, beside what happened in the days after it.
-- Binds of all: as_of, until (end of those days), event_type (null: an order). Recomputed scores take the binds of
-- scoring.sql, too.

-- name: snapshot_scores
-- The scores everybody was given as of the moment: by the night itself, else by the last look back.
select distinct on (contact_id) contact_id, total_score, grade, rule_version
from score_history
where as_of = cast(:as_of as timestamptz) and source in ('nightly', 'recomputed')
order by contact_id, (source = 'nightly') desc, recorded_at desc, rule_version desc

-- name: recomputed_scores
-- The scores of everybody as of the moment, computed now out of what is asked for.
select contact_id, total_score, grade, cast(:rule_version as int) as rule_version
from (
    -- include: scoring.evaluate
) as evaluated

-- name: has_snapshots
-- Whether everybody was scored as of the moment.
select exists (
    select 1
    from score_runs
    where as_of = cast(:as_of as timestamptz)
    group by source, rule_version, known_at, buckets
    having count(distinct bucket) = buckets
) as is_scored

-- name: outcomes
-- Contacts to whom it happened after the moment, within the days.
select contact_id
from orders
where cast(:event_type as text) is null
    and placed_at > cast(:as_of as timestamptz) and placed_at <= cast(:until as timestamptz)
union
select contact_id
from events
where event_type = cast(:event_type as text)
    and occurred_at > cast(:as_of as timestamptz) and occurred_at <= cast(:until as timestamptz)

-- name: tally_snapshots
-- How many have each score, and to how many of them it happened.
with scores as (
    -- include: snapshot_scores
),
happened as (
    -- include: outcomes
)
select
    scores.total_score, scores.grade, max(scores.rule_version) as rule_version,
    count(*) as contact_count, count(happened.contact_id) as outcome_count
from scores
left join happened on happened.contact_id = scores.contact_id
group by scores.total_score, scores.grade
order by scores.total_score

-- name: tally_recomputed
-- As tally_snapshots, of scores computed now.
-- include: tally_snapshots with snapshot_scores = recomputed_scores
