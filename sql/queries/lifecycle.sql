-- Lifecycle evaluations on request: of supposed inputs, and of those who wait the longest.
-- Statements that include scoring.sql take its binds.

-- name: engagement_of_few
-- What events and awards bring, planned for a contact or a few.
-- include: scoring.engagement_of_few

-- name: opted_out_of_few
-- What of the addresses of a contact or a few is suppressed.
-- include: scoring.opted_out_of_few

-- name: supposed_scores
-- A supposed score of a contact with its facts; nobody has none.
with evaluated as (
    -- include: scoring.evaluate with engagement = engagement_of_few
)
select
    given.contact_id, evaluated.email_key,
    coalesce(evaluated.subscribed, true) as subscribed,
    coalesce(evaluated.created_at, cast(:as_of as timestamptz)) as created_at,
    evaluated.last_activity_at, cast(:score as float8) as total_score,
    evaluated.engagement_score, evaluated.profile_score, evaluated.recency_score, evaluated.grade
from (select cast(:contact_id as bigint) as contact_id) as given
left join evaluated on evaluated.contact_id = given.contact_id

-- name: supposed_stages
-- A supposed stage; held since the beginning of time, unless the contact really is in it. No score is kept of it.
select
    cast(:contact_id as bigint) as contact_id, cast(:stage as text) as lifecycle_stage,
    -- Before now, whenever that was: what was held before it does not matter.
    least(coalesce(max(since), '-infinity'), cast(:as_of as timestamptz) - interval '1 microsecond')
        as since,
    max(idle_limit_days) as limit_days,
    cast(null as timestamptz) as stored_as_of, cast(null as int) as stored_version,
    cast(null as float8) as stored_total, cast(null as float8) as stored_engagement,
    cast(null as float8) as stored_profile, cast(null as float8) as stored_recency,
    cast(null as timestamptz) as stored_activity_at, cast(null as text) as stored_grade
from contact_stages
where contact_id = cast(:contact_id as bigint) and lifecycle_stage = cast(:stage as text)

-- name: stages_of_few
-- Scores and the stages that follow, of a contact or a few.
-- include: scoring.stages with opted_out = opted_out_of_few

-- name: suppose
-- What a lifecycle evaluation would make of a supposed score and stage.
select next_stage, reason
from (
    -- include: stages_of_few with evaluate = supposed_scores, kept_scores = supposed_stages
) as supposed

-- name: longest_unevaluated
-- The contacts whose last lifecycle evaluation on request, or change of stage, is the longest ago; first of all who
-- has none. Whoever signed up a day before the last scoring of everybody has one, so only later ones are asked.
with everybody as (
    select coalesce(max(as_of), '-infinity') - interval '1 day' as until
    from (
        select as_of
        from score_runs
        where is_current
        group by as_of, buckets
        having count(distinct bucket) = buckets
    ) as nights
),
newcomers as (
    select contacts.contact_id, cast(null as timestamptz) as evaluated_at
    from contacts
    where contacts.created_at > (select until from everybody)
        -- One look-up for each of a few: an anti-join would hash the stages of everybody.
        and (
            select count(*)
            from contact_stages
            where contact_stages.contact_id = contacts.contact_id
        ) = 0
    order by contacts.created_at, contacts.contact_id
    limit :limit
),
waiting as (
    select contact_stages.contact_id, contact_stages.evaluated_at
    from contact_stages
    where exists (
        select 1
        from contacts
        where contacts.contact_id = contact_stages.contact_id
    )
    order by contact_stages.evaluated_at, contact_stages.contact_id
    limit :limit
)
select contact_id
from (
    select contact_id, evaluated_at from newcomers
    union all
    select contact_id, evaluated_at from waiting
) as candidates
order by evaluated_at nulls first, contact_id
limit :limit

-- name: hold_unheld
-- Those of some contacts that nobody else works on.
select contact_id
from contacts
where contact_id = any(cast(:contact_ids as bigint[]))
order by contact_id
for no key update skip locked

-- name: mark_evaluated
-- Their turn comes again after everybody else's.
update contact_stages
set evaluated_at = cast(:as_of as timestamptz)
where contact_id = any(cast(:contact_ids as bigint[]))

-- name: moves
-- The changes of stage that an evaluation made.
select contact_id, previous_stage, new_stage, reason
from stage_transitions
where contact_id = any(cast(:contact_ids as bigint[]))
    and occurred_at = cast(:as_of as timestamptz)
order by contact_id, transition_id

-- name: engagement
-- What a contact did: counts of some days, the last moments of all time.
select
    count(*) filter (where event_type = 'email_opened' and is_recent) as open_count,
    count(*) filter (where event_type = 'email_clicked' and is_recent) as click_count,
    count(*) filter (where event_type = 'email_bounced' and is_recent) as bounce_count,
    count(*) filter (where event_type = 'unsubscribed' and is_recent) as unsubscribe_count,
    count(*) filter (
        where is_recent and event_type <> all(cast(:not_engagement as text[]))
    ) as engagement_count,
    max(occurred_at) filter (where event_type = 'email_opened') as last_open_at,
    max(occurred_at) filter (where event_type = 'email_clicked') as last_click_at,
    (
        select max(last_activity_at)
        from (
            -- include: scoring.engagement_of_few
        ) as engaged
    ) as last_activity_at
from (
    select seen.*, occurred_at > cast(:since as timestamptz) as is_recent
    from (
        -- include: scoring.events_seen
    ) as seen
) as events

-- name: move_by_hand
-- Moves contacts to a stage; gives each contact that exists with the stage it was in. Scores are locked before stages,
-- as evaluations do: the stage is copied to them.
with scored as materialized (
    select contact_id
    from contact_scores
    where contact_id = any(cast(:contact_ids as bigint[]))
    order by contact_id
    for no key update
),

standing as materialized (
    select contacts.contact_id, coalesce(contact_stages.lifecycle_stage, 'new') as previous_stage
    from contacts
    left join contact_stages on contact_stages.contact_id = contacts.contact_id
    where contacts.contact_id = any(cast(:contact_ids as bigint[]))
        and (select count(*) from scored) >= 0
),

moved as (
    insert into contact_stages (contact_id, lifecycle_stage, since, evaluated_at)
    select
        contact_id, cast(:stage as text), cast(:moment as timestamptz),
        cast(:moment as timestamptz)
    from standing
    where previous_stage <> cast(:stage as text)
    on conflict (contact_id) do update
    set lifecycle_stage = excluded.lifecycle_stage, since = excluded.since
),

noted as (
    insert into stage_transitions (
        contact_id, previous_stage, new_stage, reason, actor, occurred_at)
    select
        contact_id, previous_stage, cast(:stage as text), cast(:reason as text),
        cast(:actor as text), cast(:moment as timestamptz)
    from standing
    where previous_stage <> cast(:stage as text)
)

select contact_id, previous_stage from standing order by contact_id;
