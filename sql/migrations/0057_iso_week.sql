-- The ISO week of a moment by whole numbers: date_trunc with a time zone costs more than counting the week's events.

create function analytics.iso_week(moment timestamptz) returns date
language sql immutable parallel safe as $$
    -- The first day of the year 1 is a Monday.
    select cast(moment at time zone 'UTC' as date)
        - (cast(moment at time zone 'UTC' as date) - date '0001-01-01') % 7
$$;
comment on function analytics.iso_week(timestamptz) is 'Monday of the ISO week (UTC) of a moment.';
