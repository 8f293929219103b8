-- name: names_between
-- The user agents of the opens and clicks of known people between two moments.
select distinct user_agent
from hits
where occurred_at >= cast(:since as timestamptz)
    and occurred_at < cast(:until as timestamptz)
    and kind in ('open', 'click')
    and contact_id > 0;

-- name: judge_again
-- Judges the opens and clicks between two moments by what came together; adds what differs from the verdict so far.
with near as materialized (
    select
        hits.*, known.name,
        hits.is_head or hits.purpose ~* cast(:ahead as text) as is_ahead,
        known.name = 'readers_proxy' or hits.network ~ cast(:inside as text) as may_be_crowded,
        hits.occurred_at >= messages.sent_at - interval '1 second'
            and hits.occurred_at < messages.sent_at
                + cast(:machine_seconds as double precision) * interval '1 second' as is_at_once,
        hits.kind = 'click' and hits.link_position is distinct from lag(hits.link_position) over (
            partition by hits.message_id, hits.kind order by hits.occurred_at, hits.hit_id
        ) as is_next_link,
        hits.message_id is distinct from lag(hits.message_id) over (
            partition by hits.network, hits.user_agent order by hits.occurred_at, hits.hit_id
        ) as is_next_message
    from hits
    left join unnest(cast(:user_agents as text[]), cast(:names as text[]))
        as known (user_agent, name) on known.user_agent = hits.user_agent
    left join messages on messages.message_id = hits.message_id
    where hits.occurred_at >= cast(:since as timestamptz) - interval '2 seconds'
        and hits.occurred_at < cast(:until as timestamptz) + interval '2 seconds'
        and hits.kind in ('open', 'click')
        -- What was not made here stays invalid; of somebody erased nothing is left to judge by.
        and hits.contact_id > 0
),

together as (
    select
        near.*,
        count(*) over (
            partition by message_id, network order by occurred_at
            range between interval '1 second' preceding and interval '1 second' following
        ) as of_message,
        count(*) filter (where is_next_link) over (
            partition by message_id order by occurred_at
            range between interval '1 second' preceding and interval '1 second' following
        ) as links,
        count(*) filter (where is_next_message) over (
            partition by network, user_agent order by occurred_at
            range between interval '1 second' preceding and interval '1 second' following
        ) as messages
    from near
),

judged as (
    select
        hit_id, campaign_id,
        case
            when is_ahead or name = 'prefetch' then 'prefetch'
            when name = 'robot' or coalesce(is_at_once, false) then 'bot'
            when of_message > cast(:burst as int) then 'bot'
            when kind = 'click' and links >= cast(:links_at_once as int) then 'bot'
            when not may_be_crowded and messages > cast(:crowd as int) then 'bot'
            else 'human'
        end as verdict
    from together
    where occurred_at >= cast(:since as timestamptz)
        and occurred_at < cast(:until as timestamptz)
),

added as (
    insert into hit_verdicts (hit_id, rule_version, verdict, decided_at)
    select
        judged.hit_id, cast(:rule_version as int), judged.verdict, cast(:now as timestamptz)
    from judged
    cross join lateral (
        select given.verdict, given.rule_version
        from hit_verdicts as given
        where given.hit_id = judged.hit_id
        order by given.rule_version desc
        limit 1
    ) as so_far
    where so_far.verdict not in ('invalid', judged.verdict)
        and so_far.rule_version < cast(:rule_version as int)
    on conflict (hit_id, rule_version) do nothing
    returning hit_id
)

select
    (select count(*) from judged) as judged_count, (select count(*) from added) as changed_count,
    (
        select coalesce(array_agg(distinct judged.campaign_id), '{}')
        from added
        inner join judged on judged.hit_id = added.hit_id
        where judged.campaign_id is not null
    ) as campaign_ids;
