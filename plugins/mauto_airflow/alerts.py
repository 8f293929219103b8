"""What Airflow tells an operator: a task gave up, a night is late, webhooks were disabled; and that a run ended well.

Runs in workers (failures, ends) and in the triggerer (deadlines). It never raises: an alert must not hide what it is
about. What an error says stays in the task's log, since it may quote somebody's data; the alert has its class.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mauto_airflow import moments
from mauto_airflow.warehouse import CONNECTION_ID
from mautolib.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

_LOG = logging.getLogger(__name__)
#: Of one run: what has not ended, or not well.
_NOT_WELL = ["null", "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred",
             "failed", "upstream_failed"]  # fmt: skip


def report_failure(context: Any) -> None:
    """Called by Airflow when a task has used up its tries."""
    task = context["task_instance"]
    kind = type(context.get("exception")).__name__
    _tell(
        f"dag_failed.{task.dag_id}.{task.task_id}",
        f"{task.dag_id}.{task.task_id} failed: {kind}, try {task.try_number}",
        f"nothing is half done: read the log of run {task.run_id} in Airflow, mend the cause and clear the task, or "
        "trigger the DAG again",
    )


async def report_missed_deadline(dag_id: str, **_: Any) -> None:
    """Called by Airflow's triggerer when a nightly DAG is not done in time."""
    import asyncio

    from airflow.sdk import BaseHook

    url = ""
    try:
        url = (await BaseHook.aget_connection(CONNECTION_ID)).get_uri()
    except Exception:  # noqa: BLE001 - without the connection it goes out directly
        _LOG.exception("the warehouse's connection could not be read")
    words = (f"dag_deadline.{dag_id}", f"{dag_id} was not done in time", "look at its runs in Airflow")
    await asyncio.to_thread(_tell, *words, url=url)


def report_disabled(reasons: Mapping[int, str]) -> None:
    """Called by a task that disabled endpoints of webhooks."""
    advice = "what waits for it is kept 30 days and goes out once it is active again"
    for endpoint_id, reason in reasons.items():
        what = f"webhook {endpoint_id} was disabled: {reason}"
        _tell(f"webhook_disabled.{endpoint_id}", what, advice, stays=False)


def note_success(context: Any) -> None:
    """Called by Airflow when a task has ended well: the last one of a run says that the DAG lives.

    A dry run, a run about the past and what an asset asks of a nightly DAG prove nothing about its schedule.
    """
    from mautolib.maintenance import heartbeat

    try:
        if _is_well(context) and (engine := _opened()) is not None:
            try:
                with engine.begin() as tx:
                    heartbeat(tx, f"airflow.{context['task_instance'].dag_id}", moments.now())
            finally:
                engine.dispose()
    except Exception:  # noqa: BLE001 - a run that ended well stays one
        _LOG.exception("the end of the run could not be noted")


def _is_well(context: Any) -> bool:
    task = context["task_instance"]
    if context["params"].get("dry_run") or moments.is_past(context):
        return False
    if "nightly" in context["dag"].tags and moments.is_asked_for_by_asset(context):
        return False
    return int(task.get_ti_count(dag_id=task.dag_id, run_ids=[task.run_id], states=_NOT_WELL)) == 0


def _tell(name: str, summary: str, advice: str, *, url: str = "", stays: bool = True) -> None:
    from mautolib.maintenance import Finding, alerts

    engine = None
    try:
        settings, engine = Settings.from_env(), _opened(url)
        alerts.report(
            engine, settings, Finding(name=name, summary=summary, advice=advice), now=moments.now(), stays=stays
        )
    except Exception:  # noqa: BLE001 - see the promise
        _LOG.exception("an alert could not be given")
    finally:
        if engine is not None:
            engine.dispose()


def _opened(url: str = "") -> Engine | None:
    """An engine of the warehouse; None where it cannot be said where that is."""
    from airflow.sdk import BaseHook

    from mautolib.db.engine import connect

    try:
        own = url or BaseHook.get_connection(CONNECTION_ID).get_uri()
        return connect(own, application_name="mauto-alerts", pool_size=1)
    except Exception:  # noqa: BLE001 - whatever the reason
        _LOG.warning("the connection %s cannot be read", CONNECTION_ID)
        return None
