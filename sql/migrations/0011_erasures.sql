-- Erasure of a person: who asked for it, what is still to be looked for, and what stays countable afterwards.

create table erasures (
    erasure_id bigint generated always as identity primary key,
    contact_id bigint not null,
    status text not null default 'running',
    requested_by text not null,
    requested_at timestamptz not null,
    completed_at timestamptz,
    next_try_at timestamptz not null,
    tables jsonb not null default '{}',
    traces jsonb,
    constraint erasure_status_is_known check (status in ('running', 'completed', 'failed')),
    constraint a_completed_erasure_has_its_time
        check ((status = 'completed') = (completed_at is not null)),
    constraint a_completed_erasure_remembers_nobody check (status <> 'completed' or traces is null),
    constraint tables_are_counted_by_name check (jsonb_typeof(tables) = 'object')
);
create index erasures_to_do on erasures (next_try_at) where status <> 'completed';
comment on table erasures is
    'One row per erased person: the contact is gone with this row''s transaction, the rest by maintenance.';
comment on column erasures.tables is 'Rows removed or cleaned so far, by table.';
comment on column erasures.traces is
    'What is still to be looked for (addresses, names, phone numbers); gone when nothing is left to do.';
comment on column erasures.next_try_at is 'When maintenance takes it up (again).';
create trigger wakes_maintenance after insert on erasures
    for each statement execute function wake('mauto_erasures');

-- What keeps past totals as they were. The tombstone knows the month of the sign-up and no more; the day and the
-- activity, which cohorts are counted by, are added up without the person.
create table erased_contacts (
    contact_id bigint primary key,
    signup_month date not null,
    country text not null,
    erased_on date not null,
    constraint signup_month_is_the_first_of_a_month check (extract(day from signup_month) = 1)
);
comment on table erased_contacts is 'Tombstones: one row per erased person, without anything personal.';
create table erased_signups (
    signup_day date primary key,
    contact_count bigint not null
);
comment on table erased_signups is 'How many erased people had signed up on a day (UTC).';
create table erased_activity (
    granularity text not null,
    signup_day date not null,
    period_offset integer not null,
    contact_count bigint not null,
    primary key (granularity, signup_day, period_offset),
    constraint granularity_is_known check (granularity in ('day', 'week', 'month'))
);
comment on table erased_activity is
    'How many erased people of a sign-up day had a human open or click in a period since their own sign-up.';

create function bare_order_lines(lines jsonb) returns jsonb
language sql immutable parallel safe as $$
    select coalesce(
        jsonb_agg(
            jsonb_strip_nulls(jsonb_build_object(
                'sku', given.line -> 'sku', 'quantity', given.line -> 'quantity',
                'unit_price', given.line -> 'unit_price', 'discount', given.line -> 'discount'))
            || jsonb_build_object('name', '')
            order by given.place),
        '[]')
    from jsonb_array_elements(case when jsonb_typeof(lines) = 'array' then lines else '[]' end)
        with ordinality as given (line, place)
$$;
comment on function bare_order_lines(jsonb) is
    'Lines of an order without free text: sku, quantity, unit_price and discount, what totals are made of.';
