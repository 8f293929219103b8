"""Send windows against a clock looked at minute by minute, on days the clocks change too; limits against counting."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib.campaigns.limits import DAY, HOUR, domain_keys, room, smaller
from mautolib.campaigns.walltime import moment_of
from mautolib.campaigns.windows import Gate, Window, next_closing, next_opening, quiet_span, window_of
from mautolib.errors import Misconfigured
from mautolib.settings import Settings

MINUTE = timedelta(minutes=1)
BERLIN, TOKYO = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Tokyo")
clock = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
windows = st.fixed_dictionaries(
    {"local_time": st.booleans(), "start": clock, "end": st.one_of(clock, st.just("24:00")),
     "weekdays": st.lists(st.integers(1, 7), min_size=1, unique=True)},
    optional={"quiet": st.tuples(clock, clock)},
)  # fmt: skip
#: Berlin and New York change their clocks within these weeks, Lord Howe by half an hour.
moments = st.one_of(
    *(st.integers(0, 9 * 24 * 60).map(lambda n, start=start: start + n * MINUTE) for start in (
        datetime(2026, 3, 24, tzinfo=UTC), datetime(2026, 10, 20, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC),
        datetime(2026, 10, 1, tzinfo=UTC)))
)  # fmt: skip
zones = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Tokyo"]).map(ZoneInfo)


def made(given_: dict[str, Any], zone: ZoneInfo) -> Window:
    values = {name: value for name, value in given_.items() if name != "quiet"}
    if "quiet" in given_:
        values["quiet_start"], values["quiet_end"] = given_["quiet"]
    return window_of(values, zone=zone)


def moment(day: date, text: str, zone: ZoneInfo) -> datetime:
    if text == "24:00":
        return moment_of(datetime.combine(day + timedelta(days=1), time()), zone)
    return moment_of(datetime.combine(day, time.fromisoformat(text)), zone)


def is_in(at: datetime, start: str, end: str, zone: ZoneInfo, days: set[int]) -> bool:
    """Whether `at` lies in a daily span, looked at by the day it may have begun on."""
    for back in (-2, -1, 0, 1):
        day = at.astimezone(zone).date() + timedelta(days=back)
        ends_on = day if start < end else day + timedelta(days=1)
        if day.isoweekday() in days and start != end and moment(day, start, zone) <= at < moment(ends_on, end, zone):
            return True
    return False


def is_open(at: datetime, given_: dict[str, Any], campaign_zone: ZoneInfo, contact_zone: ZoneInfo) -> bool:
    zone = contact_zone if given_["local_time"] else campaign_zone
    if not is_in(at, given_["start"], given_["end"], zone, set(given_["weekdays"])):
        return False
    quiet = given_.get("quiet")
    return quiet is None or not is_in(at, *quiet, contact_zone, set(range(1, 8)))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(windows, moments, zones, zones)
@pytest.mark.thorough
def test_the_next_opening_is_the_first_open_minute(
    given_: dict[str, Any], at: datetime, zone: ZoneInfo, contact_zone: ZoneInfo
) -> None:
    window = made(given_, zone)
    found = next_opening(window, contact_zone, at)
    assert (found == at) == is_open(at, given_, zone, contact_zone)
    # Every edge is at :00, :15, :30 or :59: a quarter of an hour and the minute before it see all of them.
    probe, end = at.replace(minute=at.minute // 15 * 15), found or at + 8 * DAY
    while probe < end:
        for minute in (probe - MINUTE, probe):
            assert not at <= minute < end or not is_open(minute, given_, zone, contact_zone)
        probe += 15 * MINUTE
    if found is not None:
        assert is_open(found, given_, zone, contact_zone)
        closes = next_closing(window, contact_zone, found)
        assert found < closes <= found + DAY
        inside = found
        while inside < closes:
            assert is_open(inside, given_, zone, contact_zone), "open until it closes"
            inside += 17 * MINUTE
        assert is_open(closes - timedelta(seconds=1), given_, zone, contact_zone)


def test_a_window_by_example() -> None:
    window = window_of({"start": "09:00", "end": "18:00", "weekdays": [1, 2, 3, 4, 5]}, zone=BERLIN)
    friday = datetime(2026, 10, 23, 16, 30, tzinfo=UTC)  # 18:30 in Berlin; on Sunday the clocks go back
    assert next_opening(window, TOKYO, friday) == datetime(2026, 10, 26, 8, tzinfo=UTC)
    assert next_opening(window, TOKYO, friday - HOUR) == friday - HOUR
    assert next_closing(window, TOKYO, friday - HOUR) == datetime(2026, 10, 23, 16, tzinfo=UTC)
    local = window_of({"start": "09:00", "local_time": True}, zone=BERLIN)
    assert next_opening(local, TOKYO, datetime(2026, 10, 23, 20, tzinfo=UTC)) == datetime(2026, 10, 24, 0, tzinfo=UTC)
    assert window_of({}, zone=BERLIN).is_always_open and not window_of({}, zone=BERLIN).is_by_contact


def test_both_quiet_hours_hold() -> None:
    window = window_of({"quiet_start": "12:00", "quiet_end": "14:00"}, zone=BERLIN, quiet_hours="13:00-15:00")
    at = datetime(2026, 11, 22, 3, 30, tzinfo=UTC)
    assert next_opening(window, TOKYO, at) == datetime(2026, 11, 22, 6, tzinfo=UTC)
    assert window.is_by_contact and quiet_span("") is None
    for wrong in ("21-8", "21:00-21:00", "24:00-08:00", "21:00-08:00 "):
        with pytest.raises(ValueError, match="21:00-08:00"):
            quiet_span(wrong)


@pytest.mark.parametrize(
    "given_",
    [{"weekdays": []}, {"start": "09:00", "end": "09:00"},
     {"start": "08:00", "end": "10:00", "quiet_start": "07:00", "quiet_end": "10:00"}],
)  # fmt: skip
def test_some_windows_never_open(given_: dict[str, Any]) -> None:
    assert next_opening(window_of(given_, zone=BERLIN), BERLIN, datetime(2026, 11, 22, 9, tzinfo=UTC)) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(windows, moments, zones, st.lists(st.integers(0, 3000), min_size=1, max_size=12))
def test_a_gate_that_remembers_says_the_same(
    given_: dict[str, Any], at: datetime, contact_zone: ZoneInfo, steps: list[int]
) -> None:
    window = made(given_, BERLIN)
    gate, last = Gate(window, BERLIN), at + 40 * DAY
    for minutes in steps:
        at += minutes * MINUTE
        opening = next_opening(window, contact_zone, at)
        found = gate.opens_at(contact_zone.key, at, last)
        assert (found is None) == (opening == at)
        assert found is None or opening is None or found == min(opening, last)


# --- limits ---


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 15)), max_size=120))
@pytest.mark.thorough
def test_whoever_asks_for_room_never_exceeds_the_limit(limit: int, asked: list[tuple[int, int]]) -> None:
    """Senders ask every few seconds for some; in every span of an hour at most so many were given."""
    at, tallies, given_ = datetime(2026, 11, 22, tzinfo=UTC), dict[datetime, int](), list[tuple[datetime, int]]()
    for seconds, wanted in asked:
        at += timedelta(seconds=seconds)
        found = room(sorted(tallies.items()), limit, HOUR, at)
        assert found.left > 0 or (found.free_at is not None and found.free_at > at)
        if found.left <= 0 and found.free_at is not None:
            assert room(sorted(tallies.items()), limit, HOUR, found.free_at).left > 0, "then there is room"
        taken = min(max(0, found.left), wanted)
        minute = at.replace(second=0, microsecond=0)
        tallies[minute] = tallies.get(minute, 0) + taken
        given_.append((at, taken))
    for since, _ in given_:
        assert sum(taken for moment_, taken in given_ if since <= moment_ < since + HOUR) <= limit


def test_of_two_limits_the_smaller_counts_and_domains_are_compared_as_addresses_are() -> None:
    assert [smaller(0, 0), smaller(0, 5), smaller(5, 0), smaller(7, 5)] == [0, 5, 5, 5]
    found = domain_keys({"GMail.com": 10, "gmail.com": 4, "münchen.example": 3, "*": 9})
    assert found == {"gmail.com": 4, "xn--mnchen-3ya.example": 3, "*": 9}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("QUIET_HOURS", "21-8", "21:00-08:00"), ("QUIET_HOURS", "08:00-08:00", "21:00-08:00"),
        ("DEFAULT_TIMEZONE", "Berlin", "Europe/Berlin"), ("FREQUENCY_CAP", "-1", "0 or more"),
        ("FREQUENCY_CAP_DAYS", "0", "1 or more"), ("MAX_PER_HOUR", "-5", "0 or more"),
        ("WARMUP_PER_DAY", "100", "WARMUP_FROM must name"), ("WARMUP_FROM", "soon", "2026-11-23"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_at_the_start(name: str, value: str, said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        Settings.from_env({f"MAUTO_{name}": value})
