-- What scores are made of, kept from night to night: each event is weighed once (docs/decisions/0015).

create table score_slices (
    slice smallint primary key,
    fold_target timestamptz not null default '-infinity',
    folded_until timestamptz,
    landmark timestamptz,
    weighings jsonb not null default '[]',
    activity text not null default '',
    constraint slices_are_64 check (slice between 0 and 63),
    constraint what_is_folded_has_a_landmark check ((folded_until is null) = (landmark is null)),
    constraint the_target_is_raised_before_the_fold check (folded_until <= fold_target)
);
insert into score_slices (slice) select generate_series(0, 63);
comment on table score_slices is
    'How far the events of the contacts with contact_id % 64 = slice are folded into score_states.';
comment on column score_slices.fold_target is
    'Raised in a transaction of its own before a fold: who finds an event that is older marks its contact.';
comment on column score_slices.folded_until is
    'Events up to this moment are in score_states; null: nothing is, the next night begins anew.';
comment on column score_slices.landmark is 'Weights count as of this moment, so that they need not fade.';
comment on column score_slices.weighings is
    'What the weights of score_states stand for, in order: event type, condition, cap, half-life; null: given up.';
comment on column score_slices.activity is
    'Which events counted as engagement: the penalties of rules on types that else do.';

create table score_states (
    contact_id bigint primary key,
    last_activity_at timestamptz,
    weights float8[] not null,
    counts integer[] not null,
    profile_version integer,
    profile_score double precision
) with (fillfactor = 80);
-- Plain: read in place a million times a night, instead of being unpacked for each element.
alter table score_states alter column weights set storage plain, alter column counts set storage plain;
comment on table score_states is
    'Events folded by contact: a weight for each weighing of score_slices; no row, or a short one, is nothing yet.';
comment on column score_states.weights is
    'Sum of 2 ^ ((occurred_at - landmark) / half-life) over counted events; their number where nothing fades.';
comment on column score_states.profile_version is
    'The version of the contact that profile_score was computed from.';
comment on column score_states.counts is 'How many events are in each weight.';

-- A night renews nearly every row: with room for a second version of each on its page, no index is touched.
alter table contact_scores set (fillfactor = 45);

create table score_stale (
    contact_id bigint not null
);
comment on table score_stale is
    'Contacts whose events came late, or who are gone: the next night weighs them anew. Marks may repeat.';

-- What weights are worth at a moment: the factors hold points and decay. Terms without a factor vanish when a
-- statement is planned, so that eight rules cost eight products.
create function score_points(weights float8[], factors float8[]) returns float8
language sql immutable parallel safe as $$
    select
        coalesce(weights[1] * factors[1], 0)
        + coalesce(weights[2] * factors[2], 0)
        + coalesce(weights[3] * factors[3], 0)
        + coalesce(weights[4] * factors[4], 0)
        + coalesce(weights[5] * factors[5], 0)
        + coalesce(weights[6] * factors[6], 0)
        + coalesce(weights[7] * factors[7], 0)
        + coalesce(weights[8] * factors[8], 0)
        + coalesce(weights[9] * factors[9], 0)
        + coalesce(weights[10] * factors[10], 0)
        + coalesce(weights[11] * factors[11], 0)
        + coalesce(weights[12] * factors[12], 0)
        + coalesce(weights[13] * factors[13], 0)
        + coalesce(weights[14] * factors[14], 0)
        + coalesce(weights[15] * factors[15], 0)
        + coalesce(weights[16] * factors[16], 0)
        + coalesce(weights[17] * factors[17], 0)
        + coalesce(weights[18] * factors[18], 0)
        + coalesce(weights[19] * factors[19], 0)
        + coalesce(weights[20] * factors[20], 0)
        + coalesce(weights[21] * factors[21], 0)
        + coalesce(weights[22] * factors[22], 0)
        + coalesce(weights[23] * factors[23], 0)
        + coalesce(weights[24] * factors[24], 0)
        + coalesce(weights[25] * factors[25], 0)
        + coalesce(weights[26] * factors[26], 0)
        + coalesce(weights[27] * factors[27], 0)
        + coalesce(weights[28] * factors[28], 0)
        + coalesce(weights[29] * factors[29], 0)
        + coalesce(weights[30] * factors[30], 0)
        + coalesce(weights[31] * factors[31], 0)
        + coalesce(weights[32] * factors[32], 0)
