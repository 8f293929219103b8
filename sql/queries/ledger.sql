-- The send ledger: claiming, recording and settling messages. Leases are compared by the
-- database's clock only.

-- name: new_attempt
-- A number for one attempt, known to the sender before anything is claimed under it.
select nextval('attempt_ids');

-- name: claim
-- Takes due messages under one attempt, first what people wait for: those that may go are leased, the others skipped.
with open_campaigns as materialized (
    select campaign_id
    from campaigns
    where status = 'sending' and not is_paced and not cast(:paces_all as boolean)
    -- One that is just planned, edited or stopped keeps no other mail waiting.
    for share skip locked
),
sources as materialized (
    select cast(0 as bigint) as campaign_key where not cast(:paces_all as boolean)
    union all
    select campaign_id from open_campaigns
),
urgent as materialized (
    select contact_id, message_id, give_up_at <= cast(:now as timestamptz) as is_late
    from messages
    where status = 'queued'
        and kind in ('transactional', 'confirmation', 'test', 'internal')
        and next_try_at <= cast(:now as timestamptz)
    -- Of every shard: the sender of its own may be waiting for a slot.
    order by next_try_at, message_id
    limit cast(:size as int)
    for update skip locked
),
others as materialized (
    select due.contact_id, due.message_id, due.is_late
    from sources
    cross join lateral (
        select
            messages.contact_id, messages.message_id,
            messages.give_up_at <= cast(:now as timestamptz) as is_late
        from messages
        where messages.status = 'queued'
            and coalesce(messages.campaign_id, 0) = sources.campaign_key
            and messages.kind in ('campaign', 'workflow', 'automation')
            and messages.next_try_at <= cast(:now as timestamptz)
            and messages.contact_id % cast(:shards as int) = cast(:shard as int)
        order by messages.next_try_at, messages.message_id
        limit cast(:size as int)
        for update skip locked
    ) as due
    limit cast(:size as int) - (select count(*) from urgent)
),
picked as (select * from urgent union all select * from others),
decided as materialized (
    select
        picked.contact_id, picked.message_id,
        case
            when picked.is_late then 'expired'
            when refusals.refusal is not null then refusals.refusal
            when cast(:require_consent as boolean) and refusals.consent_status <> 'granted'
                and refusals.kind in ('campaign', 'workflow', 'automation') then 'no_consent'
        end as reason
    from picked
    inner join message_refusals as refusals
        on refusals.contact_id = picked.contact_id and refusals.message_id = picked.message_id
),
taken as (
    update messages
    set status = case when decided.reason is null then 'sending' else 'skipped' end,
        reason = decided.reason,
        attempt_id = cast(:attempt_id as bigint),
        attempt_no = messages.attempt_no + case when decided.reason is null then 1 else 0 end,
        lease_until = case
            when decided.reason is null
                then clock_timestamp() + make_interval(secs => cast(:lease_seconds as float8))
        end,
        rfc_message_id = coalesce(
            messages.rfc_message_id,
            encode(substr(sha256(cast(:outer_key as bytea) || sha256(
                cast(:inner_key as bytea) || convert_to(messages.dedupe_key, 'utf8')
            )), 1, 16), 'hex') || '@' || cast(:domain as text)
        )
    from decided
    where messages.contact_id = decided.contact_id and messages.message_id = decided.message_id
    returning messages.status, messages.reason
)
select taken.status, taken.reason, count(*) as message_count
from taken
group by taken.status, taken.reason;

-- name: is_any_held
-- Whether somebody holds a campaign whose messages `claim` takes: it was passed over.
with free as materialized (
    select campaign_id
    from campaigns
    where status = 'sending' and planned_at is not null and not is_paced
    for share skip locked
)
select exists (
    select from campaigns
    where status = 'sending' and planned_at is not null and not is_paced
        and campaign_id not in (select campaign_id from free)
);

