"""Leave the workflow: `{"type": "exit", "reason": "bought already"}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from sqlalchemy import Connection

from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Ends, Outcome, Visit


@dataclass(frozen=True, kw_only=True)
class Exit:
    """Ends the enrollment as `exited`."""

    branches: ClassVar[tuple[str, ...]] = ()
    reason: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """An optional `reason`."""
        return cls(reason=fields.text("reason", most=200, default="") or "exit step")

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """It refers to nothing."""

    def run(self, visit: Visit) -> list[Outcome]:
        """End every member."""
        return [Outcome(members=visit.members, result={"exited": True}, move=Ends(reason=self.reason))]
