-- What each event and each contact costs when a million of them are written (docs/decisions/0011).

-- (event_id, occurred_at) and (occurred_at, event_id) were the same uniqueness twice. A single event is found by its
-- number through the blocks that hold such numbers: they are handed out in the order of arrival.
alter table events drop constraint events_pkey;
drop index events_newest;
drop index events_by_time;
alter table events add primary key (occurred_at, event_id);
create index events_by_number on events using brin (event_id) with (autosummarize = on);

-- Imports tell nearly all events of these two types; that a contact was made, contacts.created_at says as well.
drop index events_by_type;
create index events_by_type on events (event_type, occurred_at, event_id) include (contact_id)
    where event_type not in ('contact_created', 'contact_updated');

-- New contacts come last instead of first: the rightmost page of an index is found without a search and never split
-- in halves.
drop index contacts_by_creation;
create index contacts_by_creation on contacts (created_at, contact_id);
