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

create function contact_state(person bigint, field text) returns jsonb language sql stable as $$
    select case field
        when 'suppressed' then to_jsonb(exists (
            select from suppressions where suppressions.email_key = contacts.email_key))
        when 'lifecycle_stage' then coalesce(
            (select to_jsonb(lifecycle_stage) from contact_stages where contact_id = person), '"new"')
        when 'consent_at' then to_jsonb(contacts.consent_at)
        when 'created_at' then to_jsonb(contacts.created_at)
        when 'updated_at' then to_jsonb(contacts.updated_at)
    end
    from contacts
    where contacts.contact_id = person
$$;
comment on function contact_state(bigint, text) is
    'What a condition may ask about a contact that is no text of its row; null: nobody, or not known.';
