-- The rows of a file wait for their merge in a table of their own under checkpoints, so that another worker goes on
-- where one was killed. Tables and checkpoints are unlogged: a crash of the database empties both, never one of them.

alter table imports add column stalled_attempts integer not null default 0;
comment on column imports.stalled_attempts is
    'Workers that took the import since more of it was kept than ever before; too many, and it fails.';

create unlogged table staging.import_checkpoints (
    import_id bigint primary key references imports on delete cascade,
    rows_table text not null unique,
    fingerprint text not null,
    is_whole boolean not null default false,
    part_count bigint not null default 0,
    row_count bigint not null default 0,
    last_line bigint not null default 0,
    columns text[] not null,
    blank_language text not null,
    options jsonb not null,
    kept_at timestamptz not null default clock_timestamp()
);
comment on table staging.import_checkpoints is
    'How far the file of an import was read: its rows up to there are in rows_table. One row per import at work.';
comment on column staging.import_checkpoints.fingerprint is
    'Of the file and of how it is read; another one means that the rows kept are not to be used.';
comment on column staging.import_checkpoints.is_whole is 'The file has been read to its end; the merge is next.';

create function make_import_rows(import_id bigint, attempt_id bigint) returns text
language plpgsql as $$
declare
    made constant text := format('import_%s_%s', import_id, attempt_id);
begin
    -- Filled once, read by one merge, dropped: a vacuum would come for nothing, a parallel scan costs more.
    execute format(
        'create unlogged table staging.%I (like public.import_rows) '
        'with (autovacuum_enabled = off, toast.autovacuum_enabled = off, parallel_workers = 0)', made);
    execute format('comment on table staging.%I is %L', made, format('Rows of import %s.', import_id));
    begin
        if to_regrole('mauto_eraser') is not null then
            execute format('grant select, update on staging.%I to mauto_eraser', made);
        end if;
        -- A worker with another login has to go on with it, and to drop it.
        if to_regrole('mauto_worker') is not null and current_user <> 'mauto_worker'
                and pg_has_role('mauto_worker', 'usage') then
            execute format('alter table staging.%I owner to mauto_worker', made);
        end if;
    exception
        when insufficient_privilege then
            null;
    end;
    return made;
end
$$;
comment on function make_import_rows is
    'An empty table for the rows of one import; named after import and attempt, so that no name comes twice.';

create function drop_import_rows(rows_table text) returns boolean
language plpgsql as $$
begin
    if rows_table !~ '^import_[0-9]+_[0-9]+$' then
        raise exception '% is no table of an import''s rows', rows_table;
    end if;
    -- Views of sessions that were at work on it are temporary and go with it.
    execute format('drop table if exists staging.%I cascade', rows_table);
    delete from staging.import_checkpoints where import_checkpoints.rows_table = drop_import_rows.rows_table;
    return true;
exception
    -- A worker that lost its lease and does not know yet holds it; maintenance comes again.
    when lock_not_available or deadlock_detected then
        return false;
end
$$;
comment on function drop_import_rows is
    'Drops the rows of an import and their checkpoint; false when somebody still reads them.';
