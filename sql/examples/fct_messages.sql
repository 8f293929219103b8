-- The [send ledger](campaigns.md#the-ledger): campaigns, workflows, rules and single mails.

-- Who was mailed by the newest campaign, and why was somebody not?
select status, reason, count(*) as messages
from fct_messages
where campaign_id = (
    select campaign_id from dim_campaigns where sent_at is not null order by sent_at desc limit 1)
group by status, reason
order by messages desc;

-- Which mails did a contact get, or not get?
select kind, campaign_name, fct_messages.status, reason, due_at, fct_messages.sent_at
from fct_messages
left join dim_campaigns using (campaign_id)
where contact_id = (select min(contact_id) from dim_contacts)
order by due_at;

-- How fast is sending?
select date_trunc('minute', sent_at) as minute, kind, count(*) as messages
from fct_messages
where sent_at >= now() - interval '7 days'
group by 1, 2
order by 1;
