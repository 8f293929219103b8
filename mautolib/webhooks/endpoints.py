"""Endpoints of outbound webhooks: list, make, change, remove.

Guards that an endpoint listens to events there are, at an address that may be called (the guard's own rules, asked
again at every attempt), and that its secret is stored sealed and shown once. Coming back clears what it failed before.
Addresses that actions call are not among them.
Called by the API and the page of deliveries; nothing is delivered here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, select, tuple_
from sqlalchemy import update as change
from sqlalchemy.dialects.postgresql import insert

from mautolib.db import tables
from mautolib.errors import DomainError, InvalidInput, NotFound
from mautolib.outbox import FactName
from mautolib.settings import Settings
from mautolib.webhooks.addresses import Policy, parse_url
from mautolib.webhooks.secrets import check_secret, new_secret, seal_secret

__all__ = ["EVENTS", "EVERYTHING", "MISSING", "Endpoint", "NewEndpoint", "addresses", "count", "create", "get",
           "remove", "search", "update"]  # fmt: skip

MISSING: Final = "Webhook not found"
EVERYTHING: Final = "*"
#: What can be listened to, in the order people read it.
EVENTS: Final = tuple(str(name) for name in FactName)
_TABLE = tables.webhook_endpoints
_C = _TABLE.c
_SHOWN = [
    _C.endpoint_id, _C.url, _C.events, _C.active, _C.description, _C.consecutive_failures, _C.total_deliveries,
    _C.total_failures, _C.max_failures, _C.last_success_at, _C.last_failure_at, _C.disabled_reason, _C.created_at,
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NewEndpoint:
    """What is needed to make an endpoint; without a secret one is made."""

    url: str
    secret: str | None = None
    events: Sequence[str] = (EVERYTHING,)
    description: str = ""
    max_failures: int = 10


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An endpoint as listed; its secret stays where it is."""

    endpoint_id: int
    url: str
    events: tuple[str, ...]
    active: bool
    description: str
    consecutive_failures: int
    total_deliveries: int
    total_failures: int
    max_failures: int
    last_success_at: datetime | None
    last_failure_at: datetime | None
    disabled_reason: str | None
    created_at: datetime


def create(tx: Connection, settings: Settings, new: NewEndpoint, *, now: datetime) -> tuple[Endpoint, str | None]:
    """Make an endpoint; returns it and its secret, if that was made here.

    Raises:
        DomainError: `Invalid event type: x`; looked at first.
        InvalidInput: URL or secret is not acceptable.
    """
    values = _checked(settings, {"events": new.events, "url": new.url})
    made = new_secret() if new.secret is None else None
    secret = made or check_secret(new.secret or "")
    row = tx.execute(
        insert(_TABLE).values(
            **values, secret_encrypted=seal_secret(settings, secret), description=new.description,
            max_failures=new.max_failures, created_at=now, listens_since=now,
        ).returning(*_SHOWN)
    ).one()  # fmt: skip
    return _endpoint(row), made


def get(tx: Connection, endpoint_id: int, *, only_listed: bool = True) -> Endpoint:
    """One endpoint.

    Args:
        only_listed: False: or an address that actions call.
    Raises:
        NotFound: there is none.
    """
    query = select(*_SHOWN).where(_C.endpoint_id == endpoint_id)
    row = tx.execute(query.where(_C.is_listed) if only_listed else query).one_or_none()
    if row is None:
        raise NotFound(MISSING)
    return _endpoint(row)


def addresses(tx: Connection, endpoint_ids: Collection[int]) -> dict[int, str]:
    """The URLs of endpoints, also of those that actions of workflows and rules call."""
    query = select(_C.endpoint_id, _C.url).where(_C.endpoint_id.in_(endpoint_ids))
    return {row.endpoint_id: row.url for row in tx.execute(query)}


def search(
    tx: Connection, *, active: bool | None = None, skip: int = 0, limit: int = 50,
    after: tuple[datetime, int] | None = None,
) -> list[Endpoint]:  # fmt: skip
    """Endpoints, newest first; `after` is (created_at, id) of the last one of the page before."""
    query = select(*_SHOWN).where(_is(active)).order_by(_C.created_at.desc(), _C.endpoint_id.desc())
    if after is not None:
        query = query.where(tuple_(_C.created_at, _C.endpoint_id) < after)
    return [_endpoint(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count(tx: Connection, *, active: bool | None = None, at_most: int) -> int:
    """How many endpoints there are; counting stops at `at_most`."""
    query = select(_C.endpoint_id).where(_is(active)).limit(at_most).subquery()
    return int(tx.scalar(select(func.count()).select_from(query)) or 0)


def update(tx: Connection, settings: Settings, endpoint_id: int, changes: Mapping[str, Any]) -> Endpoint:
    """Change what is given; a new secret takes the place of the old one at once, None leaves it as it is.

    Active again, an endpoint begins with a clean slate: no failures, no reason why it was disabled.

    Raises:
        NotFound: there is none.
        DomainError: `Invalid event type: x`; looked at first.
        InvalidInput: URL or secret is not acceptable.
    """
    get(tx, endpoint_id)
    values = _checked(settings, {name: value for name, value in changes.items() if name != "secret"})
    if changes.get("secret") is not None:
        sealed = seal_secret(settings, check_secret(changes["secret"]))
        values |= {"secret_encrypted": sealed, "previous_secret_encrypted": None, "previous_valid_until": None}
    if values.get("active"):
        values |= {"consecutive_failures": 0, "disabled_reason": None}
    if not values:
        return get(tx, endpoint_id)
    row = tx.execute(
        change(_TABLE).where(_C.endpoint_id == endpoint_id).values(values).returning(*_SHOWN)
    ).one_or_none()
    if row is None:
        raise NotFound(MISSING)
    return _endpoint(row)


def remove(tx: Connection, endpoint_id: int) -> None:
    """Remove an endpoint with its deliveries.

    Raises:
        NotFound: there is none.
    """
    if tx.execute(delete(_TABLE).where(_C.endpoint_id == endpoint_id, _C.is_listed)).rowcount != 1:
        raise NotFound(MISSING)


def _checked(settings: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    for name in found.get("events", ()):
        if name != EVERYTHING and name not in EVENTS:
            raise DomainError(f"Invalid event type: {name[:100]}")
    if "events" in found:
        found["events"] = list(dict.fromkeys(found["events"]))
    if "url" in found:
        try:
            parse_url(found["url"], Policy.of(settings))
        except InvalidInput as error:
            raise InvalidInput(str(error), path=("body", "url")) from None
    return found


def _is(active: bool | None) -> ColumnElement[bool]:
    return _C.is_listed.is_(True) if active is None else and_(_C.is_listed, _C.active.is_(active))


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(**{**row._mapping, "events": tuple(row.events)})
