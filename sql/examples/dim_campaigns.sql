-- How many campaigns a month?
select sent_month, count(*) as campaigns
from dim_campaigns
where status = 'sent'
group by sent_month
order by sent_month;

-- How long did the last ones take?
select campaign_name, started_at, sent_at - started_at as took
from dim_campaigns
where sent_at is not null
order by sent_at desc
limit 3;
