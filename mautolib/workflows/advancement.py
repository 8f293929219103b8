"""Advancing: whoever is due is claimed in batches and moved, one transaction each.

Promise: each (enrollment, step, visit) takes effect once, whatever is killed or runs in parallel: a batch is claimed,
moved, logged and put down in one transaction, and a transaction that the database gave up to end a deadlock is tried
again. Called by the workflow_advance DAG and by `enrollment.trigger`. How a batch moves is in `moving`; events are
dispatch's business.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from mautolib.db.statements import statement
from mautolib.settings import Settings
from mautolib.workflows.definition import Definition
from mautolib.workflows.model import EnrollmentStatus
from mautolib.workflows.moving import Batch, Moved

_LOG = logging.getLogger(__name__)
BATCH: Final = 5000
#: Serialization failure, deadlock: the same transaction may succeed now.
_AGAIN: Final = ("40001", "40P01")
_TRIES: Final = 5
#: So many of whom is due are really moved, and taken back, to say where they would go.
_SAMPLE: Final = 5000


@dataclass(frozen=True, kw_only=True)
class DueCount:
    """How many enrollments stand due at one step."""

    workflow_id: int
    version: int
    step_path: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Way:
    """How many enrollments would go from a step to where they stop; `to`: a step they would wait at, or a state."""

    workflow_id: int
    version: int
    step_path: str
    to: str
    count: int


@dataclass(frozen=True, kw_only=True)
class AdvanceResult:
    """What moving did. Of a dry run only `moved`, `due` and `ways` are set, and nothing was written.

    Args:
        steps: visits logged; `failed_steps` of them failed.
        messages: queued by the way.
        ways: where the first few thousand of `moved` would end up.
    """

    moved: int = 0
    steps: int = 0
    failed_steps: int = 0
    messages: int = 0
    waiting: int = 0
    completed: int = 0
    exited: int = 0
    failed: int = 0
    due: tuple[DueCount, ...] = ()
    ways: tuple[Way, ...] = ()

    def plus(self, other: Moved) -> AdvanceResult:
        """With one more batch."""
        return replace(
            self,
            moved=self.moved + other.moved,
            steps=self.steps + other.steps,
            failed_steps=self.failed_steps + other.failed_steps,
            messages=self.messages + other.messages,
            waiting=self.waiting + other.ends[EnrollmentStatus.WAITING],
            completed=self.completed + other.ends[EnrollmentStatus.COMPLETED],
            exited=self.exited + other.ends[EnrollmentStatus.EXITED],
            failed=self.failed + other.ends[EnrollmentStatus.FAILED],
        )


def advance(
    engine: Engine,
    settings: Settings,
    *,
    now: datetime,
    workflow_id: int | None = None,
    dry_run: bool = False,
    batch_size: int = BATCH,
) -> AdvanceResult:
    """Move every due enrollment, in batches that are one transaction each.

    Args:
        workflow_id: only this workflow's.
        dry_run: only say who would move where.
    """
    scope = {"now": now, "workflow_id": workflow_id}
    if dry_run:
        return _rehearse(engine, settings, now, scope)
    total = AdvanceResult()
    definitions: dict[tuple[int, int], Definition | None] = {}
    while True:
        moved = _claim_and_move(engine, settings, now, {**scope, "size": batch_size}, definitions)
        if not moved.moved:
            break
        total = total.plus(moved)
    if total.moved:
        _LOG.info("enrollments moved: %d, %d steps (%d failed), %d messages, %d waiting, %d completed, %d exited,"
                  " %d failed", total.moved, total.steps, total.failed_steps, total.messages, total.waiting,
                  total.completed, total.exited, total.failed)  # fmt: skip
    return total


def begin(tx: Connection, settings: Settings, enrollment_id: int, contact_id: int, *, now: datetime) -> AdvanceResult:
    """Run the first steps of one enrollment that was just made in this transaction."""
    values = {"enrollment_id": enrollment_id, "contact_id": contact_id}
    groups = tx.execute(statement("workflows.claim_one"), values).all()
    return AdvanceResult().plus(Batch(tx, settings, now, {}).move(groups))


def next_due(tx: Connection) -> datetime | None:
    """When the next enrollment has to move (may be past); None when nobody waits."""
    due: datetime | None = tx.scalar(statement("workflows.next_due"))
    return due


def _claim_and_move(
    engine: Engine,
    settings: Settings,
    now: datetime,
    values: Mapping[str, Any],
    definitions: dict[tuple[int, int], Definition | None],
) -> Moved:
    for left in range(_TRIES, 0, -1):
        try:
            with engine.begin() as tx:
                groups = tx.execute(statement("workflows.claim_due"), values).all()
                return Batch(tx, settings, now, definitions).move(groups)
        except DBAPIError as error:
            if left == 1 or getattr(error.orig, "pgcode", None) not in _AGAIN:
                raise
            _LOG.warning("moving a batch of enrollments again: %s", type(error.orig).__name__)
    raise AssertionError("unreachable")


def _rehearse(engine: Engine, settings: Settings, now: datetime, scope: Mapping[str, Any]) -> AdvanceResult:
    """Move the first ones and take it back: what is said of them is what would happen."""
    with engine.connect() as tx, tx.begin() as transaction:
        rows = tx.execute(statement("workflows.count_due"), scope).all()
        due = tuple(
            DueCount(workflow_id=row.workflow_id, version=row.version, step_path=row.step_path,
                     count=row.enrollment_count)
            for row in rows
        )  # fmt: skip
        groups = tx.execute(statement("workflows.claim_due"), {**scope, "size": _SAMPLE}).all()
        batch = Batch(tx, settings, now, {})
        batch.move(groups)
        ids = [enrollment_id for group in groups for enrollment_id in group.enrollment_ids]
        people = [contact_id for group in groups for contact_id in group.contact_ids]
        origins = [group.step_path for group in groups for _ in group.enrollment_ids]
        found = tx.execute(
            statement("workflows.count_ways"), {"enrollment_ids": ids, "contact_ids": people, "origins": origins}
        ).all()
        transaction.rollback()
    ways = tuple(
        Way(workflow_id=row.workflow_id, version=row.version, step_path=row.origin, to=row.goes_to,
            count=row.enrollment_count)
        for row in found
    )  # fmt: skip
    return AdvanceResult(moved=sum(item.count for item in due), due=due, ways=ways)
