-- Workflows: entering them, moving through them, leaving them - always for a whole set of people.

-- name: exit_on_events
-- Ends enrollments whose workflow stops on an event of the batch that happened after their cause.
with happened as materialized (
    select events.contact_id, events.event_type, max(events.occurred_at) as last_at
    from unnest(cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]))
        as batch (event_id, occurred_at)
    inner join events
        on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
    where events.contact_id > 0
        and events.event_type in (
            select coalesce(cast(:synonyms as jsonb) ->> stops.event_type, stops.event_type)
            from workflows
            cross join lateral unnest(workflows.exit_on) as stops (event_type)
        )
    group by events.contact_id, events.event_type
),

ending as materialized (
    select enrollments.contact_id, enrollments.enrollment_id, min(happened.event_type) as event_type
    from happened
    inner join enrollments
        on enrollments.contact_id = happened.contact_id
        and enrollments.finished_at is null
        and enrollments.caused_at < happened.last_at
    inner join workflows
        on workflows.workflow_id = enrollments.workflow_id
        and exists (
            select 1
            from unnest(workflows.exit_on) as stops (event_type)
            where coalesce(cast(:synonyms as jsonb) ->> stops.event_type, stops.event_type)
                = happened.event_type
        )
    group by enrollments.contact_id, enrollments.enrollment_id
)

update enrollments
set status = 'exited', exit_reason = ending.event_type, resume_at = null, waiting_for = null,
    paused_from = null, finished_at = cast(:now as timestamptz)
from ending
where enrollments.contact_id = ending.contact_id
    and enrollments.enrollment_id = ending.enrollment_id
    and enrollments.finished_at is null
returning enrollments.enrollment_id;

-- name: rank_events
-- The events of a batch that workflows care for, so that of one round no two happened to the same person: what happened
-- to somebody takes effect in its order.
with wanted as materialized (
    select coalesce(cast(:synonyms as jsonb) ->> heard.event_type, heard.event_type) as event_type
    from workflows
    cross join lateral unnest(exit_on || case when active then case trigger_type
        when 'event' then array[trigger_config ->> 'event_type']
        when 'signup' then array['contact_created']
        when 'tag_added' then array['tag_added']
        when 'segment_entered' then array['segment_entered']
        when 'cart_abandoned' then array['cart_updated', 'checkout_started']
        when 'webhook' then array['']
        end end
        || case when trigger_type = 'cart_abandoned' then array['order_placed'] end
    ) as heard (event_type)
    where heard.event_type is not null
),

relevant as materialized (
    select
        events.event_id, events.occurred_at, batch.depth,
        row_number() over (
            partition by events.contact_id order by events.occurred_at, events.event_id) as round
    from unnest(
        cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]),
        cast(:depths as smallint[])
    ) as batch (event_id, occurred_at, depth)
    inner join events
        on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
    where events.contact_id > 0
        and (
            events.event_type in (select event_type from wanted)
            or (starts_with(events.source, 'inbound:')
                and exists (select from wanted where event_type = ''))
        )
)

select
    round, cast(array_agg(event_id) as text) as event_ids,
    cast(array_agg(occurred_at) as text) as occurred_ats, cast(array_agg(depth) as text) as depths
from relevant
group by round
order by round;

-- name: enroll_on_events
-- Enrols whom an event of the batch brings into an active workflow, as re-entry allows; no two events of the batch
-- happened to the same person.
with happened as materialized (
    select
        events.event_id, events.contact_id, events.occurred_at, events.properties, batch.depth,
        heard.event_type, events.source
    from unnest(
        cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]),
        cast(:depths as smallint[])
    ) as batch (event_id, occurred_at, depth)
    inner join events
        on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
    cross join lateral unnest(case
        when starts_with(events.source, 'inbound:') then array[events.event_type, '']
        else array[events.event_type]
    end) as heard (event_type)
    where batch.depth < cast(:most_links as int)
),

