-- Feedback: notices of providers and bounce mails, applied to the messages they are about.

-- name: count_refusal
-- One more notice that was not believed, by day and reason.
insert into notice_refusals (refused_on, reason, refusal_count)
values (cast(:day as date), cast(:reason as text), 1)
on conflict (refused_on, reason) do update
set refusal_count = notice_refusals.refusal_count + 1;

-- name: take_notices
-- Open notices that are due, oldest first; nobody else takes them in this transaction.
select notice_id, source, body, received_at, look_count
from provider_notices
where next_look_at <= cast(:now as timestamptz)
    and (cast(:only as bigint) is null or notice_id = cast(:only as bigint))
order by next_look_at, notice_id
limit cast(:size as int)
for update skip locked;

-- name: by_provider_ids
-- Messages by the id SES gave them (the shape of the index stands in the condition).
select message_id, provider_id
from messages
where provider_id = any(cast(:provider_ids as text[])) and provider_id like '%-%-%-%-%';

-- name: by_rfc_ids
-- Messages by Message-ID: a scan, for the few mails that bring no return path of ours.
select message_id, rfc_message_id
from messages
where rfc_message_id = any(cast(:rfc_message_ids as text[]));

-- name: lock_messages
-- The messages some notices are about, locked in order, with the address each one went to.
select
    messages.contact_id, messages.message_id, messages.kind, messages.campaign_id,
    messages.workflow_id, messages.status, messages.attempt_id, messages.sent_at, messages.to_email,
    contacts.email, coalesce(earlier.email_key, contacts.email_key) as email_key
from messages
left join contacts on contacts.contact_id = messages.contact_id
left join lateral (
    select contact_history.email_key
    from contact_history
    where contact_history.contact_id = messages.contact_id
        and contact_history.valid_from <= coalesce(messages.sent_at, messages.bounced_at)
        and contact_history.valid_to > coalesce(messages.sent_at, messages.bounced_at)
    order by contact_history.version desc
    limit 1
) as earlier on true
where messages.message_id = any(cast(:message_ids as bigint[]))
order by messages.message_id
for update of messages;

-- name: apply
-- Moves messages up the lattice sent < delivered < bounced < complained; says what became known just now.
with told as materialized (
    select *
    from jsonb_to_recordset(cast(:told as jsonb)) as given (
        contact_id bigint, message_id bigint, effect int, delivered_at timestamptz,
        bounced_at timestamptz, complained_at timestamptz, reason text, diagnostic text
    )
),
before as materialized (
    select
        messages.contact_id, messages.message_id, messages.delivered_at, messages.bounced_at,
        messages.complained_at, messages.reason,
        case messages.status
            when 'sent' then 1
            when 'delivered' then 2
            when 'bounced' then 3
            when 'complained' then 4
        end as effect
    from messages
    inner join told
        on told.contact_id = messages.contact_id and told.message_id = messages.message_id
    where messages.status in ('sent', 'delivered', 'bounced', 'complained')
        and messages.sent_at is not null
    for update of messages
),
decided as (
    select
        before.contact_id, before.message_id, told.diagnostic,
        greatest(before.effect, told.effect) as effect,
        told.bounced_at is not null and (
            before.bounced_at is null
            or (before.reason = 'soft' and told.reason = 'hard')
            or (before.reason = 'blocked' and told.reason in ('hard', 'soft'))
        ) as is_graver,
        told.reason,
        least(before.delivered_at, told.delivered_at) as delivered_at,
        least(before.bounced_at, told.bounced_at) as bounced_at,
        least(before.complained_at, told.complained_at) as complained_at,
        before.delivered_at is null and told.delivered_at is not null as is_delivered,
        before.bounced_at is null and told.bounced_at is not null as is_bounced,
        before.complained_at is null and told.complained_at is not null as is_complained
    from before
    inner join told
        on told.contact_id = before.contact_id and told.message_id = before.message_id
)
update messages
set status = (array['sent', 'delivered', 'bounced', 'complained'])[decided.effect],
    reason = case when decided.is_graver then decided.reason else messages.reason end,
    last_error = case
        when decided.is_graver then nullif(decided.diagnostic, '') else messages.last_error
    end,
    delivered_at = decided.delivered_at,
    bounced_at = decided.bounced_at,
    complained_at = decided.complained_at
