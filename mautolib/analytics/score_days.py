"""Scores and stages by day: how many contacts have which grade, who is in which stage, who moved.

Promise: `analytics.score_distribution` and `analytics.lifecycle_funnel` are restated day by day from snapshots and
moves, both in one transaction, and the contacts of a day add up to those scored. A day is that of the last scoring of
everybody on it. Called by the `cohort_analytics` DAG.
"""

from __future__ import annotations

import logging
from datetime import date, datetime

from sqlalchemy import Engine, func, select, text

from mautolib.analytics.work import Work
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput

_LOG = logging.getLogger(__name__)
# As for cohorts: the plan must not depend on fresh statistics, and a million contacts fit in memory. A night is
# found by its blocks, so that the other nights of its month are not read; what can be hashed is not sorted, however
# few rows the statistics of the day before promise.
_SETTINGS = {"enable_nestloop": "off", "enable_seqscan": "off", "enable_sort": "off", "work_mem": "128MB", "jit": "off"}


def refresh(
    engine: Engine,
    *,
    as_of: datetime,
    from_: date | None = None,
    to: date | None = None,
    rebuild: bool = False,
) -> int:
    """Restate the days that were scored since they were written; returns how many.

    Args:
        as_of: scorings of later moments are left out.
        from_: with `to`, restate these days whatever they were made of; None: no limit.
        rebuild: restate every day.
    Raises:
        InvalidInput: the range ends before it begins.
    """
    with engine.begin() as tx:
        days = refresh_within(tx, as_of=as_of, from_=from_, to=to, rebuild=rebuild)
    _LOG.info("scores and stages as of %s: %s days", as_of.isoformat(), days)
    return days


def refresh_within(
    tx: Tx, *, as_of: datetime, from_: date | None = None, to: date | None = None, rebuild: bool = False
) -> int:
    """`refresh` inside the caller's transaction.

    Raises:
        InvalidInput: the range ends before it begins.
    """
    if from_ is not None and to is not None and from_ > to:
        raise InvalidInput(f"the range of days ends ({to}) before it begins ({from_})", path=("to",))
    # Two refreshes at once would write the same days: the second one waits.
    tx.execute(text("lock table analytics.lifecycle_funnel in share row exclusive mode"))
    for name, value in _SETTINGS.items():
        tx.execute(select(func.set_config(name, value, True)))
    wanted = {"as_of": as_of, "from_day": from_, "to_day": to, "rebuild": rebuild}
    days = tx.execute(statement("analytics.stale_score_days"), wanted).all()
    tx.execute(statement("analytics.clear_score_days"), {"days": [day.score_day for day in days]})
    for day in days:
        binds = {"day": day.score_day, "moment": day.as_of, "source": day.source, "rule_version": day.rule_version}
        tx.execute(statement("analytics.restate_score_distribution"), binds)
        tx.execute(statement("analytics.restate_lifecycle_funnel"), {**binds, "previous": day.previous_as_of})
    return len(days)


def restate(tx: Tx, work: Work) -> int:
    """Both tables as `refreshing` asks for them; what is stale they know themselves."""
    return refresh_within(tx, as_of=work.as_of, from_=work.from_, to=work.to, rebuild=work.is_whole)
