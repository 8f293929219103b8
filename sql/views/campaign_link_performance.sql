-- Grain: one row per campaign and tracked link of its content. Counted from hits as they are now; test mails are left out.
drop view if exists analytics.campaign_link_performance cascade;
create view analytics.campaign_link_performance as
with clicks as (
    select
        messages.content_id, hits.link_position,
        count(*) as raw_clicks,
        count(*) filter (where newest.verdict = 'human') as human_clicks,
        count(distinct hits.message_id) filter (where newest.verdict = 'human') as unique_clicks,
        min(hits.occurred_at) filter (where newest.verdict = 'human') as first_click_at,
        max(hits.occurred_at) filter (where newest.verdict = 'human') as last_click_at
    from hits
    inner join messages on messages.message_id = hits.message_id
    left join lateral (
        select verdict
        from hit_verdicts
        where hit_verdicts.hit_id = hits.hit_id
        order by rule_version desc
        limit 1
    ) as newest on true
    where hits.kind = 'click' and messages.kind = 'campaign' and messages.campaign_id is not null
    group by messages.content_id, hits.link_position
)
select
    message_contents.campaign_id,
    message_links.link_id,
    message_links.url,
    message_links.position,
    coalesce(clicks.raw_clicks, 0) as raw_clicks,
    coalesce(clicks.human_clicks, 0) as human_clicks,
    coalesce(clicks.unique_clicks, 0) as unique_clicks,
    cast(analytics.percent(
        coalesce(clicks.human_clicks, 0),
        cast(sum(clicks.human_clicks) over (partition by message_contents.campaign_id) as bigint)
    ) as numeric(7, 4)) as click_share,
    clicks.first_click_at,
    clicks.last_click_at
from message_links
inner join message_contents on message_contents.content_id = message_links.content_id
left join clicks
    on clicks.content_id = message_links.content_id
    and clicks.link_position = message_links.position
where message_contents.campaign_id is not null;
comment on view analytics.campaign_link_performance is
    'One row per campaign and link: how often it was clicked. A link has a row for each run, variant and language it was sent in.';
comment on column analytics.campaign_link_performance.campaign_id is 'Campaign (dim_campaigns).';
comment on column analytics.campaign_link_performance.link_id is 'Key; the API shows the same number as text.';
comment on column analytics.campaign_link_performance.url is 'Where the link leads, as written in the content.';
comment on column analytics.campaign_link_performance.position is 'Place of the link in its content.';
comment on column analytics.campaign_link_performance.raw_clicks is 'Every hit of the link, machines included.';
comment on column analytics.campaign_link_performance.human_clicks is 'Hits of the link judged human.';
comment on column analytics.campaign_link_performance.unique_clicks is 'Messages with a human click on the link.';
comment on column analytics.campaign_link_performance.click_share is
    'human_clicks / human clicks on all links of the campaign, in percent.';
comment on column analytics.campaign_link_performance.first_click_at is 'First human click.';
comment on column analytics.campaign_link_performance.last_click_at is 'Last human click.';
