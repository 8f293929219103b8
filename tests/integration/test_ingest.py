"""Ingestion: each fact once whatever runs in parallel, and the same orders whatever comes first."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from threading import Barrier
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from mautolib.events.numbering import Told, find_first, reserve
from mautolib.events.orders import NewRate, load_rates
from mautolib.ingestion import Incoming, Result, Status, check, ingest
from mautolib.settings import Settings
from tests.builders import make_contact

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LINES = [{"sku": "TEA", "quantity": 2, "unit_price": "29.95"}]


def event(**values: Any) -> dict[str, Any]:
    return {"type": "page_viewed", "source": "shop", "email": "ana@shop.example", **values}


def order(number: object, total: object = "50", **values: Any) -> dict[str, Any]:
    told = {"order_id": str(number), "currency": "EUR", "total": total, "lines": LINES}
    return event(type="order_placed", occurred_at="2026-05-01T09:00:00Z", properties=told, **values)


def refund(number: object, amount: object, refund_id: str | None = None, **values: Any) -> dict[str, Any]:
    told = {"order_id": str(number), "currency": "EUR", "amount": amount, "refund_id": refund_id}
    return event(type="order_refunded", occurred_at="2026-05-03T09:00:00Z", properties=told, **values)


def checked(raw: Iterable[dict[str, Any]]) -> list[Incoming]:
    return [check(one, now=NOW) for one in raw]


def take(tx: Connection, config: Settings, *raw: dict[str, Any]) -> list[Result]:
    return ingest(tx, checked(raw), config, now=NOW)


def count(tx: Connection, table: str) -> int:
    return int(tx.scalar(text(f"select count(*) from {table}")) or 0)


def in_parallel(engine: Engine, config: Settings, batches: Sequence[list[dict[str, Any]]]) -> list[list[Result]]:
    """Each batch in a transaction of its own, all begun at one moment; a deadlock would raise."""
    barrier = Barrier(len(batches))

    def one(raw: list[dict[str, Any]]) -> list[Result]:
        items = checked(raw)
        with engine.begin() as tx:
            tx.execute(text("select 1"))
            barrier.wait()
            return ingest(tx, items, config, now=NOW)

    with ThreadPoolExecutor(len(batches)) as pool:
        return list(pool.map(one, batches))


def wide(engine: Engine) -> Engine:
    """The engine with a connection for each of twenty writers."""
    from mautolib.db.engine import connect

    return connect(engine.url.render_as_string(hide_password=False), pool_size=20)


def everything() -> list[dict[str, Any]]:
    """Events of every kind, all with something that tells a repetition."""
    people = [f"p{n}@shop.example" for n in range(7)]
    batch = []
    for n in range(40):
        person = people[n % 7]
        batch.append(event(email=person, external_id=f"view-{n}"))
        batch.append(order(n, email=person))
        batch.append(refund(n, "5", f"r{n}", email=person))
        batch.append(refund(n, "1", external_id=f"back-{n}", email=person))
    return batch


def test_twenty_identical_batches_at_once_are_one(fresh_engine: Engine, settings: Settings) -> None:
    batch = everything()
    mixed = []
    for n in range(20):
        mine = list(batch)
        random.Random(n).shuffle(mine)
        mixed.append(mine)
    engine = wide(fresh_engine)
    results = in_parallel(engine, settings, mixed)
    engine.dispose()
    assert sum(result.status is Status.ACCEPTED for batch in results for result in batch) == 160
    assert sum(result.status is Status.DUPLICATE for batch in results for result in batch) == 160 * 19
    for raw in batch:
        named = {
            (answers[mine.index(raw)].event_id, answers[mine.index(raw)].contact_id)
            for mine, answers in zip(mixed, results, strict=True)
        }
        assert len(named) == 1, "every batch names the one event and its contact"
    with fresh_engine.begin() as tx:
        assert (count(tx, "contacts"), count(tx, "orders"), count(tx, "refunds")) == (7, 40, 80)
        milestones = tx.scalar(text("select count(*) from events where event_type = 'milestone_reached'"))
        assert milestones == tx.scalar(text(
            "select count(*) from (select count(*) as placed from orders where contact_id > 0 group by contact_id) as o"
            " join unnest(array[1, 5, 10, 25]) as reached on reached <= placed"))  # fmt: skip
        assert count(tx, "events") == 160 + 7 + milestones
        assert tx.scalar(text("select sum(event_count) from event_pending")) == 160 + 7 + milestones
        sums = tx.execute(text("select count(*), sum(net_total), min(net_total) from orders")).one()
        assert tuple(sums) == (40, 40 * Decimal(44), Decimal(44))
        assert tx.scalar(text("select count(*) from refunds where applied_at is null")) == 0


def test_an_order_and_its_refund_at_one_moment_find_each_other(fresh_engine: Engine, settings: Settings) -> None:
    engine = wide(fresh_engine)
    with engine.begin() as tx:
        make_contact(tx, email="ana@shop.example")
    for n in range(15):
        in_parallel(engine, settings, [[order(n)], [refund(n, "50", "r")]])
    engine.dispose()
    with fresh_engine.begin() as tx:
        assert tx.scalar(text("select sum(net_total) from orders")) == 0
        assert tx.scalar(text("select count(*) from refunds where applied_at is null")) == 0


def test_an_order_and_its_rate_at_one_moment_find_each_other(fresh_engine: Engine, settings: Settings) -> None:
    engine = wide(fresh_engine)
    with engine.begin() as tx:
        make_contact(tx, email="ana@shop.example")
    for n in range(15):
        day = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n)
        rate = NewRate(rate_date=day.date(), base="EUR", quote="USD", rate=Decimal(n + 1), source="test")
        body = {**order(n), "occurred_at": day.isoformat()}
        barrier = Barrier(2)

        def load(rate: NewRate = rate, barrier: Barrier = barrier) -> None:
            with engine.begin() as tx:
                barrier.wait()
                load_rates(tx, [rate], now=NOW)

        def tell(body: dict[str, Any] = body, barrier: Barrier = barrier) -> None:
            with engine.begin() as tx:
                barrier.wait()
                take(tx, settings, body)

        with ThreadPoolExecutor(2) as pool:
            for done in (pool.submit(load), pool.submit(tell)):
                done.result()
    engine.dispose()
    with fresh_engine.begin() as tx:
        found = tx.execute(text("select order_id::int, fx_rate from orders order by order_id::int")).all()
    assert [tuple(row) for row in found] == [(n, Decimal(n + 1)) for n in range(15)]


def test_what_another_transaction_stores_meanwhile_comes_first(fresh_engine: Engine, settings: Settings) -> None:
    """The losing order leaves no key behind, and names the winner's event."""
    with fresh_engine.begin() as tx:
        make_contact(tx, email="ana@shop.example")
    with fresh_engine.connect() as one, fresh_engine.connect() as two:
        begun, later = one.begin(), two.begin()
        first = take(one, settings, order(1, external_id="a"), event(external_id="v"))
        with ThreadPoolExecutor(1) as pool:
            given = [order(1, external_id="b"), order(2, external_id="v"), order(1, "51", external_id="c")]
            waiting = pool.submit(take, two, settings, *given)
            with fresh_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
                while not watcher.scalar(text("select 1 from pg_stat_activity where wait_event_type = 'Lock'")):
                    pass
            begun.commit()
            results = waiting.result(20)
        later.commit()
    assert [result.status for result in results] == [Status.DUPLICATE, Status.DUPLICATE, Status.REJECTED]
    assert [result.event_id for result in results[:2]] == [result.event_id for result in first]
    with fresh_engine.begin() as tx:
        assert set(tx.scalars(text("select external_id from event_keys"))) == {"a", "v"}
        assert count(tx, "orders") == 1


