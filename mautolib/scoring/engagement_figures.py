"""What one contact did lately: opens, clicks, bounces, and how fast it engages.

Counts come from the events themselves; the last activity is that of the score. Called by the API; it writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mautolib.db.engine import Tx
from mautolib.db.prepared import execute_prepared
from mautolib.scoring import rules
from mautolib.scoring.evaluating import binds


@dataclass(frozen=True, kw_only=True)
class EngagementFigures:
    """Counts within the days asked for; the last moments are of all time.

    `engagement_velocity`: positive engagements a week, 2 decimals; less than a week counts as one.
    """

    total_opens: int
    total_clicks: int
    total_bounces: int
    total_unsubscribes: int
    last_open_at: datetime | None
    last_click_at: datetime | None
    last_activity_at: datetime | None
    days_since_last_activity: int | None
    engagement_velocity: float


def engagement_of(tx: Tx, contact_id: int, *, days: int, now: datetime) -> EngagementFigures:
    """The figures of a contact for the last `days` days; zeros for one that does not exist."""
    wanted = binds(contact_id, as_of=now, rule_version=rules.current_version(tx))
    row = execute_prepared(tx, "lifecycle.engagement", {**wanted, "since": now - timedelta(days=days)}).one()
    last = row.last_activity_at
    return EngagementFigures(
        total_opens=row.open_count, total_clicks=row.click_count, total_bounces=row.bounce_count,
        total_unsubscribes=row.unsubscribe_count, last_open_at=row.last_open_at, last_click_at=row.last_click_at,
        last_activity_at=last, days_since_last_activity=None if last is None else (now - last).days,
        engagement_velocity=round(row.engagement_count / max(days / 7, 1), 2),
    )  # fmt: skip
