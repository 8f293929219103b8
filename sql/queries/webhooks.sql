-- Outbound webhooks: facts become deliveries, deliveries are claimed, recorded, replayed and forgotten.

-- name: rotate_secret
-- Replaces a secret; the present one signs along for a while.
update webhook_endpoints
set previous_secret_encrypted = secret_encrypted,
    previous_valid_until = cast(:until as timestamptz),
    secret_encrypted = cast(:sealed as bytea)
where endpoint_id = cast(:endpoint_id as bigint);

-- name: is_endpoint
-- Whether there is such an endpoint.
select true from webhook_endpoints where endpoint_id = cast(:endpoint_id as bigint);

-- name: status_for_update
-- The state of one delivery of an endpoint, held until the transaction ends.
select status
from webhook_deliveries
where endpoint_id = cast(:endpoint_id as bigint) and delivery_id = cast(:delivery_id as bigint)
for update;

-- name: replay_one
-- Puts a delivery that ended back in line.
update webhook_deliveries
set status = 'pending', next_attempt_at = cast(:now as timestamptz), finished_at = null,
    replayed_after = attempt, attempt_id = null, lease_until = null
where endpoint_id = cast(:endpoint_id as bigint) and delivery_id = cast(:delivery_id as bigint)
    and status <> 'pending';

-- name: replay_many
-- Puts the deliveries of an endpoint that ended in one way back in line.
update webhook_deliveries
set status = 'pending', next_attempt_at = cast(:now as timestamptz), finished_at = null,
    replayed_after = attempt, attempt_id = null, lease_until = null
where endpoint_id = cast(:endpoint_id as bigint)
    and status = cast(:status as text) and status <> 'pending'
    and created_at >= coalesce(cast(:since as timestamptz), '-infinity')
    and created_at < coalesce(cast(:until as timestamptz), 'infinity');
