"""API keys: what programs sign in with. Role and scopes bound what a key may do; its creator bounds it too.

A key is shown once and stored as a SHA-256 hash (it has 256 random bits, there is nothing to guess). It works while
it is not revoked or expired, while the user who made it is active, and with no higher role than that user has now:
disabling or demoting somebody leaves no back door. Called by the API; revoked keys stay listed.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from mautolib.auth import audit, scopes
from mautolib.auth.roles import Role
from mautolib.db import tables
from mautolib.errors import NotAuthenticated, NotFound

#: What every key begins with, so that one is recognised in a header - and in a leaked file.
MARK = "mauto_"
#: How often the time of the last use is written, at most.
USE_NOTED_EVERY = timedelta(minutes=1)
_SHOWN_CHARACTERS = len(MARK) + 6
_TABLE, _USERS = tables.api_keys, tables.users
_C = _TABLE.c


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """What is needed to make a key."""

    name: str
    role: Role = Role.VIEWER
    scopes: tuple[str, ...] = (scopes.EVERYTHING,)
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key as listed; the key itself is not known any more."""

    api_key_id: int
    name: str
    prefix: str
    role: Role
    scopes: tuple[str, ...]
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class KeyHolder:
    """Who calls with a valid key. `role` is the key's, or its creator's where that is lower by now."""

    key: ApiKey
    role: Role

    @property
    def actor(self) -> audit.Actor:
        """The key as the audit log names it."""
        return audit.Actor(type=audit.ActorType.API_KEY, id=self.key.api_key_id, label=self.key.name)


def create(tx: Connection, new: NewKey, *, creator_id: int, created_by: str, now: datetime) -> tuple[ApiKey, str]:
    """Make a key; returns it and its text, which is not stored.

    Raises:
        InvalidInput: a text that is no scope.
    """
    text = MARK + secrets.token_urlsafe(32)
    row = tx.execute(
        insert(_TABLE).values(
            name=new.name, prefix=text[:_SHOWN_CHARACTERS], key_hash=_digest(text), role=str(new.role),
            scopes=list(scopes.check(new.scopes)), created_by=created_by, creator_id=creator_id,
            expires_at=new.expires_at, created_at=now,
        ).returning(_TABLE)
    ).one()  # fmt: skip
    return _key(row), text


def search(
    tx: Connection, *, skip: int = 0, limit: int = 50, after: tuple[datetime, int] | None = None
) -> list[ApiKey]:
    """Keys, newest first, revoked ones too; `after` is (created_at, id) of the last one of the page before."""
    query = select(_TABLE).order_by(_C.created_at.desc(), _C.api_key_id.desc())
    if after is not None:
        query = query.where(tuple_(_C.created_at, _C.api_key_id) < after)
    return [_key(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count(tx: Connection, *, at_most: int) -> int:
    """How many keys there are; counting stops at `at_most`."""
    query = select(_C.api_key_id).limit(at_most).subquery()
    return int(tx.scalar(select(func.count()).select_from(query)) or 0)


def revoke(tx: Connection, api_key_id: int, *, now: datetime) -> None:
    """End a key at once and for good.

    Raises:
        NotFound: no such key, or it was revoked before.
    """
    done = tx.execute(
        update(_TABLE).where(_C.api_key_id == api_key_id, _C.revoked_at.is_(None)).values(revoked_at=now)
    )
    if done.rowcount != 1:
        raise NotFound("API key not found")


def revoke_of_user(tx: Connection, user_id: int, *, now: datetime) -> int:
    """End all keys a user made, who is about to be deleted; returns how many."""
    mine = (_C.creator_id == user_id) & _C.revoked_at.is_(None)
    return tx.execute(update(_TABLE).where(mine).values(revoked_at=now)).rowcount


def resolve(tx: Connection, text: str, *, now: datetime) -> KeyHolder:
    """Who calls with this key, now; notes its use, at most once a minute.

    Raises:
        NotAuthenticated: unknown, revoked or expired key, or `User not found or inactive` for its creator.
    """
    creator = _USERS.c
    query = select(_TABLE, creator.role.label("creator_role"), creator.is_active.label("creator_is_active"))
    row = tx.execute(
        query.outerjoin(_USERS, creator.user_id == _C.creator_id).where(_C.key_hash == _digest(text))
    ).one_or_none()
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        raise NotAuthenticated("Invalid or expired token", code="invalid_token")
    if not row.creator_is_active:
        raise NotAuthenticated("User not found or inactive", code="invalid_token")
    key = _key(row)
    if key.last_used_at is None or key.last_used_at <= now - USE_NOTED_EVERY:
        _note_use(tx, key.api_key_id, now)
    role = min(key.role, Role(row.creator_role), key=lambda role: role.rank)
    return KeyHolder(key=key, role=role)


def _note_use(tx: Connection, api_key_id: int, now: datetime) -> None:
    # Of many calls at one moment one writes; the others pass the locked row by instead of waiting for it.
    stale = or_(_C.last_used_at.is_(None), _C.last_used_at <= now - USE_NOTED_EVERY)
    free = select(_C.api_key_id).where(_C.api_key_id == api_key_id, stale).with_for_update(skip_locked=True)
    tx.execute(update(_TABLE).where(_C.api_key_id.in_(free)).values(last_used_at=now))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        api_key_id=row.api_key_id, name=row.name, prefix=row.prefix, role=Role(row.role), scopes=tuple(row.scopes),
        created_by=row.created_by, expires_at=row.expires_at, last_used_at=row.last_used_at,
        revoked_at=row.revoked_at, created_at=row.created_at,
    )  # fmt: skip
