"""Reading events, orders and exchange rates for people: filters, newest first, counted exactly or up to a bound.

Every list has an index for its order (migration 0010), over all months; paging is by position (`skip`) or after a known
row, which neither repeats nor skips rows. Called by the API; changes nothing. Figures come from schema `analytics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Numeric, Row, Select, and_, cast, func, select, tuple_

from mautolib.db import tables
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.orders import NewRate
from mautolib.events.types import EventType, canonical

__all__ = ["Event", "EventFilter", "LoadedRate", "Order", "OrderFilter", "OrderStatus", "RateFilter", "count_events",
           "count_orders", "count_rates", "get_event", "get_order", "order_owner", "search_events",
           "search_orders", "search_rates"]  # fmt: skip

_E, _O, _R = tables.events.c, tables.orders.c, tables.fx_rates.c
#: Room for the largest amount at the highest rate: one order that does not fit would spoil every list it is in.
_CONVERTED = Numeric(38, 4)


class OrderStatus(StrEnum):
    """How much of an order was refunded."""

    PLACED = "placed"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event as stored. Ids that are not known are None; a refund finds its order also when that came later."""

    event_id: int
    event_type: str
    source: str
    external_id: str | None
    contact_id: int | None
    occurred_at: datetime
    received_at: datetime
    properties: Mapping[str, Any]
    campaign_id: int | None
    message_id: int | None
    order_key: int | None


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events to list; everything given must hold. Moments: from `since` on, before `until`."""

    contact_id: int | None = None
    event_type: str | None = None
    source: str | None = None
    campaign_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order with its refunds so far; amounts in `currency`, `net_reporting` in `reporting_currency`."""

    order_key: int
    order_id: str
    source: str
    contact_id: int | None
    placed_at: datetime
    currency: str
    total: Decimal
    discount: Decimal
    shipping: Decimal
    tax: Decimal
    refunded_total: Decimal
    net_total: Decimal
    lines: Sequence[Mapping[str, Any]]
    cart_id: str | None
    net_reporting: Decimal | None
    reporting_currency: str
    fx_rate: Decimal | None
    fx_date: date | None

    @property
    def status(self) -> OrderStatus:
        """What was refunded so far."""
        if self.refunded_total <= 0:
            return OrderStatus.PLACED
        return OrderStatus.REFUNDED if self.refunded_total >= self.total else OrderStatus.PARTIALLY_REFUNDED


@dataclass(frozen=True, kw_only=True)
class OrderFilter:
    """Which orders to list; everything given must hold. Moments: from `since` on, before `until`."""

    contact_id: int | None = None
    status: OrderStatus | None = None
    currency: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class LoadedRate(NewRate):
    """A rate and when it was loaded."""

    loaded_at: datetime


@dataclass(frozen=True, kw_only=True)
class RateFilter:
    """Which rates to list; everything given must hold, both days included."""

    base: str | None = None
    quote: str | None = None
    since: date | None = None
    until: date | None = None


