-- Outbound webhooks: facts become deliveries, deliveries are claimed, recorded, replayed and forgotten.

-- name: rotate_secret
-- Replaces a secret; the present one signs along for a while.
update webhook_endpoints
set previous_secret_encrypted = secret_encrypted,
    previous_valid_until = cast(:until as timestamptz),
    secret_encrypted = cast(:sealed as bytea)
where endpoint_id = cast(:endpoint_id as bigint) and is_listed;

-- name: is_endpoint
-- Whether there is such an endpoint.
select true from webhook_endpoints where endpoint_id = cast(:endpoint_id as bigint) and is_listed;

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

-- name: give_up_dead
-- Removes dead deliveries, with the log of their attempts.
delete from webhook_deliveries
where status = 'dead'
    and endpoint_id = coalesce(cast(:endpoint_id as bigint), endpoint_id)
    and delivery_id = coalesce(cast(:delivery_id as bigint), delivery_id);

-- name: expand
-- Makes deliveries of the oldest facts not looked at yet, one for each endpoint that listens; each fact once.
with taken as materialized (
    select outbox_id, event_name, occurred_at, created_at, data
    from outbox
    where expanded_at is null
    order by outbox_id
    limit cast(:size as int)
    for update skip locked
),

marked as (
    update outbox
    set expanded_at = cast(:now as timestamptz)
    from taken
    where outbox.outbox_id = taken.outbox_id
    returning outbox.outbox_id
),

pairs as materialized (
    select
        webhook_endpoints.endpoint_id, taken.outbox_id, taken.event_name, taken.occurred_at,
        taken.data, 'msg_' || replace(cast(gen_random_uuid() as text), '-', '') as message_id
    from taken
    inner join webhook_endpoints
        on webhook_endpoints.active
        and webhook_endpoints.events && array['*', taken.event_name]
        and taken.created_at >= webhook_endpoints.listens_since
),

made as (
    insert into webhook_deliveries (
        endpoint_id, outbox_id, event_type, webhook_message_id, payload, next_attempt_at,
        created_at
    )
    select
        endpoint_id, outbox_id, event_name, message_id, jsonb_build_object(
            'id', message_id, 'event', event_name,
            'timestamp', to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'data', data),
        cast(:now as timestamptz), cast(:now as timestamptz)
    from pairs
    order by outbox_id, endpoint_id
    on conflict (endpoint_id, outbox_id) do nothing
    returning delivery_id
)

select (select count(*) from marked) as fact_count, (select count(*) from made) as delivery_count;

-- name: next_fact
-- The oldest fact to look at while somebody listens, and whether it is from before anybody did.
select
    outbox.outbox_id, outbox.created_at < listening.since as is_early
from (
    select min(listens_since) as since from webhook_endpoints where active and is_listed
) as listening
cross join outbox
where listening.since is not null and outbox.expanded_at is null
order by outbox.outbox_id
limit 1;

-- name: pass_over
-- Marks the oldest facts from before anybody listened, many at a time: they are told to nobody.
with listening as (
    select min(listens_since) as since from webhook_endpoints where active and is_listed
),

early as materialized (
    select outbox.outbox_id
    from outbox
    cross join listening
    where outbox.expanded_at is null and outbox.created_at < listening.since
    order by outbox.outbox_id
    limit cast(:size as int)
    for update of outbox skip locked
)

update outbox
set expanded_at = cast(:now as timestamptz)
from early
where outbox.outbox_id = early.outbox_id;

-- name: claim
-- Takes due deliveries of active endpoints under one attempt, of each endpoint only as many as it has room for.
with rooms as (
    select given.endpoint_id, given.room
    from unnest(cast(:endpoint_ids as bigint[]), cast(:rooms as int[])) as given (endpoint_id, room)
),