-- name: claimed
-- What an attempt holds, longest due first, with the contact as it is now; a test shows whom it names. What few
-- templates name comes as text, read when it is named. The order of the columns is that of `claim._claimed`.
select
    messages.message_id, messages.contact_id, messages.attempt_id, messages.attempt_no,
    messages.kind, messages.campaign_id, messages.workflow_id, messages.content_id,
    coalesce(messages.to_email, contacts.email) as to_email, messages.rfc_message_id,
    messages.context, contacts.contact_id as shown_id, contacts.email, contacts.first_name,
    contacts.last_name, contacts.phone, contacts.country, contacts.language, contacts.timezone,
    contacts.currency, cast(contacts.custom_fields as text) as custom_fields, contacts.source,
    cast(contacts.created_at as text) as created_at
from messages
left join contacts on contacts.contact_id = case
    when messages.kind = 'test' then cast(messages.context ->> 'as_contact_id' as bigint)
    else messages.contact_id
end
where messages.attempt_id = cast(:attempt_id as bigint) and messages.status = 'sending'
order by messages.next_try_at, messages.message_id;

-- name: refused
-- Which of an attempt's messages may not go any more: asked again just before the hand-over.
select
    messages.message_id,
    coalesce(refusals.refusal, 'no_consent') as reason
from messages
inner join message_refusals as refusals
    on refusals.contact_id = messages.contact_id and refusals.message_id = messages.message_id
where messages.attempt_id = cast(:attempt_id as bigint)
    and messages.status = 'sending'
    and (
        refusals.refusal is not null
        or (
            cast(:require_consent as boolean) and refusals.consent_status <> 'granted'
            and refusals.kind in ('campaign', 'workflow', 'automation')
        )
    );

-- name: is_due
-- Whether any message could be handed over now.
select exists (
    select from messages where status = 'queued' and next_try_at <= cast(:now as timestamptz)
);

-- name: waiting
-- What the claim would find about one queued message.
select
    messages.next_try_at, messages.give_up_at, messages.held_for,
    messages.give_up_at <= cast(:now as timestamptz) as is_late,
    case
        when refusals.refusal is not null then refusals.refusal
        when cast(:require_consent as boolean) and refusals.consent_status <> 'granted'
            and refusals.kind in ('campaign', 'workflow', 'automation') then 'no_consent'
    end as refusal
from messages
inner join message_refusals as refusals
    on refusals.contact_id = messages.contact_id and refusals.message_id = messages.message_id
where messages.contact_id = cast(:contact_id as bigint)
    and messages.message_id = cast(:message_id as bigint);

