"""Moving enrollments: whoever is due takes step after step until they wait, end or reach the end.

Promise: each (enrollment, step, visit) takes effect once, whatever is killed or runs in parallel: a batch is claimed,
moved, logged and put down in one transaction. All members of a batch at one step of one version move in one set of
statements. A step that refuses (a domain error) is logged as failed and passed; anything else undoes the batch.
Called by the workflow_advance DAG and by `enrollment.trigger`. Events are dispatch's business.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row

from mautolib.db.statements import statement
from mautolib.errors import DomainError, PermanentError
from mautolib.settings import Settings
from mautolib.workflows import store
from mautolib.workflows.definition import Definition, Node
from mautolib.workflows.model import EnrollmentStatus, LogStatus
from mautolib.workflows.steps.step import Ends, Goes, Member, Outcome, Visit, Waits

_LOG = logging.getLogger(__name__)
BATCH: Final = 1000


@dataclass(frozen=True, kw_only=True)
class DueCount:
    """How many enrollments stand due at one step."""

    workflow_id: int
    version: int
    step_path: str
    count: int


@dataclass(frozen=True, kw_only=True)
class AdvanceResult:
    """What moving did. Of a dry run only `moved` and `due` are set: who would have moved, and where they stand.

    Args:
        steps: visits logged; `failed_steps` of them failed.
        messages: queued by the way.
    """

    moved: int = 0
    steps: int = 0
    failed_steps: int = 0
    messages: int = 0
    waiting: int = 0
    completed: int = 0
    exited: int = 0
    due: tuple[DueCount, ...] = ()

    def plus(self, other: AdvanceResult) -> AdvanceResult:
        """The sum of two results."""
        names = ("moved", "steps", "failed_steps", "messages", "waiting", "completed", "exited")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})


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
        dry_run: only count who would move.
    """
    scope = {"now": now, "workflow_id": workflow_id}
    if dry_run:
        with engine.begin() as tx:
            rows = tx.execute(statement("workflows.count_due"), scope).all()
        due = tuple(
            DueCount(workflow_id=row.workflow_id, version=row.version, step_path=row.step_path,
                     count=row.enrollment_count)
            for row in rows
        )  # fmt: skip
        return AdvanceResult(moved=sum(item.count for item in due), due=due)
    total = AdvanceResult()
    while True:
        with engine.begin() as tx:
            rows = tx.execute(statement("workflows.claim_due"), {**scope, "size": batch_size}).all()
            if not rows:
                break
            total = total.plus(_Batch(tx, settings, now).move(rows))
    if total.moved:
        _LOG.info("enrollments moved: %d, %d steps (%d failed), %d messages, %d waiting, %d completed, %d exited",
                  total.moved, total.steps, total.failed_steps, total.messages, total.waiting, total.completed,
                  total.exited)  # fmt: skip
    return total


def begin(tx: Connection, settings: Settings, enrollment_id: int, contact_id: int, *, now: datetime) -> AdvanceResult:
    """Run the first steps of one enrollment that was just made in this transaction."""
    values = {"enrollment_id": enrollment_id, "contact_id": contact_id}
    return _Batch(tx, settings, now).move(tx.execute(statement("workflows.claim_one"), values).all())


def next_due(tx: Connection) -> datetime | None:
    """When the next enrollment has to move (may be past); None when nobody waits."""
    due: datetime | None = tx.scalar(statement("workflows.next_due"))
    return due


@dataclass(kw_only=True)
class _Traveller:
    """One enrollment of the batch on its way."""

    row: Row[Any]
    path: str | None
    resumed: bool
    status: EnrollmentStatus = EnrollmentStatus.RUNNING
    resume_at: datetime | None = None
    exit_reason: str | None = None

    @property
    def member(self) -> Member:
        row = self.row
        return Member(
            enrollment_id=row.enrollment_id, contact_id=row.contact_id, visit=row.visit, context=row.context,
            entered_at=row.entered_at, resumed=self.resumed,
        )  # fmt: skip

    def take(self, node: Node, move: Goes | Waits | Ends, definition: Definition) -> None:
        """Go where the outcome of the step at `node` leads."""
        self.resumed = False
        if isinstance(move, Waits):
            self.status, self.resume_at = EnrollmentStatus.WAITING, move.until
        elif isinstance(move, Ends):
            self.status, self.exit_reason = EnrollmentStatus.EXITED, move.reason
        else:
            following = definition.following(node, move.branch)
            if following is None:
                self.status = EnrollmentStatus.COMPLETED
            else:
                self.path = following


