-- A month that is not over has no `active_customers`; its orders and revenue are those so far.

-- Who bought again, and for how much?
select
    cohort_month, cohort_customers, month_offset, active_customers, retention_rate,
    cumulative_revenue
from order_cohorts
where month_offset <= 3
order by cohort_month, month_offset;

-- The same over all cohorts, months that are over only.
select
    month_offset,
    round(100.0 * sum(active_customers) / sum(cohort_customers), 1) as percent_active,
    round(sum(cumulative_revenue) / sum(cohort_customers), 2) as revenue_per_customer
from order_cohorts
where is_complete
group by month_offset
order by month_offset;
