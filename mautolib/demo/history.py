"""Eighteen months of shop life before today: opens, clicks, visits, carts, orders, refunds, exchange rates.

Loaded once and quietly (no workflow starts, no mail goes out) after the contacts are in. Every fact has a number of
its own, so that loading again adds nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

from mautolib.demo.people import HISTORY_DAYS, Person
from mautolib.events.append import NewEvent
from mautolib.events.orders import NewOrder, NewRefund
from mautolib.events.types import OBSERVATION, EventType

SOURCE = "demo-shop"
#: Units of US dollar for one unit, about what they were; the demo's rates wobble around them.
DOLLARS = {"USD": 1.0, "EUR": 1.09, "GBP": 1.27, "PLN": 0.254, "SEK": 0.096, "JPY": 0.0067, "BRL": 0.19}
_PRODUCTS = (
    ("TEA-SENCHA", "Sencha, 100 g", 14),
    ("TEA-POT", "Stoneware teapot", 58),
    ("LINEN-SET", "Linen bedding", 169),
    ("LAMP-RICE", "Rice paper lamp", 89),
    ("VASE-BLUE", "Blue vase", 46),
    ("GARDEN-SHEARS", "Garden shears", 39),
)
_PAGES = ("/", "/new", "/tea", "/ceramics", "/linen", "/lighting", "/garden", "/journal")


def events(everybody: Iterable[Person], ids: Mapping[str, int], today: datetime) -> Iterator[NewEvent]:
    """Opens, clicks and visits of everybody, in no particular order.

    Args:
        ids: address key -> contact id, of the contacts that were imported.
    """
    for someone in everybody:
        contact_id = ids.get(someone.email.lower())
        if contact_id is not None:
            yield from _weeks(someone, contact_id, today)


def _weeks(someone: Person, contact_id: int, today: datetime) -> Iterator[NewEvent]:
    dice = random.Random(f"weeks:{someone.number}")
    weeks = int((today - someone.signed_up_at).days / 7) + 1
    for week in range(weeks):
        # Interest fades after the sign-up and settles: what gives retention curves their shape.
        keenness = someone.activity * (0.28 + 0.62 * 0.8**week)
        if dice.random() >= keenness:
            continue
        moment = someone.signed_up_at + timedelta(days=7 * week, seconds=dice.randrange(7 * 86400))
        if moment >= today:
            continue
        kinds: list[tuple[EventType, dict[str, str]]] = [(EventType.EMAIL_OPENED, {})]
        if dice.random() < 0.3:
            kinds.append((EventType.EMAIL_CLICKED, {"url": f"https://shop.example{dice.choice(_PAGES)}"}))
            kinds.append((EventType.PAGE_VIEWED, {"url": f"https://shop.example{dice.choice(_PAGES)}"}))
        for step, (kind, properties) in enumerate(kinds):
            at = moment + timedelta(seconds=40 * step)
            mail = kind is not EventType.PAGE_VIEWED
            yield NewEvent(
                event_type=kind,
                occurred_at=at,
                received_at=at,
                contact_id=contact_id,
                source=OBSERVATION if mail else SOURCE,
                external_id=f"demo:{someone.number}:{week}:{kind}",
                properties=properties,
            )


def orders(everybody: Iterable[Person], ids: Mapping[str, int], today: datetime) -> Iterator[NewOrder]:
    """The orders of everybody, oldest first for each."""
    for someone in everybody:
        contact_id = ids.get(someone.email.lower())
        if contact_id is None:
            continue
        dice = random.Random(f"orders:{someone.number}")
        moment, number = someone.signed_up_at, 0
        while True:
            gap = dice.expovariate(someone.activity / 60 + 0.0004)
            moment += timedelta(days=gap if number else gap * 0.7, seconds=1)
            if moment >= today:
                break
            number += 1
            yield _order(someone, contact_id, number, moment, dice)


def sales(clicked: Iterable[Person], now: datetime) -> Iterator[dict[str, object]]:
    """One in six of those who clicked orders something: bodies of POST /events/, the same for the same people."""
    for someone in clicked:
        dice = random.Random(f"sale:{someone.number}")
        if dice.random() < 1 / 6:
            order = _order(someone, 0, 0, now, dice)
            yield {
                "type": "order_placed", "source": SOURCE, "email": someone.email, "occurred_at": now.isoformat(),
                "properties": {"order_id": f"C{someone.number:06d}", "currency": order.currency,
                               "total": str(order.total), "lines": list(order.lines)},
            }  # fmt: skip


def refunds(bought: Iterable[NewOrder], today: datetime) -> Iterator[NewRefund]:
    """One order in twenty goes back within a month."""
    for order in bought:
        dice = random.Random(f"refund:{order.order_id}")
        back = order.placed_at + timedelta(days=dice.uniform(3, 25))
        if dice.random() < 0.05 and back < today:
            yield NewRefund(
                order_id=order.order_id, occurred_at=back, currency=order.currency, amount=order.total, source=SOURCE,
                refund_id=f"R-{order.order_id}", contact_id=order.contact_id,
            )  # fmt: skip


def _order(someone: Person, contact_id: int, number: int, moment: datetime, dice: random.Random) -> NewOrder:
    currency = someone.market.currency
    lines: list[dict[str, object]] = []
    total = Decimal(0)
    for sku, name, dollars in dice.sample(_PRODUCTS, dice.choice((1, 1, 1, 2, 3))):
        unit = Decimal(dollars / DOLLARS[currency]).quantize(Decimal("0.01"), ROUND_HALF_UP)
        quantity = dice.choice((1, 1, 1, 2))
        total += unit * quantity
        lines.append({"sku": sku, "name": name, "quantity": quantity, "unit_price": str(unit)})
    return NewOrder(
        contact_id=contact_id, source=SOURCE, order_id=f"D{someone.number:06d}-{number}", placed_at=moment,
        currency=currency, total=total, lines=lines,
    )  # fmt: skip


def rates(today: date, quote: str = "USD") -> Iterator[tuple[date, str, str, Decimal]]:
    """Daily exchange rates into `quote` over the history, on working days as central banks publish them."""
    for base, middle in DOLLARS.items():
        if base == quote:
            continue
        dice, drift = random.Random(f"rates:{base}"), 0.0
        for back in range(HISTORY_DAYS + 10, -1, -1):
            day = today - timedelta(days=back)
            drift = 0.985 * drift + dice.gauss(0, 0.004)
            if day.weekday() < 5:
                yield day, base, quote, Decimal(middle * (1 + drift)).quantize(Decimal("0.00000001"))