starting as materialized (
    select
        workflow_id, version, trigger_type, coalesce(re_entry ->> 'policy', 'after_exit') as policy,
        cast(re_entry ->> 'cooldown_hours' as float8) as cooldown_hours,
        lower(trigger_config ->> 'tag_name') as tag_name, trigger_config ->> 'source' as source,
        case trigger_type
            when 'event' then coalesce(
                cast(:synonyms as jsonb) ->> (trigger_config ->> 'event_type'),
                trigger_config ->> 'event_type')
            when 'signup' then 'contact_created'
            when 'webhook' then ''
            else trigger_type
        end as event_type,
        case
            when trigger_type = 'event' then coalesce(trigger_config -> 'where', '{}')
            when trigger_type = 'segment_entered'
                then jsonb_build_object('segment_id', trigger_config ->> 'segment_id')
            else '{}'
        end as wanted,
        case when trigger_type = 'webhook' then trigger_config ->> 'source_id' end as source_id
    from workflows
    where active
        and trigger_type in ('event', 'signup', 'tag_added', 'segment_entered', 'webhook')
),

entered as (
    insert into enrollments (
        workflow_id, version, contact_id, entry_key, status, resume_at, context, caused_at,
        entered_at, depth)
    select
        starting.workflow_id, starting.version, happened.contact_id, 'event:' || happened.event_id,
        'running', cast(:now as timestamptz), happened.properties, happened.occurred_at,
        cast(:now as timestamptz), happened.depth
    from happened
    inner join starting
        on starting.event_type = happened.event_type
        and happened.properties @> starting.wanted
        and coalesce(lower(happened.properties ->> 'tag_name') = starting.tag_name, true)
        and coalesce(happened.source = 'inbound:' || starting.source_id, true)
    inner join contacts on contacts.contact_id = happened.contact_id
    where (starting.trigger_type <> 'signup'
        or (happened.occurred_at >= cast(:signups_since as timestamptz)
            and coalesce(starting.source = contacts.source, true)))
        and may_enter(
            starting.workflow_id, happened.contact_id, starting.policy, starting.cooldown_hours,
            cast(:now as timestamptz))
    order by happened.contact_id, starting.workflow_id
    on conflict (workflow_id, entry_key) do nothing
    returning enrollment_id, workflow_id, contact_id
)

insert into outbox (event_name, occurred_at, data)
select 'workflow.triggered', cast(:now as timestamptz), jsonb_build_object(
    'workflow_id', cast(workflow_id as text), 'enrollment_id', cast(enrollment_id as text),
    'contact_id', cast(contact_id as text))
from entered;

-- name: wake_on_events
-- Has a look taken, as soon as can be, at enrollments that may wait for an event of the batch. One that is being moved
-- right now is waited for: where it goes to it may wait.
with happened as materialized (
    select events.contact_id, events.event_type, max(events.occurred_at) as last_at
    from unnest(cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]))
        as batch (event_id, occurred_at)
    inner join events
        on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
    where events.contact_id > 0
        and events.event_type in (
            select coalesce(cast(:synonyms as jsonb) ->> heard.event_type, heard.event_type)
            from workflow_versions
            cross join lateral jsonb_array_elements_text(listens_to) as heard (event_type)
            where listens_to <> '[]'
        )
    group by events.contact_id, events.event_type
),

hearing as materialized (
    select distinct enrollments.contact_id, enrollments.enrollment_id
    from happened
    inner join enrollments
        on enrollments.contact_id = happened.contact_id
        and enrollments.finished_at is null
        and enrollments.caused_at < happened.last_at
    inner join workflow_versions as versions
        on versions.workflow_id = enrollments.workflow_id
        and versions.version = enrollments.version
        and versions.listens_to <> '[]'
        and exists (
            select from jsonb_array_elements_text(versions.listens_to) as heard (event_type)
            where coalesce(cast(:synonyms as jsonb) ->> heard.event_type, heard.event_type)
                = happened.event_type
        )
),

held as materialized (
    select
        enrollments.contact_id, enrollments.enrollment_id, enrollments.status,
        enrollments.resume_at
    from enrollments
    inner join hearing
        on hearing.contact_id = enrollments.contact_id
        and hearing.enrollment_id = enrollments.enrollment_id
    where enrollments.finished_at is null
    order by enrollments.contact_id, enrollments.enrollment_id
    for update of enrollments
)

update enrollments
set resume_at = cast(:now as timestamptz)
from held
where enrollments.contact_id = held.contact_id
    and enrollments.enrollment_id = held.enrollment_id
    and held.status = 'waiting'
    and held.resume_at > cast(:now as timestamptz);

