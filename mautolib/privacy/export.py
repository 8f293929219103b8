"""Everything kept about one person, for the person: one JSON document in the shapes the API shows.

Promises that it is complete and only theirs: every row is found by the contact's own id, and what would name others
(who of the staff acted, what a file was called) is left out. Called by the API in one transaction, which writes the
audit entry; changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from mautolib import contacts
from mautolib.contacts.listing import find_suppression
from mautolib.db.statements import statement
from mautolib.ledger import reading
from mautolib.settings import Settings

__all__ = ["export"]


def export(tx: Connection, contact_id: int, *, settings: Settings) -> dict[str, Any]:
    """All data of one person, JSON-ready: ids as text, moments in UTC with `Z`, money as text.

    Raises:
        NotFound: no such contact.
    """
    contact = contacts.get(tx, contact_id)
    found = {name: _rows(tx, name, contact_id) for name in (
        "history", "consents", "segments", "events", "orders", "hits", "score", "score_history", "score_awards",
        "stages", "enrollments", "imports", "audit",
    )}  # fmt: skip
    shown = contacts.as_json(contact)
    tags = shown.pop("tags")
    entry = find_suppression(tx, contact.email, settings)
    return {
        "contact": {**shown, "tags": tags, "history": found["history"]},
        "consents": found["consents"],
        "suppression": None if entry is None else _shown({
            "id": entry.suppression_id, "email": entry.email, "reason": str(entry.reason), "source": entry.source,
            "notes": entry.notes, "created_at": entry.created_at,
        }),
        "tags": tags,
        "segments": found["segments"],
        "events": found["events"],
        "orders": found["orders"],
        "messages": _messages(tx, contact_id),
        "hits": found["hits"],
        "scores": {
            "current": next(iter(found["score"]), None), "history": found["score_history"],
            "awards": found["score_awards"],
        },
        "stages": {"current": contact.lifecycle_stage, "transitions": found["stages"]},
        "enrollments": found["enrollments"],
        "imports": found["imports"],
        "audit": found["audit"],
    }  # fmt: skip


def _messages(tx: Connection, contact_id: int) -> list[dict[str, Any]]:
    rows = tx.execute(statement("privacy.export_variables"), {"contact_id": contact_id})
    variables = {row.message_id: row.context for row in rows}
    sent = reading.messages(tx, reading.MessageFilter(contact_id=contact_id), limit=None)
    return [
        {"id": str(one.message_id), **_shown({k: v for k, v in asdict(one).items() if k != "message_id"}),
         "variables": variables.get(one.message_id) or {}}
        for one in sent
    ]  # fmt: skip


def _rows(tx: Connection, name: str, contact_id: int) -> list[dict[str, Any]]:
    rows = tx.execute(statement(f"privacy.export_{name}"), {"contact_id": contact_id})
    return [_shown(row._mapping) for row in rows]


def _shown(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and (name == "id" or name.endswith("_id")):
        return None if value == 0 else str(value)
    return value
