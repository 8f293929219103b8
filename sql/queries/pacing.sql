-- When messages of paced campaigns may go: their limits, windows and frequency cap.

-- name: explain
-- What decides when a message of a campaign may go to one contact.
select
    contacts.timezone,
    schedules.timezone_name,
    campaign_paces.wake_at,
    campaign_paces.waits_for,
    (
        select count(*)
        from messages
        where messages.contact_id = contacts.contact_id
            and messages.kind in ('campaign', 'workflow', 'automation')
            and (messages.sent_at > cast(:cap_since as timestamptz)
                or messages.status in ('sending', 'unknown'))
    ) as recent
from contacts
left join campaigns on campaigns.campaign_id = cast(:campaign_id as bigint)
left join schedules on schedules.schedule_id = campaigns.schedule_id
left join campaign_paces on campaign_paces.campaign_id = campaigns.campaign_id
where contacts.contact_id = cast(:contact_id as bigint);

-- name: begin
-- The pace of a run that is being planned.
insert into campaign_paces (campaign_id, expires_at)
values (cast(:campaign_id as bigint), cast(:expires_at as timestamptz))
on conflict (campaign_id) do update
set wake_at = null, waits_for = null, expires_at = excluded.expires_at, is_stale = false;

-- name: seed_total
-- Counts what a campaign handed over in the last day, as if it had had a limit then.
insert into send_tallies (campaign_id, domain, minute, claimed)
select
    campaign_id, '',
    date_trunc('minute', least(
        coalesce(sent_at, cast(:now as timestamptz)), cast(:now as timestamptz)
    )),
    count(*)
from messages
where campaign_id = cast(:campaign_id as bigint)
    and kind = 'campaign'
    and (sent_at > cast(:now as timestamptz) - interval '25 hours'
        or status in ('sending', 'unknown'))
group by 1, 2, 3
on conflict do nothing;

-- name: forget_domains
-- Forgets what was counted and put off for domains: their limits may be others now.
with forgotten as (
    delete from send_slots where campaign_id = cast(:campaign_id as bigint)
)
delete from send_tallies where campaign_id = cast(:campaign_id as bigint) and domain <> '';

-- name: seed_domains
-- Counts what a campaign with domain limits handed over in the last hour, by domain.
insert into send_tallies (campaign_id, domain, minute, claimed)
select
    messages.campaign_id, substring(contacts.email_key from '[^@]*$'),
    date_trunc('minute', least(
        coalesce(messages.sent_at, cast(:now as timestamptz)), cast(:now as timestamptz)
    )),
    count(*)
from messages
inner join contacts on contacts.contact_id = messages.contact_id
inner join campaigns on campaigns.campaign_id = messages.campaign_id
where messages.campaign_id = cast(:campaign_id as bigint)
    and messages.kind = 'campaign'
    and campaigns.domain_limits <> '{}'
    and (messages.sent_at > cast(:now as timestamptz) - interval '62 minutes'
        or messages.status in ('sending', 'unknown'))
group by 1, 2, 3
on conflict do nothing;

-- name: mark_stale
-- Wakes a campaign: its window or limits were changed.
insert into campaign_paces (campaign_id, expires_at, is_stale)
select campaigns.campaign_id, min(messages.give_up_at), true
from campaigns
left join messages
    on messages.campaign_id = campaigns.campaign_id and messages.status = 'queued'
where campaigns.campaign_id = cast(:campaign_id as bigint) and campaigns.is_paced
group by campaigns.campaign_id
on conflict (campaign_id) do update
set wake_at = null, waits_for = null, expires_at = excluded.expires_at, is_stale = true;

-- name: candidates
-- Paced campaigns with something to do now, and (as 0) marketing mail outside campaigns if that is paced too.
select campaigns.campaign_id
from campaigns
left join campaign_paces on campaign_paces.campaign_id = campaigns.campaign_id
where campaigns.status = 'sending'
    and campaigns.planned_at is not null
    and (campaigns.is_paced or cast(:paces_all as boolean))
    and (
        campaign_paces.is_stale
        or campaign_paces.expires_at <= cast(:now as timestamptz)
        or (
            (campaign_paces.wake_at is null or campaign_paces.wake_at <= cast(:now as timestamptz))
            and exists (
                select from messages
                where messages.status = 'queued'
                    and coalesce(messages.campaign_id, 0) = campaigns.campaign_id
                    and messages.next_try_at <= cast(:now as timestamptz)
                    and messages.contact_id % cast(:shards as int) = cast(:shard as int)
            )
        )
    )