$$;
comment on function score_points(float8[], float8[]) is 'Sum of weights times factors, of the first 32.';
create function score_counts(counts integer[], points float8[]) returns float8
language sql immutable parallel safe as $$
    select
        coalesce(counts[1] * points[1], 0)
        + coalesce(counts[2] * points[2], 0)
        + coalesce(counts[3] * points[3], 0)
        + coalesce(counts[4] * points[4], 0)
        + coalesce(counts[5] * points[5], 0)
        + coalesce(counts[6] * points[6], 0)
        + coalesce(counts[7] * points[7], 0)
        + coalesce(counts[8] * points[8], 0)
        + coalesce(counts[9] * points[9], 0)
        + coalesce(counts[10] * points[10], 0)
        + coalesce(counts[11] * points[11], 0)
        + coalesce(counts[12] * points[12], 0)
        + coalesce(counts[13] * points[13], 0)
        + coalesce(counts[14] * points[14], 0)
        + coalesce(counts[15] * points[15], 0)
        + coalesce(counts[16] * points[16], 0)
        + coalesce(counts[17] * points[17], 0)
        + coalesce(counts[18] * points[18], 0)
        + coalesce(counts[19] * points[19], 0)
        + coalesce(counts[20] * points[20], 0)
        + coalesce(counts[21] * points[21], 0)
        + coalesce(counts[22] * points[22], 0)
        + coalesce(counts[23] * points[23], 0)
        + coalesce(counts[24] * points[24], 0)
        + coalesce(counts[25] * points[25], 0)
        + coalesce(counts[26] * points[26], 0)
        + coalesce(counts[27] * points[27], 0)
        + coalesce(counts[28] * points[28], 0)
        + coalesce(counts[29] * points[29], 0)
        + coalesce(counts[30] * points[30], 0)
        + coalesce(counts[31] * points[31], 0)
        + coalesce(counts[32] * points[32], 0)
$$;
comment on function score_counts(integer[], float8[]) is 'Sum of counts times points, of the first 32.';

-- A night appends a snapshot of everybody: in one table, each would cost more than the one before, since the key begins
-- with the contact. By month, an index never holds more than 31 nights.
create or replace function ensure_month_partition(parent regclass, any_day date) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    month_start date := date_trunc('month', any_day)::date;
    month_end date := (date_trunc('month', any_day) + interval '1 month')::date;
    child text := parent::text || to_char(month_start, '"_y"YYYY"m"MM');
    fallback text := parent::text || '_default';
    moment text := case parent::text when 'score_history' then 'as_of' else 'occurred_at' end;
begin
    if parent::text not in ('events', 'hits', 'score_history') then
        raise exception 'only events, hits and snapshots are partitioned by month, not %', parent;
    end if;
    if to_regclass(child) is not null then
        return null;
    end if;
    perform pg_advisory_xact_lock(hashtext(child));
    if to_regclass(child) is not null then
        return null;
    end if;
    -- Rows of this month that landed in the default partition move over, or PostgreSQL would refuse.
    execute format('create table %s (like %s including defaults including constraints)', child, parent);
    execute format(
        'with moved as (delete from %s where %I >= %L and %I < %L returning *)
         insert into %s select * from moved',
        fallback, moment, month_start, moment, month_end, child);
    execute format('alter table %s attach partition %s for values from (%L) to (%L)',
                   parent, child, month_start, month_end);
    return child;
end
$$;

alter table score_history rename to score_history_before;
alter table score_history_before rename constraint score_history_pkey to score_history_before_pkey;
create table score_history (
    like score_history_before including defaults including constraints,
    primary key (contact_id, as_of, source, rule_version)
) partition by range (as_of);
create table score_history_default partition of score_history default;
select ensure_month_partition('score_history', months.month_start)
from (
    select distinct cast(date_trunc('month', as_of at time zone 'utc') as date) as month_start
    from score_history_before
) as months;
insert into score_history select * from score_history_before;
drop table score_history_before;
comment on table score_history is 'Append-only snapshots of scores; evaluating the same day again adds nothing.';
