"""Orders, refunds and exchange rates: each fact once, with its event, converted by the last rate before it.

An order is known by (source, order_id): told again it is a duplicate, told differently a conflict, and never stored
twice. A refund may come before its order and is taken off when both are here, also when they come at one moment.
An order without a rate waits for one. `record_...` and `load_rates` take history; `ingestion` uses the steps they are
made of. Nothing here checks values (the faces do) or looks contacts up.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar
from zlib import crc32

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.events import milestones
from mautolib.events.append import Outcome
from mautolib.events.numbering import Numbered, Told, find_owners, release, reserve, rows_json, store
from mautolib.events.types import EventType
from mautolib.settings import Settings

__all__ = ["KnownOrder", "LoadedRates", "NewOrder", "NewRate", "NewRefund", "Recorded", "Refunded", "apply_refunds",
           "compare_orders", "convert_waiting", "find_refunded", "insert_orders", "insert_refunds", "load_rates",
           "lock_numbers", "record_orders", "record_refunds"]  # fmt: skip

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_AT_ONCE = 2000
_NONE = Decimal(0)
#: Advisory locks: numbers of orders in buckets, and the rates.
_NUMBERS_SPACE, _RATES_SPACE, _BUCKETS = 722618, 722619, 64


@dataclass(frozen=True, kw_only=True)
class NewOrder:
    """An order as the shop tells it; amounts in `currency` (ISO 4217).

    Args:
        total: what was paid, tax and shipping included.
        external_id: of the event, where the shop numbers its events.
    """

    order_id: str
    placed_at: datetime
    currency: str
    total: Decimal
    lines: Sequence[Mapping[str, Any]]
    contact_id: int = 0
    source: str = "api"
    discount: Decimal = _NONE
    shipping: Decimal = _NONE
    tax: Decimal = _NONE
    cart_id: str | None = None
    external_id: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NewRefund:
    """Money that went back; with a `refund_id` it is counted once however often it is told."""

    order_id: str
    occurred_at: datetime
    currency: str
    amount: Decimal
    source: str = "api"
    refund_id: str | None = None
    contact_id: int = 0
    external_id: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NewRate:
    """Units of `quote` for one unit of `base` on a day."""

    rate_date: date
    base: str
    quote: str
    rate: Decimal
    source: str


@dataclass(frozen=True, kw_only=True)
class LoadedRates:
    """How many rates were given (repetitions within one call counted once), and how many of them are news."""

    given: int
    changed: int


@dataclass(frozen=True, kw_only=True)
class KnownOrder:
    """A stored order that is told again."""

    order_key: int
    event_id: int
    contact_id: int
    is_same: bool


@dataclass(frozen=True, kw_only=True)
class Refunded:
    """What is known about a told refund: its order, where that is here, and the event that told the refund first."""

    order_key: int | None
    currency: str | None
    contact_id: int
    is_known: bool
    event_id: int
    first_contact_id: int


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What became of each given order or refund, in the order given."""

    outcomes: tuple[Outcome, ...]

    @property
    def accepted(self) -> int:
        """How many are new."""
        return self.outcomes.count(Outcome.ACCEPTED)


def record_orders(
    tx: Tx, orders: Iterable[NewOrder], settings: Settings, *, now: datetime, effects: bool = True
) -> Recorded:
    """Store orders with their `order_placed` events, tell milestones, and take off refunds that waited.

    Args:
        effects: queue the events for dispatch; False loads silent history.
    """
    outcomes: list[Outcome] = []
    buyers: set[int] = set()
    for part in _parts(orders):
        done = _record_part(tx, part, settings, now, effects)
        buyers |= {order.contact_id for order, one in zip(part, done, strict=True) if one is Outcome.ACCEPTED}
        outcomes += done
    milestones.tell_orders(tx, buyers, now=now, effects=effects)
    _LOG.info("orders: %s given, %s new", len(outcomes), outcomes.count(Outcome.ACCEPTED))
    return Recorded(outcomes=tuple(outcomes))


