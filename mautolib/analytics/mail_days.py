"""`analytics.daily_email_metrics` and `analytics.deliverability_by_domain`: mail by UTC day.

Promise: days in which something changed are counted again as a whole, so that the tables are what a rebuild would
write; only opens and clicks whose raw hits are kept no longer stay as they were. Called by `refreshing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from mautolib.analytics.work import Work, configure
from mautolib.db.engine import Tx
from mautolib.db.statements import statement

_DAY = timedelta(days=1)


def restate_metrics(tx: Tx, work: Work) -> int:
    """Bring `daily_email_metrics` up to date; returns the rows written."""
    return _restate(tx, work, table="daily_email_metrics", subject="mail", clear="mail_days.clear_days",
                    write="mail_days.restate_days")  # fmt: skip


def restate_deliverability(tx: Tx, work: Work) -> int:
    """Bring `deliverability_by_domain` up to date; returns the rows written."""
    return _restate(tx, work, table="deliverability_by_domain", subject="deliveries",
                    clear="mail_days.clear_deliverability", write="mail_days.restate_deliverability")  # fmt: skip


def _restate(tx: Tx, work: Work, *, table: str, subject: str, clear: str, write: str) -> int:
    configure(tx, jit="off", work_mem="128MB")
    spans: list[tuple[date | None, date | None]] = [(work.from_, work.to)]
    if work.since is not None and not work.is_limited:
        days = tx.scalars(statement("rollups.changed_days"), {**work.binds, "subject": subject})
        spans = [*_runs(days)]
    rows = 0
    for first, last in spans:
        binds = {"from_day": first, "to_day": last, "as_of": work.as_of}
        tx.execute(statement(clear), binds)
        rows += tx.execute(statement(write), binds).rowcount
    if work.is_limited:
        # What came after as_of is missing there now, though the table as a whole may be newer.
        tx.execute(statement("rollups.mark_cut_days"), {**work.binds, "table": table, "subject": subject})
    return rows


def _runs(days: Iterable[date]) -> Iterable[tuple[date, date]]:
    """Days as runs without a gap: first and last day of each."""
    first = last = None
    for day in sorted(days):
        if first is not None and last is not None and day > last + _DAY:
            yield first, last
            first = None
        first, last = first or day, day
    if first is not None and last is not None:
        yield first, last
