-- All ten stages on every day. `contacts` of a stage is what it was, plus who came, minus who went (people erased meanwhile
-- apart). Days scored since are restated by `cohort_analytics`, days from `from` to `to`, or all with `rebuild`.

-- Where is everybody now?
select stage, contacts, contact_share, entered, departed, median_days_in_stage, avg_score
from lifecycle_funnel
where as_of = (select max(as_of) from lifecycle_funnel)
order by stage_order;

-- Who became a customer, week by week?
select date_trunc('week', as_of)::date as week, sum(entered) as new_customers
from lifecycle_funnel
where stage = 'customer'
group by week
order by week;
