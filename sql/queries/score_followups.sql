-- What evaluations have to tell: scores that changed by more than time, grades and stages that were reached.
-- Binds of all: contact_ids (null: all), slices (of contact_id % 64; null: all).

-- name: untold
-- The contacts whose counted points or grade are not what was told last. Only the transaction that wrote such
-- a row sees it so: it tells before it ends. In no order: with one, the planner would walk through all contacts.
select
    contact_id, total_score, engagement_score, grade, told_grade, told_engagement, as_of,
    rule_version,
    told_grade <> grade or told_engagement <> engagement_score as is_news,
    -- Or somebody was erased while the evaluation ran. Asked here, it cannot lead the planner to join everybody.
    (select count(*) from contacts where contacts.contact_id = contact_scores.contact_id) > 0
        as is_there
from contact_scores
where (told_points <> counted_points or told_grade <> grade)
    and (cast(:contact_ids as bigint[]) is null
        or contact_id = any(cast(:contact_ids as bigint[])))
    and (cast(:slices as int[]) is null or contact_id % 64 = any(cast(:slices as int[])))

-- name: keep_told
-- Keeps what is told now, in the transaction that tells it.
update contact_scores
set told_points = counted_points, told_engagement = engagement_score, told_grade = grade
where contact_id = any(cast(:contact_ids as bigint[]))

-- name: grade_ranks
-- Grades from the lowest to the best; everybody begins with the first.
select grade, rank
from (values ('F', 0), ('D', 1), ('C', 2), ('B', 3), ('B+', 4), ('A', 5), ('A+', 6))
    as ranks (grade, rank)

-- name: reach_grades
-- Notes the grades contacts left, and those they rose to for the first time; gives the latter.
with ranks as (
    -- include: grade_ranks
),
regraded as materialized (
    select
        given.contact_id, given.previous_grade, given.grade, given.reached_at,
        before.rank as previous_rank, after.rank
    from unnest(
        cast(:ids as bigint[]), cast(:previous_grades as text[]), cast(:grades as text[]),
        cast(:moments as timestamptz[])
    ) as given (contact_id, previous_grade, grade, reached_at)
    inner join ranks as before on before.grade = given.previous_grade
    inner join ranks as after on after.grade = given.grade
    where before.rank <> after.rank
),
-- Where somebody was is noted when it is left, so that a first evaluation of everybody costs nothing.
held as (
    insert into contact_milestones (contact_id, kind, milestone, reached_at, is_told)
    select contact_id, 'grade', previous_grade, reached_at, false
    from regraded
    where previous_rank > 0
    order by contact_id
    on conflict (contact_id, kind, milestone) do nothing
),
reached as (
    insert into contact_milestones (contact_id, kind, milestone, reached_at, is_told)
    select contact_id, 'grade', grade, reached_at, true
    from regraded
    where rank > previous_rank
        and not exists (
            select 1
            from contact_milestones as known
            inner join ranks on ranks.grade = known.milestone
            where known.contact_id = regraded.contact_id and known.kind = 'grade'
                and ranks.rank > regraded.rank
        )
    order by contact_id
    on conflict (contact_id, kind, milestone) do nothing
    returning contact_id
)
select regraded.contact_id, regraded.grade, regraded.previous_grade, regraded.reached_at
from regraded
inner join reached on reached.contact_id = regraded.contact_id
order by regraded.contact_id

-- name: moves
-- Stages contacts left and entered with an evaluation, and whether they rose, or fell out (to dormant or churned), for
-- which a milestone can be told. Of first evaluations only those of newcomers, who came by themselves since the night
-- before; somebody found dormant or churned at first has not become so.
select
    stage_transitions.contact_id, stage_transitions.previous_stage, stage_transitions.new_stage,
    stage_transitions.occurred_at,
    stage_transitions.new_stage not in ('new', 'subscriber')
        and (after.stage_order > before.stage_order
            or stage_transitions.previous_stage in ('dormant', 'churned'))
        and (stage_transitions.previous_stage <> 'new'
            or stage_transitions.new_stage not in ('dormant', 'churned')) as is_rise
