"""Entering a workflow: by events, for whole batches at once, or by hand for one person.

Promise: one cause enrols once (`entry_key`), re-entry policies hold, and every entry is a fact for webhooks. Called by
dispatch (events) and the API (`trigger`). What happened to one person takes effect in its order.
It moves nobody, except that `trigger` runs the first steps.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, insert, select

from mautolib import contacts, outbox
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.events import chains
from mautolib.events.types import SYNONYMS
from mautolib.settings import Settings
from mautolib.workflows import advancement, store
from mautolib.workflows.model import Enrollment, EnrollmentStatus
from mautolib.workflows.steps.step import array_of

#: A contact that was created longer ago is somebody's history (an import with its dates), not a sign-up.
SIGNUP_AGE: Final = timedelta(days=7)
_SYNONYMS: Final = json.dumps({name: str(kind) for name, kind in SYNONYMS.items()})


@dataclass(frozen=True, kw_only=True)
class EntryResult:
    """What a batch of events did: enrollments begun, ended, and to be looked at again."""

    entered: int = 0
    exited: int = 0
    woken: int = 0


@dataclass(frozen=True, kw_only=True)
class Triggered:
    """An enrollment begun by hand, and the results of the steps that ran at once."""

    enrollment: Enrollment
    results: Sequence[Mapping[str, Any]]


def take_events(
    tx: Connection,
    event_ids: Sequence[int],
    occurred_ats: Sequence[datetime],
    depths: Sequence[int] = (),
    *,
    now: datetime,
) -> EntryResult:
    """Let events end and begin enrollments and wake those that wait, for each person in the order they happened.

    Args:
        event_ids, occurred_ats, depths: the events as parallel columns; without depths all came from outside.
    """
    batch = {
        "event_ids": array_of(event_ids),
        "occurred_ats": "{" + ",".join(moment.isoformat() for moment in occurred_ats) + "}",
        "depths": array_of(depths or [0] * len(event_ids)),
    }
    common = {"now": now, "synonyms": _SYNONYMS}
    entered = exited = 0
    for row in tx.execute(statement("workflows.rank_events"), {**batch, **common}).all():
        part = {"event_ids": row.event_ids, "occurred_ats": row.occurred_ats, **common}
        exited += len(tx.execute(statement("workflows.exit_on_events"), part).all())
        exited += tx.execute(statement("workflows.order_carts"), part).rowcount
        part |= {"depths": row.depths, "most_links": chains.MOST_LINKS}
        values = {**part, "signups_since": now - SIGNUP_AGE}
        entered += tx.execute(statement("workflows.enroll_on_events"), values).rowcount
        tx.execute(statement("workflows.touch_carts"), part)
    woken = tx.execute(statement("workflows.wake_on_events"), {**batch, **common}).rowcount
    return EntryResult(entered=entered, exited=exited, woken=woken)


def trigger(
    tx: Connection,
    settings: Settings,
    workflow_id: int,
    *,
    contact_id: int | None,
    context: Mapping[str, Any] | None = None,
    now: datetime,
) -> Triggered:
    """Enrol one contact (or nobody) by hand, past activity and re-entry, and run the steps up to the first wait.

    Raises:
        NotFound: no such workflow or contact.
    """
    # Held: whoever deletes the workflow waits, and then ends this enrollment too.
    workflow = store.hold(tx, workflow_id)
    if contact_id is not None:
        # Nobody deletes the contact before the enrollment is there to go with it.
        tx.execute(statement("contacts.hold_existing"), {"contact_ids": [contact_id]})
        contacts.get(tx, contact_id)
    person = contact_id or 0
    values = {
        "workflow_id": workflow_id,
        "version": workflow.version,
        "contact_id": person,
        "entry_key": f"manual:{uuid.uuid4()}",
        "resume_at": now,
        "context": dict(context or {}),
        "caused_at": now,
        "entered_at": now,
    }
    table = tables.enrollments
    enrollment_id = tx.execute(insert(table).values(**values).returning(table.c.enrollment_id)).scalar_one()
    data = {"workflow_id": str(workflow_id), "enrollment_id": str(enrollment_id), "contact_id": str(person)}
    outbox.record(tx, outbox.FactName.WORKFLOW_TRIGGERED, data, occurred_at=now)
    advancement.begin(tx, settings, enrollment_id, person, now=now)
    return Triggered(enrollment=get(tx, enrollment_id, person), results=results_of(tx, enrollment_id))


def get(tx: Connection, enrollment_id: int, contact_id: int) -> Enrollment:
    """The enrollment of a contact (0: nobody)."""
    table = tables.enrollments
    query = select(table).where(table.c.contact_id == contact_id, table.c.enrollment_id == enrollment_id)
    row = tx.execute(query).one()
    return Enrollment(
        enrollment_id=row.enrollment_id, workflow_id=row.workflow_id, version=row.version, contact_id=row.contact_id,
        status=EnrollmentStatus(row.status), step_path=row.step_path, resume_at=row.resume_at,
        waiting_for=row.waiting_for, context=row.context,
        exit_reason=row.exit_reason, entered_at=row.entered_at, finished_at=row.finished_at,
    )  # fmt: skip


def results_of(tx: Connection, enrollment_id: int) -> list[dict[str, Any]]:
    """The results of the steps an enrollment has visited, in order."""
    table = tables.workflow_logs
    query = select(table.c.result).where(table.c.enrollment_id == enrollment_id).order_by(table.c.log_id)
    return [dict(result) for result in tx.scalars(query)]
