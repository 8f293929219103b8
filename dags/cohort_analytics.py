"""Bring the tables up to date that analysts and the dashboard read.

**What it does.** Counts again what changed since the last run: `analytics.contact_period_activity`,
`daily_email_metrics`, `deliverability_by_domain`, sign-up cohorts by day, week and month (who came back when) in
`contact_cohorts`, the tables of orders, both groups of the hold-out, and, for each day somebody was scored,
`score_distribution` and `lifecycle_funnel`. Cells whose period is not over yet are null, never a guess.

**When it runs.** Hourly, and right after the nightly scores.

**Safe to run again.** Yes: cells are counted from events, the ledger, snapshots and moves, never added to. `from` and
`to` say which days (sign-ups, activity, mail, scores) are restated, `rebuild` restates all. Where `MAUTO_LAKE_TARGET`
names a folder or bucket, what changed is then written there as Parquet (all days are looked at once a UTC day).

**A failure means** that the warehouse was away; the tables keep their last state. Of `export`, that the lake's folder
or bucket does not take files; what is there stays whole.
"""

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, Param, dag, task

from mauto_airflow import conventions, lake, runs

PARAMS = {
    "as_of": conventions.optional_moment("As of", "Compute as of this moment; empty: when the run is due."),
    "from": conventions.optional_day("From", "First day to restate, whatever has changed; empty: the first there is."),
    "to": conventions.optional_day("To", "Last such day; empty: today."),
    "rebuild": Param(False, type="boolean", title="Rebuild", description="Restate every cohort, week and day."),
}


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("5 * * * *", timezone="UTC"), assets=[conventions.SCORES]
    ),
    params=PARAMS,
    **conventions.house(__doc__, tags={"analytics", "hourly"}, timeout=timedelta(hours=1)),
)
def cohort_analytics():
    @task(pool="warehouse", outlets=[conventions.ANALYTICS])
    def refresh(outlet_events, **context):
        return runs.refresh_analytics(context, outlet_events[conventions.ANALYTICS])

    @task(pool="warehouse", task_id="export")
    def export_changes():
        return lake.export()

    refresh() >> export_changes()


cohort_analytics()
