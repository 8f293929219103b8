"""The 1st, 5th, 10th, 25th, 50th and 100th order of a contact: told once, whoever stores orders, and how often."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, Engine, select, text

from mautolib import ingestion
from mautolib.db import migrate, tables
from mautolib.events import milestones
from mautolib.events.append import Outcome
from mautolib.events.orders import NewOrder, record_orders
from mautolib.settings import Settings
from tests.builders import make_contact

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def an_order(number: int, contact_id: int, *, source: str = "shop") -> NewOrder:
    """Order number `number`, placed that many hours after the first day of the month."""
    return NewOrder(
        order_id=str(number), placed_at=datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=number), currency="USD",
        total=Decimal("10"), lines=[], contact_id=contact_id, source=source,
    )  # fmt: skip


def told(tx: Connection, contact_id: int) -> list[tuple[str, datetime]]:
    """(milestone, moment) of the events of a contact, in the order they were told."""
    events = tables.events.c
    rows = tx.execute(
        select(events.properties["milestone"].astext, events.occurred_at)
        .where(events.contact_id == contact_id, events.event_type == "milestone_reached").order_by(events.event_id)
    )  # fmt: skip
    return [(row[0], row[1]) for row in rows]


def place(tx: Connection, settings: Settings, numbers: Sequence[int], contact_id: int, **options: bool) -> None:
    record_orders(tx, [an_order(number, contact_id) for number in numbers], settings, now=NOW, **options)


def test_each_number_of_orders_is_told_once_with_its_moment(tx: Connection, settings: Settings) -> None:
    one, other = make_contact(tx), make_contact(tx)
    place(tx, settings, [1], one)
    place(tx, settings, [500], other)
    assert [name for name, _ in told(tx, one)] == ["orders_1"]
    place(tx, settings, [1, 2, 3, 4], one)
    assert len(told(tx, one)) == 1
    place(tx, settings, [5, 5, 4], one)
    place(tx, settings, [5], one)
    assert told(tx, one) == [("orders_1", an_order(1, one).placed_at), ("orders_5", an_order(5, one).placed_at)]
    place(tx, settings, range(6, 101), one)
    place(tx, settings, range(101, 140), one)
    assert [name for name, _ in told(tx, one)] == [f"orders_{count}" for count in milestones.ORDER_COUNTS]
    assert [name for name, _ in told(tx, other)] == ["orders_1"]
    properties = tx.scalar(text("select properties from events where event_type = 'milestone_reached' "
                                "and properties ->> 'milestone' = 'orders_25'"))  # fmt: skip
    assert properties == {"milestone": "orders_25", "kind": "orders", "orders": 25}


def test_an_order_that_comes_late_makes_the_last_one_the_fifth(tx: Connection, settings: Settings) -> None:
    one = make_contact(tx)
    place(tx, settings, [2, 3, 4, 5], one)
    place(tx, settings, [1], one)
    assert told(tx, one) == [("orders_1", an_order(2, one).placed_at), ("orders_5", an_order(5, one).placed_at)]


def test_milestones_take_effect_and_history_is_silent(tx: Connection, settings: Settings) -> None:
    live, past = make_contact(tx), make_contact(tx)
    place(tx, settings, [1], live)
    place(tx, settings, range(10, 70), past, effects=False)
    waiting = set(tx.scalars(text("select unnest(event_ids) from event_pending")))
    events = tx.execute(text("select event_id, contact_id from events where event_type = 'milestone_reached'")).all()
    assert {row.event_id for row in events if row.contact_id == live} <= waiting
    assert not {row.event_id for row in events if row.contact_id == past} & waiting
    assert [name for name, _ in told(tx, past)] == ["orders_1", "orders_5", "orders_10", "orders_25", "orders_50"]
    place(tx, settings, [71], past)
    assert len(told(tx, past)) == 5, "what history brought is not told again"
    assert tx.scalar(text("select count(*) from contact_milestones where contact_id = :id"), {"id": past}) == 5


def test_nobody_reaches_nothing_and_a_conflict_counts_nothing(tx: Connection, settings: Settings) -> None:
    one = make_contact(tx)
    place(tx, settings, range(1, 7), 0)
    changed = record_orders(tx, [an_order(1, one)], settings, now=NOW).outcomes
    assert changed == (Outcome.DUPLICATE,)
    assert (told(tx, 0), told(tx, one)) == ([], [])


def test_the_door_of_events_tells_them_too(tx: Connection, settings: Settings) -> None:
    one = make_contact(tx)
    given = [
        ingestion.Incoming(
            event_type="order_placed", occurred_at=NOW - timedelta(hours=n), contact_id=one, source="api",
            external_id=None, address=None,
            properties={"order_id": f"d{n}", "currency": "USD", "total": "5", "lines": []},
        )
        for n in range(6)
    ]  # fmt: skip
    ingestion.ingest(tx, given, settings, now=NOW)
    ingestion.ingest(tx, given, settings, now=NOW)
    assert told(tx, one) == [("orders_1", NOW - timedelta(hours=5)), ("orders_5", NOW - timedelta(hours=1))]


@pytest.mark.parametrize("writers", [5, 8])
def test_parallel_writers_tell_the_fifth_order_once(fresh_engine: Engine, settings: Settings, writers: int) -> None:
    """Each of them sees fewer than five orders when it begins, and none may go without telling."""
    with fresh_engine.begin() as tx:
        people = [make_contact(tx) for _ in range(3)]
    ready = threading.Barrier(writers)

    def write(number: int) -> None:
        with fresh_engine.begin() as tx:
            tx.execute(text("select 1"))
            ready.wait(20)
            # Every writer takes the contacts in another order, and tells the same orders of the last one.
            turned = people[number % 2 :] + people[: number % 2]
            given = [an_order(1000 * people.index(one) + number, one) for one in turned]
            record_orders(tx, [*given, an_order(9000, people[2])], settings, now=NOW)

    with ThreadPoolExecutor(writers) as pool:
        assert list(pool.map(write, range(writers))) == [None] * writers
    with fresh_engine.begin() as tx:
        assert tx.scalar(text("select count(*) from orders")) == 3 * writers + 1
        for one in people:
            assert sorted(name for name, _ in told(tx, one)) == ["orders_1", "orders_5"]


def test_orders_from_before_milestones_are_not_told(fresh_engine: Engine, settings: Settings) -> None:
    """The migration notes what was reached; the next order tells the next milestone only."""
    (file,) = (file for file in migrate.files() if file.name.endswith("0029_milestones.sql"))
    start = file.sql.index("insert into contact_milestones")
    backfill = file.sql[start : file.sql.index(";", start)]
    with fresh_engine.begin() as tx:
        one, other = make_contact(tx), make_contact(tx)
        place(tx, settings, range(9), one, effects=False)
        place(tx, settings, range(20, 22), other, effects=False)
        place(tx, settings, range(30, 37), 0)
        tx.execute(text("delete from contact_milestones"))
        tx.execute(text("delete from events where event_type = 'milestone_reached'"))
        tx.exec_driver_sql(backfill)
        noted = "select contact_id, milestone, reached_at, is_told from contact_milestones order by 1, 3"
        assert [tuple(row) for row in tx.execute(text(noted))] == [
            (one, "orders_1", an_order(0, one).placed_at, False), (one, "orders_5", an_order(4, one).placed_at, False),
            (other, "orders_1", an_order(20, other).placed_at, False)]  # fmt: skip
        place(tx, settings, [10], one)
        assert [name for name, _ in told(tx, one)] == ["orders_10"]
