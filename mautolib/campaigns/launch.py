"""Asking for a campaign to be sent, now or later: an intent in the database, nothing more.

Promise: what is accepted can be sent; the answer to a wrong one lists every problem. Sending begins when the
planner finds the row. Called by the API and the demo.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, update

from mautolib.campaigns import schedules, scheduling, store
from mautolib.campaigns.model import EDITABLE, Campaign, Status
from mautolib.campaigns.readiness import problems, refuse
from mautolib.campaigns.schedules import NewSchedule, ScheduleStatus
from mautolib.db import tables
from mautolib.errors import InvalidTransition
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_TABLE = tables.campaigns


def request_send(tx: Connection, settings: Settings, campaign_id: int, *, now: datetime) -> Campaign:
    """Queue a draft or scheduled campaign for sending at once.

    Raises:
        NotFound: there is none.
        InvalidTransition: `Cannot send campaign in '<status>' status`.
        InvalidInput: `not_sendable`, with every problem.
    """
    campaign = store.get(tx, campaign_id, for_update=True)
    if campaign.status not in EDITABLE:
        raise InvalidTransition(f"Cannot send campaign in '{campaign.status.value}' status")
    refuse(problems(tx, settings, campaign))
    # A schedule that waited is replaced.
    schedules.follow(tx, campaign_id, ScheduleStatus.CANCELLED, now)
    changed = _update(
        tx, campaign, now, status=Status.SENDING.value, requested_at=now, planned_at=None, scheduled_at=None,
        schedule_id=None, plan_at=None,
    )  # fmt: skip
    _LOG.info("campaign %s queued for sending", campaign_id)
    return changed


def schedule(
    tx: Connection, settings: Settings, campaign_id: int, *, at: datetime, now: datetime, timezone_name: str = "UTC",
    actor: str = "",
) -> Campaign:  # fmt: skip
    """Have a draft sent once, at a moment: a one_time schedule.

    Args:
        timezone_name: the clock that shows the time meant, where each person's own clock decides.
    Raises:
        NotFound: there is none.
        InvalidTransition: it is no draft; `scheduling.move` moves the date of a scheduled one.
        InvalidInput: `at` is not ahead, the zone is unknown, or `not_sendable` with every problem.
    """
    campaign = store.get(tx, campaign_id, for_update=True)
    if campaign.status is not Status.DRAFT:
        raise InvalidTransition(f"Cannot schedule campaign in '{campaign.status.value}' status")
    refuse(problems(tx, settings, campaign))
    new = NewSchedule(campaign_id=campaign_id, send_at=at, timezone_name=timezone_name)
    scheduling.create(tx, new, actor=actor, now=now)
    return store.get(tx, campaign_id)


def _update(tx: Connection, campaign: Campaign, now: datetime, **values: Any) -> Campaign:
    tx.execute(
        update(_TABLE)
        .where(_TABLE.c.campaign_id == campaign.campaign_id)
        .values(**values, version=_TABLE.c.version + 1, updated_at=now)
    )
    return store.get(tx, campaign.campaign_id)
