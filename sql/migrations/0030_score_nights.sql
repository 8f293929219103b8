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
