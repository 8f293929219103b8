"""Does the score predict? Scores of a past moment against what happened in the days after it, on one's own data.

Promises that nothing of those days goes into the scores: they are the snapshots of that moment, or computed anew out
of what was known then. It only reads. Called by `python -m mautolib.scoring.validate`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import func, select

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.events.types import NOT_ENGAGEMENT, EventType, canonical
from mautolib.scoring import rules
from mautolib.scoring.model import Grade
from mautolib.statistics import Area, Interval, area_under_curve, wilson

__all__ = ["BASES", "CLEAR", "ENOUGH", "Band", "Basis", "Prediction", "predict"]

_LOG = logging.getLogger(__name__)
#: So many contacts with and without the outcome are needed; with fewer the interval of the area is too short.
ENOUGH: Final = 30
#: From this area on a score is worth acting upon; 0.5 says nothing.
CLEAR: Final = 0.6
_MOST_DAYS: Final = 366
_BANDS: Final = 10


class Basis(StrEnum):
    """Where the scores come from."""

    #: Snapshots where everybody was scored as of the moment, else computed out of what was known then.
    AUTO = "auto"
    SNAPSHOTS = "snapshots"
    RECOMPUTED = "recomputed"
    #: Computed out of all that happened by then, whenever it was received: for imported history.
    HISTORY = "history"


BASES: Final = tuple(str(basis) for basis in Basis)


@dataclass(frozen=True, kw_only=True)
class Band:
    """Contacts with scores next to each other, or with one grade.

    Args:
        low: least score among them; `high` the most.
        rate: share to whom it happened, with its Wilson interval.
        lift: rate / rate of everybody; None if it happened to nobody.
    """

    name: str
    low: float
    high: float
    contacts: int
    outcomes: int
    rate: float
    interval: Interval
    lift: float | None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the scores of a moment said about the days after it.

    Args:
        outcome: `order`, or an event type.
        bands: tenths of the contacts, the highest scores first; equal scores stay together, so they differ in size.
        grades: the same by grade, the best first.
        area: None where there is not enough to say.
    """

    as_of: datetime
    days: int
    outcome: str
    basis: Basis
    rule_version: int | None
    contacts: int
    outcomes: int
    bands: tuple[Band, ...]
    grades: tuple[Band, ...]
    area: Area | None

    @property
    def verdict(self) -> str:
        """The answer in plain words."""
        what = "ordered" if self.outcome == "order" else f"had {self.outcome}"
        if self.area is None:
            return (
                f"Not enough data: {self.outcomes} of {self.contacts} contacts {what} within {self.days} days; at "
                f"least {ENOUGH} who did and {ENOUGH} who did not are needed."
            )
        low, high = self.area.interval.low, self.area.interval.high
        pairs = (
            f"Of two contacts, one who {what} within {self.days} days and one who did not, the first one had the "
            f"higher score in {self.area.area:.1%} of cases (95 % interval {low:.1%} to {high:.1%}; a coin gives 50 %)."
        )
        if high < 0.5:
            return f"No, on the contrary. {pairs} Look at the rules: something they reward goes with fewer outcomes."
        if low <= 0.5:
            return f"Cannot be told from chance. {pairs}"
        top = self.bands[0]
        answer = "Yes, a higher score means more." if self.area.area >= CLEAR else "Yes, but only a little more."
        return (
            f"{answer} {pairs} The {top.contacts} contacts with the highest scores did "
            f"{top.lift:.1f} times as often as everybody."
        )


