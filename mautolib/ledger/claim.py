"""Claiming: due messages come into the hands of one sender, under a lease, committed before the first byte leaves.

Promise: no two senders hold one message; a paused or cancelled campaign gives nothing from its answer on; consent
and suppression are read in the same transaction, and again by `refused` just before the hand-over. Called by the
sending pump inside the transaction that also records its previous group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.ledger.identity import MessageIdentity
from mautolib.ledger.model import Claimed, Kind, Skip

#: Longer than a whole group may take; the sender stops by its own clock long before.
LEASE_SECONDS: Final = 900
_CONTACT_FIELDS: Final = (
    "email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency", "custom_fields",
    "source", "created_at",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Group:
    """What one claim gave: messages to hand over, and how many were skipped, by reason.

    Args:
        is_busy: something else was done, or others are at it: ask again (`is_contended`: after a moment).
        tallied: under which limits each message was counted, for those that are given back.
    """

    attempt_id: int
    messages: tuple[Claimed, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    is_busy: bool = False
    is_contended: bool = False
    tallied: Mapping[int, Sequence[tuple[int, str]]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was due."""
        return not self.messages and not self.skipped and not self.is_busy


def new_attempt(tx: Connection) -> int:
    """A number for the next attempt; known before the claim, so that a lost answer can be looked up by it."""
    return int(tx.execute(statement("ledger.new_attempt")).scalar_one())


def claim(
    tx: Connection,
    *,
    attempt_id: int,
    size: int,
    identity: MessageIdentity,
    now: datetime,
    shard: int = 0,
    shards: int = 1,
    require_consent: bool = False,
    paces_all: bool = False,
) -> Group:
    """Take up to `size` due messages of one shard (contact_id modulo `shards`) under `attempt_id`.

    Campaigns with a pace are left to `campaigns.pacing`; with `paces_all` all marketing mail is.
    """
    counts = tx.execute(
        statement("ledger.claim"),
        {
            "attempt_id": attempt_id, "size": size, "shard": shard, "shards": shards, "now": now,
            "require_consent": require_consent, "paces_all": paces_all, "lease_seconds": LEASE_SECONDS,
            "inner_key": identity.inner_key, "outer_key": identity.outer_key, "domain": identity.domain,
        },
    ).all()  # fmt: skip
    skipped = {row.reason: row.message_count for row in counts if row.reason is not None}
    if len(skipped) == len(counts):
        return Group(attempt_id=attempt_id, skipped=skipped)
    return Group(attempt_id=attempt_id, messages=held(tx, attempt_id), skipped=skipped)


def held(tx: Connection, attempt_id: int) -> tuple[Claimed, ...]:
    """What an attempt holds; after a lost connection this tells whether its claim was committed."""
    rows = tx.execute(statement("ledger.claimed"), {"attempt_id": attempt_id}).mappings()
    return tuple(_claimed(dict(row)) for row in rows)


def refused(tx: Connection, attempt_id: int, *, require_consent: bool = False) -> dict[int, Skip]:
    """The messages of an attempt that may not go any more, with the reason."""
    rows = tx.execute(
        statement("ledger.refused"), {"attempt_id": attempt_id, "require_consent": require_consent}
    ).all()
    return {row.message_id: Skip(row.reason) for row in rows}


def _claimed(row: Mapping[str, Any]) -> Claimed:
    if row["shown_id"] is None:
        # Nobody we know: every name a template may use is there, and empty.
        contact = {"id": "", **dict.fromkeys(_CONTACT_FIELDS, ""), "custom_fields": {}, "email": row["to_email"]}
    else:
        contact = {"id": str(row["shown_id"]), **{name: row[name] for name in _CONTACT_FIELDS}}
    return Claimed(
        message_id=row["message_id"],
        contact_id=row["contact_id"],
        attempt_id=row["attempt_id"],
        attempt_no=row["attempt_no"],
        kind=Kind(row["kind"]),
        campaign_id=row["campaign_id"],
        workflow_id=row["workflow_id"],
        content_id=row["content_id"],
        to_email=row["to_email"],
        rfc_message_id=row["rfc_message_id"],
        context=row["context"],
        contact=contact,
    )
