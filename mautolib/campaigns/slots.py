"""Domain limits while a group is decided: how many may still go to a domain, and where the others are put in time.

Promise: nothing goes over the limit, and what does not go is put into evenly spread slots ahead, each message about
once, however many wait. Called by pacing, under the lock of the campaign's pace.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from mautolib.campaigns.limits import HOUR, Limits, Tallies, room
from mautolib.db.statements import statement

#: Held messages come due in batches, so that nobody is woken for each. An hour's worth is spread over 65 minutes: that
#: is how long a minute counts, rounded up to whole batches.
_SLOT: Final = timedelta(minutes=5)
_SPREAD: Final = HOUR + _SLOT


class DomainSlots:
    """What the domain limits leave while one group is decided, and where the rest is put in time."""

    def __init__(
        self, tx: Connection, campaign_id: int, limits: Limits, tallies: Mapping[str, Tallies], now: datetime
    ) -> None:
        self._tx, self._campaign_id, self._limits, self._tallies = tx, campaign_id, limits, tallies
        self._now = now
        self._rooms: dict[str, tuple[int, datetime]] = {}
        self._slots: dict[str, datetime] = {}

    def takes(self, domain: str) -> bool:
        """Whether one more may go to `domain`; if so it is counted."""
        limit = self._limits.of_domain(domain)
        if not limit:
            return True
        if domain not in self._rooms:
            found = room(self._tallies.get(domain, ()), limit, HOUR, self._now)
            self._rooms[domain] = (found.left, found.free_at or self._now + HOUR + timedelta(minutes=1))
        left, free_at = self._rooms[domain]
        self._rooms[domain] = (left - 1, free_at)
        return left > 0

    def slot(self, domain: str) -> datetime:
        """When the next message that is too many for `domain` comes due."""
        if domain not in self._slots:
            given = {"campaign_id": self._campaign_id, "domains": [domain]}
            known = self._tx.execute(statement("pacing.slots"), given).one_or_none()
            free_at = self._rooms[domain][1]
            self._slots[domain] = free_at if known is None else max(free_at, known.next_slot_at)
        at = self._slots[domain]
        self._slots[domain] = at + _SPREAD / self._limits.of_domain(domain)
        return _whole_slot(at)

    def remember(self) -> None:
        """Write down where the next ones are put."""
        if self._slots:
            given = {"campaign_id": self._campaign_id, "domains": list(self._slots),
                     "moments": list(self._slots.values())}  # fmt: skip
            self._tx.execute(statement("pacing.put_slots"), given)


def _whole_slot(moment: datetime) -> datetime:
    return moment + timedelta(seconds=-moment.timestamp() % _SLOT.total_seconds())