union all
select 0
where cast(:paces_all as boolean)
    and exists (
        select from messages
        where messages.status = 'queued'
            and coalesce(messages.campaign_id, 0) = 0
            and messages.kind in ('workflow', 'automation')
            and messages.next_try_at <= cast(:now as timestamptz)
            and messages.contact_id % cast(:shards as int) = cast(:shard as int)
    )
order by campaign_id;

-- name: lock_campaign
-- What a claim needs to know of a campaign: while we look it is not paused, cancelled or edited.
select
    campaigns.send_window, campaigns.max_per_hour, campaigns.max_per_day, campaigns.domain_limits,
    schedules.timezone_name, coalesce(schedules.max_per_hour, 0) as schedule_per_hour,
    coalesce(schedules.max_per_day, 0) as schedule_per_day
from campaigns
left join schedules on schedules.schedule_id = campaigns.schedule_id
where campaigns.campaign_id = cast(:campaign_id as bigint) and campaigns.status = 'sending'
for share of campaigns skip locked;

-- name: make_pace
-- A pace for a campaign that had none: all are paced now.
insert into campaign_paces (campaign_id) values (cast(:campaign_id as bigint))
on conflict do nothing;

-- name: lock_pace
-- The pace of a campaign: whoever holds it is the only one to claim its messages.
select wake_at, expires_at, is_stale
from campaign_paces
where campaign_id = cast(:campaign_id as bigint)
for update;

-- name: sleep
-- Nothing of a campaign is claimed before a moment.
update campaign_paces
set wake_at = cast(:wake_at as timestamptz), waits_for = cast(:waits_for as text)
where campaign_id = cast(:campaign_id as bigint);

-- name: wake
-- Campaigns whose limits have room again.
update campaign_paces
set wake_at = null, waits_for = null
where campaign_id = any(cast(:campaign_ids as bigint[])) and waits_for = 'limit';

-- name: no_common_limit
-- No limit concerns all campaigns any more: nobody waits for it.
update campaign_paces
set wake_at = null, waits_for = null
where campaign_id = 0 and wake_at is not null;

-- name: awake
-- A campaign whose held messages have been looked at, with the moment its next message expires.
update campaign_paces
set is_stale = false,
    expires_at = (
        select min(messages.give_up_at)
        from messages
        where messages.campaign_id = cast(:campaign_id as bigint) and messages.status = 'queued'
    )
where campaign_id = cast(:campaign_id as bigint);

-- name: release_held
-- Puts messages that a window or limit held back to their due time.
with held as materialized (
    select contact_id, message_id
    from messages
    where status = 'queued'
        and coalesce(campaign_id, 0) = cast(:campaign_id as bigint)
        and next_try_at > cast(:now as timestamptz)
        -- Who waits for the decision of an A/B test is held by no clock.
        and next_try_at < timestamptz '9999-01-01 00:00+00'
        and held_for is not null
    order by next_try_at
    limit cast(:size as int)
    for update skip locked
)
update messages
set next_try_at = messages.due_at, held_for = null
from held
where messages.contact_id = held.contact_id and messages.message_id = held.message_id;

-- name: expire
-- Gives up messages of a campaign that have waited too long, whether or not they may be claimed.
with late as materialized (
    select contact_id, message_id
    from messages
    where status = 'queued'
        and coalesce(campaign_id, 0) = cast(:campaign_id as bigint)
        and give_up_at <= cast(:now as timestamptz)
    limit cast(:size as int)
    for update skip locked
)
update messages
set status = 'skipped', reason = 'expired'
from late
where messages.contact_id = late.contact_id and messages.message_id = late.message_id;

-- name: tallies
-- What was claimed of a campaign (0: of all) by minute, in total and by domain.
select domain, minute, claimed
from send_tallies
where campaign_id = cast(:campaign_id as bigint)
    and minute > cast(:now as timestamptz)
        - case when domain = '' then cast(:span as interval) else interval '62 minutes' end
order by minute;

-- name: slots
-- Where the next message held for a domain is put.
select domain, next_slot_at
from send_slots
where campaign_id = cast(:campaign_id as bigint) and domain = any(cast(:domains as text[]));

-- name: put_slots
-- Remembers where the next message held for a domain is put.
insert into send_slots (campaign_id, domain, next_slot_at)
select cast(:campaign_id as bigint), given.domain, given.next_slot_at
from unnest(cast(:domains as text[]), cast(:moments as timestamptz[]))
    as given (domain, next_slot_at)
