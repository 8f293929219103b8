"""What the workflow is for: `{"type": "goal", "event_type": "order_placed"}`, or with `segment_id`.

Who reaches it while waiting at a step before it goes on behind it; who comes to it by the steps goes on, reached or
not. A goal is written on the level it is to be seen from: it is seen from every step before it on its level and
inside the branches of those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.workflows.steps import references
from mautolib.workflows.steps.fields import MOST_WHERE, Fields
from mautolib.workflows.steps.step import Arrival, Outcome, Visit


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Reached by an event of `event_type` with the properties `where`, or by joining a segment; one of both is set."""

    branches: ClassVar[tuple[str, ...]] = ()
    event_type: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    segment_id: int | None = None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Exactly one of `event_type` (then perhaps `where`) and `segment_id`."""
        if fields.has("event_type") == fields.has("segment_id"):
            raise fields.error("", "A goal needs exactly one of 'event_type' and 'segment_id'")
        if fields.has("segment_id"):
            return cls(segment_id=fields.reference("segment_id"))
        return cls(event_type=fields.event_type("event_type"), where=fields.scalars("where", most=MOST_WHERE))

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """The segment exists, and stays until the transaction ends."""
        if self.segment_id is not None:
            references.hold_segment(tx, fields, "segment_id", self.segment_id)

    def run(self, visit: Visit) -> list[Outcome]:
        """Say who has reached it since what brought them in, or is a member now; nobody waits here."""
        if self.segment_id is not None:
            values = {**visit.members.columns(), "segment_id": self.segment_id}
            rows = visit.tx.execute(statement("workflows.find_goal_members"), values)
        else:
            values = {
                **visit.members.columns(), "event_type": self.event_type, "where": json.dumps(dict(self.where)),
                "is_fresh": visit.arrival is Arrival.FRESH, "now": visit.now,
            }  # fmt: skip
            rows = visit.tx.execute(statement("workflows.find_goal_reached"), values)
        reached, others = visit.members.part({row.enrollment_id for row in rows})
        outcomes = [
            Outcome(members=reached, result={"goal_reached": True}),
            Outcome(members=others, result={"goal_reached": False}),
        ]
        return [outcome for outcome in outcomes if len(outcome.members)]
