-- Searching contacts by a part of address or name (see migration 0015).

-- name: hold
-- Begins to index: who deletes a contact waits, or is gone before the next statement looks (see keep_contact_words()).
select indexed_to
from contact_search_progress
for update;

-- name: reach
-- Every contact with an id up to this one is in the index.
select indexed_to
from contact_search_progress;

-- name: matches
-- Contacts whose words contain a text, at most so many: by the index, and one by one where it does not reach yet.
-- Its reach is a bind, for the planner to see how few are left (a subquery cost 8 ms for workers with nothing to do).
select contact_id
from contact_search
where words like lower(cast(:pattern as text))
union all
select contact_id
from contacts
where contact_id > cast(:reach as bigint)
    and contact_words(email, first_name, last_name) like lower(cast(:pattern as text))
limit :at_most;

-- name: count_matches
-- How many contacts contain a text, counted up to a bound; contacts changed while not indexed are counted once.
-- "+ 0" keeps the planner from reading the whole primary key to confirm what holds for nearly every row.
select count(*)
from (
    select contact_id
    from contact_search
    where words like lower(cast(:pattern as text))
        and contact_id + 0 <= cast(:reach as bigint)
    union all
    select contact_id
    from contacts
    where contact_id > cast(:reach as bigint)
        and contact_words(email, first_name, last_name) like lower(cast(:pattern as text))
    limit :at_most
) as found;

-- name: last_id
-- The last id given to a contact, committed or not; no value before the first one.
select pg_sequence_last_value(cast(pg_get_serial_sequence('contacts', 'contact_id') as regclass));

-- name: transaction_number
-- The number of this transaction.
select cast(cast(pg_current_xact_id() as text) as bigint);

-- name: oldest_open_transaction
-- Every transaction with a smaller number has ended.
select cast(cast(pg_snapshot_xmin(pg_current_snapshot()) as text) as bigint);

-- name: index_next
-- Indexes the next contacts up to an id, at most so many; returns how far the index reaches now.
with chunk as materialized (
    select contact_id, contact_words(email, first_name, last_name) as words
    from contacts
    where contact_id > (select indexed_to from contact_search_progress)
        and contact_id <= cast(:up_to as bigint)
    order by contact_id
    limit :at_most
),

-- Someone who changed a contact meanwhile wrote its new words.
indexed as (
    insert into contact_search (contact_id, words)
    select contact_id, words
    from chunk
    order by contact_id
    on conflict (contact_id) do nothing
)

update contact_search_progress
set indexed_to = case
    when (select count(*) from chunk) < :at_most then greatest(indexed_to, cast(:up_to as bigint))
    else (select max(contact_id) from chunk)
end
returning indexed_to, (select count(*) from chunk) as indexed_count;
