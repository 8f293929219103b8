"""The nouns of scoring: grades, stages, rules, a contact's score, what a recalculation did.

Plain frozen values without behaviour; the arithmetic lives in `sql/queries/scoring.sql`. Used by the other modules
of this package and by the faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

#: A checkout without an order makes an opportunity for so long.
OPPORTUNITY: Final = timedelta(days=14)


class Grade(StrEnum):
    """What a total score is worth, best first."""

    A_PLUS = "A+"
    A = "A"
    B_PLUS = "B+"
    B = "B"
    C = "C"
    D = "D"
    F = "F"


class Stage(StrEnum):
    """Stages of the lifecycle, in the order of table `lifecycle_stages`."""

    NEW = "new"
    SUBSCRIBER = "subscriber"
    LEAD = "lead"
    MQL = "mql"
    SQL = "sql"
    OPPORTUNITY = "opportunity"
    CUSTOMER = "customer"
    EVANGELIST = "evangelist"
    DORMANT = "dormant"
    CHURNED = "churned"


class SnapshotSource(StrEnum):
    """What made a snapshot in `score_history`."""

    RUNNING = "running"
    RECALCULATED = "recalculated"
    NIGHTLY = "nightly"
    RECOMPUTED = "recomputed"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A scoring rule as it stands now.

    `decay_days` is a half-life (0: no decay); `max_per_contact` counts the first events only (0: all of them).
    """

    rule_id: int
    name: str
    description: str
    event_type: str
    condition: Mapping[str, Any]
    points: int
    max_per_contact: int
    decay_days: int
    active: bool
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class ContactScore:
    """The score of one contact and the stage it is in; `score_updated_at` is None for one that is not stored."""

    contact_id: int
    total_score: float
    engagement_score: float
    profile_score: float
    recency_score: float
    grade: Grade
    lifecycle_stage: Stage
    last_activity_at: datetime | None
    score_updated_at: datetime | None
    as_of: datetime
    rule_version: int


@dataclass(frozen=True, kw_only=True)
class ScoreEvent:
    """Points a contact was given: by hand (`rule_id` None), or by a rule for an event told here and now."""

    award_id: int
    contact_id: int
    rule_id: int | None
    event_type: str
    points: float
    reason: str
    rule_version: int
    occurred_at: datetime
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """What a recalculation did, or would do if it was a dry run.

    Args:
        scored: contacts evaluated.
        changed: rows of `contact_scores` that differ from what was stored.
        moved: contacts whose lifecycle stage changed.
        snapshots: rows added to `score_history`.
        is_current: whether the current scores were (or would be) written; False for a backfill of the past.
        grades: stored grade (None: never scored) -> new grade -> contacts.
    """

    as_of: datetime
    rule_version: int
    scored: int = 0
    changed: int = 0
    moved: int = 0
    snapshots: int = 0
    is_current: bool = True
    grades: Mapping[str | None, Mapping[str, int]] = field(default_factory=dict)
