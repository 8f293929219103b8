"""Opt the contact out: `{"type": "action", "action": "unsubscribe"}`.

Consent is withdrawn and waiting marketing mail is skipped. The address is not suppressed: that is the word of the
person, not of a workflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from sqlalchemy import Connection

from mautolib.contacts import many
from mautolib.workflows.steps.answering import answered
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Outcome, Visit


@dataclass(frozen=True, kw_only=True)
class Unsubscribe:
    """Turns marketing mail off."""

    branches: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """It has no keys of its own."""
        return cls()

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """It refers to nothing."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Do so for every member whose contact still exists."""
        origin = visit.origin
        reasons = many.set_subscribed(
            visit.tx, visit.members.people(), False, source=origin, actor=f"system:{origin}", now=visit.now
        )
        return answered(visit, reasons, {"action": "unsubscribe"})
