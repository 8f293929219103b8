"""Inbound sources: list, make, change, remove - and find the one a token belongs to.

Guards that a token is stored as a hash (256 random bits, nothing to guess) and a secret only sealed; both are shown in
the answer that made them and never again. Called by the API and by `arriving`; what arrives is not read here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, delete, func, or_, select, tuple_
from sqlalchemy import update as change
from sqlalchemy.dialects.postgresql import insert

from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import Conflict, NotFound
from mautolib.settings import Settings
from mautolib.webhooks.mapping import check_mapping
from mautolib.webhooks.proving import SourceKind
from mautolib.webhooks.secrets import check_secret, new_secret, open_secret, seal_secret

__all__ = ["MISSING", "Door", "MadeSource", "NewSource", "Source", "count", "create", "find_door", "get", "note_use",
           "remove", "search", "update"]  # fmt: skip

MISSING: Final = "Inbound source not found"
#: How often the time of the last message is written, at most.
USE_NOTED_EVERY: Final = timedelta(minutes=1)
_TABLE = tables.inbound_sources
_C = _TABLE.c
_SHOWN = [column for column in _C if column.name not in ("token_hash", "secret_encrypted")]


@dataclass(frozen=True, kw_only=True)
class NewSource:
    """What is needed to make a source; without a secret one is made."""

    name: str
    kind: SourceKind = SourceKind.GENERIC
    secret: str | None = None
    mapping: Mapping[str, Any]
    active: bool = True


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source as listed; its token is not known any more."""

    source_id: int
    name: str
    kind: SourceKind
    active: bool
    mapping: Mapping[str, Any]
    last_received_at: datetime | None
    created_at: datetime

    @property
    def event_source(self) -> str:
        """`source` of the events it brings."""
        return f"inbound:{self.source_id}"


@dataclass(frozen=True, kw_only=True)
class MadeSource:
    """A new source with what is shown once."""

    source: Source
    token: str
    secret: str


@dataclass(frozen=True, kw_only=True)
class Door:
    """A source with its secret, to check a signature with."""

    source: Source
    secret: str


def create(tx: Connection, settings: Settings, new: NewSource, *, now: datetime) -> MadeSource:
    """Make a source.

    Raises:
        InvalidInput: mapping or secret is not acceptable.
    """
    token, secret = secrets.token_urlsafe(32), new_secret() if new.secret is None else check_secret(new.secret)
    row = tx.execute(
        insert(_TABLE).values(
            name=new.name, kind=str(new.kind), token_hash=_digest(token), active=new.active, created_at=now,
            secret_encrypted=seal_secret(settings, secret), mapping=check_mapping(new.mapping),
        ).returning(*_SHOWN)
    ).one()  # fmt: skip
    return MadeSource(source=_source(row), token=token, secret=secret)


def get(tx: Connection, source_id: int) -> Source:
    """One source.

    Raises:
        NotFound: there is none.
    """
    row = tx.execute(select(*_SHOWN).where(_C.source_id == source_id)).one_or_none()
    if row is None:
        raise NotFound(MISSING)
    return _source(row)


def search(
    tx: Connection, *, skip: int = 0, limit: int = 50, after: tuple[datetime, int] | None = None
) -> list[Source]:
    """Sources, newest first; `after` is (created_at, id) of the last one of the page before."""
    query = select(*_SHOWN).order_by(_C.created_at.desc(), _C.source_id.desc())
    if after is not None:
        query = query.where(tuple_(_C.created_at, _C.source_id) < after)
    return [_source(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count(tx: Connection, *, at_most: int) -> int:
    """How many sources there are; counting stops at `at_most`."""
    query = select(_C.source_id).limit(at_most).subquery()
    return int(tx.scalar(select(func.count()).select_from(query)) or 0)


def update(tx: Connection, settings: Settings, source_id: int, changes: Mapping[str, Any]) -> Source:
    """Change name, active, mapping or secret, as given; a secret of None leaves it as it is.

    Raises:
        NotFound: there is none.
        InvalidInput: mapping or secret is not acceptable.
    """
    values = {name: value for name, value in changes.items() if name in ("name", "active")}
    if "mapping" in changes:
        values["mapping"] = check_mapping(changes["mapping"])
    if changes.get("secret") is not None:
        values["secret_encrypted"] = seal_secret(settings, check_secret(changes["secret"]))
    if not values:
        return get(tx, source_id)
    row = tx.execute(
        change(_TABLE).where(_C.source_id == source_id).values(values).returning(*_SHOWN)
    ).one_or_none()
    if row is None:
        raise NotFound(MISSING)
    return _source(row)


def remove(tx: Connection, source_id: int) -> None:
    """Remove a source; the events it brought stay.

    Raises:
        NotFound: there is none.
        Conflict: `in_use`: an active workflow is started by its events.
    """
    # Whoever refers to it holds its row; from here on nobody new does.
    held = select(_C.source_id).where(_C.source_id == source_id).with_for_update()
    if tx.execute(held).one_or_none() is None:
        raise NotFound(MISSING)
    user = tx.scalar(statement("webhooks.source_user"), {"source_id": source_id})
    if user is not None:
        raise Conflict(f"This source is used by workflow {user}", code="in_use")
    tx.execute(delete(_TABLE).where(_C.source_id == source_id))


def find_door(tx: Connection, settings: Settings, token: str) -> Door:
    """The active source whose token this is.

    Raises:
        NotFound: no such token, or the source is not active: from outside both look the same.
    """
    query: Select[Any] = select(*_SHOWN, _C.secret_encrypted).where(_C.token_hash == _digest(token), _C.active)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound(MISSING)
    return Door(source=_source(row), secret=open_secret(settings, bytes(row.secret_encrypted)))


def note_use(tx: Connection, source_id: int, *, now: datetime) -> None:
    """Remember that something arrived: at most once a minute, and nobody waits for somebody else's note."""
    stale = or_(_C.last_received_at.is_(None), _C.last_received_at <= now - USE_NOTED_EVERY)
    free = select(_C.source_id).where(_C.source_id == source_id, stale).with_for_update(skip_locked=True)
    tx.execute(change(_TABLE).where(_C.source_id.in_(free)).values(last_received_at=now))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _source(row: Row[Any]) -> Source:
    return Source(
        source_id=row.source_id, name=row.name, kind=SourceKind(row.kind), active=row.active, mapping=row.mapping,
        last_received_at=row.last_received_at, created_at=row.created_at,
    )  # fmt: skip
