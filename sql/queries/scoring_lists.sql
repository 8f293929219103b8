-- What is told about scores: why one is what it is, who leads, how many stand where.
-- The statements about one contact take the binds of scoring.sql.

-- name: engagement_of_few
-- What events and awards bring, planned for a contact or a few.
-- include: scoring.engagement_of_few

-- name: opted_out_of_few
-- What of the addresses of a contact or a few is suppressed.
-- include: scoring.opted_out_of_few

-- name: stages_of_few
-- The score and stage of a contact or a few as of a moment, not kept.
-- include: scoring.stages with engagement = engagement_of_few, opted_out = opted_out_of_few

-- name: matches
-- Which events each active rule matches, whether its cap lets them count, and what they give.
with rules as materialized (
    -- include: scoring.rules_in_force
),
seen as (
    -- include: scoring.events_seen
)
select
    rules.rule_id, seen.event_id, seen.event_type, seen.occurred_at, rules.points,
    rules.points * power(0.5::float8, least(seen.age_seconds * rules.half_lives_per_second, 1000))
        as points_now,
    rules.max_per_contact = 0 or row_number() over (
        partition by seen.contact_id, rules.rule_id
        order by seen.occurred_at, seen.event_id
    ) <= rules.max_per_contact as is_counted
from seen
inner join rules
    on rules.event_type = seen.event_type
    and (rules.condition = '{}' or (seen.properties @> rules.condition
        and seen.properties || rules.condition = seen.properties))

-- name: explain_rules
-- What each rule that matched anything counted and gave.
select
    rule_id, count(*) as matched_count,
    count(*) filter (where is_counted) as counted_count,
    coalesce(sum(points_now) filter (where is_counted), 0) as points
from (
    -- include: matches
) as matches
group by rule_id

-- name: event_awards
-- The rules that count one event, and their points.
select rule_id, points
from (
    -- include: matches
) as matches
where event_id = cast(:event_id as bigint) and is_counted
order by rule_id

-- name: one_field_each
-- The contact as it was, once for each part of a profile, with nothing else filled in.
with people as (
    -- include: scoring.contacts_as_of
)
select
    -part.place as contact_id,
    case when part.name = 'email' then people.email_key else '' end as email_key,
    case when part.name = 'first_name' then people.first_name else '' end as first_name,
    case when part.name = 'last_name' then people.last_name else '' end as last_name,
    case when part.name = 'phone' then people.phone else '' end as phone,
    case when part.name = 'country' then people.country else '' end as country,
    case when part.name = 'custom_fields' then people.custom_fields else '{}' end as custom_fields,
    people.subscribed, people.created_at, people.version
from people
cross join unnest(cast(:parts as text[])) with ordinality as part (name, place)

-- name: no_engagement
-- Nothing anybody did.
select
    cast(null as bigint) as contact_id, cast(null as float8) as points,
    cast(null as float8) as counted_points, cast(null as timestamptz) as last_activity_at,
    cast(null as int) as known_version, cast(null as float8) as known_profile
where false

-- name: explain_profile
-- What each part of the profile gives: the score of the contact with that part alone.
select (cast(:parts as text[]))[-contact_id] as part, profile_score as points
from (
    -- include: scoring.evaluate with contacts_as_of = one_field_each, engagement = no_engagement
) as evaluated

-- name: explain_manual
-- The sum of the points given by hand.
select coalesce(sum(points), 0) as points
from (
    -- include: scoring.awards_seen
) as awarded

-- name: history
-- Awards of a contact, newest first: by hand, and by rules.
select *
from (
    select
        award_id, contact_id, cast(null as bigint) as rule_id, event_type, points, reason,
        rule_version, occurred_at, created_at
    from score_awards
    where contact_id = cast(:contact_id as bigint)
    union all
    select
        award_id, contact_id, rule_id, event_type, points, reason, rule_version, occurred_at,
        created_at
    from score_rule_awards
    where contact_id = cast(:contact_id as bigint)
) as awards
where cast(:before as bigint) is null or award_id < cast(:before as bigint)
order by award_id desc
limit :limit offset :skip

-- name: count_history
-- How many awards a contact has.
select
    (select count(*) from score_awards where contact_id = cast(:contact_id as bigint))
    + (select count(*) from score_rule_awards where contact_id = cast(:contact_id as bigint))

-- name: stage_counts
-- Scored contacts by stage, with the averages of their scores.
select
    coalesce(lifecycle_stage, 'new') as stage,
    count(*) as contact_count,
    -- A mean that guards against overflow costs three times as much; scores are small.
    sum(total_score) / count(*) as average_score,
    sum(engagement_score) / count(*) as average_engagement
from contact_scores
group by lifecycle_stage

-- name: reengagement
-- Subscribed contacts whose last activity lies between two moments, the most engaged first; of so many (most; null:
-- all) looked at.
with candidates as materialized (
    select contact_id, total_score, engagement_score, last_activity_at, lifecycle_stage
    from contact_scores
    where last_activity_at >= cast(:earliest as timestamptz)
        and last_activity_at <= cast(:latest as timestamptz)
        and engagement_score > 5
    order by engagement_score desc, contact_id
    limit cast(:most as bigint)
)
select
    contacts.contact_id, contacts.email, contacts.first_name,
    coalesce(candidates.lifecycle_stage, 'new') as lifecycle_stage,
    candidates.total_score, candidates.engagement_score, candidates.last_activity_at,
    (select count(*) from candidates) as candidate_count
from candidates
inner join contacts on contacts.contact_id = candidates.contact_id
where contacts.subscribed
order by candidates.engagement_score desc, candidates.contact_id
limit :limit
