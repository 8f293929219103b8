-- A/B tests: what is known of their variants and of those kept back.

-- name: figures
-- What is known of each variant of some tests, the control first.
select figures.*
from ab_variant_figures as figures
inner join ab_variants on ab_variants.variant_id = figures.variant_id
where figures.test_id = any(cast(:test_ids as bigint[]))
order by figures.test_id, ab_variants.position;

-- name: last_counted
-- What is known of each variant of some tests for a list: the ledger as last counted, what was seen elsewhere as it is.
select
    seen.variant_id,
    coalesce(counted.sent, 0) + seen.sent as sent,
    coalesce(counted.bounced, 0) + seen.bounced as bounced,
    coalesce(counted.unique_opens, 0) + seen.openers as unique_opens,
    coalesce(counted.unique_clicks, 0) + seen.clickers as unique_clicks,
    coalesce(counted.conversions, 0) as conversions,
    coalesce(counted.revenue, 0) as revenue
from ab_variant_observed as seen
left join ab_variant_totals as counted on counted.variant_id = seen.variant_id
where seen.test_id = any(cast(:test_ids as bigint[]));

-- name: overtaken
-- Tests whose campaign was recounted after their variants were.
select tests.test_id
from ab_tests as tests
inner join campaign_totals on campaign_totals.campaign_id = tests.campaign_id
where tests.planned_at is not null
    and exists (
        select
        from ab_variants as variants
        left join ab_variant_totals as counted on counted.variant_id = variants.variant_id
        where variants.test_id = tests.test_id
            and coalesce(counted.refreshed_at, '-infinity') < campaign_totals.refreshed_at
    );

-- name: recount
-- Counts the variants of some tests for lists.
insert into ab_variant_totals (
    variant_id, sent, bounced, unique_opens, unique_clicks, conversions, revenue, refreshed_at
)
select
    known.variant_id, known.sent, known.bounced, known.unique_opens, known.unique_clicks,
    known.conversions, known.revenue, cast(:now as timestamptz)
from ab_variant_ledger as known
where known.test_id = any(cast(:test_ids as bigint[]))
on conflict (variant_id) do update
set sent = excluded.sent, bounced = excluded.bounced, unique_opens = excluded.unique_opens,
    unique_clicks = excluded.unique_clicks, conversions = excluded.conversions,
    revenue = excluded.revenue, refreshed_at = excluded.refreshed_at;

-- name: held_out
-- Those a test kept back, and what they bought as long after their mail would have been due as orders count.
with kept as (
    select messages.contact_id, messages.due_at, tests.conversion_days
    from ab_tests as tests
    inner join messages on messages.campaign_id = tests.campaign_id
        and messages.occurrence = tests.planned_occurrence and messages.ab_part = 'holdout'
    where tests.test_id = cast(:test_id as bigint)
),
bought as (
    select
        kept.contact_id,
        coalesce(sum(orders.net_total * orders.fx_rate) filter (
            where orders.reporting_currency = (
                select newest.reporting_currency
                from orders as newest
                order by newest.placed_at desc, newest.order_key desc
                limit 1
            )), 0) as spent
    from kept
    inner join orders on orders.contact_id = kept.contact_id
        and orders.placed_at between kept.due_at
            and kept.due_at + make_interval(hours => 24 * kept.conversion_days)
    where kept.contact_id > 0
    group by kept.contact_id
)
select
    (select count(*) from kept) as recipients, count(*) as conversions,
    coalesce(sum(spent), 0) as revenue, coalesce(sum(spent * spent), 0) as revenue_squares
from bought;