endpoints as materialized (
    select
        webhook_endpoints.endpoint_id,
        coalesce(
            rooms.room,
            case
                when webhook_endpoints.failing_since is null then cast(:room as int)
                else cast(:failing_room as int)
            end
        ) as room
    from webhook_endpoints
    left join rooms on rooms.endpoint_id = webhook_endpoints.endpoint_id
    where webhook_endpoints.active
        and (
            cast(:endpoint_id as bigint) is null
            or webhook_endpoints.endpoint_id = cast(:endpoint_id as bigint))
    order by random()
),

due as materialized (
    select next_up.delivery_id
    from endpoints
    cross join lateral (
        select webhook_deliveries.delivery_id
        from webhook_deliveries
        where webhook_deliveries.endpoint_id = endpoints.endpoint_id
            and webhook_deliveries.status = 'pending'
            and webhook_deliveries.next_attempt_at <= cast(:now as timestamptz)
        order by webhook_deliveries.next_attempt_at
        limit greatest(endpoints.room, 0)
        for update skip locked
    ) as next_up
    limit cast(:size as int)
)

update webhook_deliveries
set attempt_id = cast(:attempt_id as bigint), lease_until = cast(:lease_until as timestamptz),
    next_attempt_at = cast(:lease_until as timestamptz)
from due
where webhook_deliveries.delivery_id = due.delivery_id
returning
    webhook_deliveries.delivery_id, webhook_deliveries.endpoint_id,
    webhook_deliveries.webhook_message_id, webhook_deliveries.event_type,
    webhook_deliveries.attempt,
    webhook_deliveries.attempt - webhook_deliveries.replayed_after as scheduled_attempt,
    webhook_deliveries.attempt_id, cast(webhook_deliveries.payload as text) as body;

-- name: new_attempt
-- A number for the next attempt.
select nextval('webhook_attempt_ids');

-- name: wake
-- Says that there is more to deliver than one run had the time for.
select pg_notify('mauto_webhooks', 'more');

-- name: receivers
-- Where to deliver, and what signs: the previous secret only as long as it is valid.
select
    endpoint_id, url, is_listed, secret_encrypted, failing_since is not null as is_failing,
    case
        when previous_valid_until > cast(:now as timestamptz) then previous_secret_encrypted
    end as previous_secret_encrypted
from webhook_endpoints
where endpoint_id = any(cast(:endpoint_ids as bigint[]));

-- name: outcomes_of_attempts
-- What became of attempts, in the order it happened.
select
    given.place, given.delivery_id, given.attempt_id, given.verdict, given.at,
    given.next_attempt_at, given.response_status, given.duration_ms, given.error,
    given.response_body
from jsonb_to_recordset(cast(:outcomes as jsonb)) as given (
    place int, delivery_id bigint, attempt_id bigint, verdict text, at timestamptz,
    next_attempt_at timestamptz, response_status int, duration_ms int, error text,
    response_body text);

-- name: record
-- Writes what became of attempts that still hold their delivery, and logs each; returns those that counted.
with listening as materialized (
    select endpoint_id
    from webhook_endpoints
    where endpoint_id = any(cast(:endpoint_ids as bigint[]))
    order by endpoint_id
    for no key update
),

outcomes as materialized (
    -- include: outcomes_of_attempts
),

recorded as (
    update webhook_deliveries
    set status = case
            when outcomes.verdict in ('succeeded', 'dead') then outcomes.verdict
            else 'pending'
        end,
        attempt = attempt + case when outcomes.verdict = 'released' then 0 else 1 end,
        attempt_id = null, lease_until = null, next_attempt_at = outcomes.next_attempt_at,
        finished_at = case when outcomes.verdict in ('succeeded', 'dead') then outcomes.at end,
        response_status = case
            when outcomes.verdict = 'released' then webhook_deliveries.response_status
            else outcomes.response_status
        end,
        duration_ms = case
            when outcomes.verdict = 'released' then webhook_deliveries.duration_ms
            else outcomes.duration_ms
        end,
        error = case
            when outcomes.verdict = 'released' then webhook_deliveries.error
            else outcomes.error
        end
    from outcomes
    where webhook_deliveries.delivery_id = outcomes.delivery_id
        and webhook_deliveries.attempt_id = outcomes.attempt_id
        and webhook_deliveries.status = 'pending'
        and (select count(*) from listening) >= 0
    returning
        webhook_deliveries.delivery_id, webhook_deliveries.attempt, outcomes.verdict,
        outcomes.place, outcomes.at,
        outcomes.response_status, outcomes.duration_ms, outcomes.error,
        outcomes.response_body
),

