-- Roll-ups restate less. RFM scores are kept without what is another number every night: the days since the last order
-- are counted when somebody reads them, so that a new day writes only the customers whose figures or scores changed.

create table rollups.rfm_scores (
    contact_id bigint primary key,
    last_order_day date not null,
    frequency bigint not null,
    monetary numeric(18,4) not null,
    reporting_currency char(3) not null,
    r_score smallint not null,
    f_score smallint not null,
    m_score smallint not null,
    rfm_segment text not null,
    refreshed_at timestamptz not null,
    constraint scores_are_one_to_five check (
        r_score between 1 and 5 and f_score between 1 and 5 and m_score between 1 and 5)
);
comment on table rollups.rfm_scores is 'The rows of analytics.rfm_segments, as of the day in rollups.rfm_day.';
comment on column rollups.rfm_scores.last_order_day is 'UTC day of the last order.';

create table rollups.rfm_day (
    is_only boolean primary key default true,
    as_of date not null,
    constraint there_is_one_row check (is_only)
);
comment on table rollups.rfm_day is 'The day analytics.rfm_segments is as of.';

insert into rollups.rfm_scores (
    contact_id, last_order_day, frequency, monetary, reporting_currency, r_score, f_score, m_score,
    rfm_segment, refreshed_at
)
select
    contact_id, as_of - recency_days, frequency, monetary, reporting_currency, r_score, f_score,
    m_score, rfm_segment, refreshed_at
from analytics.rfm_segments;
insert into rollups.rfm_day (as_of)
select max(as_of) from analytics.rfm_segments having count(*) > 0;

drop table analytics.rfm_segments;

-- A verdict that changed moves what is first in its message from or to a later hit; what came before stays first.
create or replace function rollups.mark_verdicts() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    judged_again bigint[];
begin
    select array_agg(added.hit_id) into judged_again
    from added
    where exists (
        select from hit_verdicts as earlier
        where earlier.hit_id = added.hit_id and earlier.rule_version <> added.rule_version);
    if judged_again is null then
        return null;
    end if;
    insert into rollups.marks (subject, day)
    select distinct 'mail', utc_day(near.occurred_at)
    from hits
    inner join hits as near
        on near.message_id = hits.message_id and near.occurred_at >= hits.occurred_at
    where hits.hit_id = any(judged_again);
    insert into rollups.marks (subject, day, contact_id)
    select distinct 'touches', utc_day(occurred_at), contact_id
    from hits
    where hit_id = any(judged_again) and contact_id > 0;
    return null;
end
$$;

-- Revenue is added up by day first, so that an order that changed months ago does not read all orders of its month.
create table rollups.revenue_days (
    day date not null,
    currency char(3) not null,
    reporting_currency char(3) not null,
    orders bigint not null,
    gross numeric not null,
    order_net numeric not null,
    converted_orders bigint not null,
    net_revenue numeric,
    first_fx_date date,
    last_fx_date date,
    primary key (day, currency, reporting_currency)
);
comment on table rollups.revenue_days is
    'One row per UTC day, currency and reporting currency: what analytics.revenue_by_month is added up from.';
-- The next refresh makes the days.
delete from rollups.states where table_name = 'revenue_by_month';
