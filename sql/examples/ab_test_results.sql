-- Which variant of a test is ahead, and what was decided?
select
    campaign_name, variant_name, is_control, sent, unique_opens, open_rate, click_rate, is_winner,
    decision
from ab_test_results
left join dim_campaigns using (campaign_id)
order by test_id, variant_id;

-- What did each variant bring per recipient?
select
    test_id, variant_name, sent, conversions, conversion_rate, revenue, revenue_per_recipient,
    reporting_currency
from ab_test_results
order by test_id, revenue_per_recipient desc nulls last;
