"""What customers are worth and what brought them: `customer_months`, `order_cohorts`, `attribution`,
`campaign_revenue`, `customer_value`, `rfm_segments` and `revenue_by_month` of schema `analytics`.

Promise: the rows of every customer with news are written anew from orders, refunds, rates and hits, so that each table
is what a rebuild would write. Money that cannot be converted is left out and shown in `analytics.unconverted_orders`.
The number of an erased customer stays, as the orders do. Called by `refreshing`, in this order: cohorts are added up
from the months, customers take their campaign from attribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from sqlalchemy import func, select, text

from mautolib.analytics.work import Work, configure, runs
from mautolib.db.engine import Tx
from mautolib.db.statements import statement

__all__ = ["DEFAULT_CLICK_DAYS", "DEFAULT_OPEN_DAYS", "keep_windows", "restate_attribution", "restate_campaigns",
           "restate_cohorts", "restate_months", "restate_revenue", "restate_rfm", "restate_value",
           "windows"]  # fmt: skip

#: Windows of attribution until `keep_windows` says others; `campaign_performance` has the same.
DEFAULT_CLICK_DAYS: Final = 5
DEFAULT_OPEN_DAYS: Final = 1
#: With news of more customers than this, writing everybody anew costs less.
_MANY: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """Whose rows are restated as of when; `people` None: everybody's."""

    as_of: datetime
    currency: str | None
    people: Sequence[int] | None

    @property
    def binds(self) -> dict[str, Any]:
        # As one text: to read thousands of numbers that stand apart costs more than to find their rows.
        people = None if self.people is None else "{" + ",".join(map(str, self.people)) + "}"
        return {"as_of": self.as_of, "currency": self.currency, "contact_ids": people}


def keep_windows(tx: Tx, *, click_days: int, open_days: int) -> None:
    """Set the windows of attribution in days before an order; after a change the next refresh restates it all."""
    tx.execute(statement("order_analytics.keep_windows"), {"click_days": click_days, "open_days": open_days})


def windows(tx: Tx) -> dict[str, int]:
    """The windows of attribution: `click_days` and `open_days` before an order."""
    kept = tx.execute(statement("order_analytics.windows")).one_or_none()
    if kept is None:
        return {"click_days": DEFAULT_CLICK_DAYS, "open_days": DEFAULT_OPEN_DAYS}
    return {"click_days": kept.click_days, "open_days": kept.open_days}


def restate_months(tx: Tx, work: Work) -> int:
    """Bring `customer_months` up to date; returns the rows written."""
    return _restate_rows(tx, _scope(tx, work, "customer_months"), "customer_months")


def restate_cohorts(tx: Tx, work: Work) -> int:
    """Add `customer_months` up to `order_cohorts`; returns the number of cells."""
    scope = _Scope(as_of=_moment(tx, work, "order_cohorts"), currency=_currency(tx), people=None)
    configure(tx, jit="off", work_mem="128MB")
    return _restate_rows(tx, scope, "order_cohorts")


def restate_attribution(tx: Tx, work: Work) -> int:
    """Bring `attribution` up to date, and the campaigns that `customer_value` has from it; returns the rows written."""
    scope = _scope(tx, work, "attribution")
    rows = _restate_rows(tx, scope, "attribution", **windows(tx))
    if scope.people is None or scope.people:
        tx.execute(statement("order_analytics.correct_acquisitions"), scope.binds)
    return rows


def restate_value(tx: Tx, work: Work) -> int:
    """Bring `customer_value` up to date; returns the rows written."""
    return _restate_rows(tx, _scope(tx, work, "customer_value", months=12), "customer_value")


def restate_campaigns(tx: Tx, work: Work) -> int:
    """Add `attribution` up to `campaign_revenue` if it may have changed; returns the number of sums."""
    is_followed = work.since is not None and not work.is_limited
    if is_followed and not tx.execute(statement("order_analytics.order_news"), {**work.binds, "months": 0}).first():
        return 0
    configure(tx, jit="off", work_mem="128MB")
    tx.execute(statement("order_analytics.clear_campaign_revenue"))
    return int(tx.execute(statement("order_analytics.restate_campaign_revenue")).rowcount)


