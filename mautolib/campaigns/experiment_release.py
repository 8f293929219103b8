"""Giving those who waited for an A/B test what it decided: the winner's content, or the control's where none won.

Promise: whoever waited is released once, whoever asks and however often it is begun: only rows still held are touched,
and a test is worked on by one process at a time. What is decided is in the test's row; this follows it. Called by
`experiment_steps`; it decides nothing and hands nothing over.
"""

from __future__ import annotations

import json
import zoneinfo
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from mautolib.campaigns import schedules, store
from mautolib.campaigns.experiment_contents import delay_of
from mautolib.campaigns.experiment_model import AbTest, AbTestType, AbVariant
from mautolib.campaigns.limits import default_zone, window_for
from mautolib.campaigns.model import Campaign
from mautolib.campaigns.schedules import Schedule
from mautolib.campaigns.walltime import UTC_ZONE, local_of, moment_of, zone_or
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.settings import Settings

#: A few seconds' worth: senders wait for nothing meanwhile, and a kill loses no more.
BATCH: Final = 20_000
_DAY: Final = timedelta(days=1)


def release(tx: Connection, settings: Settings, test: AbTest, *, now: datetime, size: int = BATCH) -> int:
    """Release some of those who wait for a test that is completed or cancelled; returns how many, 0: nobody is left.

    The caller holds the lock on the test.

    Args:
        size: at most so many.
    """
    campaign = store.get(tx, test.campaign_id)
    winner = (test.winner_variant_id and test.variant(test.winner_variant_id)) or test.control
    schedule = None if campaign.schedule_id is None else schedules.get(tx, campaign.schedule_id)
    timings = times(settings, campaign, schedule, test, winner, now=now)
    shown = [{"timezone": name, "due_at": due_at.isoformat()} for name, due_at in timings.items()]
    parameters = {
        "test_id": test.test_id, "variant_id": winner.variant_id, "size": size, "timings": json.dumps(shown),
        "contents": json.dumps(_contents(tx, test, winner)), "patience_hours": campaign.expires_after_hours,
    }  # fmt: skip
    released = tx.execute(statement("ab_sending.release"), parameters).rowcount
    if released < size and campaign.is_paced:
        # A pace that sleeps looks again, and knows when the first of these expires.
        tx.execute(statement("pacing.mark_stale"), {"campaign_id": campaign.campaign_id})
    return released


def times(
    settings: Settings, campaign: Campaign, schedule: Schedule | None, test: AbTest, winner: AbVariant, *,
    now: datetime,
) -> dict[str, datetime]:  # fmt: skip
    """When those who waited are due, by time zone; "" is for all without one of these.

    In a test of send times at the winner's clock time, the day after; where each person's own clock decides, when it
    next shows the time of the campaign; else now.
    """
    requested_at = campaign.requested_at or now
    zone = zone_or(schedule.timezone_name, UTC_ZONE) if schedule is not None else default_zone(settings)
    is_by_contact = schedule is not None and window_for(settings, campaign).local_time
    if test.test_type is not AbTestType.SEND_TIME and not is_by_contact:
        return {"": now}
    clock = local_of(requested_at + delay_of(test, winner), zone)
    due = _tomorrow if test.test_type is AbTestType.SEND_TIME else _next
    if not is_by_contact:
        return {"": due(clock, now, zone)}
    names = sorted(zoneinfo.available_timezones())
    own = {name: due(clock, now, zone_or(name, zone)) for name in names}
    return {"": due(clock, now, default_zone(settings)), **own}


def _tomorrow(clock: datetime, now: datetime, zone: ZoneInfo) -> datetime:
    """The time of `clock` on the day after that of `now`, both in `zone`."""
    return moment_of(datetime.combine(local_of(now, zone).date() + _DAY, clock.time()), zone)


def _next(clock: datetime, now: datetime, zone: ZoneInfo) -> datetime:
    """The next time clocks in `zone` show the time of `clock`."""
    today = moment_of(datetime.combine(local_of(now, zone).date(), clock.time()), zone)
    return today if today >= now else _tomorrow(clock, now, zone)


def _contents(tx: Connection, test: AbTest, winner: AbVariant) -> list[dict[str, Any]]:
    """What the winner says in each language, as it was frozen."""
    frozen = tables.message_contents.c
    query = select(func.lower(frozen.locale).label("locale"), frozen.content_id).where(
        frozen.campaign_id == test.campaign_id, frozen.occurrence == test.planned_occurrence,
        frozen.variant_id == winner.variant_id,
    )  # fmt: skip
    return [dict(row) for row in tx.execute(query.with_for_update(read=True, key_share=True)).mappings()]