def predict(
    tx: Tx, *, as_of: datetime, days: int, now: datetime, outcome: str = "order", basis: str = Basis.AUTO,
    rule_version: int | None = None,
) -> Prediction:
    """Compare the scores of `as_of` with what happened within `days` after it.

    Args:
        outcome: `order`, or the type of an event.
        basis: a `Basis`.
        rule_version: of scores that are computed; None takes the newest.
    Raises:
        InvalidInput: the days are not over at `now`, not 1 to 366, or the basis or version is unknown; an outcome that
            only the service writes about scores.
    """  # fmt: skip
    if not 1 <= days <= _MOST_DAYS:
        raise InvalidInput(f"days is {days}; it takes 1 to {_MOST_DAYS}", path=("days",))
    until = as_of + timedelta(days=days)
    if until > now:
        raise InvalidInput(f"the {days} days after {as_of.isoformat()} are not over", path=("as_of",))
    if basis not in BASES:
        raise InvalidInput(f"{basis!r} is none of {', '.join(BASES)}", path=("basis",))
    if outcome in (EventType.SCORE_CHANGED, EventType.MILESTONE_REACHED):
        raise InvalidInput("what follows from a score cannot prove it", path=("outcome",))
    if basis == Basis.AUTO:
        scored = tx.scalar(statement("score_prediction.has_snapshots"), {"as_of": as_of})
        basis = Basis.SNAPSHOTS if scored and rule_version is None else Basis.RECOMPUTED
    rows = _tally(tx, Basis(basis), as_of, until, None if outcome == "order" else canonical(outcome), rule_version)
    contacts, outcomes = sum(row.contact_count for row in rows), sum(row.outcome_count for row in rows)
    _LOG.info("scores as of %s against %s days: %s contacts, %s outcomes", as_of.isoformat(), days, contacts, outcomes)
    return Prediction(
        as_of=as_of, days=days, outcome=outcome, basis=Basis(basis), contacts=contacts, outcomes=outcomes,
        rule_version=max((row.rule_version for row in rows), default=None), bands=_bands(rows), grades=_grades(rows),
        area=_area(rows) if min(outcomes, contacts - outcomes) >= ENOUGH else None,
    )  # fmt: skip


def _tally(
    tx: Tx, basis: Basis, as_of: datetime, until: datetime, event_type: str | None, rule_version: int | None
) -> Sequence[Any]:
    binds: dict[str, Any] = {"as_of": as_of, "until": until, "event_type": event_type}
    if basis is Basis.SNAPSHOTS:
        return tx.execute(statement("score_prediction.tally_snapshots"), binds).all()
    for name, value in (("enable_nestloop", "off"), ("work_mem", "128MB"), ("jit", "off")):
        tx.execute(select(func.set_config(name, value, True)))
    binds |= {
        "known_at": None if basis is Basis.HISTORY else as_of, "contact_ids": None, "slices": None,
        "rule_version": rules.check_version(tx, rule_version),
        "not_engagement": sorted(str(kind) for kind in NOT_ENGAGEMENT),
    }  # fmt: skip
    return tx.execute(statement("score_prediction.tally_recomputed"), binds).all()


def _area(rows: Iterable[Any]) -> Area:
    return area_under_curve(
        (row.total_score, row.outcome_count, row.contact_count - row.outcome_count) for row in rows
    )


def _bands(rows: Sequence[Any]) -> tuple[Band, ...]:
    """Tenths by rank from the highest score on; a score belongs where the middle of its contacts lies."""
    whole = sum(row.contact_count for row in rows)
    tenths: dict[int, list[Any]] = {}
    above = 0
    for row in sorted(rows, key=lambda row: -row.total_score):
        tenth = int(_BANDS * (above + row.contact_count / 2) / whole)
        tenths.setdefault(tenth, []).append(row)
        above += row.contact_count
    return tuple(_band(str(tenth + 1), group, rows) for tenth, group in sorted(tenths.items()))


def _grades(rows: Sequence[Any]) -> tuple[Band, ...]:
    by_grade = [(grade, [row for row in rows if row.grade == grade]) for grade in Grade]
    return tuple(_band(str(grade), group, rows) for grade, group in by_grade if group)


def _band(name: str, group: Sequence[Any], everybody: Sequence[Any]) -> Band:
    contacts, outcomes = sum(row.contact_count for row in group), sum(row.outcome_count for row in group)
    whole, happened = sum(row.contact_count for row in everybody), sum(row.outcome_count for row in everybody)
    return Band(
        name=name, low=min(row.total_score for row in group), high=max(row.total_score for row in group),
        contacts=contacts, outcomes=outcomes, rate=outcomes / contacts, interval=wilson(outcomes, contacts),
        lift=outcomes / contacts / (happened / whole) if happened else None,
    )  # fmt: skip
