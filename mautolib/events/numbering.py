"""Storing events in two steps: number them and claim their keys, then store them - for facts that are more than events.

An order names its event and the event its order, so the event's number must be known before either is written.
`reserve` claims (source, external_id) like `append` does; whoever decides afterwards that an event is not to be stored
`release`s its claim. All in one transaction of the caller. Called by `orders` and `ingestion`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mautolib.db.engine import Tx
from mautolib.db.statements import statement

__all__ = ["First", "Numbered", "Told", "find_first", "find_owners", "release", "reserve", "rows_json", "store"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What tells two tellings of one fact apart from two facts; without an external_id every telling is a new one.

    Args:
        occurred_at: as ISO 8601 text here and in `Numbered`: writing one is dear, and each is needed up to three times.
    """

    source: str
    external_id: str | None
    occurred_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class First:
    """The event that was stored first, and whose it is (0: nobody's)."""

    event_id: int
    contact_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbered:
    """An event with the number `reserve` gave it."""

    event_id: int
    event_type: str
    occurred_at: str
    source: str
    contact_id: int = 0
    external_id: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    order_key: int | None = None


def rows_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as one bind: half the cost of an array for each column. Moments and decimals become text."""
    return json.dumps(list(rows), default=_text, separators=(",", ":"))


def find_first(tx: Tx, told: Mapping[int, Told]) -> dict[int, First]:
    """Which of these are known, by the keys of `told`."""
    rows = [
        {"ordinal": n, "source": one.source, "external_id": one.external_id}
        for n, one in told.items() if one.external_id is not None
    ]  # fmt: skip
    if not rows:
        return {}
    found = tx.execute(statement("events.find_first"), {"rows": rows_json(rows)}).all()
    owners = find_owners(tx, [(row.event_id, row.occurred_at) for row in found])
    return {row.ordinal: First(event_id=row.event_id, contact_id=owners.get(row.event_id, 0)) for row in found}


def find_owners(tx: Tx, events: Iterable[tuple[int, datetime]]) -> dict[int, int]:
    """The contact of each of these events, given as (event_id, occurred_at)."""
    rows = [{"event_id": event_id, "occurred_at": moment} for event_id, moment in events]
    if not rows:
        return {}
    found = tx.execute(statement("events.find_owners"), {"rows": rows_json(rows)})
    return {row.event_id: row.contact_id for row in found}


def reserve(tx: Tx, told: Mapping[int, Told]) -> tuple[dict[int, int], set[int]]:
    """Number events and claim their keys; waits for another transaction that claims one of them.

    Returns: the numbers by the keys of `told`, and which of these keys somebody told before (also within `told`).
    """
    if not told:
        return {}, set()
    rows = [
        {"ordinal": n, "source": one.source, "external_id": one.external_id, "occurred_at": one.occurred_at}
        for n, one in told.items()
    ]
    numbers, known = {}, set()
    for row in tx.execute(statement("events.reserve"), {"rows": rows_json(rows)}):
        if row.is_new:
            numbers[row.ordinal] = row.event_id
        else:
            known.add(row.ordinal)
    return numbers, known


def release(tx: Tx, told: Iterable[Told]) -> None:
    """Give up claims made in this transaction: their events will not be stored."""
    rows = [{"source": one.source, "external_id": one.external_id} for one in told if one.external_id is not None]
    if rows:
        tx.execute(statement("events.release"), {"rows": rows_json(rows)})


def store(tx: Tx, events: Sequence[Numbered], *, now: datetime, effects: bool = True) -> None:
    """Store numbered events.

    Args:
        now: becomes `received_at`.
        effects: queue them for dispatch; False loads silent history.
    """
    if not events:
        return
    rows = (
        {
            "event_id": one.event_id, "contact_id": one.contact_id, "occurred_at": one.occurred_at,
            "event_type": one.event_type, "source": one.source, "external_id": one.external_id,
            "properties": one.properties, "order_key": one.order_key,
        }
        for one in events
    )  # fmt: skip
    tx.execute(statement("events.store"), {"rows": rows_json(rows), "now": now, "effects": effects})


def _text(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else str(value)
