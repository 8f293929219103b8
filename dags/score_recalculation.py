"""Score every contact as of midnight and move the lifecycle stages.

**What it does.** Settles the moment and the version of the rules; then, for each bucket of contacts, folds the events
since the night before and computes engagement (rules, caps, half-life), profile, recency and grade of everybody, churn,
dormancy and the ladder. Writes `contact_scores`, `contact_stages` and append-only snapshots (`score_history`).
Beside that it works on recomputations asked for through the API, a day of the past at a time; they add snapshots.

**When it runs.** Nightly at 00:30 UTC, for the midnight before. `as_of` in the form computes any other moment; a
backfill (`airflow backfill create`) adds the snapshots of past days and leaves the current scores alone. Within seconds
of a recomputation's commit: such a run does nothing else.

**Safe to run again.** Yes: the same moment gives the same rows, and an event is folded once.

**A failure means** that the warehouse was away or refused; nothing of a bucket is half written.
"""

from datetime import timedelta

from airflow.sdk import (
    AssetOrTimeSchedule,
    AsyncCallback,
    CronDataIntervalTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    dag,
    task,
)

from mauto_airflow import conventions, runs
from mauto_airflow.alerts import report_missed_deadline

QUEUE = conventions.queue(
    "recomputations", channel="mauto_scores", due_statement="score_recomputations_due", hold_off_seconds=1
)
PARAMS = {
    "as_of": conventions.optional_moment("As of", "Score as of this moment; empty: the run's own midnight."),
    "rule_version": conventions.optional_id(
        "Rule version", "Compute with these rules and add snapshots only; empty: the newest rules."
    ),
    "buckets": Param(2, type="integer", minimum=1, maximum=64, title="Buckets", description="Parallel slices."),
    "dry_run": conventions.dry_run("Compute and count, write nothing."),
}
LATE = DeadlineAlert(
    reference=DeadlineReference.DAGRUN_QUEUED_AT,
    interval=timedelta(hours=2, minutes=30),
    callback=AsyncCallback(report_missed_deadline, {"dag_id": "score_recalculation"}),
)


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronDataIntervalTimetable("30 0 * * *", timezone="UTC"), assets=[QUEUE]
    ),
    params=PARAMS,
    deadline=LATE,
    **conventions.house(__doc__, tags={"scores", "nightly"}),
)
def score_recalculation():
    @task
    def settle(**context):
        return runs.settle_scores(context)

    @task(pool="warehouse", map_index_template="bucket {{ task.op_kwargs['part']['bucket'] }}")
    def recalculate(part, dag_run, params):
        return runs.recalculate_scores(part)

    @task(outlets=[conventions.SCORES])
    def publish(counts, outlet_events, **context):
        return runs.publish_scores(counts[:], context, outlet_events[conventions.SCORES])

    @task(pool="warehouse")
    def recompute(params):
        return runs.recompute_scores(params)

    publish(recalculate.expand(part=settle()))
    recompute()


score_recalculation()
