-- Schema analytics: what analysts, the dashboard and the API read. Live views are in sql/views.

create schema analytics;
comment on schema analytics is 'One number everywhere: the API, the dashboard and analysts read these relations.';

create function analytics.percent(part bigint, whole bigint) returns numeric
language sql immutable parallel safe as $$
    -- Never more than the column holds: a mail of unknown fate that was opened is no reason to fail a whole view.
    select case when whole > 0 then least(round(100.0 * part / whole, 4), 999.9999) end
$$;
comment on function analytics.percent(bigint, bigint) is 'part / whole in percent, 4 decimals; null without a whole.';

create table analytics.contact_cohorts (
    granularity text not null,
    cohort_start date not null,
    cohort_label text not null,
    cohort_size bigint not null,
    period_offset int not null,
    active_count bigint,
    subscribed_count bigint not null,
    retention_rate numeric(7,4),
    is_complete boolean not null,
    refreshed_at timestamptz not null,
    primary key (granularity, cohort_start, period_offset),
    constraint granularity_is_known check (granularity in ('day', 'week', 'month')),
    constraint an_incomplete_cell_is_null check (is_complete = (active_count is not null))
);
comment on table analytics.contact_cohorts is
    'One row per granularity, sign-up cohort and period offset: how many of the cohort were active then.';
comment on column analytics.contact_cohorts.granularity is 'Length of a period: day, week (ISO) or month.';
comment on column analytics.contact_cohorts.cohort_start is 'First UTC day of the sign-up period.';
comment on column analytics.contact_cohorts.cohort_label is 'The period as people write it, e.g. 2026-W07.';
comment on column analytics.contact_cohorts.cohort_size is 'Contacts that signed up in the period.';
comment on column analytics.contact_cohorts.period_offset is
    'Periods since each contact''s own sign-up: 0 is the first day, 7 days or 30 days.';
comment on column analytics.contact_cohorts.active_count is
    'Contacts with a human open or click in that period; null until it is over for the whole cohort.';
comment on column analytics.contact_cohorts.subscribed_count is 'Contacts of the cohort subscribed now.';
comment on column analytics.contact_cohorts.retention_rate is 'active_count / cohort_size in percent.';
comment on column analytics.contact_cohorts.is_complete is 'The period is over for every contact of the cohort.';
comment on column analytics.contact_cohorts.refreshed_at is 'When this row was computed.';

create table campaign_totals (
    campaign_id bigint primary key,
    recipients bigint not null default 0,
    skipped bigint not null default 0,
    in_flight bigint not null default 0,
    attempted bigint not null default 0,
    sent bigint not null default 0,
    delivered bigint not null default 0,
    bounced bigint not null default 0,
    failed bigint not null default 0,
    unknown bigint not null default 0,
    complained bigint not null default 0,
    unsubscribed bigint not null default 0,
    raw_opens bigint not null default 0,
    human_opens bigint not null default 0,
    unique_opens bigint not null default 0,
    raw_clicks bigint not null default 0,
    human_clicks bigint not null default 0,
    unique_clicks bigint not null default 0,
    refreshed_at timestamptz not null
);
comment on table campaign_totals is 'Recomputed from ledger, hits and events; never incremented.';
