-- Activity is written week by week: with the week first, the rows of a refresh stand side by side in the table and in its
-- key, which also finds weeks. One person's weeks are found by skipping through them.

drop index analytics.contact_period_activity_by_week;
alter table analytics.contact_period_activity
    drop constraint contact_period_activity_pkey,
    add primary key (week_start, contact_id);
