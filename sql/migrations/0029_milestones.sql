-- What a contact reached, each once; what was last told of a score; figures of scores and stages by day.

create table contact_milestones (
    contact_id bigint not null,
    kind text not null,
    milestone text not null,
    reached_at timestamptz not null,
    is_told boolean not null,
    recorded_at timestamptz not null default now(),
    primary key (contact_id, kind, milestone),
    constraint milestone_kind_is_known check (kind in ('grade', 'stage', 'orders'))
);
comment on table contact_milestones is
    'Grades, stages and numbers of orders a contact reached; the key lets each be told once.';
comment on column contact_milestones.is_told is
    'An event milestone_reached tells of it; false: held when it was noticed, as after an import of history.';

-- Orders that are here already are history. Grades and stages need no rows: they are noted when they are left.
insert into contact_milestones (contact_id, kind, milestone, reached_at, is_told)
select contact_id, 'orders', 'orders_' || place, placed_at, false
from (
    select contact_id, placed_at,
        row_number() over (partition by contact_id order by placed_at, order_key) as place
    from orders
    where contact_id > 0
) as counted
where place in (1, 5, 10, 25, 50, 100);

-- What was counted without decay: only events, awards and rules change it, time does not.
alter table contact_scores
    add column counted_points double precision,
    add column told_points double precision,
    add column told_engagement double precision,
    add column told_grade text;
comment on column contact_scores.counted_points is
    'Points of the counted events and awards, before decay and floor; null: not evaluated since there is this column.';
comment on column contact_scores.told_points is
    'counted_points when score_changed was told last, or when the contact was first evaluated by these rules.';
comment on column contact_scores.told_engagement is 'engagement_score at that moment.';
comment on column contact_scores.told_grade is 'grade at that moment.';
-- Holds next to nothing, and changes of scores by decay alone stay HOT: they change none of its columns.
create index contact_scores_untold on contact_scores (contact_id)
    where told_points <> counted_points or told_grade <> grade;
create index stage_transitions_by_time on stage_transitions (occurred_at);

-- A day of a million snapshots is found among years of them; they are appended in the order of their days.
create index score_history_by_moment on score_history using brin (as_of)
    with (pages_per_range = 32, autosummarize = on);

create table analytics.score_distribution (
    as_of date not null,
    rule_version int not null,
    grade text not null,
    bucket_from int not null,
    bucket_to int,
    contacts bigint not null,
    avg_engagement numeric(9,2) not null,
    avg_profile numeric(9,2) not null,
    avg_recency numeric(9,2) not null,
    refreshed_at timestamptz not null,
    primary key (as_of, grade, bucket_from),
    constraint an_open_bucket_is_the_last_one check ((bucket_to is null) = (bucket_from = 100))
);
comment on table analytics.score_distribution is
    'One row per day, grade and bucket of ten points that somebody is in: the last scoring of everybody on that day.';
comment on column analytics.score_distribution.as_of is 'UTC day of the moment the scores are as of.';
comment on column analytics.score_distribution.rule_version is 'Version of the rules the scores were computed with.';
comment on column analytics.score_distribution.grade is 'A+, A, B+, B, C, D or F.';
comment on column analytics.score_distribution.bucket_from is 'Least total score of the bucket: 0, 10, ... 100.';
comment on column analytics.score_distribution.bucket_to is
    'Total scores of the bucket are below this; null: it has no upper end.';
comment on column analytics.score_distribution.contacts is 'Scored contacts; they add up to all of the day.';
comment on column analytics.score_distribution.avg_engagement is 'Mean engagement of these contacts.';
comment on column analytics.score_distribution.avg_profile is 'Mean profile points of these contacts.';
comment on column analytics.score_distribution.avg_recency is 'Mean recency points of these contacts.';
comment on column analytics.score_distribution.refreshed_at is 'When this row was computed.';

create table analytics.lifecycle_funnel (
    as_of date not null,
    stage text not null,
    stage_order int not null,
    contacts bigint not null,
    contact_share numeric(7,4),
    entered bigint not null,
    departed bigint not null,
    median_days_in_stage numeric(9,2),
    avg_score numeric(9,2),
    refreshed_at timestamptz not null,
    primary key (as_of, stage)
);
comment on table analytics.lifecycle_funnel is
    'One row per day and lifecycle stage, all ten of them: the last scoring of everybody on that day.';
comment on column analytics.lifecycle_funnel.as_of is 'UTC day of the moment the stages are as of.';
comment on column analytics.lifecycle_funnel.stage is
    'Lifecycle stage; new is left with the first scoring, so nobody scored is in it.';
comment on column analytics.lifecycle_funnel.stage_order is 'Place in the lifecycle: new 0 to churned 9.';
comment on column analytics.lifecycle_funnel.contacts is 'Scored contacts in the stage; they add up to all of the day.';
comment on column analytics.lifecycle_funnel.contact_share is
    'contacts / scored contacts of the day in percent; null if nobody was scored.';
comment on column analytics.lifecycle_funnel.entered is
    'Moves into the stage since the day before in this table, by scoring or by hand.';
comment on column analytics.lifecycle_funnel.departed is
    'Moves out of the stage since the day before in this table, by scoring or by hand.';
comment on column analytics.lifecycle_funnel.median_days_in_stage is
    'Median of the days since these contacts last moved; null if the stage is empty.';
comment on column analytics.lifecycle_funnel.avg_score is 'Mean total score of these contacts; null if the stage is empty.';
comment on column analytics.lifecycle_funnel.refreshed_at is 'When this row was computed.';