-- name: record
-- Writes outcomes, each only if its attempt still holds the message, and logs the attempts.
with outcomes as materialized (
    select *
    from jsonb_to_recordset(cast(:outcomes as jsonb)) as given (
        contact_id bigint, message_id bigint, attempt_id bigint, verdict text, stage text,
        code int, reply text, provider_id text, reason text, retry_seconds float8
    )
),
recorded as (
    update messages
    set status = case outcomes.verdict
            when 'deferred' then 'queued'
            when 'released' then 'queued'
            else outcomes.verdict
        end,
        reason = outcomes.reason,
        lease_until = null,
        attempt_no = messages.attempt_no
            - case
                when messages.status = 'sending' and outcomes.verdict in ('released', 'skipped')
                    then 1
                else 0
            end,
        next_try_at = case outcomes.verdict
            when 'released' then cast(:now as timestamptz)
                + make_interval(secs => coalesce(outcomes.retry_seconds, 0))
            when 'deferred' then cast(:now as timestamptz) + make_interval(secs => coalesce(
                outcomes.retry_seconds,
                least(14400, (300 + 600 * random()) * power(2::float8, messages.attempt_no - 1))
            ))
            else messages.next_try_at
        end,
        last_stage = outcomes.stage,
        last_code = outcomes.code,
        last_error = case when outcomes.verdict = 'sent' then null else outcomes.reply end,
        provider_id = coalesce(nullif(outcomes.provider_id, ''), messages.provider_id),
        sent_at = case when outcomes.verdict = 'sent' then cast(:now as timestamptz) end,
        bounced_at = case when outcomes.verdict = 'bounced' then cast(:now as timestamptz) end
    from outcomes
    where messages.contact_id = outcomes.contact_id
        and messages.message_id = outcomes.message_id
        and messages.attempt_id = outcomes.attempt_id
        and messages.status in ('sending', 'unknown')
    returning
        messages.contact_id, messages.message_id, messages.campaign_id, messages.workflow_id,
        messages.kind, messages.attempt_no, messages.attempt_id, messages.to_email,
        messages.depth, outcomes.verdict, outcomes.stage, outcomes.code, outcomes.reply
),
logged as (
    insert into message_attempts (
        contact_id, message_id, attempt_no, attempt_id, claimed_at, outcome, stage, code, reply
    )
    select
        contact_id, message_id, attempt_no, attempt_id, cast(:claimed_at as timestamptz), verdict,
        stage, code, reply
    from recorded
    where verdict not in ('released', 'skipped')
    on conflict do nothing
)
select
    recorded.contact_id, recorded.message_id, recorded.campaign_id, recorded.workflow_id,
    recorded.kind, recorded.verdict, recorded.code, recorded.reply, recorded.depth,
    coalesce(recorded.to_email, contacts.email) as to_email
from recorded
left join contacts on contacts.contact_id = recorded.contact_id
order by recorded.message_id;

-- name: record_sent
-- As `record`, for what was accepted: the messages of one attempt, with their events and webhook facts.
with accepted as materialized (
    select *
    from unnest(
        cast(:contact_ids as bigint[]), cast(:message_ids as bigint[]), cast(:codes as int[]),
        cast(:replies as text[]), cast(:provider_ids as text[]), cast(:addresses as text[])
    ) as given (contact_id, message_id, code, reply, provider_id, address)
),
recorded as (
    update messages
    set status = 'sent', reason = null, lease_until = null, last_stage = 'dot', last_error = null,
        last_code = accepted.code,
        provider_id = coalesce(nullif(accepted.provider_id, ''), messages.provider_id),
        sent_at = cast(:now as timestamptz)
    from accepted
    where messages.contact_id = accepted.contact_id
        and messages.message_id = accepted.message_id
        and messages.attempt_id = cast(:attempt_id as bigint)
        and messages.status in ('sending', 'unknown')
    returning
        messages.contact_id, messages.message_id, messages.campaign_id, messages.workflow_id,
        messages.kind, messages.attempt_no, messages.depth, accepted.code, accepted.reply,
        accepted.address, nextval('event_ids') as event_id
),
logged as (
    insert into message_attempts (
        contact_id, message_id, attempt_no, attempt_id, claimed_at, outcome, stage, code, reply
    )
    select
        contact_id, message_id, attempt_no, cast(:attempt_id as bigint),
        cast(:claimed_at as timestamptz), 'sent', 'dot', code, reply
    from recorded
    on conflict do nothing
),
-- The attempt is the key of its event: both are written or neither, so event_keys is not needed.
told as (
    insert into events (
        event_id, contact_id, occurred_at, received_at, event_type, source, properties,
        campaign_id, message_id
    )
    select
        event_id, contact_id, cast(:now as timestamptz), cast(:now as timestamptz), 'email_sent',
        'mauto', jsonb_strip_nulls(
            jsonb_build_object('kind', kind, 'workflow_id', cast(workflow_id as text))
        ), campaign_id, message_id
    from recorded
    where contact_id > 0 and kind not in ('test', 'internal')
),
waiting as (
    insert into event_pending (
        bucket, occurred_at, first_event_id, event_ids, event_count, depth
    )
    select
        contact_id % 64, cast(:now as timestamptz), min(event_id), array_agg(event_id), count(*),
        depth
    from recorded
    where contact_id > 0 and kind not in ('test', 'internal')
    group by contact_id % 64, depth, event_id / 8192
),
facts as (
    insert into outbox (event_name, occurred_at, data)
    select 'email.sent', cast(:now as timestamptz), jsonb_build_object(
        'message_id', cast(message_id as text), 'campaign_id', cast(campaign_id as text),
        'contact_id', cast(nullif(contact_id, 0) as text), 'email', address
    )
    from recorded
    where kind not in ('test', 'internal')
)
select count(*) from recorded;

