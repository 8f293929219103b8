"""The audit log: one entry per call that changes something, export or sign-in attempt. Append-only.

A success writes its entry in the transaction of its effect, a refusal in one of its own. Called by the API and by
`sessions`. Bodies, passwords and tokens never go into an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert

from mautolib.db import tables


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
