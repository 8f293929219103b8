-- Campaigns: what is due to be planned, what is done, and their figures.

-- name: next_to_plan
-- The next campaign whose audience is to be frozen, locked; another planner's are passed over.
select campaign_id
from campaigns
where planned_at is null
    and (
        status = 'sending'
        or (status = 'scheduled' and coalesce(plan_at, scheduled_at) <= cast(:now as timestamptz))
    )
    and (cast(:campaign_id as bigint) is null or campaign_id = cast(:campaign_id as bigint))
    and campaign_id <> all(cast(:done as bigint[]))
order by coalesce(requested_at, scheduled_at), campaign_id
limit 1
for update skip locked;

-- name: due_to_plan
-- The campaigns whose audience would be frozen now.
select campaign_id
from campaigns
where planned_at is null
    and (
        status = 'sending'
        or (status = 'scheduled' and coalesce(plan_at, scheduled_at) <= cast(:now as timestamptz))
    )
    and (cast(:campaign_id as bigint) is null or campaign_id = cast(:campaign_id as bigint))
order by campaign_id;

-- name: reopen
-- A doubt settled as not sent gives a sent campaign something to do again.
update campaigns
set status = 'sending', sent_at = null, settled_at = null, version = version + 1,
    updated_at = cast(:now as timestamptz)
where status = 'sent'
    and exists (
        select from messages
        where messages.campaign_id = campaigns.campaign_id and messages.status = 'queued'
    )
returning campaign_id;

-- name: requeue
-- Queues messages of a campaign again that ended badly or in doubt, a batch at a time; attempts and Message-ID stay.
with again as materialized (
    select contact_id, message_id
    from messages
    where campaign_id = cast(:campaign_id as bigint)
        and kind = 'campaign'
        and status = any(cast(:statuses as text[]))
        and status in ('failed', 'unknown')
    limit cast(:size as int)
    for update
)
update messages
set status = 'queued', reason = null, next_try_at = cast(:now as timestamptz),
    give_up_at = cast(:give_up_at as timestamptz), held_for = null
from again
where messages.contact_id = again.contact_id and messages.message_id = again.message_id;

-- name: send_again
-- A campaign with something to do again; a paused one stays paused.
update campaigns
set status = case when status = 'sent' then 'sending' else status end,
    sent_at = null, settled_at = null, version = version + 1,
    updated_at = cast(:now as timestamptz)
where campaign_id = cast(:campaign_id as bigint);

-- name: skip_of_ended
-- Nothing of a cancelled, failed or deleted campaign waits for ever.
update messages
set status = 'skipped', reason = 'cancelled'
from (
    select queued.message_id, queued.contact_id
    from messages as queued
    left join campaigns on campaigns.campaign_id = queued.campaign_id
    where queued.status = 'queued'
        and queued.campaign_id is not null
        and (campaigns.campaign_id is null or campaigns.status in ('cancelled', 'failed'))
) as ended
where messages.message_id = ended.message_id
    and messages.contact_id = ended.contact_id
    and messages.status = 'queued';

-- name: finish
-- Planned campaigns without a message waiting or in flight are sent.
with done as materialized (
    select campaign_id
    from campaigns
    where status = 'sending'
        and planned_at is not null
        and not exists (
            select from messages
            where messages.campaign_id = campaigns.campaign_id
                and messages.status in ('queued', 'sending')
        )
    for update skip locked
)
update campaigns
set status = 'sent', sent_at = cast(:now as timestamptz), status_reason = null,
    version = campaigns.version + 1, updated_at = cast(:now as timestamptz)
from done
where campaigns.campaign_id = done.campaign_id
returning campaigns.campaign_id, campaigns.name;

-- name: settle
-- Sent campaigns without a message in doubt are settled.
update campaigns
set settled_at = cast(:now as timestamptz)
where status = 'sent'
    and settled_at is null
    and not exists (
        select from messages
        where messages.campaign_id = campaigns.campaign_id
            and messages.status in ('queued', 'sending', 'unknown')
    )
returning campaign_id;

-- name: stale_totals
-- Campaigns under way whose figures are older than a moment.
select campaigns.campaign_id
from campaigns
left join campaign_totals on campaign_totals.campaign_id = campaigns.campaign_id
where campaigns.status in ('sending', 'paused')
    and campaigns.planned_at is not null
    and coalesce(campaign_totals.refreshed_at, '-infinity') < cast(:older_than as timestamptz);

-- name: aging_totals
-- Ended campaigns and those between two runs, to be recounted: people open, click and opt out long after the
-- last message, and what was in flight or in doubt is decided late. The older the campaign, the rarer.
select campaigns.campaign_id
from campaigns
inner join campaign_totals on campaign_totals.campaign_id = campaigns.campaign_id
where campaigns.status in ('sent', 'cancelled', 'scheduled')
    and campaign_totals.refreshed_at < cast(:now as timestamptz) - greatest(
        interval '9 minutes',
        (cast(:now as timestamptz) - coalesce(campaigns.sent_at, campaigns.updated_at)) / 20
    );

-- name: lock_totals
-- One recount at a time, each on a snapshot taken after the one before: an older count never wins.
select pg_advisory_xact_lock(hashtext('campaign_totals'));

-- name: refresh_totals
-- Recounts campaigns from the ledger, hits and events, as the analysts' view counts them.
insert into campaign_totals (
    campaign_id, recipients, skipped, in_flight, attempted, sent, delivered, bounced, failed,
    unknown, complained, unsubscribed, raw_opens, human_opens, unique_opens, raw_clicks,
    human_clicks, unique_clicks, refreshed_at
)
select
    counted.campaign_id, counted.recipients, counted.skipped, flights.in_flight, counted.attempted,
    counted.sent, counted.delivered, counted.bounced, counted.failed, counted.unknown,
    counted.complained, counted.unsubscribed, counted.raw_opens, counted.human_opens,
    counted.unique_opens, counted.raw_clicks, counted.human_clicks, counted.unique_clicks,
    cast(:now as timestamptz)
from analytics.campaign_performance as counted
cross join lateral (
    select count(*) as in_flight
    from messages
    where messages.campaign_id = counted.campaign_id
        and messages.status = 'sending'
        and messages.kind = 'campaign'
) as flights
where counted.campaign_id = any(cast(:campaign_ids as bigint[]))
on conflict (campaign_id) do update
set recipients = excluded.recipients, skipped = excluded.skipped, in_flight = excluded.in_flight,
    attempted = excluded.attempted, sent = excluded.sent, delivered = excluded.delivered,
    bounced = excluded.bounced, failed = excluded.failed, unknown = excluded.unknown,
    complained = excluded.complained, unsubscribed = excluded.unsubscribed,
    raw_opens = excluded.raw_opens, human_opens = excluded.human_opens,
    unique_opens = excluded.unique_opens, raw_clicks = excluded.raw_clicks,
    human_clicks = excluded.human_clicks, unique_clicks = excluded.unique_clicks,
    refreshed_at = excluded.refreshed_at;
