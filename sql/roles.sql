-- Who may do what. Applied after every schema change; roles are shared by all databases of a server.
-- Without the right to create roles (some managed servers) everything runs as the owner and a notice says so.

do $$
declare
    name text;
begin
    foreach name in array array['mauto_api', 'mauto_worker', 'mauto_tracker', 'mauto_analyst', 'mauto_eraser'] loop
        if to_regrole(name) is null then
            execute format('create role %I nologin', name);
        end if;
    end loop;
exception
    when insufficient_privilege then
        raise notice 'single-role mode: this user may not create roles, so processes share its rights';
    -- Two databases migrated at the same moment: the other one has just made it.
    when duplicate_object or unique_violation then
        null;
end
$$;

do $$
declare
    found text;
begin
    if to_regrole('mauto_api') is null then
        return;
    end if;
    revoke all on schema public from public;
    grant usage on schema public to mauto_api, mauto_worker, mauto_tracker, mauto_eraser;

    grant select, insert, update, delete on all tables in schema public to mauto_api, mauto_worker;
    grant usage on all sequences in schema public to mauto_api, mauto_worker, mauto_tracker;
    -- Facts are appended, never rewritten.
    revoke update, delete, truncate on events, hits, hit_verdicts, consents, audit_log, message_attempts,
        score_history, score_runs, score_rule_awards, stage_transitions from mauto_api, mauto_worker;
    -- A sender may switch off; only the owner switches on after a restore.
    revoke insert, update, delete, truncate on installation from mauto_api;
    revoke insert, delete, truncate on installation from mauto_worker;
    -- Who gets no mail is decided at the command line, as the owner.
    revoke insert, update, delete, truncate on holdout_periods from mauto_api, mauto_worker;
    revoke all on schema_migrations from mauto_api, mauto_worker, mauto_tracker;
    grant select on schema_migrations to mauto_api, mauto_worker;

    -- What works with its owner's rights is called by name only; a trigger's function needs no grant to fire.
    for found in
        select format('%s', oid::regprocedure) from pg_proc
        where prosecdef and pronamespace in (select oid from pg_namespace
            where nspname in ('public', 'analytics', 'rollups')) and pg_has_role(proowner, 'usage')
    loop
        execute format('revoke execute on function %s from public', found);
    end loop;
    grant execute on function drop_oldest_hits(timestamptz) to mauto_worker;
    grant execute on function ensure_month_partition(regclass, date) to mauto_api, mauto_worker;
    grant execute on function existing_contacts(bigint[]) to mauto_api, mauto_worker, mauto_tracker;
    grant execute on function analytics.reporting_currency() to mauto_api, mauto_worker, mauto_analyst;
    grant execute on function analytics.reporting_timezone() to mauto_api, mauto_worker, mauto_analyst;

    grant usage, create on schema staging to mauto_worker;
    grant usage on schema staging to mauto_api;
    grant all on all tables in schema staging to mauto_worker;

    revoke all on all tables in schema public from mauto_tracker;
    grant insert on hits, hit_verdicts, events, event_pending, event_keys to mauto_tracker;

    grant usage on schema analytics to mauto_api, mauto_worker, mauto_analyst;
    grant select on all tables in schema analytics to mauto_api, mauto_analyst;
    grant select, insert, update, delete on all tables in schema analytics to mauto_worker;
    grant usage on schema rollups to mauto_api, mauto_worker;
    grant select on rollups.states, rollups.marks, rollups.attribution_windows, rollups.campaign_days to mauto_api;
    grant select on rollups.reporting_clock, rollups.holdout_sums to mauto_api;
    grant select, insert, update, delete on all tables in schema rollups to mauto_worker;
    -- The API reads whole views with no more rights than an analyst.
    grant mauto_analyst to mauto_api;
    alter role mauto_analyst set default_transaction_read_only = on;
    alter role mauto_analyst set statement_timeout = '5min';

    -- Only the maintenance task that erases people may change what is append-only for everybody else.
    grant select, update, delete on all tables in schema public to mauto_eraser;
    revoke all on schema_migrations from mauto_eraser;
    revoke update, delete on installation from mauto_eraser;
    -- An address may stand in what somebody wrote there; nothing else of the row is theirs to change.
    grant update (database_key, reason, changed_by) on installation to mauto_eraser;
    grant usage on schema staging to mauto_eraser;
    grant select, update, delete on all tables in schema staging to mauto_eraser;
    revoke update, delete, truncate on erased_contacts from mauto_api, mauto_worker;

    -- Writing to a simple view writes to its table with the rights of the view's owner, past all of the above.
    for found in
        select format('%I.%I', schemaname, viewname) from pg_views
        where schemaname in ('public', 'analytics', 'rollups') and pg_has_role(viewowner, 'usage')
    loop
        execute format('revoke insert, update, delete, truncate on %s from mauto_api, mauto_worker, mauto_eraser', found);
    end loop;
exception
    when insufficient_privilege then
        raise notice 'single-role mode: grants were not changed';
end
$$;

-- Who evaluates segment rules for a preview or a count: reads what they are made of, and nothing else.
do $$
declare
    name text;
begin
    if to_regrole('mauto_api') is null then
        return;
    end if;
    if to_regrole('mauto_segments') is null then
        create role mauto_segments nologin;
    end if;
    revoke all on all tables in schema public, analytics from mauto_segments;
    grant usage on schema public to mauto_segments;
    grant select on contacts, contact_tags, tags, contact_scores, contact_stages, suppressions, events,
        orders, fx_rates, segments, segment_static_members, segment_memberships, contact_mailability,
        mailable_contacts to mauto_segments;
    grant select (contact_id, message_id, campaign_id, kind, sent_at) on messages to mauto_segments;
    foreach name in array array['mauto_api', 'mauto_worker'] loop
        if not pg_has_role(name, 'mauto_segments', 'member') then
            execute format('grant mauto_segments to %I', name);
        end if;
    end loop;
exception
    when insufficient_privilege then
        raise notice 'single-role mode: segment rules are evaluated with the rights of who asks';
    when duplicate_object or unique_violation then
        null;
end
$$;
