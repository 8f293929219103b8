-- Trying a workflow: whom its trigger would let in, and moving one person through all waits. Nothing stays.

-- name: by_events
-- Whom events of a time would have let in as re-entry has it now, and the last of those events.
with happened as materialized (
    select events.contact_id, events.event_id, events.occurred_at
    from events
    inner join contacts on contacts.contact_id = events.contact_id
    where events.occurred_at > cast(:since as timestamptz)
        and events.occurred_at <= cast(:now as timestamptz)
        and (
            events.event_type = cast(:event_type as text)
            or (cast(:event_type as text) = ''
                and starts_with(events.source, 'inbound:')
                and coalesce(events.source = cast(:event_source as text), true))
        )
        and events.properties @> cast(:wanted as jsonb)
        and (
            cast(:tag_name as text) is null
            or lower(events.properties ->> 'tag_name') = lower(cast(:tag_name as text))
        )
        and (cast(:source as text) is null or contacts.source = cast(:source as text))
),

people as (
    select contact_id
    from happened
    group by contact_id
    having may_enter(
        cast(:workflow_id as bigint), contact_id, cast(:policy as text),
        cast(:cooldown_hours as float8), cast(:now as timestamptz))
),

latest as (
    select happened.contact_id, happened.event_id, happened.occurred_at
    from happened
    inner join people on people.contact_id = happened.contact_id
    order by happened.occurred_at desc, happened.event_id desc
    limit 1
)

select (select count(*) from people) as people, latest.contact_id, events.properties as context
from (values (1)) as always (present)
left join latest on true
left join events
    on events.event_id = latest.event_id and events.occurred_at = latest.occurred_at;

-- name: by_carts
-- Who has left a cart within a time that was not ordered since, as re-entry has it now, and the last of those carts.
with touched as materialized (
    select distinct on (events.contact_id, events.properties ->> 'cart_id')
        events.contact_id, events.properties ->> 'cart_id' as cart_id, events.occurred_at,
        events.properties
    from events
    inner join contacts on contacts.contact_id = events.contact_id
    where events.occurred_at > cast(:since as timestamptz)
        and events.occurred_at <= cast(:now as timestamptz)
        and events.event_type in ('cart_updated', 'checkout_started')
        and events.properties ->> 'cart_id' <> ''
    order by events.contact_id, events.properties ->> 'cart_id', events.occurred_at desc
),

left_alone as (
    select touched.*
    from touched
    where touched.properties -> 'lines' is distinct from '[]'
        and touched.occurred_at
            <= cast(:now as timestamptz) - make_interval(mins => cast(:after_minutes as int))
        and cart_total(touched.properties) >= cast(:min_total as numeric)
        and may_enter(
            cast(:workflow_id as bigint), touched.contact_id, cast(:policy as text),
            cast(:cooldown_hours as float8), cast(:now as timestamptz))
        and not exists (
            select
            from events as orders
            where orders.contact_id = touched.contact_id
                and orders.event_type = 'order_placed'
                and orders.occurred_at > cast(:since as timestamptz)
                and orders.properties ->> 'cart_id' = touched.cart_id
        )
)

select
    (select count(distinct contact_id) from left_alone) as people, latest.contact_id,
    latest.properties as context
from (values (1)) as always (present)
left join lateral (
    select contact_id, properties
    from left_alone
    order by occurred_at desc, cart_id
    limit 1
) as latest on true;

-- name: by_days
-- Who has one of the days (MM-DD) in a field (everybody for ''), as re-entry has it now, and the newest of them.
with people as materialized (
    select contacts.contact_id
    from contacts
    cross join lateral (
        select case cast(:field as text)
            when 'created_at' then to_char(contacts.created_at at time zone 'UTC', 'YYYY-MM-DD')
            when 'consent_at' then to_char(contacts.consent_at at time zone 'UTC', 'YYYY-MM-DD')
            else contacts.custom_fields
                ->> substr(cast(:field as text), length('custom_fields.') + 1)
        end as written
    ) as dates
    where (
            cast(:field as text) = ''
            or (
                dates.written ~ '^\d{4}-\d{2}-\d{2}'
                and substr(dates.written, 6, 5) = any(cast(:month_days as text[]))
            )
        )
        and may_enter(
            cast(:workflow_id as bigint), contacts.contact_id, cast(:policy as text),
            cast(:cooldown_hours as float8), cast(:now as timestamptz))
)

select
    count(*) as people, max(contact_id) as contact_id, cast(null as jsonb) as context
from people;

-- name: claim
-- Takes one enrollment whose time is to have come.
select
    workflow_id, version, step_path, visit, depth, 'expired' as arrival,
    array[enrollment_id] as enrollment_ids, array[contact_id] as contact_ids
from enrollments
where contact_id = cast(:contact_id as bigint)
    and enrollment_id = cast(:enrollment_id as bigint)
    and status = 'waiting';

-- name: way
-- The visits of steps of an enrollment, in their order.
select step_path, status, result, created_at
from workflow_logs
where enrollment_id = cast(:enrollment_id as bigint)
order by log_id;
