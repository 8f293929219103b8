"""Entering a workflow by the clock: carts left alone, a day that has come, anniversaries.

Promise: each cart, each (workflow, day, contact) enters once, however often and late one looks; a look finds by set
whoever has become due since the last one (at most a week ago), and knows when to look next. Called by the
workflow_advance DAG before enrollments are moved. Local times are those of the contact's clock: a time that the clocks
skip is the end of the gap, of one they show twice it is the first. Who was born on 29 February celebrates on the 28th
in other years.
"""

from __future__ import annotations

import json
import logging
from calendar import isleap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import Connection, Engine

from mautolib.campaigns.walltime import UTC_ZONE, local_of, moment_of, zone_of, zone_or
from mautolib.db.statements import statement
from mautolib.settings import Settings
from mautolib.workflows import triggers

_LOG = logging.getLogger(__name__)
#: Days that were missed for longer are over.
LATEST: Final = timedelta(days=7)
_BATCH: Final = 20_000
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """How many entered by the clock."""

    carts: int = 0
    days: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.carts + self.days


@dataclass(frozen=True, kw_only=True)
class _Occasion:
    """A day that has come where clocks are those of `zone`."""

    timezone: str
    zone: ZoneInfo
    day: date
    moment: datetime


def arrive(engine: Engine, settings: Settings, *, now: datetime, dry_run: bool = False) -> Arrived:
    """Let everybody enter whose time has come.

    Args:
        dry_run: only say how many, of carts and of each workflow's people at most the first 20,000; nothing is written.
    """
    with engine.connect() as tx, tx.begin() as transaction:
        tx.execute(statement("workflows.sync_clocks"))
        due = list(tx.scalars(statement("workflows.due_clocks"), {"now": now}))
        if dry_run:
            carts = int(tx.execute(statement("workflows.enter_carts"), {"now": now, "size": _BATCH}).one().entered)
            days = sum(_sweep(tx, settings, workflow_id, now, 0)[1] for workflow_id in due)
            transaction.rollback()
            return Arrived(carts=carts, days=days)
    carts = _enter_carts(engine, now)
    days = 0
    for workflow_id in due:
        after: int | None = 0
        while after is not None:
            with engine.begin() as tx:
                after, entered = _sweep(tx, settings, workflow_id, now, after)
                days += entered
    if carts or days:
        _LOG.info("entered by the clock: %d carts, %d days", carts, days)
    return Arrived(carts=carts, days=days)


def _enter_carts(engine: Engine, now: datetime) -> int:
    total = 0
    while True:
        with engine.begin() as tx:
            row = tx.execute(statement("workflows.enter_carts"), {"now": now, "size": _BATCH}).one()
        total += int(row.entered)
        if row.taken < _BATCH:
            return total


def _sweep(tx: Connection, settings: Settings, workflow_id: int, now: datetime, after: int) -> tuple[int | None, int]:
    """Let some enter one workflow; returns behind which contact to go on, None when all have, and how many entered."""
    row = tx.execute(statement("workflows.hold_clock"), {"workflow_id": workflow_id, "now": now}).one_or_none()
    if row is None:
        return None, 0
    trigger, _ = triggers.read(row.trigger_type, row.trigger_config, active=True)
    default = zone_or(settings.default_timezone, UTC_ZONE)
    since = max(row.swept_until, now - LATEST)
    assert isinstance(trigger, triggers.Date | triggers.Anniversary)
    occasions = list(_occasions(trigger, default, since, now))
    if occasions:
        values = {**_question(trigger, occasions), "workflow_id": workflow_id, "now": now, "after": after,
                  "size": _BATCH}  # fmt: skip
        found = tx.execute(statement("workflows.enter_on_day"), values).one()
        if found.found == _BATCH:
            # The last contact may have a second day in the part that was cut off.
            return found.last_contact_id - 1, found.entered
        entered = found.entered
    else:
        entered = 0
    values = {"workflow_id": workflow_id, "now": now, "next_at": _next(trigger, default, now)}
    tx.execute(statement("workflows.set_clock"), values)
    return None, entered


def _occasions(
    trigger: triggers.Date | triggers.Anniversary, default: ZoneInfo, since: datetime, now: datetime
) -> Iterator[_Occasion]:
    """The days that came between two moments (the second one included)."""
    for name, zone in _clocks(trigger, default).items():
        for day in _days(trigger, zone, since, now):
            moment = moment_of(datetime.combine(day, trigger.at), zone)
            if since < moment <= now:
                yield _Occasion(timezone=name, zone=zone, day=day, moment=moment)


def _next(trigger: triggers.Date | triggers.Anniversary, default: ZoneInfo, now: datetime) -> datetime | None:
    """When the next day comes anywhere; None: never."""
    moments = (
        moment_of(datetime.combine(day, trigger.at), zone)
        for zone in {str(zone): zone for zone in _clocks(trigger, default).values()}.values()
        for day in _days(trigger, zone, now, now + _DAY)
    )
    return min((moment for moment in moments if moment > now), default=None)


def _clocks(trigger: triggers.Date | triggers.Anniversary, default: ZoneInfo) -> Mapping[str, ZoneInfo]:
    """The clocks to look at by the time zone of contacts; '' is everybody else's."""
    if isinstance(trigger, triggers.Anniversary) and trigger.local_time:
        return {**_zones(), "": default}
    return {"": default}


@cache
def _zones() -> Mapping[str, ZoneInfo]:
    found = ((name, zone_of(name)) for name in sorted(available_timezones()))
    return {name: zone for name, zone in found if zone is not None}


def _days(
    trigger: triggers.Date | triggers.Anniversary, zone: ZoneInfo, since: datetime, until: datetime
) -> Iterator[date]:
    if isinstance(trigger, triggers.Date):
        if trigger.on is not None:
            yield trigger.on
        return
    day, last = local_of(since, zone).date(), local_of(until, zone).date() + _DAY
    while day <= last:
        yield day
        day += _DAY


def _question(trigger: triggers.Date | triggers.Anniversary, occasions: list[_Occasion]) -> dict[str, Any]:
    offset, field, zones = timedelta(0), "", list[str]()
    if isinstance(trigger, triggers.Anniversary):
        offset, field = timedelta(days=trigger.offset_days), trigger.field or ""
        zones = list(_zones()) if trigger.local_time else []
    days = [
        {
            "timezone": one.timezone, "zone": str(one.zone), "occurred_at": one.moment.isoformat(),
            "day": (one.day - offset).isoformat(), "year": (one.day - offset).year,
            "month_days": month_days(one.day - offset),
        }
        for one in occasions
    ]  # fmt: skip
    return {"days": json.dumps(days), "field": field, "zones": zones}


def month_days(day: date) -> list[str]:
    """The dates of other years, as MM-DD, that come round on `day`."""
    found = [f"{day:%m-%d}"]
    if (day.month, day.day) == (2, 28) and not isleap(day.year):
        found.append("02-29")
    return found

