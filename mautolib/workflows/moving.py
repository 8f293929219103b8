"""A batch on its way: sets of enrollments take step after step until they wait, end or reach the end.

Promise: all members at one step of one version move in one set of statements, ways that join again are walked
together, and everything is written in the caller's transaction. A step that refuses (a domain error, or a value the
database does not take) is logged as failed and passed; a definition that cannot be read fails its enrollments; anything
else undoes the batch. Called by `advancement`, which claims.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from mautolib.db.statements import statement
from mautolib.errors import DomainError, PermanentError
from mautolib.events import chains
from mautolib.settings import Settings
from mautolib.workflows import store
from mautolib.workflows.definition import Definition, Node
from mautolib.workflows.model import EnrollmentStatus, LogStatus
from mautolib.workflows.steps.goal import Goal
from mautolib.workflows.steps.step import Arrival, Ends, Goes, Members, Outcome, Visit, Waits

_LOG = logging.getLogger(__name__)
_DELETED: Final = "workflow deleted"
#: Classes of errors that lie in a value, not in the world: they would come again and hold up everybody else.
_ITS_OWN_FAULT: Final = ("22", "54")


class Place(NamedTuple):
    """Where some members stand; in the order in which places are worked off."""

    workflow_id: int
    version: int
    position: int
    path: str
    arrival: Arrival
    number: int
    depth: int


class Stand(NamedTuple):
    """Where some members have ended up."""

    status: EnrollmentStatus
    path: str
    reason: str | None = None
    until: datetime | None = None
    waiting_for: str | None = None


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What moving did.

    Args:
        ends: how many ended up in which state.
    """

    moved: int = 0
    steps: int = 0
    failed_steps: int = 0
    messages: int = 0
    ends: Counter[EnrollmentStatus] = field(default_factory=Counter)