from decided
where messages.contact_id = decided.contact_id and messages.message_id = decided.message_id
returning
    messages.contact_id, messages.message_id, messages.campaign_id, messages.workflow_id,
    messages.kind, messages.to_email, messages.depth,
    (select contacts.email from contacts where contacts.contact_id = messages.contact_id) as email,
    decided.delivered_at, decided.bounced_at, decided.complained_at,
    decided.is_delivered, decided.is_bounced, decided.is_complained;

-- name: soft_rows
-- How many messages in a row, up to the newest that bounced softly, did not arrive at some addresses.
with people as (
    select contact_id, cast(null as text) as to_key
    from unnest(cast(:contact_ids as bigint[])) as given (contact_id)
    union all
    select 0, to_key
    from unnest(cast(:to_keys as text[])) as given (to_key)
),
history as (
    select
        people.contact_id, people.to_key,
        past.status = 'bounced' and past.reason = 'soft' as is_soft
    from people
    cross join lateral (
        select messages.status, messages.reason, messages.sent_at, messages.message_id
        from messages
        where messages.contact_id = people.contact_id
            and (people.to_key is null or messages.to_key = people.to_key)
            and messages.sent_at is not null
            and messages.sent_at <= (
                select max(newest.sent_at)
                from messages as newest
                where newest.contact_id = people.contact_id
                    and (people.to_key is null or newest.to_key = people.to_key)
                    and newest.status = 'bounced' and newest.reason = 'soft'
            )
            and not (messages.status = 'bounced' and messages.reason = 'blocked')
        order by messages.sent_at desc, messages.message_id desc
        limit cast(:most as int)
    ) as past
)
select contact_id, to_key, count(*) as row_length
from history
group by contact_id, to_key
having count(*) = cast(:most as int) and bool_and(is_soft);

-- name: settle_notices
-- Writes what became of notices: settled, or to be looked at again.
update provider_notices
set status = given.status, kind = given.kind, detail = given.detail, message_id = given.message_id,
    look_count = provider_notices.look_count + 1, next_look_at = given.next_look_at,
    settled_at = case when given.next_look_at is null then cast(:now as timestamptz) end
from jsonb_to_recordset(cast(:outcomes as jsonb)) as given (
    notice_id bigint, status text, kind text, detail text, message_id bigint,
    next_look_at timestamptz
)
where provider_notices.notice_id = given.notice_id;

-- name: campaigns_of
-- Campaigns some messages belong to, as far as their figures are counted.
select distinct messages.campaign_id
from messages
inner join campaign_totals on campaign_totals.campaign_id = messages.campaign_id
where messages.message_id = any(cast(:message_ids as bigint[]));

-- name: put_aside
-- A notice that cannot be applied is looked at again in an hour, and given up after three days.
update provider_notices
set look_count = look_count + 1, detail = 'cannot be applied',
    status = case
        when received_at < cast(:now as timestamptz) - interval '3 days' then 'ignored'
        else 'parked'
    end,
    next_look_at = case
        when received_at < cast(:now as timestamptz) - interval '3 days' then null
        else cast(:now as timestamptz) + interval '1 hour'
    end,
    settled_at = case
        when received_at < cast(:now as timestamptz) - interval '3 days'
            then cast(:now as timestamptz)
    end
where notice_id = cast(:notice_id as bigint) and next_look_at is not null;

-- name: forget_notices
-- Removes notices settled before a moment; what they did is in the ledger and in events.
delete from provider_notices
where settled_at < cast(:older_than as timestamptz);
