-- When a message may go: schedules and their runs, windows and limits of campaigns under way.

create table schedules (
    schedule_id bigint generated always as identity primary key,
    campaign_id bigint not null references campaigns on delete cascade,
    schedule_type text not null default 'one_time',
    status text not null default 'pending',
    send_at timestamptz not null,
    timezone_name text not null default 'UTC',
    recurrence_rule jsonb not null default '{}',
    next_run_at timestamptz,
    runs_completed integer not null default 0,
    max_runs integer not null default 0,
    max_per_hour integer not null default 0,
    max_per_day integer not null default 0,
    ab_test_id bigint,
    auto_pick_winner boolean not null default false,
    winner_wait_hours integer not null default 4,
    max_late_minutes integer not null default 1440,
    error_message text not null default '',
    created_by text not null default '',
    created_at timestamptz not null default now(),
    updated_at timestamptz,
    constraint schedule_type_is_known check (schedule_type in ('one_time', 'recurring')),
    constraint schedule_status_is_known check (
        status in ('pending', 'running', 'paused', 'completed', 'failed', 'cancelled')),
    constraint a_waiting_schedule_has_a_next_run
        check (status not in ('pending', 'paused') or next_run_at is not null)
);
create index schedules_by_campaign on schedules (campaign_id);
create unique index one_live_schedule_per_campaign on schedules (campaign_id)
    where status in ('pending', 'running', 'paused');

create table schedule_runs (
    schedule_id bigint not null references schedules on delete cascade,
    occurrence integer not null,
    due_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    status text not null,
    primary key (schedule_id, occurrence),
    constraint run_status_is_known check (status in ('running', 'completed', 'skipped', 'cancelled', 'failed'))
);
comment on table schedule_runs is
    'Every run of a schedule that was due: done, or skipped because it was too late or a later one was due too.';

alter table campaigns
    add column plan_at timestamptz,
    add column is_paced boolean not null default false;
update campaigns set plan_at = scheduled_at where status = 'scheduled';
comment on column campaigns.plan_at is
    'When a scheduled audience is frozen: scheduled_at, or earlier where each person''s own clock decides.';
comment on column campaigns.is_paced is
    'It has or had a window or limit: its messages are claimed one campaign at a time, under campaign_paces.';

alter table messages add column held_for text;
comment on column messages.held_for is
    'Why a queued message waits until next_try_at: window, quiet or limit; null: its due time or a retry.';

-- Row 0 stands for all campaigns together.
create table campaign_paces (
    campaign_id bigint primary key,
    wake_at timestamptz,
    waits_for text,
    expires_at timestamptz,
    is_stale boolean not null default false,
    constraint pace_waits_for_something_known check (waits_for in ('window', 'limit'))
);
insert into campaign_paces (campaign_id) values (0);
comment on table campaign_paces is
    'Locked by whoever claims messages of a paced campaign; nothing is claimed before wake_at.';
comment on column campaign_paces.expires_at is 'No message of it expires before this moment.';
comment on column campaign_paces.is_stale is 'Window or limits were changed: messages held by them are looked at anew.';

create table send_tallies (
    campaign_id bigint not null,
    domain text not null default '',
    minute timestamptz not null,
    claimed integer not null,
    primary key (campaign_id, domain, minute)
);
comment on table send_tallies is
    'Messages claimed per minute of paced campaigns (0: of all), in total (domain '''') and per limited domain.';
create table send_slots (
    campaign_id bigint not null,
    domain text not null,
    next_slot_at timestamptz not null,
    primary key (campaign_id, domain)
);
comment on table send_slots is 'Where the next message held by the limit of its domain is put in time.';

create trigger wakes_the_sender_for_a_pace after insert or update of is_stale on campaign_paces
    for each row when (new.is_stale) execute function wake('mauto_messages');