class Batch:
    """Some enrollments moved together in one transaction.

    Args:
        definitions: those read before; versions never change.
    """

    def __init__(
        self,
        tx: Connection,
        settings: Settings,
        now: datetime,
        definitions: dict[tuple[int, int], Definition | None],
    ) -> None:
        self._tx, self._settings, self._now, self._definitions = tx, settings, now, definitions
        self._pending: dict[Place, Members] = {}
        self._orders: dict[int, dict[str, int]] = {}
        self._steps: Counter[LogStatus] = Counter()
        self._messages = 0
        self._ends: Counter[EnrollmentStatus] = Counter()

    def move(self, groups: Sequence[Row[Any]]) -> Moved:
        """Move claimed groups as far as they go."""
        moved = 0
        for row in groups:
            members = Members(row.enrollment_ids, row.contact_ids)
            moved += len(members)
            self._start(row, members)
        while self._pending:
            # Ways only lead on, so whoever is furthest back is taken first; and always in the same order, so that
            # batches that make the same tag or content wait instead of deadlocking.
            place = min(self._pending)
            self._step(place, self._pending.pop(place))
        return Moved(
            moved=moved, steps=self._steps.total(), failed_steps=self._steps[LogStatus.FAILED],
            messages=self._messages, ends=self._ends,
        )  # fmt: skip

    def _start(self, row: Row[Any], members: Members) -> None:
        definition, problem = self._definition(row.workflow_id, row.version)
        if definition is None:
            status = EnrollmentStatus.FAILED if problem else EnrollmentStatus.EXITED
            self._put_down(Stand(status, row.step_path, problem or _DELETED), members)
            return
        node = definition.nodes.get(row.step_path)
        if node is None:
            # An empty definition is over at once.
            self._put_down(Stand(EnrollmentStatus.COMPLETED, row.step_path), members)
            return
        place = self._place(row, definition, node.path, Arrival(row.arrival))
        if place.arrival is not Arrival.FRESH:
            members = self._jump(place, definition, node, members)
        self._add(place, members)

    def _definition(self, workflow_id: int, version: int) -> tuple[Definition | None, str | None]:
        key = (workflow_id, version)
        if key not in self._definitions:
            try:
                self._definitions[key] = store.load_definition(self._tx, workflow_id, version)
            except DomainError as error:
                _LOG.error("workflow %s version %s cannot be read: %s", workflow_id, version, error)
                return None, f"definition cannot be read: {error}"[:500]
        return self._definitions[key], None

    def _place(self, at: Any, definition: Definition, path: str, arrival: Arrival) -> Place:
        number = at.number if isinstance(at, Place) else at.visit
        return Place(at.workflow_id, at.version, self._order(definition, path), path, arrival, number, at.depth)

    def _order(self, definition: Definition, path: str) -> int:
        """Where the step is written; ways lead on from there only."""
        order = self._orders.get(id(definition))
        if order is None:
            order = {path: number for number, path in enumerate(definition.nodes)}
            self._orders[id(definition)] = order
        return order[path]

    def _add(self, place: Place, members: Members) -> None:
        if len(members):
            before = self._pending.get(place)
            self._pending[place] = before.plus(members) if before else members

    def _jump(self, place: Place, definition: Definition, node: Node, members: Members) -> Members:
        """Take those who have reached a goal ahead behind it; returns the others."""
        for goal in reversed(definition.rest(node)):
            if isinstance(goal.step, Goal) and len(members):
                visit = self._visit(place._replace(path=goal.path), members)
                members = Members()
                for outcome in goal.step.run(visit):
                    if outcome.result["goal_reached"]:
                        self._take(place, definition, goal, outcome)
                    else:
                        members = outcome.members
        return members

    def _visit(self, place: Place, members: Members) -> Visit:
        return Visit(
            tx=self._tx, settings=self._settings, now=self._now, workflow_id=place.workflow_id,
            version=place.version, path=place.path, members=members, number=place.number, arrival=place.arrival,
        )  # fmt: skip

    def _step(self, place: Place, members: Members) -> None:
        definition, _ = self._definition(place.workflow_id, place.version)
        assert definition is not None
        node = definition.nodes[place.path]
        with chains.caused(self._tx, place.depth + 1):
            outcomes = self._run(node, self._visit(place, members))
        if sum(len(outcome.members) for outcome in outcomes) != len(members):
            raise AssertionError(f"step {node.path} ({node.kind}) lost members")
        for outcome in outcomes:
            self._take(place, definition, node, outcome)

    def _run(self, node: Node, visit: Visit) -> list[Outcome]:
        try:
            with self._tx.begin_nested():
                return node.step.run(visit)
        except (DomainError, PermanentError) as error:
            reason = str(error)
        except DBAPIError as error:
            code = str(getattr(error.orig, "pgcode", None) or "")
            if not code.startswith(_ITS_OWN_FAULT):
                raise
            if len(visit.members) > 1:
                # One of them has a value that cannot be: the others must not wait for it.
                halves = visit.members.halves()
                return [outcome for half in halves for outcome in self._run(node, replace(visit, members=half))]
            reason = f"The database refused a value ({code})"
        _LOG.warning("workflow %s version %s step %s: %s", visit.workflow_id, visit.version, node.path, reason)
        return [Outcome(members=visit.members, status=LogStatus.FAILED, result={"error": reason})]

    def _take(self, place: Place, definition: Definition, node: Node, outcome: Outcome) -> None:
        """Log an outcome and go where it leads."""
        members, move = outcome.members, outcome.move
        if not len(members):
            return
        if outcome.result.get("queued") is True:
            self._messages += len(members)
        if outcome.status is not None:
            self._log(place, node, outcome.status, dict(outcome.result), members, outcome.results)
        if isinstance(move, Waits):
            waiting = EnrollmentStatus.WAITING
            if place.arrival is Arrival.FRESH and isinstance(move.until, datetime):
                # What happened since they came in, but before anybody looked, is reached as well.
                members = self._jump(place._replace(arrival=Arrival.WOKEN), definition, node, members)
                if not len(members):
                    return
            if isinstance(move.until, datetime):
                self._put_down(Stand(waiting, node.path, None, move.until, move.waiting_for), members)
            else:
                self._put_down(Stand(waiting, node.path, None, None, move.waiting_for), members, move.until)
        elif isinstance(move, Ends):
            for skipped in definition.rest(node) if move.skips else ():
                self._log(place, skipped, LogStatus.SKIPPED, {"skipped": True}, members)
            self._put_down(Stand(EnrollmentStatus.EXITED, node.path, move.reason), members)
        else:
            self._go(place, definition, node, move, members)

    def _go(self, place: Place, definition: Definition, node: Node, move: Goes, members: Members) -> None:
        following = definition.following(node, move.branch)
        if following is None:
            self._put_down(Stand(EnrollmentStatus.COMPLETED, node.path), members)
        else:
            self._add(self._place(place, definition, following, Arrival.FRESH), members)

    def _log(
        self, place: Place, node: Node, status: LogStatus, result: dict[str, Any], members: Members,
        results: Iterable[str] | None = None,
    ) -> None:  # fmt: skip
        self._steps[status] += len(members)
        shown = {"step": node.index, "type": node.kind, "path": node.path, **result}
        self._tx.execute(
            statement("workflows.write_logs"),
            {
                **members.columns(), "workflow_id": place.workflow_id, "step_path": node.path,
                "step_index": node.index, "visit": place.number, "status": status, "result": json.dumps(shown),
                "results": None if results is None else list(results), "now": self._now,
            },
        )  # fmt: skip

    def _put_down(self, stand: Stand, members: Members, untils: Sequence[datetime] | None = None) -> None:
        self._ends[stand.status] += len(members)
        self._tx.execute(
            statement("workflows.put_down"),
            {
                **members.columns(), "untils": None if untils is None else list(untils), "until": stand.until,
                "status": stand.status,
                "step_path": stand.path, "exit_reason": stand.reason, "waiting_for": stand.waiting_for,
                "now": self._now,
            },
        )  # fmt: skip
