-- What a score is, and what stage of the lifecycle follows from it. The statements build on each other by
-- inclusion: engagement < engaged < evaluate < standing < held_stages < situations < stages < compared < recalculate.
-- Parts end with `order by contact_id`: a fence, so that each is computed once and not wherever it is used, and for a
-- night the order in which everything is merged.
-- Binds of all: as_of, known_at (null: whatever arrived by now), rule_version, contact_ids (null: all), slices (of
-- contact_id % 64; null: all), not_engagement (event types that are no positive engagement), checkouts_since (14 days
-- ago; as a value, so that older months are left out when a statement is planned).

-- name: contacts_as_of
-- Contacts as they were at a moment: the open version, or the closed one that held then. All are read once, in the
-- order of their key where that is asked for.
with earlier as (
    select distinct on (contact_id)
        contact_id, email_key, first_name, last_name, phone, country, custom_fields, subscribed,
        version
    from contact_history
    where valid_from <= cast(:as_of as timestamptz) and valid_to > cast(:as_of as timestamptz)
        and (cast(:contact_ids as bigint[]) is null
            or contact_id = any(cast(:contact_ids as bigint[])))
        and (cast(:slices as int[]) is null or contact_id % 64 = any(cast(:slices as int[])))
    order by contact_id, version desc
)
select
    contacts.contact_id, contacts.created_at,
    case when is_open then contacts.email_key else earlier.email_key end as email_key,
    case when is_open then contacts.first_name else earlier.first_name end as first_name,
    case when is_open then contacts.last_name else earlier.last_name end as last_name,
    case when is_open then contacts.phone else earlier.phone end as phone,
    case when is_open then contacts.country else earlier.country end as country,
    case when is_open then contacts.custom_fields else earlier.custom_fields end as custom_fields,
    case when is_open then contacts.subscribed else earlier.subscribed end as subscribed,
    case when is_open then contacts.version else earlier.version end as version
from (
    select *, coalesce(updated_at, created_at) <= cast(:as_of as timestamptz) as is_open
    from contacts
    where (cast(:contact_ids as bigint[]) is null
            or contact_id = any(cast(:contact_ids as bigint[])))
        and (cast(:slices as int[]) is null or contact_id % 64 = any(cast(:slices as int[])))
) as contacts
left join earlier
    on earlier.contact_id = contacts.contact_id and not contacts.is_open
    and contacts.created_at <= cast(:as_of as timestamptz)
where contacts.is_open or earlier.contact_id is not null
order by contacts.contact_id

-- name: rules_in_force
-- The active rules of one version, with the half-life as a speed.
select
    rule.id as rule_id, rule.event_type, rule.condition, rule.points, rule.max_per_contact,
    case when rule.decay_days > 0 then 1.0::float8 / (86400 * rule.decay_days) else 0 end
        as half_lives_per_second,
    rule.points < 0 and rule.event_type <> all(cast(:not_engagement as text[])) as makes_doubtful,
    -- Events that tell of scores: a rule that counts them must not make them be told again.
    rule.event_type in ('score_changed', 'milestone_reached') as is_echo
from scoring_rule_versions
cross join lateral jsonb_to_recordset(scoring_rule_versions.rules) as rule (
    id bigint, event_type text, condition jsonb, points float8, max_per_contact int,
    decay_days float8, active boolean)
where scoring_rule_versions.version = cast(:rule_version as int) and rule.active

-- name: events_seen
-- The events that had happened, and were known, at a moment; with their age.
select
    events.contact_id, events.event_id, events.occurred_at, events.event_type, events.properties,
    date_part('epoch', cast(:as_of as timestamptz) - events.occurred_at) as age_seconds
from events
where events.occurred_at <= cast(:as_of as timestamptz)
    and (cast(:known_at as timestamptz) is null
        or events.received_at <= cast(:known_at as timestamptz))
    and (cast(:contact_ids as bigint[]) is null
        or events.contact_id = any(cast(:contact_ids as bigint[])))
    and (cast(:slices as int[]) is null
        or events.contact_id % 64 = any(cast(:slices as int[])))

-- name: awards_seen
-- Points given by hand that held at a moment, summed; they do not decay.
select
    contact_id,
    sum(points) as points,
    max(occurred_at) filter (where points > 0) as last_activity_at
from score_awards
where occurred_at <= cast(:as_of as timestamptz)
    and (cast(:known_at as timestamptz) is null or created_at <= cast(:known_at as timestamptz))
    and (cast(:contact_ids as bigint[]) is null
        or contact_id = any(cast(:contact_ids as bigint[])))
group by contact_id

