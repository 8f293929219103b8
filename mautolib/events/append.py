"""Appending events: the only door into `events`, idempotent by (source, external_id) over all months.

`append` takes what happens now, `append_many` loads history by COPY. Both also queue each new event for dispatch
(`event_pending`), unless `effects` is off: history that must not start workflows or send mail. Called by every
domain that has something to tell. It does not check what a caller may report (`types.is_service_only`) nor look
contacts up: contact 0 means nobody. Hits of tracking links are written by `hits`, with their event, in one statement.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import text

from mautolib.db.copy import copy_rows
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.events.types import SERVICE

__all__ = ["NewEvent", "Outcome", "Appended", "AppendResult", "BulkResult", "append", "append_many"]

_LOG = logging.getLogger(__name__)

_BATCH_COLUMNS = (
    "batch_id", "ordinal", "contact_id", "occurred_at", "received_at", "event_type", "source", "external_id",
    "properties", "campaign_id", "message_id", "order_key",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """One fact to store.

    Args:
        occurred_at: when it happened, aware.
        external_id: the teller's own number of the fact; with `source` it makes a repetition harmless.
        content_hash: of an event whose repetition must have equal content (orders); see `Outcome.CONFLICT`.
        received_at: when we learned of it, where that differs from `now` (restored history only).
    """

    event_type: str
    occurred_at: datetime
    contact_id: int = 0
    source: str = SERVICE
    external_id: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    campaign_id: int | None = None
    message_id: int | None = None
    order_key: int | None = None
    content_hash: bytes | None = None
    received_at: datetime | None = None


class Outcome(StrEnum):
    """What became of one given event."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    #: The key is known with other content; nothing was stored.
    CONFLICT = "conflict"


@dataclass(frozen=True, kw_only=True)
class Appended:
    """The stored event behind one given event (the first one, for a repetition)."""

    event_id: int
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class AppendResult:
    """One entry per given event, in the order given."""

    entries: tuple[Appended, ...]

    def count(self, outcome: Outcome) -> int:
        """How many given events ended this way."""
        return sum(entry.outcome is outcome for entry in self.entries)

    @property
    def accepted(self) -> int:
        """How many events are new."""
        return self.count(Outcome.ACCEPTED)


@dataclass(frozen=True, kw_only=True)
class BulkResult:
    """How many rows a bulk load was given and how many of them were new."""

    given: int
    accepted: int


def append(tx: Tx, events: Sequence[NewEvent], *, now: datetime, effects: bool = True) -> AppendResult:
    """Store `events` in the caller's transaction, each (source, external_id) once.

    Args:
        now: becomes `received_at`.
        effects: queue the new ones for dispatch; False loads silent history.
    Returns: an entry per event; a repetition names the event that was stored first.
    """
    if not events:
        return AppendResult(entries=())
    rows = tx.execute(statement("events.append"), {**_arrays(events), "now": now, "effects": effects}).all()
    missing = [event for event, row in zip(events, rows, strict=True) if row.event_id is None]
    late = _find_keys(tx, missing) if missing else {}
    entries = []
    for event, row in zip(events, rows, strict=True):
        event_id, content_hash = row.event_id, row.content_hash
        if event_id is None:
            event_id, content_hash = late[event.source, event.external_id or ""]
        entries.append(Appended(event_id=event_id, outcome=_outcome(event, row.is_new, content_hash)))
    result = AppendResult(entries=tuple(entries))
    _LOG.debug("events appended: %s given, %s new", len(events), result.accepted)
    return result


def append_many(tx: Tx, events: Iterable[NewEvent], *, now: datetime, effects: bool = False) -> BulkResult:
    """Load many events (history) by COPY and one statement; like `append`, but it only counts.

    Monthly partitions are made for the months that occur. The rows pass through an unlogged staging table, so
    memory stays flat. Needs the worker's or the owner's role.
    """
    batch_id = int(tx.scalar(text("select nextval('event_ids')")) or 0)
    copy_rows(tx, "staging.event_rows", _BATCH_COLUMNS, (_staged(batch_id, n, e) for n, e in enumerate(events)))
    months = tx.execute(statement("events.ensure_months_of_batch"), {"batch_id": batch_id}).all()
    row = tx.execute(
        statement("events.append_batch"), {"batch_id": batch_id, "now": now, "effects": effects}
    ).one()
    tx.execute(statement("events.forget_batch"), {"batch_id": batch_id})
    _LOG.info("events loaded: %s given, %s new, %s partitions made", row.given_count, row.new_count, len(months))
    return BulkResult(given=row.given_count, accepted=row.new_count)


def _arrays(events: Sequence[NewEvent]) -> dict[str, Any]:
    names = (
        "contact_id", "occurred_at", "event_type", "source", "external_id", "content_hash", "campaign_id",
        "message_id", "order_key",
    )  # fmt: skip
    arrays: dict[str, Any] = {name: [getattr(event, name) for event in events] for name in names}
    arrays["properties"] = [json.dumps(dict(event.properties)) for event in events]
    return arrays


def _find_keys(tx: Tx, events: Sequence[NewEvent]) -> dict[tuple[str, str], tuple[int, bytes | None]]:
    found = tx.execute(
        statement("events.find_keys"),
        {
            "source": [event.source for event in events],
            "external_id": [event.external_id for event in events],
            "ordinal": list(range(len(events))),
        },
    )
    return {
        (events[row.ordinal].source, events[row.ordinal].external_id or ""): (row.event_id, row.content_hash)
        for row in found
    }


def _outcome(event: NewEvent, is_new: bool, content_hash: bytes | memoryview | None) -> Outcome:
    if is_new:
        return Outcome.ACCEPTED
    if event.content_hash is not None and content_hash is not None and event.content_hash != bytes(content_hash):
        return Outcome.CONFLICT
    return Outcome.DUPLICATE


def _staged(batch_id: int, ordinal: int, event: NewEvent) -> tuple[object, ...]:
    return (
        batch_id, ordinal, event.contact_id, event.occurred_at.isoformat(),
        event.received_at.isoformat() if event.received_at else None, event.event_type, event.source,
        event.external_id, json.dumps(dict(event.properties)), event.campaign_id, event.message_id, event.order_key,
    )  # fmt: skip
