"""Recurring moments against brute force over days on which clocks change: zoneinfo by the minute, dateutil's rules."""

from __future__ import annotations

import calendar
import functools
import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib.campaigns.recurrence import moments, next_run, parse
from mautolib.campaigns.walltime import local_of, moment_of, zone_of, zone_or
from mautolib.errors import InvalidInput

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
#: Northern and southern changes, half an hour, 45 minutes, a day that was left out, none at all.
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Chatham", "Pacific/Apia", "Asia/Kolkata",
         "Africa/Casablanca", "America/Santiago", "UTC"]  # fmt: skip
zones = st.sampled_from(ZONES).map(ZoneInfo)
locals_ = st.datetimes(datetime(2009, 1, 1), datetime(2031, 1, 1)).map(lambda d: d.replace(second=0, microsecond=0))


@functools.cache
def changes_of(zone: ZoneInfo, year: int) -> list[datetime]:
    """The hours in which clocks of `zone` change in `year`, in UTC."""
    hours = [datetime(year, 1, 1, tzinfo=UTC) + n * HOUR for n in range(366 * 24)]
    offsets = [hour.astimezone(zone).utcoffset() for hour in hours]
    return [hour for hour, before, after in zip(hours, offsets, offsets[1:], strict=False) if before != after]


#: Wall-clock times in and around a gap or fold.
near_changes = st.builds(
    lambda name, year, pick, minutes: (ZoneInfo(name), local_of(
        (changes_of(ZoneInfo(name), year) or [datetime(year, 3, 1, tzinfo=UTC)])[pick % 2 - 1], ZoneInfo(name)
    ).replace(second=0, microsecond=0) + minutes * MINUTE),
    st.sampled_from(ZONES[:4]), st.integers(2020, 2028), st.integers(0, 3), st.integers(-180, 240),
)  # fmt: skip


def brute_moment(local: datetime, zone: ZoneInfo) -> datetime:
    """The first minute at which a clock shows `local`; if none does, the first that shows a later time."""
    moment = local.replace(tzinfo=UTC) - 26 * HOUR
    first_later = None
    for _ in range(52 * 60):
        shown = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        if shown == local:
            return moment
        if shown > local and first_later is None:
            first_later = moment
        moment += MINUTE
    assert first_later is not None
    return first_later


@settings(max_examples=150, deadline=None, derandomize=True)
@given(near_changes)
@pytest.mark.thorough
def test_a_time_on_the_wall_is_the_first_minute_that_shows_it_or_a_later_one(case: tuple[ZoneInfo, datetime]) -> None:
    zone, local = case
    assert moment_of(local, zone) == brute_moment(local, zone)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(locals_, zones)
def test_a_time_on_the_wall_exists_or_lies_in_a_gap(local: datetime, zone: ZoneInfo) -> None:
    moment = moment_of(local, zone)
    shown = local_of(moment, zone)
    assert moment.tzinfo is UTC and shown >= local
    if shown != local:
        assert local_of(moment - MINUTE, zone) < local < shown, "the end of the gap it lies in"


