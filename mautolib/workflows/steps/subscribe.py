"""Opt the contact in: `{"type": "action", "action": "subscribe"}`.

Consent is granted with it. An address that the person themselves had suppressed (unsubscribe, complaint, compliance)
stays as it is: the step fails with that reason.
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
class Subscribe:
    """Turns marketing mail on."""

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
            visit.tx, visit.members.people(), True, source=origin, actor=f"system:{origin}", now=visit.now
        )
        return answered(visit, reasons, {"action": "subscribe"})
