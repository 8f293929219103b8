-- Reactions to campaigns and what became of their mails, by UTC day. Binds: from_day and to_day (null: no limit), as_of.

-- name: clear_days
-- Takes out the days that are about to be restated; opens and clicks whose hits are kept no longer stay.
with seen as materialized (
    -- Each day is looked up once, whatever rows it has.
    select day
    from (
        select distinct day
        from rollups.campaign_days
        where day >= coalesce(cast(:from_day as date), '-infinity')
            and day <= coalesce(cast(:to_day as date), 'infinity')
    ) as known
    where exists (
        select from hits
        where hits.occurred_at >= known.day and hits.occurred_at < known.day + 1)
)
delete from rollups.campaign_days
where day >= coalesce(cast(:from_day as date), '-infinity')
    and day <= coalesce(cast(:to_day as date), 'infinity')
    and (part = 'mails' or day in (select day from seen))

-- name: judged
-- Opens and clicks of mails of campaigns with the newest verdict.
with bounds as (
    -- include: mail_days.bounds
)
select
    hits.hit_id, hits.message_id, hits.kind, hits.occurred_at, utc_day(hits.occurred_at) as day,
    coalesce(hits.url, '') as url, messages.campaign_id, messages.contact_id, messages.to_key,
    messages.sent_at,
    attempted_at(
        messages.status, messages.last_code, messages.sent_at, messages.bounced_at,
        messages.next_try_at
    ) as tried_at,
    coalesce(newest.verdict = 'human', false) as is_human
from hits
inner join messages
    on messages.message_id = hits.message_id and messages.kind = 'campaign'
    and messages.campaign_id is not null
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

-- name: touches
-- The same, and which is the first human one of its message, or on its link, where none came before these days.
with judged as (
    -- include: judged
),
ranked as (
    select
        judged.*,
        row_number() over (
            partition by message_id, is_human order by occurred_at, hit_id) as place,
        row_number() over (
            partition by message_id, is_human, kind, url order by occurred_at, hit_id
        ) as place_on_link
    from judged
)
select
    ranked.*,
    is_human and place = 1 and not (
        cast(:from_day as date) is not null and exists (
            select
            from hits
            where hits.message_id = ranked.message_id and hits.kind in ('open', 'click')
                and hits.occurred_at < cast(:from_day as date)
                and (
                    select verdict from hit_verdicts where hit_verdicts.hit_id = hits.hit_id
                    order by rule_version desc limit 1) = 'human')
    ) as is_reader,
    is_human and kind = 'click' and place_on_link = 1 and not (
        cast(:from_day as date) is not null and exists (
            select
            from hits
            where hits.message_id = ranked.message_id and hits.kind = 'click'
                and hits.occurred_at < cast(:from_day as date)
                and coalesce(hits.url, '') = ranked.url
                and (
                    select verdict from hit_verdicts where hit_verdicts.hit_id = hits.hit_id
                    order by rule_version desc limit 1) = 'human')
    ) as is_clicker
from ranked

-- name: restate_days
-- Counts links, hours, and what became of the mails of each domain.
with attempts as (
    -- include: mail_days.attempts
),
touches as materialized (
    -- include: touches
),
mails as (
    select
        campaign_id, contact_id, to_key, tried_at, utc_day(tried_at) as day, 'mails' as part,
        0 as messages, 0 as timed, cast(0 as numeric) as seconds, 1 as attempted,
        cast(sent_at is not null as int) as sent,
        cast(sent_at is not null and status <> 'bounced' as int) as delivered,
        cast(status = 'bounced' as int) as bounced
    from attempts
    where kind = 'campaign' and campaign_id is not null
    union all
    select
        campaign_id, contact_id, to_key, tried_at, day, 'readers', 1,
        cast(sent_at is not null as int),
        greatest(0, extract(epoch from occurred_at - sent_at)), 0, 0, 0, 0
    from touches
    where is_reader
),
addressed as (
    select
        mails.*,
        case when mails.to_key is null and contacts.contact_id is null then 'erased'
            else split_part(coalesce(mails.to_key, earlier.email_key, contacts.email_key), '@', -1)
        end as domain
    from mails
    left join contacts on contacts.contact_id = mails.contact_id
    left join contact_history as earlier
        on earlier.contact_id = mails.contact_id
        and earlier.valid_from <= mails.tried_at and earlier.valid_to > mails.tried_at
)
insert into rollups.campaign_days (
    campaign_id, day, part, name, raw, human, messages, timed, seconds, attempted, sent, delivered,
    bounced
)
select
    campaign_id, day, part, domain, 0, 0, sum(messages), sum(timed), sum(seconds), sum(attempted),
    sum(sent), sum(delivered), sum(bounced)
from addressed
group by campaign_id, day, part, domain
union all
select
    campaign_id, day, 'link', url, count(*), count(*) filter (where is_human),
    count(*) filter (where is_clicker), 0, 0, 0, 0, 0, 0
from touches
where kind = 'click'
group by campaign_id, day, url
union all
select
    campaign_id, day, kind || 's', to_char(quarter at time zone 'UTC', 'HH24:MI'),
    count(*), count(*) filter (where is_human), 0, 0, 0, 0, 0, 0, 0
from touches
cross join lateral (
    select date_bin(interval '15 minutes', occurred_at, timestamptz '2000-01-01') as quarter
) as clocks
group by campaign_id, day, kind, quarter