-- name: touch_carts
-- Sets the clock of carts that events of the batch have touched, for each active workflow of abandoned carts; a cart
-- without lines is none any more.
with touched as materialized (
    select distinct on (events.contact_id, events.properties ->> 'cart_id')
        events.contact_id, events.properties ->> 'cart_id' as cart_id, events.occurred_at,
        events.properties, batch.depth
    from unnest(
        cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]),
        cast(:depths as smallint[])
    ) as batch (event_id, occurred_at, depth)
    inner join events
        on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
    where events.event_type in ('cart_updated', 'checkout_started')
        and events.contact_id > 0
        and events.properties ->> 'cart_id' <> ''
        and batch.depth < cast(:most_links as int)
    order by events.contact_id, events.properties ->> 'cart_id', events.occurred_at desc
),

emptied as (
    delete from cart_timers
    using touched
    where cart_timers.contact_id = touched.contact_id
        and cart_timers.cart_id = touched.cart_id
        and cart_timers.touched_at <= touched.occurred_at
        and touched.properties -> 'lines' = '[]'
)

insert into cart_timers (workflow_id, contact_id, cart_id, touched_at, due_at, depth, context)
select
    workflows.workflow_id, touched.contact_id, touched.cart_id, touched.occurred_at,
    touched.occurred_at + make_interval(
        mins => coalesce(cast(workflows.trigger_config ->> 'after_minutes' as int), 60)),
    touched.depth, touched.properties
from touched
cross join workflows
where workflows.active
    and workflows.trigger_type = 'cart_abandoned'
    and touched.properties -> 'lines' is distinct from '[]'
order by touched.contact_id, touched.cart_id, workflows.workflow_id
on conflict (contact_id, cart_id, workflow_id) do update
set touched_at = excluded.touched_at, due_at = excluded.due_at, depth = excluded.depth,
    context = excluded.context
where excluded.touched_at > cart_timers.touched_at;

-- name: order_carts
-- Forgets carts that were ordered by events of the batch, and ends who had left them.
with ordered as materialized (
    select distinct events.contact_id, events.properties ->> 'cart_id' as cart_id
    from unnest(cast(:event_ids as bigint[]), cast(:occurred_ats as timestamptz[]))
        as batch (event_id, occurred_at)
    inner join events
        on events.event_id = batch.event_id and events.occurred_at = batch.occurred_at
    where events.event_type = 'order_placed'
        and events.contact_id > 0
        and events.properties ->> 'cart_id' <> ''
),

forgotten as (
    delete from cart_timers
    using ordered
    where cart_timers.contact_id = ordered.contact_id and cart_timers.cart_id = ordered.cart_id
)

update enrollments
set status = 'exited', exit_reason = 'order_placed', resume_at = null, waiting_for = null,
    paused_from = null, finished_at = cast(:now as timestamptz)
from ordered
inner join workflows on workflows.trigger_type = 'cart_abandoned'
where enrollments.contact_id = ordered.contact_id
    and enrollments.workflow_id = workflows.workflow_id
    and enrollments.entry_key = 'cart:' || ordered.contact_id || ':' || ordered.cart_id
    and enrollments.finished_at is null;

-- name: enter_carts
-- Enrols whose cart was left alone long enough and is worth it; once a cart, and never one that was ordered.
with due as materialized (
    select contact_id, cart_id, workflow_id
    from cart_timers
    where due_at <= cast(:now as timestamptz)
    order by due_at
    limit cast(:size as int)
    for update skip locked
),

popped as (
    delete from cart_timers
    using due
    where cart_timers.contact_id = due.contact_id
        and cart_timers.cart_id = due.cart_id
        and cart_timers.workflow_id = due.workflow_id
    returning cart_timers.*
),

worth_it as materialized (
    select
        popped.*, workflows.version,
        coalesce(workflows.re_entry ->> 'policy', 'after_exit') as policy,
        cast(workflows.re_entry ->> 'cooldown_hours' as float8) as cooldown_hours,
        row_number() over (
            partition by popped.workflow_id, popped.contact_id order by popped.touched_at) as number
    from popped
    inner join workflows
        on workflows.workflow_id = popped.workflow_id
        and workflows.active
        and workflows.trigger_type = 'cart_abandoned'
    inner join contacts on contacts.contact_id = popped.contact_id
    where cart_total(popped.context)
        >= coalesce(cast(workflows.trigger_config ->> 'min_total' as numeric), 0)
        and not exists (
            select from orders
            where orders.contact_id = popped.contact_id and orders.cart_id = popped.cart_id)
),

