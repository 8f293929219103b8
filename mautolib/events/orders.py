"""Orders, refunds and exchange rates: each fact once, with its event, converted by the last rate before it.

An order is known by (source, order_id): told again it is a duplicate, told differently a conflict, and never stored
twice. A refund may come before its order and is taken off when both are here. An order without a rate waits for one.
Called by the API, imports of history and the demo. It does not check values (the faces do) nor look contacts up.
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

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.events.append import NewEvent, Outcome, append
from mautolib.events.types import EventType
from mautolib.settings import Settings

__all__ = ["NewOrder", "NewRefund", "Recorded", "convert_waiting", "load_rates", "record_orders", "record_refunds"]

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_AT_ONCE = 2000
_NONE = Decimal(0)


@dataclass(frozen=True, kw_only=True)
class NewOrder:
    """An order as the shop tells it; amounts in `currency` (ISO 4217).

    Args:
        total: what was paid, tax and shipping included.
        external_id: of the event, where the shop numbers its events; else made from the order's number.
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
    """Store orders with their `order_placed` events, and take off refunds that waited for them.

    Args:
        effects: queue the events for dispatch; False loads silent history.
    """
    outcomes: list[Outcome] = []
    for part in _parts(orders):
        outcomes += _record_part(tx, part, settings, now, effects)
    tx.execute(statement("events.apply_refunds"), {"now": now})
    _LOG.info("orders: %s given, %s new", len(outcomes), outcomes.count(Outcome.ACCEPTED))
    return Recorded(outcomes=tuple(outcomes))


def record_refunds(tx: Tx, refunds: Iterable[NewRefund], *, now: datetime, effects: bool = True) -> Recorded:
    """Store refunds with their `order_refunded` events; those whose order is here are taken off it."""
    outcomes: list[Outcome] = []
    for part in _parts(refunds):
        names = ("source", "order_id", "refund_id", "currency", "amount", "occurred_at")
        found = {row.ordinal - 1: row for row in tx.execute(statement("events.record_refunds"), _columns(part, names))}
        events = [_refund_event(part[place], row.contact_id, row.order_key) for place, row in found.items()]
        append(tx, events, now=now, effects=effects)
        outcomes += [Outcome.ACCEPTED if n in found else Outcome.DUPLICATE for n in range(len(part))]
    tx.execute(statement("events.apply_refunds"), {"now": now})
    _LOG.info("refunds: %s given, %s new", len(outcomes), outcomes.count(Outcome.ACCEPTED))
    return Recorded(outcomes=tuple(outcomes))


def load_rates(
    tx: Tx, rates: Iterable[tuple[date, str, str, Decimal]], *, source: str, now: datetime
) -> int:
    """Store rates (day, base, quote, units of quote for one unit of base) and restate the orders they change.

    Returns: how many rates were new or changed.
    """
    changed, first_day = 0, None
    for part in _parts(rates):
        days, bases, quotes, values = (list(column) for column in zip(*part, strict=True))
        row = tx.execute(statement("events.upsert_rates"), {
            "rate_date": days, "base": bases, "quote": quotes, "rate": values, "source": source, "now": now,
        }).one()  # fmt: skip
        changed += row.rate_count
        if row.first_day is not None and (first_day is None or row.first_day < first_day):
            first_day = row.first_day
    if first_day is not None:
        tx.execute(statement("events.convert_orders"), {"since": datetime.combine(first_day, time(), UTC)})
    _LOG.info("exchange rates: %s new or changed", changed)
    return changed


def convert_waiting(tx: Tx) -> int:
    """Give orders that wait for an exchange rate theirs, if it has come; returns how many."""
    done = tx.execute(statement("events.convert_orders"), {"since": None})
    return int(done.rowcount)


def _record_part(
    tx: Tx, part: Sequence[NewOrder], settings: Settings, now: datetime, effects: bool
) -> list[Outcome]:
    content = ("source", "order_id", "currency", "total", "discount", "shipping", "tax", "cart_id")
    columns = _columns(part, (*content, "contact_id", "placed_at"))
    columns["lines"] = [json.dumps([dict(line) for line in order.lines], default=str) for order in part]
    stored = {
        row.ordinal - 1: row.order_key
        for row in tx.execute(
            statement("events.record_orders"),
            {**columns, "reporting_currency": settings.reporting_currency, "now": now},
        )
    }
    append(tx, [_order_event(part[n], stored[n]) for n in sorted(stored)], now=now, effects=effects)
    if len(stored) == len(part):
        return [Outcome.ACCEPTED] * len(part)
    told = {name: columns[name] for name in (*content, "lines")}
    known = {row.ordinal - 1: row.is_same for row in tx.execute(statement("events.compare_orders"), told)}
    return [
        Outcome.ACCEPTED if n in stored else Outcome.DUPLICATE if known[n] else Outcome.CONFLICT
        for n in range(len(part))
    ]


def _order_event(order: NewOrder, order_key: int) -> NewEvent:
    told = {"discount": order.discount, "shipping": order.shipping, "tax": order.tax}
    properties = {
        **order.properties,
        "order_id": order.order_id, "currency": order.currency, "total": str(order.total),
        "lines": json.loads(json.dumps([dict(line) for line in order.lines], default=str)),
        **{name: str(amount) for name, amount in told.items() if amount},
        **({"cart_id": order.cart_id} if order.cart_id is not None else {}),
    }  # fmt: skip
    return NewEvent(
        event_type=EventType.ORDER_PLACED, occurred_at=order.placed_at, contact_id=order.contact_id,
        source=order.source, external_id=order.external_id or f"order:{order.order_id}", properties=properties,
        order_key=order_key,
    )  # fmt: skip


def _refund_event(refund: NewRefund, contact_id: int, order_key: int | None) -> NewEvent:
    properties = {"order_id": refund.order_id, "currency": refund.currency, "amount": str(refund.amount)}
    number = None
    if refund.refund_id is not None:
        properties["refund_id"] = refund.refund_id
        number = f"refund:{refund.order_id}:{refund.refund_id}"
    return NewEvent(
        event_type=EventType.ORDER_REFUNDED, occurred_at=refund.occurred_at,
        contact_id=contact_id or refund.contact_id, source=refund.source, external_id=number,
        properties=properties, order_key=order_key,
    )  # fmt: skip


def _columns(part: Sequence[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [getattr(one, name) for one in part] for name in names}


def _parts(items: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while part := list(islice(rest, _AT_ONCE)):
        yield part
