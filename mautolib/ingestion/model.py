"""The nouns of ingestion: an event that may be stored, a refusal, and what became of each event given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from mautolib.contacts.address import Address
from mautolib.events.orders import NewOrder, NewRefund

__all__ = ["Incoming", "Rejected", "Result", "Status"]


class Status(StrEnum):
    """What became of one given event."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True, slots=True)
class Incoming:
    """A checked event from outside; its contact is named by id, by address, or by both.

    Args:
        event_type: canonical, never a type the service writes itself.
        properties: amounts as decimal text, other values as given.
    """

    event_type: str
    source: str
    external_id: str | None
    contact_id: int | None
    address: Address | None
    occurred_at: datetime
    properties: Mapping[str, Any]

    def order(self, contact_id: int) -> NewOrder:
        """The order this event tells of, as that of a contact."""
        told = self.properties
        discount, shipping, tax = (Decimal(told.get(name, 0)) for name in ("discount", "shipping", "tax"))
        return NewOrder(
            order_id=told["order_id"], placed_at=self.occurred_at, currency=told["currency"],
            total=Decimal(told["total"]), lines=told["lines"], contact_id=contact_id, source=self.source,
            cart_id=told.get("cart_id"), external_id=self.external_id, discount=discount, shipping=shipping, tax=tax,
        )  # fmt: skip

    def refund(self) -> NewRefund:
        """The refund this event tells of."""
        told = self.properties
        return NewRefund(
            order_id=told["order_id"], occurred_at=self.occurred_at, currency=told["currency"],
            amount=Decimal(told["amount"]), source=self.source, refund_id=told.get("refund_id"),
            external_id=self.external_id,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """Why an event was not taken.

    Args:
        code: stable; `validation_error`, `timezone_required`, `reserved_type`, `reserved_source`,
            `unknown_contact`, `contact_mismatch` or `order_conflict`.
        path: the value it is about, outermost first, within the event.
    """

    code: str
    detail: str
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of one given event; a duplicate names the event that was stored first and its contact."""

    status: Status
    event_id: int | None = None
    contact_id: int | None = None
    rejected: Rejected | None = None