entered as (
    insert into enrollments (
        workflow_id, version, contact_id, entry_key, status, resume_at, context, caused_at,
        entered_at, depth)
    select
        workflow_id, version, contact_id, 'cart:' || contact_id || ':' || cart_id, 'running',
        cast(:now as timestamptz), context, touched_at, cast(:now as timestamptz), depth
    from worth_it
    where policy = 'always'
        or (number = 1 and may_enter(
            workflow_id, contact_id, policy, cooldown_hours, cast(:now as timestamptz)))
    order by contact_id, workflow_id, touched_at
    on conflict (workflow_id, entry_key) do nothing
    returning enrollment_id, workflow_id, contact_id
),

told as (
    insert into outbox (event_name, occurred_at, data)
    select 'workflow.triggered', cast(:now as timestamptz), jsonb_build_object(
        'workflow_id', cast(workflow_id as text), 'enrollment_id', cast(enrollment_id as text),
        'contact_id', cast(contact_id as text))
    from entered
)

select (select count(*) from due) as taken, (select count(*) from entered) as entered;

-- name: sync_clocks
-- Gives every active workflow that starts by date its clock, begun when it was last changed, and takes those of others.
with gone as (
    delete from workflow_clocks
    where not exists (
        select from workflows
        where workflows.workflow_id = workflow_clocks.workflow_id
            and workflows.active
            and workflows.trigger_type in ('date', 'anniversary'))
)

insert into workflow_clocks (workflow_id, version, swept_until, next_at)
select
    workflow_id, version, coalesce(updated_at, created_at), coalesce(updated_at, created_at)
from workflows
where active and trigger_type in ('date', 'anniversary')
order by workflow_id
on conflict (workflow_id) do update
set version = excluded.version, swept_until = excluded.swept_until, next_at = excluded.next_at
where workflow_clocks.version <> excluded.version;

-- name: due_clocks
-- The workflows whose day may have come.
select workflow_id
from workflow_clocks
where next_at <= cast(:now as timestamptz)
order by workflow_id;

-- name: hold_clock
-- The clock of a workflow, unless somebody else is at it.
select
    workflow_clocks.swept_until, workflows.version, workflows.trigger_type, workflows.trigger_config
from workflow_clocks
inner join workflows on workflows.workflow_id = workflow_clocks.workflow_id
where workflow_clocks.workflow_id = cast(:workflow_id as bigint)
    and workflow_clocks.next_at <= cast(:now as timestamptz)
    and workflows.active
for update of workflow_clocks skip locked;

-- name: set_clock
-- Says how far entries are made, and when the next may come.
update workflow_clocks
set swept_until = greatest(swept_until, cast(:now as timestamptz)),
    next_at = cast(:next_at as timestamptz)
where workflow_id = cast(:workflow_id as bigint);

-- name: enter_on_day
-- Enrols people whose day has come: everybody (field ''), or whose date in a field has the month and day wanted. Days
-- come by time zone; '' is that of people without a known one.
with days as materialized (
    select *
    from jsonb_to_recordset(cast(:days as jsonb)) as days (
        timezone text, occurred_at timestamptz, day date, year int, month_days text[], zone text)
),

dated as materialized (
    select
        contacts.contact_id, days.occurred_at, days.day,
        days.year - cast(left(dates.written, 4) as int) as years
    from contacts
    inner join days on days.timezone = case
        when contacts.timezone = any(cast(:zones as text[])) then contacts.timezone else ''
    end
    cross join lateral (
        select case cast(:field as text)
            when '' then '0000-' || days.month_days[1]
            when 'created_at' then to_char(
                contacts.created_at at time zone days.zone, 'YYYY-MM-DD')
            when 'consent_at' then to_char(
                contacts.consent_at at time zone days.zone, 'YYYY-MM-DD')
            else contacts.custom_fields
                ->> substr(cast(:field as text), length('custom_fields.') + 1)
        end as written
    ) as dates
    where contacts.contact_id > cast(:after as bigint)
        and dates.written ~ '^\d{4}-\d{2}-\d{2}'
        and substr(dates.written, 6, 5) = any(days.month_days)
        and cast(left(dates.written, 4) as int) < days.year
    order by contacts.contact_id, days.day
    limit cast(:size as int)
),

