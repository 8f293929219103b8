"""Wall-clock times as moments: what a clock on the wall shows is one moment in one time zone.

Promise: a time that the clocks skip is the first moment after the gap, a time they show twice is the first of the
two; the answer is always UTC. Pure; callers: recurrence, windows, planning.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UTC_ZONE: Final = ZoneInfo("UTC")
_SECOND: Final = timedelta(seconds=1)
#: How much earlier than at Greenwich a wall-clock time can come: the easternmost clocks are 14 hours ahead.
EARLIEST_ZONE: Final = timedelta(hours=14)


@cache
def zone_of(name: str) -> ZoneInfo | None:
    """The time zone of an IANA name; None for an empty or unknown one."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def zone_or(name: str, default: ZoneInfo) -> ZoneInfo:
    """The time zone of a contact; `default` where it has none that is known."""
    return zone_of(name) or default


def moment_of(local: datetime, zone: ZoneInfo) -> datetime:
    """The moment at which clocks in `zone` show `local` (naive), in UTC.

    A skipped time becomes the end of the gap (02:30 in a gap from 02:00 to 03:00 is the moment of 03:00), of a
    repeated one the first is taken.
    """
    moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None, fold=0) == local.replace(fold=0):
        return moment
    # In a gap the two readings lie on both sides of the jump: narrow it down to its second.
    before, after = local.replace(tzinfo=zone, fold=1).astimezone(UTC), moment
    offset = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


def local_of(moment: datetime, zone: ZoneInfo) -> datetime:
    """What clocks in `zone` show at `moment` (naive)."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)
