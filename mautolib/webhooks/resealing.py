"""Stored secrets of webhooks and inbound sources under a key ring that changes: which key each needs, and resealing.

Promise: after `reseal` every secret that can be opened is sealed with the newest key, and older keys may leave the ring
without a webhook losing its secret. Called by the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from mautolib.auth import sealing
from mautolib.db import tables
from mautolib.settings import Settings
from mautolib.webhooks.secrets import PURPOSE, open_secret, seal_secret

_ENDPOINTS, _SOURCES = tables.webhook_endpoints.c, tables.inbound_sources.c
#: Key and column of each secret that is kept.
_PLACES = (
    (_ENDPOINTS.endpoint_id, _ENDPOINTS.secret_encrypted),
    (_ENDPOINTS.endpoint_id, _ENDPOINTS.previous_secret_encrypted),
    (_SOURCES.source_id, _SOURCES.secret_encrypted),
)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How many secrets the newest key of the ring opens, only an older one, and none."""

    newest: int
    older: int
    lost: int


def stored(tx: Connection, settings: Settings, *, now: datetime) -> Stored:
    """Count the stored secrets by the key they need."""
    found = [place for *_, place in _each(tx, settings, now, for_update=False)]
    lost = found.count(None)
    return Stored(newest=found.count(0), older=len(found) - found.count(0) - lost, lost=lost)


def reseal(tx: Connection, settings: Settings, *, now: datetime) -> int:
    """Seal with the newest key what an older one sealed; returns how many."""
    done = 0
    for key, column, row_id, sealed, place in _each(tx, settings, now, for_update=True):
        if place:
            fresh = seal_secret(settings, open_secret(settings, sealed))
            tx.execute(update(column.table).where(key == row_id).values({column.name: fresh}))
            done += 1
    return done


def _each(
    tx: Connection, settings: Settings, now: datetime, *, for_update: bool
) -> Iterator[tuple[Any, Any, int, bytes, int | None]]:
    for key, column in _PLACES:
        query = select(key, column).where(column.is_not(None)).order_by(key)
        if column is _ENDPOINTS.previous_secret_encrypted:
            # One that signs no more is not missed.
            query = query.where(_ENDPOINTS.previous_valid_until > now)
        for row_id, sealed in tx.execute(query.with_for_update() if for_update else query).all():
            place = sealing.place_of_key(settings, PURPOSE, bytes(sealed))
            yield key, column, row_id, bytes(sealed), place
