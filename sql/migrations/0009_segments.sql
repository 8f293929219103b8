-- Segments that live: when each is evaluated next, one open membership per contact, and who is woken.

alter table segments
    add column evaluation_due_at timestamptz default now(),
    add column members_changed_at timestamptz;
comment on column segments.evaluation_due_at is
    'When the segment is to be evaluated; null: never, it has neither rules nor exclusions and is up to date.';
comment on column segments.members_changed_at is
    'Begin of the last membership history was written for; the next one is later, so that rows never overlap.';

-- What is here was never evaluated.
update segments set evaluation_status = 'pending';

create unique index one_open_membership_per_contact on segment_memberships (segment_id, contact_id)
    where valid_to = 'infinity';
create index segment_memberships_by_contact on segment_memberships (contact_id);
create index segment_static_members_by_contact on segment_static_members (contact_id);

-- A finished campaign keeps the bare id of its segment: were it emptied, the campaign would seem to have gone to all
-- contacts. Unfinished ones keep their segment from being deleted (mautolib/segments/store.py).
alter table campaigns drop constraint campaigns_segment_id_fkey;

create trigger wakes_the_evaluator after insert or update of evaluation_status on segments
    for each row when (new.evaluation_status = 'pending') execute function wake('mauto_events');
