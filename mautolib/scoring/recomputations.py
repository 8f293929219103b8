"""Recomputations: score past days again, by other rules or by what was known then, without touching what is current.

Promises that a day is one transaction, so that whoever is killed leaves whole days and another goes on behind them;
that two workers never do the same day; and that the same days asked for again add nothing. The API asks (`request`),
the `score_recalculation` DAG works (`run_waiting`); a commit wakes it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Engine, insert, select

from mautolib.db import tables
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, MautoError, NotFound
from mautolib.scoring import rules
from mautolib.scoring.model import SnapshotSource
from mautolib.scoring.recalculation import recalculate_within

_LOG = logging.getLogger(__name__)
MOST_DAYS: Final = 366
#: Who works on a recomputation has it for so long after each day; longer than a day of a million contacts takes.
LEASE: Final = timedelta(minutes=15)
#: A day that goes wrong is tried so often before the recomputation fails.
MOST_TRIES: Final = 3
AGAIN_AFTER: Final = timedelta(minutes=1)
#: The grade of a contact that has no score yet, in the matrix.
UNSCORED: Final = "none"


class RecomputationStatus(StrEnum):
    """The state of a recomputation."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Recomputation:
    """Past days to score again, and how far that is.

    Args:
        known_at: what arrived later is ignored; None: whatever had arrived when it was asked for.
        done_through: the last day that is done.
        contacts: scored on that day.
        snapshots: rows added to `score_history` so far.
        grade_matrix: stored grade -> grade on the last day done -> contacts; `none` for who has no score.
    """

    recomputation_id: int
    from_day: date
    to_day: date
    rule_version: int
    known_at: datetime | None
    status: RecomputationStatus
    done_through: date | None
    contacts: int
    snapshots: int
    grade_matrix: Mapping[str, Mapping[str, int]]
    error: str | None
    created_at: datetime
    finished_at: datetime | None


def request(
    tx: Tx, *, from_day: date, to_day: date, rule_version: int | None = None, known_at: datetime | None = None,
    actor: str, now: datetime,
) -> Recomputation:  # fmt: skip
    """Queue the days `from_day` to `to_day`, each as of its midnight UTC.

    Args:
        rule_version: None takes the newest of this moment, for all days.
    Raises:
        InvalidInput: no days, over 366 of them, one in the future, or no such version.
    """
    if from_day > to_day:
        raise InvalidInput("from is not after to", path=("body", "from"))
    if (to_day - from_day).days >= MOST_DAYS:
        raise InvalidInput(f"from and to span at most {MOST_DAYS} days", path=("body", "to"))
    if _midnight(to_day) > now:
        raise InvalidInput("to is not in the future", path=("body", "to"))
    try:
        version = rules.check_version(tx, rule_version)
    except InvalidInput as error:
        raise InvalidInput(str(error), path=("body", *error.path)) from None
    table = tables.score_recomputations
    row = tx.execute(
        insert(table)
        .values(
            from_day=from_day, to_day=to_day, rule_version=version, known_at=known_at, requested_by=actor,
            created_at=now, due_at=now,
        )
        .returning(table)
    ).one()  # fmt: skip
    _LOG.info("recomputation %s of %s to %s queued", row.recomputation_id, from_day, to_day)
    return _recomputation(row)


def get(tx: Tx, recomputation_id: int) -> Recomputation:
    """One recomputation.

    Raises:
        NotFound: there is none.
    """
    table = tables.score_recomputations
    row = tx.execute(select(table).where(table.c.recomputation_id == recomputation_id)).one_or_none()
    if row is None:
        raise NotFound("Recomputation not found")
    return _recomputation(row)


