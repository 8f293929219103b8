"""Keep the warehouse in order: partitions ahead of time, retention.

**What it does.** Makes the monthly partitions of the coming months, drops raw hits, expired tokens and old idempotency
keys that are past their time.

**When it runs.** Hourly.

**Safe to run again.** Yes: what is there is not made twice, what is gone is not missed.

**A failure means** that the warehouse was away or a right is missing; partitions are made months ahead, so one failed
run does no harm.
"""

from airflow.sdk import CronTriggerTimetable, Param, dag, task

from mauto_airflow import conventions, runs

PARAMS = {
    "task": Param(
        None, type=["null", "string"], enum=[None, *runs.MAINTENANCE_TASKS], title="Task", description="Only this one."
    )
}


@dag(
    schedule=CronTriggerTimetable("20 * * * *", timezone="UTC"),
    params=PARAMS,
    **conventions.house(__doc__, tags={"operations", "hourly"}),
)
def maintenance():
    @task(pool="warehouse")
    def keep_in_order(params):
        return runs.keep_in_order(params)

    keep_in_order()


maintenance()
