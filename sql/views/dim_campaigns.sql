-- Grain: one row per campaign. Its settings and times; figures are in campaign_performance.
drop view if exists analytics.dim_campaigns cascade;
create view analytics.dim_campaigns as
select
    campaign_id,
    name as campaign_name,
    status,
    template_id,
    segment_id,
    track_opens,
    track_clicks,
    created_at,
    scheduled_at,
    started_at,
    sent_at,
    date_trunc('month', sent_at, 'UTC')::date as sent_month
from campaigns;
comment on view analytics.dim_campaigns is 'One row per campaign.';
comment on column analytics.dim_campaigns.campaign_id is 'Key; the API shows the same number as text.';
comment on column analytics.dim_campaigns.campaign_name is 'Name given by its editor.';
comment on column analytics.dim_campaigns.status is
    'draft, scheduled, sending, paused, sent, cancelled or failed.';
comment on column analytics.dim_campaigns.template_id is 'Template its content comes from, if any.';
comment on column analytics.dim_campaigns.segment_id is 'Segment it goes to; null: all contacts.';
comment on column analytics.dim_campaigns.track_opens is 'Mails carry an open pixel.';
comment on column analytics.dim_campaigns.track_clicks is 'Links are tracked.';
comment on column analytics.dim_campaigns.created_at is 'When it was created.';
comment on column analytics.dim_campaigns.scheduled_at is 'When it was to start, if it was scheduled.';
comment on column analytics.dim_campaigns.started_at is 'When sending began.';
comment on column analytics.dim_campaigns.sent_at is 'When nothing was left to send.';
comment on column analytics.dim_campaigns.sent_month is 'First day of the month of sent_at (UTC).';
