-- A period is 1, 7 or 30 days; active means a human open or click.

-- Of those who signed up in a month, how many came back?
select cohort_label, cohort_size, period_offset, active_count, retention_rate
from contact_cohorts
where granularity = 'month' and period_offset <= 3
order by cohort_start, period_offset;

-- How many are active in their first weeks, all cohorts together?
select
    period_offset, round(100.0 * sum(active_count) / sum(cohort_size), 1) as percent_active
from contact_cohorts
where granularity = 'week' and is_complete and period_offset <= 4
group by period_offset
order by period_offset;
