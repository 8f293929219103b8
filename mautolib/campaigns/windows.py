"""When mail may go: the hours and weekdays of a campaign, and the quiet hours of the person it is for.

Promise: right on the days the clocks change, by `walltime`. The hours are those of the recipient's zone with
`local_time`, else of the zone of the schedule (else `MAUTO_DEFAULT_TIMEZONE`); quiet hours, the campaign's own and
those of `MAUTO_QUIET_HOURS`, are always the recipient's. Pure; callers: planning, pacing, readiness, explain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from mautolib.campaigns.walltime import local_of, moment_of, zone_or

_DAY: Final = timedelta(days=1)
_ALL_DAYS: Final = frozenset(range(1, 8))
_MINUTES: Final = 24 * 60
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
#: A week and the days at its edges: what does not open in this time never opens.
_HORIZON_DAYS: Final = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A part of the day in minutes of the wall clock; one that ends before it starts goes past midnight."""

    start: int
    end: int

    @property
    def is_empty(self) -> bool:
        """Whether no minute is in it."""
        return self.start == self.end

    def on(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """From when until when it lasts if it starts on `day`."""
        ends_on = day if self.start < self.end else day + _DAY
        return _at(day, self.start, zone), _at(ends_on, self.end, zone)


@dataclass(frozen=True, kw_only=True)
class Window:
    """When a campaign may be handed over.

    Args:
        zone: of the hours where `local_time` is off, and of contacts without one.
        quiet: spans in which nobody is written to, on their own clock.
    """

    zone: ZoneInfo
    local_time: bool = False
    hours: Span | None = None
    weekdays: frozenset[int] = _ALL_DAYS
    quiet: tuple[Span, ...] = ()

    @property
    def is_by_contact(self) -> bool:
        """Whether people in different time zones may be written to at different times."""
        return bool(self.quiet) or self.local_time

    @property
    def is_always_open(self) -> bool:
        """Whether it never keeps anything back."""
        return not self.quiet and self.hours is None and self.weekdays >= _ALL_DAYS


def window_of(
    send_window: Mapping[str, Any], *, zone: ZoneInfo, default_zone: ZoneInfo | None = None, quiet_hours: str = ""
) -> Window:
    """The window of a campaign from its `send_window`, as stored (missing keys have their defaults).

    Args:
        zone: of the schedule, else the default one; default_zone: of contacts without one (None: `zone`).
        quiet_hours: the setting `quiet_hours`, as in 21:00-08:00.
    """
    local = bool(send_window.get("local_time", False))
    hours = Span(start=_minute(send_window.get("start", "00:00")), end=_minute(send_window.get("end", "24:00")))
    quiet = []
    if (quiet_start := send_window.get("quiet_start")) and (quiet_end := send_window.get("quiet_end")):
        span = Span(start=_minute(quiet_start), end=_minute(quiet_end))
        quiet += [] if span.is_empty else [span]
    if (everywhere := quiet_span(quiet_hours)) is not None and everywhere not in quiet:
        quiet.append(everywhere)
    return Window(
        zone=default_zone or zone if local else zone,
        local_time=local,
        hours=None if (hours.start, hours.end) == (0, _MINUTES) else hours,
        weekdays=frozenset(send_window.get("weekdays", _ALL_DAYS)),
        quiet=tuple(quiet),
    )


def quiet_span(text: str) -> Span | None:
    """The span of `MAUTO_QUIET_HOURS`, as in 21:00-08:00; None where it is empty.

    Raises:
        ValueError: it is written otherwise, or has no length.
    """
    if not text:
        return None
    match = _HOURS.fullmatch(text)
    if match is None or (span := Span(start=_minute(text[:5]), end=_minute(text[6:]))).is_empty:
        raise ValueError(f"quiet hours are written like 21:00-08:00, not {text!r}")
    return span


@dataclass
class Gate:
    """Whether a window is open for the people of each zone; asked for every message, computed when it changes."""

    window: Window
    default_zone: ZoneInfo
    _spans: dict[str, tuple[datetime, datetime, bool]] = field(default_factory=dict)

    def opens_at(self, timezone: str, now: datetime, last: datetime) -> datetime | None:
        """None if it is open, else when to look again (`last` at the latest)."""
        since, until, is_open = self._spans.get(timezone, (last, last, False))
        if not since <= now < until:
            zone = zone_or(timezone, self.default_zone)
            opening = next_opening(self.window, zone, now)
            is_open = opening == now
            until = next_closing(self.window, zone, now) if is_open else opening or now + _DAY
            self._spans[timezone] = (now, until, is_open)
        return None if is_open else min(until, last)


def next_opening(window: Window, timezone: ZoneInfo, at: datetime) -> datetime | None:
    """The first moment from `at` on at which somebody in `timezone` may be written to; `at` itself if it is open.

    None: the window never opens (no weekday, quiet all day). For one contact pass
    `walltime.zone_or(contact.timezone, default zone)`; the message goes at that moment, limits permitting, unless
    it expires before.
    """
    if window.is_always_open:
        return at
    hours_zone = timezone if window.local_time else window.zone
    candidate = at
    last = at + _HORIZON_DAYS * _DAY
    while candidate <= last:
        opened = _next_hours(window, hours_zone, candidate)
        if opened is None:
            return None
        candidate = _after_quiet(window, timezone, opened)
        if candidate == opened:
            return candidate
    return None


def next_closing(window: Window, timezone: ZoneInfo, at: datetime) -> datetime:
    """When a window that is open `at` closes; at the latest after a day, then ask again."""
    closes = at + _DAY
    hours_zone = timezone if window.local_time else window.zone
    if window.hours is not None or window.weekdays < _ALL_DAYS:
        ends = [until for since, until in _open_spans(window, hours_zone, at) if since <= at < until]
        closes = min(closes, max(ends, default=at))
    for span in window.quiet:
        begins = [since for since, until in _spans(span, timezone, at) if since > at and until > since]
        closes = min([closes, *begins])
    return closes


def _next_hours(window: Window, zone: ZoneInfo, at: datetime) -> datetime | None:
    if window.hours is None and window.weekdays >= _ALL_DAYS:
        return at
    starts = [max(since, at) for since, until in _open_spans(window, zone, at) if until > at]
    return min(starts, default=None)


def _open_spans(window: Window, zone: ZoneInfo, at: datetime) -> Iterator[tuple[datetime, datetime]]:
    hours = window.hours or Span(start=0, end=_MINUTES)
    first = local_of(at, zone).date() - _DAY
    for number in range(_HORIZON_DAYS + 1):
        day = first + number * _DAY
        if day.isoweekday() in window.weekdays and not hours.is_empty:
            since, until = hours.on(day, zone)
            if since < until:
                yield since, until


def _after_quiet(window: Window, zone: ZoneInfo, at: datetime) -> datetime:
    for span in window.quiet:
        for since, until in _spans(span, zone, at):
            if since <= at < until:
                return until
    return at


def _spans(span: Span, zone: ZoneInfo, at: datetime) -> list[tuple[datetime, datetime]]:
    """The occurrences of a daily span around `at`."""
    today = local_of(at, zone).date()
    return [span.on(today + number * _DAY, zone) for number in (-1, 0, 1)]


def _at(day: date, minute: int, zone: ZoneInfo) -> datetime:
    if minute == _MINUTES:
        day, minute = day + _DAY, 0
    return moment_of(datetime.combine(day, time(minute // 60, minute % 60)), zone)


def _minute(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])