logged as (
    insert into webhook_attempts (
        delivery_id, attempt, at, response_status, duration_ms, error, response_body
    )
    select delivery_id, attempt, at, response_status, duration_ms, error, response_body
    from recorded
    where verdict <> 'released'
)

select place from recorded where verdict <> 'released' order by place;

-- name: note_on_endpoints
-- What attempts say about their endpoints; one that is to be disabled is, and is returned with the reason.
with listening as materialized (
    select endpoint_id, active
    from webhook_endpoints
    where endpoint_id = any(cast(:endpoint_ids as bigint[]))
    order by endpoint_id
    for no key update
),

given as (
    select *
    from jsonb_to_recordset(cast(:notes as jsonb)) as given (
        endpoint_id bigint, ended int, died int, died_since int, is_gone boolean,
        succeeded_at timestamptz, failed_at timestamptz, failing_since timestamptz)
),

counted as (
    select
        given.*, listening.active,
        given.died_since + case
            when given.succeeded_at is null then webhook_endpoints.consecutive_failures else 0
        end as failures,
        case
            when given.succeeded_at is null
                then coalesce(webhook_endpoints.failing_since, given.failing_since)
            else given.failing_since
        end as failing_from,
        webhook_endpoints.max_failures, webhook_endpoints.is_listed
    from given
    inner join listening on listening.endpoint_id = given.endpoint_id
    inner join webhook_endpoints on webhook_endpoints.endpoint_id = given.endpoint_id
),

judged as (
    select
        counted.*,
        case
            when not (counted.active and counted.is_listed) then null
            when counted.is_gone then 'The receiver said it is gone (410)'
            when counted.failures >= counted.max_failures
                then counted.failures || ' deliveries in a row failed'
            when counted.failing_from
                <= cast(:now as timestamptz) - make_interval(days => cast(:most_days as int))
                then 'No success for ' || cast(:most_days as int) || ' days'
        end as reason
    from counted
)

update webhook_endpoints
set consecutive_failures = judged.failures, failing_since = judged.failing_from,
    total_deliveries = total_deliveries + judged.ended,
    total_failures = total_failures + judged.died,
    last_success_at = greatest(last_success_at, judged.succeeded_at),
    last_failure_at = greatest(last_failure_at, judged.failed_at),
    active = webhook_endpoints.active and judged.reason is null,
    disabled_reason = coalesce(judged.reason, disabled_reason)
from judged
where webhook_endpoints.endpoint_id = judged.endpoint_id
returning webhook_endpoints.endpoint_id, judged.reason;

-- name: add_test
-- A delivery of no fact, held by the attempt that follows.
insert into webhook_deliveries (
    endpoint_id, event_type, webhook_message_id, payload, next_attempt_at, created_at, attempt_id,
    lease_until
)
select
    endpoint_id, cast(:event_type as text), cast(:message_id as text),
    cast(:payload as jsonb), cast(:lease_until as timestamptz), cast(:now as timestamptz),
    cast(:attempt_id as bigint), cast(:lease_until as timestamptz)
from webhook_endpoints
where endpoint_id = cast(:endpoint_id as bigint) and is_listed
returning
    delivery_id, endpoint_id, webhook_message_id, event_type, attempt, attempt as scheduled_attempt,
    attempt_id, cast(payload as text) as body;

-- name: source_user
-- An active workflow that the events of an inbound source start; no row when there is none.
select workflow_id
from workflows
where active
    and trigger_type = 'webhook'
    and trigger_config ->> 'source_id' = cast(cast(:source_id as bigint) as text)
