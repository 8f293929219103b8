-- Housekeeping over the whole warehouse.

-- name: ensure_partitions
-- Creates the monthly partitions of events, hits and snapshots for each month between two days; returns the new ones.
select made.partition_name
from generate_series(
    date_trunc('month', cast(:first_day as date)), cast(:last_day as date), interval '1 month'
) as months (month_start)
cross join unnest(cast('{events,hits,score_history}' as regclass[])) as parents (parent)
cross join lateral ensure_month_partition(parents.parent, cast(months.month_start as date))
    as made (partition_name)
where made.partition_name is not null;

-- name: drop_oldest_hits
-- Drops the oldest month of hits that is over before a moment; a null name when there is none.
select dropped, hit_count
from drop_oldest_hits(cast(:older_than as timestamptz));

-- name: forget_idempotency_keys
-- Removes the answers kept for repeated calls, once nobody may repeat them.
delete from idempotency_keys
where claimed_at < cast(:older_than as timestamptz);

-- name: forget_refresh_tokens
-- Removes refresh tokens that have expired; a used one stays until then, so that its theft is noticed.
delete from refresh_tokens
where expires_at < cast(:now as timestamptz);

-- name: forget_revoked_tokens
-- Removes revocations of access tokens that have expired anyway.
delete from revoked_tokens
where expires_at < cast(:now as timestamptz);

-- name: forget_sign_in_failures
-- Removes failed sign-ins that no longer slow anybody down.
delete from sign_in_failures
where failed_at < cast(:older_than as timestamptz);

-- name: beat
-- Says that a component is alive; an older sign of life never replaces a newer one.
insert into heartbeats (component, beat_at, detail)
values (cast(:component as text), cast(:now as timestamptz), cast(:detail as jsonb))
on conflict (component) do update
set beat_at = excluded.beat_at, detail = excluded.detail
where heartbeats.beat_at <= excluded.beat_at;

-- name: limit_lock_waits
-- Within this transaction a lock that is not free in 2 s is given up: housekeeping can come back.
select set_config('lock_timeout', '2s', true);
