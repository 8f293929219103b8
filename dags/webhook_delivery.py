"""Tell the endpoints that subscribed what happened.

**What it does.** Makes a delivery of each new fact for every active endpoint that listens to it, and attempts all that
are due: signed, to checked addresses only, each endpoint at its own pace. What fails is tried ten times over three
days, then kept as dead, to be replayed. An endpoint that keeps failing is disabled. With nothing due it ends at once.

**When it runs.** Within seconds of the commit that recorded a fact or asked for a replay, when a repetition is due,
and every ten minutes for a lost notification.

**Safe to run again.** Yes: several copies at once, a kill at any byte. What a dead run held is due again two minutes
later, under the same `webhook-id`, so that receivers can tell it from a new one.

**A failure means** that the database went away. A receiver that fails is not a failure of this DAG; see its deliveries.
"""

from airflow.sdk import dag, task

from mauto_airflow import conventions, runs

QUEUE = conventions.queue("webhooks", channel="mauto_webhooks", due_statement="webhooks_due", hold_off_seconds=2)
PARAMS = {"endpoint_id": conventions.optional_id("Endpoint", "Deliver only to this endpoint; empty: to all.")}


@dag(
    schedule=conventions.on_queue(QUEUE),
    params=PARAMS,
    **conventions.house(__doc__, tags={"operations", "event-driven"}, active_runs=1),
)
def webhook_delivery():
    @task(pool="transactional")
    def deliver(params):
        return runs.deliver_webhooks(params)

    deliver()


webhook_delivery()
