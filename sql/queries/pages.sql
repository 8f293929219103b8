-- name: week_cohorts
-- The newest weekly sign-up cohorts with the share that was active in each of their first weeks, oldest first.
select
    cohort_start,
    cohort_label,
    cohort_size,
    period_offset,
    retention_rate
from analytics.contact_cohorts
where granularity = 'week'
    and period_offset < cast(:offsets as int)
    and cohort_start >= cast(:since as date)
order by cohort_start, period_offset;

-- name: waiting_messages
-- How many messages are due and waiting to be handed over.
select count(*) as message_count
from messages
where status = 'queued' and due_at <= cast(:now as timestamptz);
