"""One run over all feedback: the mailbox is read, notices are applied, and doubts are settled.

Promise: safe to repeat, to overlap and to kill; a notice that cannot be applied is left aside and does not hold up the
others. Called by the DAG `feedback_processing`. It hands nothing over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from mautolib.campaigns import finishing, totals
from mautolib.db.engine import is_unavailable
from mautolib.db.statements import statement
from mautolib.errors import MautoError
from mautolib.feedback.applying import Applied, apply_due
from mautolib.feedback.mailbox import Read, read_mailbox
from mautolib.settings import Settings

__all__ = ["Processed", "process"]

_LOG = logging.getLogger(__name__)
BATCH: Final = 200
_MOST_BATCHES: Final = 500
_AGAIN: Final = ("40001", "40P01")


@dataclass(frozen=True, kw_only=True)
class Processed:
    """What a run did."""

    mails: Read
    applied: int = 0
    parked: int = 0
    ignored: int = 0
    settled: int = 0
    suppressed: int = 0
    broken: int = 0
    campaigns_finished: int = 0


def process(engine: Engine, settings: Settings, *, now: datetime) -> Processed:
    """Read, apply, settle.

    Raises:
        Misconfigured, ProviderUnavailable: the bounce mailbox cannot be read; everything else was done before.
    """
    problem: MautoError | None = None
    mails = Read()
    try:
        mails = read_mailbox(engine, settings, now=now)
    except MautoError as error:
        problem = error
    done = _apply_all(engine, settings, now)
    finished = finishing.finish(engine, now)
    if problem is not None:
        raise problem
    return Processed(mails=mails, campaigns_finished=len(finished), **done)


def _apply_all(engine: Engine, settings: Settings, now: datetime) -> dict[str, int]:
    counts = dict.fromkeys(("applied", "parked", "ignored", "settled", "suppressed", "broken"), 0)
    for _ in range(_MOST_BATCHES):
        try:
            with engine.begin() as tx:
                batch = apply_due(tx, settings, now=now, size=BATCH)
        except Exception as error:
            if isinstance(error, DBAPIError) and is_unavailable(error):
                raise
            _LOG.warning("a batch of notices could not be applied, taking them one by one: %s", type(error).__name__)
            counts["broken"] += _one_by_one(engine, settings, now, counts)
            continue
        if not batch.taken:
            break
        _count(counts, batch)
        _recount(engine, batch, now)
    if any(counts.values()):
        _LOG.info("notices: %s", counts)
    return counts


def _count(counts: dict[str, int], batch: Applied) -> None:
    for name in ("applied", "parked", "settled", "suppressed"):
        counts[name] += getattr(batch, name)
    counts["ignored"] += batch.taken - batch.applied - batch.parked


def _one_by_one(engine: Engine, settings: Settings, now: datetime, counts: dict[str, int]) -> int:
    """The notices of a batch that failed, each alone; returns how many are broken and were put aside for a while."""
    with engine.begin() as tx:
        rows = tx.execute(statement("feedback.take_notices"), {"now": now, "size": BATCH, "only": None}).all()
    broken = 0
    for row in rows:
        try:
            with engine.begin() as tx:
                _count(counts, apply_due(tx, settings, now=now, size=1, only=row.notice_id))
        except Exception as error:
            if isinstance(error, DBAPIError) and is_unavailable(error):
                raise
            if getattr(getattr(error, "orig", None), "pgcode", None) in _AGAIN:
                continue
            _LOG.exception("notice %s cannot be applied", row.notice_id)
            broken += 1
            with engine.begin() as tx:
                tx.execute(statement("feedback.put_aside"), {"notice_id": row.notice_id, "now": now})
    return broken


def _recount(engine: Engine, batch: Applied, now: datetime) -> None:
    if batch.message_ids:
        with engine.begin() as tx:
            found = tx.scalars(statement("feedback.campaigns_of"), {"message_ids": sorted(batch.message_ids)}).all()
            totals.refresh_many(tx, found, now)
