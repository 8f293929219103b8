"""The pace of a campaign: whether its messages are claimed under limits and windows, and since when they count.

Promise: a campaign under way that gets its first limit counts what it handed over before; changing a window or limit
is felt by the next claim, and what was held by the old ones is looked at again. Callers: planning, editing of
campaigns, scheduling. Claiming itself is `pacing`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, update

from mautolib.campaigns import schedules
from mautolib.campaigns.limits import limits_of, window_for
from mautolib.campaigns.model import Campaign, Status
from mautolib.campaigns.schedules import WAITING, Schedule
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.settings import Settings

_CAMPAIGNS = tables.campaigns
_UNDER_WAY: Final = (Status.SENDING.value, Status.PAUSED.value)


def begin(
    tx: Connection, settings: Settings, campaign: Campaign, schedule: Schedule | None, *, expires_at: datetime
) -> bool:
    """Prepare the pace of a run that is being planned; returns whether it has one.

    Args:
        expires_at: no message of the run expires earlier.
    """
    limits = limits_of(
        campaign, schedule_per_hour=schedule.max_per_hour if schedule else 0,
        schedule_per_day=schedule.max_per_day if schedule else 0,
    )  # fmt: skip
    if limits.are_none and window_for(settings, campaign).is_always_open:
        return False
    tx.execute(statement("pacing.begin"), {"campaign_id": campaign.campaign_id, "expires_at": expires_at})
    return True


def changed(tx: Connection, campaign_id: int, *, now: datetime) -> None:
    """A window or limit of a locked campaign was changed: claims under way see it, held messages are looked at anew."""
    newly_paced = tx.execute(
        update(_CAMPAIGNS)
        .where(
            _CAMPAIGNS.c.campaign_id == campaign_id, _CAMPAIGNS.c.status.in_(_UNDER_WAY), ~_CAMPAIGNS.c.is_paced,
            _CAMPAIGNS.c.planned_at.is_not(None),
        )
        .values(is_paced=True)
    ).rowcount  # fmt: skip
    if newly_paced:
        tx.execute(statement("pacing.seed_total"), {"campaign_id": campaign_id, "now": now})
    tx.execute(statement("pacing.forget_domains"), {"campaign_id": campaign_id})
    tx.execute(statement("pacing.seed_domains"), {"campaign_id": campaign_id, "now": now})
    tx.execute(statement("pacing.mark_stale"), {"campaign_id": campaign_id})


def follow(tx: Connection, campaign: Campaign, *, now: datetime) -> None:
    """The window or a limit of a locked campaign was edited: a waiting run and queued messages follow at once."""
    schedule = schedules.live_of(tx, campaign.campaign_id)
    if schedule is not None and schedule.status in WAITING and schedule.next_run_at is not None:
        moment = schedules.plan_at(campaign, schedule.next_run_at, schedule.timezone_name)
        tx.execute(
            update(_CAMPAIGNS).where(_CAMPAIGNS.c.campaign_id == campaign.campaign_id).values(plan_at=moment)
        )
    if campaign.planned_at is not None:
        changed(tx, campaign.campaign_id, now=now)
