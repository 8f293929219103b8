"""The tables of schema `analytics` brought up to date: one after the other, each in a transaction of its own.

Promise: a refresh restates the cells that anything changed in since the last one - late, corrected, erased, committed
late - and what it leaves is what a rebuild would write. Cells are recomputed whole, never counted up. Two refreshes of
one table wait for each other; readers see the old table or the new one. A table that fails keeps its last state and
what it has missed. Called by the `cohort_analytics` DAG and by `mauto analytics refresh`.
How changes are known: `sql/migrations/0043_rollups.sql` and decision 0019.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy import Engine, func, select

from mautolib.analytics import activity, cohorts, incrementality_sums, mail_days, orders, score_days
from mautolib.analytics.work import Work
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound

__all__ = ["TABLES", "RollUp", "State", "keep_timezone", "refresh", "refresh_within", "states"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RollUp:
    """A table of schema `analytics` and what restates it: takes the transaction and the work, returns rows written."""

    table: str
    restate: Callable[[Tx, Work], int]


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a table is; all but its name None: it was never refreshed.

    Attributes:
        rows: written by that refresh.
        seconds: it took.
    """

    table: str
    as_of: datetime | None
    refreshed_at: datetime | None
    rows: int | None
    seconds: float | None


#: In the order they are refreshed: a table may read the ones before it.
TABLES: Final = (
    RollUp(table="contact_period_activity", restate=activity.restate),
    RollUp(table="daily_email_metrics", restate=mail_days.restate_metrics),
    RollUp(table="deliverability_by_domain", restate=mail_days.restate_deliverability),
    RollUp(table="campaign_days", restate=mail_days.restate_campaigns),
    RollUp(table="contact_cohorts", restate=cohorts.restate),
    RollUp(table="lifecycle_funnel", restate=score_days.restate),
    RollUp(table="customer_months", restate=orders.restate_months),
    RollUp(table="order_cohorts", restate=orders.restate_cohorts),
    RollUp(table="attribution", restate=orders.restate_attribution),
    RollUp(table="campaign_revenue", restate=orders.restate_campaigns),
    RollUp(table="customer_value", restate=orders.restate_value),
    RollUp(table="rfm_segments", restate=orders.restate_rfm),
    RollUp(table="revenue_by_month", restate=orders.restate_revenue),
    RollUp(table="holdout_sums", restate=incrementality_sums.restate),
)


def refresh(
    engine: Engine,
    *,
    as_of: datetime,
    from_: date | None = None,
    to: date | None = None,
    rebuild: bool = False,
    only: Collection[str] = (),
    tell: Callable[[str, int, float], None] | None = None,
) -> dict[str, int]:
    """Bring the tables up to date; returns the rows written by table.

    Args:
        as_of: what happened later is left out. Before the `as_of` of the last refresh, everything is restated.
        from_: with `to`, the UTC days to restate whatever has changed; the rest stays for the next refresh. They are
            restated as of the last refresh where that was later, as the rest of the table is.
        rebuild: restate everything.
        only: names of tables; none: all.
        tell: is called after each table with its name, the rows written and the seconds it took.
    Raises:
        InvalidInput: the range ends before it begins.
        NotFound: no such table is refreshed.
    """
    unknown = set(only) - {item.table for item in TABLES}
    if unknown:
        raise NotFound(f"There is no table {', '.join(sorted(unknown))} that is refreshed")
    rows = {}
    for item in TABLES:
        if only and item.table not in only:
            continue
        began = time.perf_counter()
        with engine.begin() as tx:
            rows[item.table] = refresh_within(tx, item, as_of=as_of, from_=from_, to=to, rebuild=rebuild)
        if tell is not None:
            tell(item.table, rows[item.table], time.perf_counter() - began)
    with engine.begin() as tx:
        tx.execute(statement("rollups.prune_marks"), {"tables": [item.table for item in TABLES]})
    return rows


def refresh_within(
    tx: Tx, item: RollUp, *, as_of: datetime, from_: date | None = None, to: date | None = None, rebuild: bool = False
) -> int:
    """Bring one table up to date inside the caller's transaction; returns the rows written.

    Raises:
        InvalidInput: the range ends before it begins.
    """
    began = time.perf_counter()
    tx.execute(statement("rollups.take_turn"), {"table": item.table})
    # The snapshot comes first: what commits from here on may be counted now, and its mark is news the next time.
    row = tx.execute(statement("rollups.last_refresh"), {"table": item.table, "as_of": as_of}).one()
    since = None if rebuild else row.since
    is_limited = not rebuild and (from_ is not None or to is not None)
    if is_limited and row.previous_as_of is not None:
        as_of = max(as_of, row.previous_as_of)
    work = Work(
        as_of=as_of,
        from_=from_ if is_limited else None,
        to=to if is_limited else None,
        since=since,
        previous_as_of=row.previous_as_of if since else None,
    )
    rows = item.restate(tx, work)
    seconds = time.perf_counter() - began
    if not work.is_limited:
        state = {"table": item.table, "snapshot": row.snapshot, "as_of": as_of, "rows": rows, "seconds": seconds}
        tx.execute(statement("rollups.keep_state"), state)
    how = "restated" if work.is_whole else "range" if work.is_limited else "brought up to date"
    _LOG.info("%s as of %s: %s, %s rows, %.1f s", item.table, as_of.isoformat(), how, rows, seconds)
    return rows


def keep_timezone(tx: Tx, timezone: str) -> None:
    """Set the time zone of `reporting_day` in the views; the tables keep UTC days.

    Raises:
        InvalidInput: the database does not know this time zone.
    """
    if timezone == tx.scalar(select(func.analytics.reporting_timezone())):
        return
    if not tx.scalar(statement("rollups.has_timezone"), {"timezone": timezone}):
        raise InvalidInput(f"the database knows no time zone {timezone!r}", path=("reporting_timezone",))
    tx.execute(statement("rollups.keep_timezone"), {"timezone": timezone})


def states(tx: Tx) -> list[State]:
    """How far each table is, in the order they are refreshed; refreshes of a range of days do not count."""
    known = {row.table_name: row for row in tx.execute(statement("rollups.states"))}
    return [
        State(table=item.table, as_of=row.as_of, refreshed_at=row.refreshed_at, rows=row.row_count, seconds=row.seconds)
        if (row := known.get(item.table))
        else State(table=item.table, as_of=None, refreshed_at=None, rows=None, seconds=None)
        for item in TABLES
    ]
