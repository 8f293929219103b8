"""Taking in what an inbound source sends: believed by its signature, read by its mapping or preset, stored once.

Promise: nothing of a body is read before its signature fits; what is told twice - by the sender, or by somebody who
recorded a request - takes effect once. A source of one's own hears what is wrong with an event (all of a body or
nothing is stored); a shop platform never does, because it would switch the webhook off: what it sends and this service
has no use for is logged and answered as taken. Called by the route.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mautolib import ingestion
from mautolib.errors import Conflict, InvalidInput, NotAllowed
from mautolib.events import reading
from mautolib.ingestion import Incoming, Result, Status
from mautolib.settings import Settings
from mautolib.webhooks import sources
from mautolib.webhooks.mapping import DEFAULT, STANDARD_WEBHOOKS, apply_mapping
from mautolib.webhooks.proving import SourceKind, check_signature
from mautolib.webhooks.shops import shopify_events, woocommerce_events
from mautolib.webhooks.sources import Source

__all__ = ["MOST_EVENTS", "Arrived", "Taken", "admit", "greet", "take"]

_LOG = logging.getLogger(__name__)
#: Of one body.
MOST_EVENTS: Final = 1000
_PRESETS: Final = {
    SourceKind.SHOPIFY: ("x-shopify-topic", shopify_events),
    SourceKind.WOOCOMMERCE: ("x-wc-webhook-topic", woocommerce_events),
}


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A request as it came.

    Args:
        headers: all values of each, names in lower case.
    """

    headers: Mapping[str, Sequence[str]]
    body: bytes

    def header(self, name: str) -> str:
        """The first value of a header, "" without it."""
        return next(iter(self.headers.get(name, ())), "")


@dataclass(frozen=True, kw_only=True)
class Taken:
    """How many events a body brought, and how many of its events were known."""

    accepted: int
    duplicates: int


def admit(tx: Connection, settings: Settings, token: str, arrived: Arrived, *, now: datetime) -> Source:
    """The source whose token this is, after its signature was found to fit.

    Raises:
        NotFound: no such token, or its source is not active.
        NotAllowed: `bad_signature`.
    """
    door = sources.find_door(tx, settings, token)
    try:
        check_signature(door.source.kind, door.secret, arrived.headers, arrived.body, now=now)
    except NotAllowed:
        _LOG.warning("inbound source %s: a request without a signature that fits", door.source.source_id)
        raise
    return door.source


def greet(tx: Connection, settings: Settings, token: str) -> None:
    """Answer the greeting of WooCommerce, which is not signed and says nothing: its source is there.

    Raises:
        NotFound: no such token, or its source is not active.
        NotAllowed: `bad_signature`: sources of other kinds are not greeted.
    """
    if sources.find_door(tx, settings, token).source.kind is not SourceKind.WOOCOMMERCE:
        raise NotAllowed("The signature does not fit", code="bad_signature")


def take(
    tx: Connection, settings: Settings, source: Source, arrived: Arrived, parsed: object, *, now: datetime
) -> Taken:
    """Store the events a body tells of.

    Args:
        parsed: the body as JSON.
    Raises:
        InvalidInput: what it tells of is no event; for sources that are no preset of a platform.
        Conflict: `order_conflict`, likewise.
    """
    sources.note_use(tx, source.source_id, now=now)
    if source.kind in _PRESETS and not source.mapping:
        items = _of_platform(tx, source, arrived, parsed, now)
        results = ingestion.ingest(tx, items, settings, now=now) if items else []
        _tell_rejected(source, results)
    else:
        items = _of_mapping(source, arrived, parsed, now)
        results = ingestion.ingest(tx, items, settings, now=now)
        _refuse_rejected(results, is_list=isinstance(parsed, list))
    counts = [result.status for result in results]
    return Taken(accepted=counts.count(Status.ACCEPTED), duplicates=counts.count(Status.DUPLICATE))


def _of_mapping(source: Source, arrived: Arrived, parsed: object, now: datetime) -> list[Incoming]:
    default = STANDARD_WEBHOOKS if source.kind is SourceKind.STANDARD_WEBHOOKS else DEFAULT
    bodies = parsed if isinstance(parsed, list) else [parsed]
    if not 1 <= len(bodies) <= MOST_EVENTS:
        raise InvalidInput(f"An array has 1 to {MOST_EVENTS} events", path=("body",))
    found = []
    for n, body in enumerate(bodies):
        where: tuple[str | int, ...] = ("body", n) if isinstance(parsed, list) else ("body",)
        if not isinstance(body, Mapping):
            raise InvalidInput("An event is an object", path=where)
        event = apply_mapping(source.mapping or default, body)
        if "external_id" not in event:
            event["external_id"] = _own_number(source, arrived, n)
        found.append(_checked(event, source, where, now))
    return found


def _own_number(source: Source, arrived: Arrived, n: int) -> str:
    """Makes a repetition of the request harmless where the body has no number: that of the message, or its digest."""
    if source.kind is SourceKind.STANDARD_WEBHOOKS:
        number = arrived.header("webhook-id")
        return number if n == 0 else f"{hashlib.sha256(number.encode()).hexdigest()}-{n}"
    return f"sha256-{hashlib.sha256(arrived.body).hexdigest()}-{n}"


def _checked(event: Mapping[str, Any], source: Source, where: tuple[str | int, ...], now: datetime) -> Incoming:
    try:
        return ingestion.check(event, now=now, source=source.event_source)
    except InvalidInput as error:
        raise InvalidInput(str(error), code=error.code, path=(*where, *error.path)) from None


def _of_platform(
    tx: Connection, source: Source, arrived: Arrived, parsed: object, now: datetime
) -> list[Incoming]:
    if not isinstance(parsed, Mapping):
        raise InvalidInput("The body is an object", path=("body",))
    header, read = _PRESETS[source.kind]
    topic = arrived.header(header)
    found = []
    for event in read(topic, parsed):
        owned = _with_owner(tx, source, event)
        try:
            found.append(ingestion.check(owned, now=now, source=source.event_source))
        except InvalidInput as error:
            _LOG.warning(
                "inbound source %s: %s of %r is left out: %s", source.source_id, event["type"], topic[:50], error.code
            )
            if event["type"] == "order_placed":
                # Steps of an order that cannot be read belong to nothing.
                return []
    if not found:
        _LOG.info("inbound source %s: nothing to do for %r", source.source_id, topic[:50])
    return found


def _with_owner(tx: Connection, source: Source, event: Mapping[str, Any]) -> dict[str, Any]:
    """A message that does not say whose order it is about belongs to whoever placed the order."""
    known = {name: value for name, value in event.items() if name != "email" or value}
    if "email" not in known:
        owner = reading.order_owner(tx, source.event_source, str(event["properties"]["order_id"]))
        if owner is not None:
            known["contact_id"] = str(owner)
    return known


def _tell_rejected(source: Source, results: Sequence[Result]) -> None:
    for result in results:
        if result.rejected is not None:
            _LOG.warning("inbound source %s: an event is left out: %s", source.source_id, result.rejected.code)


def _refuse_rejected(results: Sequence[Result], *, is_list: bool) -> None:
    for n, result in enumerate(results):
        if result.rejected is None:
            continue
        why = result.rejected
        if why.code == "order_conflict":
            raise Conflict(why.detail, code=why.code)
        where: tuple[str | int, ...] = ("body", n) if is_list else ("body",)
        raise InvalidInput(why.detail, code=why.code, path=(*where, *why.path))
