-- One row of event_pending holds many events: an import of a million contacts queues 7,500 rows instead of a million.
-- All events of a row have one bucket, one moment and numbers that agree but for the last 13 bits (so that a row has an
-- end), and what happened to one person stays in order.

alter table event_pending rename column event_id to first_event_id;
alter table event_pending add column event_ids bigint[], add column event_count integer;
update event_pending set event_ids = array[first_event_id], event_count = 1;
alter table event_pending
    alter column event_ids set not null,
    alter column event_count set not null,
    drop column contact_id,
    add constraint a_row_of_events_is_counted
        check (event_count > 0 and event_count = cardinality(event_ids));
comment on table event_pending is
    'Events that have not taken effect yet. Dispatch locks a bucket and deletes what it dispatched.';
comment on column event_pending.bucket is 'contact_id % 64 of all its events.';
comment on column event_pending.first_event_id is 'None of event_ids is less.';
comment on column event_pending.event_ids is 'In any order; an event that is gone meanwhile has no effect.';
