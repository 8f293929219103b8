"""Small builders of rows for tests: plain inserts with sensible defaults, every column can be given.

Each takes the transaction first and returns the new id. They write tables directly on purpose: a test of one domain
must not depend on the verbs of another.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, insert

from mautolib.db import tables

#: The moment "now" of tests that need none in particular.
NOW = datetime(2026, 3, 1, tzinfo=UTC)

_numbers = itertools.count(1)


def ago(*, of: datetime = NOW, **parts: float) -> datetime:
    """`of` minus a span: `ago(days=3)`."""
    return of - timedelta(**parts)


def make_contact(tx: Connection, *, email: str | None = None, created_at: datetime | None = None, **fields: Any) -> int:
    """A subscribed contact without a name, signed up a year before NOW."""
    email = email or f"contact{next(_numbers)}@shop.example"
    row = {"email": email, "email_key": email.lower(), "created_at": created_at or ago(days=365), **fields}
    return _insert(tx, tables.contacts, row, "contact_id")


def make_event(
    tx: Connection, contact_id: int, event_type: str, occurred_at: datetime = NOW, **fields: Any
) -> int:
    """An event that was received when it happened."""
    row = {"contact_id": contact_id, "event_type": event_type, "occurred_at": occurred_at,
           "received_at": occurred_at, "source": "mauto", **fields}  # fmt: skip
    return _insert(tx, tables.events, row, "event_id")


def make_campaign(tx: Connection, *, name: str = "Spring", status: str = "draft", **fields: Any) -> int:
    """A campaign; one that was sent was requested and sent at NOW unless told."""
    if status in ("sending", "sent"):
        fields.setdefault("requested_at", NOW)
    if status == "sent":
        fields.setdefault("sent_at", NOW)
    row = {"name": name, "subject": "Hello", "html_body": "<p>Hello</p>", "status": status, **fields}
    return _insert(tx, tables.campaigns, row, "campaign_id")


def make_content(tx: Connection, **fields: Any) -> int:
    """Frozen content of a message."""
    return _insert(tx, tables.message_contents, {"subject": "Hello", "html_body": "<p>Hello</p>", **fields},
                   "content_id")  # fmt: skip


def make_message(
    tx: Connection, contact_id: int, *, content_id: int | None = None, status: str = "sent", kind: str = "campaign",
    **fields: Any,
) -> int:
    """A row of the ledger; what its status demands is filled in."""  # fmt: skip
    if status in ("sent", "delivered", "complained"):
        fields.setdefault("sent_at", NOW)
    if status == "skipped":
        fields.setdefault("reason", "unsubscribed")
    if status in ("sending", "unknown"):
        fields.setdefault("attempt_id", next(_numbers))
    if status == "sending":
        fields.setdefault("lease_until", NOW + timedelta(minutes=5))
    times = {"due_at": NOW, "next_try_at": NOW, "give_up_at": NOW + timedelta(days=1), "queued_at": NOW}
    row = {"contact_id": contact_id, "kind": kind, "status": status, "dedupe_key": f"made:{next(_numbers)}",
           "content_id": content_id or make_content(tx), **times, **fields}  # fmt: skip
    return _insert(tx, tables.messages, row, "message_id")


def make_hit(
    tx: Connection, contact_id: int, message_id: int, kind: str = "open", *, verdict: str | None = "human",
    occurred_at: datetime = NOW, rule_version: int = 1, **fields: Any,
) -> int:
    """A hit of a tracking link and the verdict on it (none: not judged yet)."""  # fmt: skip
    row = {"contact_id": contact_id, "message_id": message_id, "kind": kind, "occurred_at": occurred_at, **fields}
    hit_id = _insert(tx, tables.hits, row, "hit_id")
    if verdict is not None:
        values = {"hit_id": hit_id, "rule_version": rule_version, "verdict": verdict, "decided_at": occurred_at}
        tx.execute(insert(tables.hit_verdicts).values(values))
    return hit_id


def make_order(
    tx: Connection, contact_id: int, placed_at: datetime = NOW, *, total: str = "100", currency: str = "USD",
    **fields: Any,
) -> int:
    """An order in the reporting currency, received when it was placed."""  # fmt: skip
    row = {"contact_id": contact_id, "order_id": f"O-{next(_numbers)}", "placed_at": placed_at, "total": total,
           "currency": currency, "reporting_currency": "USD", "fx_rate": 1, "fx_date": placed_at.date(),
           "received_at": placed_at, **fields}  # fmt: skip
    return _insert(tx, tables.orders, row, "order_key")


def make_suppression(tx: Connection, email: str, *, reason: str = "bounce", **fields: Any) -> int:
    """A suppressed address."""
    row = {"email": email, "email_key": email.lower(), "reason": reason, "created_at": NOW, **fields}
    return _insert(tx, tables.suppressions, row, "suppression_id")


def make_tag(tx: Connection, name: str, contact_ids: Sequence[int] = ()) -> int:
    """A tag, put on some contacts."""
    tag_id = _insert(tx, tables.tags, {"name": name}, "tag_id")
    for contact_id in contact_ids:
        tx.execute(insert(tables.contact_tags).values(contact_id=contact_id, tag_id=tag_id))
    return tag_id


def make_delivery(tx: Connection, endpoint_id: int, *, status: str = "dead", **fields: Any) -> int:
    """A delivery of one attempt that nobody answered, ended long ago unless told."""
    number = next(_numbers)
    is_pending = status == "pending"
    row = {
        "endpoint_id": endpoint_id, "event_type": "contact.created", "webhook_message_id": f"whm{number}",
        "payload": {"id": f"whm{number}", "event": "contact.created", "timestamp": "2026-03-01T00:00:00Z",
                    "data": {"contact": {"id": "1"}}},
        "status": status, "attempt": 1, "response_status": 200 if status == "succeeded" else 0, "duration_ms": 12,
        "error": None if status == "succeeded" else "no connection", "created_at": NOW,
        "next_attempt_at": NOW if is_pending else None, "finished_at": None if is_pending else NOW, **fields,
    }  # fmt: skip
    delivery_id = _insert(tx, tables.webhook_deliveries, row, "delivery_id")
    for attempt in range(1, row["attempt"] + 1):
        tx.execute(insert(tables.webhook_attempts).values(
            delivery_id=delivery_id, attempt=attempt, at=NOW, response_status=row["response_status"], duration_ms=12,
            error=row["error"], response_body=None,
        ))  # fmt: skip
    return delivery_id


def _insert(tx: Connection, table: Table, row: Mapping[str, Any], key: str) -> int:
    return int(tx.execute(insert(table).values(dict(row)).returning(table.c[key])).scalar_one())