def test_a_lost_claim_is_found(tx: Connection) -> None:
    at = NOW.isoformat()
    told = {n: Told(source="s", external_id=number, occurred_at=at) for n, number in enumerate(["a", None])}
    numbers, known = reserve(tx, told)
    assert (set(numbers), known) == ({0, 1}, set())
    again, known = reserve(tx, {7: told[0], 8: told[1]})
    assert (set(again), known) == ({8}, {7})
    assert find_first(tx, {7: told[0]})[7].event_id == numbers[0]


def test_a_conflict_in_a_batch_takes_nothing_with_it(tx: Connection, settings: Settings) -> None:
    take(tx, settings, order(1))
    before = count(tx, "events")
    results = take(tx, settings, order(1, "51", external_id="x"), refund(1, "5", external_id="y"), event())
    assert [result.status for result in results] == [Status.REJECTED, Status.ACCEPTED, Status.ACCEPTED]
    assert results[0].rejected is not None and results[0].rejected.code == "order_conflict"
    assert count(tx, "events") == before + 2
    assert list(tx.scalars(text("select external_id from event_keys"))) == ["y"]
    assert tx.scalar(text("select net_total from orders")) == 45


def test_late_events_reach_the_months_they_belong_to(tx: Connection, settings: Settings) -> None:
    days = ("1971-01-01", "2019-06-05", "2026-10-31", "2026-11-22")
    take(tx, settings, *(event(occurred_at=f"{day}T00:00:00Z") for day in days))
    rows = tx.execute(text("select tableoid::regclass::text as part, occurred_at from events "
                           "where event_type = 'page_viewed' order by occurred_at")).all()  # fmt: skip
    assert [row.occurred_at.date().isoformat() for row in rows] == list(days)
    waiting = tx.execute(text("select occurred_at from event_pending order by occurred_at")).scalars().all()
    assert [moment.date().isoformat() for moment in waiting[:3]] == list(days[:3])


