-- Sign-ups by month as they were before anybody was erased.
select signup_month, count(*)
from (
    select signup_month from dim_contacts
    union all
    select signup_month from erased_contacts
) as people
group by signup_month
order by signup_month;

-- How many people asked to be erased?
select date_trunc('month', erased_on)::date as month, country, count(*) as people
from erased_contacts
group by 1, 2
order by 1, 2;
