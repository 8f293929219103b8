"""The report on the newest hold-out as last counted: what the dashboard shows, which cannot wait for all contacts.

Promise: the report is `incrementality.told`, on sums that the same statement gave at the last refresh; the statistics
are done when it is read. Called by `refreshing`, and by the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mautolib.analytics.incrementality import PRE_DAYS, Incrementality, stretch, told
from mautolib.analytics.work import Work, configure
from mautolib.campaigns import holdout
from mautolib.db.engine import Tx
from mautolib.db.statements import statement

__all__ = ["last_report", "restate"]


def restate(tx: Tx, work: Work) -> int:
    """Count both groups since the hold-out began; returns the rows written. A range of days changes nothing."""
    if work.is_limited:
        return 0
    tx.execute(statement("holdout.clear_sums"))
    known = holdout.periods(tx)
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


def last_report(tx: Tx) -> Incrementality | None:
    """The report as last counted; None: it never was, or other people are held out since, or nobody could be mailed."""
    rows = tx.execute(statement("holdout.kept_sums")).mappings().all()
    known = holdout.periods(tx)
    newest = stretch(known)
    if not rows or newest is None or rows[0]["from_at"] != newest[0]:
        return None
    return told(known, rows[0]["from_at"], rows[0]["to_at"], pre_days=PRE_DAYS, sums=lambda _: rows)
