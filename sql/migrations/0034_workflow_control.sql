-- Workflows over HTTP: edits that tell each other apart, lists of a million enrollments, pausing one.

alter table workflows add column revision integer not null default 1;
comment on column workflows.revision is 'Counts every edit; version counts those of trigger and steps only.';

alter table enrollments add column paused_from text;
alter table enrollments add constraint a_paused_enrollment_was_going
    check (paused_from in ('running', 'waiting'));
comment on column enrollments.paused_from is
    'What a paused enrollment was before: a waiting one goes on waiting, a running one has still to take its step; '
    'of no meaning once it is not paused.';

-- Newest first, and one by its id: the primary key begins with the contact.
create index enrollments_of_workflow_by_id on enrollments (workflow_id, enrollment_id desc);
-- States an enrollment does not leave by itself, so that moving costs nothing more. The others are few at a time, or
-- found soon by the index above.
create index enrollments_at_rest on enrollments (workflow_id, status, enrollment_id desc)
    where status in ('paused', 'completed', 'exited', 'failed');
