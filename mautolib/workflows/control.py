"""Taking one enrollment by the hand: pause it, let it go on, end it; and clearing up behind a deleted workflow.

Promise: whoever is being moved is waited for, and then stands where the move has put them; a paused enrollment is not
moved, and keeps when and for what it waits. Called by the API and by maintenance. The transitions stand in `_FROM`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, update

from mautolib.contacts.validation import is_storable
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, InvalidTransition
from mautolib.workflows import reading, store
from mautolib.workflows.model import Enrollment, EnrollmentStatus

_LOG = logging.getLogger(__name__)
_TABLE = tables.enrollments
_GOING: Final = (EnrollmentStatus.RUNNING, EnrollmentStatus.WAITING)
#: What may be done in which states.
_FROM: Final[Mapping[str, tuple[EnrollmentStatus, ...]]] = {
    "paused": _GOING,
    "resumed": (EnrollmentStatus.PAUSED,),
    "ended": (*_GOING, EnrollmentStatus.PAUSED),
}
_LONGEST_REASON: Final = 200
BY_HAND: Final = "by hand"


def pause(tx: Connection, workflow_id: int, enrollment_id: int) -> Enrollment:
    """Stop an enrollment where it stands. An event of `exit_on` still ends it.

    Raises:
        NotFound: no such workflow, or it has no such enrollment.
        InvalidTransition: it is paused already, or has ended.
    """
    before = _held(tx, workflow_id, enrollment_id, "paused")
    return _put(tx, before, status="paused", paused_from=str(before.status))


def resume(tx: Connection, workflow_id: int, enrollment_id: int, *, now: datetime) -> Enrollment:
    """Let a paused enrollment go on; what it waits for may have happened, and its moment may have passed meanwhile.

    Raises:
        NotFound: no such workflow, or it has no such enrollment.
        InvalidTransition: it is not paused.
    """
    before = _held(tx, workflow_id, enrollment_id, "resumed")
    values = {"contact_id": before.contact_id, "enrollment_id": enrollment_id, "now": now}
    tx.execute(statement("workflow_control.resume"), values)
    tx.execute(statement("workflow_control.wake"))
    _LOG.info("enrollment %s of workflow %s resumed", enrollment_id, workflow_id)
    return reading.enrollment(tx, workflow_id, enrollment_id)


def leave(
    tx: Connection, workflow_id: int, enrollment_id: int, *, reason: str | None = None, now: datetime
) -> Enrollment:
    """End an enrollment as `exited`. Mail queued before is sent.

    Raises:
        NotFound: no such workflow, or it has no such enrollment.
        InvalidTransition: it has ended.
        InvalidInput: the reason is too long.
    """
    given = (reason or "").strip()
    if len(given) > _LONGEST_REASON or not is_storable(given):
        raise InvalidInput(f"A reason has at most {_LONGEST_REASON} characters", path=("body", "reason"))
    before = _held(tx, workflow_id, enrollment_id, "ended")
    return _put(
        tx, before, status="exited", exit_reason=given or BY_HAND, resume_at=None, until_at=None, waiting_for=None,
        paused_from=None, finished_at=now,
    )  # fmt: skip


def forget_left_behind(engine: Engine) -> int:
    """Remove the logs that a deleted workflow has left, so many in a transaction; returns how many."""
    with engine.begin() as tx:
        gone = list(tx.scalars(statement("workflow_control.left_behind")))
    removed = 0
    for workflow_id in gone:
        some = store.LOGS_AT_ONCE
        while some == store.LOGS_AT_ONCE:
            with engine.begin() as tx:
                values = {"workflow_id": workflow_id, "size": store.LOGS_AT_ONCE}
                some = tx.execute(statement("workflow_control.remove_logs"), values).rowcount
            removed += some
    return removed


def _held(tx: Connection, workflow_id: int, enrollment_id: int, done: str) -> Enrollment:
    store.hold(tx, workflow_id)
    found = reading.enrollment(tx, workflow_id, enrollment_id, lock=True)
    if found.status not in _FROM[done]:
        raise InvalidTransition(f"An enrollment that is {found.status} cannot be {done}")
    return found


def _put(tx: Connection, before: Enrollment, **values: Any) -> Enrollment:
    c = _TABLE.c
    query = update(_TABLE).where(c.contact_id == before.contact_id, c.enrollment_id == before.enrollment_id)
    tx.execute(query.values(**values))
    _LOG.info("enrollment %s of workflow %s: %s", before.enrollment_id, before.workflow_id, sorted(values))
    return reading.enrollment(tx, before.workflow_id, before.enrollment_id)