-- name: expire_leases
-- Leases that ran out become doubts, in one statement: nothing is read first and written later.
with expired as (
    update messages
    set status = 'unknown', lease_until = null, last_error = 'the sender did not come back'
    where status = 'sending' and lease_until < clock_timestamp()
    returning contact_id, message_id, attempt_no, attempt_id
),
logged as (
    insert into message_attempts (
        contact_id, message_id, attempt_no, attempt_id, claimed_at, outcome, reply
    )
    select
        contact_id, message_id, attempt_no, attempt_id,
        clock_timestamp() - make_interval(secs => cast(:lease_seconds as float8)), 'unknown',
        'the sender did not come back'
    from expired
    on conflict do nothing
)
select count(*) from expired;

-- name: open_attempts
-- Which of some attempts still hold a message or left one in doubt.
select distinct attempt_id
from messages
where attempt_id = any(cast(:attempt_ids as bigint[])) and status in ('sending', 'unknown');

-- name: release_unbegun
-- Gives back what dead attempts held and had surely not begun to hand over, by their own journal.
with begun as materialized (
    select attempt_id, message_id
    from unnest(cast(:begun_attempts as bigint[]), cast(:begun_messages as bigint[]))
        as given (attempt_id, message_id)
)
update messages
set status = 'queued', lease_until = null, last_error = null,
    next_try_at = cast(:now as timestamptz),
    attempt_no = attempt_no - case when status = 'sending' then 1 else 0 end
where attempt_id = any(cast(:attempt_ids as bigint[]))
    and status in ('sending', 'unknown')
    and not exists (
        select from begun
        where begun.attempt_id = messages.attempt_id and begun.message_id = messages.message_id
    );

-- name: settle_from_log
-- Doubts that a complete log of the receiving side decides: accepted, or absent and quiet.
with doubts as materialized (
    select
        messages.contact_id, messages.message_id, messages.attempt_id,
        messages.rfc_message_id = any(cast(:accepted as text[])) as is_accepted
    from messages
    where messages.status = 'unknown'
        and (
            messages.rfc_message_id = any(cast(:accepted as text[]))
            or exists (
                select from message_attempts
                where message_attempts.contact_id = messages.contact_id
                    and message_attempts.message_id = messages.message_id
                    and message_attempts.attempt_id = messages.attempt_id
                    and message_attempts.outcome = 'unknown'
                    and message_attempts.recorded_at <= cast(:complete_until as timestamptz)
                        - make_interval(secs => cast(:quiet_seconds as float8))
            )
        )
    for update skip locked
)
select contact_id, message_id, attempt_id, is_accepted from doubts;

-- name: proven_by_hits
-- Doubts whose own signed links were used: somebody has the message.
select messages.contact_id, messages.message_id, messages.attempt_id
from messages
where messages.status = 'unknown'
    and exists (
        select from hits
        left join hit_verdicts as bad
            on bad.hit_id = hits.hit_id and bad.verdict = 'invalid'
        where hits.message_id = messages.message_id
            and hits.contact_id = messages.contact_id
            and bad.hit_id is null
    )
for update skip locked;

