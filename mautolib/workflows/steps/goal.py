"""What the workflow is for: `{"type": "goal", "event_type": "order_placed"}`, or with `segment_id`.

Who reaches it while waiting at a step before it goes on behind it; who comes to it by the steps goes on, reached or
not. A goal is written on the level it is to be seen from: it is seen from every step before it on its level and
inside the branches of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from sqlalchemy import Connection

from mautolib.workflows.steps import references
from mautolib.workflows.steps.fields import MOST_WHERE, Fields


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
