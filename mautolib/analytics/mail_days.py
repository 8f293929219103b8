"""`analytics.daily_email_metrics` and `analytics.deliverability_by_domain`: mail by UTC day.

Promise: days in which something changed are counted again as a whole, so that the tables are what a rebuild would
write; only opens and clicks whose raw hits are kept no longer stay as they were. Called by `refreshing`.
"""

from __future__ import annotations

from datetime import date

from mautolib.analytics.work import Work, configure, runs
from mautolib.db.engine import Tx
from mautolib.db.statements import statement


def restate_metrics(tx: Tx, work: Work) -> int:
    """Bring `daily_email_metrics` up to date; returns the rows written."""
    return _restate(tx, work, subject="mail", clear="mail_days.clear_days", write="mail_days.restate_days")


def restate_deliverability(tx: Tx, work: Work) -> int:
    """Bring `deliverability_by_domain` up to date; returns the rows written."""
    return _restate(tx, work, subject="deliveries", clear="mail_days.clear_deliverability",
                    write="mail_days.restate_deliverability")  # fmt: skip


def _restate(tx: Tx, work: Work, *, subject: str, clear: str, write: str) -> int:
    configure(tx, jit="off", work_mem="128MB")
    spans: list[tuple[date | None, date | None]] = [(work.from_, work.to)]
    if work.since is not None and not work.is_limited:
        days = tx.scalars(statement("rollups.changed_days"), {**work.binds, "subject": subject})
        spans = [*runs(days)]
    rows = 0
    for first, last in spans:
        binds = {"from_day": first, "to_day": last, "as_of": work.as_of}
        tx.execute(statement(clear), binds)
        rows += tx.execute(statement(write), binds).rowcount
    return rows
