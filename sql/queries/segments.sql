-- Segments: which are due, how many are in them, and who still needs them.

-- name: next_due
-- The next segment to evaluate that nobody is at; those asked for come before those due again.
select segment_id
from segments
where evaluation_due_at <= cast(:due_by as timestamptz)
    and segment_id <> all(cast(:done as bigint[]))
order by evaluation_status = 'pending' desc, evaluation_due_at, segment_id
limit 1
for no key update skip locked;

-- name: count_due
-- How many segments are due.
select count(*)
from segments
where evaluation_due_at <= cast(:due_by as timestamptz);

-- name: sizes
-- Of some segments: members (last evaluation and changes by hand), and contacts added by hand.
select wanted.segment_id, open_rows.contact_count, by_hand.static_count
from unnest(cast(:segment_ids as bigint[])) as wanted (segment_id)
cross join lateral (
    select count(*) as contact_count
    from segment_memberships
    where segment_memberships.segment_id = wanted.segment_id
        and segment_memberships.valid_to = 'infinity'
) as open_rows
cross join lateral (
    select count(*) as static_count
    from segment_static_members
    where segment_static_members.segment_id = wanted.segment_id
        and not segment_static_members.is_excluded
) as by_hand;

-- name: find_user
-- An unfinished campaign or active workflow that needs a segment; no row when none does.
select 'campaign ' || campaign_id as user_name
from campaigns
where segment_id = cast(:segment_id as bigint)
    and status not in ('sent', 'cancelled', 'failed')
union all
select 'workflow ' || workflow_id
from workflows
cross join lateral (
    select jsonb_build_object(
        'text', cast(cast(:segment_id as bigint) as text),
        'number', cast(:segment_id as bigint)) as ids
) as given
where active
    and (
        (
            trigger_type = 'segment_entered'
            and jsonb_path_exists(
                trigger_config, '$.segment_id ? (@ == $text || @ == $number)', given.ids)
        )
        or (
            trigger_type = 'event' and trigger_config ->> 'event_type' = 'segment_entered'
            and jsonb_path_exists(
                trigger_config, '$.where.segment_id ? (@ == $text || @ == $number)', given.ids)
        )
        or jsonb_path_exists(
            steps,
            '$.** ? (@.type == "goal" || @.action == "add_to_segment"
                || @.action == "remove_from_segment").segment_id ? (@ == $text || @ == $number)',
            given.ids)
    )
limit 1;