-- name: engagement
-- What events and awards bring each contact: points before the floor, the same without decay, and the last
-- positive engagement. Points without decay only change when something is counted, so they tell news from fading.
with rules as materialized (
    -- include: rules_in_force
),
seen as not materialized (
    -- include: events_seen
),
-- Rules without a cap need no order. 0.5 to the power of 1000 is nothing; from 1075 on float8 raises an underflow.
uncapped as (
    select
        seen.contact_id, sum(rules.points
            * power(0.5::float8, least(seen.age_seconds * rules.half_lives_per_second, 1000)))
            as points,
        sum(rules.points) filter (where not rules.is_echo) as counted_points,
        max(seen.occurred_at) filter (
            where seen.event_type <> all(cast(:not_engagement as text[]))
                and seen.event_type not in (select event_type from rules where makes_doubtful)
        ) as last_activity_at
    from seen
    left join rules
        on rules.event_type = seen.event_type
        and rules.max_per_contact = 0
        and (rules.condition = '{}' or (seen.properties @> rules.condition
            and seen.properties || rules.condition = seen.properties))
    group by seen.contact_id
),
capped (contact_id, points, counted_points) as (
    select
        contact_id,
        sum(points * power(0.5::float8, least(age_seconds * half_lives_per_second, 1000))),
        sum(points) filter (where not is_echo)
    from (
        select
            seen.contact_id, seen.age_seconds, rules.points, rules.is_echo,
            rules.half_lives_per_second, rules.max_per_contact,
            row_number() over (
                partition by seen.contact_id, rules.rule_id
                order by seen.occurred_at, seen.event_id
            ) as place
        from seen
        inner join rules
            on rules.event_type = seen.event_type
            and rules.max_per_contact > 0
            and (rules.condition = '{}' or (seen.properties @> rules.condition
                and seen.properties || rules.condition = seen.properties))
    ) as counted
    where place <= max_per_contact
    group by contact_id
),
-- Of a type that some rule takes points off, an event is positive unless its matched rules sum below zero.
doubtful as (
    select contact_id, max(occurred_at) as last_activity_at
    from (
        select seen.contact_id, seen.occurred_at
        from seen
        left join rules
            on rules.event_type = seen.event_type
            and (rules.condition = '{}' or (seen.properties @> rules.condition
                and seen.properties || rules.condition = seen.properties))
        where seen.event_type in (select event_type from rules where makes_doubtful)
        group by seen.contact_id, seen.event_id, seen.occurred_at
        having coalesce(sum(rules.points), 0) >= 0
    ) as positive
    group by contact_id
),
awarded as (
    -- include: awards_seen
)
select
    contact_id, coalesce(sum(points), 0) as points,
    coalesce(sum(counted_points), 0) as counted_points, max(last_activity_at) as last_activity_at,
    cast(null as int) as known_version, cast(null as float8) as known_profile
from (
    select contact_id, points, counted_points, last_activity_at from uncapped
    union all
    select contact_id, points, counted_points, null from capped
    union all
    select contact_id, 0, 0, last_activity_at from doubtful
    union all
    select contact_id, points, points, last_activity_at from awarded
) as brought
group by contact_id

-- name: engagement_of_few
-- As engagement, in one look at the events: for a few contacts, planning is what costs.
with seen as (
    -- include: events_seen
),
rules as (
    -- include: rules_in_force
),
awarded as (
    -- include: awards_seen
),
matched as (
    select
        seen.*, rules.points, rules.is_echo,
        power(0.5::float8, least(seen.age_seconds * rules.half_lives_per_second, 1000)) as worth,
        rules.max_per_contact = 0 or rules.max_per_contact >= row_number() over (
            partition by seen.contact_id, rules.rule_id order by seen.occurred_at, seen.event_id
        ) as is_counted,
        seen.event_type <> all(cast(:not_engagement as text[])) and 0 <= coalesce(
            sum(rules.points) over (partition by seen.contact_id, seen.event_id), 0) as is_positive
    from seen
    left join rules
        on rules.event_type = seen.event_type
        and (rules.condition = '{}' or (seen.properties @> rules.condition
            and seen.properties || rules.condition = seen.properties))
)
select
    contact_id, coalesce(sum(points), 0) as points,
    coalesce(sum(counted_points), 0) as counted_points, max(last_activity_at) as last_activity_at,
    cast(null as int) as known_version, cast(null as float8) as known_profile
from (
    select
        contact_id, sum(points * worth) filter (where is_counted) as points,
        sum(points) filter (where is_counted and not is_echo) as counted_points,
        max(occurred_at) filter (where is_positive) as last_activity_at
    from matched
    group by contact_id
    union all
    select contact_id, points, points, last_activity_at from awarded
) as brought
group by contact_id

