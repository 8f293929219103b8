"""Keep the warehouse in order: partitions ahead of time, search index, retention, remains of imports, erasures, ledger.

**What it does.** Makes the monthly partitions of the coming months, indexes new contacts for searching, drops raw hits,
expired tokens and old idempotency keys that are past their time, drops the staged rows and files of imports whose
worker was killed at the very end, takes erased people out of every store, and about once a day checks the send ledger:
findings are in the log and told as an alert.

**When it runs.** Hourly, and within seconds of an erasure.

**Safe to run again.** Yes: what is there is not made twice, what is gone is not missed.

**A failure means** that the warehouse was away or a right is missing; partitions are made months ahead, so one failed
run does no harm; an erasure is tried again after an hour.
"""

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, Param, dag, task

from mauto_airflow import conventions, runs

QUEUE = conventions.queue("erasures", channel="mauto_erasures", due_statement="erasures_due", hold_off_seconds=5)
PARAMS = {
    "task": Param(
        None, type=["null", "string"], enum=[None, *runs.MAINTENANCE_TASKS], title="Task", description="Only this one."
    )
}


@dag(
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("20 * * * *", timezone="UTC"), assets=[QUEUE]),
    params=PARAMS,
    **conventions.house(__doc__, tags={"operations", "hourly"}),
)
def maintenance():
    @task(pool="warehouse")
    def keep_in_order(params):
        return runs.keep_in_order(params)

    keep_in_order()


maintenance()
