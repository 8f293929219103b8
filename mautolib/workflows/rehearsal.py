"""Trying a workflow before it starts: whom its trigger would let in, and what would happen to one of them.

Promise: nothing is written. The steps are really taken, through all waits, in a transaction that is taken back; what
is said of them is what would happen if nothing else happens meanwhile. For people who draw up workflows; called from
Python (docs/workflows.md). What the next run of the DAG would do is told by its own dry run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine

from mautolib.campaigns.walltime import UTC_ZONE, local_of, moment_of, zone_or
from mautolib.db.statements import statement
from mautolib.settings import Settings
from mautolib.workflows import enrollment, reading, store, triggers
from mautolib.workflows.arrivals import month_days
from mautolib.workflows.enrollment import SIGNUP_AGE
from mautolib.workflows.model import Enrollment, EnrollmentStatus, LogStatus, ReEntryPolicy, Workflow
from mautolib.workflows.moving import Batch

#: How far is looked back for events and carts, and ahead for days.
PERIOD: Final = timedelta(days=30)
#: A definition has at most 200 steps, and nobody waits twice at one.
_MOST_WAITS: Final = 250


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One step the person would take.

    Args:
        at: when, if nothing else happens.
    """

    path: str
    status: LogStatus
    at: datetime
    result: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a workflow would do.

    Args:
        would_enter: people whom events or carts of the last 30 days would have let in, or the clock would let in
            within the next 30; those whom re-entry keeps out now are not counted.
        contact_id: whose way is told; None: nobody's.
        status: how it ends; with `exit_reason`.
    """

    workflow_id: int
    version: int
    would_enter: int
    contact_id: int | None
    steps: tuple[Taken, ...]
    status: EnrollmentStatus
    exit_reason: str | None


def rehearse(
    engine: Engine, settings: Settings, workflow_id: int, *, now: datetime, contact_id: int | None = None,
    context: Mapping[str, Any] | None = None,
) -> Rehearsal:  # fmt: skip
    """Say whom a workflow would let in, and what would happen to one contact; works on inactive workflows.

    Args:
        contact_id: whose way to tell; None: the last one who would have been let in, or nobody.
        context: what let them in; None: the properties of that event.
    Raises:
        NotFound: no such workflow or contact.
    """
    with engine.connect() as tx, tx.begin() as transaction:
        workflow = store.get(tx, workflow_id)
        people, sample, found = _entrants(tx, settings, workflow, now)
        if contact_id is None:
            contact_id, context = sample, found if context is None else context
        done = enrollment.trigger(tx, settings, workflow_id, contact_id=contact_id, context=context, now=now)
        ended = _go_through(tx, settings, done.enrollment, now)
        rows = tx.execute(statement("workflow_rehearsal.way"), {"enrollment_id": ended.enrollment_id}).all()
        transaction.rollback()
    steps = tuple(
        Taken(path=row.step_path, status=LogStatus(row.status), at=row.created_at, result=row.result) for row in rows
    )
    return Rehearsal(
        workflow_id=workflow_id, version=workflow.version, would_enter=people, contact_id=contact_id, steps=steps,
        status=ended.status, exit_reason=ended.exit_reason,
    )  # fmt: skip


def _go_through(tx: Connection, settings: Settings, begun: Enrollment, now: datetime) -> Enrollment:
    """Let one enrollment wait until each of its moments, one after the other."""
    values = {"contact_id": begun.contact_id, "enrollment_id": begun.enrollment_id}
    found, moment = begun, now
    for _ in range(_MOST_WAITS):
        found = reading.enrollment(tx, begun.workflow_id, begun.enrollment_id)
        if found.status is not EnrollmentStatus.WAITING or found.resume_at is None:
            break
        moment = max(moment, found.resume_at)
        groups = tx.execute(statement("workflow_rehearsal.claim"), values).all()
        Batch(tx, settings, moment, {}).move(groups)
    return found


def _entrants(
    tx: Connection, settings: Settings, workflow: Workflow, now: datetime
) -> tuple[int, int | None, Mapping[str, Any] | None]:
    """How many would enter; one of them, and what would have let them in."""
    trigger, _ = triggers.read(workflow.trigger_type, workflow.trigger_config, active=False)
    question = _question(trigger, settings, now)
    if question is None:
        return 0, None, None
    name, asked = question
    values = {
        "workflow_id": workflow.workflow_id, "now": now, "since": now - PERIOD,
        "policy": workflow.re_entry.get("policy", ReEntryPolicy.AFTER_EXIT),
        "cooldown_hours": workflow.re_entry.get("cooldown_hours"), **asked,
    }  # fmt: skip
    row = tx.execute(statement(f"workflow_rehearsal.{name}"), values).one()
    return row.people, row.contact_id, row.context


def _question(trigger: triggers.Trigger, settings: Settings, now: datetime) -> tuple[str, dict[str, Any]] | None:
    """The statement that finds who would enter, with its values; None: nobody by themselves."""
    any_event: dict[str, Any] = {"wanted": "{}", "tag_name": None, "source": None, "event_source": None}
    match trigger:
        case triggers.Signup(source=source):
            recent = {"since": now - SIGNUP_AGE}
            return "by_events", {**any_event, **recent, "event_type": "contact_created", "source": source}
        case triggers.TagAdded(tag_name=tag_name):
            return "by_events", {**any_event, "event_type": "tag_added", "tag_name": tag_name}
        case triggers.SegmentEntered(segment_id=int(segment_id)):
            wanted = json.dumps({"segment_id": str(segment_id)})
            return "by_events", {**any_event, "event_type": "segment_entered", "wanted": wanted}
        case triggers.Event(event_type=str(event_type), where=where):
            return "by_events", {**any_event, "event_type": event_type, "wanted": json.dumps(dict(where))}
        case triggers.Webhook(source_id=source_id):
            source = None if source_id is None else f"inbound:{source_id}"
            return "by_events", {**any_event, "event_type": "", "event_source": source}
        case triggers.CartAbandoned(after_minutes=minutes, min_total=least):
            return "by_carts", {"after_minutes": minutes, "min_total": least or 0}
        case triggers.Date(on=on, at=at) if on is not None:
            zone = zone_or(settings.default_timezone, UTC_ZONE)
            moment = moment_of(datetime.combine(on, at), zone)
            return ("by_days", {"field": "", "month_days": []}) if now < moment <= now + PERIOD else None
        case triggers.Anniversary(field=str(name), offset_days=offset):
            first = local_of(now, zone_or(settings.default_timezone, UTC_ZONE)).date() - timedelta(days=offset)
            days = [first + timedelta(days=number) for number in range(PERIOD.days)]
            return "by_days", {"field": name, "month_days": [text for day in days for text in month_days(day)]}
        case _:
            return None
