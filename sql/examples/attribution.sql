-- Orders are touched by human clicks within `MAUTO_ATTRIBUTION_CLICK_DAYS` (5) before them, else by human opens within
-- `MAUTO_ATTRIBUTION_OPEN_DAYS` (1). `last_touch` and `first_touch` give the whole order to one touch, `linear` as much to each.
-- Weights and amounts add up to the order exactly; the sums of `last_touch` are `orders` and `revenue` of
-- [campaign_performance](#campaign_performance). Mails of workflows and rules are the row without a campaign. When the settings change, both count by the new windows from the
-- next run of `cohort_analytics` on. Hits are deleted after `MAUTO_RAW_HIT_DAYS`; a rebuild finds no touches before.

-- What did each campaign earn, by model?
select
    coalesce(campaign_name, 'workflows and rules') as campaign, model, count(*) as orders,
    sum(attributed_reporting) as revenue, reporting_currency
from attribution
left join dim_campaigns using (campaign_id)
group by 1, 2, reporting_currency
order by 1, 2;

-- Attributed revenue by month, and how long after the touch people bought.
select
    date_trunc('month', placed_at, 'UTC')::date as month, currency,
    sum(attributed_amount) as revenue, avg(placed_at - touch_at) as after
from attribution
where model = 'last_touch'
group by 1, 2
order by 1, 2;
