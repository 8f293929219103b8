-- Schedules: the figures of their runs.

-- name: runs
-- The runs of a schedule, newest first, each counted from the ledger.
select
    schedule_runs.occurrence, schedule_runs.due_at, schedule_runs.started_at,
    schedule_runs.finished_at, schedule_runs.status, counted.total, counted.sent, counted.failed,
    counted.skipped, counted.unknown, counted.throttled
from schedule_runs
inner join schedules on schedules.schedule_id = schedule_runs.schedule_id
left join campaign_paces on campaign_paces.campaign_id = schedules.campaign_id
cross join lateral (
    select
        count(*) as total,
        count(*) filter (where messages.sent_at is not null) as sent,
        count(*) filter (
            where messages.status = 'failed'
                or (messages.status = 'bounced' and messages.sent_at is null)
        ) as failed,
        count(*) filter (where messages.status = 'skipped') as skipped,
        count(*) filter (where messages.status = 'unknown') as unknown,
        count(*) filter (
            where messages.status = 'queued'
                and messages.due_at <= cast(:now as timestamptz)
                and messages.held_for is distinct from 'ab_test'
                and (messages.held_for = 'limit'
                    or (campaign_paces.waits_for = 'limit'
                        and campaign_paces.wake_at > cast(:now as timestamptz)))
        ) as throttled
    from messages
    where messages.campaign_id = schedules.campaign_id
        and messages.occurrence = schedule_runs.occurrence
        and messages.kind = 'campaign'
) as counted
where schedule_runs.schedule_id = cast(:schedule_id as bigint)
order by schedule_runs.occurrence desc;
