"""Days on the clocks of the reporting time zone, also when summer time begins and ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from mautolib.analytics import refreshing
from mautolib.errors import InvalidInput, Misconfigured
from mautolib.settings import Settings
from tests.builders import make_contact, make_event, make_message, make_order

LATE = datetime(2026, 6, 30, 23, 30, tzinfo=UTC)
_DAYS = text("select reporting_day, count(*) from analytics.fct_orders group by 1 order by 1")


def test_an_order_late_in_the_evening_belongs_to_the_next_day(tx: Connection) -> None:
    person = make_contact(tx)
    make_order(tx, person, LATE)
    make_event(tx, person, "page_viewed", LATE)
    make_message(tx, person, sent_at=LATE)
    make_message(tx, person, status="queued")
    tables = [("fct_orders", "placed_at"), ("fct_events", "occurred_at"), ("fct_messages", "sent_at")]
    june, july = date(2026, 6, 30), date(2026, 7, 1)
    zones = {"UTC": june, "Europe/Berlin": july, "America/Lima": june, "Pacific/Kiritimati": july}
    for zone, day in zones.items():
        refreshing.keep_timezone(tx, zone)
        assert tx.scalar(text("select analytics.reporting_timezone()")) == zone
        for table, moment in tables:
            found = tx.execute(text(
                f"select reporting_day, analytics.reporting_day({moment}) from analytics.{table} order by 1 limit 1"
            )).one()  # fmt: skip
            assert tuple(found) == (day, day), (table, zone)
    assert tx.scalar(text("select count(*) from analytics.fct_messages where reporting_day is null")) == 1


@pytest.mark.parametrize(("start", "hours"), [
    (datetime(2026, 3, 28, 23, tzinfo=UTC), [23, 24]), (datetime(2026, 10, 24, 22, tzinfo=UTC), [25, 24]),
], ids=["summer time begins", "summer time ends"])  # fmt: skip
def test_days_of_23_and_25_hours(tx: Connection, start: datetime, hours: list[int]) -> None:
    refreshing.keep_timezone(tx, "Europe/Berlin")
    person = make_contact(tx)
    for hour in range(sum(hours)):
        make_order(tx, person, start + timedelta(hours=hour))
    first = (start + timedelta(hours=2)).date()
    assert [tuple(row) for row in tx.execute(_DAYS)] == [(first, hours[0]), (first + timedelta(days=1), hours[1])]


def test_everybody_reads_the_same_days(tx: Connection) -> None:
    tx.execute(text("set local role mauto_worker"))
    refreshing.keep_timezone(tx, "Asia/Tokyo")
    for role in ("mauto_analyst", "mauto_api", "mauto_worker"):
        tx.execute(text(f"set local role {role}"))
        tx.execute(_DAYS)
        day = tx.scalar(text("select analytics.reporting_day(cast(:at as timestamptz))"), {"at": LATE})
        assert day == date(2026, 7, 1), role


def test_what_is_no_time_zone_is_refused(tx: Connection) -> None:
    assert Settings().reporting_timezone == "UTC"
    assert replace(Settings(), reporting_timezone="Europe/Berlin").reporting_timezone == "Europe/Berlin"
    with pytest.raises(Misconfigured, match="MAUTO_REPORTING_TIMEZONE"):
        Settings.from_env({"MAUTO_REPORTING_TIMEZONE": "Mars/Base"})
    with pytest.raises(InvalidInput, match="Mars"):
        refreshing.keep_timezone(tx, "Mars/Base")
    assert tx.scalar(text("select analytics.reporting_timezone()")) == "UTC"
