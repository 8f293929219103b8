"""The export itself: which files of which tables are not as the database has them, and writing those again.

Promise: one run shows one moment of the database (one snapshot, read only). Each day of a table, and each table
without days, has a fingerprint of its rows; a file whose fingerprint is not the manifest's is written anew, whatever
the cause: late events, corrections, deletions, erasure. Nothing in the database is changed, so an export needs no
more than an analyst's rights. Two exports to one target do not run at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, text

from mautolib.analytics import readers_views
from mautolib.analytics.lake.tables import DAYS, Exported, TableExport
from mautolib.analytics.lake.targets import opened
from mautolib.analytics.readers_views import Relation
from mautolib.db.engine import Tx
from mautolib.errors import InvalidInput, NotFound, TransientError
from mautolib.settings import Settings

__all__ = ["DAYS", "Exported", "export"]

_LOG = logging.getLogger(__name__)
#: The days before today that a hasty run looks at.
_HASTY_DAYS: Final = 35
_LOCK: Final = text("select pg_try_advisory_xact_lock(hashtextextended('lake ' || cast(:target as text), 0))")
_UNLIMITED: Final = text("select set_config(name, '0', true) from unnest(cast(:names as text[])) as name")
_TIMEOUTS: Final = ["statement_timeout", "idle_in_transaction_session_timeout"]


def export(
    engine: Engine, settings: Settings, *, target: str, now: datetime, tables: Collection[str] = (),
    from_: date | None = None, to: date | None = None, rewrite: bool = False, hasty: bool = False,
) -> list[Exported]:  # fmt: skip
    """Make the files at `target` what schema `analytics` holds; returns what was done, by table.

    Args:
        target: an absolute folder, or `s3://bucket/prefix`.
        tables: names; none: all there are.
        from_, to: first and last UTC day to look at in tables that have days.
        rewrite: write files again though nothing changed.
        hasty: look at all days of a table only in the first run of a UTC day, else at the last 35.
    Raises:
        NotFound: no such table.
        InvalidInput: the days end before they begin, or there is no such bucket.
        Misconfigured: the target is none, or not writable.
        TransientError: another export to the target is at work; the disk is full; S3 cannot be reached.
    """
    if from_ is not None and to is not None and from_ > to:
        raise InvalidInput(f"the days end ({to}) before they begin ({from_})", path=("to",))
    hasty_from = now.astimezone(UTC).date() - timedelta(days=_HASTY_DAYS) if hasty else None
    with _alone(engine, target), _one_moment(engine) as tx:
        relations = _wanted(tx, tables)
        with opened(settings, target) as place:
            done = [
                TableExport(tx, place, relation, now=now).export(
                    from_, to, rewrite=rewrite, hasty_from=hasty_from
                ) for relation in relations
            ]  # fmt: skip
            told = {"written_at": now.isoformat(), "tables": {one.table: one.files for one in done}}
            place.write("_SUCCESS", json.dumps(told).encode())
    for one in done:
        _LOG.info("%s: %s files, %s written (%s rows), %s removed", one.table, one.files, one.written, one.rows,
                  one.removed)  # fmt: skip
    return done


@contextmanager
def _alone(engine: Engine, target: str) -> Iterator[None]:
    with engine.connect() as guard, guard.begin():
        guard.execute(_UNLIMITED, {"names": _TIMEOUTS})
        if not guard.scalar(_LOCK, {"target": target.rstrip("/")}):
            raise TransientError(f"another export to {target} is at work")
        yield


@contextmanager
def _one_moment(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as tx, tx.begin():
        tx.exec_driver_sql("set transaction isolation level repeatable read, read only")
        tx.execute(_UNLIMITED, {"names": _TIMEOUTS})
        yield tx


def _wanted(tx: Tx, tables: Collection[str]) -> list[Relation]:
    known = {relation.name: relation for relation in readers_views.listed(tx)}
    if unknown := sorted(set(tables) - known.keys()):
        raise NotFound(f"There is no table {', '.join(unknown)} in schema analytics; there are {', '.join(known)}")
    return [relation for name, relation in known.items() if not tables or name in tables]
