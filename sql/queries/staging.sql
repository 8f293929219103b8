-- Where the rows of an import wait: tables `staging.import_<import>_<attempt>` and their checkpoints.

-- name: checkpoint
-- How far an import was read; no row when nothing is kept of it.
select
    kept.rows_table, kept.fingerprint, kept.is_whole, kept.part_count, kept.row_count,
    kept.last_line, kept.columns, kept.blank_language, kept.options
from staging.import_checkpoints as kept
where kept.import_id = cast(:import_id as bigint)
    and to_regclass('staging.' || kept.rows_table) is not null;

-- name: begin
-- A table for the rows of an import and its first checkpoint, if it is still this attempt's.
with mine as materialized (
    select import_id, attempt_id
    from imports
    where import_id = cast(:import_id as bigint) and attempt_id = cast(:attempt_id as bigint)
        and status = 'running'
    for update
)

insert into staging.import_checkpoints (
    import_id, rows_table, fingerprint, columns, blank_language, options)
select
    import_id, make_import_rows(import_id, attempt_id), cast(:fingerprint as text),
    cast(:columns as text[]), cast(:blank_language as text), cast(:options as jsonb)
from mine
on conflict (import_id) do update
set
    rows_table = excluded.rows_table, fingerprint = excluded.fingerprint, is_whole = false,
    part_count = 0, row_count = 0, last_line = 0, columns = excluded.columns,
    blank_language = excluded.blank_language, options = excluded.options,
    kept_at = clock_timestamp()
returning rows_table;

-- name: keep
-- Moves the checkpoint behind the rows copied in this transaction, if the import is still this attempt's.
with mine as (
    update imports
    set
        stalled_attempts = case
            when cast(:row_count as bigint) > coalesce(total_rows, 0) then 0
            else stalled_attempts
        end,
        total_rows = greatest(total_rows, cast(:row_count as bigint))
    where import_id = cast(:import_id as bigint) and attempt_id = cast(:attempt_id as bigint)
        and status = 'running'
    returning import_id
)

update staging.import_checkpoints
set
    part_count = cast(:part_count as bigint), row_count = cast(:row_count as bigint),
    last_line = cast(:last_line as bigint), is_whole = cast(:is_whole as boolean),
    kept_at = clock_timestamp()
from mine
where import_checkpoints.import_id = mine.import_id
    and import_checkpoints.rows_table = cast(:rows_table as text);

-- name: limit_lock_waits
-- Within this transaction a lock that is not free at once is given up: dropping can wait.
select set_config('lock_timeout', '500ms', true);

-- name: drop_rows
-- Drops every table of an import's rows; one that is in use is left to maintenance.
select relations.relname, drop_import_rows(cast(relations.relname as text)) as is_gone
from pg_class as relations
where relations.relnamespace = to_regnamespace('staging') and relations.relkind = 'r'
    and relations.relname ~ ('^import_' || cast(:import_id as bigint) || '_[0-9]+$');

-- name: left_behind
-- Tables of imports that are over, gone, or go on in another table; and what became of the import.
select relations.relname, coalesce(imports.status, 'gone') as status
from pg_class as relations
left join staging.import_checkpoints as kept on kept.rows_table = relations.relname
left join imports
    on cast(imports.import_id as text) = split_part(cast(relations.relname as text), '_', 2)
where relations.relnamespace = to_regnamespace('staging') and relations.relkind = 'r'
    and relations.relname ~ '^import_[0-9]+_[0-9]+$'
    and (kept.import_id is null or imports.finished_at is not null)
order by relations.relname;

-- name: forget_checkpoints
-- Removes checkpoints of imports that are over.
delete from staging.import_checkpoints as kept
using imports
where imports.import_id = kept.import_id and imports.finished_at is not null
    and to_regclass('staging.' || kept.rows_table) is null;

-- name: stored_files
-- Files in storage that imports have or had, and whether all of those are over.
select storage_uri, bool_and(finished_at is not null) as is_over
from imports
where storage_uri like 'uploads/%'
group by storage_uri;

-- name: waiting_rows
-- Tables in which rows of files wait, for erasing people in them.
select relations.relname
from pg_class as relations
where relations.relnamespace = to_regnamespace('staging') and relations.relkind = 'r'
    and relations.relname ~ '^import_[0-9]+_[0-9]+$'
order by relations.relname;

-- name: of_this_session
-- Temporary tables and views of an import in this session.
select
    case relations.relkind when 'v' then 'view' else 'table' end as kind,
    cast(relations.relname as text) as relname
from pg_class as relations
where relations.relnamespace = pg_my_temp_schema()
    and cast(relations.relname as text) = any(cast(:names as text[]));
