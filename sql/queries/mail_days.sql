-- Mail by UTC day, a run of days at a time. Binds: from_day and to_day (null: no limit), as_of (nothing later).

-- name: bounds
-- From when until when.
select
    cast(coalesce(cast(:from_day as date), '-infinity') as timestamptz) as begins_at,
    least(
        cast(:as_of as timestamptz),
        cast(coalesce(cast(:to_day as date), 'infinity') as timestamptz) + interval '1 day'
    ) as ends_at

-- name: attempts
-- What was handed over, or was to be where that came to nothing; test mails and mails to ourselves are left out.
with bounds as (
    -- include: bounds
)
select messages.*, messages.sent_at as tried_at
from messages
where messages.sent_at >= (select begins_at from bounds)
    and messages.sent_at < (select ends_at from bounds)
    and messages.kind not in ('test', 'internal')
union all
select messages.*, tries.tried_at
from messages
cross join lateral (
    select attempted_at(status, last_code, sent_at, bounced_at, next_try_at) as tried_at
) as tries
where messages.sent_at is null and messages.status in ('bounced', 'failed', 'unknown')
    and coalesce(messages.bounced_at, messages.next_try_at) >= (select begins_at from bounds)
    and coalesce(messages.bounced_at, messages.next_try_at) < (select ends_at from bounds)
    and tries.tried_at is not null
    and messages.kind not in ('test', 'internal')

-- name: clear_deliverability
-- Takes out the days that are about to be restated.
delete from analytics.deliverability_by_domain
where day >= coalesce(cast(:from_day as date), '-infinity')
    and day <= coalesce(cast(:to_day as date), 'infinity')

-- name: restate_deliverability
-- What became of the mails of each day, by the domain of the address at the hand-over.
with attempts as (
    -- include: attempts
),
addressed as (
    select
        attempts.*, utc_day(attempts.tried_at) as day,
        case when attempts.to_key is null and contacts.contact_id is null then ''
            else split_part(
                coalesce(attempts.to_key, earlier.email_key, contacts.email_key), '@', -1)
        end as domain
    from attempts
    left join contacts on contacts.contact_id = attempts.contact_id
    left join contact_history as earlier
        on earlier.contact_id = attempts.contact_id
        and earlier.valid_from <= attempts.tried_at and earlier.valid_to > attempts.tried_at
),
counted as (
    select
        day, domain,
        count(*) as attempted,
        count(*) filter (where sent_at is not null) as sent,
        count(*) filter (where sent_at is not null and status <> 'bounced') as delivered,
        count(*) filter (where attempt_no > 1) as deferred,
        count(*) filter (
            where status = 'bounced' and coalesce(reason, '') not in ('soft', 'blocked')
        ) as hard_bounced,
        count(*) filter (where status = 'bounced' and reason in ('soft', 'blocked'))
            as soft_bounced,
        count(*) filter (where complained_at is not null) as complained,
        count(*) filter (where status = 'unknown') as unknown
    from addressed
    group by day, domain
)
insert into analytics.deliverability_by_domain (
    day, mailbox_provider, domain, attempted, sent, delivered, deferred, hard_bounced,
    soft_bounced, complained, unknown, delivery_rate, bounce_rate, complaint_rate, refreshed_at
)
select
    day, analytics.mailbox_provider(domain), domain, attempted, sent, delivered, deferred,
    hard_bounced, soft_bounced, complained, unknown, analytics.percent(delivered, attempted),
    analytics.percent(hard_bounced + soft_bounced, attempted),
    analytics.percent(complained, delivered), now()
from counted

-- name: ledger_days
-- What became of messages, each figure on the day it happened.
with bounds as (
    -- include: bounds
),
attempts as (
    -- include: attempts
)
select
    utc_day(tried_at) as day, kind, case when kind = 'campaign' then campaign_id end as campaign_id,
    1 as attempted, cast(sent_at is not null as int) as sent,
    cast(sent_at is not null and status <> 'bounced' as int) as delivered,
    cast(status = 'bounced' and bounced_at is null as int) as bounced, 0 as complained
from attempts
union all
select
    utc_day(bounced_at), kind, case when kind = 'campaign' then campaign_id end, 0, 0, 0, 1, 0
from messages
where status = 'bounced' and kind not in ('test', 'internal')
    and bounced_at >= (select begins_at from bounds) and bounced_at < (select ends_at from bounds)
union all
select
    utc_day(complained_at), kind, case when kind = 'campaign' then campaign_id end, 0, 0, 0, 0, 1
from messages
where kind not in ('test', 'internal')
    and complained_at >= (select begins_at from bounds)
    and complained_at < (select ends_at from bounds)

-- name: opt_out_days
-- Who opted out from a mail for the first time, on that day.
with bounds as (
    -- include: bounds
)
select distinct on (campaign_id, whose.kind, whose.mail_id, events.contact_id)
    utc_day(events.occurred_at) as day, whose.kind, events.campaign_id
from events
left join messages on messages.message_id = events.message_id
cross join lateral (
    select
        case when events.campaign_id is not null then 'campaign' else messages.kind end as kind,
        case when events.campaign_id is null then events.message_id end as mail_id
) as whose
where events.event_type = 'unsubscribed' and events.source = 'mauto'
    and whose.kind not in ('test', 'internal')
    and events.occurred_at >= (select begins_at from bounds)
    and events.occurred_at < (select ends_at from bounds)
    and not exists (
        select
        from events as earlier
        where earlier.contact_id = events.contact_id and earlier.event_type = 'unsubscribed'
            and earlier.source = 'mauto'
            and earlier.campaign_id is not distinct from events.campaign_id
            and (events.campaign_id is not null or earlier.message_id = events.message_id)
            and earlier.occurred_at < (select begins_at from bounds)
    )
