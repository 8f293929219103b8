-- When each queue next has work: null when there is none. Read by the watchers in Airflow's triggerer.

-- name: imports_due
-- The oldest import waiting, or whose worker's lease has run out.
select min(due_at)
from (
    select coalesce(lease_until, created_at) as due_at from imports where status = 'queued'
    union all
    select lease_until from imports where status in ('running', 'cancelling')
) as waiting;

-- name: messages_due
-- The earliest campaign to plan or finish, message to hand over, or lease to expire.
select min(due_at)
from (
    select coalesce(plan_at, scheduled_at) as due_at from campaigns where status = 'scheduled'
    union all
    select requested_at from campaigns where status = 'sending' and planned_at is null
    union all
    select planned_at
    from campaigns
    where status = 'sending'
        and not exists (
            select from messages
            where messages.campaign_id = campaigns.campaign_id
                and messages.status in ('queued', 'sending')
        )
    union all
    select
        case
            when sources.is_stale then cast('epoch' as timestamptz)
            else least(greatest(next_due.next_try_at, sources.wake_at), sources.expires_at)
        end
    from (
        select
            cast(0 as bigint) as campaign_key, cast(null as timestamptz) as wake_at,
            cast(null as timestamptz) as expires_at, false as is_stale
        union all
        select
            campaigns.campaign_id, greatest(paces.wake_at, common.wake_at), paces.expires_at,
            coalesce(paces.is_stale, false)
        from campaigns
        left join campaign_paces as paces on paces.campaign_id = campaigns.campaign_id
        left join campaign_paces as common on common.campaign_id = 0
        where campaigns.status = 'sending'
    ) as sources
    cross join lateral (
        select messages.next_try_at
        from messages
        where messages.status = 'queued'
            and coalesce(messages.campaign_id, 0) = sources.campaign_key
        order by messages.next_try_at
        limit 1
    ) as next_due
    union all
    select min(lease_until) from messages where status = 'sending'
    union all
    -- A/B tests: people to release, a deadline to reckon, or one that passes.
    select
        case
            when ab_tests.status <> 'running' then ab_tests.completed_at
            when ab_tests.last_handover_at is null then ab_tests.planned_at
            when ab_tests.auto_select_winner and ab_tests.decision is null then ab_tests.deadline_at
        end
    from ab_tests
    where ab_tests.planned_at is not null
        and ab_tests.released_at is null
        and (
            ab_tests.status <> 'running'
            or ab_tests.last_handover_at is not null
            or not (
                exists (
                    select from messages
                    where messages.status = 'queued'
                        and coalesce(messages.campaign_id, 0) = ab_tests.campaign_id
                        and messages.next_try_at < timestamptz '9999-01-01 00:00+00'
                        and messages.occurrence = ab_tests.planned_occurrence
                        and messages.ab_part = 'test'
                )
                or exists (
                    select from messages
                    where messages.status = 'sending'
                        and messages.campaign_id = ab_tests.campaign_id
                        and messages.occurrence = ab_tests.planned_occurrence
                        and messages.ab_part = 'test'
                )
            )
        )
) as waiting;

-- name: feedback_due
-- The earliest notice to look at, or look at again.
select min(next_look_at) from provider_notices where next_look_at is not null;

-- name: erasures_due
-- The oldest erasure that has not ended, or the moment it is tried again.
select min(next_try_at) from erasures where status <> 'completed';

-- name: score_recomputations_due
-- The oldest recomputation of scores that waits, or whose worker's lease has run out.
select min(due_at) from score_recomputations where due_at is not null;

-- name: events_due
-- The oldest event without effect, the next enrollment or run of a rule whose wait is over, the next cart or day that
-- lets somebody into a workflow, or the next segment to evaluate.
select min(due_at)
from (
    select min(occurred_at) as due_at from event_pending
    union all
    select min(resume_at) from enrollments where status in ('running', 'waiting')
    union all
    select min(evaluation_due_at) from segments
    union all
    select min(resume_at) from automation_waits
    union all
    select min(due_at) from cart_timers
    union all
    select min(next_at) from workflow_clocks
    union all
    select min(coalesce(workflows.updated_at, workflows.created_at))
    from workflows
    left join workflow_clocks on workflow_clocks.workflow_id = workflows.workflow_id
    where workflows.active
        and workflows.trigger_type in ('date', 'anniversary')
        and workflow_clocks.version is distinct from workflows.version
) as waiting;

-- name: webhooks_due
-- The oldest fact to tell while somebody listens, or the earliest delivery that is due or whose lease ends.
select min(due_at)
from (
    (
        select outbox.created_at as due_at
        from outbox
        where outbox.expanded_at is null
            and exists (select from webhook_endpoints where active and is_listed)
        order by outbox.outbox_id
        limit 1
    )
    union all
    select next_up.next_attempt_at
    from webhook_endpoints
    cross join lateral (
        select webhook_deliveries.next_attempt_at
        from webhook_deliveries
        where webhook_deliveries.endpoint_id = webhook_endpoints.endpoint_id
            and webhook_deliveries.status = 'pending'
        order by webhook_deliveries.next_attempt_at
        limit 1
    ) as next_up
    where webhook_endpoints.active
) as waiting;
