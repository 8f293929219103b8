-- The last one that was not refused is the one of [predicted_value](#predicted_value).

-- The fits so far, those that were refused among them.
select
    fitted_at, customers, refusal, value_refusal, check_expected_orders, check_actual_orders
from value_models
order by model_id desc;

-- How far off was each fit on the time it did not see?
select
    as_of, check_from, check_actual_orders,
    round((check_expected_orders / nullif(check_actual_orders, 0) - 1)::numeric, 3) as error
from value_models
where check_expected_orders is not null
order by as_of;