def test_an_empty_batch_is_nothing(tx: Connection, settings: Settings) -> None:
    assert take(tx, settings) == []


FACTS = [
    *(order(n, str(10 + n)) for n in range(3)),
    *(order(n, str(10 + n), external_id=f"again-{n}") for n in range(3)),
    *(refund(n, "1.25", f"r{n}") for n in range(3)),
    refund(0, "2", external_id="unnumbered"), refund(0, "2", external_id="unnumbered"), refund(1, "1.25", "r1"),
    refund(9, "7", "early"), event(external_id="view"), event(external_id="view", properties={"url": "/other"}),
]  # fmt: skip
ORDERS = "select order_id, total, refunded_total from orders order by order_id"
EXPECTED = [("0", "10.00", "3.25"), ("1", "11.00", "1.25"), ("2", "12.00", "1.25")]


@hypothesis.settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.permutations(range(len(FACTS))), st.lists(st.integers(1, len(FACTS)), max_size=6))
@pytest.mark.thorough
def test_any_order_of_arrival_gives_the_same_orders(
    tx: Connection, settings: Settings, places: list[int], cuts: list[int]
) -> None:
    facts = [FACTS[place] for place in places]
    edges = [0, *sorted(cuts), len(facts)]
    parts = [facts[begin:end] for begin, end in pairwise(edges)]
    savepoint = tx.begin_nested()
    results = [result for part in parts for result in take(tx, settings, *part)]
    found = [(row.order_id, f"{row.total:.2f}", f"{row.refunded_total:.2f}") for row in tx.execute(text(ORDERS))]
    told = sum(result.status is Status.ACCEPTED for result in results)
    stored = tx.scalar(text("select count(*) from events where event_type not in ('contact_created', "
                            "'milestone_reached')"))  # fmt: skip
    refunds = tx.scalar(text("select count(*) from refunds"))
    savepoint.rollback()
    assert found == EXPECTED
    assert (told, stored, refunds) == (9, 9, 5)
