"""Orders, refunds and exchange rates: each once, converted by the last rate before them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, text

from mautolib.events import reading
from mautolib.events.append import Outcome
from mautolib.events.orders import (
    LoadedRates,
    NewOrder,
    NewRate,
    NewRefund,
    convert_waiting,
    load_rates,
    record_orders,
    record_refunds,
)
from mautolib.segments import compile as compiling
from mautolib.segments.rules import Definition
from mautolib.settings import Settings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORDER = NewOrder(
    order_id="1001", placed_at=NOW - timedelta(days=2), currency="EUR", total=Decimal("59.90"), contact_id=4,
    source="shop", lines=[{"sku": "TEA", "quantity": 2, "unit_price": Decimal("29.95")}], tax=Decimal("9.56"),
)  # fmt: skip


def _one(tx: Connection, query: str) -> tuple[object, ...]:
    return tuple(tx.execute(text(query)).one())


def _orders(tx: Connection, settings: Settings, *orders: NewOrder, effects: bool = True) -> list[Outcome]:
    return list(record_orders(tx, orders, settings, now=NOW, effects=effects).outcomes)


def _rate(day: date, base: str, quote: str, rate: str, source: str = "test") -> NewRate:
    return NewRate(rate_date=day, base=base, quote=quote, rate=Decimal(rate), source=source)


def test_an_order_is_stored_with_its_event(tx: Connection, settings: Settings) -> None:
    assert _orders(tx, settings, ORDER) == [Outcome.ACCEPTED]
    stored = _one(tx, "select contact_id, total, net_total, tax, currency, reporting_currency, lines from orders")
    assert stored == (4, Decimal("59.90"), Decimal("59.90"), Decimal("9.56"), "EUR", "USD",
                      [{"sku": "TEA", "quantity": 2, "unit_price": "29.95"}])  # fmt: skip
    event = tx.execute(text("select events.*, orders.order_key as key from events join orders using (order_key)")).one()
    assert _one(tx, "select count(*) from events where event_type <> 'milestone_reached'") == (1,)
    assert (event.event_type, event.source, event.external_id, event.contact_id, event.occurred_at) == (
        "order_placed", "shop", None, 4, ORDER.placed_at)  # fmt: skip
    assert event.properties == {"order_id": "1001", "currency": "EUR", "total": "59.90", "tax": "9.56",
                                "lines": [{"sku": "TEA", "quantity": 2, "unit_price": "29.95"}]}  # fmt: skip
    told = "select sum(event_count) from event_pending"
    assert _one(tx, told) == (2,), "the order, and that it is the first one"


def test_the_same_again_is_a_duplicate_and_another_content_a_conflict(tx: Connection, settings: Settings) -> None:
    later = replace(ORDER, placed_at=NOW)  # a retry that lets the service choose the time
    other = replace(ORDER, total=Decimal("60"))
    assert _orders(tx, settings, ORDER, ORDER) == [Outcome.ACCEPTED, Outcome.DUPLICATE]
    assert _orders(tx, settings, other, replace(ORDER, order_id="1002"), later) == [
        Outcome.CONFLICT, Outcome.ACCEPTED, Outcome.DUPLICATE]  # fmt: skip
    assert _orders(tx, settings, replace(ORDER, source="other-shop")) == [Outcome.ACCEPTED]
    assert _one(tx, "select count(*), sum(total) from orders") == (3, Decimal("179.70"))
    assert _one(tx, "select count(*) from events where event_type = 'order_placed'") == (3,)


def test_history_is_silent(tx: Connection, settings: Settings) -> None:
    _orders(tx, settings, *(replace(ORDER, order_id=str(n)) for n in range(2500)), effects=False)
    assert _one(tx, "select count(*) from events where event_type = 'order_placed'") == (2500,)
    assert _one(tx, "select count(*) from event_pending") == (0,)


def test_money_is_converted_by_the_last_rate_before_the_order(tx: Connection, settings: Settings) -> None:
    rates = [_rate(date(2026, 11, 18), "EUR", "USD", "1.10"), _rate(date(2026, 11, 19), "EUR", "USD", "1.20"),
             _rate(date(2026, 11, 21), "EUR", "USD", "1.30"), _rate(date(2026, 11, 19), "EUR", "GBP", "0.8"),
             _rate(date(2026, 11, 19), "USD", "CHF", "0.8")]  # fmt: skip
    assert load_rates(tx, rates, now=NOW) == LoadedRates(given=5, changed=5)
    assert load_rates(tx, [*rates, rates[0]], now=NOW) == LoadedRates(given=5, changed=0)
    for number, currency in enumerate(["EUR", "USD", "GBP", "CHF", "JPY"]):
        _orders(tx, settings, replace(ORDER, order_id=str(number), currency=currency))
    found = tx.execute(text("select currency, fx_rate, fx_date from orders order by order_id")).all()
    day = date(2026, 11, 19)
    assert [tuple(row) for row in found] == [
        ("EUR", Decimal("1.2"), day), ("USD", Decimal(1), date(2026, 11, 20)), ("GBP", Decimal("1.5"), day),
        ("CHF", Decimal("1.25"), day), ("JPY", None, None)]  # fmt: skip


def test_a_changed_rate_restates_and_a_late_one_fills(tx: Connection, settings: Settings) -> None:
    load_rates(tx, [_rate(date(2026, 11, 19), "EUR", "USD", "1.20")], now=NOW)
    _orders(tx, settings, ORDER, replace(ORDER, order_id="yen", currency="JPY"))
    load_rates(tx, [_rate(date(2026, 11, 20), "EUR", "USD", "1.25")], now=NOW)
    assert _one(tx, "select fx_rate, fx_date from orders where order_id = '1001'") == (
        Decimal("1.25"), date(2026, 11, 20))  # fmt: skip
    assert convert_waiting(tx) == 0
    tx.execute(text("insert into fx_rates values ('2026-11-01', 'JPY', 'USD', 0.0067)"))
    assert convert_waiting(tx) == 1
    assert _one(tx, "select fx_rate from orders where order_id = 'yen'") == (Decimal("0.0067"),)


def test_a_refund_waits_for_its_order_and_counts_once(tx: Connection, settings: Settings) -> None:
    refund = NewRefund(order_id="1001", occurred_at=NOW, currency="EUR", amount=Decimal("10"), source="shop",
                       refund_id="r1")  # fmt: skip
    early = record_refunds(tx, [refund, refund], now=NOW)
    assert early.outcomes == (Outcome.ACCEPTED, Outcome.DUPLICATE)
    assert _one(tx, "select applied_at from refunds") == (None,)
    _orders(tx, settings, ORDER)
    assert _one(tx, "select refunded_total, net_total from orders") == (Decimal("10"), Decimal("49.90"))
    second = replace(refund, refund_id=None, amount=Decimal("5"))
    assert record_refunds(tx, [refund, second], now=NOW).outcomes == (Outcome.DUPLICATE, Outcome.ACCEPTED)
    assert _one(tx, "select net_total from orders") == (Decimal("44.90"),)
    events = tx.execute(text("select contact_id, properties from events where event_type = 'order_refunded' "
                             "order by event_id")).all()  # fmt: skip
    assert [tuple(row) for row in events] == [
        (0, {"order_id": "1001", "currency": "EUR", "amount": "10", "refund_id": "r1"}),
        (4, {"order_id": "1001", "currency": "EUR", "amount": "5"})]  # fmt: skip


def test_no_amount_and_no_rate_spoils_what_others_read(tx: Connection, settings: Settings) -> None:
    most = Decimal("999999999999999.9999")
    huge = replace(ORDER, total=most, tax=Decimal(0), currency="KWD", placed_at=NOW - timedelta(days=1))
    day = date(2026, 11, 1)
    load_rates(tx, [_rate(day, "KWD", "USD", "3.25"), _rate(day, "OMR", "KWD", "9999999999"),
                    _rate(day, "OMR", "XAF", "0.00000001")], now=NOW)  # fmt: skip
    # What XAF is in USD goes over two rates and fits no column: that order waits for a better one.
    assert _orders(tx, settings, huge, replace(huge, order_id="1002", currency="XAF")) == [Outcome.ACCEPTED] * 2
    load_rates(tx, [_rate(day, "OMR", "USD", "9999999999")], now=NOW)
    shown = {one.order_id: one.net_reporting for one in reading.search_orders(tx, reading.OrderFilter())}
    assert shown == {"1001": (most * Decimal("3.25")).quantize(Decimal("0.0001")), "1002": None}
    assert _one(tx, "select count(net_revenue) from analytics.fct_orders") == (0,)
    setting = compiling.Setting(now=NOW, reporting_currency="USD")
    rules = ({"field": "order.revenue", "operator": "gt", "value": 10**15},
             {"field": "order.revenue", "operator": "gt", "value": 10**15, "currency": "XOF"})  # fmt: skip
    for rule in rules:
        tx.execute(compiling.members(Definition(rules=(rule,)), setting)).all()
    refund = NewRefund(order_id="1001", occurred_at=NOW, currency="KWD", amount=most, source="shop")
    assert record_refunds(tx, [refund, refund], now=NOW).accepted == 2
    assert _one(tx, "select refunded_total, net_total from orders where order_id = '1001'") == (most, Decimal(0))