from stage_transitions
inner join lifecycle_stages as before on before.stage = stage_transitions.previous_stage
inner join lifecycle_stages as after on after.stage = stage_transitions.new_stage
inner join contacts on contacts.contact_id = stage_transitions.contact_id
where stage_transitions.occurred_at = cast(:as_of as timestamptz)
    and (cast(:contact_ids as bigint[]) is null
        or stage_transitions.contact_id = any(cast(:contact_ids as bigint[])))
    and (cast(:slices as int[]) is null
        or stage_transitions.contact_id % 64 = any(cast(:slices as int[])))
    and (stage_transitions.previous_stage <> 'new'
        or (contacts.source <> 'import'
            and contacts.created_at >= cast(:newcomers_since as timestamptz)))

-- name: reach_stages
-- Notes the stages contacts left, and those they rose to for the first time; gives the latter.
with given as (
    select contact_id, previous_stage, new_stage, reached_at, is_rise
    from unnest(
        cast(:ids as bigint[]), cast(:previous_stages as text[]), cast(:stages as text[]),
        cast(:moments as timestamptz[]), cast(:rises as boolean[])
    ) as given (contact_id, previous_stage, new_stage, reached_at, is_rise)
),
held as (
    insert into contact_milestones (contact_id, kind, milestone, reached_at, is_told)
    select distinct on (contact_id, previous_stage)
        contact_id, 'stage', previous_stage, reached_at, false
    from given
    where previous_stage not in ('new', 'subscriber')
    order by contact_id, previous_stage
    on conflict (contact_id, kind, milestone) do nothing
)
insert into contact_milestones (contact_id, kind, milestone, reached_at, is_told)
select distinct on (contact_id, new_stage) contact_id, 'stage', new_stage, reached_at, true
from given
where is_rise
order by contact_id, new_stage
on conflict (contact_id, kind, milestone) do nothing
returning contact_id, milestone as new_stage, reached_at

-- name: reach_first_grades
-- Notes the first grades of newcomers, as reach_stages does with their first stages; gives those above the lowest.
insert into contact_milestones (contact_id, kind, milestone, reached_at, is_told)
select contact_scores.contact_id, 'grade', contact_scores.grade, contact_scores.as_of, true
from stage_transitions
inner join contact_scores on contact_scores.contact_id = stage_transitions.contact_id
inner join contacts on contacts.contact_id = stage_transitions.contact_id
where stage_transitions.occurred_at = cast(:as_of as timestamptz)
    and stage_transitions.previous_stage = 'new'
    and (cast(:contact_ids as bigint[]) is null
        or stage_transitions.contact_id = any(cast(:contact_ids as bigint[])))
    and (cast(:slices as int[]) is null
        or stage_transitions.contact_id % 64 = any(cast(:slices as int[])))
    and contacts.source <> 'import'
    and contacts.created_at >= cast(:newcomers_since as timestamptz)
    and contact_scores.grade <> 'F'
order by contact_scores.contact_id
on conflict (contact_id, kind, milestone) do nothing
returning contact_id, milestone as grade, reached_at

-- name: begin
-- The moment things are told at, and the last scoring of everybody before an evaluation (null: it is the first one).
-- Few rows are looked up from here on: by their keys, whatever the evaluation forbade.
select
    now() as told_at, set_config('enable_nestloop', 'on', true) as enable_nestloop,
    (
        select max(as_of)
        from score_runs
        where is_current and as_of < cast(:as_of as timestamptz)
    ) as newcomers_since

-- name: read_by_index
-- The planner takes most rows for untold and would read them all; their own index holds next to nothing.
select set_config(
    'enable_seqscan', case when cast(:is_wanted as boolean) then 'off' else 'on' end, true)
