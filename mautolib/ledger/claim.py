"""Claiming: due messages come into the hands of one sender, under a lease, committed before the first byte leaves.

Promise: no two senders hold one message; a paused or cancelled campaign gives nothing from its answer on; consent
and suppression are read in the same transaction, and again by `refused` just before the hand-over. Called by the
sending pump inside the transaction that also records its previous group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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

    Campaigns with a pace are left to `campaigns.pacing`; with `paces_all` all marketing mail is. A campaign that
    somebody is just changing is passed over, so that it keeps no other mail waiting; then there may be more to take.
    """
    binds = {
        "attempt_id": attempt_id, "size": size, "shard": shard, "shards": shards, "now": now,
        "require_consent": require_consent, "paces_all": paces_all, "lease_seconds": LEASE_SECONDS,
        "inner_key": identity.inner_key, "outer_key": identity.outer_key, "domain": identity.domain,
    }  # fmt: skip
    counts = tx.execute(statement("ledger.claim"), binds).all()
    if not counts and not paces_all and tx.scalar(statement("ledger.is_any_held")):
        return Group(attempt_id=attempt_id, is_busy=True, is_contended=True)
    if not counts and not paces_all:
        # One that was let go between the two statements was passed over by the first, and held by nobody in the second.
        counts = tx.execute(statement("ledger.claim"), binds).all()
    skipped = {row.reason: row.message_count for row in counts if row.reason is not None}
    if len(skipped) == len(counts):
        return Group(attempt_id=attempt_id, skipped=skipped)
    return Group(attempt_id=attempt_id, messages=held(tx, attempt_id), skipped=skipped)


def held(tx: Connection, attempt_id: int) -> tuple[Claimed, ...]:
    """What an attempt holds; after a lost connection this tells whether its claim was committed."""
    rows = tx.execute(statement("ledger.claimed"), {"attempt_id": attempt_id}).all()
    return tuple([_claimed(tuple(row)) for row in rows])


def refused(tx: Connection, attempt_id: int, *, require_consent: bool = False) -> dict[int, Skip]:
    """The messages of an attempt that may not go any more, with the reason."""
    rows = tx.execute(
        statement("ledger.refused"), {"attempt_id": attempt_id, "require_consent": require_consent}
    ).all()
    return {row.message_id: Skip(row.reason) for row in rows}


class ContactRow(Mapping[str, Any]):
    """What a template may name of a contact, read out of its row when it is asked for."""

    __slots__ = ("_row",)

    def __init__(self, row: Sequence[Any]) -> None:
        """`row` begins with the id and goes on as `_CONTACT_FIELDS`."""
        self._row = row

    def __getitem__(self, name: str) -> Any:
        value = self._row[_PLACES[name]]
        return _READERS[name](value) if name in _READERS else value

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)

    def __repr__(self) -> str:
        return f"ContactRow(id={self._row[0]})"


_PLACES: Final = {name: place for place, name in enumerate(("id", *_CONTACT_FIELDS))}
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "id": str, "custom_fields": json.loads, "created_at": datetime.fromisoformat
}  # fmt: skip
#: How many columns of the statement are the message's own; the contact follows.
_OWN: Final = 11
_KINDS: Final = {kind.value: kind for kind in Kind}


def _claimed(row: tuple[Any, ...]) -> Claimed:
    to_email, person = row[8], row[_OWN:]
    contact: Mapping[str, Any] = ContactRow(person)
    if person[0] is None:
        # Nobody we know: every name a template may use is there, and empty.
        contact = {"id": "", **dict.fromkeys(_CONTACT_FIELDS, ""), "custom_fields": {}, "email": to_email}
    return Claimed(
        row[0], row[1], row[2], row[3], _KINDS[row[4]], row[5], row[6], row[7], to_email, row[9], row[10], contact
    )
