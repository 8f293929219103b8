"""Apply what came back: notices of the provider and bounce mails, to message states and the suppression list.

**What it does.** Reads the bounce mailbox, applies every stored notice to the message it is about (complaint > bounce >
delivery > sent, in whatever order they came), suppresses hard bounces and complaints, turns expired leases into doubts
and settles doubts by evidence. Beside that the watchdog looks for what is stuck, late or missing, returns leases that
ran out, and tells who is set to get alerts: once when it begins, once when it is over. With a day in
`recompute_verdicts` it first judges the opens and clicks since then again, by the present rules and with all that came
together: figures follow, scores and workflows do not.

**When it runs.** Within seconds of a notice, and every five minutes for the mailbox and for a lost notification.

**Safe to run again.** Yes: a notice is stored once by its id and takes effect once; a mail is marked as read only after
it was stored, and one that cannot be read is put aside, never deleted.

**A failure means** that the bounce mailbox cannot be opened (everything else was done before), or that the warehouse
was away; nothing is lost either way.
"""

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task

from mauto_airflow import conventions, runs, watching

PARAMS = {
    "recompute_verdicts": conventions.optional_day(
        "Recompute verdicts", "Judge opens and clicks since this day again (people or machines?); empty: none."
    ),
}
QUEUE = conventions.queue("feedback", channel="mauto_feedback", due_statement="feedback_due", hold_off_seconds=5)


@dag(
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("*/5 * * * *", timezone="UTC"), assets=[QUEUE]),
    params=PARAMS,
    **conventions.house(__doc__, tags={"mail", "event-driven"}),
)
def feedback_processing():
    @task(pool="warehouse", outlets=[conventions.FEEDBACK])
    def process(outlet_events, params):
        return runs.process_feedback(params, outlet_events[conventions.FEEDBACK])

    @task
    def watch():
        return watching.watch()

    process()
    watch()


feedback_processing()
