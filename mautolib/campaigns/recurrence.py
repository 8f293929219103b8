"""Recurring schedules: which moments a rule names, as clocks on the wall show them in one time zone.

Promise: `{interval, every, days, day_of_month, until}` and `{rrule}` (RFC 5545, the parts of `_PARTS`) are checked
once by `parse`; what passes gives moments in order, each later than the one before, on days the clocks change too
(see `walltime`). Day 31 of `day_of_month` is the last day of a shorter month; an RRULE leaves such months out, as
its standard says. Pure; caller: schedules.
"""

from __future__ import annotations

import calendar
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from dateutil import rrule as dateutil_rrule

from mautolib.campaigns.walltime import local_of, moment_of
from mautolib.errors import InvalidInput

INTERVALS: Final = ("hourly", "daily", "weekly", "monthly")
_PARTS: Final = frozenset({"FREQ", "INTERVAL", "BYDAY", "BYMONTHDAY", "BYHOUR", "BYMINUTE", "COUNT", "UNTIL"})
_FREQUENCIES: Final = {
    "HOURLY": dateutil_rrule.HOURLY, "DAILY": dateutil_rrule.DAILY, "WEEKLY": dateutil_rrule.WEEKLY,
    "MONTHLY": dateutil_rrule.MONTHLY, "YEARLY": dateutil_rrule.YEARLY,
}  # fmt: skip
_WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_BYDAY: Final = re.compile(r"([+-]?[1-9][0-9]?)?(MO|TU|WE|TH|FR|SA|SU)")
_UNTIL: Final = re.compile(r"[0-9]{8}(T[0-9]{6}Z?)?")
_EVERY_MAX, _COUNT_MAX, _TEXT_MAX = 1000, 10**6, 500
_LAST_YEAR: Final = 2199
#: A rule that names no moment for so long names none.
_PATIENCE: Final = timedelta(days=366 * 10)
_WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """A checked rule: one of the two forms."""

    interval: str = ""
    every: int = 1
    days: tuple[int, ...] = ()
    day_of_month: int | None = None
    until: datetime | date | None = None
    rrule: Mapping[str, Any] | None = None


def parse(rule: Mapping[str, Any]) -> Recurrence:
    """Check a `recurrence_rule`; keys it does not know are left out.

    Raises:
        InvalidInput: names the key under `recurrence_rule` and what it takes.
    """
    if rule.get("rrule") is not None:
        if rule.get("interval") is not None:
            raise _wrong("rrule", "A rule has either an interval or an rrule")
        return Recurrence(rrule=_parse_rrule(rule["rrule"]))
    interval = rule.get("interval")
    if interval not in INTERVALS:
        raise _wrong("interval", f"interval is one of {', '.join(INTERVALS)}, or give an rrule")
    days, day_of_month = rule.get("days"), rule.get("day_of_month")
    if days is not None and interval == "monthly":
        raise _wrong("days", "days (of the week) go with hourly, daily and weekly; monthly takes day_of_month")
    if day_of_month is not None and interval != "monthly":
        raise _wrong("day_of_month", "day_of_month goes with monthly")
    if days is not None and not (isinstance(days, list | tuple) and days and all(_is_int(day, 1, 7) for day in days)):
        raise _wrong("days", "days are a list of 1 (Monday) to 7 (Sunday), not empty")
    if day_of_month is not None and not _is_int(day_of_month, 1, 31):
        raise _wrong("day_of_month", "day_of_month is 1 to 31")
    every = rule.get("every", 1)
    if not _is_int(every, 1, _EVERY_MAX):
        raise _wrong("every", f"every is 1 to {_EVERY_MAX}")
    return Recurrence(
        interval=interval, every=every, days=tuple(sorted(set(days or ()))), day_of_month=day_of_month,
        until=_parse_until(rule.get("until")),
    )  # fmt: skip


def next_run(rule: Recurrence, send_at: datetime, zone: ZoneInfo, *, after: datetime | None = None) -> datetime | None:
    """The first moment of `rule` from `send_at` on, later than `after` if that is given; None when it has ended.

    Args:
        send_at: the rule begins here; its wall-clock time in `zone` is that of the runs.
    """
    return next(moments(rule, send_at, zone, after=after), None)


def moments(
    rule: Recurrence, send_at: datetime, zone: ZoneInfo, *, after: datetime | None = None
) -> Iterator[datetime]:
    """The moments of `rule` in order, each once; only those later than `after` if that is given."""
    start = local_of(send_at, zone).replace(microsecond=0)
    since = None if after is None else local_of(after, zone)
    locals_ = _rrule_times(rule.rrule, start, zone) if rule.rrule is not None else _interval_times(rule, start, since)
    last = after
    for local in locals_:
        if local.year > _LAST_YEAR:
            return
        moment = moment_of(local, zone)
        if _is_past(rule.until, local, moment):
            return
        if last is None or moment > last:
            yield moment
            last = moment


def _is_past(until: datetime | date | None, local: datetime, moment: datetime) -> bool:
    if until is None:
        return False
    return moment > until if isinstance(until, datetime) else local.date() > until


