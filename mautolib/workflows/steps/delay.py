"""Wait for a while: `{"type": "delay", "hours": 24}` or `{"type": "delay", "minutes": 30}`.

Or until a time of day: `{"type": "delay", "until": {"time": "09:00", "weekdays": [1, 2, 3, 4, 5]}}`, by the contact's
clock (`timezone` "contact", the default) or that of a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time, timedelta
from typing import ClassVar, Self

from sqlalchemy import Connection

from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Outcome, Visit, Waits

_LONGEST_HOURS = 8760
#: The zone of whoever waits; `DEFAULT_TIMEZONE` for contacts without one.
CONTACT_ZONE = "contact"


@dataclass(frozen=True, kw_only=True)
class Until:
    """The next time clocks in `timezone` show `time` on one of `weekdays` (1 = Monday)."""

    time: time
    weekdays: frozenset[int]
    timezone: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`time`, and `weekdays` and `timezone` if wanted."""
        found = cls(
            time=fields.clock("time"),
            weekdays=fields.weekdays("weekdays"),
            timezone=fields.zone("timezone", default=CONTACT_ZONE),
        )
        fields.finish()
        return found


@dataclass(frozen=True, kw_only=True)
class Delay:
    """Stays until the time is over, counted from when the enrollment came here; `until` is set or `amount` is not 0."""

    branches: ClassVar[tuple[str, ...]] = ()
    unit: str
    amount: float = 0
    until: Until | None = None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Exactly one of `hours` and `minutes`, at most 8760 hours, and `until`."""
        given = [unit for unit in ("hours", "minutes", "until") if fields.has(unit)]
        if len(given) != 1:
            raise fields.error("", "A delay needs exactly one of 'hours', 'minutes' and 'until'")
        unit = given[0]
        if unit == "until":
            return cls(unit=unit, until=Until.read(Fields(fields.any(unit), (*fields.path, unit))))
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
