"""Asking for a campaign to be sent, now or later: an intent in the database, nothing more.

Promise: what is accepted can be sent; the answer to a wrong one lists every problem. Sending begins when the
planner finds the row. Called by the API and the demo.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, update

from mautolib.campaigns import store
from mautolib.campaigns.model import EDITABLE, Campaign, Status
from mautolib.campaigns.readiness import problems, refuse
from mautolib.db import tables
from mautolib.errors import InvalidInput, InvalidTransition
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
    changed = _update(tx, campaign, now, status=Status.SENDING.value, requested_at=now, scheduled_at=None)
    _LOG.info("campaign %s queued for sending", campaign_id)
    return changed


def schedule(tx: Connection, settings: Settings, campaign_id: int, *, at: datetime, now: datetime) -> Campaign:
    """Have a draft sent at a moment; a scheduled campaign is moved to it.

    Raises:
        NotFound, InvalidTransition, InvalidInput: as `request_send`, and `at` must be ahead.
    """
    if at <= now:
        raise InvalidInput("A campaign can only be scheduled for the future", path=("send_at",))
    campaign = store.get(tx, campaign_id, for_update=True)
    if campaign.status not in EDITABLE:
        raise InvalidTransition(f"Cannot schedule campaign in '{campaign.status.value}' status")
    refuse(problems(tx, settings, campaign))
    changed = _update(tx, campaign, now, status=Status.SCHEDULED.value, scheduled_at=at)
    _LOG.info("campaign %s scheduled", campaign_id)
    return changed


def _update(tx: Connection, campaign: Campaign, now: datetime, **values: Any) -> Campaign:
    tx.execute(
        update(_TABLE)
        .where(_TABLE.c.campaign_id == campaign.campaign_id)
        .values(**values, version=_TABLE.c.version + 1, updated_at=now)
    )
    return store.get(tx, campaign.campaign_id)
