-- How long nobody had heard of who became dormant, so that activity that becomes known later can undo it.
alter table contact_stages add column idle_limit_days smallint;
alter table stage_transitions add column idle_limit_days smallint;
comment on column contact_stages.idle_limit_days is
    'Days without engagement that made the contact dormant; null: in another stage, or moved by hand.';
comment on column stage_transitions.idle_limit_days is
    'Days without engagement that made the contact dormant; null: to another stage, or moved by hand.';
update stage_transitions
set idle_limit_days = cast(substring(reason from '^no engagement for (\d{1,3}) days$') as smallint)
where new_stage = 'dormant' and reason ~ '^no engagement for \d{1,3} days$';
update contact_stages
set idle_limit_days = moved.idle_limit_days
from stage_transitions as moved
where contact_stages.lifecycle_stage = 'dormant' and moved.contact_id = contact_stages.contact_id
    and moved.occurred_at = contact_stages.since and moved.new_stage = 'dormant';

-- A copy beside the score: lists and figures of a million scores by stage need no second million of rows.
alter table contact_scores add column lifecycle_stage text;
comment on column contact_scores.lifecycle_stage is
    'Copy of contact_stages.lifecycle_stage, kept by a trigger there; null: new.';
update contact_scores
set lifecycle_stage = contact_stages.lifecycle_stage
from contact_stages
where contact_stages.contact_id = contact_scores.contact_id;
create function copy_stage() returns trigger language plpgsql as $$
begin
    update contact_scores
    set lifecycle_stage = changed.lifecycle_stage
    from changed
    where contact_scores.contact_id = changed.contact_id
        and contact_scores.lifecycle_stage is distinct from changed.lifecycle_stage;
    return null;
end
$$;
comment on function copy_stage() is 'Copies stages that were written to contact_scores.';
create trigger new_stages_are_copied after insert on contact_stages
    referencing new table as changed for each statement execute function copy_stage();
create trigger changed_stages_are_copied after update on contact_stages
    referencing new table as changed for each statement execute function copy_stage();

-- Whose last evaluation is the longest ago; moves are few, and the night marks nobody else.
create index contact_stages_by_evaluation on contact_stages (evaluated_at, contact_id);
