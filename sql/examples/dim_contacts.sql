-- People [erased](privacy.md) on request are no longer here; [erased_contacts](#erased_contacts) counts them.

-- Who is where in the life cycle, and how engaged?
select
    lifecycle_stage, count(*) as contacts, round(avg(total_score)::numeric, 1) as mean_score
from dim_contacts
group by lifecycle_stage
order by contacts desc;

-- Where do contacts live, and how many of them may be mailed?
select
    country, count(*) as contacts,
    count(*) filter (where is_subscribed and not is_suppressed) as mailable
from dim_contacts
group by country
order by contacts desc
limit 5;
