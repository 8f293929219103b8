-- Grain: one row per campaign. Counted from ledger, hits, events and orders as they are now; test mails are left out.
drop view if exists analytics.campaign_performance cascade;
create view analytics.campaign_performance as
with ledger as (
    select
        campaign_id,
        count(*) as recipients,
        count(*) filter (where status = 'skipped') as skipped,
        count(*) filter (
            where sent_at is not null or status in ('bounced', 'unknown')
                or (status = 'failed' and last_code between 500 and 599)
        ) as attempted,
        count(*) filter (where sent_at is not null) as sent,
        count(*) filter (where sent_at is not null and status <> 'bounced') as delivered,
        count(*) filter (where status = 'bounced') as bounced,
        count(*) filter (where status = 'bounced' and reason in ('soft', 'blocked')) as soft_bounced,
        count(*) filter (where status = 'failed') as failed,
        count(*) filter (where status = 'unknown') as unknown,
        count(*) filter (where complained_at is not null) as complained
    from messages
    where kind = 'campaign' and campaign_id is not null
    group by campaign_id
),
verdicts as (
    select given.hit_id, given.verdict
    from hit_verdicts as given
    where not exists (
        select 1
        from hit_verdicts as later
        where later.hit_id = given.hit_id and later.rule_version > given.rule_version
    )
),
-- Every open and click of marketing mail, with the newest verdict on it.
touches as not materialized (
    select
        messages.campaign_id, messages.kind as message_kind, hits.message_id, hits.contact_id,
        hits.kind, hits.occurred_at, coalesce(verdicts.verdict = 'human', false) as is_human
    from hits
    inner join messages on messages.message_id = hits.message_id
    left join verdicts on verdicts.hit_id = hits.hit_id
    where hits.kind in ('open', 'click')
        and messages.kind in ('campaign', 'workflow', 'automation')
),
engagement as (
    select
        campaign_id,
        count(*) filter (where kind = 'open') as raw_opens,
        count(*) filter (where kind = 'open' and is_human) as human_opens,
        count(distinct message_id) filter (where is_human) as unique_opens,
        count(*) filter (where kind = 'click') as raw_clicks,
        count(*) filter (where kind = 'click' and is_human) as human_clicks,
        count(distinct message_id) filter (where kind = 'click' and is_human) as unique_clicks
    from touches
    where message_kind = 'campaign' and campaign_id is not null
    group by campaign_id
),
opt_outs as (
    select campaign_id, count(distinct contact_id) as unsubscribed
    from events
    where event_type = 'unsubscribed' and source = 'mauto' and campaign_id is not null
    group by campaign_id
),
-- As analytics.attribution was made; before that, the defaults of the settings.
windows as materialized (
    select
        make_interval(days => coalesce(max(click_days), 5)) as click_window,
        make_interval(days => coalesce(max(open_days), 1)) as open_window
    from rollups.attribution_windows
),
-- The last human click within its window before an order, else the last human open within its.
last_touches as (
    select distinct on (orders.contact_id, orders.order_key)
        touches.campaign_id, orders.net_total, orders.reporting_currency, orders.fx_rate
    from orders
    cross join windows
    inner join touches
        on touches.contact_id = orders.contact_id
        and touches.is_human
        and touches.occurred_at <= orders.placed_at
        and touches.occurred_at >= orders.placed_at
            - case touches.kind when 'click' then windows.click_window else windows.open_window end
    where orders.contact_id > 0
    order by
        orders.contact_id, orders.order_key, touches.kind, touches.occurred_at desc,
        touches.message_id desc
),
reporting as (
    select reporting_currency
    from orders
    order by placed_at desc, order_key desc
    limit 1
),
sales as (
    select
        campaign_id,
        count(*) as orders,
        -- A sum that its column cannot hold would spoil the whole view.
        greatest(least(coalesce(
            sum(round(net_total * fx_rate, 4)) filter (
                where reporting_currency = (select reporting_currency from reporting)
                    and abs(net_total * fx_rate) < 99999999999999
            ), 0), 99999999999999), -99999999999999) as revenue
    from last_touches
    where campaign_id is not null
    group by campaign_id
)
select
    campaigns.campaign_id,
    campaigns.name as campaign_name,
    campaigns.status,
    campaigns.sent_at,
    coalesce(ledger.recipients, 0) as recipients,
    coalesce(ledger.skipped, 0) as skipped,
    coalesce(ledger.attempted, 0) as attempted,
    coalesce(ledger.sent, 0) as sent,
    coalesce(ledger.delivered, 0) as delivered,
    coalesce(ledger.bounced, 0) as bounced,
    coalesce(ledger.bounced - ledger.soft_bounced, 0) as hard_bounced,
    coalesce(ledger.soft_bounced, 0) as soft_bounced,
    coalesce(ledger.failed, 0) as failed,
    coalesce(ledger.unknown, 0) as unknown,
    coalesce(ledger.complained, 0) as complained,
    coalesce(opt_outs.unsubscribed, 0) as unsubscribed,
    coalesce(engagement.raw_opens, 0) as raw_opens,
    coalesce(engagement.human_opens, 0) as human_opens,
    coalesce(engagement.unique_opens, 0) as unique_opens,
    coalesce(engagement.raw_clicks, 0) as raw_clicks,
    coalesce(engagement.human_clicks, 0) as human_clicks,
    coalesce(engagement.unique_clicks, 0) as unique_clicks,
    cast(analytics.percent(ledger.delivered, ledger.attempted) as numeric(7, 4)) as delivery_rate,
    cast(analytics.percent(coalesce(engagement.unique_opens, 0), ledger.delivered)
        as numeric(7, 4)) as open_rate,
    cast(analytics.percent(coalesce(engagement.unique_clicks, 0), ledger.delivered)
        as numeric(7, 4)) as click_rate,
    cast(analytics.percent(engagement.unique_clicks, engagement.unique_opens)
        as numeric(7, 4)) as ctor,
    cast(analytics.percent(ledger.bounced, ledger.attempted) as numeric(7, 4)) as bounce_rate,
    cast(analytics.percent(coalesce(opt_outs.unsubscribed, 0), ledger.delivered)
        as numeric(7, 4)) as unsubscribe_rate,
    cast(analytics.percent(ledger.complained, ledger.delivered)
        as numeric(7, 4)) as complaint_rate,
    coalesce(sales.orders, 0) as orders,
    cast(coalesce(sales.revenue, 0) as numeric(18, 4)) as revenue,
    cast(coalesce(sales.revenue, 0) / nullif(ledger.delivered, 0) as numeric(18, 4))
        as revenue_per_recipient,
    (select reporting_currency from reporting) as reporting_currency