def record_refunds(tx: Tx, refunds: Iterable[NewRefund], *, now: datetime, effects: bool = True) -> Recorded:
    """Store refunds with their `order_refunded` events; those whose order is here are taken off it."""
    outcomes: list[Outcome] = []
    for part in _parts(refunds):
        numbers = [(one.source, one.order_id) for one in part]
        lock_numbers(tx, (), numbers)
        refunded = find_refunded(tx, dict(enumerate(part)))
        event_ids, _ = reserve(tx, dict(enumerate(map(_told, part))))
        new = insert_refunds(tx, {event_id: part[n] for n, event_id in event_ids.items()})
        release(tx, [_told(part[n]) for n, event_id in event_ids.items() if event_id not in new])
        kept = {n: event_id for n, event_id in event_ids.items() if event_id in new}
        events = [_refund_event(part[n], event_id, refunded[n]) for n, event_id in kept.items()]
        store(tx, events, now=now, effects=effects)
        apply_refunds(tx, numbers, now=now)
        outcomes += [Outcome.ACCEPTED if n in kept else Outcome.DUPLICATE for n in range(len(part))]
    _LOG.info("refunds: %s given, %s new", len(outcomes), outcomes.count(Outcome.ACCEPTED))
    return Recorded(outcomes=tuple(outcomes))


def load_rates(tx: Tx, rates: Iterable[NewRate], *, now: datetime) -> LoadedRates:
    """Store rates and restate the orders they change; of two for one day and pair the later one given counts."""
    _lock(tx, [{"space": _RATES_SPACE, "bucket": 0, "is_exclusive": True}])
    given, changed, days = 0, 0, set()
    for part in _parts(rates):
        rows = rows_json({"ordinal": n, **vars(one)} for n, one in enumerate(part))
        row = tx.execute(statement("events.upsert_rates"), {"rows": rows, "now": now}).one()
        given, changed = given + row.given_count, changed + row.rate_count
        days.add(row.first_day)
    since = min(filter(None, days), default=None)
    if since is not None:
        tx.execute(statement("events.convert_orders"), {"since": datetime.combine(since, time(), UTC)})
    _LOG.info("exchange rates: %s given, %s new or changed", given, changed)
    return LoadedRates(given=given, changed=changed)


def convert_waiting(tx: Tx) -> int:
    """Give orders that wait for an exchange rate theirs, if it has come; returns how many."""
    done = tx.execute(statement("events.convert_orders"), {"since": None})
    return int(done.rowcount)


def lock_numbers(tx: Tx, orders: Iterable[tuple[str, str]], refunds: Iterable[tuple[str, str]]) -> None:
    """Keep an order and its refund from being stored at one moment, each without seeing the other.

    Takes (source, order_id) of each; the first thing a transaction does that stores orders or refunds.
    """
    shared, alone = {_bucket(number) for number in orders}, {_bucket(number) for number in refunds}
    rows = [
        {"space": _NUMBERS_SPACE, "bucket": bucket, "is_exclusive": bucket in alone} for bucket in shared | alone
    ]
    if shared:
        rows.append({"space": _RATES_SPACE, "bucket": 0, "is_exclusive": False})
    _lock(tx, rows)


def insert_orders(
    tx: Tx, orders: Mapping[int, NewOrder], settings: Settings, *, now: datetime
) -> dict[int, int]:
    """Store orders by the numbers of their events; a known (source, order_id) is passed over.

    Returns: the key of each new order by its event.
    """
    if not orders:
        return {}
    rows = rows_json({**_content(order), "ordinal": event_id, "event_id": event_id, "contact_id": order.contact_id,
                      "placed_at": order.placed_at} for event_id, order in orders.items())  # fmt: skip
    binds = {"rows": rows, "reporting_currency": settings.reporting_currency, "now": now}
    return {row.ordinal: row.order_key for row in tx.execute(statement("events.insert_orders"), binds)}


def compare_orders(tx: Tx, orders: Mapping[int, NewOrder]) -> dict[int, KnownOrder]:
    """Which of these orders are stored, and whether with the same content: currency, amounts, lines and cart."""
    if not orders:
        return {}
    rows = rows_json({**_content(order), "ordinal": n} for n, order in orders.items())
    return {
        row.ordinal: KnownOrder(order_key=row.order_key, event_id=row.event_id or 0, contact_id=row.contact_id,
                                is_same=row.is_same)
        for row in tx.execute(statement("events.compare_orders"), {"rows": rows})
    }  # fmt: skip


def find_refunded(tx: Tx, refunds: Mapping[int, NewRefund]) -> dict[int, Refunded]:
    """What is known of each of these refunds."""
    if not refunds:
        return {}
    rows = rows_json({"ordinal": n, "source": one.source, "order_id": one.order_id, "refund_id": one.refund_id}
                     for n, one in refunds.items())  # fmt: skip
    found = tx.execute(statement("events.find_refunded"), {"rows": rows}).all()
    owners = find_owners(tx, [(row.event_id, row.occurred_at) for row in found if row.event_id is not None])
    return {
        row.ordinal: Refunded(
            order_key=row.order_key, currency=row.currency, contact_id=row.contact_id, is_known=row.is_known,
            event_id=row.event_id or 0, first_contact_id=owners.get(row.event_id, 0),
        )
        for row in found
    }  # fmt: skip