entered as (
    insert into enrollments (
        workflow_id, version, contact_id, entry_key, status, resume_at, context, caused_at,
        entered_at)
    select
        workflows.workflow_id, workflows.version, dated.contact_id,
        workflows.trigger_type || ':' || dated.day || ':' || dated.contact_id, 'running',
        cast(:now as timestamptz),
        jsonb_build_object('date', dated.day) || case cast(:field as text)
            when '' then '{}' else jsonb_build_object('years', dated.years)
        end,
        dated.occurred_at, cast(:now as timestamptz)
    from dated
    inner join workflows on workflows.workflow_id = cast(:workflow_id as bigint)
    where may_enter(
        workflows.workflow_id, dated.contact_id,
        coalesce(workflows.re_entry ->> 'policy', 'after_exit'),
        cast(workflows.re_entry ->> 'cooldown_hours' as float8), cast(:now as timestamptz))
    order by dated.contact_id
    on conflict (workflow_id, entry_key) do nothing
    returning enrollment_id, workflow_id, contact_id
),

told as (
    insert into outbox (event_name, occurred_at, data)
    select 'workflow.triggered', cast(:now as timestamptz), jsonb_build_object(
        'workflow_id', cast(workflow_id as text), 'enrollment_id', cast(enrollment_id as text),
        'contact_id', cast(contact_id as text))
    from entered
)

select
    (select max(contact_id) from dated) as last_contact_id,
    (select count(*) from dated) as found, (select count(*) from entered) as entered;

-- name: claim_due
-- Takes enrollments whose moment has come, by where they stand; others that move some at the same time are passed by.
with due as materialized (
    select
        enrollment_id, contact_id, workflow_id, version, step_path, visit, depth,
        case
            when status = 'running' then 'fresh'
            when coalesce(until_at, resume_at) <= cast(:now as timestamptz) then 'expired'
            else 'woken'
        end as arrival
    from enrollments
    where status in ('running', 'waiting')
        and resume_at <= cast(:now as timestamptz)
        and (cast(:workflow_id as bigint) is null or workflow_id = cast(:workflow_id as bigint))
    order by resume_at
    limit cast(:size as int)
    for update skip locked
)

select
    workflow_id, version, step_path, visit, depth, arrival,
    array_agg(enrollment_id order by contact_id, enrollment_id) as enrollment_ids,
    array_agg(contact_id order by contact_id, enrollment_id) as contact_ids
from due
group by workflow_id, version, step_path, visit, depth, arrival;

-- name: claim_one
-- Takes one enrollment that has just begun.
with one as materialized (
    select enrollment_id, contact_id, workflow_id, version, step_path, visit, depth
    from enrollments
    where enrollment_id = cast(:enrollment_id as bigint)
        and contact_id = cast(:contact_id as bigint)
        and status = 'running'
    for update
)

select
    workflow_id, version, step_path, visit, depth, 'fresh' as arrival,
    array[enrollment_id] as enrollment_ids, array[contact_id] as contact_ids
from one;

-- name: count_due
-- How many enrollments would move now, by workflow, version and step.
select workflow_id, version, step_path, count(*) as enrollment_count
from enrollments
where status in ('running', 'waiting')
    and resume_at <= cast(:now as timestamptz)
    and (cast(:workflow_id as bigint) is null or workflow_id = cast(:workflow_id as bigint))
group by workflow_id, version, step_path
order by workflow_id, version, step_path;

-- name: count_ways
-- Where enrollments that stood at `origins` stand now.
select
    enrollments.workflow_id, enrollments.version, members.origin,
    case when enrollments.status = 'waiting' then enrollments.step_path else enrollments.status end
        as goes_to,
    count(*) as enrollment_count
from unnest(
    cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]), cast(:origins as text[])
) as members (enrollment_id, contact_id, origin)
inner join enrollments
    on enrollments.contact_id = members.contact_id
    and enrollments.enrollment_id = members.enrollment_id
group by 1, 2, 3, 4
order by 1, 2, 3, 4;

-- name: next_due
-- When the next enrollment has to move; null when none waits.
select min(resume_at)
from enrollments
where status in ('running', 'waiting');

-- name: write_logs
-- Logs one visit of one step for many, each (enrollment, step, visit) once.
insert into workflow_logs (
    workflow_id, enrollment_id, contact_id, step_path, step_index, visit, status, result,
    created_at)
select
    cast(:workflow_id as bigint), members.enrollment_id, members.contact_id,
    cast(:step_path as text), cast(:step_index as int), cast(:visit as int), cast(:status as text),
    case
        when members.own is null then cast(:result as jsonb)
        else cast(:result as jsonb) || cast(members.own as jsonb)
    end,
    cast(:now as timestamptz)