-- name: engaged
-- Everybody with what engagement brings them.
with people as (
    -- include: contacts_as_of
),
engagement as (
    -- include: engagement
)
select
    people.*, engagement.points, engagement.counted_points, engagement.last_activity_at,
    engagement.known_version, engagement.known_profile
from people
left join engagement on engagement.contact_id = people.contact_id

-- name: measured
-- What scores are made of: engagement, profile, and how long the last activity is ago. Parts to 9 decimals.
with people as (
    -- include: engaged
)
select
    people.contact_id, people.email_key, people.subscribed, people.created_at, people.version,
    people.last_activity_at,
    people.known_version is distinct from people.version as is_profile_new,
    floor(greatest(coalesce(people.points, 0), 0) * 1e9 + 0.5) / 1e9 as engagement_score,
    -- The order of summing must not look like news.
    floor(coalesce(people.counted_points, 0) * 1e6 + 0.5) / 1e6 as counted_points,
    case when people.known_version = people.version then people.known_profile else (
        -- Nearly every text begins with a character that is no blank; trimming it costs ten times more.
        case
            when people.email_key collate "C" > '!' or btrim(people.email_key, e' \t\r\n') <> ''
                then 4 else 0 end
        + case
            when people.first_name collate "C" > '!' or btrim(people.first_name, e' \t\r\n') <> ''
                then 4 else 0 end
        + case
            when people.last_name collate "C" > '!' or btrim(people.last_name, e' \t\r\n') <> ''
                then 3 else 0 end
        + case
            when people.phone collate "C" > '!' or btrim(people.phone, e' \t\r\n') <> ''
                then 3 else 0 end
        + case
            when people.country collate "C" > '!' or btrim(people.country, e' \t\r\n') <> ''
                then 3 else 0 end
        + case when people.custom_fields <> '{}' and (
            select count(*)
            from jsonb_each(people.custom_fields) as field
            where field.value not in ('null', '[]', '{}')
                and btrim(field.value #>> '{}', e' \t\r\n') <> ''
        ) >= 2 then 3 else 0 end)::float8 end as profile_score,
    date_part('epoch', cast(:as_of as timestamptz) - people.last_activity_at) / 86400
        as idle_days
from people

-- name: evaluate
-- The score of every contact as of a moment: the one definition. Parts to 9 decimals, total to 2, half up.
with parts as (
    -- include: measured
    order by contact_id
),
aged as (
    select
        parts.*,
        case
            when idle_days < 90 then floor(20 * exp(-0.03 * idle_days) * 1e9 + 0.5) / 1e9
            else 0
        end as recency_score
    from parts
    order by contact_id
),
scored as (
    select
        aged.*,
        floor((engagement_score + profile_score + recency_score) * 100 + 0.5) / 100 as total_score
    from aged
    order by contact_id
)
select
    contact_id, email_key, subscribed, created_at, last_activity_at, total_score, engagement_score,
    profile_score, recency_score, version, is_profile_new,
    case
        when total_score >= 90 then 'A+'
        when total_score >= 80 then 'A'
        when total_score >= 70 then 'B+'
        when total_score >= 60 then 'B'
        when total_score >= 45 then 'C'
        when total_score >= 25 then 'D'
        else 'F'
    end as grade,
    counted_points
from scored
order by contact_id

-- name: kept_scores
-- What is kept of each contact: the score, and beside it the copy of the present stage.
select
    contact_id, lifecycle_stage, stage_since as since, stage_idle_limit_days as limit_days,
    as_of as stored_as_of, rule_version as stored_version, total_score as stored_total,
    engagement_score as stored_engagement, profile_score as stored_profile,
    recency_score as stored_recency, last_activity_at as stored_activity_at, grade as stored_grade
from contact_scores
where (cast(:contact_ids as bigint[]) is null
        or contact_id = any(cast(:contact_ids as bigint[])))
    and (cast(:slices as int[]) is null or contact_id % 64 = any(cast(:slices as int[])))

-- name: stage_facts
-- What overrides the ladder: an order that was not fully refunded, a checkout of the last 14 days. Not asked of
-- everybody whom no ladder moves any more: who is a customer already stays one, or becomes an evangelist by score.
-- Of a few it is, because another stage may be supposed of them.
select
    contact_id,
    max(ordered_at) as last_order_at,
    coalesce(bool_or(is_kept), false) as has_order,
    max(checkout_at) as last_checkout_at
from (
    select
        contact_id, placed_at as ordered_at,
        refunded_total = 0 or refunded_total < total as is_kept,
        cast(null as timestamptz) as checkout_at
    from orders
    where placed_at <= cast(:as_of as timestamptz)
        and (cast(:known_at as timestamptz) is null
            or received_at <= cast(:known_at as timestamptz))
        and (cast(:contact_ids as bigint[]) is null
            or contact_id = any(cast(:contact_ids as bigint[])))
        and (cast(:contact_ids as bigint[]) is not null
            or contact_id not in (
                select held.contact_id
                from contact_stages as held
                where held.lifecycle_stage in ('customer', 'evangelist')
                    and held.since < cast(:as_of as timestamptz)
            ))
    union all
    select contact_id, null, null, occurred_at
    from events
    where event_type = 'checkout_started'
        and occurred_at >= cast(:checkouts_since as timestamptz)
        and occurred_at <= cast(:as_of as timestamptz)
        and (cast(:known_at as timestamptz) is null
            or received_at <= cast(:known_at as timestamptz))
        and (cast(:contact_ids as bigint[]) is null
            or contact_id = any(cast(:contact_ids as bigint[])))
) as shopping
where cast(:slices as int[]) is null or contact_id % 64 = any(cast(:slices as int[]))
group by contact_id

-- name: opted_out
-- Addresses that were suppressed at a moment for a reason that ends a relation.
select email_key
from suppressions
where reason in ('unsubscribe', 'complaint', 'bounce')
    and created_at <= cast(:as_of as timestamptz)
union
select email_key
from suppression_history
where reason in ('unsubscribe', 'complaint', 'bounce')
    and valid_from <= cast(:as_of as timestamptz)
    and valid_to > cast(:as_of as timestamptz)

-- name: opted_out_of_few
-- As opted_out, of the addresses that a few contacts have or had.
with addresses as materialized (
    select email_key
    from contacts
    where contact_id = any(cast(:contact_ids as bigint[]))
    union
    select email_key
    from contact_history
    where contact_id = any(cast(:contact_ids as bigint[]))
)
select suppressions.email_key
from addresses
inner join suppressions on suppressions.email_key = addresses.email_key
where suppressions.reason in ('unsubscribe', 'complaint', 'bounce')
    and suppressions.created_at <= cast(:as_of as timestamptz)
union
select suppression_history.email_key
from addresses
inner join suppression_history on suppression_history.email_key = addresses.email_key
where suppression_history.reason in ('unsubscribe', 'complaint', 'bounce')
    and suppression_history.valid_from <= cast(:as_of as timestamptz)
    and suppression_history.valid_to > cast(:as_of as timestamptz)

-- name: standing
-- Scores with what decides the lifecycle: the present stage, facts, and the ladder. The one threshold table.
with scored as (
    -- include: evaluate
),
kept as (
    -- include: kept_scores
),
facts as (
    -- include: stage_facts
),
opted_out as (
    -- include: opted_out
)
select
    scored.*,
    kept.contact_id is not null as is_stored, kept.stored_as_of, kept.stored_version,
    kept.stored_total, kept.stored_engagement, kept.stored_profile, kept.stored_recency,
    kept.stored_activity_at, kept.stored_grade,
    -- Who was moved by hand before the first evaluation has a stage, and no score to copy it to.
    case when kept.contact_id is not null then kept.lifecycle_stage else (
        select contact_stages.lifecycle_stage from contact_stages
        where contact_stages.contact_id = scored.contact_id
    ) end as present_stage,
    case when kept.contact_id is not null then kept.since else (
        select contact_stages.since from contact_stages
        where contact_stages.contact_id = scored.contact_id
    ) end as present_since,
    case when kept.contact_id is not null then kept.limit_days else (
        select contact_stages.idle_limit_days from contact_stages
        where contact_stages.contact_id = scored.contact_id
    ) end as present_limit_days,
    not scored.subscribed
        or coalesce(scored.email_key in (select email_key from opted_out), false) as is_opted_out,
    case
        when scored.total_score >= 90 then 'evangelist'
        when scored.total_score >= 70 or facts.has_order then 'customer'
        when facts.last_checkout_at > coalesce(facts.last_order_at, '-infinity')
            then 'opportunity'
        when scored.total_score >= 55 then 'sql'
        when scored.total_score >= 40 then 'mql'
        when scored.total_score >= 20 then 'lead'
        else 'subscriber'
    end as ladder_stage
from scored
left join kept on kept.contact_id = scored.contact_id
left join facts on facts.contact_id = scored.contact_id

-- name: held_stages
-- Scores with the present stage, and the one held just before the moment, so that evaluating it again decides the same.
-- What was before is looked up only of who moved since: hardly anybody in a night.
with standing as (
    -- include: standing
    order by contact_id
)
select
    standing.*,
    coalesce(case
        when present_since >= cast(:as_of as timestamptz) then (
            select new_stage
            from stage_transitions
            where stage_transitions.contact_id = standing.contact_id
                and occurred_at < cast(:as_of as timestamptz)
            order by occurred_at desc, transition_id desc
            limit 1
        )
        else present_stage
    end, 'new') as held_stage,
    case
        when present_since >= cast(:as_of as timestamptz) then (
            select max(occurred_at)
            from stage_transitions
            where stage_transitions.contact_id = standing.contact_id
                and occurred_at < cast(:as_of as timestamptz)
        )
        else present_since
    end as held_since,
    case
        when present_since >= cast(:as_of as timestamptz) then (
            select idle_limit_days
            from stage_transitions
            where stage_transitions.contact_id = standing.contact_id
                and occurred_at < cast(:as_of as timestamptz)
            order by occurred_at desc, transition_id desc
            limit 1
        )
        else present_limit_days
    end as held_limit_days
from standing
order by contact_id

-- name: situations
-- Scores with what decides the lifecycle, and how long a stage waits for engagement.
with held as (
    -- include: held_stages
)
select
    held.*,
    case held_stage
        when 'subscriber' then interval '60 days'
        when 'lead' then interval '45 days'
        when 'mql' then interval '30 days'
        when 'sql' then interval '21 days'
        when 'new' then interval '90 days'
        when 'opportunity' then interval '90 days'
    end as idle_limit
from held
order by contact_id

-- name: stages
-- Scores with the lifecycle stage that follows and why; is_lifecycle adds churn and dormancy to the ladder.
with situations as (
    -- include: situations
),
decided as (
    select
        situations.*,
        case
            when held_stage = 'evangelist' then 'evangelist'
            when held_stage = 'customer' and ladder_stage = 'evangelist' then 'evangelist'
            when held_stage = 'customer' then 'customer'
            -- Left only by new consent.
            when held_stage = 'churned' and (not cast(:is_lifecycle as boolean) or is_opted_out
                or not exists (
                    select 1
                    from consents
                    where consents.contact_id = situations.contact_id
                        and consents.status = 'granted'
                        and consents.recorded_at > situations.held_since
                        and consents.recorded_at <= cast(:as_of as timestamptz)
                )) then 'churned'
            when cast(:is_lifecycle as boolean) and is_opted_out then 'churned'
            -- Left by later activity; or by earlier one known only now, unless silence since has
            -- been too long as well. Least skips nulls: a move by hand has no such limit.
            when held_stage = 'dormant' and coalesce(last_activity_at <= least(
                held_since,
                cast(:as_of as timestamptz) - make_interval(days => held_limit_days)
            ), true) then 'dormant'
            when cast(:is_lifecycle as boolean)
                and coalesce(last_activity_at, created_at)
                    <= cast(:as_of as timestamptz) - idle_limit
                then 'dormant'
            else ladder_stage
        end as next_stage
    from situations
    order by contact_id
)
select
    decided.*,
    case
        -- Of everybody, only who moves is told why.
        when cast(:contact_ids as bigint[]) is null and present_stage = next_stage then null
        when next_stage = 'churned' and not subscribed then 'unsubscribed'
        when next_stage = 'churned' then 'suppressed'
        when next_stage = 'dormant' and held_stage = 'dormant' then 'no engagement since'
        when next_stage = 'dormant'
            then 'no engagement for ' || date_part('day', idle_limit) || ' days'
        when next_stage = 'opportunity' then 'checkout without an order'
        when next_stage = 'customer' and total_score < 70 then 'order'
        else 'score ' || total_score
    end as reason
from decided
order by contact_id

-- name: compared
-- Scores and stages as they follow, beside what is stored: what changed, and who moved.
with staged as (
    -- include: stages
)
select
    -- Only what is used: a million of these rows are held in memory. What filters ask for comes first.
    contact_id,
    not is_stored or (
        stored_as_of <= cast(:as_of as timestamptz)
        and ((stored_total, stored_profile, stored_recency, stored_activity_at, stored_version)
            is distinct from (total_score, profile_score, recency_score, last_activity_at,
                cast(:rule_version as int))
            -- Weights summed in another order, or as of another landmark, may differ in the last digit.
            or abs(stored_engagement - engagement_score) > 2e-9)
    ) as is_changed,
    present_since is null or (
        present_since <= cast(:as_of as timestamptz) and present_stage <> next_stage
    ) as is_moved,
    is_stored, case when is_profile_new then version end as new_version,
    grade, stored_grade, total_score, engagement_score, profile_score, recency_score,
    last_activity_at, counted_points, next_stage, reason,
    case when present_stage <> next_stage then present_stage end as present_stage,
    case when not is_stored then present_since end as present_since,
    case when not is_stored then present_limit_days end as present_limit_days,
    case when next_stage = 'dormant' then cast(date_part('day', idle_limit) as int) end
        as idle_limit_days
from staged
order by contact_id

-- name: recalculate
-- Evaluate contacts and keep it: scores and stages that changed, transitions, a snapshot of everybody.
with compared as materialized (
    -- include: compared
),
rare as materialized (
    select *, cast(:as_of as timestamptz) as as_of
    from compared where is_moved or new_version is not null or not is_stored
),
-- A profile is computed anew only for another version of its contact.
profiles as (
    insert into score_states (contact_id, weights, counts, profile_version, profile_score)
    select contact_id, '{}', '{}', new_version, profile_score from rare
    where new_version is not null and cast(:keep_profiles as boolean)
    on conflict (contact_id) do update
    set (profile_version, profile_score) = (excluded.profile_version, excluded.profile_score)
),
-- An update of its own costs less than conflicts that turn into one; it loses against a later evaluation.
renewed as (
    update contact_scores
    set (total_score, engagement_score, profile_score, recency_score, grade, last_activity_at,
            as_of, rule_version, updated_at, counted_points)
        = (compared.total_score, compared.engagement_score, compared.profile_score,
            compared.recency_score, compared.grade, compared.last_activity_at,
            cast(:as_of as timestamptz), cast(:rule_version as int), now(),
            compared.counted_points),
        -- By other rules the same events bring other points: no news of the contact.
        told_points = coalesce(
            case when contact_scores.rule_version = cast(:rule_version as int)
                then contact_scores.told_points end, compared.counted_points),
        told_engagement = coalesce(contact_scores.told_engagement, contact_scores.engagement_score),
        told_grade = coalesce(contact_scores.told_grade, contact_scores.grade)
    from compared
    where compared.contact_id = contact_scores.contact_id
        and compared.is_changed and compared.is_stored and cast(:keep_current as boolean)
        and contact_scores.as_of <= cast(:as_of as timestamptz)
),
scores as (
    insert into contact_scores (contact_id, total_score, engagement_score, profile_score,
        recency_score, grade, told_grade, as_of, last_activity_at, rule_version, counted_points,
        told_points, told_engagement, lifecycle_stage, stage_since, stage_idle_limit_days)
    select contact_id, total_score, engagement_score, profile_score, recency_score, grade, grade,
        as_of, last_activity_at, cast(:rule_version as int), counted_points, counted_points,
        engagement_score, coalesce(case when not is_moved then present_stage end, next_stage),
        case when is_moved then as_of else present_since end,
        case when is_moved then idle_limit_days else present_limit_days end
    from rare where not is_stored and cast(:keep_current as boolean)
    on conflict (contact_id) do nothing
),
-- Stages are copied to scores; whoever writes both locks the score first.
held as materialized (
    select score.contact_id
    from (select contact_id from rare where is_moved and is_stored order by contact_id) as moving
    cross join lateral (
        select contact_id from contact_scores where contact_scores.contact_id = moving.contact_id
            and cast(:keep_current as boolean) for no key update
    ) as score
),
moves as (
    insert into stage_transitions (
        contact_id, previous_stage, new_stage, reason, idle_limit_days, occurred_at)
    select contact_id, coalesce(present_stage, 'new'), next_stage, reason, idle_limit_days, as_of
    from rare where is_moved and (select count(*) from held) >= 0 and cast(:keep_current as boolean)
    returning contact_id, new_stage, idle_limit_days, occurred_at
),
kept_stages as (
    insert into contact_stages (contact_id, lifecycle_stage, idle_limit_days, since, evaluated_at)
    select contact_id, new_stage, idle_limit_days, occurred_at, occurred_at from moves
    on conflict (contact_id) do update
    set (lifecycle_stage, idle_limit_days, since, evaluated_at) = (excluded.lifecycle_stage,
        excluded.idle_limit_days, excluded.since, excluded.evaluated_at)
),
snapshots as (
    insert into score_history (contact_id, as_of, total_score, engagement_score, profile_score,
        recency_score, grade, lifecycle_stage, last_activity_at, rule_version, source)
    select contact_id, cast(:as_of as timestamptz), total_score, engagement_score, profile_score,
        recency_score, grade, next_stage, last_activity_at, cast(:rule_version as int),
        cast(:source as text)
    from compared where cast(:keep_snapshots as boolean)
    on conflict do nothing returning 1
)
select
    stored_grade, grade, (select count(*) from snapshots) as snapshot_count,
    count(*) as contact_count, count(*) filter (where is_changed) as changed_count,
    count(*) filter (where is_moved) as moved_count
from compared group by stored_grade, grade

-- name: recalculate_few
-- As recalculate, of a few contacts.
-- include: recalculate with engagement = engagement_of_few, opted_out = opted_out_of_few

-- name: add_rule_version
-- The next version of the rules: all of them as they stand now, inactive ones included.
insert into scoring_rule_versions (version, rules, created_by, created_at)
select
    (select coalesce(max(version), 0) + 1 from scoring_rule_versions),
    coalesce(jsonb_agg(jsonb_build_object(
        'id', rule_id, 'name', name, 'description', description, 'event_type', event_type,
        'condition', condition, 'points', points, 'max_per_contact', max_per_contact,
        'decay_days', decay_days, 'active', active, 'created_at', created_at
    ) order by rule_id), '[]'),
    cast(:actor as text), cast(:now as timestamptz)
from scoring_rules
returning version

-- name: weighings
-- The rules of a version, and as texts what their weights depend on and what they make doubtful.
with rules as (
    -- include: rules_in_force
)
select
    rule_id, event_type, points, half_lives_per_second,
    cast(jsonb_build_array(event_type, condition, max_per_contact, half_lives_per_second) as text)
        as weighing,
    case
        when event_type in (select event_type from rules where makes_doubtful)
            then cast(jsonb_build_array(event_type, condition, points) as text)
    end as doubt
from rules
order by rule_id

-- name: aim
-- Says how far slices are about to be folded. Committed before the fold begins.
with held as (
    select slice
    from score_slices
    where slice = any(cast(:slices as int[])) and fold_target < cast(:as_of as timestamptz)
    order by slice
    for update
)
update score_slices
set fold_target = cast(:as_of as timestamptz)
from held
where score_slices.slice = held.slice

-- name: ensure_month
-- Makes the partition of snapshots for the month of a moment; in a short transaction of its own.
select ensure_month_partition(
    cast('score_history' as regclass), cast(cast(:as_of as timestamptz) at time zone 'utc' as date))

-- name: hold_slices
-- What is folded of slices; whoever else would fold them waits.
select
    slice, folded_until, landmark, weighings, activity,
    fold_target >= cast(:as_of as timestamptz) as is_aimed,
    coalesce(folded_until > cast(:as_of as timestamptz), false) as is_ahead
from score_slices
where slice = any(cast(:slices as int[]))
order by slice
for update

-- name: take_late
-- Contacts to be weighed anew: the marked ones, and those of events before the fold that wait for dispatch. In one
-- statement, since dispatch takes an event off its queue and leaves the mark in one transaction.
with marked as (
    delete from score_stale
    where contact_id % 64 = any(cast(:slices as int[]))
    returning contact_id
)
select contact_id
from marked
union
select events.contact_id
from event_pending
cross join lateral unnest(event_pending.event_ids) as waiting (event_id)
inner join events
    on events.event_id = waiting.event_id and events.occurred_at = event_pending.occurred_at
where event_pending.bucket = any(cast(:slices as int[]))
    and event_pending.occurred_at <= cast(:until as timestamptz)

-- name: mark_late
-- Marks the contacts of events that happened before what is folded, or is about to be.
insert into score_stale (contact_id)
select distinct events.contact_id
from unnest(cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]))
    as batch (event_id, occurred_at)
