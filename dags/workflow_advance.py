"""Let every new event take effect once, then move every enrollment that is due; evaluate segments beside it.

**What it does.** Dispatches new events in order per contact (workflow triggers, waits, goals), lets people enter whose
cart was left or whose day has come, then advances due enrollments set by set. A step does no input or output of its
own: an e-mail step queues a message, and `campaign_send` sends it. Beside that it evaluates the segments that were
asked for or are due again; who joins one is an event for the next run.

**When it runs.** Within seconds of an event's commit (several at once are one run), when a delay ends or a day comes,
when a segment is due (15 minutes after its last evaluation), and every ten minutes for a lost notification.

**Safe to run again.** Yes: an event is dispatched and forgotten in one transaction, a step is logged once per visit,
and an evaluation only writes what has changed.

**A failure means** that the warehouse was away; the events wait.
"""

from airflow.sdk import dag, task

from mauto_airflow import conventions, runs

QUEUE = conventions.queue("events", channel="mauto_events", due_statement="events_due", hold_off_seconds=5)
PARAMS = {
    "workflow_id": conventions.optional_id("Workflow", "Advance only this workflow; empty: all."),
    "dry_run": conventions.dry_run("Say who would move where, change nothing."),
}


@dag(
    schedule=conventions.on_queue(QUEUE),
    params=PARAMS,
    **conventions.house(__doc__, tags={"workflows", "event-driven"}),
)
def workflow_advance():
    @task(pool="warehouse")
    def dispatch(params):
        return runs.dispatch_events(params)

    @task(pool="warehouse", outlets=[conventions.ENROLLMENTS])
    def advance(dispatched, params, outlet_events):
        return runs.advance_workflows(params, outlet_events[conventions.ENROLLMENTS])

    @task(pool="warehouse")
    def segments(params):
        return runs.evaluate_segments(params)

    advance(dispatch())
    segments()


workflow_advance()
