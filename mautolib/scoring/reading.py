"""Looking at scores that are kept: of one contact, its snapshots and awards, who leads, how many stand where.

Guards that lists are read in an order that pages can follow. Called by the API; it evaluates and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, tuple_

from mautolib.db import tables
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.scoring.model import ContactScore, Grade, ScoreEvent, Stage

_SCORES, _STAGES, _HISTORY = tables.contact_scores, tables.contact_stages, tables.score_history


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A score as an evaluation of a moment gave it, and what kind of evaluation that was."""

    score: ContactScore
    source: str


@dataclass(frozen=True, kw_only=True)
class Leader:
    """A contact on the leaderboard; `name` is first and last name, as far as known."""

    contact_id: int
    email: str
    name: str
    total_score: float
    engagement_score: float
    profile_score: float
    recency_score: float
    grade: Grade
    lifecycle_stage: Stage
    last_activity_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class StageFigures:
    """How many scored contacts stand in a stage, and what they score on average (0 for nobody)."""

    count: int = 0
    average_score: float = 0.0
    average_engagement: float = 0.0


def search_snapshots(
    tx: Tx, contact_id: int, *, since: datetime | None = None, until: datetime | None = None, skip: int = 0,
    limit: int = 50, after: tuple[datetime, str, int] | None = None,
) -> list[Snapshot]:  # fmt: skip
    """Snapshots of a contact, newest `as_of` first.

    Args:
        since: from this moment on.
        until: before this moment.
        after: (as_of, source, rule_version) of the last row of the page before.
    """
    order = (_HISTORY.c.as_of, _HISTORY.c.source, _HISTORY.c.rule_version)
    query = select(_HISTORY).where(*_snapshots(contact_id, since, until))
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    query = query.order_by(*(column.desc() for column in order)).offset(skip).limit(limit)
    return [_snapshot(row) for row in tx.execute(query)]


def count_snapshots(
    tx: Tx, contact_id: int, *, since: datetime | None = None, until: datetime | None = None, at_most: int
) -> int:
    """How many snapshots there are; counting stops at `at_most`."""
    found = select(_HISTORY.c.as_of).where(*_snapshots(contact_id, since, until)).limit(at_most).subquery()
    return int(tx.scalar(select(func.count()).select_from(found)) or 0)


def search_history(
    tx: Tx, contact_id: int, *, skip: int = 0, limit: int = 50, before: int | None = None
) -> list[ScoreEvent]:
    """Awards of a contact, by hand and by rules, newest first.

    Args:
        before: award_id of the last row of the page before.
    """
    wanted = {"contact_id": contact_id, "skip": skip, "limit": limit, "before": before}
    return [ScoreEvent(**row._mapping) for row in tx.execute(statement("scoring_lists.history"), wanted)]


def count_history(tx: Tx, contact_id: int) -> int:
    """How many awards a contact has."""
    return int(tx.scalar(statement("scoring_lists.count_history"), {"contact_id": contact_id}) or 0)


def leaderboard(
    tx: Tx, *, min_score: float = 0, stage: Stage | None = None, skip: int = 0, limit: int = 50,
    after: tuple[float, int] | None = None,
) -> list[Leader]:  # fmt: skip
    """Contacts by total score, the highest first.

    Args:
        after: (total_score, contact_id) of the last row of the page before.
    """
    _look_at_everybody(tx)
    order = (_SCORES.c.total_score, _SCORES.c.contact_id)
    names = ("total_score", "engagement_score", "profile_score", "recency_score", "grade", "last_activity_at")
    query = _led(select(_SCORES.c.contact_id, *(_SCORES.c[name] for name in names)), min_score, stage)
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    # Names are looked up for the rows of the page alone.
    top = query.order_by(*(column.desc() for column in order)).offset(skip).limit(limit).subquery()
    contacts = tables.contacts
    rows = tx.execute(
        select(top, contacts.c.email, contacts.c.first_name, contacts.c.last_name, _STAGES.c.lifecycle_stage)
        .join(contacts, contacts.c.contact_id == top.c.contact_id)
        .outerjoin(_STAGES, _STAGES.c.contact_id == top.c.contact_id)
        .order_by(top.c.total_score.desc(), top.c.contact_id.desc())
    )
    return [_leader(row) for row in rows]


def count_leaders(tx: Tx, *, min_score: float = 0, stage: Stage | None = None, at_most: int) -> int:
    """How many contacts the leaderboard has; counting stops at `at_most`."""
    _look_at_everybody(tx)
    found = _led(select(_SCORES.c.contact_id), min_score, stage).limit(at_most).subquery()
    return int(tx.scalar(select(func.count()).select_from(found)) or 0)


def stage_figures(tx: Tx) -> Mapping[Stage, StageFigures]:
    """Every stage, in its order, with the scored contacts in it."""
    _look_at_everybody(tx)
    found = {row.stage: row for row in tx.execute(statement("scoring_lists.stage_counts"))}
    return {
        stage: StageFigures(
            count=found[stage].contact_count, average_score=found[stage].average_score,
            average_engagement=found[stage].average_engagement,
        )
        if stage in found else StageFigures()
        for stage in Stage
    }  # fmt: skip


def _look_at_everybody(tx: Tx) -> None:
    # A join of a million scores fits in this memory; compiling it costs more than it saves.
    tx.execute(select(func.set_config("jit", "off", True), func.set_config("work_mem", "64MB", True)))


def _led(query: Select[Any], min_score: float, stage: Stage | None) -> Select[Any]:
    query = query.where(_SCORES.c.total_score >= min_score)
    if stage is Stage.NEW:
        return query.where(func.coalesce(_SCORES.c.lifecycle_stage, str(stage)) == str(stage))
    return query if stage is None else query.where(_SCORES.c.lifecycle_stage == str(stage))


def _snapshots(contact_id: int, since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [_HISTORY.c.contact_id == contact_id]
    if since is not None:
        wanted.append(_HISTORY.c.as_of >= since)
    if until is not None:
        wanted.append(_HISTORY.c.as_of < until)
    return wanted


def _snapshot(row: Any) -> Snapshot:
    score = ContactScore(
        contact_id=row.contact_id, total_score=row.total_score, engagement_score=row.engagement_score,
        profile_score=row.profile_score, recency_score=row.recency_score, grade=Grade(row.grade),
        lifecycle_stage=Stage(row.lifecycle_stage or Stage.NEW), last_activity_at=row.last_activity_at,
        score_updated_at=row.recorded_at, as_of=row.as_of, rule_version=row.rule_version,
    )  # fmt: skip
    return Snapshot(score=score, source=row.source)


def _leader(row: Any) -> Leader:
    return Leader(
        contact_id=row.contact_id, email=row.email, name=f"{row.first_name} {row.last_name}".strip(),
        total_score=row.total_score, engagement_score=row.engagement_score, profile_score=row.profile_score,
        recency_score=row.recency_score, grade=Grade(row.grade),
        lifecycle_stage=Stage(row.lifecycle_stage or Stage.NEW), last_activity_at=row.last_activity_at,
    )  # fmt: skip
