"""Orders: list them and show one. They come in as events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

from fastapi import Depends, Query, Response
from pydantic import ConfigDict, Field

from api import paging
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Currency, Id, Moment, OptionalId, Rate8, Shown, ShownDec, parse_id, path_id
from mautolib.auth.roles import Role
from mautolib.events import reading
from mautolib.events.reading import Order, OrderFilter, OrderStatus

router = Router("Orders")
MISSING = "Order not found"
#: Stands for an id nothing can have; ids begin at 1.
_NO_CONTACT = 0


class ShownLine(Answer):
    """One line of an order."""

    model_config = ConfigDict(title="OrderLine")

    sku: str
    name: str
    quantity: int
    unit_price: ShownDec
    discount: ShownDec


class ShownOrder(Answer):
    """An order, less what was refunded so far. Amounts are in `currency` unless their name says otherwise."""

    model_config = ConfigDict(title="Order")

    id: Id
    order_id: str = Field(description="The shop's own number, unique within `source`.", examples=["1001"])
    source: str
    contact_id: OptionalId
    placed_at: Shown
    currency: str
    total: ShownDec
    discount: ShownDec
    shipping: ShownDec
    tax: ShownDec
    refunded_total: ShownDec
    net_total: ShownDec
    status: OrderStatus
    lines: list[ShownLine]
    cart_id: str | None
    net_reporting: ShownDec | None = Field(description="`net_total` in `reporting_currency`; null: no rate yet.")
    reporting_currency: str
    fx_rate: Rate8 | None = Field(description="Units of `reporting_currency` for one of `currency`.")
    fx_date: date | None = Field(description="Day of that rate: the last one on or before the day of the order.")


def shown(order: Order) -> ShownOrder:
    """An order as the API shows it."""
    names = ("placed_at", "currency", "total", "discount", "shipping", "tax", "refunded_total", "net_total", "status",
             "cart_id", "net_reporting", "reporting_currency", "fx_rate", "fx_date", "source", "order_id")  # fmt: skip
    return ShownOrder(
        id=str(order.order_key), contact_id=str(order.contact_id) if order.contact_id else None,
        lines=[_line(line) for line in order.lines], **{name: getattr(order, name) for name in names},
    )  # fmt: skip


def _line(line: Mapping[str, Any]) -> ShownLine:
    # History loaded from elsewhere may lack what its shop did not know.
    return ShownLine(
        sku=line.get("sku", ""), name=line.get("name", ""), quantity=line.get("quantity", 1),
        unit_price=line.get("unit_price", 0), discount=line.get("discount", 0),
    )  # fmt: skip


def _filters(
    contact_id: Annotated[str | None, Query(max_length=20, description="Orders of this contact.")] = None,
    status: Annotated[OrderStatus | None, Query(description="How much was refunded.")] = None,
    currency: Annotated[Currency | None, Query(description="Orders in this currency.")] = None,
    since: Annotated[Moment | None, Query(description="Placed from this moment on.")] = None,
    until: Annotated[Moment | None, Query(description="Placed before this moment.")] = None,
) -> OrderFilter:
    contact = None if contact_id is None else parse_id(contact_id) or _NO_CONTACT
    return OrderFilter(contact_id=contact, status=status, currency=currency, since=since, until=until)


@router.get("/orders/", response_model=list[ShownOrder], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_orders(
    call: CurrentCall, page: paging.SkipLimit, filters: Annotated[OrderFilter, Depends(_filters)]
) -> Response:
    """List orders.

    Newest `placed_at` first. Filters combine with AND.
    """
    after = paging.position(page)
    with call.engine.begin() as tx:
        rows = reading.search_orders(tx, filters, skip=page.skip, limit=page.limit + 1, after=after)
        total = reading.count_orders(tx, filters, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].placed_at.isoformat(), kept[-1].order_key) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.get("/orders/{id}", response_model=ShownOrder, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_order(call: CurrentCall, id: str) -> ShownOrder:
    """Show an order."""
    with call.engine.begin() as tx:
        return shown(reading.get_order(tx, path_id(id, MISSING)))
