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
