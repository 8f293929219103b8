"""Hand over every message that is due, each exactly as the ledger says.

**What it does.** First sends what people wait for (receipts, confirmations, tests), in a pool of its own, so that it
waits for no campaign and no import. Then plans campaigns that were asked for (freezes audience and content, one ledger
row a person), runs parallel senders that claim, hand over by SMTP and record in small groups, decides A/B tests whose
deadline is over (those who waited get what was decided), and closes campaigns with nothing left. A run with nothing of
that to do, or with two others at it already, ends after its first task.
Whatever queues messages - campaigns, workflows - this DAG sends them.

**When it runs.** Within seconds of the commit that queued something; every ten minutes for a lost notification.

**Safe to run again.** Yes: five copies at once, a kill at any byte. The ledger is the guard, not this DAG. A message
whose fate is not known after a crash is listed as `unknown` and never sent again by itself.

**A failure means** that the mail server refuses us as a whole; the messages stay queued and are tried again.
"""

from airflow.sdk import Param, dag, task

from mauto_airflow import conventions, runs

QUEUE = conventions.queue("messages", channel="mauto_messages", due_statement="messages_due", hold_off_seconds=2)
PARAMS = {
    "campaign_id": conventions.optional_id("Campaign", "Plan only this campaign; empty: all that are due."),
    "senders": Param(2, type="integer", minimum=1, maximum=32, title="Senders", description="Parallel senders."),
    "group_size": Param(
        50,
        type="integer",
        minimum=1,
        maximum=500,
        title="Group",
        description="Messages claimed and recorded in one transaction. A killed sender leaves one in doubt for each of "
        "its connections, a lost machine at most this many.",
    ),
    "dry_run": conventions.dry_run("Only count the audience, by reason; queue and send nothing."),
}


@dag(
    schedule=conventions.on_queue(QUEUE),
    params=PARAMS,
    **conventions.house(__doc__, tags={"mail", "event-driven"}, active_runs=4),
)
def campaign_send():
    @task.short_circuit(pool="transactional")
    def urgent(params, ti):
        return runs.send_urgent(params, ti)

    @task(pool="bulk")
    def plan(params):
        return runs.plan_campaigns(params)

    @task(pool="bulk", map_index_template="sender {{ task.op_kwargs['shard'] }}")
    def send(shard, params):
        return runs.send_messages(shard, params)

    @task(pool="transactional", outlets=[conventions.MESSAGES], trigger_rule="none_failed")
    def finish(results, outlet_events):
        return runs.finish_campaigns(results[:], outlet_events[conventions.MESSAGES])

    shards = plan()
    urgent() >> shards
    finish(send.expand(shard=shards))


campaign_send()
