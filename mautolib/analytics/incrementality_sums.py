"""The report on the newest hold-out as last counted: what the dashboard shows, which cannot wait for all contacts.

Promise: the report is `incrementality.told`, on sums that the same statement gave at a refresh of the day; the
statistics are done when it is read. Called by `refreshing`, and by the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from mautolib.analytics.incrementality import PRE_DAYS, Incrementality, stretch, told
from mautolib.analytics.work import Work, configure
from mautolib.campaigns import holdout
from mautolib.campaigns.holdout import Period
from mautolib.db.engine import Tx
from mautolib.db.statements import statement

__all__ = ["last_report", "restate"]


def restate(tx: Tx, work: Work) -> int:
    """Count both groups since the hold-out began; returns the rows written. A range of days changes nothing.

    All contacts are read: once a UTC day, and when the hold-out was changed.
    """
    known = holdout.periods(tx)
    if work.is_limited or _is_done(known, work):
        return 0
    tx.execute(statement("holdout.clear_sums"))
    since, until = stretch(known) or (work.as_of, None)
    to_at = min(until or work.as_of, work.as_of)
    if since >= to_at:
        return 0
    configure(tx, jit="off", work_mem="128MB")
    rows: Sequence[Any] = ()

    def kept(binds: Mapping[str, Any]) -> Sequence[Any]:
        nonlocal rows
        rows = tx.execute(statement("holdout.keep_sums"), binds).mappings().all()
        return rows

    told(known, since, to_at, pre_days=PRE_DAYS, sums=kept)
    return len(rows)


def _is_done(known: Sequence[Period], work: Work) -> bool:
    """Whether a refresh of the same UTC day has counted the same hold-out."""
    last = work.previous_as_of
    if last is None or last.astimezone(UTC).date() != work.as_of.astimezone(UTC).date():
        return False
    return all(each.begun_at < last and (each.ended_at is None or each.ended_at <= last) for each in known)


def last_report(tx: Tx) -> Incrementality | None:
    """The report as last counted; None: it never was, or other people are held out since, or nobody could be mailed."""
    rows = tx.execute(statement("holdout.kept_sums")).mappings().all()
    known = holdout.periods(tx)
    newest = stretch(known)
    if not rows or newest is None or rows[0]["from_at"] != newest[0]:
        return None
    return told(known, rows[0]["from_at"], rows[0]["to_at"], pre_days=PRE_DAYS, sums=lambda _: rows)
