"""Give points to the contact: `{"type": "action", "action": "update_score", "points": 10, "reason": "Came back"}`.

They are points given by hand: they do not decay, and count at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from sqlalchemy import Connection

from mautolib import scoring
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Outcome, Visit, acted

_LONGEST_REASON: Final = 500


@dataclass(frozen=True, kw_only=True)
class UpdateScore:
    """Adds points, or takes some off where they are negative."""

    branches: ClassVar[tuple[str, ...]] = ()
    points: float
    reason: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`points`, of at most a million, and an optional `reason`."""
        most = scoring.MOST_POINTS
        return cls(
            points=fields.number("points", above=math.nextafter(-most, -math.inf), most=most),
            reason=fields.text("reason", most=_LONGEST_REASON, default=""),
        )

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """It refers to nothing."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Give them to every member whose contact still exists, once a member."""
        done = scoring.award_many(
            visit.tx, [person for person in visit.members.contact_ids if person > 0], event_type="update_score",
            points=self.points, reason=self.reason or visit.origin, now=visit.now,
        )  # fmt: skip
        return acted(visit, done, {"action": "update_score", "points": self.points})
