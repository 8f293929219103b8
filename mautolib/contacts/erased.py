"""Addresses of erased people: kept as a keyed hash that still stops mail, compared only while there are any.

Guards docs/decisions/0003: a suppression names an address or the hash of an erased one. Whoever makes a contact (or
gives one another address) calls `revive` first and after the row is written: the hash becomes an ordinary entry,
since the address is known again, and the second look finds an erasure that committed while the row waited for it.
Suppressing and lifting find the hash and leave it one (`entries`). Called by `contacts` and, for erasing, `privacy`.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, select, update

from mautolib.contacts.model import SuppressionReason
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.settings import Settings

__all__ = ["SOURCE", "entries", "forget", "revive", "revive_staged", "strengthen"]

#: `source` of an entry that came from an erasure.
SOURCE = "erasure"
_S = tables.suppressions.c
_BLOCK = 64


def revive(tx: Connection, keys: Sequence[str], settings: Settings | None) -> dict[str, SuppressionReason]:
    """Turn the hashes of these address keys into ordinary entries; returns those that were, with their reason.

    Costs one look at an index while nobody is erased.

    Raises:
        ValueError: there are erased addresses and no settings to compare with.
    """
    if not keys or not _are_any(tx):
        return {}
    rows = tx.execute(statement("contacts.revive_erased"), {"email_keys": list(keys), **_pads(settings)})
    return {row.email_key: SuppressionReason(row.reason) for row in rows}


def revive_staged(tx: Connection, settings: Settings | None) -> int:
    """The same for the accepted rows of the import at work (temporary table `import_rows`); returns how many.

    Raises:
        ValueError: as `revive`.
    """
    if not _are_any(tx):
        return 0
    return tx.execute(statement("imports.revive_erased"), _pads(settings)).rowcount


def entries(tx: Connection, keys: Iterable[str], settings: Settings | None) -> dict[str, Row[Any]]:
    """The entries of these address keys that are hashes (rows of `suppressions`), locked.

    Raises:
        ValueError: as `revive`.
    """
    if not _are_any(tx):
        return {}
    hashes = {_hash(key, settings): key for key in keys}
    query = select(tables.suppressions).where(_S.email_hash.in_(list(hashes))).order_by(_S.suppression_id)
    return {hashes[bytes(row.email_hash)]: row for row in tx.execute(query.with_for_update())}


def strengthen(tx: Connection, row: Row[Any], reason: SuppressionReason, *, now: datetime) -> Row[Any]:
    """Give the entry of an erased address a stronger reason; it stays a hash, without words that may quote the address.

    Returns: the new row, or `row` itself where its reason is as strong.
    """
    strength = list(SuppressionReason)
    if strength.index(reason) >= strength.index(SuppressionReason(row.reason)):
        return row
    change = update(tables.suppressions).where(_S.suppression_id == row.suppression_id)
    return tx.execute(change.values(reason=str(reason), created_at=now).returning(tables.suppressions)).one()


def forget(tx: Connection, key: str, settings: Settings, *, now: datetime, must_stay: bool) -> int:
    """Replace the entry of an address key by its hash, its words removed; returns the rows written.

    Args:
        must_stay: an address without an entry gets one, as `unsubscribe`.
    """
    row = tx.execute(select(tables.suppressions).where(_S.email_key == key).with_for_update()).one_or_none()
    if row is None and not must_stay:
        return 0
    # An older hash of the same address, left by a race: one entry is enough, the ordinary one is newer.
    tx.execute(delete(tables.suppressions).where(_S.email_hash == _hash(key, settings)))
    values = {"email": None, "email_key": None, "email_hash": _hash(key, settings), "source": SOURCE, "notes": ""}
    if row is None:
        reason = str(SuppressionReason.UNSUBSCRIBE)
        tx.execute(insert(tables.suppressions).values(**values, reason=reason, created_at=now))
    else:
        tx.execute(update(tables.suppressions).where(_S.suppression_id == row.suppression_id).values(**values))
    past = tables.suppression_history.c
    tx.execute(update(tables.suppression_history).where(past.email_key == key).values(email_key=None))
    return 1


def _are_any(tx: Connection) -> bool:
    return bool(tx.scalar(select(exists().where(_S.email_hash.is_not(None)))))


def _hash(key: str, settings: Settings | None) -> bytes:
    return hmac.digest(_pepper(settings), key.encode(), "sha256")


def _pads(settings: Settings | None) -> dict[str, bytes]:
    """The two padded keys of HMAC-SHA256 (RFC 2104), for making the hash in SQL."""
    padded = _pepper(settings).ljust(_BLOCK, b"\0")
    return {"inner_key": bytes(byte ^ 0x36 for byte in padded), "outer_key": bytes(byte ^ 0x5C for byte in padded)}


def _pepper(settings: Settings | None) -> bytes:
    if settings is None:
        raise ValueError("there are erased addresses: the settings are needed to compare with their hashes")
    return settings.pepper("suppression")