def search_events(
    tx: Connection, filters: EventFilter, *, skip: int = 0, limit: int = 50, after: tuple[datetime, int] | None = None
) -> list[Event]:
    """Events that match, newest `occurred_at` first.

    Args:
        after: (occurred_at, event_id) of the last row of the page before.

    Raises:
        InvalidInput: no such contact or campaign.
    """
    _check_references(tx, {"contact_id": filters.contact_id, "campaign_id": filters.campaign_id})
    query = _events().where(*_of_events(filters))
    if after is not None:
        # The first condition says the same less exactly; it leaves out the months that are over.
        query = query.where(_E.occurred_at <= after[0], tuple_(_E.occurred_at, _E.event_id) < after)
    query = query.order_by(_E.occurred_at.desc(), _E.event_id.desc())
    return [_event(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count_events(tx: Connection, filters: EventFilter, *, at_most: int | None = None) -> int:
    """How many events match; with `at_most` counting stops there."""
    return _count(tx, select(_E.event_id).where(*_of_events(filters)), at_most)


def get_event(tx: Connection, event_id: int) -> Event:
    """The event with this number, in whatever month it is.

    Raises:
        NotFound: no such event.
    """
    # As index events_by_block has it; the primary key begins with the moment, which is not known here.
    row = tx.execute(_events().where(_E.event_id + 0 == event_id)).one_or_none()
    if row is None:
        raise NotFound("Event not found")
    return _event(row)


def search_orders(
    tx: Connection, filters: OrderFilter, *, skip: int = 0, limit: int = 50, after: tuple[datetime, int] | None = None
) -> list[Order]:
    """Orders that match, newest `placed_at` first.

    Args:
        after: (placed_at, order_key) of the last row of the page before.

    Raises:
        InvalidInput: no such contact.
    """
    _check_references(tx, {"contact_id": filters.contact_id})
    query = _orders().where(*_of_orders(filters))
    if after is not None:
        query = query.where(tuple_(_O.placed_at, _O.order_key) < after)
    query = query.order_by(_O.placed_at.desc(), _O.order_key.desc())
    return [_order(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count_orders(tx: Connection, filters: OrderFilter, *, at_most: int | None = None) -> int:
    """How many orders match; with `at_most` counting stops there."""
    return _count(tx, select(_O.order_key).where(*_of_orders(filters)), at_most)


def get_order(tx: Connection, order_key: int) -> Order:
    """The order with this key.

    Raises:
        NotFound: no such order.
    """
    row = tx.execute(_orders().where(_O.order_key == order_key)).one_or_none()
    if row is None:
        raise NotFound("Order not found")
    return _order(row)


def order_owner(tx: Connection, source: str, order_id: str) -> int | None:
    """Whose order a shop's number names, None where it is not known (any more)."""
    return tx.scalar(select(_O.contact_id).where(_O.source == source, _O.order_id == order_id)) or None


def search_rates(
    tx: Connection, filters: RateFilter, *, skip: int = 0, limit: int = 50,
    after: tuple[date, str, str] | None = None,
) -> list[LoadedRate]:  # fmt: skip
    """Rates that match, newest day first, within a day by base and quote.

    Args:
        after: (rate_date, base, quote) of the last row of the page before.
    """
    query = select(tables.fx_rates).where(*_of_rates(filters))
    if after is not None:
        day, base, quote = after
        same_day = and_(_R.rate_date == day, tuple_(_R.base, _R.quote) > (base, quote))
        query = query.where(_R.rate_date <= day, (_R.rate_date < day) | same_day)
    query = query.order_by(_R.rate_date.desc(), _R.base, _R.quote)
    return [LoadedRate(**row) for row in tx.execute(query.offset(skip).limit(limit)).mappings()]


def count_rates(tx: Connection, filters: RateFilter, *, at_most: int | None = None) -> int:
    """How many rates match; with `at_most` counting stops there."""
    return _count(tx, select(_R.base).where(*_of_rates(filters)), at_most)


def _events() -> Select[Any]:
    refunded = select(_O.order_key).where(
        _E.event_type == str(EventType.ORDER_REFUNDED), _O.source == _E.source,
        _O.order_id == _E.properties["order_id"].astext,
    )  # fmt: skip
    columns = [column for column in tables.events.c if column.name != "order_key"]
    return select(*columns, func.coalesce(_E.order_key, refunded.scalar_subquery()).label("order_key"))


def _event(row: Row[Any]) -> Event:
    values = dict(row._mapping)
    return Event(**{**values, "contact_id": values["contact_id"] or None})


def _of_events(wanted: EventFilter) -> list[ColumnElement[bool]]:
    equal = {"contact_id": wanted.contact_id, "source": wanted.source, "campaign_id": wanted.campaign_id,
             "event_type": None if wanted.event_type is None else canonical(wanted.event_type)}  # fmt: skip
    found = [_E[name] == value for name, value in equal.items() if value is not None]
    return found + _between(_E.occurred_at, wanted.since, wanted.until)


def _orders() -> Select[Any]:
    columns = [column for column in tables.orders.c if column.name not in ("received_at", "event_id")]
    return select(*columns, cast(_O.net_total * _O.fx_rate, _CONVERTED).label("net_reporting"))


def _order(row: Row[Any]) -> Order:
    values = dict(row._mapping)
    return Order(**{**values, "contact_id": values["contact_id"] or None})


def _of_orders(wanted: OrderFilter) -> list[ColumnElement[bool]]:
    found = _between(_O.placed_at, wanted.since, wanted.until)
    if wanted.contact_id is not None:
        found.append(_O.contact_id == wanted.contact_id)
    if wanted.currency is not None:
        found.append(_O.currency == wanted.currency)
    if wanted.status is OrderStatus.PLACED:
        found.append(_O.refunded_total <= 0)
    elif wanted.status is not None:
        whole = _O.refunded_total >= _O.total
        found += [_O.refunded_total > 0, whole if wanted.status is OrderStatus.REFUNDED else ~whole]
    return found


def _of_rates(wanted: RateFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.base is not None:
        found.append(_R.base == wanted.base)
    if wanted.quote is not None:
        found.append(_R.quote == wanted.quote)
    if wanted.since is not None:
        found.append(_R.rate_date >= wanted.since)
    if wanted.until is not None:
        found.append(_R.rate_date <= wanted.until)
    return found


def _between(
    moment: ColumnElement[datetime], since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    found = []
    if since is not None:
        found.append(moment >= since)
    if until is not None:
        found.append(moment < until)
    return found


def _count(tx: Connection, query: Select[Any], at_most: int | None) -> int:
    if at_most is not None:
        query = query.limit(at_most)
    return int(tx.scalar(select(func.count()).select_from(query.subquery())) or 0)


def _check_references(tx: Connection, wanted: Mapping[str, int | None]) -> None:
    known: dict[str, tuple[FromClause, str]] = {
        "contact_id": (tables.contacts, "Contact not found"), "campaign_id": (tables.campaigns, "Campaign not found"),
    }  # fmt: skip
    for name, number in wanted.items():
        table, missing = known[name]
        if number is not None and tx.scalar(select(table.c[name]).where(table.c[name] == number)) is None:
            raise InvalidInput(missing, path=("query", name))
