-- A/B tests: what is known of their variants and of those kept back.

-- name: figures
-- What is known of each variant of some tests, the control first.
select figures.*
from ab_variant_figures as figures
inner join ab_variants on ab_variants.variant_id = figures.variant_id
where figures.test_id = any(cast(:test_ids as bigint[]))
order by figures.test_id, ab_variants.position;

-- name: held_out
-- Those a test kept back, and what they bought as long after their mail would have been due as orders count.
select
    count(*) as recipients, count(bought.contact_id) as conversions,
    coalesce(sum(bought.spent), 0) as revenue,
    coalesce(sum(bought.spent * bought.spent), 0) as revenue_squares
from ab_tests as tests
inner join messages as kept on kept.campaign_id = tests.campaign_id
    and kept.occurrence = tests.planned_occurrence and kept.ab_part = 'holdout'
left join lateral (
    select
        kept.contact_id,
        coalesce(sum(orders.net_total * orders.fx_rate) filter (
            where orders.reporting_currency = (
                select newest.reporting_currency
                from orders as newest
                order by newest.placed_at desc, newest.order_key desc
                limit 1
            )), 0) as spent
    from orders
    where orders.contact_id = kept.contact_id and kept.contact_id > 0
        and orders.placed_at between kept.due_at
            and kept.due_at + make_interval(hours => 24 * tests.conversion_days)
    having count(*) > 0
) as bought on true
where tests.test_id = cast(:test_id as bigint);
