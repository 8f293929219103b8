"""The audit log: one entry per call that changes something, export or sign-in attempt. Append-only.

A success writes its entry in the transaction of its effect, a refusal in one of its own. Called by the API and by
`sessions`. Bodies, passwords and tokens never go into an entry. The log is read newest first; every filter has an
index that ends in that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, tuple_

from mautolib.db import tables

_TABLE, _C = tables.audit_log, tables.audit_log.c


class ActorType(StrEnum):
    """What kind of caller acted."""

    USER = "user"
    API_KEY = "api_key"
    SYSTEM = "system"
    PUBLIC = "public"


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acted. `label` is what people read: the address of a user, the name of a key."""

    type: ActorType
    id: int | None = None
    label: str = ""

    def __str__(self) -> str:
        return f"{self.type}:{self.id}" if self.id is not None else str(self.type)


PUBLIC = Actor(type=ActorType.PUBLIC)
SYSTEM = Actor(type=ActorType.SYSTEM, label="system")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the log: who did what to which thing, with what result."""

    actor: Actor
    action: str
    resource_type: str
    resource_id: str | None = None
    status: int
    request_id: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)


def write(tx: Connection, entry: Entry) -> None:
    """Append one entry in the caller's transaction; its time is the server's."""
    tx.execute(
        insert(tables.audit_log).values(
            actor_type=str(entry.actor.type), actor_id=entry.actor.id, actor_label=entry.actor.label[:320],
            action=entry.action, resource_type=entry.resource_type, resource_id=entry.resource_id,
            status=entry.status, request_id=entry.request_id[:128], changes=dict(entry.changes),
        )
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """What the log may be narrowed to; `since` counts in, `until` does not."""

    actor_id: int | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One entry as it was written."""

    audit_id: int
    at: datetime
    actor_type: ActorType
    actor_id: int | None
    actor_label: str
    action: str
    resource_type: str
    resource_id: str | None
    status: int
    request_id: str
    changes: Mapping[str, Any]


def search(
    tx: Connection, filters: AuditFilter, *, skip: int = 0, limit: int = 50, after: tuple[datetime, int] | None = None
) -> list[Recorded]:
    """Entries that match, newest first; `after` is (at, audit_id) of the last one of the page before."""
    query = select(_TABLE).where(*_conditions(filters)).order_by(_C.at.desc(), _C.audit_id.desc())
    if after is not None:
        query = query.where(tuple_(_C.at, _C.audit_id) < after)
    return [
        Recorded(**{**row, "actor_type": ActorType(row["actor_type"])})
        for row in tx.execute(query.offset(skip).limit(limit)).mappings()
    ]


def count(tx: Connection, filters: AuditFilter, *, at_most: int) -> int:
    """How many entries match; counting stops at `at_most`."""
    query = select(_C.audit_id).where(*_conditions(filters)).limit(at_most).subquery()
    return int(tx.scalar(select(func.count()).select_from(query)) or 0)


def _conditions(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    equal = {
        _C.actor_id: wanted.actor_id, _C.action: wanted.action, _C.resource_type: wanted.resource_type,
        _C.resource_id: wanted.resource_id,
    }  # fmt: skip
    found = [column == value for column, value in equal.items() if value is not None]
    if wanted.since is not None:
        found.append(_C.at >= wanted.since)
    if wanted.until is not None:
        found.append(_C.at < wanted.until)
    return found