from unnest(
    cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]), cast(:results as text[])
) as members (enrollment_id, contact_id, own)
on conflict (enrollment_id, step_path, visit) do nothing;

-- name: put_down
-- Puts enrollments where they stand now; of whom has reached the end webhooks are told.
with moved as (
    update enrollments
    set status = cast(:status as text), step_path = cast(:step_path as text),
        resume_at = coalesce(members.until_at, cast(:until as timestamptz)),
        until_at = coalesce(members.until_at, cast(:until as timestamptz)),
        waiting_for = cast(:waiting_for as text), exit_reason = cast(:exit_reason as text),
        arrived_at = case
            when enrollments.status = 'waiting'
                and enrollments.until_at <= cast(:now as timestamptz)
                then enrollments.until_at
            else coalesce(enrollments.arrived_at, enrollments.caused_at)
        end,
        finished_at = case
            when cast(:status as text) <> 'waiting' then cast(:now as timestamptz)
        end
    from unnest(
        cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]),
        cast(:untils as timestamptz[])
    ) as members (enrollment_id, contact_id, until_at)
    where enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    returning enrollments.enrollment_id, enrollments.workflow_id, enrollments.contact_id
)

insert into outbox (event_name, occurred_at, data)
select 'workflow.' || cast(:status as text), cast(:now as timestamptz), jsonb_build_object(
    'workflow_id', cast(moved.workflow_id as text),
    'enrollment_id', cast(moved.enrollment_id as text),
    'contact_id', cast(moved.contact_id as text))
from moved
where cast(:status as text) in ('completed', 'failed');

-- name: read_waits
-- Until when enrollments wait at most.
select
    coalesce(enrollments.until_at, enrollments.resume_at) as until_at,
    array_agg(members.enrollment_id order by members.contact_id, members.enrollment_id)
        as enrollment_ids,
    array_agg(members.contact_id order by members.contact_id, members.enrollment_id) as contact_ids
from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
    as members (enrollment_id, contact_id)
inner join enrollments
    on enrollments.contact_id = members.contact_id
    and enrollments.enrollment_id = members.enrollment_id
group by coalesce(enrollments.until_at, enrollments.resume_at)
order by 1;

-- name: find_awaited
-- Who of those at a step had the event they wait for, and when first: after they came there, and in time. From then on
-- time counts for what they do next.
with found as materialized (
    select members.enrollment_id, members.contact_id, happened.first_at
    from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
        as members (enrollment_id, contact_id)
    inner join enrollments
        on enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    cross join lateral (
        select min(events.occurred_at) as first_at
        from events
        where events.contact_id = members.contact_id
            and events.event_type = cast(:event_type as text)
            and events.properties @> cast(:where as jsonb)
            and events.occurred_at > case
                when cast(:is_fresh as boolean) and enrollments.status = 'waiting'
                    and enrollments.until_at <= cast(:now as timestamptz)
                    then enrollments.until_at
                else coalesce(enrollments.arrived_at, enrollments.caused_at)
            end
            and events.occurred_at <= case
                when cast(:is_fresh as boolean) then cast(:deadline as timestamptz)
                else coalesce(enrollments.until_at, cast(:deadline as timestamptz))
            end
    ) as happened
    where members.contact_id > 0
        and happened.first_at is not null
),

noted as (
    update enrollments
    set arrived_at = found.first_at, until_at = least(found.first_at, cast(:now as timestamptz))
    from found
    where enrollments.contact_id = found.contact_id
        and enrollments.enrollment_id = found.enrollment_id
    returning enrollments.enrollment_id, enrollments.contact_id
)

select enrollment_id, contact_id
from noted
order by contact_id, enrollment_id;

-- name: find_goal_reached
-- Who of those on their way had the event that is their goal since what brought them in.
with found as materialized (
    select members.enrollment_id, members.contact_id, happened.first_at
    from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
        as members (enrollment_id, contact_id)
    inner join enrollments
        on enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    cross join lateral (
        select min(events.occurred_at) as first_at
        from events
        where events.contact_id = members.contact_id
            and events.event_type = cast(:event_type as text)
            and events.properties @> cast(:where as jsonb)
            and events.occurred_at > enrollments.caused_at
    ) as happened
    where members.contact_id > 0
        and happened.first_at is not null
),

