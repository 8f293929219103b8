"""Wait for a while: `{"type": "delay", "hours": 24}` or `{"type": "delay", "minutes": 30}`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Self

from sqlalchemy import Connection

from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Outcome, Visit, Waits

_LONGEST_HOURS = 8760


@dataclass(frozen=True, kw_only=True)
class Delay:
    """Stays until the time is over, counted from when the enrollment came here."""

    branches: ClassVar[tuple[str, ...]] = ()
    unit: str
    amount: float

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Exactly one of `hours` and `minutes`, at most 8760 hours."""
        given = [unit for unit in ("hours", "minutes") if fields.has(unit)]
        if len(given) != 1:
            raise fields.error("", "A delay needs exactly one of 'hours' and 'minutes'")
        unit = given[0]
        most = _LONGEST_HOURS if unit == "hours" else _LONGEST_HOURS * 60
        return cls(unit=unit, amount=fields.number(unit, above=0, most=most))

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """It refers to nothing."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Log the moment of return on arrival; go on, silently, when it has come."""
        until = visit.now + timedelta(**{self.unit: self.amount})
        shown = until.isoformat(timespec="seconds").replace("+00:00", "Z")
        waits = Outcome(result={self.unit: self.amount, "noted": True, "resume_at": shown}, move=Waits(until=until))
        return [Outcome(status=None) if member.resumed else waits for member in visit.members]
