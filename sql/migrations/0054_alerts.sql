-- What an operator was told: one finding is open once, and each channel gets each note until it takes it.

create table alerts (
    finding text primary key,
    summary text not null,
    advice text not null,
    row_count bigint not null,
    opened_at timestamptz not null,
    seen_at timestamptz not null,
    is_told boolean not null default false,
    constraint a_finding_has_1_to_200_characters check (length(finding) between 1 and 200),
    constraint an_alert_is_seen_after_it_opened check (seen_at >= opened_at)
);
comment on table alerts is
    'Findings that are open: what is stuck, late, failed or missing. Names ids and numbers, never people.';
comment on column alerts.finding is 'What it is about, as stuck.imports_waiting or dag_failed.maintenance.keep_in_order.';
comment on column alerts.is_told is 'Whether notes were made of it; what is only seen once is told to nobody.';

create table alert_notes (
    note_id bigint generated always as identity primary key,
    channel text not null,
    kind text not null,
    finding text not null,
    summary text not null,
    advice text not null,
    created_at timestamptz not null,
    next_try_at timestamptz not null,
    tries integer not null default 0,
    constraint alert_channel_is_known check (channel in ('mail', 'webhook')),
    constraint alert_kind_is_known check (kind in ('opened', 'resolved', 'told'))
);
create index alert_notes_due on alert_notes (next_try_at);
comment on table alert_notes is
    'Notes on their way to a channel; gone once it has taken them, or after three days.';
comment on column alert_notes.kind is 'opened and resolved: of a finding; told: happened once, nothing stays open.';
comment on column alert_notes.next_try_at is 'Who sends moves it ahead first, so that two never send the same note.';