order by campaign_id, whose.kind, whose.mail_id, events.contact_id, events.occurred_at

-- name: touches
-- Opens and clicks with the newest verdict, and whether one is the first human one of its message.
with bounds as (
    -- include: bounds
),
judged as (
    select
        hits.message_id, hits.kind, hits.occurred_at, hits.hit_id,
        coalesce(newest.verdict = 'human', false) as is_human
    from hits
    left join lateral (
        select verdict
        from hit_verdicts
        where hit_verdicts.hit_id = hits.hit_id
        order by rule_version desc
        limit 1
    ) as newest on true
    where hits.kind in ('open', 'click')
        and hits.occurred_at >= (select begins_at from bounds)
        and hits.occurred_at < (select ends_at from bounds)
)
select
    judged.*,
    row_number() over (
        partition by message_id, is_human order by occurred_at, hit_id) as place,
    row_number() over (
        partition by message_id, is_human, kind order by occurred_at, hit_id) as place_of_kind
from judged

-- name: touch_days
-- Opens and clicks by day; what is first in its message counts once, where nothing human came before these days.
with touches as materialized (
    -- include: touches
),
earlier as (
    select firsts.message_id, bool_or(hits.kind = 'click') as has_click
    from (select message_id from touches where is_human and place = 1) as firsts
    inner join hits on hits.message_id = firsts.message_id
    where hits.kind in ('open', 'click')
        and hits.occurred_at < coalesce(cast(:from_day as date), '-infinity')
        and (
            select verdict from hit_verdicts where hit_verdicts.hit_id = hits.hit_id
            order by rule_version desc limit 1) = 'human'
    group by firsts.message_id
)
select
    utc_day(touches.occurred_at) as day, messages.kind,
    case when messages.kind = 'campaign' then messages.campaign_id end as campaign_id,
    touches.kind as touch, touches.is_human,
    touches.is_human and touches.place = 1 and earlier.message_id is null as is_first,
    touches.is_human and touches.kind = 'click' and touches.place_of_kind = 1
    and not coalesce(earlier.has_click, false) as is_first_click
from touches
inner join messages on messages.message_id = touches.message_id
left join earlier on earlier.message_id = touches.message_id
where messages.kind not in ('test', 'internal')

-- name: clear_days
-- Takes out the days that are about to be restated; opens and clicks whose hits are kept no longer stay.
with seen as materialized (
    -- Each day is looked up once, whatever rows it has.
    select day
    from (
        select distinct day
        from analytics.daily_email_metrics
        where day >= coalesce(cast(:from_day as date), '-infinity')
            and day <= coalesce(cast(:to_day as date), 'infinity')
    ) as known
    where exists (
        select from hits
        where hits.occurred_at >= known.day and hits.occurred_at < known.day + 1)
)
delete from analytics.daily_email_metrics
where day >= coalesce(cast(:from_day as date), '-infinity')
    and day <= coalesce(cast(:to_day as date), 'infinity')
    and (raw_opens + raw_clicks = 0 or day in (select day from seen))

-- name: restate_days
-- Adds up what happened on each day.
with ledger_days as (
    -- include: ledger_days
),
touch_days as (
    -- include: touch_days
),
opt_out_days as (
    -- include: opt_out_days
),
parts as (
    select
        day, kind, campaign_id, sum(attempted) as attempted, sum(sent) as sent,
        sum(delivered) as delivered, sum(bounced) as bounced, sum(complained) as complained,
        0 as unsubscribed, 0 as raw_opens, 0 as human_opens, 0 as unique_opens, 0 as raw_clicks,
        0 as human_clicks, 0 as unique_clicks
    from ledger_days
    group by day, kind, campaign_id
    union all
    select
        day, kind, campaign_id, 0, 0, 0, 0, 0, 0,
        count(*) filter (where touch = 'open'),
        count(*) filter (where touch = 'open' and is_human),
        count(*) filter (where is_first),
        count(*) filter (where touch = 'click'),
        count(*) filter (where touch = 'click' and is_human),
        count(*) filter (where is_first_click)
    from touch_days
    group by day, kind, campaign_id
    union all
    select day, kind, campaign_id, 0, 0, 0, 0, 0, count(*), 0, 0, 0, 0, 0, 0
    from opt_out_days
    group by day, kind, campaign_id
)
insert into analytics.daily_email_metrics (
    day, kind, campaign_id, attempted, sent, delivered, bounced, complained, unsubscribed,
    raw_opens, human_opens, unique_opens, raw_clicks, human_clicks, unique_clicks, refreshed_at
)
select
    day, kind, campaign_id, sum(attempted), sum(sent), sum(delivered), sum(bounced),
    sum(complained), sum(unsubscribed), sum(raw_opens), sum(human_opens), sum(unique_opens),
    sum(raw_clicks), sum(human_clicks), sum(unique_clicks), now()
from parts
group by day, kind, campaign_id
on conflict on constraint one_row_per_day_kind_and_campaign do nothing
