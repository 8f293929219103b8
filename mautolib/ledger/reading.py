"""Reading the ledger: messages as people look at them, of a contact, a campaign, or one alone.

Promises the newest first and the same shape everywhere; opens, clicks and unsubscribes are those of events, so they
are human ones. Called by the API and the export of one person's data; changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, case, cast, func, select, union_all

from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import NotFound
from mautolib.ledger.model import Kind, Status

__all__ = ["Attempt", "Message", "MessageFilter", "attempts", "count_messages", "message", "messages"]

_M, _CONTENTS, _C = tables.messages.c, tables.message_contents.c, tables.contacts.c


@dataclass(frozen=True, kw_only=True)
class MessageFilter:
    """Which messages to list or count; everything given must hold."""

    contact_id: int | None = None
    campaign_id: int | None = None
    workflow_id: int | None = None
    status: Status | str | None = None
    kind: Kind | str | None = None
    reason: str | None = None
    variant_id: int | None = None
    occurrence: int | None = None


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of the ledger. `email` is where it went or would go now; `subject` as written, before filling in."""

    message_id: int
    kind: Kind
    campaign_id: int | None
    workflow_id: int | None
    occurrence: int
    contact_id: int | None
    email: str | None
    status: Status
    reason: str | None
    variant_id: int | None
    locale: str | None
    subject: str
    due_at: datetime | None
    attempts: int
    last_code: int | None
    last_error: str | None
    provider_id: str | None
    queued_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    bounced_at: datetime | None
    complained_at: datetime | None
    first_open_at: datetime | None
    first_click_at: datetime | None
    unsubscribed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What became of one attempt, or of a doubt about it."""

    at: datetime
    stage: str | None
    code: int | None
    reply: str | None


def messages(
    tx: Connection, wanted: MessageFilter, *, skip: int = 0, limit: int | None = 50, before: int | None = None
) -> list[Message]:
    """Messages that match, newest first.

    Args:
        limit: None: all of them.
        before: id of the last message of the page before.
    """
    conditions = _conditions(wanted)
    if before is not None:
        conditions.append(_M.message_id < before)
    if limit is None:
        return _read(tx, _selected().where(*conditions))
    if wanted.campaign_id is None or wanted.contact_id is not None or wanted.status is not None:
        found = select(_M.message_id).where(*conditions).order_by(_M.message_id.desc()).offset(skip).limit(limit)
    else:
        found = _newest(conditions, skip, limit)
    # First the page, then what belongs to it: what is left out is joined with nothing.
    return _read(tx, _selected().where(_M.message_id.in_(found)))


def message(tx: Connection, message_id: int) -> Message:
    """One message.

    Raises:
        NotFound: there is none.
    """
    found = _read(tx, _selected().where(_M.message_id == message_id))
    if not found:
        raise NotFound("Message not found")
    return found[0]


def attempts(tx: Connection, message_id: int, contact_id: int) -> list[Attempt]:
    """What is written down about the attempts of a message, oldest first; `contact_id` 0: to nobody we know."""
    table = tables.message_attempts.c
    query = select(table.recorded_at.label("at"), table.stage, table.code, table.reply).where(
        table.contact_id == contact_id, table.message_id == message_id
    )
    return [Attempt(**row) for row in tx.execute(query.order_by(table.recorded_at, table.attempt_no)).mappings()]


def _newest(conditions: list[ColumnElement[bool]], skip: int, limit: int) -> Select[Any]:
    """The ids of a page of a campaign: of each state the newest, as its index gives them; else all would be sorted."""
    newest = _M.message_id.desc()
    parts = [
        select(_M.message_id).where(*conditions, _M.status == status.value).order_by(newest).limit(skip + limit)
        for status in Status
    ]
    ids = union_all(*(part.subquery().select() for part in parts)).subquery().c.message_id
    return select(ids).order_by(ids.desc()).offset(skip).limit(limit)


def _read(tx: Connection, query: Select[Any]) -> list[Message]:
    rows = tx.execute(query.order_by(_M.message_id.desc())).mappings().all()
    owned = {row["message_id"]: row["contact_id"] for row in rows if row["contact_id"] is not None}
    ids = {"contact_ids": sorted(set(owned.values())), "message_ids": list(owned)}
    times = {row.message_id: row for row in tx.execute(statement("ledger.reactions"), ids)} if owned else {}
    return [_message(dict(row), times.get(row["message_id"])) for row in rows]


def count_messages(tx: Connection, wanted: MessageFilter, *, at_most: int | None = None) -> int:
    """How many messages match; with `at_most` counting stops there."""
    query = select(_M.message_id).where(*_conditions(wanted)).limit(at_most)
    return int(tx.scalar(select(func.count()).select_from(query.subquery())) or 0)


def _selected() -> Select[Any]:
    same = ("message_id", "kind", "workflow_id", "occurrence", "status", "reason", "variant_id",
            "due_at", "last_code", "last_error", "provider_id", "queued_at", "sent_at", "delivered_at", "bounced_at",
            "complained_at")  # fmt: skip
    # A test belongs to no campaign, so that it never stands in its way; it knows which it shows.
    shown = cast(_M.context["campaign"]["id"].astext, BigInteger)
    campaign_id = case((_M.kind == Kind.TEST.value, shown), else_=_M.campaign_id)
    return select(
        *(_M[name] for name in same), campaign_id.label("campaign_id"), _M.attempt_no.label("attempts"),
        func.nullif(_M.contact_id, 0).label("contact_id"), func.coalesce(_M.to_email, _C.email).label("email"),
        _CONTENTS.subject, func.nullif(_CONTENTS.locale, "").label("locale"),
    ).select_from(
        tables.messages.join(tables.message_contents, _CONTENTS.content_id == _M.content_id)
        .outerjoin(tables.contacts, _C.contact_id == _M.contact_id)
    )  # fmt: skip


def _conditions(wanted: MessageFilter) -> list[ColumnElement[bool]]:
    given = {name: getattr(wanted, name) for name in wanted.__dataclass_fields__}
    return [_M[name] == (str(value) if isinstance(value, str) else value)
            for name, value in given.items() if value is not None]  # fmt: skip


def _message(row: dict[str, Any], reaction: Any) -> Message:
    seen = {
        name: getattr(reaction, name, None) for name in ("first_open_at", "first_click_at", "unsubscribed_at")
    }
    return Message(**{**row, **seen, "kind": Kind(row["kind"]), "status": Status(row["status"])})
