-- Searching contacts by a part of address or name, at a million of them, without slowing an import down: a trigram
-- index costs 12 CPU seconds per million rows, so it stands beside the table and is filled afterwards, in the
-- background. New contacts that are not in it yet are looked at one by one (about 1 microsecond each).

create extension if not exists pg_trgm;

create function contact_words(email text, first_name text, last_name text) returns text
language sql immutable parallel safe as $$
    select lower(email || e'\n' || first_name || ' ' || last_name)
$$;
comment on function contact_words(text, text, text) is
    'What a search looks into: the address, and first and last name with a space between.';

create table contact_search (
    contact_id bigint primary key,
    words text not null
);
comment on table contact_search is 'The words of each contact up to contact_search_progress; see contact_words().';
create index contact_search_by_part on contact_search using gin (words gin_trgm_ops);

create table contact_search_progress (
    is_the_only_row boolean primary key default true,
    indexed_to bigint not null default 0,
    constraint there_is_one_row check (is_the_only_row)
);
comment on table contact_search_progress is 'Every contact with an id up to indexed_to is in contact_search.';
insert into contact_search_progress default values;

create function keep_contact_words() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        -- Waits for who is just indexing: words that are being written cannot be seen, and would stay for nobody.
        perform from contact_search_progress for share;
        delete from contact_search where contact_id = old.contact_id;
    else
        -- An upsert, and not an update: a row that is just being indexed cannot be seen yet, but waited for.
        insert into contact_search (contact_id, words)
        values (new.contact_id, contact_words(new.email, new.first_name, new.last_name))
        on conflict (contact_id) do update set words = excluded.words;
    end if;
    return null;
end
$$;
create trigger words_follow_the_contact after update on contacts for each row
    when ((old.email, old.first_name, old.last_name) is distinct from (new.email, new.first_name, new.last_name))
    execute function keep_contact_words();
create trigger words_go_with_the_contact after delete on contacts for each row
    execute function keep_contact_words();

-- What changed since a moment: contacts that never changed count by their creation and cost nothing here.
create index contacts_by_change on contacts (updated_at) where updated_at is not null;
