-- A link has a row for each run, variant and language of its campaign.

-- Which links worked best, over all campaigns?
select url, sum(human_clicks) as human_clicks, min(first_click_at) as first_click_at
from campaign_link_performance
group by url
order by human_clicks desc
limit 10;

-- The links of the newest campaign in the order of the mail.
select position, url, human_clicks, unique_clicks, click_share
from campaign_link_performance
where campaign_id = (
    select campaign_id from dim_campaigns where sent_at is not null order by sent_at desc limit 1)
order by position;