inner join events
    on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
inner join score_slices on score_slices.slice = events.contact_id % 64
where batch.occurred_at <= (select max(fold_target) from score_slices)
    and batch.occurred_at <= score_slices.fold_target
    and events.contact_id > 0

-- name: forget_gone
-- Of given contacts, the scores of those who are gone: a night that was under way wrote them again.
with gone as (
    select given.contact_id
    from unnest(cast(:contact_ids as bigint[])) as given (contact_id)
    left join contacts on contacts.contact_id = given.contact_id
    where contacts.contact_id is null
),
scores as (
    delete from contact_scores where contact_id in (select contact_id from gone)
),
stages as (
    delete from contact_stages where contact_id in (select contact_id from gone)
)
select count(*) from gone

-- name: forget_states
-- Forgets what was folded of some contacts.
delete from score_states
where contact_id = any(cast(:contact_ids as bigint[]))

-- name: forget_slices
-- Forgets what was folded of all contacts of slices.
delete from score_states
where contact_id % 64 = any(cast(:slices as int[]))

-- name: forget_activity
-- Forgets when the contacts of slices were last active.
update score_states
set last_activity_at = null
where contact_id % 64 = any(cast(:slices as int[])) and last_activity_at is not null

-- name: keep_fold
-- Says what is folded of slices, in the transaction that folded it.
update score_slices
set folded_until = cast(:folded_until as timestamptz), landmark = cast(:landmark as timestamptz),
    weighings = cast(:weighings as jsonb), activity = cast(:activity as text)
