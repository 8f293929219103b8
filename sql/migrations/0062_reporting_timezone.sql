-- The clock by which people read figures by day: fct_orders, fct_events and fct_messages say the day of each row on it.

create table rollups.reporting_clock (
    is_only boolean primary key default true,
    timezone text not null,
    constraint there_is_one_row check (is_only)
);
comment on table rollups.reporting_clock is
    'The reporting time zone, noted here so that whoever reads by SQL has the same days; none: UTC.';
comment on column rollups.reporting_clock.timezone is 'IANA name, as in Europe/Berlin.';

create function analytics.reporting_timezone() returns text
language sql stable security definer set search_path = public, pg_temp as $$
    select coalesce((select timezone from rollups.reporting_clock), 'UTC')
$$;
comment on function analytics.reporting_timezone() is
    'Time zone of reporting_day: MAUTO_REPORTING_TIMEZONE at the last refresh of schema analytics.';

create function analytics.reporting_day(moment timestamptz) returns date
language sql stable as $$
    select cast(moment at time zone (select analytics.reporting_timezone()) as date)
$$;
comment on function analytics.reporting_day(timestamptz) is
    'The day of a moment on the clocks of the reporting time zone, by its rules of summer time.';
