"""Who gets a campaign: the query of its candidates, and why some of them get nothing.

Promise: one row per candidate, evaluated once, at launch; nobody is left out silently: who may not be mailed has a
reason. The rule of who may be mailed is the view `contact_mailability`. Callers: planning, its dry run.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, column, literal, null, select, table

from mautolib.campaigns.model import Campaign
from mautolib.db import tables
from mautolib.ledger.model import Skip

_MAILABILITY = table("contact_mailability", column("contact_id"), column("consent_status"), column("refusal"))


def audience(campaign: Campaign, *, content_id: int, require_consent: bool) -> Select[Any]:
    """The candidates with content_id, variant_id and reason, as `ledger.queue.queue_audience` takes them."""
    people = _MAILABILITY.c
    reason: ColumnElement[Any] = people.refusal
    if require_consent:
        unasked = and_(people.refusal.is_(None), people.consent_status != "granted")
        reason = case((unasked, Skip.NO_CONSENT.value), else_=people.refusal)
    query = select(
        people.contact_id,
        literal(content_id, tables.messages.c.content_id.type).label("content_id"),
        null().cast(tables.messages.c.variant_id.type).label("variant_id"),
        reason.label("reason"),
    ).select_from(_MAILABILITY)
    if campaign.segment_id is None:
        return query
    members = tables.segment_static_members
    return query.join(members, members.c.contact_id == people.contact_id).where(
        members.c.segment_id == campaign.segment_id, members.c.is_excluded.is_(False)
    )
