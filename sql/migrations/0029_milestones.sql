-- What a contact reached, each once, and what was last told of a score; figures of scores and stages by day.

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
