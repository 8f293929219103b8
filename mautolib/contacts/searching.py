"""Searching contacts by a part of their address or name, and keeping the index of it.

Promise: every contact is found from its commit on; only the time it takes depends on how far the index reaches.
`extend_index` is called after large imports and by maintenance; `matching` and `count` by lists and exports. Texts of
fewer than three characters have no trigram: they are searched without index.
"""

from __future__ import annotations

import logging
import time

from sqlalchemy import ColumnElement, Connection, Engine, any_, func, literal

from mautolib.db import tables
from mautolib.db.statements import statement

__all__ = ["count", "extend_index", "matching"]

_LOG = logging.getLogger(__name__)
_C = tables.contacts.c
#: Up to so many matches are fetched by id; more of them are so common that walking down a list meets them soon.
_RARE = 2000
#: Contacts indexed in one transaction, about 60 ms of work.
_CHUNK = 5000
#: A transaction draws its first id a moment before it gets its number; a second is a thousand times that moment.
_MOMENT_SECONDS = 1.0


def matching(tx: Connection, part: str) -> ColumnElement[bool]:
    """The condition on `contacts` that address or names contain `part`, case-blind; `%` and `_` are literal."""
    pattern = _pattern(part)
    binds = {"pattern": pattern, "reach": _reach(tx), "at_most": _RARE + 1}
    found = tx.scalars(statement("search.matches"), binds).all()
    if len(found) <= _RARE:
        return _C.contact_id == any_(literal(list(found), tables.segments.c.exclude_campaign_ids.type))
    return func.contact_words(_C.email, _C.first_name, _C.last_name).like(func.lower(pattern))


def count(tx: Connection, part: str, *, at_most: int | None = None) -> int:
    """How many contacts contain `part`; with `at_most` counting stops there."""
    binds = {"pattern": _pattern(part), "reach": _reach(tx), "at_most": at_most}
    return int(tx.scalar(statement("search.count_matches"), binds) or 0)


def extend_index(engine: Engine, *, patience_seconds: float = 60.0) -> int:
    """Index the contacts made since the last time, in chunks of their own transactions; returns how many.

    An id may be drawn long before its transaction commits, so the index goes up to the last id drawn, once every
    transaction that was open then has ended.

    Args:
        patience_seconds: how long to wait for those; after that the next call goes on.
    """
    with engine.begin() as tx:
        up_to = tx.scalar(statement("search.last_id"))
        if up_to is None or up_to <= _reach(tx):
            return 0
    time.sleep(_MOMENT_SECONDS)
    with engine.begin() as tx:
        number = tx.scalar(statement("search.transaction_number")) or 0
    deadline = time.monotonic() + patience_seconds
    while _oldest_open(engine) <= number:
        if time.monotonic() > deadline:
            _LOG.info("search index: a transaction has been open for long; the next run goes on")
            return 0
        time.sleep(0.1)
    total = 0
    while True:
        with engine.begin() as tx:
            indexed_to, indexed = _index_next(tx, up_to)
        total += indexed
        if indexed_to >= up_to:
            break
    if total:
        _LOG.info("search index: %d contacts added", total)
    return total


def _index_next(tx: Connection, up_to: int) -> tuple[int, int]:
    """Index one chunk; returns how far the index reaches now, and how many contacts were in the chunk."""
    tx.execute(statement("search.hold"))
    row = tx.execute(statement("search.index_next"), {"up_to": up_to, "at_most": _CHUNK}).one()
    return int(row.indexed_to), int(row.indexed_count)


def _oldest_open(engine: Engine) -> int:
    with engine.begin() as tx:
        return int(tx.scalar(statement("search.oldest_open_transaction")) or 0)


def _reach(tx: Connection) -> int:
    return int(tx.scalar(statement("search.reach")) or 0)


def _pattern(part: str) -> str:
    # No stored text has a NUL or half a surrogate pair; PostgreSQL would refuse to compare with one.
    text = part.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    for special in "\\%_":
        text = text.replace(special, f"\\{special}")
    return f"%{text}%"
