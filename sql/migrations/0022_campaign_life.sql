-- Campaign life: the newest messages of a campaign without sorting all of them, and test mails to the team's own
-- addresses, which only a complaint or a legal reason forbids: who looks for the cause of bounces sends tests.

create index messages_by_campaign_state on messages (campaign_id, status, message_id)
    where campaign_id is not null;
drop index messages_by_campaign;

-- What somebody waits for is claimed before everything else, however much other mail was due earlier.
create index messages_people_wait_for on messages (next_try_at, message_id)
    where status = 'queued' and kind in ('transactional', 'confirmation', 'test', 'internal');

create or replace view message_refusals as
select
    messages.contact_id, messages.message_id, messages.kind, person.consent_status,
    case
        when messages.kind = 'internal' then null
        when messages.kind = 'test' then
            case when blocked.reason in ('complaint', 'compliance') then 'suppressed' end
        when messages.contact_id = 0 then
            case when blocked.reason in ('bounce', 'complaint', 'compliance') then 'suppressed' end
        when person.contact_id is null then 'erased'
        when messages.kind in ('campaign', 'workflow', 'automation') then person.refusal
        when person.suppression_reason in ('bounce', 'complaint', 'compliance') then 'suppressed'
        when octet_length(person.email) > 254 then 'invalid_address'
    end as refusal
from messages
left join contact_mailability as person on person.contact_id = messages.contact_id
left join suppressed_addresses as blocked
    on messages.contact_id = 0 and blocked.email_key = messages.to_key;
