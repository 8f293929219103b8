"""Keeping schedules: their nouns, their rows, and how they follow what happens to their campaign.

Promise: a campaign has at most one live schedule, and it waits exactly while its campaign does; whoever changes one
holds the lock on the campaign first, then on the schedule. Callers: scheduling, runs, and the verbs of campaigns.
It decides nothing about time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Select, func, insert, select, update

from mautolib.campaigns.model import Campaign
from mautolib.campaigns.walltime import EARLIEST_ZONE, UTC_ZONE, local_of, moment_of, zone_or
from mautolib.db import tables
from mautolib.errors import NotFound

_TABLE, _RUNS = tables.schedules, tables.schedule_runs


class ScheduleType(StrEnum):
    """Whether a campaign goes once or again and again."""

    ONE_TIME = "one_time"
    RECURRING = "recurring"


class ScheduleStatus(StrEnum):
    """The state of a schedule."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunStatus(StrEnum):
    """What became of one run."""

    RUNNING = "running"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    FAILED = "failed"


#: A schedule in one of these belongs to its campaign; the others are history.
LIVE: Final = (ScheduleStatus.PENDING, ScheduleStatus.RUNNING, ScheduleStatus.PAUSED)
#: May still be changed, cancelled and deleted.
WAITING: Final = frozenset({ScheduleStatus.PENDING, ScheduleStatus.PAUSED})


@dataclass(frozen=True, kw_only=True)
class NewSchedule:
    """What an editor gives; lengths and kinds are checked by the face, time by `scheduling`."""

    campaign_id: int
    send_at: datetime
    schedule_type: ScheduleType = ScheduleType.ONE_TIME
    timezone_name: str = "UTC"
    recurrence_rule: Mapping[str, Any] = field(default_factory=dict)
    max_runs: int = 0
    max_per_hour: int = 0
    max_per_day: int = 0
    ab_test_id: int | None = None
    auto_pick_winner: bool = False
    winner_wait_hours: int = 4
    max_late_minutes: int = 1440


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule as it is kept. `next_run_at` is the run under way while it is running."""

    schedule_id: int
    campaign_id: int
    schedule_type: ScheduleType
    status: ScheduleStatus
    send_at: datetime
    timezone_name: str
    recurrence_rule: Mapping[str, Any]
    next_run_at: datetime | None
    runs_completed: int
    max_runs: int
    max_per_hour: int
    max_per_day: int
    ab_test_id: int | None
    auto_pick_winner: bool
    winner_wait_hours: int
    max_late_minutes: int
    error_message: str
    created_at: datetime
    updated_at: datetime | None


_FIELDS: Final = tuple(item.name for item in dataclasses.fields(Schedule))
#: What a PATCH may change.
CHANGEABLE: Final = frozenset(item.name for item in dataclasses.fields(NewSchedule)) - {"campaign_id"}


def get(tx: Connection, schedule_id: int, *, for_update: bool = False) -> Schedule:
    """The schedule; lock its campaign before you ask `for_update`.

    Raises:
        NotFound: there is none.
    """
    query = select(_TABLE).where(_TABLE.c.schedule_id == schedule_id)
    row = tx.execute(query.with_for_update() if for_update else query).mappings().one_or_none()
    if row is None:
        raise NotFound("Schedule not found")
    return _schedule(row)


def list_schedules(
    tx: Connection, *, campaign_id: int | None = None, status: ScheduleStatus | None = None, skip: int = 0,
    limit: int = 50, before: int | None = None,
) -> list[Schedule]:  # fmt: skip
    """Schedules, newest first; with `before` those older than that id."""
    query = _filtered(select(_TABLE), campaign_id, status).order_by(_TABLE.c.schedule_id.desc())
    if before is not None:
        query = query.where(_TABLE.c.schedule_id < before)
    return [_schedule(row) for row in tx.execute(query.offset(skip).limit(limit)).mappings()]


def count(tx: Connection, *, campaign_id: int | None = None, status: ScheduleStatus | None = None) -> int:
    """How many schedules there are."""
    query = _filtered(select(func.count()).select_from(_TABLE), campaign_id, status)
    return int(tx.scalar(query) or 0)


def live_of(tx: Connection, campaign_id: int) -> Schedule | None:
    """The live schedule of a campaign that the caller has locked, locked too; None: it has none."""
    query = select(_TABLE).where(
        _TABLE.c.campaign_id == campaign_id, _TABLE.c.status.in_([status.value for status in LIVE])
    )
    row = tx.execute(query.with_for_update()).mappings().one_or_none()
    return None if row is None else _schedule(row)


def add(tx: Connection, new: NewSchedule, *, next_run_at: datetime, actor: str, now: datetime) -> Schedule:
    """Store a pending schedule; what it says was checked before."""
    values = {**dataclasses.asdict(new), "schedule_type": new.schedule_type.value}
    statement = insert(_TABLE).values(**values, next_run_at=next_run_at, created_by=actor, created_at=now)
    return _schedule(tx.execute(statement.returning(_TABLE)).mappings().one())


def put(tx: Connection, schedule_id: int, now: datetime, **values: Any) -> Schedule:
    """Write `values` into a schedule that the caller has locked."""
    statement = update(_TABLE).where(_TABLE.c.schedule_id == schedule_id).values(**values, updated_at=now)
    return _schedule(tx.execute(statement.returning(_TABLE)).mappings().one())


def follow(tx: Connection, campaign_id: int, status: ScheduleStatus, now: datetime) -> None:
    """Bring the live schedule of a locked campaign to `status`, as its campaign was; a run under way ends with it.

    Pausing and going on concern a schedule that waits: one whose run is under way stays `running`.
    """
    found = live_of(tx, campaign_id)
    if found is None or (status in WAITING and found.status not in WAITING):
        return
    put(tx, found.schedule_id, now, status=status.value)
    if status is ScheduleStatus.CANCELLED:
        end_run(tx, found.schedule_id, RunStatus.CANCELLED, now)


def end_run(tx: Connection, schedule_id: int, status: RunStatus, now: datetime) -> None:
    """End the run under way, if there is one."""
    tx.execute(
        update(_RUNS)
        .where(_RUNS.c.schedule_id == schedule_id, _RUNS.c.status == RunStatus.RUNNING.value)
        .values(status=status.value, finished_at=now)
    )


def plan_at(campaign: Campaign, run_at: datetime, timezone_name: str) -> datetime:
    """When the audience of a run is frozen: when the first clock on earth shows its time, if that is what counts."""
    if not campaign.send_window.get("local_time"):
        return run_at
    shown = local_of(run_at, zone_or(timezone_name, UTC_ZONE))
    return min(run_at, moment_of(shown, UTC_ZONE) - EARLIEST_ZONE)


def _filtered(query: Select[Any], campaign_id: int | None, status: ScheduleStatus | None) -> Select[Any]:
    if campaign_id is not None:
        query = query.where(_TABLE.c.campaign_id == campaign_id)
    return query if status is None else query.where(_TABLE.c.status == status.value)


def _schedule(row: Mapping[Any, Any]) -> Schedule:
    values = {name: row[name] for name in _FIELDS}
    return Schedule(**{
        **values, "status": ScheduleStatus(values["status"]), "schedule_type": ScheduleType(values["schedule_type"]),
    })  # fmt: skip