noted as (
    update enrollments
    set arrived_at = greatest(found.first_at, enrollments.arrived_at),
        until_at = least(
            greatest(found.first_at, enrollments.arrived_at), cast(:now as timestamptz))
    from found
    where not cast(:is_fresh as boolean)
        and enrollments.contact_id = found.contact_id
        and enrollments.enrollment_id = found.enrollment_id
)

select enrollment_id, contact_id
from found
order by contact_id, enrollment_id;

-- name: find_goal_members
-- Who of those on their way is a member of the segment that is their goal.
select members.enrollment_id, members.contact_id
from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
    as members (enrollment_id, contact_id)
inner join segment_memberships
    on segment_memberships.contact_id = members.contact_id
    and segment_memberships.segment_id = cast(:segment_id as bigint)
    and segment_memberships.valid_to = 'infinity'
where members.contact_id > 0
order by members.contact_id, members.enrollment_id;

-- name: group_by_zone
-- Enrollments by the time zone of their contacts; '' where there is none.
select
    coalesce(contacts.timezone, '') as timezone,
    array_agg(members.enrollment_id order by members.contact_id, members.enrollment_id)
        as enrollment_ids,
    array_agg(members.contact_id order by members.contact_id, members.enrollment_id) as contact_ids
from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
    as members (enrollment_id, contact_id)
left join contacts on contacts.contact_id = members.contact_id
group by coalesce(contacts.timezone, '')
order by 1;

-- name: judge
-- Who passes a condition on a field of the contact, or of the enrollment's context. Text is compared case-blind, numbers
-- as numbers; what is missing or blank passes only the test for that.
with looked_at as materialized (
    select
        members.enrollment_id, members.contact_id,
        case cast(:field as text)
            when 'context' then enrollments.context -> cast(:key as text)
            when 'custom' then contacts.custom_fields -> cast(:key as text)
            when 'subscribed' then to_jsonb(contacts.subscribed)
            when 'state' then contact_state(contacts.contact_id, cast(:key as text))
            when 'score' then (
                select to_jsonb(contact_scores.total_score)
                from contact_scores
                where contact_scores.contact_id = contacts.contact_id)
            when 'tags' then (
                select jsonb_agg(tags.name)
                from contact_tags
                inner join tags on tags.tag_id = contact_tags.tag_id
                where contact_tags.contact_id = contacts.contact_id)
            else to_jsonb(case cast(:field as text)
                when 'email' then contacts.email when 'first_name' then contacts.first_name
                when 'last_name' then contacts.last_name when 'phone' then contacts.phone
                when 'country' then contacts.country when 'language' then contacts.language
                when 'timezone' then contacts.timezone when 'currency' then contacts.currency
                when 'consent_status' then contacts.consent_status
                when 'consent_source' then contacts.consent_source
                when 'source' then contacts.source
            end)
        end as actual
    from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
        as members (enrollment_id, contact_id)
    left join enrollments
        on cast(:field as text) = 'context'
        and enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    left join contacts
        on cast(:field as text) <> 'context' and contacts.contact_id = members.contact_id
),