def _interval_times(rule: Recurrence, start: datetime, since: datetime | None) -> Iterator[datetime]:
    """Wall-clock times of the first form, beginning a little before `since`; with days that match nothing it ends."""
    days = rule.days or ((start.isoweekday(),) if rule.interval == "weekly" else tuple(range(1, 8)))
    passed = max(timedelta(0), (since or start) - start)
    units: dict[str, tuple[int, Callable[[int], list[datetime]]]] = {
        "hourly": (passed // timedelta(hours=1), lambda n: [start + timedelta(hours=n)]),
        "daily": (passed.days, lambda n: [start + timedelta(days=n)]),
        "weekly": (passed.days // 7, lambda n: _week(start, n, days)),
        "monthly": (passed.days // 31, lambda n: [_month(start, n, rule.day_of_month or start.day)]),
    }
    done, times = units[rule.interval]
    end = max(start, since or start) + _PATIENCE
    for number in itertools.count(max(0, done // rule.every - 2)):
        try:
            found = times(number * rule.every)
        except OverflowError:
            return
        if found[0] > end:
            return
        for local in found:
            if local >= start and local.isoweekday() in days:
                yield local
                end = local + _PATIENCE


def _week(start: datetime, number: int, days: Sequence[int]) -> list[datetime]:
    monday = start - timedelta(days=start.isoweekday() - 1) + number * _WEEK
    return [monday + timedelta(days=day - 1) for day in days]


def _month(start: datetime, number: int, day: int) -> datetime:
    year, month = divmod(start.year * 12 + start.month - 1 + number, 12)
    if year > _LAST_YEAR + 1:
        raise OverflowError
    return start.replace(year=year, month=month + 1, day=min(day, calendar.monthrange(year, month + 1)[1]))


def _rrule_times(given: Mapping[str, Any], start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    until = given["until"]
    if isinstance(until, datetime) and until.tzinfo is not None:
        until = local_of(until, zone)
    arguments = {name: value for name, value in given.items() if name not in ("freq", "until") and value is not None}
    try:
        yield from dateutil_rrule.rrule(given["freq"], dtstart=start, until=until, **arguments)
    except ValueError:
        # The parts exclude each other: dateutil finds out only when the start is known.
        return


def _parse_rrule(text: Any) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > _TEXT_MAX:
        raise _wrong("rrule", f"rrule is text of at most {_TEXT_MAX} characters")
    parts: dict[str, str] = {}
    for part in text.strip().upper().removeprefix("RRULE:").split(";"):
        name, sign, value = part.partition("=")
        if not sign or name not in _PARTS or name in parts:
            known = ", ".join(sorted(_PARTS))
            raise _wrong("rrule", f"{part[:40]!r} is no part of a rule; it takes {known}, each once")
        parts[name] = value
    if parts.get("FREQ") not in _FREQUENCIES:
        raise _wrong("rrule", f"FREQ is one of {', '.join(_FREQUENCIES)}")
    if "COUNT" in parts and "UNTIL" in parts:
        raise _wrong("rrule", "A rule has COUNT or UNTIL, not both")
    if "BYMONTHDAY" in parts and parts["FREQ"] == "WEEKLY":
        raise _wrong("rrule", "BYMONTHDAY does not go with FREQ=WEEKLY")
    return {
        "freq": _FREQUENCIES[parts["FREQ"]],
        "interval": _number(parts.get("INTERVAL", "1"), "INTERVAL", 1, _EVERY_MAX),
        "count": _number(parts["COUNT"], "COUNT", 1, _COUNT_MAX) if "COUNT" in parts else None,
        "until": _rrule_until(parts["UNTIL"]) if "UNTIL" in parts else None,
        "byweekday": _weekdays(parts["BYDAY"], parts["FREQ"]) if "BYDAY" in parts else None,
        "bymonthday": _numbers(parts, "BYMONTHDAY", -31, 31),
        "byhour": _numbers(parts, "BYHOUR", 0, 23),
        "byminute": _numbers(parts, "BYMINUTE", 0, 59),
    }


def _weekdays(text: str, frequency: str) -> list[Any]:
    found = []
    for item in text.split(","):
        match = _BYDAY.fullmatch(item)
        if match is None or (match[1] and frequency not in ("MONTHLY", "YEARLY")):
            raise _wrong("rrule", "BYDAY is a list of MO to SU, with FREQ=MONTHLY or YEARLY also 1MO, -1FR ...")
        weekday = dateutil_rrule.weekday(_WEEKDAYS.index(match[2]))
        found.append(weekday(int(match[1])) if match[1] else weekday)
    return found


def _numbers(parts: Mapping[str, str], name: str, least: int, most: int) -> list[int] | None:
    if name not in parts:
        return None
    found = [_number(item, name, least, most) for item in parts[name].split(",")]
    if name == "BYMONTHDAY" and 0 in found:
        raise _wrong("rrule", "BYMONTHDAY is 1 to 31, or -1 (the last day) to -31")
    return found


def _number(text: str, name: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,7}", text) or not least <= int(text) <= most:
        raise _wrong("rrule", f"{name} takes {least} to {most}")
    return int(text)


def _rrule_until(text: str) -> datetime:
    """UNTIL as RFC 5545 writes it; without Z on the clock of the schedule, a bare day to its end."""
    match = _UNTIL.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        if len(text) == 8:
            return datetime.combine(date(int(text[:4]), int(text[4:6]), int(text[6:])), time(23, 59, 59))
        found = datetime.strptime(text.removesuffix("Z"), "%Y%m%dT%H%M%S")  # noqa: DTZ007  # Z is looked at below
        return found.replace(tzinfo=UTC) if text.endswith("Z") else found
    except ValueError:
        raise _wrong("rrule", "UNTIL is written like 20261231 or 20261231T230000Z") from None


def _parse_until(text: Any) -> datetime | date | None:
    if text is None:
        return None
    try:
        if not isinstance(text, str):
            raise ValueError
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _wrong("until", "until is a day (2026-12-31) or a moment with Z or an offset") from None


def _is_int(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _wrong(key: str, message: str) -> InvalidInput:
    return InvalidInput(message, path=("recurrence_rule", key))