def run_waiting(
    engine: Engine, *, clock: Callable[[], datetime], within: timedelta | None = None
) -> list[Recomputation]:  # fmt: skip
    """Work on every recomputation that is due, day by day; returns those worked on, as they are then.

    One that goes wrong keeps why and is tried again later, at most three times; the others go on.

    Args:
        clock: the present moment.
        within: begin no day after so long; what is left is due at once, for somebody else.
    """
    worked, until = [], None if within is None else clock() + within

    def is_over() -> bool:
        return until is not None and clock() >= until

    while not is_over() and (recomputation_id := _claim(engine, clock())) is not None:
        try:
            _ensure_months(engine, recomputation_id)
            while _one_day(engine, recomputation_id, clock):
                if is_over():
                    _release(engine, recomputation_id, clock())
                    break
        except Exception as error:  # noqa: BLE001 - whatever it is, it is kept on the row, and the others go on
            _LOG.exception("recomputation %s went wrong", recomputation_id)
            _fail(engine, recomputation_id, error, clock())
        with engine.begin() as tx:
            worked.append(get(tx, recomputation_id))
    return worked


def _claim(engine: Engine, now: datetime) -> int | None:
    wanted = {"now": now, "lease_until": now + LEASE}
    with engine.begin() as tx:
        found: int | None = tx.scalar(statement("score_recomputations.claim"), wanted)
    return found


def _ensure_months(engine: Engine, recomputation_id: int) -> None:
    """Partitions for all its snapshots, each made in a short transaction of its own."""
    with engine.begin() as tx:
        asked = get(tx, recomputation_id)
    first, last = (day.year * 12 + day.month - 1 for day in (asked.from_day, asked.to_day))
    for month in range(first, last + 1):
        with engine.begin() as tx:
            moment = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
            tx.execute(statement("scoring.ensure_month"), {"as_of": moment})


def _release(engine: Engine, recomputation_id: int, now: datetime) -> None:
    with engine.begin() as tx:
        tx.execute(statement("score_recomputations.release"), {"recomputation_id": recomputation_id, "now": now})


def _one_day(engine: Engine, recomputation_id: int, clock: Callable[[], datetime]) -> bool:
    """Do the next day in one transaction; returns whether another one follows."""
    with engine.begin() as tx:
        next_ = tx.execute(
            statement("score_recomputations.hold"), {"recomputation_id": recomputation_id}
        ).one_or_none()
        if next_ is None:
            return False
        # With `known_at` an evaluation adds snapshots only.
        result = recalculate_within(
            tx, as_of=_midnight(next_.day), source=SnapshotSource.RECOMPUTED, known_at=next_.known_at,
            rule_version=next_.rule_version,
        )  # fmt: skip
        matrix = {before or UNSCORED: dict(counts) for before, counts in result.grades.items()}
        now = clock()
        status: str = tx.scalar(
            statement("score_recomputations.keep_day"),
            {
                "recomputation_id": recomputation_id, "day": next_.day, "contacts": result.scored,
                "snapshots": result.snapshots, "grade_matrix": json.dumps(matrix), "now": now,
                "lease_until": now + LEASE,
            },
        )  # fmt: skip
    _LOG.info("recomputation %s: %s done, %s snapshots", recomputation_id, next_.day, result.snapshots)
    return status == RecomputationStatus.RUNNING


def _fail(engine: Engine, recomputation_id: int, error: Exception, now: datetime) -> None:
    # What the database says may name values; the log has it, people who may read scores need not.
    shown = f"{type(error).__name__}: {error}" if isinstance(error, MautoError) else type(error).__name__
    with engine.begin() as tx:
        tx.execute(
            statement("score_recomputations.fail"),
            {
                "recomputation_id": recomputation_id, "error": shown[:500], "most": MOST_TRIES, "now": now,
                "again_at": now + AGAIN_AFTER,
            },
        )  # fmt: skip


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _recomputation(row: Any) -> Recomputation:
    return Recomputation(
        recomputation_id=row.recomputation_id, from_day=row.from_day, to_day=row.to_day,
        rule_version=row.rule_version, known_at=row.known_at, status=RecomputationStatus(row.status),
        done_through=row.done_through, contacts=row.contact_count, snapshots=row.snapshot_count,
        grade_matrix=row.grade_matrix, error=row.error, created_at=row.created_at, finished_at=row.finished_at,
    )  # fmt: skip