where slice = any(cast(:slices as int[]))

-- name: events_between
-- The events of a span of time with their distance from the landmark.
select
    events.contact_id, events.event_id, events.occurred_at, events.event_type, events.properties,
    date_part('epoch', events.occurred_at - cast(:landmark as timestamptz)) as seconds
from events
where events.occurred_at > cast(:since as timestamptz)
    and events.occurred_at <= cast(:until as timestamptz)
    and events.contact_id > 0
    and (cast(:with_activity as boolean)
        or events.event_type = any(cast(:event_types as text[])))
    and (cast(:contact_ids as bigint[]) is null
        or events.contact_id = any(cast(:contact_ids as bigint[])))
    and (cast(:slices as int[]) is null
        or events.contact_id % 64 = any(cast(:slices as int[])))

-- name: weighed
-- Events of a span with the place of their rule's weight, and what they weigh as of the landmark; beside, when
-- somebody was active. The weight of a very old event (2 to the power of -500) is nothing, as an underflow raises.
with rules as materialized (
    -- include: rules_in_force
),
slots as materialized (
    select slot.place, rules.*
    from jsonb_to_recordset(cast(:slots as jsonb)) as slot (rule_id bigint, place int)
    inner join rules on rules.rule_id = slot.rule_id
),
seen as not materialized (
    -- include: events_between
),
places as (
    select
        seen.contact_id, slots.place, seen.seconds * slots.half_lives_per_second as half_lives,
        slots.max_per_contact,
        row_number() over (
            partition by seen.contact_id, slots.place order by seen.occurred_at, seen.event_id
        ) as number
    from seen
    inner join slots
        on slots.event_type = seen.event_type
        and slots.max_per_contact > 0
        and (slots.condition = '{}' or (seen.properties @> slots.condition
            and seen.properties || slots.condition = seen.properties))
)
select
    seen.contact_id, slots.place,
    case
        when seen.seconds * slots.half_lives_per_second < -500 then 0
        else power(2::float8, seen.seconds * slots.half_lives_per_second)
    end as weight,
    case
        when cast(:with_activity as boolean)
            and seen.event_type <> all(cast(:not_engagement as text[]))
            and seen.event_type not in (select event_type from rules where makes_doubtful)
            then seen.occurred_at
    end as active_at