@dataclass
class _Batch:
    """Some enrollments moved together in one transaction."""

    tx: Connection
    settings: Settings
    now: datetime
    logs: list[dict[str, Any]] = field(default_factory=list)
    messages: int = 0

    def move(self, rows: Sequence[Row[Any]]) -> AdvanceResult:
        """Move them as far as they go, then write logs and new places."""
        travellers = [_Traveller(row=row, path=row.step_path, resumed=row.resumed) for row in rows]
        versions = {(row.workflow_id, row.version) for row in rows}
        definitions = {key: store.load_definition(self.tx, *key) for key in sorted(versions)}
        moving = travellers
        while moving:
            # Always in the same order, so that batches that make the same tag or content wait instead of deadlocking.
            for (workflow_id, version, path, _), group in sorted(_grouped(moving).items(), key=lambda item: item[0]):
                self._step(group, definitions[workflow_id, version], path)
            moving = [traveller for traveller in moving if traveller.status is EnrollmentStatus.RUNNING]
        self._put_down(travellers)
        return self._result(travellers)

    def _step(self, group: list[_Traveller], definition: Definition | None, path: str) -> None:
        node = definition.nodes.get(path) if definition else None
        if definition is None or node is None:
            # An empty definition is over at once; a workflow that is gone takes nobody further.
            for traveller in group:
                traveller.status = EnrollmentStatus.COMPLETED if definition else EnrollmentStatus.EXITED
                traveller.exit_reason = None if definition else "workflow deleted"
            return
        for traveller, outcome in zip(group, self._run(group, node), strict=True):
            self.messages += outcome.result.get("queued") is True
            if outcome.status is not None:
                self._log(traveller, node, outcome.status, dict(outcome.result))
            if isinstance(outcome.move, Ends) and outcome.move.skips:
                for skipped in definition.rest(node):
                    self._log(traveller, skipped, LogStatus.SKIPPED, {"skipped": True})
            traveller.take(node, outcome.move, definition)

    def _run(self, group: list[_Traveller], node: Node) -> list[Outcome]:
        row = group[0].row
        visit = Visit(
            tx=self.tx, settings=self.settings, now=self.now, workflow_id=row.workflow_id, version=row.version,
            path=node.path, members=[traveller.member for traveller in group],
        )  # fmt: skip
        try:
            with self.tx.begin_nested():
                return node.step.run(visit)
        except (DomainError, PermanentError) as error:
            _LOG.warning("workflow %s version %s step %s: %s", row.workflow_id, row.version, node.path, error)
            return [Outcome(status=LogStatus.FAILED, result={"error": str(error)}) for _ in group]

    def _log(self, traveller: _Traveller, node: Node, status: LogStatus, result: dict[str, Any]) -> None:
        row = traveller.row
        self.logs.append({
            "workflow_id": row.workflow_id, "enrollment_id": row.enrollment_id, "contact_id": row.contact_id,
            "step_path": node.path, "step_index": node.index, "visit": row.visit, "status": status,
            "result": {"step": node.index, "type": node.kind, "path": node.path, **result},
        })  # fmt: skip

    def _put_down(self, travellers: list[_Traveller]) -> None:
        stands = [
            {
                "contact_id": traveller.row.contact_id, "enrollment_id": traveller.row.enrollment_id,
                "status": traveller.status, "step_path": traveller.path, "exit_reason": traveller.exit_reason,
                "resume_at": traveller.resume_at.isoformat() if traveller.resume_at else None,
            }
            for traveller in travellers
        ]  # fmt: skip
        self.tx.execute(statement("workflows.write_logs"), {"logs": json.dumps(self.logs), "now": self.now})
        self.tx.execute(statement("workflows.move"), {"stands": json.dumps(stands), "now": self.now})

    def _result(self, travellers: list[_Traveller]) -> AdvanceResult:
        ended = [traveller.status for traveller in travellers]
        return AdvanceResult(
            moved=len(travellers),
            steps=len(self.logs),
            failed_steps=sum(log["status"] is LogStatus.FAILED for log in self.logs),
            messages=self.messages,
            waiting=ended.count(EnrollmentStatus.WAITING),
            completed=ended.count(EnrollmentStatus.COMPLETED),
            exited=ended.count(EnrollmentStatus.EXITED),
        )


def _grouped(travellers: list[_Traveller]) -> dict[tuple[int, int, str, bool], list[_Traveller]]:
    groups: dict[tuple[int, int, str, bool], list[_Traveller]] = {}
    for traveller in travellers:
        key = (traveller.row.workflow_id, traveller.row.version, traveller.path or "", traveller.resumed)
        groups.setdefault(key, []).append(traveller)
    return groups
