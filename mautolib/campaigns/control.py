"""Stopping and going on: pause, resume, cancel.

Promise: from the moment the transaction commits no further message of the campaign is claimed (the claim shares a
lock on the campaign's row, so this waits for claims under way); what is in flight finishes. Callers: the API, the
pump when a mail server refuses sender or content.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, update

from mautolib.campaigns import schedules, store, totals
from mautolib.campaigns.model import Campaign, Status, check_transition
from mautolib.campaigns.schedules import ScheduleStatus
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import InvalidTransition
from mautolib.ledger.model import Skip
from mautolib.ledger.skip import skip_campaign

_LOG = logging.getLogger(__name__)


def look_at(tx: Connection, campaign_id: int) -> Campaign:
    """The campaign as it stands.

    Raises:
        NotFound: there is none.
    """
    return store.get(tx, campaign_id)


def newest(tx: Connection, *, status: Status | None = None, limit: int = 50) -> list[Campaign]:
    """Campaigns, newest first."""
    return store.list_campaigns(tx, status=status, limit=limit)


def pause(tx: Connection, campaign_id: int, *, now: datetime, reason: str | None = None) -> Campaign:
    """Stop claiming; `reason` says why when nobody asked for it.

    Raises:
        NotFound: there is none.
        InvalidTransition: it is neither scheduled nor sending.
    """
    campaign = _move(tx, campaign_id, Status.PAUSED, "pause", now, status_reason=reason)
    schedules.follow(tx, campaign_id, ScheduleStatus.PAUSED, now)
    return campaign


def resume(tx: Connection, campaign_id: int, *, now: datetime) -> Campaign:
    """Go on where it was paused: sending, or waiting for its time.

    Raises:
        NotFound: there is none.
        InvalidTransition: it is not paused.
    """
    campaign = store.get(tx, campaign_id, for_update=True)
    target = Status.SCHEDULED if campaign.requested_at is None else Status.SENDING
    if campaign.status is not Status.PAUSED:
        raise InvalidTransition(f"Cannot resume campaign in '{campaign.status.value}' status")
    campaign = _move(tx, campaign_id, target, "resume", now, status_reason=None)
    schedules.follow(tx, campaign_id, ScheduleStatus.PENDING, now)
    return campaign


def cancel(tx: Connection, campaign_id: int, *, now: datetime) -> Campaign:
    """Give up everything that is not handed over yet, for good.

    Raises:
        NotFound: there is none.
        InvalidTransition: it is not under way.
    """
    campaign = _move(tx, campaign_id, Status.CANCELLED, "cancel", now, status_reason=None)
    schedules.follow(tx, campaign_id, ScheduleStatus.CANCELLED, now)
    skipped = skip_campaign(tx, campaign_id, Skip.CANCELLED)
    tx.execute(statement("ab_sending.end_of_ended"), {"now": now})
    totals.refresh_totals(tx, campaign_id, now)
    _LOG.info("campaign %s cancelled, %s messages skipped", campaign_id, skipped)
    return campaign


def _move(tx: Connection, campaign_id: int, target: Status, verb: str, now: datetime, **values: Any) -> Campaign:
    table = tables.campaigns
    campaign = store.get(tx, campaign_id, for_update=True)
    check_transition(campaign.status, target, verb)
    tx.execute(
        update(table)
        .where(table.c.campaign_id == campaign_id)
        .values(status=target.value, version=table.c.version + 1, updated_at=now, **values)
    )
    _LOG.info("campaign %s: %s to %s", campaign_id, campaign.status.value, target.value)
    return store.get(tx, campaign_id)
