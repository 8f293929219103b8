"""What one contact scores as of a moment, without keeping it: the statements of `sql/queries/scoring.sql`, asked.

Promises the numbers a kept evaluation of the same moment would give, churn and dormancy included. Called by the API
and by `explaining`; it writes nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row

from mautolib.db.engine import Tx
from mautolib.db.prepared import execute_prepared
from mautolib.errors import InvalidInput
from mautolib.events.types import NOT_ENGAGEMENT
from mautolib.scoring import rules
from mautolib.scoring.model import OPPORTUNITY, ContactScore, Grade, Stage

_NOT_ENGAGEMENT = sorted(str(kind) for kind in NOT_ENGAGEMENT)


def binds(contact_id: int, *, as_of: datetime, rule_version: int) -> dict[str, Any]:
    """What the statements of `scoring.sql` take, for one contact and all that is known."""
    return {
        "as_of": as_of, "known_at": None, "rule_version": rule_version, "contact_ids": [contact_id],
        "slices": None, "is_lifecycle": True, "not_engagement": _NOT_ENGAGEMENT,
        "checkouts_since": as_of - OPPORTUNITY,
    }  # fmt: skip


def check_moment(as_of: datetime | None, now: datetime) -> datetime:
    """`as_of`, or now for None.

    Raises:
        InvalidInput: it lies in the future.
    """
    if as_of is not None and as_of > now:
        raise InvalidInput("as_of is not in the future", path=("query", "as_of"))
    return as_of or now


def evaluate(tx: Tx, contact_id: int, as_of: datetime) -> ContactScore | None:
    """The score as of a moment by the newest rules, with the stage a lifecycle evaluation would give.

    Returns: None if there was no such contact then.
    """
    version = rules.current_version(tx)
    row = stage_row(tx, binds(contact_id, as_of=as_of, rule_version=version))
    if row is None:
        return None
    return ContactScore(
        contact_id=contact_id, total_score=row.total_score, engagement_score=row.engagement_score,
        profile_score=row.profile_score, recency_score=row.recency_score, grade=Grade(row.grade),
        lifecycle_stage=Stage(row.next_stage), last_activity_at=row.last_activity_at, score_updated_at=None,
        as_of=as_of, rule_version=version,
    )  # fmt: skip


def reason_of(row: Row[Any]) -> str:
    """Why the stage is what it is; who is dormant and stays so has no limit of days any more."""
    return str(row.reason or "no engagement since")


def stage_row(tx: Tx, wanted: dict[str, Any]) -> Row[Any] | None:
    """The row of `scoring.stages`, planned for few, for the contact of these binds; None if there was none."""
    return execute_prepared(tx, "scoring_lists.stages_of_few", wanted).one_or_none()
