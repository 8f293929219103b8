"""`analytics.contact_period_activity`: what each contact did in each ISO week.

Promise: weeks in which something changed are counted again as a whole, so that the table is what a rebuild would
write. Called by `refreshing`.
"""

from __future__ import annotations

from mautolib.analytics.work import Work, configure
from mautolib.db.engine import Tx
from mautolib.db.statements import statement


def restate(tx: Tx, work: Work) -> int:
    """Bring the table up to date; returns the rows written."""
    configure(tx, jit="off", work_mem="128MB")
    if work.since is not None and not work.is_limited:
        days = tx.scalars(statement("rollups.changed_days"), {**work.binds, "subject": "activity"}).all()
        return int(tx.execute(statement("rollups.follow_activity"), {**work.binds, "days": list(days)}).rowcount)
    tx.execute(statement("rollups.clear_activity"), work.binds)
    return int(tx.execute(statement("rollups.restate_activity"), work.binds).rowcount)