from campaigns
left join ledger on ledger.campaign_id = campaigns.campaign_id
left join engagement on engagement.campaign_id = campaigns.campaign_id
left join opt_outs on opt_outs.campaign_id = campaigns.campaign_id
left join sales on sales.campaign_id = campaigns.campaign_id;

comment on view analytics.campaign_performance is
    'One row per campaign: what became of its messages and what they brought. Rates in percent, null without denominator.';
comment on column analytics.campaign_performance.campaign_id is 'Key; the API shows the same number as text.';
comment on column analytics.campaign_performance.campaign_name is 'Name given by its editor.';
comment on column analytics.campaign_performance.status is
    'draft, scheduled, sending, paused, sent, cancelled or failed.';
comment on column analytics.campaign_performance.sent_at is 'When nothing was left to send.';
comment on column analytics.campaign_performance.recipients is 'Rows of the ledger: everybody it was meant for.';
comment on column analytics.campaign_performance.skipped is 'Not sent on purpose: unsubscribed, suppressed, expired, ...';
comment on column analytics.campaign_performance.attempted is
    'sent + refused for good by the receiving side + unknown; faults before a hand-over are not attempted.';
comment on column analytics.campaign_performance.sent is 'Accepted by the receiving side.';
comment on column analytics.campaign_performance.delivered is 'sent minus those that bounced later.';
comment on column analytics.campaign_performance.bounced is
    'Address refused at the hand-over, or a bounce notice later.';
comment on column analytics.campaign_performance.hard_bounced is 'Bounced because the address does not work.';
comment on column analytics.campaign_performance.soft_bounced is 'Bounced for a passing reason.';
comment on column analytics.campaign_performance.failed is 'Given up for any other reason.';
comment on column analytics.campaign_performance.unknown is 'In doubt: the receiving side may or may not have it.';
comment on column analytics.campaign_performance.complained is 'Reported as spam by the recipient.';
comment on column analytics.campaign_performance.unsubscribed is 'Contacts that unsubscribed from a mail of it.';
comment on column analytics.campaign_performance.raw_opens is 'Every hit of an open pixel, machines included.';
comment on column analytics.campaign_performance.human_opens is 'Hits of an open pixel judged human.';
comment on column analytics.campaign_performance.unique_opens is
    'Messages with a human open or click: a click implies an open.';
comment on column analytics.campaign_performance.raw_clicks is 'Every hit of a tracked link, machines included.';
comment on column analytics.campaign_performance.human_clicks is 'Hits of a tracked link judged human.';
comment on column analytics.campaign_performance.unique_clicks is 'Messages with a human click.';
comment on column analytics.campaign_performance.delivery_rate is 'delivered / attempted.';
comment on column analytics.campaign_performance.open_rate is 'unique_opens / delivered.';
comment on column analytics.campaign_performance.click_rate is 'unique_clicks / delivered.';
comment on column analytics.campaign_performance.ctor is 'unique_clicks / unique_opens.';
comment on column analytics.campaign_performance.bounce_rate is 'bounced / attempted.';
comment on column analytics.campaign_performance.unsubscribe_rate is 'unsubscribed / delivered.';
comment on column analytics.campaign_performance.complaint_rate is 'complained / delivered.';
comment on column analytics.campaign_performance.orders is
    'Orders whose last touch was this campaign: the last human click within MAUTO_ATTRIBUTION_CLICK_DAYS before the order, else the last human open within MAUTO_ATTRIBUTION_OPEN_DAYS (new settings count from the next refresh of attribution on).';
comment on column analytics.campaign_performance.revenue is
    'Those orders net of refunds, in reporting_currency at the rate of the order''s day; orders that wait for a rate are left out.';
comment on column analytics.campaign_performance.revenue_per_recipient is 'revenue / delivered.';
comment on column analytics.campaign_performance.reporting_currency is
    'Currency of the amounts: that of the newest order; null without orders. Orders booked under another one are left out.';
