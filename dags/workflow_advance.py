"""Let every new event take effect once, then move every enrollment that is due.

**What it does.** Dispatches new events in order per contact (workflow triggers), then advances due enrollments set by
set. A step does no input or output of its own: an e-mail step queues a message, and `campaign_send` sends it.

**When it runs.** Within seconds of an event's commit (several at once are one run), when a delay ends, and every ten
minutes for a lost notification.

**Safe to run again.** Yes: an event is dispatched and forgotten in one transaction, a step is logged once per visit.

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

    advance(dispatch())


workflow_advance()