@pytest.mark.parametrize(
    ("name", "local", "moment"),
    [
        ("Europe/Berlin", "2026-03-29 02:30", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-10-25 02:30", "2026-10-25T00:30"),
        ("America/New_York", "2026-03-08 02:30", "2026-03-08T07:00"),
        ("America/New_York", "2026-11-01 01:30", "2026-11-01T05:30"),
        ("Europe/London", "2026-03-29 01:30", "2026-03-29T01:00"),
        ("Asia/Kolkata", "2026-03-29 09:00", "2026-03-29T03:30"),
        ("Asia/Shanghai", "2026-03-29 09:00", "2026-03-29T01:00"),
        ("Australia/Lord_Howe", "2026-04-05 01:45", "2026-04-04T14:45"),
        ("Asia/Kathmandu", "2026-01-01 09:00", "2026-01-01T03:15"),
        ("Pacific/Chatham", "2026-04-05 03:15", "2026-04-04T13:30"),
    ],
)  # fmt: skip
def test_known_traps(name: str, local: str, moment: str) -> None:
    assert moment_of(datetime.fromisoformat(local), ZoneInfo(name)) == datetime.fromisoformat(f"{moment}+00:00")


def test_a_day_that_was_left_out_is_the_next() -> None:
    assert moment_of(datetime(2011, 12, 30, 12), ZoneInfo("Pacific/Apia")) == datetime(2011, 12, 30, 10, tzinfo=UTC)
    assert zone_of("Nowhere/Else") is None and zone_of("") is None and zone_of("/etc/passwd") is None
    assert zone_or("", ZoneInfo("UTC")).key == "UTC"


# --- interval form ---

intervals = st.one_of(
    st.fixed_dictionaries({"interval": st.just("hourly"), "every": st.integers(1, 30)},
                          optional={"days": st.lists(st.integers(1, 7), min_size=1, max_size=7)}),
    st.fixed_dictionaries({"interval": st.just("daily"), "every": st.integers(1, 9)},
                          optional={"days": st.lists(st.integers(1, 7), min_size=1, max_size=7)}),
    st.fixed_dictionaries({"interval": st.just("weekly"), "every": st.integers(1, 4)},
                          optional={"days": st.lists(st.integers(1, 7), min_size=1, max_size=7)}),
    st.fixed_dictionaries({"interval": st.just("monthly"), "every": st.integers(1, 5)},
                          optional={"day_of_month": st.integers(1, 31)}),
)  # fmt: skip


def brute_times(rule: dict[str, Any], start: datetime, until: datetime) -> list[datetime]:
    """Every wall-clock time of `rule`, by looking at each hour or day in turn."""
    every, days = rule.get("every", 1), rule.get("days")
    if rule["interval"] == "hourly":
        times = (start + n * every * HOUR for n in itertools.count())
        found = list(itertools.takewhile(lambda time: time < until, times))
        return [time for time in found if days is None or time.isoweekday() in days]
    found = []
    for n in range((until - start).days):
        time = start + n * DAY
        if rule["interval"] == "daily":
            hit = n % every == 0 and (days is None or time.isoweekday() in days)
        elif rule["interval"] == "weekly":
            monday = (time - timedelta(days=time.weekday())).date()
            weeks = (monday - (start - timedelta(days=start.weekday())).date()).days // 7
            hit = weeks % every == 0 and time.isoweekday() in (days or [start.isoweekday()])
        else:
            months = (time.year - start.year) * 12 + time.month - start.month
            last = calendar.monthrange(time.year, time.month)[1]
            hit = months % every == 0 and time.day == min(rule.get("day_of_month") or start.day, last)
        if hit:
            found.append(time)
    return found


def in_order(moments_: list[datetime]) -> list[datetime]:
    """Each once; two times in one gap are one moment."""
    return [moment for moment, _ in itertools.groupby(moments_)]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(near_changes, intervals)
@pytest.mark.thorough
def test_intervals_are_what_clock_and_calendar_say(case: tuple[ZoneInfo, datetime], rule: dict[str, Any]) -> None:
    zone, local = case
    send_at = moment_of(local, zone)
    until = local_of(send_at, zone) + 200 * DAY
    expected = in_order([moment_of(time, zone) for time in brute_times(rule, local_of(send_at, zone), until)])
    ends = moment_of(until, zone)
    found = list(itertools.takewhile(lambda moment: moment < ends, moments(parse(rule), send_at, zone)))
    assert found == [moment for moment in expected if moment < ends]
    assert found == sorted(set(found))
    for after in found[:3] + found[-2:]:
        following = [moment for moment in found if moment > after]
        assert not following or next_run(parse(rule), send_at, zone, after=after) == following[0]
        assert not following or next_run(parse(rule), send_at, zone, after=following[0] - MINUTE) == following[0]


def test_the_31st_is_the_last_day_of_every_month() -> None:
    berlin, rule = ZoneInfo("Europe/Berlin"), parse({"interval": "monthly", "day_of_month": 31})
    found = [local_of(m, berlin) for m in itertools.islice(
        moments(rule, datetime(2027, 12, 15, 8, tzinfo=UTC), berlin), 6)]  # fmt: skip
    assert [(m.month, m.day, m.hour) for m in found] == [
        (12, 31, 9), (1, 31, 9), (2, 29, 9), (3, 31, 9), (4, 30, 9), (5, 31, 9),
    ]  # fmt: skip


def test_until_is_inclusive_and_the_last_century_is_far() -> None:
    utc, start = ZoneInfo("UTC"), datetime(2026, 11, 22, 9, tzinfo=UTC)
    for until, number in [("2026-11-24", 3), ("2026-11-24T09:00:00Z", 3), ("2026-11-24T08:59:59Z", 2),
                          ("2026-11-24T10:00:00+01:00", 3)]:  # fmt: skip
        assert len(list(moments(parse({"interval": "daily", "until": until}), start, utc))) == number
    assert next_run(parse({"interval": "daily", "every": 7, "days": [1]}), start, utc) is None, "Sundays are no Mondays"
    last = datetime(2199, 12, 31, 9, tzinfo=UTC)
    assert next_run(parse({"interval": "daily"}), start, utc, after=last) is None
    far = next_run(parse({"interval": "hourly"}), start, utc, after=datetime(2126, 1, 1, tzinfo=UTC))
    assert far == datetime(2126, 1, 1, 1, tzinfo=UTC), "a hundred years of hours are not walked through"


# --- RFC 5545 ---

rrules = st.builds(
    lambda freq, interval, extra: ";".join([f"FREQ={freq}", f"INTERVAL={interval}", *extra]),
    st.sampled_from(["HOURLY", "DAILY", "WEEKLY", "MONTHLY"]), st.integers(1, 3),
    st.lists(st.sampled_from(["BYDAY=MO,WE,SU", "BYHOUR=1,2,3", "BYMINUTE=0,30"]), unique=True, max_size=3),
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(near_changes, rrules)
@pytest.mark.thorough
def test_rrules_are_those_of_dateutil_on_the_wall_clock(case: tuple[ZoneInfo, datetime], text: str) -> None:
    zone, local = case
    send_at = moment_of(local, zone)
    try:
        times = list(itertools.islice(rrulestr(text, dtstart=local_of(send_at, zone)), 60))
    except ValueError:
        times = []
    expected = in_order([moment_of(time, zone) for time in times])
    found = list(itertools.islice(moments(parse({"rrule": f"RRULE:{text}"}), send_at, zone), len(expected)))
    assert found == expected


def test_count_until_and_the_days_of_a_month() -> None:
    berlin, start = ZoneInfo("Europe/Berlin"), datetime(2027, 1, 31, 8, tzinfo=UTC)

    def days(text: str) -> list[date]:
        return [local_of(m, berlin).date() for m in itertools.islice(moments(parse({"rrule": text}), start, berlin), 4)]

    assert days("FREQ=DAILY;COUNT=2") == [date(2027, 1, 31), date(2027, 2, 1)]
    assert days("freq=daily;until=20270201") == [date(2027, 1, 31), date(2027, 2, 1)]
    assert days("FREQ=DAILY;UNTIL=20270201T080000Z") == [date(2027, 1, 31), date(2027, 2, 1)]
    assert days("FREQ=DAILY;UNTIL=20270201T080000") == [date(2027, 1, 31)], "eight o'clock in Berlin"
    assert days("FREQ=MONTHLY") == [date(2027, m, 31) for m in (1, 3, 5, 7)], "as the standard says"
    assert days("FREQ=MONTHLY;BYMONTHDAY=-1")[:3] == [date(2027, 1, 31), date(2027, 2, 28), date(2027, 3, 31)]
    assert days("FREQ=MONTHLY;BYDAY=-1FR")[:2] == [date(2027, 2, 26), date(2027, 3, 26)]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "interval is one of"), ({"interval": "yearly"}, "interval is one of"), ({"interval": 5}, "interval is"),
        ({"interval": "daily", "every": 0}, "every is"), ({"interval": "daily", "every": True}, "every is"),
        ({"interval": "daily", "every": 1001}, "every is"), ({"interval": "weekly", "days": []}, "days are"),
        ({"interval": "weekly", "days": [0]}, "days are"), ({"interval": "weekly", "days": "12"}, "days are"),
        ({"interval": "monthly", "days": [1]}, "go with"), ({"interval": "daily", "day_of_month": 3}, "goes with"),
        ({"interval": "monthly", "day_of_month": 32}, "1 to 31"), ({"interval": "daily", "until": 5}, "until is"),
        ({"interval": "daily", "until": "2026-13-01"}, "until is"),
        ({"interval": "daily", "until": "2026-12-01T00:00:00"}, "until is"),
        ({"interval": "daily", "rrule": "FREQ=DAILY"}, "either"), ({"rrule": 5}, "rrule is text"),
        ({"rrule": ""}, "is no part"), ({"rrule": "FREQ=MINUTELY"}, "FREQ is"), ({"rrule": "INTERVAL=2"}, "FREQ is"),
        ({"rrule": "FREQ=DAILY;BYSETPOS=1"}, "is no part"), ({"rrule": "FREQ=DAILY;FREQ=DAILY"}, "is no part"),
        ({"rrule": "FREQ=DAILY;COUNT=0"}, "COUNT takes"), ({"rrule": "FREQ=DAILY;INTERVAL=x"}, "INTERVAL takes"),
        ({"rrule": "FREQ=DAILY;COUNT=2;UNTIL=20270101"}, "not both"), ({"rrule": "FREQ=DAILY;BYDAY=1MO"}, "BYDAY is"),
        ({"rrule": "FREQ=WEEKLY;BYDAY=XX"}, "BYDAY is"), ({"rrule": "FREQ=MONTHLY;BYMONTHDAY=0"}, "BYMONTHDAY is"),
        ({"rrule": "FREQ=WEEKLY;BYMONTHDAY=1"}, "does not go"), ({"rrule": "FREQ=DAILY;BYHOUR=24"}, "BYHOUR takes"),
        ({"rrule": "FREQ=DAILY;UNTIL=20271301"}, "UNTIL is written"), ({"rrule": "FREQ=DAILY;UNTIL=soon"}, "UNTIL is"),
        ({"rrule": "FREQ=DAILY;" + "BYHOUR=" + "1," * 300 + "1"}, "at most 500"),
        ({"rrule": "FREQ=DAILY\nEXDATE=20270101"}, "FREQ is one of"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_refused_with_what_it_takes(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        parse(rule)
    assert caught.value.path[0] == "recurrence_rule"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(
    st.sampled_from(["interval", "every", "days", "day_of_month", "until", "rrule"]),
    st.one_of(
        st.none(), st.text(max_size=20), st.integers(), st.lists(st.integers(), max_size=3),
        st.sampled_from(["daily", "monthly", "FREQ=DAILY;BYDAY=MO", "2030-01-01"]),
    ),
))  # fmt: skip
def test_any_rule_is_taken_or_refused(rule: dict[str, Any]) -> None:
    try:
        found = parse(rule)
    except InvalidInput:
        return
    first = next_run(found, datetime(2026, 11, 22, 9, tzinfo=UTC), ZoneInfo("Europe/Berlin"))
    assert first is None or first >= datetime(2026, 11, 22, 9, tzinfo=UTC)
