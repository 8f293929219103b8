-- Commit wakes the worker: a statement trigger notifies, and Airflow's triggerer listens. A lost notification
-- costs nothing but time: the tables are the queue and every DAG also looks on its schedule.

create function wake() returns trigger language plpgsql as $$
begin
    perform pg_notify(tg_argv[0], tg_table_name);
    return null;
end
$$;
create trigger wakes_the_importer after insert or update of status on imports
    for each row when (new.status in ('queued', 'cancelling')) execute function wake('mauto_imports');
create trigger wakes_the_sender_for_a_campaign after insert or update of status on campaigns
    for each row when (new.status in ('sending', 'scheduled')) execute function wake('mauto_messages');
create trigger wakes_the_sender_for_a_message after insert on messages
    for each statement execute function wake('mauto_messages');
create trigger wakes_the_dispatcher after insert on event_pending
    for each statement execute function wake('mauto_events');