from seen
left join slots
    on slots.event_type = seen.event_type
    and slots.max_per_contact = 0
    and (slots.condition = '{}' or (seen.properties @> slots.condition
        and seen.properties || slots.condition = seen.properties))
union all
-- What is folded already comes first: it is older.
select
    places.contact_id, places.place,
    case when places.half_lives < -500 then 0 else power(2::float8, places.half_lives) end,
    null
from places
left join score_states on score_states.contact_id = places.contact_id
where places.number + coalesce(score_states.counts[places.place], 0) <= places.max_per_contact
union all
select contact_id, null, null, max(occurred_at)
from (
    select seen.contact_id, seen.occurred_at
    from seen
    left join rules
        on rules.event_type = seen.event_type
        and (rules.condition = '{}' or (seen.properties @> rules.condition
            and seen.properties || rules.condition = seen.properties))
    where cast(:with_activity as boolean)
        and seen.event_type in (select event_type from rules where makes_doubtful)
    group by seen.contact_id, seen.event_id, seen.occurred_at
    having coalesce(sum(rules.points), 0) >= 0
) as positive
group by contact_id

-- name: engaged_folded
-- As engaged, out of what is folded: weights times what they are worth at the moment.
with people as (
    -- include: contacts_as_of
),
awarded as (
    -- include: awards_seen
)
select
    people.*,
    coalesce(score_points(folded.weights, cast(:factors as float8[])), 0)
        + coalesce(awarded.points, 0) as points,
    coalesce(score_counts(folded.counts, cast(:rule_points as float8[])), 0)
        + coalesce(awarded.points, 0) as counted_points,
    greatest(folded.last_activity_at, awarded.last_activity_at) as last_activity_at,
    folded.profile_version as known_version, folded.profile_score as known_profile
from people
left join score_states as folded on folded.contact_id = people.contact_id
left join awarded on awarded.contact_id = people.contact_id
order by people.contact_id

-- name: recalculate_folded
-- As recalculate, of all contacts of slices that are folded up to the moment.
-- include: recalculate with engaged = engaged_folded
