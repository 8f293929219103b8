"""Editing a campaign: its fields, and its state where a field asks for another one.

Promise: a state asked for does what its own verb does, no more; the date of a scheduled campaign is moved, not only
noted. All or nothing: one transaction, given by the caller. Called by the API for PATCH and the verbs beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mautolib.campaigns import control, launch, scheduling, store
from mautolib.campaigns.model import Campaign, Status
from mautolib.errors import Conflict, InvalidInput, InvalidTransition
from mautolib.settings import Settings

_DATE = ("body", "scheduled_at")


def edit(
    tx: Connection, settings: Settings, campaign_id: int, changes: Mapping[str, Any], *, now: datetime,
    status: Status | None = None, actor: str = "",
) -> Campaign:  # fmt: skip
    """Change fields, then move to `status`; None, or the state it has, moves nothing.

    Args:
        changes: columns of `NewCampaign` with checked values.
    Raises:
        NotFound: there is none.
        Conflict: `not_editable`, or the state cannot be reached from where it is.
        InvalidInput: a reference that does not exist, a date that is not ahead, or it cannot be sent.
    """
    campaign = store.get(tx, campaign_id, for_update=True)
    wanted = None if status is campaign.status else status
    if wanted is Status.DRAFT:
        # First, so that a date sent with it is a note again.
        campaign, wanted = move(tx, settings, campaign, wanted, now=now), None
    values = dict(changes)
    is_scheduled = campaign.status is Status.SCHEDULED
    moves_to = values.pop("scheduled_at") if is_scheduled and "scheduled_at" in values else campaign.scheduled_at
    if is_scheduled and moves_to != campaign.scheduled_at:
        campaign = scheduling.move(tx, campaign_id, _ahead(moves_to, now), now=now)
    campaign = store.change(tx, campaign_id, values, now=now)
    return campaign if wanted is None else move(tx, settings, campaign, wanted, now=now, actor=actor)


def move(
    tx: Connection, settings: Settings, campaign: Campaign, target: Status, *, now: datetime, actor: str = ""
) -> Campaign:
    """Carry out what reaching `target` means; the date to schedule for is the campaign's own.

    Raises:
        Conflict: it cannot be reached from the state the campaign is in.
        InvalidInput: no date ahead to schedule for, or it cannot be sent.
    """
    verbs = {Status.PAUSED: control.pause, Status.CANCELLED: control.cancel, Status.SENDING: control.resume,
             Status.DRAFT: scheduling.unschedule}  # fmt: skip
    if target in verbs:
        return verbs[target](tx, campaign.campaign_id, now=now)
    if target is not Status.SCHEDULED:
        raise Conflict(f"Cannot set a campaign in '{campaign.status}' status to '{target}'")
    if campaign.status is not Status.DRAFT:
        raise InvalidTransition(f"Cannot schedule campaign in '{campaign.status.value}' status")
    at = _ahead(campaign.scheduled_at, now)
    return launch.schedule(tx, settings, campaign.campaign_id, at=at, now=now, actor=actor)


def _ahead(at: datetime | None, now: datetime) -> datetime:
    if at is None or at <= now:
        raise InvalidInput("A scheduled campaign needs a scheduled_at in the future", path=_DATE)
    return at
