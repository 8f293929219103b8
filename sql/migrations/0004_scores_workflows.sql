-- Scores, lifecycle, workflows and automation.

create table scoring_rules (
    rule_id bigint generated always as identity primary key,
    name text not null,
    description text not null default '',
    event_type text not null,
    condition jsonb not null default '{}',
    points integer not null default 1,
    max_per_contact integer not null default 0,
    decay_days integer not null default 0,
    active boolean not null default true,
    created_at timestamptz not null default now(),
    constraint points_are_between_minus_1000_and_1000 check (points between -1000 and 1000),
    constraint caps_and_decay_are_not_negative check (max_per_contact >= 0 and decay_days >= 0),
    constraint condition_is_an_object check (jsonb_typeof(condition) = 'object')
);
create table scoring_rule_versions (
    version integer primary key,
    rules jsonb not null,
    created_by text not null default '',
    created_at timestamptz not null default now()
);
insert into scoring_rule_versions (version, rules, created_by) values (1, '[]', 'system');
comment on table scoring_rule_versions is 'Every change of any rule makes a version; each score names its version.';

create table score_awards (
    award_id bigint generated always as identity primary key,
    contact_id bigint not null,
    event_type text not null,
    points double precision not null,
    reason text not null default '',
    metadata jsonb not null default '{}',
    occurred_at timestamptz not null,
    created_at timestamptz not null default now()
);
create index score_awards_by_contact on score_awards (contact_id, occurred_at);
comment on table score_awards is 'Points given by hand; they do not decay.';

create table contact_scores (
    contact_id bigint primary key,
    total_score double precision not null,
    engagement_score double precision not null,
    profile_score double precision not null,
    recency_score double precision not null,
    grade text not null,
    last_activity_at timestamptz,
    as_of timestamptz not null,
    rule_version integer not null,
    updated_at timestamptz not null default now()
) with (fillfactor = 60);
comment on table contact_scores is
    'One row per scored contact. No index on what changes every night.';
comment on column contact_scores.as_of is
    'The evaluation that gave these values; later ones (score_runs) that gave the same wrote nothing.';
create table score_history (
    contact_id bigint not null,
    as_of timestamptz not null,
    total_score double precision not null,
    engagement_score double precision not null,
    profile_score double precision not null,
    recency_score double precision not null,
    grade text not null,
    lifecycle_stage text,
    last_activity_at timestamptz,
    rule_version integer not null,
    source text not null,
    recorded_at timestamptz not null default now(),
    primary key (contact_id, as_of, source, rule_version),
    constraint snapshot_source_is_known
        check (source in ('running', 'recalculated', 'nightly', 'recomputed'))
);
comment on table score_history is 'Append-only snapshots of scores; evaluating the same day again adds nothing.';

create table score_runs (
    run_id bigint generated always as identity primary key,
    as_of timestamptz not null,
    known_at timestamptz,
    source text not null,
    rule_version integer not null,
    bucket integer not null,
    buckets integer not null,
    is_current boolean not null,
    scored_count bigint not null,
    changed_count bigint not null,
    moved_count bigint not null,
    snapshot_count bigint not null,
    finished_at timestamptz not null default now()
);
create index score_runs_by_moment on score_runs (as_of) where is_current;
comment on table score_runs is
    'Append-only: every evaluation of a bucket of contacts. What is older than the newest current one is a backfill.';

create table lifecycle_stages (
    stage text primary key,
    stage_order smallint not null unique
);
insert into lifecycle_stages (stage, stage_order) values
    ('new', 0), ('subscriber', 1), ('lead', 2), ('mql', 3), ('sql', 4), ('opportunity', 5),
    ('customer', 6), ('evangelist', 7), ('dormant', 8), ('churned', 9);
