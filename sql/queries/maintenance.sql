-- Housekeeping over the whole warehouse.

-- name: ensure_partitions
-- Creates the monthly partitions of events and hits for each month between two days; returns the new ones.
select made.partition_name
from generate_series(
    date_trunc('month', cast(:first_day as date)), cast(:last_day as date), interval '1 month'
) as months (month_start)
cross join (values (cast('events' as regclass)), (cast('hits' as regclass))) as parents (parent)
cross join lateral ensure_month_partition(parents.parent, cast(months.month_start as date))
    as made (partition_name)
where made.partition_name is not null;
