"""Figures of segments, evaluated now: sizes, what keeps people out, a sample, two segments side by side.

Promise: the numbers come from the same compiled conditions as evaluations and audiences, and nothing is saved. Made
for the door `reading`, which lets them read for two seconds. Called by the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, column, func, select, table

from mautolib.db import tables
from mautolib.segments.compile import Setting, breakdown, members
from mautolib.segments.model import Figures, Overlap
from mautolib.segments.rules import Definition

_MAILABILITY = table("contact_mailability", column("contact_id"), column("consent_status"), column("refusal"))
#: Reason as shown -> column of `breakdown`; `static`: kept out by hand.
_REASONS: Final[Mapping[str, str]] = {
    "static": "is_kept_out", "unsubscribed": "is_unsubscribed", "suppressed": "is_suppressed",
    "bounced": "is_bounced", "campaign": "is_in_campaign",
}  # fmt: skip


def figures(
    tx: Connection, definition: Definition, setting: Setting, *, require_consent: bool, segment_id: int | None = None
) -> Figures:
    """Count what a definition has now.

    Args:
        require_consent: whether mail goes only to contacts whose consent is granted.
        segment_id: the segment whose changes by hand count; None for a definition that is not stored.
    """
    found = breakdown(definition, setting, segment_id=segment_id).subquery("found")
    numbers = [func.count().filter(found.c[name]).label(name) for name in ("is_member", "is_added", "by_rules")]
    reasons = [func.count().filter(found.c[name]).label(reason) for reason, name in _REASONS.items()]
    people = _MAILABILITY.c
    may_be_mailed: ColumnElement[bool] = people.refusal.is_(None)
    if require_consent:
        may_be_mailed = and_(may_be_mailed, people.consent_status == "granted")
    mailable = func.count().filter(and_(found.c.is_member, may_be_mailed)).label("mailable")
    joined = found.join(_MAILABILITY, people.contact_id == found.c.contact_id)
    row = tx.execute(select(*numbers, *reasons, mailable).select_from(joined)).one()
    excluded = {reason: getattr(row, reason) for reason in _REASONS}
    return Figures(
        count=row.is_member, static_count=row.is_added, rule_count=row.by_rules, mailable=row.mailable,
        excluded={reason: number for reason, number in excluded.items() if number},
    )  # fmt: skip


def sample(tx: Connection, definition: Definition, setting: Setting, *, size: int) -> list[int]:
    """The newest members of a definition that is not stored, at most `size` of them."""
    people = tables.contacts.c
    wanted = members(definition, setting, segment_id=None).subquery("wanted")
    query = select(people.contact_id).join(wanted, wanted.c.contact_id == people.contact_id)
    return list(tx.scalars(query.order_by(people.created_at.desc(), people.contact_id.desc()).limit(size)))


def overlap(tx: Connection, setting: Setting, segment_a: int, segment_b: int) -> Overlap:
    """Who is in both of two stored segments, as they are now."""
    a = members(setting.segments[segment_a], setting, segment_id=segment_a).cte("a").prefix_with("materialized")
    b = members(setting.segments[segment_b], setting, segment_id=segment_b).cte("b").prefix_with("materialized")
    both = select(func.count()).select_from(a.join(b, a.c.contact_id == b.c.contact_id))
    row = tx.execute(
        select(
            select(func.count()).select_from(a).scalar_subquery().label("size_a"),
            select(func.count()).select_from(b).scalar_subquery().label("size_b"),
            both.scalar_subquery().label("overlap"),
        )
    ).one()
    return Overlap(
        size_a=row.size_a, size_b=row.size_b, overlap=row.overlap, union=row.size_a + row.size_b - row.overlap
    )
