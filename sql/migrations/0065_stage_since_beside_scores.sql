-- A night reads what decides the stage from the score it is about to renew: a million rows fewer to join.
alter table contact_scores
    add column stage_since timestamptz,
    add column stage_idle_limit_days smallint;
comment on column contact_scores.stage_since is 'Copy of contact_stages.since, kept by a trigger there; null: new.';
comment on column contact_scores.stage_idle_limit_days is
    'Copy of contact_stages.idle_limit_days, kept by a trigger there.';
update contact_scores
set lifecycle_stage = contact_stages.lifecycle_stage, stage_since = contact_stages.since,
    stage_idle_limit_days = contact_stages.idle_limit_days
from contact_stages
where contact_stages.contact_id = contact_scores.contact_id;
-- By index, also where a night has turned look-ups one by one off: it moves one contact in a hundred.
create or replace function copy_stage() returns trigger language plpgsql
set enable_nestloop = on set enable_hashjoin = off set enable_mergejoin = off as $$
begin
    update contact_scores
    set lifecycle_stage = changed.lifecycle_stage, stage_since = changed.since,
        stage_idle_limit_days = changed.idle_limit_days
    from changed
    where contact_scores.contact_id = changed.contact_id
        and (contact_scores.lifecycle_stage is distinct from changed.lifecycle_stage
            or contact_scores.stage_since is distinct from changed.since
            or contact_scores.stage_idle_limit_days is distinct from changed.idle_limit_days);
    return null;
end
$$;

-- Added up from the end: what has no factor is one constant then, while added up from the beginning each was an
-- addition of nothing that was left.
create or replace function score_points(weights float8[], factors float8[]) returns float8
language sql immutable parallel safe as $$
    select
        (coalesce(weights[1] * factors[1], 0)
        + (coalesce(weights[2] * factors[2], 0)
        + (coalesce(weights[3] * factors[3], 0)
        + (coalesce(weights[4] * factors[4], 0)
        + (coalesce(weights[5] * factors[5], 0)
        + (coalesce(weights[6] * factors[6], 0)
        + (coalesce(weights[7] * factors[7], 0)
        + (coalesce(weights[8] * factors[8], 0)
        + (coalesce(weights[9] * factors[9], 0)
        + (coalesce(weights[10] * factors[10], 0)
        + (coalesce(weights[11] * factors[11], 0)
        + (coalesce(weights[12] * factors[12], 0)
        + (coalesce(weights[13] * factors[13], 0)
        + (coalesce(weights[14] * factors[14], 0)
        + (coalesce(weights[15] * factors[15], 0)
        + (coalesce(weights[16] * factors[16], 0)
        + (coalesce(weights[17] * factors[17], 0)
        + (coalesce(weights[18] * factors[18], 0)
        + (coalesce(weights[19] * factors[19], 0)
        + (coalesce(weights[20] * factors[20], 0)
        + (coalesce(weights[21] * factors[21], 0)
        + (coalesce(weights[22] * factors[22], 0)
        + (coalesce(weights[23] * factors[23], 0)
        + (coalesce(weights[24] * factors[24], 0)
        + (coalesce(weights[25] * factors[25], 0)
        + (coalesce(weights[26] * factors[26], 0)
        + (coalesce(weights[27] * factors[27], 0)
        + (coalesce(weights[28] * factors[28], 0)
        + (coalesce(weights[29] * factors[29], 0)
        + (coalesce(weights[30] * factors[30], 0)
        + (coalesce(weights[31] * factors[31], 0)
        + coalesce(weights[32] * factors[32], 0))))))))))))))))))))))))))))))))
$$;
create or replace function score_counts(counts integer[], points float8[]) returns float8
language sql immutable parallel safe as $$
    select
        (coalesce(counts[1] * points[1], 0)
        + (coalesce(counts[2] * points[2], 0)
        + (coalesce(counts[3] * points[3], 0)
        + (coalesce(counts[4] * points[4], 0)
        + (coalesce(counts[5] * points[5], 0)
        + (coalesce(counts[6] * points[6], 0)
        + (coalesce(counts[7] * points[7], 0)
        + (coalesce(counts[8] * points[8], 0)
        + (coalesce(counts[9] * points[9], 0)
        + (coalesce(counts[10] * points[10], 0)
        + (coalesce(counts[11] * points[11], 0)
        + (coalesce(counts[12] * points[12], 0)
        + (coalesce(counts[13] * points[13], 0)
        + (coalesce(counts[14] * points[14], 0)
        + (coalesce(counts[15] * points[15], 0)
        + (coalesce(counts[16] * points[16], 0)
        + (coalesce(counts[17] * points[17], 0)
        + (coalesce(counts[18] * points[18], 0)
        + (coalesce(counts[19] * points[19], 0)
        + (coalesce(counts[20] * points[20], 0)
        + (coalesce(counts[21] * points[21], 0)
        + (coalesce(counts[22] * points[22], 0)
        + (coalesce(counts[23] * points[23], 0)
        + (coalesce(counts[24] * points[24], 0)
        + (coalesce(counts[25] * points[25], 0)
        + (coalesce(counts[26] * points[26], 0)
        + (coalesce(counts[27] * points[27], 0)
        + (coalesce(counts[28] * points[28], 0)
        + (coalesce(counts[29] * points[29], 0)
        + (coalesce(counts[30] * points[30], 0)
        + (coalesce(counts[31] * points[31], 0)
        + coalesce(counts[32] * points[32], 0))))))))))))))))))))))))))))))))
$$;