compared as materialized (
    select
        enrollment_id, contact_id, coalesce(actual in ('null', '""', '[]'), true) as is_missing,
        case jsonb_typeof(actual)
            when 'array' then array(select lower(jsonb_array_elements_text(actual)))
            else array[lower(actual #>> '{}')]
        end as texts,
        jsonb_typeof(actual) <> 'array' as is_one,
        case
            when jsonb_typeof(actual) in ('number', 'string')
                and actual #>> '{}' ~ '^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*$'
                then cast(actual #>> '{}' as numeric)
        end as number
    from looked_at
),

judged as (
    select
        enrollment_id, contact_id,
        case
            when is_missing then cast(:test as text) = 'missing'
            else coalesce(case cast(:test as text)
                when 'among' then texts && cast(:texts as text[])
                when 'contains' then
                    case when is_one then strpos(texts[1], cast(:text as text)) > 0
                        else texts && cast(:texts as text[])
                    end
                when 'above' then number > cast(:number as numeric)
                when 'below' then number < cast(:number as numeric)
                else cast(:test as text) = 'present'
            end <> cast(:negated as boolean), false)
        end as passed
    from compared
)

select
    passed, array_agg(enrollment_id order by contact_id, enrollment_id) as enrollment_ids,
    array_agg(contact_id order by contact_id, enrollment_id) as contact_ids
from judged
group by passed
order by passed desc;

-- name: template_spans
-- The versions of a template, each with the time in which it was the one to send; the first one from the beginning on.
select
    version,
    case when version > min(version) over () then created_at else '-infinity' end as since,
    lead(created_at, 1, 'infinity') over (order by version) as until
from template_versions
where template_id = cast(:template_id as bigint);

-- name: mail_groups
-- Who of those at a step may be mailed which version of a template - that of when they entered, or the first one - and
-- why others may not.
with versions as materialized (
    -- include: template_spans
),

facts as materialized (
    select
        members.enrollment_id, members.contact_id, enrollments.entered_at,
        contact_mailability.contact_id is not null as exists,
        case
            when contact_mailability.refusal is not null then contact_mailability.refusal
            when cast(:require_consent as boolean)
                and contact_mailability.consent_status <> 'granted' then 'no_consent'
        end as refusal
    from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
        as members (enrollment_id, contact_id)
    left join enrollments
        on enrollments.contact_id = members.contact_id
        and enrollments.enrollment_id = members.enrollment_id
    left join contact_mailability on contact_mailability.contact_id = members.contact_id
)

select
    facts.exists, facts.refusal, versions.version,
    array_agg(facts.enrollment_id order by facts.contact_id, facts.enrollment_id) as enrollment_ids,
    array_agg(facts.contact_id order by facts.contact_id, facts.enrollment_id) as contact_ids
from facts
left join versions on facts.entered_at >= versions.since and facts.entered_at < versions.until
group by facts.exists, facts.refusal, versions.version
order by versions.version, facts.exists, facts.refusal;

-- name: mail_results
-- What the logs say of mails queued at a step.
select
    array_agg(members.enrollment_id order by members.contact_id, members.enrollment_id)
        as enrollment_ids,
    array_agg(members.contact_id order by members.contact_id, members.enrollment_id) as contact_ids,
    array_agg(
        cast(json_build_object(
            'to', contacts.email, 'message_id', cast(message_keys.message_id as text)) as text)
        order by members.contact_id, members.enrollment_id) as results
from unnest(cast(:enrollment_ids as bigint[]), cast(:contact_ids as bigint[]))
    as members (enrollment_id, contact_id)
inner join contacts on contacts.contact_id = members.contact_id
inner join message_keys
    on message_keys.dedupe_key = 'enrollment:' || members.enrollment_id || cast(:step as text);

-- name: ensure_tag
-- Makes a tag unless there is one of that name, in whatever case.
insert into tags (name, created_at)
select cast(:tag_name as text), cast(:now as timestamptz)
where not exists (select 1 from tags where lower(name) = lower(cast(:tag_name as text)))
on conflict (lower(name)) do nothing;

-- name: find_tag
-- The tag of a name, in whatever case.
select tag_id
from tags
where lower(name) = lower(cast(:tag_name as text));

-- name: put_tag
-- Puts a tag on contacts that are held; who newly gets it has an event that waits for dispatch.
with tagged as (
    insert into contact_tags (contact_id, tag_id, added_at)
    select people.contact_id, cast(:tag_id as bigint), cast(:now as timestamptz)
    from unnest(cast(:contact_ids as bigint[])) as people (contact_id)
    order by people.contact_id
    on conflict (contact_id, tag_id) do nothing
    returning contact_id
),

stored as (
    insert into events (contact_id, occurred_at, received_at, event_type, source, properties)
    select
        tagged.contact_id, cast(:now as timestamptz), cast(:now as timestamptz), 'tag_added',
        'mauto',
        jsonb_build_object('tag_id', cast(tags.tag_id as text), 'tag_name', tags.name)
    from tagged
    cross join tags
    where tags.tag_id = cast(:tag_id as bigint)
    returning event_id, contact_id
)

insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)
select
    contact_id % 64, cast(:now as timestamptz), min(event_id), array_agg(event_id), count(*)
from stored
group by contact_id % 64, event_id / 8192;

-- name: template_texts
-- Every version of a template, oldest first.
select
    versions.subject, versions.html_body, versions.text_body, versions.variables, templates.strict,
    versions.version
from template_versions as versions
inner join templates on templates.template_id = versions.template_id
where versions.template_id = cast(:template_id as bigint)
order by versions.version;
