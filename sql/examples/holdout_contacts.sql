-- Whoever could be mailed at some time since the [hold-out](incrementality.md) began: the arm of the present share, or else of the last.

-- How large are the two arms?
select arm, count(*) as contacts
from holdout_contacts
group by arm;

-- Are both arms alike in what cannot be an effect of mail?
select
    country, count(*) filter (where arm = 'held_out') as held_out, count(*) as contacts
from holdout_contacts
inner join dim_contacts using (contact_id)
group by country
order by contacts desc;
