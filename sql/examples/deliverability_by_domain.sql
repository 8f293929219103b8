-- Where does mail bounce?
select
    domain, sum(attempted) as attempted,
    round(100.0 * sum(hard_bounced + soft_bounced) / sum(attempted), 2) as bounce_rate
from deliverability_by_domain
group by domain
order by attempted desc
limit 10;

-- Delivered, complained and deferred by provider and day.
select
    day, mailbox_provider, sum(delivered) as delivered, sum(complained) as complained,
    sum(deferred) as deferred
from deliverability_by_domain
group by day, mailbox_provider
order by day, mailbox_provider;
