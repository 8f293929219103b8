-- An order belongs to the last human click of the five days before it, else to the last human open of the day before it
-- (the windows of [attribution](#attribution)).

-- How did the campaigns do?
select campaign_name, delivered, unique_opens, open_rate, click_rate, unsubscribe_rate
from campaign_performance
where status = 'sent'
order by sent_at;

-- Is everybody accounted for? Zero when nothing is open.
select
    campaign_name, recipients - skipped - sent - failed - unknown as open_or_refused, orders,
    revenue, reporting_currency
from campaign_performance
where status = 'sent';