-- name: overdue_doubts
-- Doubts about messages that are better sent twice than never, once the quiet period is over.
select messages.contact_id, messages.message_id, messages.attempt_id
from messages
where messages.status = 'unknown'
    and messages.kind in ('transactional', 'confirmation', 'test', 'internal')
    and exists (
        select from message_attempts
        where message_attempts.contact_id = messages.contact_id
            and message_attempts.message_id = messages.message_id
            and message_attempts.attempt_id = messages.attempt_id
            and message_attempts.outcome = 'unknown'
            and message_attempts.recorded_at <= clock_timestamp()
                - make_interval(secs => cast(:quiet_seconds as float8))
    )
    -- After a restore nobody knows what went since the backup: somebody decides.
    and not exists (select from installation where restored_at > messages.queued_at)
for update skip locked;

-- name: skip_queued
-- Gives up the waiting messages of contacts, as far as the reason forbids their kind.
update messages
set status = 'skipped', reason = cast(:reason as text)
from message_refusals as refusals
where messages.contact_id = any(cast(:contact_ids as bigint[]))
    and messages.contact_id > 0
    and messages.status = 'queued'
    and refusals.contact_id = messages.contact_id
    and refusals.message_id = messages.message_id
    and (
        cast(:reason as text) not in ('unsubscribed', 'no_consent', 'suppressed')
        or messages.kind in ('campaign', 'workflow', 'automation')
        or refusals.refusal is not null
    );

-- name: skip_campaign
-- Gives up what a campaign has not begun to hand over.
update messages
set status = 'skipped', reason = cast(:reason as text)
where campaign_id = cast(:campaign_id as bigint) and status = 'queued';

-- name: open_counts
-- How many messages of a campaign are still waiting, in flight or in doubt.
select
    count(*) filter (where status = 'queued') as queued,
    count(*) filter (where status = 'sending') as sending,
    count(*) filter (where status = 'unknown') as unknown
from messages
where campaign_id = cast(:campaign_id as bigint) and status in ('queued', 'sending', 'unknown');

-- name: check_one_message_per_member
-- Ledger check 1: nobody has two messages of one campaign run.
select 'campaign ' || campaign_id || ' run ' || occurrence || ' contact ' || contact_id as finding
from messages
where kind = 'campaign'
group by campaign_id, occurrence, contact_id
having count(*) > 1;

-- name: check_keys_match
-- Ledger check 1: every message has its dedupe key, every key its message, and no Message-ID is used twice.
select 'dedupe key ' || coalesce(messages.dedupe_key, message_keys.dedupe_key) as finding
from messages
full join message_keys
    on message_keys.message_id = messages.message_id
    and message_keys.contact_id = messages.contact_id
    and message_keys.dedupe_key = messages.dedupe_key
where messages.message_id is null or message_keys.message_id is null
union all
select 'Message-ID ' || rfc_message_id
from messages
where rfc_message_id is not null
group by rfc_message_id
having count(*) > 1;

-- name: check_nothing_open
-- Ledger check 2: a campaign that is over has no message waiting or in flight.
select 'message ' || messages.message_id || ' is ' || messages.status || ', campaign '
    || campaigns.campaign_id || ' is ' || campaigns.status as finding
from messages
inner join campaigns on campaigns.campaign_id = messages.campaign_id
where messages.status in ('queued', 'sending')
    and (
        campaigns.status = 'sent'
        or (campaigns.status in ('cancelled', 'failed') and messages.status = 'queued')
    );

-- name: check_transitions
-- Ledger check 6: the state agrees with the log of attempts, and nothing was tried after it was sent.
with logged as (
    select
        contact_id, message_id,
        count(*) filter (where outcome = 'sent') as sent_count,
        max(attempt_no) filter (where outcome = 'sent') as sent_no,
        max(attempt_no) as last_no,
        array_agg(distinct outcome) as outcomes
    from message_attempts
    group by contact_id, message_id
)
select 'message ' || messages.message_id || ' is ' || messages.status || ', attempts: '
    || coalesce(array_to_string(logged.outcomes, ', '), 'none') as finding