def restate_revenue(tx: Tx, work: Work) -> int:
    """Bring `revenue_by_month` up to date, from sums by day that are kept; returns the rows written."""
    as_of = _moment(tx, work, "revenue_by_month")
    configure(tx, jit="off", work_mem="128MB")
    days: list[tuple[date | None, date | None]] = [(None, None)]
    months = days
    if work.is_limited:
        first = work.from_.replace(day=1) if work.from_ else None
        days = months = [(first, _next_month(work.to) if work.to else None)]
    elif work.since is not None:
        news = tx.scalars(statement("order_analytics.revenue_news"), work.binds).all()
        days = [(first, last + timedelta(days=1)) for first, last in runs(news)]
        months = [(month, _next_month(month)) for month in sorted({day.replace(day=1) for day in news})]
    for first, until in days:
        binds = {"first": first, "until": until, "as_of": as_of}
        tx.execute(statement("order_analytics.clear_revenue_days"), binds)
        tx.execute(statement("order_analytics.restate_revenue_days"), binds)
    rows = 0
    for first, until in months:
        binds = {"first": first, "until": until, "as_of": as_of}
        tx.execute(statement("order_analytics.clear_revenue_by_month"), binds)
        rows += tx.execute(statement("order_analytics.restate_revenue_by_month"), binds).rowcount
    return rows


def restate_rfm(tx: Tx, work: Work) -> int:
    """Bring `rfm_segments` up to date: as of the last midnight (UTC); returns the rows written.

    What follows the marks counts the orders of customers with news, scores everybody by the figures that are kept, and
    writes only rows that are others than before.
    """
    as_of, currency = _moment(tx, work, "rfm_segments"), _currency(tx)
    midnight = datetime.combine(as_of.astimezone(UTC).date(), time(), UTC)
    kept: date | None = tx.scalar(text("select as_of from rollups.rfm_day"))
    people: list[int] | None = None
    if work.since is not None and not work.is_limited and kept is not None and kept <= midnight.date():
        if kept == midnight.date() and not tx.scalar(statement("order_analytics.rfm_news"), work.binds):
            return 0
        # What was of the day then counts now, news or not.
        since = datetime.combine(kept, time(), UTC)
        news = {**work.binds, "previous_as_of": since, "as_of": midnight, "months": 0}
        people = list(tx.scalars(statement("order_analytics.order_news"), news))
    scope = _limited_to(tx, people, as_of=midnight, currency=currency)
    cleared = tx.execute(statement("order_analytics.clear_rfm_scores"), scope.binds)
    if currency is None:
        return int(cleared.rowcount)
    tx.execute(statement("order_analytics.keep_rfm_day"), scope.binds)
    return int(tx.execute(statement("order_analytics.restate_rfm_scores"), scope.binds).rowcount)


def _restate_rows(tx: Tx, scope: _Scope, table: str, **more: Any) -> int:
    """Take out the rows of the scope and write them anew; without orders there are none to write."""
    if scope.people is not None and not scope.people:
        return 0
    tx.execute(statement(f"order_analytics.clear_{table}"), scope.binds)
    if scope.currency is None:
        return 0
    return int(tx.execute(statement(f"order_analytics.restate_{table}"), {**scope.binds, **more}).rowcount)


def _scope(tx: Tx, work: Work, table: str, *, months: int = 0) -> _Scope:
    """Whose rows the work is about; options of the server are set for so many.

    Args:
        months: the table counts the orders of so many last months apart; 0: it does not.
    """
    people: list[int] | None = None
    as_of = _moment(tx, work, table)
    if work.is_limited:
        people = list(tx.scalars(statement("order_analytics.buyers_between"), work.binds))
    elif work.since is not None:
        people = list(tx.scalars(statement("order_analytics.order_news"), {**work.binds, "months": months}))
    return _limited_to(tx, people, as_of=as_of, currency=_currency(tx))


def _limited_to(tx: Tx, people: Sequence[int] | None, *, as_of: datetime, currency: str | None) -> _Scope:
    """These people, or everybody where they are too many to be written one by one."""
    if people is not None and len(people) > _MANY:
        people = None
    configure(tx, jit="off", work_mem="128MB")
    if people is None:
        # As for cohorts: the plan must not depend on fresh statistics.
        configure(tx, enable_nestloop="off")
    return _Scope(as_of=as_of, currency=currency, people=people)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1)


def _moment(tx: Tx, work: Work, table: str) -> datetime:
    """As of when rows are written: a range of days never sets some of them back behind the others."""
    if not work.is_limited:
        return work.as_of
    known: datetime | None = tx.scalar(statement("order_analytics.last_as_of"), {"table": table})
    return max(work.as_of, known) if known else work.as_of


def _currency(tx: Tx) -> str | None:
    """The reporting currency: that of the newest order; None without orders."""
    found: str | None = tx.scalar(select(func.analytics.reporting_currency()))
    return found
