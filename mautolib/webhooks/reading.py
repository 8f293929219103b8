"""Reading deliveries for people: a list of one endpoint's, one with its payload and every attempt.

Newest first by their number, which also is the order of the index (migration 0032). Called by the API and the page of
deliveries; changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, func, select

from mautolib.db import tables
from mautolib.errors import NotFound
from mautolib.webhooks.model import DeliveryStatus

__all__ = ["MISSING", "Attempt", "Delivery", "DeliveryFilter", "WholeDelivery", "count", "get", "search"]

MISSING: Final = "Delivery not found"
_D, _A = tables.webhook_deliveries.c, tables.webhook_attempts.c
_SHOWN = [
    _D.delivery_id, _D.endpoint_id, _D.event_type, _D.response_status, _D.duration_ms, _D.attempt, _D.created_at,
    _D.webhook_message_id, _D.status, _D.next_attempt_at, _D.error,
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A fact on its way to one endpoint; `attempt` counts the attempts made, `response_status` is that of the last."""

    delivery_id: int
    endpoint_id: int
    event_type: str
    response_status: int | None
    duration_ms: int
    attempt: int
    created_at: datetime
    message_id: str
    status: DeliveryStatus
    next_attempt_at: datetime | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt; `response_status` 0: no connection."""

    at: datetime
    response_status: int
    duration_ms: int
    error: str | None
    response_body: str | None


@dataclass(frozen=True, kw_only=True)
class WholeDelivery:
    """A delivery with what was sent, and every attempt in its order."""

    delivery: Delivery
    payload: Mapping[str, Any]
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries to list; everything given must hold. Moments are those of making: from `since`, before `until`.

    Args:
        endpoint_id: None: of all endpoints.
    """

    endpoint_id: int | None
    status: DeliveryStatus | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def search(
    tx: Connection, wanted: DeliveryFilter, *, skip: int = 0, limit: int = 50, after: int | None = None
) -> list[Delivery]:
    """Deliveries, newest first; `after` is the id of the last one of the page before."""
    query = select(*_SHOWN).where(*_of(wanted)).order_by(_D.delivery_id.desc())
    if after is not None:
        query = query.where(_D.delivery_id < after)
    return [_delivery(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count(tx: Connection, wanted: DeliveryFilter, *, at_most: int) -> int:
    """How many deliveries match; counting stops at `at_most`."""
    query = select(_D.delivery_id).where(*_of(wanted)).limit(at_most).subquery()
    return int(tx.scalar(select(func.count()).select_from(query)) or 0)


def get(tx: Connection, delivery_id: int, *, endpoint_id: int | None = None) -> WholeDelivery:
    """One delivery.

    Args:
        endpoint_id: whose it has to be; None: anybody's.
    Raises:
        NotFound: the endpoint has no such delivery.
    """
    query = select(*_SHOWN, _D.payload).where(_D.delivery_id == delivery_id)
    if endpoint_id is not None:
        query = query.where(_D.endpoint_id == endpoint_id)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound(MISSING)
    made = select(_A.at, _A.response_status, _A.duration_ms, _A.error, _A.response_body)
    rows = tx.execute(made.where(_A.delivery_id == delivery_id).order_by(_A.attempt))
    attempts = tuple(Attempt(**one._mapping) for one in rows)
    known = {name: value for name, value in row._mapping.items() if name != "payload"}
    return WholeDelivery(delivery=_of_values(known), payload=row.payload, attempts=attempts)


def endpoints_with_dead(tx: Connection) -> list[int]:
    """The endpoints that have dead deliveries."""
    return list(tx.scalars(select(_D.endpoint_id).where(_D.status == str(DeliveryStatus.DEAD)).distinct()))


def _of(wanted: DeliveryFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.endpoint_id is not None:
        found.append(_D.endpoint_id == wanted.endpoint_id)
    if wanted.status is not None:
        found.append(_D.status == str(wanted.status))
    if wanted.event_type is not None:
        found.append(_D.event_type == wanted.event_type)
    if wanted.since is not None:
        found.append(_D.created_at >= wanted.since)
    if wanted.until is not None:
        found.append(_D.created_at < wanted.until)
    return found


def _delivery(row: Row[Any]) -> Delivery:
    return _of_values(dict(row._mapping))


def _of_values(values: Mapping[str, Any]) -> Delivery:
    known = {name: value for name, value in values.items() if name != "webhook_message_id"}
    message_id, status = values["webhook_message_id"], DeliveryStatus(values["status"])
    return Delivery(**{**known, "message_id": message_id, "status": status})
