"""Keeping campaigns: create, read, list, change what may be changed, copy, delete what may go.

Promise: the state is changed only by the verbs of `launch`, `control`, `planning` and `finishing`; an edit needs a
state that allows it and raises the version. Called by the API and the demo.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from mautolib.campaigns import paces
from mautolib.campaigns.model import EDITABLE, PACE_EDITABLE, PACE_FIELDS, Campaign, NewCampaign, Status
from mautolib.db import tables
from mautolib.errors import Conflict, InvalidInput, NotFound
from mautolib.outbox import FactName, record

_LOG = logging.getLogger(__name__)
_TABLE = tables.campaigns
_FIELDS: Final = tuple(item.name for item in dataclasses.fields(Campaign))
_LONGEST_NAME: Final = 300
_EDITABLE_FIELDS: Final = frozenset(item.name for item in dataclasses.fields(NewCampaign))


def create(tx: Connection, new: NewCampaign, *, actor: str, now: datetime) -> Campaign:
    """Make a draft.

    Raises:
        InvalidInput: the template or segment it names does not exist.
    """
    values = dataclasses.asdict(new)
    _check_references(tx, values)
    statement = insert(_TABLE).values(**values, created_by=actor, created_at=now).returning(_TABLE)
    campaign = _campaign(tx.execute(statement).mappings().one())
    none_yet = {"recipients": 0, "skipped": 0}
    data = {"campaign_id": str(campaign.campaign_id), "name": campaign.name, "totals": none_yet}
    record(tx, FactName.CAMPAIGN_CREATED, data, occurred_at=now)
    _LOG.info("campaign %s created", campaign.campaign_id)
    return campaign


def get(tx: Connection, campaign_id: int, *, for_update: bool = False) -> Campaign:
    """The campaign; with `for_update` nobody else changes it until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    query = select(_TABLE).where(_TABLE.c.campaign_id == campaign_id)
    row = tx.execute(query.with_for_update() if for_update else query).mappings().one_or_none()
    if row is None:
        raise NotFound("Campaign not found")
    return _campaign(row)


def name_of(tx: Connection, campaign_id: int) -> str:
    """Its name; empty for a campaign that was deleted."""
    return tx.scalar(select(_TABLE.c.name).where(_TABLE.c.campaign_id == campaign_id)) or ""


def list_campaigns(
    tx: Connection, *, status: Status | None = None, skip: int = 0, limit: int = 50, before: int | None = None
) -> list[Campaign]:
    """Campaigns, newest first; with `before` those older than that id."""
    query = select(_TABLE).order_by(_TABLE.c.campaign_id.desc()).offset(skip).limit(limit)
    if status is not None:
        query = query.where(_TABLE.c.status == status.value)
    if before is not None:
        query = query.where(_TABLE.c.campaign_id < before)
    return [_campaign(row) for row in tx.execute(query).mappings()]


def count(tx: Connection, *, status: Status | None = None) -> int:
    """How many campaigns there are."""
    query = select(func.count()).select_from(_TABLE)
    if status is not None:
        query = query.where(_TABLE.c.status == status.value)
    return int(tx.scalar(query) or 0)


def change(tx: Connection, campaign_id: int, changes: Mapping[str, Any], *, now: datetime) -> Campaign:
    """Change fields: all of a draft or scheduled campaign, limits and window also under way, the name always.

    Args:
        changes: columns of `NewCampaign` with checked values; nothing else is accepted.
    Raises:
        NotFound: there is none.
        Conflict: `not_editable`: its state forbids it.
        InvalidInput: the template or segment does not exist.
    """
    unknown = changes.keys() - _EDITABLE_FIELDS
    if unknown:
        raise ValueError(f"not a field of a campaign: {sorted(unknown)}")
    before = get(tx, campaign_id, for_update=True)
    wanted = {name: value for name, value in changes.items() if getattr(before, name) != value}
    if not wanted:
        return before
    allowed = PACE_FIELDS if before.status in PACE_EDITABLE else frozenset()
    if before.status not in EDITABLE and not wanted.keys() <= allowed | {"name"}:
        raise Conflict(f"Cannot edit a campaign in '{before.status.value}' status", code="not_editable")
    _check_references(tx, wanted)
    statement = (
        update(_TABLE)
        .where(_TABLE.c.campaign_id == campaign_id)
        .values(**wanted, version=_TABLE.c.version + 1, updated_at=now)
        .returning(_TABLE)
    )
    changed = _campaign(tx.execute(statement).mappings().one())
    if wanted.keys() & PACE_FIELDS:
        paces.follow(tx, changed, now=now)
        return get(tx, campaign_id)
    return changed


def clone(tx: Connection, campaign_id: int, *, actor: str, now: datetime, name: str | None = None) -> Campaign:
    """Make a draft with the content and settings of another campaign, whatever its state; nothing else is taken over.

    Args:
        name: None: that of the other one with "(copy)".
    Raises:
        NotFound: there is none.
    """
    campaign = get(tx, campaign_id)
    values = {field: getattr(campaign, field) for field in _EDITABLE_FIELDS}
    ending = " (copy)"
    values["name"] = name or campaign.name[: _LONGEST_NAME - len(ending)] + ending
    # The date was that campaign's.
    return create(tx, NewCampaign(**{**values, "scheduled_at": None}), actor=actor, now=now)


def remove(tx: Connection, campaign_id: int) -> None:
    """Delete a campaign and its schedule; its messages and totals stay in the figures.

    Raises:
        NotFound: there is none.
        Conflict: it is sending (code `sending`) or paused.
    """
    campaign = get(tx, campaign_id, for_update=True)
    if campaign.status is Status.SENDING:
        raise Conflict("Cannot delete a campaign that is currently sending", code="sending")
    if campaign.status is Status.PAUSED:
        raise Conflict("Cannot delete a paused campaign; cancel it first")
    tx.execute(delete(_TABLE).where(_TABLE.c.campaign_id == campaign_id))
    _LOG.info("campaign %s deleted", campaign_id)


def _check_references(tx: Connection, values: Mapping[str, Any]) -> None:
    for name, table in (("template_id", tables.templates), ("segment_id", tables.segments)):
        wanted = values.get(name)
        if wanted is None:
            continue
        # Locked, so that it is not deleted between this look and our commit.
        query = select(table.c[name]).where(table.c[name] == wanted).with_for_update(read=True, key_share=True)
        if tx.execute(query).first() is None:
            raise InvalidInput(f"{name.removesuffix('_id').capitalize()} not found", path=(name,))


def _campaign(row: Mapping[Any, Any]) -> Campaign:
    values = {name: row[name] for name in _FIELDS}
    return Campaign(**{**values, "status": Status(values["status"])})
