-- The record of what rules gave for a reported event, and the queue of recomputations of past days.

alter table score_awards add column rule_version integer not null default 1;
comment on column score_awards.rule_version is 'The newest version of the rules when the points were given.';

create table score_rule_awards (
    -- One row of numbers for all awards, by hand or by a rule.
    award_id bigint primary key default nextval('score_awards_award_id_seq'),
    contact_id bigint not null,
    rule_id bigint not null,
    event_id bigint not null,
    event_type text not null,
    points double precision not null,
    reason text not null,
    rule_version integer not null,
    occurred_at timestamptz not null,
    created_at timestamptz not null default now()
);
create index score_rule_awards_by_contact on score_rule_awards (contact_id, award_id);
comment on table score_rule_awards is
    'Append-only: what rules gave for reported events, told once. Scores count the events, never these rows.';

create table score_recomputations (
    recomputation_id bigint generated always as identity primary key,
    from_day date not null,
    to_day date not null,
    rule_version integer not null,
    known_at timestamptz,
    status text not null default 'queued',
    done_through date,
    contact_count bigint not null default 0,
    snapshot_count bigint not null default 0,
    grade_matrix jsonb not null default '{}',
    tries integer not null default 0,
    error text,
    due_at timestamptz,
    requested_by text not null default '',
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    constraint recomputation_status_is_known
        check (status in ('queued', 'running', 'completed', 'failed')),
    constraint a_recomputation_has_1_to_366_days check (to_day - from_day between 0 and 365),
    constraint a_finished_recomputation_has_its_time
        check ((status in ('completed', 'failed')) = (finished_at is not null)),
    constraint an_unfinished_recomputation_is_due
        check ((status in ('queued', 'running')) = (due_at is not null)),
    constraint a_completed_recomputation_has_all_its_days
        check (status <> 'completed' or done_through = to_day)
);
create index score_recomputations_due on score_recomputations (due_at) where due_at is not null;
comment on table score_recomputations is
    'Past days to score again; a day is one transaction, and done_through moves with it.';
comment on column score_recomputations.due_at is
    'When somebody should take it up: its request, or the end of the lease of who works on it.';
create trigger wakes_the_scorer after insert on score_recomputations
    for each row execute function wake('mauto_scores');
