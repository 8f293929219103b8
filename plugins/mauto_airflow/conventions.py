"""What every DAG of mauto has in common: owner, tags, retries, time-outs, assets, timetables.

A DAG file says `@dag(schedule=..., params=..., **house(__doc__, tags=...))`; tests/dags walks the DagBag and checks
that each one did.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias, AssetOrTimeSchedule, AssetWatcher, CronTriggerTimetable, Param

from mauto_airflow.alerts import note_success, report_failure
from mauto_airflow.failures import RETRY_POLICY
from mauto_airflow.watcher import QueueTrigger

OWNER = "mauto"
#: The one vocabulary of DAG tags: what it touches, and how it starts.
TAGS = frozenset(
    {"contacts", "mail", "workflows", "scores", "analytics", "operations", "event-driven", "nightly", "hourly"}
)
#: Long ago, so that a backfill may reach any day; nothing is caught up by itself.
START = datetime(2020, 1, 1, tzinfo=UTC)

CONTACTS = Asset("mauto/contacts", uri="mauto://contacts")
#: One event of `mauto/contacts` for each import that has changed contacts, none for a run that found nothing to do.
IMPORTED = AssetAlias("mauto/contacts/imported")
MESSAGES = Asset("mauto/messages", uri="mauto://messages")
ENROLLMENTS = Asset("mauto/enrollments", uri="mauto://enrollments")
SCORES = Asset("mauto/scores", uri="mauto://scores")
FEEDBACK = Asset("mauto/feedback", uri="mauto://feedback")
ANALYTICS = Asset("mauto/analytics", uri="mauto://analytics")


def queue(name: str, *, channel: str, due_statement: str, hold_off_seconds: float) -> Asset:
    """An asset that is "updated" whenever the warehouse queue behind it has work."""
    trigger = QueueTrigger(channel=channel, due_statement=due_statement, hold_off_seconds=hold_off_seconds)
    watcher = AssetWatcher(name=f"{name}_watcher", trigger=trigger)
    return Asset(f"mauto/queue/{name}", uri=f"mauto://queue/{name}", watchers=[watcher])


def on_queue(asset: Asset) -> AssetOrTimeSchedule:
    """Start when the queue has work, and every ten minutes for the notification that was lost."""
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable("*/10 * * * *", timezone="UTC"), assets=[asset])


def house(
    doc: str | None, *, tags: set[str], timeout: timedelta = timedelta(minutes=30), active_runs: int = 2
) -> dict[str, Any]:
    """The arguments of `@dag` for one of our DAGs.

    Args:
        doc: the DAG file's docstring; shown in the UI, first line as description.
        tags: from `TAGS`.
        timeout: how long one task may take.
        active_runs: how many runs there are at a time.
    Raises:
        ValueError: no docstring, or a tag outside the vocabulary.
    """
    if not doc or not tags <= TAGS:
        raise ValueError(f"a DAG needs a docstring and tags from {sorted(TAGS)}, not {sorted(tags - TAGS)}")
    defaults = {
        "owner": OWNER,
        "retries": 3,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=5),
        "retry_policy": RETRY_POLICY,
        "execution_timeout": timeout,
        "on_failure_callback": report_failure,
        "on_success_callback": note_success,
    }
    return {
        "description": doc.strip().splitlines()[0],
        "doc_md": doc,
        "tags": sorted(tags),
        "start_date": START,
        "catchup": False,
        "max_active_runs": active_runs,
        "default_args": defaults,
    }


def optional_id(title: str, text: str) -> Param:
    """A form field for an id that may stay empty."""
    return Param(None, type=["null", "integer"], minimum=1, title=title, description=text)


def optional_moment(title: str, text: str) -> Param:
    """A form field for a date and time that may stay empty."""
    return Param(None, type=["null", "string"], format="date-time", title=title, description=text)


def optional_day(title: str, text: str) -> Param:
    """A form field for a day that may stay empty."""
    return Param(None, type=["null", "string"], format="date", title=title, description=text)


def dry_run(text: str) -> Param:
    """The tick box for trying without effect."""
    return Param(False, type="boolean", title="Dry run", description=text)
