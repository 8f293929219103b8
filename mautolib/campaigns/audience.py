"""Who gets a campaign: the query of its candidates, and why some of them get nothing.

Promise: one row per candidate, evaluated once, at launch; nobody is left out silently: who may not be mailed has a
reason. A segment is evaluated anew, whatever its last evaluation says. The rule of who may be mailed is the view
`contact_mailability`. Callers: planning, its dry run.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, column, func, literal, null, select, table

from mautolib import segments
from mautolib.campaigns.experiment_assignment import Slices, is_held_out
from mautolib.campaigns.limits import cap_since
from mautolib.campaigns.model import Campaign
from mautolib.db import tables
from mautolib.ledger.model import MARKETING, Skip
from mautolib.settings import Settings

_MAILABILITY = table("contact_mailability", column("contact_id"), column("consent_status"), column("refusal"),
                      column("language"), column("timezone"))  # fmt: skip


def audience(
    tx: Connection, settings: Settings, campaign: Campaign, *, content_ids: Mapping[str, int], now: datetime,
    cap_at: datetime | None = None, slices: Slices | None = None,
) -> Select[Any]:  # fmt: skip
    """The candidates with content_id, variant_id and reason, as `ledger.queue.queue_audience` takes them.

    Args:
        content_ids: the frozen content of each language tag; "" is the default one.
        cap_at: when the frequency cap is asked (None: now); the claim asks it again.
        slices: of the A/B test it is part of, which keeps some people back.
    Raises:
        NotFound: its segment is gone.
    """
    people = _MAILABILITY.c
    reason: ColumnElement[Any] = people.refusal
    if settings.require_consent:
        unasked = and_(people.refusal.is_(None), people.consent_status != "granted")
        reason = case((unasked, Skip.NO_CONSENT.value), else_=people.refusal)
    if settings.frequency_cap:
        capped = and_(reason.is_(None), people.contact_id.in_(_over_the_cap(settings, cap_at or now)))
        reason = case((capped, Skip.FREQUENCY_CAP.value), else_=reason)
    if slices is not None and slices.holdout_percentage:
        kept = and_(reason.is_(None), is_held_out(slices, people.contact_id))
        reason = case((kept, Skip.HOLDOUT.value), else_=reason)
    query = select(
        people.contact_id,
        _content_id(content_ids).label("content_id"),
        null().cast(tables.messages.c.variant_id.type).label("variant_id"),
        people.timezone,
        reason.label("reason"),
    ).select_from(_MAILABILITY)
    if campaign.segment_id is None:
        return query
    members = segments.audience(tx, settings, campaign.segment_id, now=now).subquery("members")
    return query.join(members, members.c.contact_id == people.contact_id)


def _over_the_cap(settings: Settings, at: datetime) -> Select[Any]:
    messages = tables.messages.c
    return (
        select(messages.contact_id)
        .where(messages.kind.in_(sorted(MARKETING)), messages.sent_at > cap_since(settings, at))
        .group_by(messages.contact_id)
        .having(func.count() >= settings.frequency_cap)
    )


def _content_id(content_ids: Mapping[str, int]) -> ColumnElement[Any]:
    """The content for the contact's language, else its base language, else the default (as `language.choose`)."""
    kind = tables.messages.c.content_id.type
    default = literal(content_ids[""], kind)
    if len(content_ids) == 1:
        return default
    by_tag = [(tag.lower(), number) for tag, number in content_ids.items() if tag]
    wanted = func.replace(func.btrim(func.lower(_MAILABILITY.c.language)), "_", "-")
    base = func.split_part(wanted, "-", 1)
    return func.coalesce(
        case(*((wanted == tag, literal(number, kind)) for tag, number in by_tag)),
        case(*((base == tag, literal(number, kind)) for tag, number in by_tag)),
        default,
    )
