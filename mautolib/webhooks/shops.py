"""What Shopify and WooCommerce tell of an order, as events of this service.

Promise: the same order gives the same events with the same numbers, whatever message tells of it and however often, so
a platform may repeat, reorder or leave out messages. Money is read from the order's own currency, digits as written.
Pure functions of the parsed body; called by `arriving`, which checks and stores what comes out. Carts, customers and
products are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from mautolib.events.money import amount_text, parse_amount

__all__ = ["shopify_events", "woocommerce_events"]

_Event = dict[str, Any]
_NONE: Final = Decimal(0)
_CENTS: Final = Decimal("0.0001")
_MOST_LINES: Final = 1000
#: `financial_status` of Shopify: nothing was paid, so a cancelled order has nothing to pay back.
_SHOPIFY_UNPAID: Final = frozenset({"pending", "authorized", "expired", "voided", "unpaid"})
_SHOPIFY_PAID: Final = frozenset({"paid", "partially_refunded", "refunded"})
#: The statuses WooCommerce itself counts as sales; `pending` and `checkout-draft` are not yet an order.
_WOO_SALES: Final = frozenset({"on-hold", "processing", "completed", "refunded"})


def shopify_events(topic: str, body: Mapping[str, Any]) -> list[_Event]:
    """The events of a message of Shopify.

    Args:
        topic: the header `X-Shopify-Topic`.
    Returns: for `orders/...` order_placed, order_paid, order_cancelled and the order's refunds, as far as the order has
        come; for `refunds/create` one refund, without an address; nothing for test orders and other topics.
    """
    if topic == "refunds/create":
        refund = _shopify_refund(body, _text(body.get("order_id")), "", "")
        return [refund] if refund else []
    if not topic.startswith("orders/") or body.get("test") is True or body.get("id") is None:
        return []
    order_id, status = _text(body["id"]), _text(body.get("financial_status"))
    currency, email = _text(body.get("currency")), _shopify_email(body)
    total = body.get("total_price")
    facts = _Facts(order_id=order_id, email=email, currency=currency, total=total)
    refunds = [
        refund for one in _list(body.get("refunds"))
        if (refund := _shopify_refund(one, order_id, email, currency)) is not None
    ]  # fmt: skip
    placed_at = body.get("processed_at") or body.get("created_at")
    is_void = bool(body.get("cancelled_at")) and status in _SHOPIFY_UNPAID
    events: list[_Event] = []
    if not is_void:
        events.append(facts.placed(placed_at, _shopify_properties(body)))
    if status in _SHOPIFY_PAID:
        events.append(facts.told("order_paid", body.get("updated_at") or placed_at))
    if body.get("cancelled_at"):
        events.append(facts.told("order_cancelled", body["cancelled_at"], reason=_text(body.get("cancel_reason"))))
    if is_void:
        events += facts.voided(body["cancelled_at"], refunds)
    return events + refunds


def woocommerce_events(topic: str, body: Mapping[str, Any]) -> list[_Event]:
    """The events of a message of WooCommerce.

    Args:
        topic: the header `X-WC-Webhook-Topic`.
    Returns: for `order.created` and `order.updated` order_placed, order_paid, order_cancelled and the order's refunds,
        as far as the order has come; nothing for an order nobody has confirmed yet, and for other topics.
    """
    if topic not in ("order.created", "order.updated", "order.restored") or body.get("id") is None:
        return []
    order_id, status = _text(body["id"]), _text(body.get("status"))
    currency, email = _text(body.get("currency")), _text(_dict(body.get("billing")).get("email"))
    facts = _Facts(order_id=order_id, email=email, currency=currency, total=body.get("total"))
    paid_at, changed_at = _utc(body.get("date_paid_gmt")), _utc(body.get("date_modified_gmt"))
    refunds = [
        facts.refund(_text(one.get("id")), _positive(one.get("total")), changed_at)
        for one in map(_dict, _list(body.get("refunds"))) if _positive(one.get("total")) > 0
    ]  # fmt: skip
    is_sale = status in _WOO_SALES or (status == "cancelled" and paid_at is not None)
    events: list[_Event] = []
    if is_sale:
        events.append(facts.placed(_utc(body.get("date_created_gmt")), _woo_properties(body)))
        if paid_at is not None:
            events.append(facts.told("order_paid", paid_at))
    if status == "cancelled":
        events.append(facts.told("order_cancelled", changed_at))
        if paid_at is None:
            events += facts.voided(changed_at, refunds)
    return events + (refunds if is_sale or status == "cancelled" else [])


class _Facts:
    """Builds the events of one order, all with its number, owner and currency."""

    def __init__(self, *, order_id: str, email: str, currency: str, total: object) -> None:
        self._id, self._email, self._currency, self._total = order_id, email, currency, total

    def placed(self, at: object, properties: Mapping[str, Any]) -> _Event:
        """The order itself; told again, it is a duplicate by its number whatever has changed since."""
        return self._event("order_placed", at, f"order-{self._id}", {**properties, "total": self._total})

    def told(self, event_type: str, at: object, **properties: str) -> _Event:
        """A step of its life that has no amount of its own."""
        known = {name: value for name, value in properties.items() if value}
        number = f"order-{self._id}-{event_type.removeprefix('order_')}"
        return self._event(event_type, at, number, {"total": self._total, **known})

    def refund(self, refund_id: str, amount: Decimal, at: object) -> _Event:
        """Money that went back."""
        told = {"refund_id": refund_id, "amount": amount_text(amount)}
        return self._event("order_refunded", at, f"refund-{refund_id}", told)

    def voided(self, at: object, refunds: Sequence[_Event]) -> list[_Event]:
        """An order cancelled before it was paid does not count: what is left of it is taken off."""
        known = sum((_amount(one["properties"]["amount"]) for one in refunds), _NONE)
        left = _amount(self._total) - known
        return [self.refund(f"{self._id}-cancelled", left, at)] if left > 0 else []

    def _event(self, event_type: str, at: object, number: str, properties: Mapping[str, Any]) -> _Event:
        found = {"order_id": self._id, "currency": self._currency, **properties}
        event = {"type": event_type, "external_id": number, "email": self._email, "properties": found}
        return {**event, "occurred_at": at} if at else event


def _shopify_refund(given: object, order_id: str, email: str, currency: str) -> _Event | None:
    refund = _dict(given)
    paid_back = [
        one for one in map(_dict, _list(refund.get("transactions")))
        if one.get("kind") == "refund" and one.get("status") == "success"
    ]  # fmt: skip
    amount = sum((_amount(one.get("amount")) for one in paid_back), _NONE)
    if refund.get("id") is None or amount <= 0:
        return None
    money = currency or _text(paid_back[0].get("currency"))
    # In another currency than the order's it cannot be taken off it; the check of refunds says so.
    foreign = next((one["currency"] for one in paid_back if one.get("currency") not in (None, money)), money)
    facts = _Facts(order_id=order_id, email=email, currency=_text(foreign), total=None)
    return facts.refund(_text(refund["id"]), amount, refund.get("processed_at") or refund.get("created_at"))


def _shopify_email(body: Mapping[str, Any]) -> str:
    customer = _dict(body.get("customer"))
    return _text(body.get("email") or body.get("contact_email") or customer.get("email"))


def _shopify_properties(body: Mapping[str, Any]) -> _Event:
    shipping = _dict(_dict(body.get("total_shipping_price_set")).get("shop_money")).get("amount")
    found = {
        "discount": body.get("total_discounts"), "tax": body.get("total_tax"), "shipping": shipping,
        "cart_id": _short(body.get("cart_token")), "number": _text(body.get("name")),
        "lines": [_shopify_line(_dict(line)) for line in _list(body.get("line_items"))[:_MOST_LINES]],
    }  # fmt: skip
    return {name: value for name, value in found.items() if value not in (None, "")}


def _shopify_line(line: Mapping[str, Any]) -> _Event:
    shares = [_amount(_dict(one).get("amount")) for one in _list(line.get("discount_allocations"))]
    discount = sum(shares, _NONE) if shares else _amount(line.get("total_discount"))
    return {
        "sku": _text(line.get("sku")), "name": _text(line.get("name") or line.get("title")),
        "quantity": line.get("quantity", 1), "unit_price": line.get("price", 0), "discount": amount_text(discount),
    }  # fmt: skip


def _woo_properties(body: Mapping[str, Any]) -> _Event:
    found = {
        "discount": body.get("discount_total"), "tax": body.get("total_tax"), "shipping": body.get("shipping_total"),
        "cart_id": _short(body.get("cart_hash")), "number": _text(body.get("number")),
        "lines": [_woo_line(_dict(line)) for line in _list(body.get("line_items"))[:_MOST_LINES]],
    }  # fmt: skip
    return {name: value for name, value in found.items() if value not in (None, "")}


def _woo_line(line: Mapping[str, Any]) -> _Event:
    # `price` is a float with all its digits, after the discount; sums before and after it are exact.
    before, after = _amount(line.get("subtotal")), _amount(line.get("total"))
    quantity = line.get("quantity", 1)
    count = quantity if isinstance(quantity, int) and quantity > 0 else 1
    unit = (before / count).quantize(_CENTS, ROUND_HALF_UP)
    return {
        "sku": _text(line.get("sku")), "name": _text(line.get("name")), "quantity": quantity,
        "unit_price": amount_text(unit), "discount": amount_text(max(before - after, _NONE)),
    }  # fmt: skip


def _amount(given: object) -> Decimal:
    try:
        return parse_amount(given)
    except ValueError:
        return _NONE


def _positive(given: object) -> Decimal:
    """WooCommerce writes refunds below zero."""
    return abs(_amount(given))


def _utc(given: object) -> str | None:
    """WooCommerce writes UTC without saying so."""
    if not isinstance(given, str) or not given:
        return None
    return given if given[-1] in "Zz" or "+" in given[10:] else f"{given}Z"


def _text(given: object) -> str:
    if isinstance(given, str):
        return given
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else ""


def _short(given: object) -> str:
    text = _text(given)
    return text if len(text) <= 100 else ""


def _dict(given: object) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else {}


def _list(given: object) -> Sequence[Any]:
    return given if isinstance(given, list) else ()
