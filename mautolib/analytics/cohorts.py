"""Sign-up cohorts: who of those who came together is still there, by day, week and month.

Promise: `analytics.contact_cohorts` is counted from contacts and events in one transaction, so readers see the old
table or the new one, and late events change the cells they belong to: such cells, and those that are over since the
last refresh, are counted again as a whole. A cell that is not over for everybody of its cohort is null. Called by
`refreshing`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from sqlalchemy import Engine, text

from mautolib.analytics.work import Work, configure
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput

_LOG = logging.getLogger(__name__)

#: Offsets of each cohort: a year of weeks.
PERIODS = 52
#: Cohorts by day are kept this far back.
DAY_COHORTS = 90
# As for scores: the plan must not depend on fresh statistics, and the days of a million contacts fit in memory.
_SETTINGS = {"enable_nestloop": "off", "work_mem": "128MB", "jit": "off"}


def refresh(
    engine: Engine,
    *,
    as_of: datetime,
    from_: date | None = None,
    to: date | None = None,
    rebuild: bool = False,
) -> int:
    """Restate the cohort table as of `as_of`; returns the number of cells written.

    Args:
        from_: first sign-up day whose cohorts are restated; None: the first there is.
        to: last such day; None: today. A week or month that only touches the range is restated as a whole.
        rebuild: restate everything, whatever the range.
    Raises:
        InvalidInput: the range ends before it begins.
    """
    with engine.begin() as tx:
        cells = refresh_within(tx, as_of=as_of, from_=None if rebuild else from_, to=None if rebuild else to)
    _LOG.info("cohorts as of %s: %s cells", as_of.isoformat(), cells)
    return cells


def refresh_within(tx: Tx, *, as_of: datetime, from_: date | None = None, to: date | None = None) -> int:
    """`refresh` inside the caller's transaction.

    Raises:
        InvalidInput: the range ends before it begins.
    """
    if from_ is not None and to is not None and from_ > to:
        raise InvalidInput(f"the range of sign-up days ends ({to}) before it begins ({from_})", path=("to",))
    binds = _prepare(tx, as_of, from_, to)
    binds |= _sizes(tx, binds)
    tx.execute(statement("analytics.clear_cohorts"), binds)
    return int(tx.execute(statement("analytics.restate_cohorts"), binds).rowcount)


def restate(tx: Tx, work: Work) -> int:
    """The table as `refreshing` asks for it; where it is known what changed, only such cells are written."""
    if work.since is None or work.is_limited:
        return refresh_within(tx, as_of=work.as_of, from_=work.from_, to=work.to)
    binds = {**work.binds, **_prepare(tx, work.as_of, None, None)}
    # The cells are few, and their keys are texts: sorting people by them would cost most of the time.
    configure(tx, enable_mergejoin="off")
    binds |= _sizes(tx, binds)
    days = tx.scalars(statement("rollups.changed_days"), {**binds, "subject": "activity"}).all()
    stale = tx.execute(statement("analytics.stale_cells"), {**binds, "days": list(days)}).all()
    cells = {
        "stale_granularities": [cell.granularity for cell in stale],
        "stale_starts": [cell.cohort_start for cell in stale], "stale_offsets": [cell.period_offset for cell in stale],
        "stale_begins": [cell.begins_at for cell in stale], "stale_ends": [cell.ends_at for cell in stale],
        # As values of their own, so that the planner knows which months of events are read.
        "first": min((cell.begins_at for cell in stale), default=work.as_of),
        "last": max((cell.ends_at for cell in stale), default=work.as_of),
    }  # fmt: skip
    return int(tx.execute(statement("analytics.follow_cohorts"), {**binds, **cells}).rowcount)


def _sizes(tx: Tx, binds: Mapping[str, Any]) -> dict[str, list[Any]]:
    """How many signed up in each period: read once, because it takes a look at every contact."""
    sizes = tx.execute(statement("analytics.cohort_sizes"), binds).all()
    return {
        "granularities": [size.granularity for size in sizes], "period_days": [size.period_days for size in sizes],
        "starts": [size.cohort_start for size in sizes], "ends": [size.cohort_end for size in sizes],
        "sizes": [size.cohort_size for size in sizes], "subscribed": [size.subscribed_count for size in sizes],
    }  # fmt: skip


def _prepare(tx: Tx, as_of: datetime, from_: date | None, to: date | None) -> dict[str, Any]:
    # Two refreshes at once would write the same cells: the second one waits and restates them again.
    tx.execute(text("lock table analytics.contact_cohorts in share row exclusive mode"))
    configure(tx, **_SETTINGS)
    return {"as_of": as_of, "from_day": from_, "to_day": to, "periods": PERIODS, "day_cohorts": DAY_COHORTS}
