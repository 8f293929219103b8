-- Looking back at the hits of a day reads that day, not its month. Hits come nearly in order of time, so this index
-- is a few pages and costs the tracker nothing.
create index hits_by_time on hits using brin (occurred_at) with (pages_per_range = 32);
