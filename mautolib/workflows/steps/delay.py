"""Wait for a while: `{"type": "delay", "hours": 24}` or `{"type": "delay", "minutes": 30}`.

Or until a time of day: `{"type": "delay", "until": {"time": "09:00", "weekdays": [1, 2, 3, 4, 5]}}`, by the contact's
clock (`timezone` "contact", the default) or that of a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, ClassVar, Self
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from mautolib.campaigns.walltime import UTC_ZONE, local_of, moment_of, zone_or
from mautolib.db.statements import statement
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Arrival, Members, Outcome, Visit, Waits, stay

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


    def next_after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The next such time later than `moment`, by the clocks of `zone`, in UTC.

        A time that the clocks skip is the end of the gap, of one they show twice it is the first.
        """
        day = local_of(moment, zone).date()
        # A week has all days; one more for a day whose time is over, and one for a zone that left out a day.
        for number in range(9):
            wanted = day + timedelta(days=number)
            if wanted.isoweekday() in self.weekdays:
                found = moment_of(datetime.combine(wanted, self.time), zone)
                if found > moment:
                    return found
        raise AssertionError("a week has no such day")

    def shown(self) -> dict[str, Any]:
        """As in a definition, with the defaults."""
        return {"time": f"{self.time:%H:%M}", "weekdays": sorted(self.weekdays), "timezone": self.timezone}


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
        if visit.arrival is Arrival.EXPIRED:
            return [Outcome(members=visit.members, status=None)]
        if visit.arrival is Arrival.WOKEN:
            return stay(visit)
        if self.until is None:
            return [self._wait(visit.members, visit.now + timedelta(**{self.unit: self.amount}), self.amount)]
        default = zone_or(visit.settings.default_timezone, UTC_ZONE)
        shown = self.until.shown()
        if self.until.timezone != CONTACT_ZONE:
            until = self.until.next_after(visit.now, zone_or(self.until.timezone, default))
            return [self._wait(visit.members, until, shown)]
        by_moment: dict[datetime, Members] = {}
        for row in visit.tx.execute(statement("workflows.group_by_zone"), visit.members.columns()):
            until = self.until.next_after(visit.now, zone_or(row.timezone, default))
            members = Members(row.enrollment_ids, row.contact_ids)
            by_moment[until] = by_moment[until].plus(members) if until in by_moment else members
        return [self._wait(members, until, shown) for until, members in by_moment.items()]

    def _wait(self, members: Members, until: datetime, shown: Any) -> Outcome:
        moment = until.isoformat(timespec="seconds").replace("+00:00", "Z")
        result = {self.unit: shown, "noted": True, "resume_at": moment}
        return Outcome(members=members, result=result, move=Waits(until=until))