def insert_refunds(tx: Tx, refunds: Mapping[int, NewRefund]) -> set[int]:
    """Store refunds by the numbers of their events; a known refund_id is passed over. Returns the new events."""
    if not refunds:
        return set()
    names = ("source", "order_id", "refund_id", "currency", "amount", "occurred_at")
    rows = rows_json({"ordinal": event_id, "event_id": event_id, **{name: getattr(one, name) for name in names}}
                     for event_id, one in refunds.items())  # fmt: skip
    return set(tx.scalars(statement("events.insert_refunds"), {"rows": rows}))


def apply_refunds(tx: Tx, numbers: Iterable[tuple[str, str]], *, now: datetime) -> int:
    """Take the waiting refunds of these (source, order_id) off their orders, where these are here; returns how many."""
    rows = [{"source": source, "order_id": order_id} for source, order_id in dict.fromkeys(numbers)]
    if not rows:
        return 0
    return int(tx.scalar(statement("events.apply_refunds"), {"rows": rows_json(rows), "now": now}) or 0)


def _record_part(
    tx: Tx, part: Sequence[NewOrder], settings: Settings, now: datetime, effects: bool
) -> list[Outcome]:
    numbers = [(order.source, order.order_id) for order in part]
    lock_numbers(tx, numbers, ())
    event_ids, known = reserve(tx, dict(enumerate(map(_told, part))))
    keys = insert_orders(tx, {event_id: part[n] for n, event_id in event_ids.items()}, settings, now=now)
    again = {n: part[n] for n, event_id in event_ids.items() if event_id not in keys}
    release(tx, map(_told, again.values()))
    same = {n: one.is_same for n, one in compare_orders(tx, again).items()}
    store(tx, [_order_event(part[n], event_id, keys[event_id]) for n, event_id in event_ids.items()
               if event_id in keys], now=now, effects=effects)  # fmt: skip
    apply_refunds(tx, numbers, now=now)
    return [
        Outcome.ACCEPTED if n not in known and n not in again
        else Outcome.DUPLICATE if n in known or same[n]
        else Outcome.CONFLICT
        for n in range(len(part))
    ]  # fmt: skip


def _order_event(order: NewOrder, event_id: int, order_key: int) -> Numbered:
    told = {"discount": order.discount, "shipping": order.shipping, "tax": order.tax}
    properties = {
        **order.properties,
        "order_id": order.order_id, "currency": order.currency, "total": str(order.total),
        "lines": json.loads(json.dumps([dict(line) for line in order.lines], default=str)),
        **{name: str(amount) for name, amount in told.items() if amount},
        **({"cart_id": order.cart_id} if order.cart_id is not None else {}),
    }  # fmt: skip
    return Numbered(
        event_id=event_id, event_type=EventType.ORDER_PLACED, occurred_at=order.placed_at.isoformat(),
        source=order.source, contact_id=order.contact_id, external_id=order.external_id, properties=properties,
        order_key=order_key,
    )  # fmt: skip


def _refund_event(refund: NewRefund, event_id: int, known: Refunded) -> Numbered:
    properties = {**refund.properties, "order_id": refund.order_id, "currency": refund.currency,
                  "amount": str(refund.amount)}  # fmt: skip
    if refund.refund_id is not None:
        properties["refund_id"] = refund.refund_id
    return Numbered(
        event_id=event_id, event_type=EventType.ORDER_REFUNDED, occurred_at=refund.occurred_at.isoformat(),
        source=refund.source, contact_id=known.contact_id or refund.contact_id, external_id=refund.external_id,
        properties=properties, order_key=known.order_key,
    )  # fmt: skip


def _content(order: NewOrder) -> dict[str, Any]:
    names = ("source", "order_id", "currency", "total", "discount", "shipping", "tax", "lines", "cart_id")
    return {name: getattr(order, name) for name in names}


def _told(fact: NewOrder | NewRefund) -> Told:
    moment = fact.placed_at if isinstance(fact, NewOrder) else fact.occurred_at
    return Told(source=fact.source, external_id=fact.external_id, occurred_at=moment.isoformat())


def _bucket(number: tuple[str, str]) -> int:
    return crc32("\0".join(number).encode()) % _BUCKETS


def _lock(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        tx.execute(statement("events.lock_orders"), {"rows": rows_json(rows)})


def _parts(items: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while part := list(islice(rest, _AT_ONCE)):
        yield part
