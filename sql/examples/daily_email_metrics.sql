-- Any days can be added up. An open is unique on the day of the first one.

-- The last month by day: sent, opened, and how much of it was machines.
select
    day, sum(sent) as sent, sum(unique_opens) as unique_opens,
    sum(raw_opens - human_opens) as machine_opens
from daily_email_metrics
where kind = 'campaign' and day > current_date - 30
group by day
order by day;

-- All days of a campaign give its figures.
select
    campaign_id, sum(delivered) as delivered,
    round(100.0 * sum(unique_clicks) / nullif(sum(delivered), 0), 2) as click_rate
from daily_email_metrics
where campaign_id is not null
group by campaign_id
order by campaign_id;