from messages
left join logged
    on logged.contact_id = messages.contact_id and logged.message_id = messages.message_id
where coalesce(logged.sent_count, 0) <> case when messages.sent_at is null then 0 else 1 end
    or logged.last_no > logged.sent_no
    or logged.last_no > messages.attempt_no
    or (messages.sent_at is null and messages.status in ('bounced', 'failed', 'unknown')
        and not messages.status = any(coalesce(logged.outcomes, '{}')));

-- name: check_events
-- Ledger check 6: every message that was sent to a contact is told once in its history.
with told as (
    select message_id, count(*) as event_count
    from events
    where event_type = 'email_sent' and source = 'mauto' and message_id is not null
    group by message_id
)
select 'message ' || messages.message_id || ' has ' || coalesce(told.event_count, 0)
    || ' events email_sent' as finding
from messages
left join told on told.message_id = messages.message_id
where messages.contact_id > 0
    and messages.kind not in ('test', 'internal')
    and coalesce(told.event_count, 0) <> case when messages.sent_at is null then 0 else 1 end;

-- name: check_totals
-- Ledger check 7: the figures of a campaign at rest are those of its ledger.
select 'campaign ' || campaigns.campaign_id as finding
from campaigns
left join campaign_totals as shown on shown.campaign_id = campaigns.campaign_id
cross join lateral (
    select
        count(*) as recipients,
        count(*) filter (where status = 'skipped') as skipped,
        count(*) filter (where sent_at is not null) as sent,
        count(*) filter (where status = 'bounced') as bounced,
        count(*) filter (where status = 'failed') as failed,
        count(*) filter (where status = 'unknown') as unknown
    from messages
    where messages.campaign_id = campaigns.campaign_id and messages.kind = 'campaign'
) as counted
where campaigns.status in ('sent', 'cancelled')
    and campaigns.settled_at is not null
    and (
        (counted.recipients, counted.skipped, counted.sent, counted.bounced, counted.failed,
            counted.unknown)
        is distinct from
        (shown.recipients, shown.skipped, shown.sent, shown.bounced, shown.failed, shown.unknown)
    );

-- name: check_against_log
-- Ledger checks 3 to 5: what each message would show in the log of the receiving side.
select message_id, rfc_message_id, status, kind, sent_at is not null as is_sent, last_stage
from messages
where rfc_message_id is not null
order by message_id;

-- name: reactions
-- When the people of some messages first opened and clicked, and unsubscribed by them.
select
    events.message_id,
    min(events.occurred_at) filter (where events.event_type = 'email_opened') as first_open_at,
    min(events.occurred_at) filter (where events.event_type = 'email_clicked') as first_click_at,
    min(events.occurred_at) filter (where events.event_type = 'unsubscribed') as unsubscribed_at
from events
where events.contact_id = any(cast(:contact_ids as bigint[]))
    and events.message_id = any(cast(:message_ids as bigint[]))
    and events.event_type in ('email_opened', 'email_clicked', 'unsubscribed')
group by events.message_id;

-- name: doubts
-- Messages in doubt, the oldest attempt first.
select
    messages.message_id, messages.contact_id, messages.attempt_id, messages.kind,
    messages.campaign_id, messages.rfc_message_id, messages.last_error
from messages
where messages.status = 'unknown'
    and (
        cast(:campaign_id as bigint) is null
        or messages.campaign_id = cast(:campaign_id as bigint)
    )
    and (
        cast(:message_ids as bigint[]) is null
        or messages.message_id = any(cast(:message_ids as bigint[]))
    )
order by messages.attempt_id, messages.message_id
limit cast(:size as int)
for update skip locked;

-- name: give_time
-- Messages somebody wants sent again after all get time for it.
update messages
set give_up_at = greatest(give_up_at, cast(:give_up_at as timestamptz))
where message_id = any(cast(:message_ids as bigint[])) and status = 'unknown';