create table contact_stages (
    contact_id bigint primary key,
    lifecycle_stage text not null,
    since timestamptz not null,
    evaluated_at timestamptz not null,
    -- Not a reference to lifecycle_stages: that costs a look-up for each of a million rows.
    constraint lifecycle_stage_is_known check (lifecycle_stage in (
        'new', 'subscriber', 'lead', 'mql', 'sql', 'opportunity', 'customer', 'evangelist', 'dormant',
        'churned'))
) with (fillfactor = 70);
comment on table contact_stages is 'The one place of a contact''s lifecycle stage; no row means new.';
create table stage_transitions (
    transition_id bigint generated always as identity primary key,
    contact_id bigint not null,
    previous_stage text not null,
    new_stage text not null,
    reason text not null default '',
    actor text not null default 'system',
    occurred_at timestamptz not null,
    recorded_at timestamptz not null default now(),
    constraint a_transition_changes_the_stage check (previous_stage <> new_stage)
);
create index stage_transitions_by_contact on stage_transitions (contact_id, occurred_at);

create table workflows (
    workflow_id bigint generated always as identity primary key,
    name text not null,
    trigger_type text not null default 'manual',
    trigger_config jsonb not null default '{}',
    steps jsonb not null default '[]',
    active boolean not null default false,
    re_entry jsonb not null default '{"policy": "after_exit"}',
    exit_on text[] not null default '{}',
    version integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz
);
create table workflow_versions (
    workflow_id bigint not null references workflows on delete cascade,
    version integer not null,
    trigger_type text not null,
    trigger_config jsonb not null,
    steps jsonb not null,
    created_by text not null default '',
    created_at timestamptz not null default now(),
    primary key (workflow_id, version)
);
comment on table workflow_versions is 'Enrollments stay on the version they entered.';
create table enrollments (
    enrollment_id bigint generated always as identity,
    workflow_id bigint not null,
    version integer not null,
    contact_id bigint not null default 0,
    entry_key text not null,
    status text not null default 'running',
    step_path text not null default '0',
    visit integer not null default 1,
    resume_at timestamptz,
    waiting_for text,
    context jsonb not null default '{}',
    exit_reason text,
    caused_at timestamptz not null,
    entered_at timestamptz not null,
    finished_at timestamptz,
    primary key (contact_id, enrollment_id),
    constraint one_enrollment_per_entry unique (workflow_id, entry_key),
    constraint enrollment_status_is_known check (
        status in ('running', 'waiting', 'paused', 'completed', 'exited', 'failed')),
    constraint a_finished_enrollment_has_its_time
        check ((status in ('completed', 'exited', 'failed')) = (finished_at is not null)),
    constraint a_waiting_enrollment_knows_until_when
        check (status <> 'waiting' or resume_at is not null or waiting_for is not null),
    constraint a_running_enrollment_is_due
        check (status <> 'running' or resume_at is not null)
) with (fillfactor = 80);
create index enrollments_due on enrollments (resume_at) where status in ('running', 'waiting');
create index enrollments_of_workflow on enrollments (workflow_id, contact_id);
comment on column enrollments.caused_at is
    'When what started it happened; only later events can end it.';
comment on column enrollments.entry_key is
    'What made this entry (event:<id>, manual:<uuid>, ...): the same cause enrols once.';
create table workflow_logs (
    log_id bigint generated always as identity primary key,
    workflow_id bigint not null,
    enrollment_id bigint not null,
    contact_id bigint not null default 0,
    step_path text not null,
    step_index integer not null,
    visit integer not null default 1,
    status text not null,
    result jsonb not null default '{}',
    created_at timestamptz not null,
    constraint one_log_per_step_and_visit unique (enrollment_id, step_path, visit),
    constraint log_status_is_known check (status in ('completed', 'failed', 'skipped'))
);
create index workflow_logs_of_workflow on workflow_logs (workflow_id, log_id desc);

create table automation_rules (
    rule_id bigint generated always as identity primary key,
    name text not null,
    description text not null default '',
    active boolean not null default true,
    trigger_type text not null,
    trigger_config jsonb not null default '{}',
    conditions jsonb not null default '[]',
    actions jsonb not null default '[]',
    priority integer not null default 0,
    max_executions integer not null default 0,
    cooldown_minutes integer not null default 0,
    created_at timestamptz not null default now()
);
create table automation_logs (
    log_id bigint generated always as identity primary key,
    rule_id bigint not null,
    contact_id bigint not null default 0,
    event_id bigint,
    trigger_type text not null,
    status text not null,
    duration_ms integer not null default 0,
    error text,
    actions jsonb not null default '[]',
    created_at timestamptz not null default now(),
    constraint a_rule_acts_once_per_event unique (rule_id, event_id)
);