on conflict (campaign_id, domain) do update set next_slot_at = excluded.next_slot_at;

-- name: picked
-- Locks due messages of one campaign (0: marketing mail outside campaigns) and tells what decides about each.
with picked as materialized (
    select messages.contact_id, messages.message_id
    from messages
    where messages.status = 'queued'
        and coalesce(messages.campaign_id, 0) = cast(:campaign_id as bigint)
        and messages.kind in ('campaign', 'workflow', 'automation')
        and messages.next_try_at <= cast(:now as timestamptz)
        and messages.contact_id % cast(:shards as int) = cast(:shard as int)
    order by messages.next_try_at, messages.message_id
    limit cast(:size as int)
    for update skip locked
)
select
    messages.contact_id, messages.message_id, messages.give_up_at,
    case
        when messages.give_up_at <= cast(:now as timestamptz) then 'expired'
        when refusals.refusal is not null then refusals.refusal
        when cast(:require_consent as boolean) and refusals.consent_status <> 'granted'
            then 'no_consent'
    end as reason,
    coalesce(contacts.timezone, '') as timezone,
    coalesce(substring(contacts.email_key from '[^@]*$'), '') as domain
from picked
inner join messages
    on messages.contact_id = picked.contact_id and messages.message_id = picked.message_id
inner join message_refusals as refusals
    on refusals.contact_id = picked.contact_id and refusals.message_id = picked.message_id
left join contacts on contacts.contact_id = picked.contact_id
order by messages.next_try_at, messages.message_id;

-- name: lock_contacts
-- Locks those of some contacts that nobody else is deciding about.
select contact_id
from contacts
where contact_id = any(cast(:contact_ids as bigint[]))
order by contact_id
for no key update skip locked;

-- name: recent_marketing
-- How much marketing mail contacts got since a moment or may be getting now; asked after they were locked.
select contact_id, count(*) as message_count
from messages
where contact_id = any(cast(:contact_ids as bigint[]))
    and kind in ('campaign', 'workflow', 'automation')
    and (sent_at > cast(:since as timestamptz) or status in ('sending', 'unknown'))
group by contact_id;

-- name: take
-- Writes what was decided about locked messages: leased under one attempt, skipped, or held until a moment.
with decided as materialized (
    select *
    from unnest(
        cast(:contact_ids as bigint[]), cast(:message_ids as bigint[]), cast(:reasons as text[]),
        cast(:held_until as timestamptz[]), cast(:held_for as text[])
    ) as given (contact_id, message_id, reason, held_until, held_for)
)
update messages
set status = case
        when decided.reason is not null then 'skipped'
        when decided.held_until is not null then 'queued'
        else 'sending'
    end,
    reason = decided.reason,
    held_for = decided.held_for,
    next_try_at = coalesce(decided.held_until, messages.next_try_at),
    attempt_id = case
        when decided.held_until is null then cast(:attempt_id as bigint) else messages.attempt_id
    end,
    attempt_no = messages.attempt_no
        + case when decided.reason is null and decided.held_until is null then 1 else 0 end,
    lease_until = case
        when decided.reason is null and decided.held_until is null
            then clock_timestamp() + make_interval(secs => cast(:lease_seconds as float8))
    end,
    rfc_message_id = coalesce(
        messages.rfc_message_id,
        encode(substr(sha256(cast(:outer_key as bytea) || sha256(
            cast(:inner_key as bytea) || convert_to(messages.dedupe_key, 'utf8')
        )), 1, 16), 'hex') || '@' || cast(:domain as text)
    )
from decided
where messages.contact_id = decided.contact_id
    and messages.message_id = decided.message_id
    and messages.status = 'queued';

-- name: tally
-- Counts messages that are claimed (or, with a negative number, given back) in a minute.
insert into send_tallies (campaign_id, domain, minute, claimed)
select given.campaign_id, given.domain, cast(:minute as timestamptz), given.claimed
from unnest(
    cast(:campaign_ids as bigint[]), cast(:domains as text[]), cast(:counts as int[])
) as given (campaign_id, domain, claimed)
order by given.campaign_id, given.domain
on conflict (campaign_id, domain, minute) do update
set claimed = greatest(0, send_tallies.claimed + excluded.claimed);

-- name: forget_old
-- Forgets what no limit looks at any more.
with slots as (
    delete from send_slots where next_slot_at < cast(:now as timestamptz)
)
delete from send_tallies where minute < cast(:now as timestamptz) - interval '2 days';
