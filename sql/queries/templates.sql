-- Templates: what still needs one.

-- name: users_of
-- Why a template cannot be deleted: unfinished campaigns and active workflows that name it.
select 'campaign' as kind, name
from campaigns
where template_id = cast(:template_id as bigint)
    and status not in ('sent', 'cancelled', 'failed')
union all
select 'workflow', name
from workflows
where active
    and jsonb_path_exists(
        steps, '$.** ? (@.template_id == $text || @.template_id == $number)',
        jsonb_build_object(
            'text', cast(cast(:template_id as bigint) as text),
            'number', cast(:template_id as bigint)))
order by kind, name;
