"""Wait until something happens to the contact: `{"type": "wait_for_event", "event_type": "order_placed"}`.

Only what happens after the enrollment came here counts. `then` is the way of who it happened to, `else` of whom it did
not happen to in `timeout_hours`; without them both go on behind the step, or leave with `on_timeout` exit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.workflows.steps.fields import MOST_WHERE, Fields
from mautolib.workflows.steps.step import Arrival, Ends, Goes, Outcome, Visit, Waits, stay

_LONGEST_HOURS: Final = 8760


class OnTimeout(StrEnum):
    """What becomes of whom the event did not happen to in time."""

    CONTINUE = "continue"
    EXIT = "exit"


@dataclass(frozen=True, kw_only=True)
class WaitForEvent:
    """Stays until an event of `event_type` with the properties `where`, for at most `timeout_hours`.

    Args:
        given: the names of the branches that were written, empty ones too.
    """

    branches: ClassVar[tuple[str, ...]] = ("then", "else")
    event_type: str
    where: Mapping[str, Any] = field(default_factory=dict)
    timeout_hours: float = 72
    on_timeout: OnTimeout = OnTimeout.CONTINUE
    given: frozenset[str] = frozenset()

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`event_type`, and `where`, `timeout_hours` (at most 8760), `on_timeout` if wanted."""
        return cls(
            event_type=fields.event_type("event_type"),
            where=fields.scalars("where", most=MOST_WHERE),
            timeout_hours=fields.number("timeout_hours", above=0, most=_LONGEST_HOURS, default=72),
            on_timeout=OnTimeout(fields.choice("on_timeout", tuple(OnTimeout), default=OnTimeout.CONTINUE)),
            given=frozenset(name for name in cls.branches if fields.has(name)),
        )

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """It refers to nothing."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Say who had the event, and who did not in time; the others stay, without a log."""
        deadline = visit.now + timedelta(hours=self.timeout_hours)
        values = {
            **visit.members.columns(), "event_type": self.event_type, "where": json.dumps(dict(self.where)),
            "is_fresh": visit.arrival is Arrival.FRESH, "deadline": deadline, "now": visit.now,
        }  # fmt: skip
        rows = visit.tx.execute(statement("workflows.find_awaited"), values)
        matched, others = visit.members.part({row.enrollment_id for row in rows})
        outcomes = [Outcome(members=matched, result={"matched": True}, move=Goes(branch="then"))]
        if visit.arrival is Arrival.FRESH:
            waits = Waits(until=deadline, waiting_for=self.event_type)
            outcomes.append(Outcome(members=others, status=None, move=waits))
        elif visit.arrival is Arrival.WOKEN:
            outcomes += stay(visit, others, waiting_for=self.event_type)
        else:
            outcomes.append(Outcome(members=others, result={"matched": False}, move=self._timeout()))
        return [outcome for outcome in outcomes if len(outcome.members)]

    def _timeout(self) -> Goes | Ends:
        if self.on_timeout is OnTimeout.EXIT and "else" not in self.given:
            return Ends(reason="timeout")
        return Goes(branch="else")
