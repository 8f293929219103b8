-- Grain: one row per variant of an A/B test. Counted as the results of the API count, from the test slice alone.
drop view if exists analytics.ab_test_results cascade;
create view analytics.ab_test_results as
select
    tests.test_id,
    tests.campaign_id,
    variants.variant_id,
    variants.name as variant_name,
    variants.position = 0 as is_control,
    figures.assigned,
    figures.attempted,
    figures.sent,
    figures.delivered,
    figures.unique_opens,
    figures.unique_clicks,
    figures.conversions,
    cast(least(greatest(figures.revenue, -99999999999999), 99999999999999) as numeric(18, 4)) as revenue,
    -- Results observed elsewhere may tell of more openers than mails: never counted above them.
    cast(analytics.percent(least(figures.unique_opens, figures.sent), figures.sent)
        as numeric(7, 4)) as open_rate,
    cast(analytics.percent(least(figures.unique_clicks, figures.sent), figures.sent)
        as numeric(7, 4)) as click_rate,
    cast(analytics.percent(least(figures.conversions, figures.sent), figures.sent)
        as numeric(7, 4)) as conversion_rate,
    cast(least(greatest(figures.revenue, -99999999999999), 99999999999999) / nullif(figures.sent, 0)
        as numeric(18, 4)) as revenue_per_recipient,
    coalesce(variants.variant_id = tests.winner_variant_id, false) as is_winner,
    tests.decision,
    (
        select orders.reporting_currency
        from orders
        order by orders.placed_at desc, orders.order_key desc
        limit 1
    ) as reporting_currency
from ab_tests as tests
inner join ab_variants as variants on variants.test_id = tests.test_id
inner join ab_variant_figures as figures on figures.variant_id = variants.variant_id;

comment on view analytics.ab_test_results is
    'One row per variant of an A/B test: what its test mail brought. Rates in percent of sent, null without denominator.';
comment on column analytics.ab_test_results.test_id is 'The test; the API shows the same number as text.';
comment on column analytics.ab_test_results.campaign_id is 'The campaign it asks about.';
comment on column analytics.ab_test_results.variant_id is 'Key; the API shows the same number as text.';
comment on column analytics.ab_test_results.variant_name is 'Name given by its editor.';
comment on column analytics.ab_test_results.is_control is 'The first variant: the others are compared with it.';
comment on column analytics.ab_test_results.assigned is
    'Recipients of the test slice that were to get it, with those observed elsewhere.';
comment on column analytics.ab_test_results.attempted is
    'sent + refused for good by the receiving side + unknown; faults before a hand-over are not attempted.';
comment on column analytics.ab_test_results.sent is 'Accepted by the receiving side.';
comment on column analytics.ab_test_results.delivered is 'sent minus those that bounced later.';
comment on column analytics.ab_test_results.unique_opens is
    'Messages with a human open or click: a click implies an open.';
comment on column analytics.ab_test_results.unique_clicks is 'Messages with a human click.';
comment on column analytics.ab_test_results.conversions is
    'Contacts with an order within the attribution days (5 unless set otherwise when the test was armed) after their hand-over, whether or not they used a link.';
comment on column analytics.ab_test_results.revenue is
    'Those orders net of refunds, in reporting_currency at the rate of the order''s day; orders that wait for a rate are left out.';
comment on column analytics.ab_test_results.open_rate is 'unique_opens / sent, 100 at most.';
comment on column analytics.ab_test_results.click_rate is 'unique_clicks / sent, 100 at most.';
comment on column analytics.ab_test_results.conversion_rate is 'conversions / sent, 100 at most.';
comment on column analytics.ab_test_results.revenue_per_recipient is 'revenue / sent.';
comment on column analytics.ab_test_results.is_winner is 'It won: by the figures, or chosen by hand.';
comment on column analytics.ab_test_results.decision is
    'What the figures said when the test was completed: winner, no_difference, not_enough_data or srm_detected; null before.';
comment on column analytics.ab_test_results.reporting_currency is
    'Currency of the amounts: that of the newest order; null without orders. Orders booked under another one are left out.';
