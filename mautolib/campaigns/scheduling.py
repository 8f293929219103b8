"""Scheduling: when a campaign goes, once or again and again, and how that is changed, stopped and given up.

Promise: a campaign with a pending schedule is `scheduled` for its next run, one with a paused schedule is paused;
cancelling or deleting a schedule that waits makes a draft of its campaign again. Each verb locks the campaign before
it looks, so it holds against the planner from its answer on. Callers: the API, launch, editing of campaigns.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, delete, update

from mautolib.campaigns import control, experiments, paces, recurrence, schedules, store
from mautolib.campaigns.experiment_model import AbStatus
from mautolib.campaigns.model import Campaign, Status
from mautolib.campaigns.schedules import CHANGEABLE, WAITING, NewSchedule, Schedule, ScheduleStatus, ScheduleType
from mautolib.campaigns.walltime import zone_of
from mautolib.db import tables
from mautolib.errors import Conflict, InvalidInput, InvalidTransition, NotFound

_LOG = logging.getLogger(__name__)
_CAMPAIGNS = tables.campaigns
#: A rule is counted from its beginning.
_LONGEST_AGO = timedelta(days=366)
#: Changing one of these moves the next run.
_TIMING = frozenset({"schedule_type", "send_at", "timezone_name", "recurrence_rule"})


def create(tx: Connection, new: NewSchedule, *, actor: str, now: datetime) -> Schedule:
    """Schedule a draft. That it can be sent is looked at when it is due.

    Raises:
        NotFound: there is no such campaign.
        InvalidTransition: it is no draft, or scheduled already.
        InvalidInput: the zone, the rule or the A/B test is not acceptable, or no run lies ahead.
    """
    campaign = store.get(tx, new.campaign_id, for_update=True)
    if campaign.status is not Status.DRAFT:
        raise InvalidTransition(f"Cannot schedule campaign in '{campaign.status.value}' status")
    next_run_at = _first_run(new, now)
    _check_test(tx, new)
    schedule = schedules.add(tx, new, next_run_at=next_run_at, actor=actor, now=now)
    _wait_for(tx, campaign, schedule, Status.SCHEDULED, now, requested_at=None, planned_at=None)
    _LOG.info("campaign %s scheduled (schedule %s)", campaign.campaign_id, schedule.schedule_id)
    return schedule


def change(tx: Connection, schedule_id: int, changes: Mapping[str, Any], *, now: datetime) -> Schedule:
    """Change a schedule that waits.

    Args:
        changes: fields of `NewSchedule` but the campaign, with checked values.
    Raises:
        NotFound: there is none.
        Conflict: it is running or finished.
        InvalidInput: as `create`.
    """
    unknown = changes.keys() - CHANGEABLE
    if unknown:
        raise ValueError(f"not a field of a schedule: {sorted(unknown)}")
    campaign, before = _locked(tx, schedule_id)
    wanted = {name: value for name, value in changes.items() if getattr(before, name) != value}
    if before.status not in WAITING:
        raise Conflict(f"Cannot change a schedule in '{before.status.value}' status", code="not_editable")
    if not wanted:
        return before
    given = {item.name: getattr(before, item.name) for item in dataclasses.fields(NewSchedule)}
    merged = NewSchedule(**{**given, **wanted})
    _check(merged)
    if "ab_test_id" in wanted:
        _check_test(tx, merged)
    values: dict[str, Any] = dict(wanted)
    if wanted.keys() & _TIMING:
        values["next_run_at"] = _first_run(merged, now)
    changed = schedules.put(tx, schedule_id, now, **values)
    _wait_for(tx, campaign, changed, campaign.status, now)
    paces.changed(tx, campaign.campaign_id, now=now)
    return changed


def pause(tx: Connection, schedule_id: int, *, now: datetime) -> Schedule:
    """Hold a pending schedule and its campaign.

    Raises:
        NotFound: there is none.
        InvalidTransition: it is not pending.
    """
    campaign, schedule = _locked(tx, schedule_id)
    if schedule.status is not ScheduleStatus.PENDING:
        raise InvalidTransition(f"Cannot pause a schedule in '{schedule.status.value}' status")
    control.pause(tx, campaign.campaign_id, now=now)
    return schedules.get(tx, schedule_id)


def resume(tx: Connection, schedule_id: int, *, now: datetime) -> Schedule:
    """Let a paused schedule go on; a run that fell due meanwhile starts unless it is too late.

    Raises:
        NotFound: there is none.
        InvalidTransition: it is not paused.
    """
    campaign, schedule = _locked(tx, schedule_id)
    if schedule.status is not ScheduleStatus.PAUSED:
        raise InvalidTransition(f"Cannot resume a schedule in '{schedule.status.value}' status")
    control.resume(tx, campaign.campaign_id, now=now)
    return schedules.get(tx, schedule_id)


def cancel(tx: Connection, schedule_id: int, *, now: datetime) -> Schedule:
    """Give a schedule that waits up; its campaign is a draft again.

    Raises:
        NotFound: there is none.
        InvalidTransition: it is running or finished.
    """
    campaign, schedule = _locked(tx, schedule_id)
    if schedule.status not in WAITING:
        raise InvalidTransition(f"Cannot cancel a schedule in '{schedule.status.value}' status")
    cancelled = schedules.put(tx, schedule_id, now, status=ScheduleStatus.CANCELLED.value)
    _back_to_draft(tx, campaign, now)
    return cancelled


def remove(tx: Connection, schedule_id: int, *, now: datetime) -> None:
    """Delete a schedule that waits; its campaign is a draft again.

    Raises:
        NotFound: there is none.
        Conflict: it is running or finished.
    """
    campaign, schedule = _locked(tx, schedule_id)
    if schedule.status not in WAITING:
        raise Conflict(f"Cannot delete a schedule in '{schedule.status.value}' status")
    tx.execute(delete(tables.schedules).where(tables.schedules.c.schedule_id == schedule_id))
    _back_to_draft(tx, campaign, now)


def move(tx: Connection, campaign_id: int, at: datetime, *, now: datetime) -> Campaign:
    """Move the date of a scheduled campaign: what a PATCH of its `scheduled_at` does.

    A recurring schedule begins anew at `at`.

    Raises:
        NotFound: there is none.
        InvalidTransition: it is not scheduled.
        InvalidInput: `at` is not ahead.
    """
    campaign = store.get(tx, campaign_id, for_update=True)
    schedule = schedules.live_of(tx, campaign_id)
    if campaign.status is not Status.SCHEDULED or schedule is None:
        raise InvalidTransition(f"Cannot move the date of a campaign in '{campaign.status.value}' status")
    if at <= now:
        raise InvalidInput("A campaign can only be scheduled for the future", path=("scheduled_at",))
    if at != campaign.scheduled_at:
        change(tx, schedule.schedule_id, {"send_at": at}, now=now)
    return store.get(tx, campaign_id)


def unschedule(tx: Connection, campaign_id: int, *, now: datetime) -> Campaign:
    """Make a draft of a scheduled campaign: what a PATCH of its `status` to draft does.

    Raises:
        NotFound: there is none.
        InvalidTransition: it is not scheduled.
    """
    campaign = store.get(tx, campaign_id, for_update=True)
    if campaign.status is not Status.SCHEDULED:
        raise InvalidTransition(f"Cannot unschedule campaign in '{campaign.status.value}' status")
    schedules.follow(tx, campaign_id, ScheduleStatus.CANCELLED, now)
    return _back_to_draft(tx, campaign, now)


def _wait_for(
    tx: Connection, campaign: Campaign, schedule: Schedule, status: Status, now: datetime, **values: Any
) -> None:
    """Write the next run of `schedule` into its campaign."""
    if schedule.next_run_at is None:
        raise ValueError("a schedule that waits has a next run")
    tx.execute(
        update(_CAMPAIGNS)
        .where(_CAMPAIGNS.c.campaign_id == campaign.campaign_id)
        .values(
            status=status.value, schedule_id=schedule.schedule_id, scheduled_at=schedule.next_run_at,
            plan_at=schedules.plan_at(campaign, schedule.next_run_at, schedule.timezone_name),
            version=_CAMPAIGNS.c.version + 1, updated_at=now, **values,
        )
    )  # fmt: skip


def _back_to_draft(tx: Connection, campaign: Campaign, now: datetime) -> Campaign:
    tx.execute(
        update(_CAMPAIGNS)
        .where(_CAMPAIGNS.c.campaign_id == campaign.campaign_id)
        .values(
            status=Status.DRAFT.value, schedule_id=None, scheduled_at=None, plan_at=None, requested_at=None,
            version=_CAMPAIGNS.c.version + 1, updated_at=now,
        )
    )  # fmt: skip
    _LOG.info("campaign %s is a draft again", campaign.campaign_id)
    return store.get(tx, campaign.campaign_id)


def _locked(tx: Connection, schedule_id: int) -> tuple[Campaign, Schedule]:
    """Campaign and schedule, locked in the order everybody keeps."""
    campaign_id = schedules.get(tx, schedule_id).campaign_id
    campaign = store.get(tx, campaign_id, for_update=True)
    return campaign, schedules.get(tx, schedule_id, for_update=True)


def _first_run(new: NewSchedule, now: datetime) -> datetime:
    zone = _check(new)
    if new.schedule_type is ScheduleType.ONE_TIME:
        if new.send_at <= now:
            raise InvalidInput("A campaign can only be scheduled for the future", path=("send_at",))
        return new.send_at
    if new.send_at < now - _LONGEST_AGO:
        raise InvalidInput("send_at of a recurring schedule is at most a year ago", path=("send_at",))
    rule = recurrence.parse(new.recurrence_rule)
    found = recurrence.next_run(rule, new.send_at, zone, after=now if new.send_at <= now else None)
    if found is None:
        raise InvalidInput("The rule names no run from now on", path=("recurrence_rule",))
    return found


def _check_test(tx: Connection, new: NewSchedule) -> None:
    """Refuse a test that no run of the campaign can take part in."""
    if new.ab_test_id is None:
        return
    path = ("body", "ab_test_id")
    try:
        test = experiments.get(tx, new.ab_test_id)
    except NotFound as error:
        raise InvalidInput(str(error), path=path) from None
    if test.campaign_id != new.campaign_id:
        raise InvalidInput("The A/B test is of another campaign", path=path)
    if test.planned_at is not None or test.status not in (AbStatus.DRAFT, AbStatus.RUNNING):
        raise InvalidInput("The A/B test was sent or is over", path=path)


def _check(new: NewSchedule) -> ZoneInfo:
    zone = zone_of(new.timezone_name)
    if zone is None:
        raise InvalidInput("timezone_name is an IANA name such as Europe/Berlin", path=("timezone_name",))
    if new.schedule_type is ScheduleType.ONE_TIME and new.recurrence_rule:
        raise InvalidInput("A one_time schedule has no recurrence_rule", path=("recurrence_rule",))
    if new.schedule_type is ScheduleType.RECURRING:
        recurrence.parse(new.recurrence_rule)
    return zone
