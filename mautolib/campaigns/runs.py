"""Runs of schedules: which one is due, which were missed, what follows the last message, and their figures.

Promise: each run is an occurrence of its campaign, listed once whatever became of it. One that is more than
`max_late_minutes` late is skipped, and so is one after which another is due already: nobody is written to several
times in a row because we were away. Callers: planning, finishing, the API's stats. It hands nothing over.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, update

from mautolib.campaigns import recurrence, schedules, store
from mautolib.campaigns.model import Campaign, Status
from mautolib.campaigns.schedules import RunStatus, Schedule, ScheduleStatus, ScheduleType, plan_at
from mautolib.campaigns.walltime import UTC_ZONE, zone_or
from mautolib.db import tables
from mautolib.db.statements import statement

_LOG = logging.getLogger(__name__)
_CAMPAIGNS, _RUNS = tables.campaigns, tables.schedule_runs
#: After a very long stop only so many missed runs are listed.
_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class Due:
    """What is due of a schedule: the run to begin (None: none), as an occurrence, and how many were skipped."""

    run_at: datetime | None = None
    occurrence: int = 0
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run with its figures."""

    occurrence: int
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    status: RunStatus
    total: int
    sent: int


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The figures of a schedule over all its runs, counted from the ledger.

    Args:
        throttled: messages that are due and wait for a limit.
        failed: refused for good, by the address or otherwise.
    """

    total: int
    sent: int
    failed: int
    throttled: int
    skipped: int
    unknown: int
    runs: Sequence[Run] = field(default_factory=tuple)


def begin(tx: Connection, campaign: Campaign, now: datetime) -> Due | None:
    """Begin the run that is due of a scheduled campaign, which is locked; None where it has no schedule.

    Runs that were missed are listed as skipped. With no run to begin the campaign waits for its next one, or ends.
    """
    schedule = schedules.live_of(tx, campaign.campaign_id)
    if schedule is None or schedule.next_run_at is None:
        return None
    missed, run_at = _due(schedule, now)
    occurrence = campaign.occurrence + len(missed)
    _list_skipped(tx, schedule, campaign.occurrence, missed)
    if run_at is None:
        _end(tx, campaign, schedule, occurrence, now)
        return Due(skipped=len(missed))
    if plan_at(campaign, run_at, schedule.timezone_name) > now:
        _wait_for(tx, schedule, campaign, run_at, now, occurrence=occurrence)
        return Due(skipped=len(missed))
    tx.execute(
        insert(_RUNS).values(
            schedule_id=schedule.schedule_id, occurrence=occurrence + 1, due_at=run_at, started_at=now,
            status=RunStatus.RUNNING.value,
        )
    )  # fmt: skip
    schedules.put(tx, schedule.schedule_id, now, status=ScheduleStatus.RUNNING.value, next_run_at=run_at)
    return Due(run_at=run_at, occurrence=occurrence + 1, skipped=len(missed))


def fail(tx: Connection, campaign_id: int, reason: str, now: datetime) -> None:
    """The campaign cannot be launched: so has its schedule failed, and its run."""
    schedule = schedules.live_of(tx, campaign_id)
    if schedule is not None:
        schedules.put(tx, schedule.schedule_id, now, status=ScheduleStatus.FAILED.value, error_message=reason)
        schedules.end_run(tx, schedule.schedule_id, RunStatus.FAILED, now)


def complete(tx: Connection, campaign_id: int, now: datetime) -> bool:
    """A campaign has just sent everything: end its run; true if it is scheduled for the next one."""
    schedule = schedules.live_of(tx, campaign_id)
    if schedule is None or schedule.status is not ScheduleStatus.RUNNING or schedule.next_run_at is None:
        return False
    schedules.end_run(tx, schedule.schedule_id, RunStatus.COMPLETED, now)
    done = schedule.runs_completed + 1
    following = None
    if schedule.schedule_type is ScheduleType.RECURRING and (not schedule.max_runs or done < schedule.max_runs):
        following = _following(schedule, schedule.next_run_at)
    if following is None:
        schedules.put(
            tx, schedule.schedule_id, now, status=ScheduleStatus.COMPLETED.value, runs_completed=done, next_run_at=None
        )
        return False
    campaign = store.get(tx, campaign_id, for_update=True)
    schedules.put(tx, schedule.schedule_id, now, runs_completed=done)
    _wait_for(tx, schedule, campaign, following, now, occurrence=campaign.occurrence)
    return True


def stats(tx: Connection, schedule: Schedule, *, now: datetime) -> Stats:
    """The figures of a schedule and of each run, newest first."""
    rows = tx.execute(statement("schedules.runs"), {"schedule_id": schedule.schedule_id, "now": now}).all()
    return Stats(
        total=sum(row.total for row in rows), sent=sum(row.sent for row in rows),
        failed=sum(row.failed for row in rows), throttled=sum(row.throttled for row in rows),
        skipped=sum(row.skipped for row in rows), unknown=sum(row.unknown for row in rows),
        runs=tuple(
            Run(
                occurrence=row.occurrence, due_at=row.due_at, started_at=row.started_at, finished_at=row.finished_at,
                status=RunStatus(row.status), total=row.total, sent=row.sent,
            )
            for row in rows
        ),
    )  # fmt: skip


def _due(schedule: Schedule, now: datetime) -> tuple[list[datetime], datetime | None]:
    """The missed runs, and the one to begin or to wait for (None: there is no further one)."""
    latest = timedelta(minutes=schedule.max_late_minutes)
    missed: list[datetime] = []
    run_at = schedule.next_run_at
    if run_at is None or schedule.schedule_type is ScheduleType.ONE_TIME:
        is_late = run_at is not None and now - run_at > latest
        return ([run_at], None) if is_late and run_at is not None else ([], run_at)
    rule, zone = recurrence.parse(schedule.recurrence_rule), zone_or(schedule.timezone_name, UTC_ZONE)
    further = recurrence.moments(rule, schedule.send_at, zone, after=run_at)
    while run_at is not None:
        following = next(further, None)
        if now - run_at <= latest and (following is None or following > now):
            break
        missed.append(run_at)
        run_at = following
    return missed[-_LISTED:], run_at


def _following(schedule: Schedule, after: datetime) -> datetime | None:
    rule, zone = recurrence.parse(schedule.recurrence_rule), zone_or(schedule.timezone_name, UTC_ZONE)
    return recurrence.next_run(rule, schedule.send_at, zone, after=after)


def _list_skipped(tx: Connection, schedule: Schedule, occurrence: int, missed: Sequence[datetime]) -> None:
    if not missed:
        return
    rows = [
        {"schedule_id": schedule.schedule_id, "occurrence": occurrence + number, "due_at": run_at,
         "status": RunStatus.SKIPPED.value}
        for number, run_at in enumerate(missed, start=1)
    ]  # fmt: skip
    tx.execute(insert(_RUNS), rows)
    _LOG.warning("schedule %s: %s runs were missed", schedule.schedule_id, len(missed))


def _wait_for(
    tx: Connection, schedule: Schedule, campaign: Campaign, run_at: datetime, now: datetime, *, occurrence: int
) -> None:
    schedules.put(tx, schedule.schedule_id, now, status=ScheduleStatus.PENDING.value, next_run_at=run_at)
    _put(
        tx, campaign, now, status=Status.SCHEDULED.value, scheduled_at=run_at, occurrence=occurrence, requested_at=None,
        plan_at=plan_at(campaign, run_at, schedule.timezone_name), planned_at=None, sent_at=None, settled_at=None,
    )  # fmt: skip


def _end(tx: Connection, campaign: Campaign, schedule: Schedule, occurrence: int, now: datetime) -> None:
    """The last run was missed: what was done counts; nothing done is a failure."""
    if schedule.runs_completed:
        schedules.put(tx, schedule.schedule_id, now, status=ScheduleStatus.COMPLETED.value, next_run_at=None)
        _put(tx, campaign, now, status=Status.SENT.value, occurrence=occurrence, requested_at=now, sent_at=now)
        return
    reason = f"It was due more than {schedule.max_late_minutes} minutes ago and was not sent"
    schedules.put(
        tx, schedule.schedule_id, now, status=ScheduleStatus.FAILED.value, next_run_at=None, error_message=reason
    )
    _put(tx, campaign, now, status=Status.FAILED.value, occurrence=occurrence, status_reason=reason)


def _put(tx: Connection, campaign: Campaign, now: datetime, **values: object) -> None:
    tx.execute(
        update(_CAMPAIGNS)
        .where(_CAMPAIGNS.c.campaign_id == campaign.campaign_id)
        .values(**values, version=_CAMPAIGNS.c.version + 1, updated_at=now)
    )
