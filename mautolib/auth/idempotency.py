"""Idempotency keys: a repeated call gets the first answer, and its effect happens once.

A key is claimed in a short transaction and completed in the transaction of the effect. A claim that was never
completed has no effect behind it: after `ABANDONED` another call takes it over, and the completion of the first
one then fails, which rolls its effect back. Called by the API; waiting is done there, without a connection.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from mautolib.db import tables
from mautolib.errors import Conflict, InvalidInput

KEPT = timedelta(hours=24)
ABANDONED = timedelta(seconds=60)

_TABLE = tables.idempotency_keys


@dataclass(frozen=True, kw_only=True)
class Key:
    """What makes two calls the same call: caller, method, path and the caller's own key."""

    caller: str
    method: str
    path: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to carry the call out. `claimed_at` tells it from a later claim of the same key."""

    key: Key
    claimed_at: datetime


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of a completed call, byte for byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request_hash(secret: bytes, *parts: bytes) -> bytes:
    """What the call asked for; two calls with one key and different hashes are a mistake of the caller.

    Keyed, because a body may hold a password: what is stored must not be a way to try passwords fast.
    """
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def claim(tx: Connection, key: Key, wanted: bytes, *, now: datetime) -> Claim | Answer | None:
    """Claim a key, or find its answer.

    Returns: a `Claim` to carry the call out; the `Answer` it had; `None` while the first call is still running.
    Raises:
        InvalidInput: `idempotency_mismatch`, the key was used for another request.
    """
    tx.execute(delete(_TABLE).where(_is(key), _TABLE.c.claimed_at <= now - KEPT))
    values = {
        "caller": key.caller, "method": key.method, "path": key.path, "idempotency_key": key.key,
        "request_hash": wanted, "claimed_at": now,
    }  # fmt: skip
    made = tx.execute(insert(_TABLE).values(values).on_conflict_do_nothing().returning(_TABLE.c.claimed_at))
    if made.one_or_none() is not None:
        return Claim(key=key, claimed_at=now)
    row = tx.execute(select(_TABLE).where(_is(key)).with_for_update()).one_or_none()
    if row is None:
        return None  # released this moment; the next look claims it
    if bytes(row.request_hash) != wanted:
        raise InvalidInput(
            "This Idempotency-Key was used for another request", code="idempotency_mismatch",
            path=("header", "Idempotency-Key"),
        )  # fmt: skip
    if row.completed_at is not None:
        return Answer(status=row.status, headers=row.headers or {}, body=bytes(row.body or b""))
    if row.claimed_at > now - ABANDONED:
        return None
    tx.execute(update(_TABLE).where(_is(key)).values(claimed_at=now))
    return Claim(key=key, claimed_at=now)


def complete(tx: Connection, claim: Claim, answer: Answer, *, now: datetime) -> None:
    """Keep the answer, in the transaction of the effect.

    Raises:
        Conflict: `idempotency_in_flight`, another call took the claim over; the effect must be rolled back.
    """
    mine = and_(_is(claim.key), _TABLE.c.claimed_at == claim.claimed_at, _TABLE.c.completed_at.is_(None))
    values = {"completed_at": now, "status": answer.status, "headers": dict(answer.headers), "body": answer.body}
    if tx.execute(update(_TABLE).where(mine).values(values)).rowcount != 1:
        raise Conflict("A request with this Idempotency-Key is still running", code="idempotency_in_flight")


def release(tx: Connection, claim: Claim) -> None:
    """Give a claim back: the call had no effect and its answer is not kept."""
    mine = and_(_is(claim.key), _TABLE.c.claimed_at == claim.claimed_at, _TABLE.c.completed_at.is_(None))
    tx.execute(delete(_TABLE).where(mine))


def _is(key: Key) -> ColumnElement[bool]:
    return and_(
        _TABLE.c.caller == key.caller, _TABLE.c.method == key.method, _TABLE.c.path == key.path,
        _TABLE.c.idempotency_key == key.key,
    )  # fmt: skip