order by workflow_id
limit 1;

-- name: ensure_address
-- The unlisted endpoint of a URL, made unless it is there.
insert into webhook_endpoints (url, events, is_listed, created_at)
values (cast(:url as text), '{}', false, cast(:now as timestamptz))
on conflict (md5(url)) where not is_listed do nothing;

-- name: add_calls
-- Deliveries of no fact to the address of an action, each once by its key. What is not given as the event is what let an
-- enrollment in.
with given as materialized (
    select
        calls.caller_id, calls.contact_id,
        coalesce(cast(calls.event as jsonb), enrollments.context) as event,
        'msg_' || replace(cast(gen_random_uuid() as text), '-', '') as message_id
    from unnest(
        cast(:caller_ids as bigint[]), cast(:contact_ids as bigint[]), cast(:events as text[])
    ) as calls (caller_id, contact_id, event)
    left join enrollments
        on calls.event is null
        and enrollments.contact_id = calls.contact_id
        and enrollments.enrollment_id = calls.caller_id
)

insert into webhook_deliveries (
    endpoint_id, event_type, webhook_message_id, dedupe_key, payload, next_attempt_at, created_at
)
select
    webhook_endpoints.endpoint_id, cast(:event_type as text), given.message_id,
    cast(:caller as text) || ':' || given.caller_id || cast(:step as text),
    jsonb_build_object(
        'id', given.message_id, 'event', cast(:event_type as text),
        'timestamp', to_char(
            cast(:now as timestamptz) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'data', cast(:data as jsonb) || jsonb_build_object(
            cast(:caller as text) || '_id', cast(given.caller_id as text),
            'event', given.event,
            'contact', case when contacts.contact_id is not null then jsonb_build_object(
                'id', cast(contacts.contact_id as text), 'email', contacts.email,
                'first_name', contacts.first_name, 'last_name', contacts.last_name,
                'phone', contacts.phone, 'country', contacts.country,
                'language', contacts.language, 'timezone', contacts.timezone,
                'currency', contacts.currency, 'custom_fields', contacts.custom_fields,
                'subscribed', contacts.subscribed, 'consent_status', contacts.consent_status)
            end)),
    cast(:now as timestamptz), cast(:now as timestamptz)
from given
cross join webhook_endpoints
left join contacts on contacts.contact_id = given.contact_id
where md5(webhook_endpoints.url) = md5(cast(:url as text)) and not webhook_endpoints.is_listed
order by given.caller_id
on conflict (dedupe_key) where dedupe_key is not null do nothing;

-- name: forget_facts
-- Removes old facts: those that were told, and all of them while nobody listens.
delete from outbox
where outbox_id in (
    select outbox_id
    from outbox
    where created_at < cast(:older_than as timestamptz)
        and (expanded_at is not null or not exists (
            select from webhook_endpoints where active and is_listed))
    limit cast(:size as int)
);

-- name: forget_deliveries
-- Removes old deliveries that ended, with the log of their attempts.
delete from webhook_deliveries
where delivery_id in (
    select delivery_id
    from webhook_deliveries
    where created_at < cast(:older_than as timestamptz)
        and finished_at < cast(:older_than as timestamptz)
        and status <> 'pending'
    limit cast(:size as int)
);

-- name: give_up_waiting
-- Ends deliveries that have waited too long for their endpoint to come back.
update webhook_deliveries
set status = 'dead', next_attempt_at = null, attempt_id = null, lease_until = null,
    finished_at = cast(:now as timestamptz), error = 'The endpoint stayed disabled'
from webhook_endpoints
where webhook_endpoints.endpoint_id = webhook_deliveries.endpoint_id
    and not webhook_endpoints.active
    and webhook_deliveries.status = 'pending'
    and webhook_deliveries.created_at < cast(:older_than as timestamptz)
    and coalesce(webhook_deliveries.lease_until, '-infinity') < cast(:now as timestamptz);
