-- Written by `python -m mautolib.analytics.value_model` ([what customers will buy](customer-value.md)).

-- Worth a telephone call: much to expect, and probably slipping away.
select
    contact_id, repeat_orders, alive_probability, expected_orders, expected_revenue,
    reporting_currency
from predicted_value
where alive_probability < 0.5
order by expected_revenue desc
limit 50;

-- What is to be expected from each country?
select
    country, count(*) as customers, sum(expected_orders) as expected_orders,
    sum(expected_revenue) as expected_revenue, reporting_currency
from predicted_value
inner join dim_contacts using (contact_id)
group by country, reporting_currency
order by expected_revenue desc;
