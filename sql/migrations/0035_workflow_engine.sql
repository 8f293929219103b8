-- The engine of workflows: since when somebody stands at a step, what may wake them, and what the clock starts.

alter table enrollments
    add column arrived_at timestamptz,
    add column until_at timestamptz,
    add column depth smallint not null default 0;
update enrollments set until_at = resume_at where status = 'waiting';
comment on column enrollments.arrived_at is
    'When it came to the step it waits at, by the clock of what happened; null: since caused_at.';
comment on column enrollments.until_at is
    'Until when it waits at most; resume_at is earlier once something happened that it may wait for.';
comment on column enrollments.depth is
    'How many rules and workflows lie between its cause and what came from outside.';

-- The synonyms of event types are not resolved here.
alter table workflow_versions add column listens_to jsonb generated always as (
    jsonb_path_query_array(
        steps, 'strict $.** ? (@.type == "wait_for_event" || @.type == "goal").event_type')
    || case
        when jsonb_path_exists(steps, 'strict $.** ? (@.type == "goal" && exists (@.segment_id))')
            then cast('["segment_entered"]' as jsonb)
        else cast('[]' as jsonb)
    end
) stored;
comment on column workflow_versions.listens_to is
    'The types of events that may wake somebody who waits in this version.';
create index workflow_versions_that_listen on workflow_versions (workflow_id, version)
    where listens_to <> '[]';

create table cart_timers (
    workflow_id bigint not null references workflows on delete cascade,
    contact_id bigint not null,
    cart_id text not null,
    touched_at timestamptz not null,
    due_at timestamptz not null,
    depth smallint not null default 0,
    context jsonb not null,
    primary key (contact_id, cart_id, workflow_id)
);
create index cart_timers_due on cart_timers (due_at);
create index cart_timers_of_workflow on cart_timers (workflow_id);
comment on table cart_timers is
    'Carts that will count as abandoned, for each workflow that wants to know; ordering one removes it.';

create table workflow_clocks (
    workflow_id bigint primary key references workflows on delete cascade,
    version integer not null,
    swept_until timestamptz not null,
    next_at timestamptz
);
create index workflow_clocks_due on workflow_clocks (next_at);
comment on table workflow_clocks is
    'How far the entries of each workflow that starts by date are made; null: nothing comes any more.';

create function may_enter(workflow bigint, person bigint, policy text, cooldown_hours float8, now timestamptz)
returns boolean language sql stable as $$
    select policy = 'always' or not exists (
        select
        from enrollments
        where enrollments.workflow_id = workflow
            and enrollments.contact_id = person
            and case policy
                when 'after_exit' then enrollments.finished_at is null
                when 'cooldown'
                    then enrollments.entered_at > now - make_interval(secs => cooldown_hours * 3600)
                else true
            end
    )
$$;
comment on function may_enter(bigint, bigint, text, float8, timestamptz) is
    'Whether the re-entry policy of a workflow lets somebody in now.';

create function cart_total(properties jsonb) returns numeric language sql immutable as $$
    select coalesce(
        case when properties ->> 'total' ~ '^-?\d{1,15}(\.\d{1,10})?$'
            then cast(properties ->> 'total' as numeric) end,
        (
            select sum(case
                when line ->> 'unit_price' ~ '^\d{1,15}(\.\d{1,10})?$'
                    and coalesce(line ->> 'quantity', '1') ~ '^\d{1,15}(\.\d{1,10})?$'
                    and coalesce(line ->> 'discount', '0') ~ '^\d{1,15}(\.\d{1,10})?$'
                    then cast(line ->> 'unit_price' as numeric)
                        * cast(coalesce(line ->> 'quantity', '1') as numeric)
                        - cast(coalesce(line ->> 'discount', '0') as numeric)
            end)
            from jsonb_array_elements(
                case jsonb_typeof(properties -> 'lines') when 'array' then properties -> 'lines' else '[]' end
            ) as lines (line)
        ),
        0)
$$;
comment on function cart_total(jsonb) is
    'What a cart is worth in its currency: its total, or that of its lines; what cannot be read counts nothing.';
