"""Add the contact to a segment by hand: `{"type": "action", "action": "add_to_segment", "segment_id": "3"}`.

Lifts that somebody was kept out of it. An exclusion of the segment may keep them out all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from sqlalchemy import Connection

from mautolib import segments
from mautolib.workflows.steps import references
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Outcome, Visit, acted


@dataclass(frozen=True, kw_only=True)
class AddToSegment:
    """Adds to one segment, as an editor would."""

    branches: ClassVar[tuple[str, ...]] = ()
    segment_id: int

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`segment_id`."""
        return cls(segment_id=fields.reference("segment_id"))

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """The segment exists, and stays until the transaction ends."""
        references.hold_segment(tx, fields, "segment_id", self.segment_id)

    def run(self, visit: Visit) -> list[Outcome]:
        """Do so for every member whose contact still exists; fails where the segment is gone."""
        done = segments.add_contacts(visit.tx, visit.settings, self.segment_id, visit.members.people(), now=visit.now)
        return acted(visit, set(done), {"action": "add_to_segment", "segment_id": str(self.segment_id)})
