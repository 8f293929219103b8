-- Partitioned by month: say `occurred_at`.

-- What happened in the last 30 days?
select event_type, count(*) as events, count(distinct contact_id) as people
from fct_events
where occurred_at >= now() - interval '30 days'
group by event_type
order by events desc;

-- Human opens and clicks by month.
select
    date_trunc('month', occurred_at, 'UTC')::date as month,
    count(*) filter (where event_type = 'email_opened') as opens,
    count(*) filter (where event_type = 'email_clicked') as clicks
from fct_events
where occurred_at >= now() - interval '1 year'
group by 1
order by 1;
