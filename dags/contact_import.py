"""Take queued contact files into the warehouse, every row accounted for.

**What it does.** Claims each import that waits (an upload through the API, or the file named in the form: on the
worker's disk, or `s3://bucket/key`), copies the rows into staging, checks, de-duplicates and merges them in set-based
statements, and keeps every row it did not take with line, column and reason (`import_rejects`,
`GET /api/v1/imports/{id}/errors.csv`). Each import that changed contacts is an event of the asset `mauto/contacts`
with its counts. Two runs work side by side.

**When it runs.** Within seconds of an upload's commit; every ten minutes for a notification that was lost.

**Safe to run again.** Yes: at any time, twice at once, after a kill. A worker that died loses its lease, and the import
goes on behind its last checkpoint; the result is the same. A file named in the form is imported once by a run,
however often its task is tried.

**A failure means** that the warehouse or S3 was away, or that the file named in the form could not be read as a whole
(no e-mail column, unknown encoding, no such object, access refused). An upload that cannot be read does not fail the
run: its import says why.
"""

from airflow.sdk import Param, dag, task

from mauto_airflow import conventions, runs

QUEUE = conventions.queue("imports", channel="mauto_imports", due_statement="imports_due", hold_off_seconds=1)
PARAMS = {
    "import_id": conventions.optional_id("Import", "Only this queued import; empty: all that wait."),
    "path": Param(
        None,
        type=["null", "string"],
        title="File",
        description="A .csv or .csv.gz file: a path on the worker, or s3://bucket/key.",
    ),
    "mapping": Param({}, type="object", title="Mapping", description='Header to field: {"Mail": "email"}.'),
    "update_policy": Param(
        "skip",
        enum=["skip", "fill_empty", "merge", "overwrite"],
        title="Known contacts",
        description="What a row does to a contact that exists.",
    ),
    "preset": Param(
        "auto",
        enum=["auto", "none", "shopify", "woocommerce", "mailchimp", "klaviyo"],
        title="Preset",
        description="Whose export it is.",
    ),
    "options": Param({}, type="object", title="Options", description='Others: {"subscribed_default": false}.'),
    "dry_run": conventions.dry_run("Check and count the file, change nothing."),
}


@dag(
    schedule=conventions.on_queue(QUEUE),
    params=PARAMS,
    **conventions.house(__doc__, tags={"contacts", "event-driven"}),
)
def contact_import():
    @task(pool="bulk", outlets=[conventions.IMPORTED])
    def take_imports(params, run_id, outlet_events):
        return runs.take_imports(params, run_id, outlet_events[conventions.IMPORTED])

    take_imports()


contact_import()
