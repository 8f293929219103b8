-- The steps of a workflow as rows, for figures by step.

create function analytics.workflow_steps(steps jsonb)
returns table (step_path text, step_index int, step_type text, place bigint)
language sql immutable parallel safe rows 10 set search_path = pg_catalog, pg_temp as $$
    with recursive walked as (
        select
            cast(items.number - 1 as text) as step_path, cast(items.number - 1 as int) as step_index,
            items.step, array[items.number] as position
        from jsonb_array_elements(case jsonb_typeof(steps) when 'array' then steps else '[]' end)
            with ordinality as items (step, number)
        union all
        select
            walked.step_path || '.' || branches.name || '.' || items.number - 1, walked.step_index,
            items.step, walked.position || branches.place || items.number
        from walked
        cross join (values ('then', cast(1 as bigint)), ('else', 2)) as branches (name, place)
        cross join lateral jsonb_array_elements(
            case jsonb_typeof(walked.step -> branches.name)
                when 'array' then walked.step -> branches.name else '[]'
            end
        ) with ordinality as items (step, number)
    )
    select
        step_path, step_index,
        coalesce(nullif(coalesce(step ->> 'type', 'action'), 'action'), step ->> 'action', 'action'),
        row_number() over (order by position)
    from walked
$$;
comment on function analytics.workflow_steps(jsonb) is
    'The steps of a definition in the order they are written, with the paths that enrollments and logs name (1.then.0).';
