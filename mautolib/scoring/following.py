"""What follows from an evaluation: the events `score_changed` and `milestone_reached`, told once each.

Promise: an event stands in the transaction of the change it tells of, and a change is told once whoever evaluates how
often: what was told last is kept beside each score, and what was reached in `contact_milestones`. A first evaluation
is no change, nor is fading by time alone, nor points that the same events bring by other rules. docs/scoring.md says
what is told. Called by `recalculation` where current scores are kept; looks back and dry runs tell nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Result

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.events.append import NewEvent, append
from mautolib.events.milestones import MilestoneKind, milestone_event
from mautolib.events.types import EventType
from mautolib.scoring.model import Stage

__all__ = ["Followed", "tell"]

_LOG = logging.getLogger(__name__)
_AT_ONCE: Final = 5000
# Told at the evaluation's own moment, an event would look late to whoever has folded up to that moment.
_JUST_AFTER: Final = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Followed:
    """How many events were told."""

    changes: int = 0
    milestones: int = 0


def tell(
    tx: Tx, *, as_of: datetime, contact_ids: Sequence[int] | None = None, slices: Sequence[int] | None = None,
    is_moved: bool = True,
) -> Followed:  # fmt: skip
    """Tell what the evaluation of `as_of` changed; in its transaction, after current scores and stages are kept.

    Args:
        contact_ids: only these contacts; None: everybody.
        slices: only contacts with these `contact_id % 64`; None: all.
        is_moved: False if it moved nobody to another stage, so that nothing has to be looked for.
    """
    who = {
        "contact_ids": None if contact_ids is None else list(contact_ids),
        "slices": None if slices is None else list(slices),
    }
    begun = tx.execute(statement("score_followups.begin"), {"as_of": as_of}).one()
    now = begun.told_at
    moves = {**who, "as_of": as_of, "newcomers_since": begun.newcomers_since}
    milestones = _append(tx, _stages(tx, moves), now) if is_moved else 0
    changes = 0
    for rows in _untold(tx, who):
        changes += _append(tx, (_change(row) for row in rows if row.is_news), now)
        milestones += _append(tx, _grades(tx, rows), now)
    if changes or milestones:
        _LOG.info("told of scores as of %s: %s changed, %s milestones", as_of.isoformat(), changes, milestones)
    return Followed(changes=changes, milestones=milestones)


def _untold(tx: Tx, who: dict[str, Any]) -> Iterator[list[Any]]:
    """Contacts with something untold, some at a time; what is yielded counts as told."""
    for rows in _read(tx, who).partitions(_AT_ONCE):
        tx.execute(statement("score_followups.keep_told"), {"contact_ids": [row.contact_id for row in rows]})
        yield [row for row in rows if row.is_there]


def _read(tx: Tx, who: dict[str, Any]) -> Result[Any]:
    """Of everybody, a cursor: asking again after each part would walk over what was told before, which is not gone."""
    untold = statement("score_followups.untold")
    if who["contact_ids"] is not None:
        return tx.execute(untold, who)
    tx.execute(statement("score_followups.read_by_index"), {"is_wanted": True})
    found = tx.execute(untold, who, execution_options={"yield_per": _AT_ONCE})
    tx.execute(statement("score_followups.read_by_index"), {"is_wanted": False})
    return found


def _change(row: Any) -> NewEvent:
    return NewEvent(
        event_type=EventType.SCORE_CHANGED, contact_id=row.contact_id, occurred_at=row.as_of + _JUST_AFTER,
        properties={
            "grade": row.grade, "previous_grade": row.told_grade, "total_score": row.total_score,
            "engagement_score": round(row.engagement_score, 2),
            "previous_engagement_score": round(row.told_engagement, 2), "rule_version": row.rule_version,
        },
    )  # fmt: skip


def _grades(tx: Tx, rows: Iterable[Any]) -> Iterator[NewEvent]:
    changed = [row for row in rows if row.grade != row.told_grade]
    if not changed:
        return
    binds = {
        "ids": [row.contact_id for row in changed], "previous_grades": [row.told_grade for row in changed],
        "grades": [row.grade for row in changed], "moments": [row.as_of for row in changed],
    }  # fmt: skip
    for row in tx.execute(statement("score_followups.reach_grades"), binds):
        yield _milestone(row.contact_id, MilestoneKind.GRADE, row.grade, row.reached_at,
                         previous_grade=row.previous_grade)  # fmt: skip


def _stages(tx: Tx, moves: dict[str, Any]) -> Iterator[NewEvent]:
    newcomers = False
    found = tx.execute(statement("score_followups.moves"), moves, execution_options={"yield_per": _AT_ONCE})
    for rows in found.partitions():
        before = {(row.contact_id, row.new_stage): row.previous_stage for row in rows}
        newcomers |= Stage.NEW in before.values()
        binds = {
            "ids": [row.contact_id for row in rows], "previous_stages": [row.previous_stage for row in rows],
            "stages": [row.new_stage for row in rows], "moments": [row.occurred_at for row in rows],
            "rises": [row.is_rise for row in rows],
        }  # fmt: skip
        for row in tx.execute(statement("score_followups.reach_stages"), binds):
            yield _milestone(row.contact_id, MilestoneKind.STAGE, row.new_stage, row.reached_at,
                             previous_stage=before[row.contact_id, row.new_stage])  # fmt: skip
    # Whoever begins with more than the lowest grade begins above the lowest stage, or out of the ladder.
    if newcomers:
        for row in tx.execute(statement("score_followups.reach_first_grades"), moves):
            yield _milestone(row.contact_id, MilestoneKind.GRADE, row.grade, row.reached_at, previous_grade=None)


def _milestone(contact_id: int, kind: MilestoneKind, name: str, moment: datetime, **more: Any) -> NewEvent:
    return milestone_event(contact_id, kind, name, moment + _JUST_AFTER, **more)


def _append(tx: Tx, events: Iterable[NewEvent], now: datetime) -> int:
    given = list(events)
    parts = (given[start : start + _AT_ONCE] for start in range(0, len(given), _AT_ONCE))
    return sum(append(tx, part, now=now).accepted for part in parts)
