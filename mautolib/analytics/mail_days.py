"""`analytics.daily_email_metrics`, `deliverability_by_domain` and `rollups.campaign_days`: mail by UTC day.

Promise: days in which something changed are counted again as a whole, so that the tables are what a rebuild would
write; only opens and clicks whose raw hits are kept no longer stay as they were. Called by `refreshing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from mautolib.analytics.work import Work, configure, runs
from mautolib.db.engine import Tx
from mautolib.db.statements import statement


def restate_metrics(tx: Tx, work: Work) -> int:
    """Bring `daily_email_metrics` up to date; returns the rows written."""
    return _restate(tx, work, subjects=["mail"], clear="mail_days.clear_days",
                    write="mail_days.restate_days")  # fmt: skip


def restate_deliverability(tx: Tx, work: Work) -> int:
    """Bring `deliverability_by_domain` up to date; returns the rows written."""
    return _restate(tx, work, subjects=["deliveries"],
                    clear="mail_days.clear_deliverability", write="mail_days.restate_deliverability")  # fmt: skip


def restate_campaigns(tx: Tx, work: Work) -> int:
    """Bring links, hours and mail domains of campaigns up to date; returns the rows written."""
    return _restate(tx, work, subjects=["mail", "deliveries", "readers"],
                    clear="campaign_days.clear_days", write="campaign_days.restate_days")  # fmt: skip


def _restate(tx: Tx, work: Work, *, subjects: Sequence[str], clear: str, write: str) -> int:
    configure(tx, jit="off", work_mem="128MB")
    spans: list[tuple[date | None, date | None]] = [(work.from_, work.to)]
    if work.since is not None and not work.is_limited:
        changed = statement("rollups.changed_days")
        spans = [*runs({day for each in subjects for day in tx.scalars(changed, {**work.binds, "subject": each})})]
    rows = 0
    for first, last in spans:
        binds = {"from_day": first, "to_day": last, "as_of": work.as_of}
        tx.execute(statement(clear), binds)
        rows += tx.execute(statement(write), binds).rowcount
    return rows
