"""Whom to win back: subscribed contacts who were engaged and have gone quiet, as their stored scores say.

Called by the API; it writes nothing. Nobody is mailed by being on the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.scoring.model import Stage

#: Who scored more for engagement than this comes first.
HIGH_ABOVE: Final = 30
#: So many of the most engaged are looked at for each who is wanted.
_FOR_EACH: Final = 4


class Priority(StrEnum):
    """How much there is to win back."""

    HIGH = "high"
    MEDIUM = "medium"


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """A contact who has gone quiet; `name` is the first name."""

    contact_id: int
    email: str
    name: str
    lifecycle_stage: Stage
    total_score: float
    engagement_score: float
    days_inactive: int

    @property
    def priority(self) -> Priority:
        """High or medium."""
        return Priority.HIGH if self.engagement_score > HIGH_ABOVE else Priority.MEDIUM


def reengagement(tx: Tx, *, min_days: int, max_days: int, limit: int, now: datetime) -> list[Quiet]:
    """Subscribed contacts with an engagement above 5 whose last activity is that long ago, most engaged first.

    Args:
        min_days, max_days: of inactivity, both included.
    Raises:
        InvalidInput: the least is more than the most.
    """
    if min_days > max_days:
        message = "min_inactive_days is not more than max_inactive_days"
        raise InvalidInput(message, path=("query", "min_inactive_days"))
    # Whole days: who was active 90 days and an hour ago has been quiet for 90 days.
    span = {"earliest": now - timedelta(days=max_days + 1, microseconds=-1), "latest": now - timedelta(days=min_days)}
    return [
        Quiet(
            contact_id=row.contact_id, email=row.email, name=row.first_name, lifecycle_stage=Stage(row.lifecycle_stage),
            total_score=row.total_score, engagement_score=row.engagement_score,
            days_inactive=(now - row.last_activity_at).days,
        )
        for row in _most_engaged(tx, {**span, "limit": limit})
    ]  # fmt: skip


def _most_engaged(tx: Tx, wanted: Mapping[str, Any]) -> Sequence[Row[Any]]:
    """Enough of the most engaged are subscribed, nearly always: everybody is looked at only where they are not."""
    most = wanted["limit"] * _FOR_EACH
    rows = tx.execute(statement("scoring_lists.reengagement"), {**wanted, "most": most}).all()
    if len(rows) == wanted["limit"] or (rows and rows[0].candidate_count < most):
        return rows
    return tx.execute(statement("scoring_lists.reengagement"), {**wanted, "most": None}).all()
