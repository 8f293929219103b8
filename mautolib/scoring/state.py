"""What is kept from night to night, so that an event is weighed once: forward decay, folded by slices of contacts.

Guards that `score_states` holds exactly the events up to `folded_until` of their slice, each once. A fold first says
in a transaction of its own how far it will go (`aim`); from then on dispatch marks the contact of each older event it
takes (`mark_late`), and the next fold weighs marked contacts anew. docs/decisions/0015 has the argument. Called by
`recalculation` (folds) and dispatch (marks). Equal to the statement `scoring.engagement`, which stays the definition.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

from sqlalchemy import BigInteger, Engine, Float, Integer, Row, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import TIMESTAMP, array, insert

from mautolib.db import tables
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.events.types import NOT_ENGAGEMENT, EventType

__all__ = ["SLICES", "Folded", "aim", "fold", "mark_late"]

#: Events that tell of scores: they may count, but counting them is no news that would be told again.
ECHOES: Final = frozenset({EventType.SCORE_CHANGED, EventType.MILESTONE_REACHED})
#: Contacts are cut by contact_id % 64, like the queue of dispatch; buckets of a run are made of whole slices.
SLICES: Final = 64
#: Different weights that `score_points` can add up; with more rules than that everything is computed directly.
MOST_WEIGHTS: Final = 32
#: Half-lives after which weights are made anew as of a later landmark: 2 to the power of 1024 overflows.
_MOST_HALF_LIVES: Final = 400
#: From so many contacts to weigh anew on, and this share of all, it is cheaper to weigh everybody anew.
_MANY, _MUCH = 20_000, 0.05
_EVER = "-infinity"


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Slices that are folded up to a moment, and what their weights are worth then.

    Args:
        factors: points times decay since the landmark, for each weight.
        points: points, for each weight; 0 for events that tell of scores, see `ECHOES`.
    """

    slices: tuple[int, ...]
    factors: tuple[float, ...]
    points: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """The active rules of a version, by what their weights depend on (`weighing`)."""

    version: int
    ids: Mapping[str, int]
    event_types: Mapping[str, str]
    speeds: Mapping[str, float]
    points: Mapping[str, float]
    activity: str

    @property
    def fastest(self) -> float:
        """The most half-lives a second."""
        return max(self.speeds.values(), default=0.0)


@dataclass(frozen=True, kw_only=True)
class _Held:
    """Slices that have the same things folded; `weighings` has None where a weight was given up."""

    slices: tuple[int, ...]
    folded_until: datetime | None
    landmark: datetime | None
    weighings: tuple[str | None, ...] = ()
    activity: str = ""


@dataclass(frozen=True, kw_only=True)
class _Span:
    """Which events to weigh, for which places of the arrays."""

    since: datetime | str
    until: datetime
    places: Mapping[int, str]
    with_activity: bool = True
    contact_ids: Sequence[int] | None = None
    is_empty: bool = field(default=False)


def aim(engine: Engine, as_of: datetime, slices: Sequence[int]) -> None:
    """Say that events up to `as_of` are about to be folded; committed before the fold begins."""
    with engine.begin() as tx:
        tx.execute(statement("scoring.aim"), {"as_of": as_of, "slices": list(slices)})


def mark_late(tx: Tx, event_ids: Sequence[int], occurred_ats: Sequence[datetime]) -> int:
    """Mark the contacts of those events that a fold may have missed; returns how many marks were left.

    Must run after the events were read from their queue and in the transaction that takes them off it.
    """
    batch = {"event_ids": list(event_ids), "occurred_ats": list(occurred_ats)}
    return tx.execute(statement("scoring.mark_late"), batch).rowcount


def fold(tx: Tx, *, as_of: datetime, version: int, slices: Sequence[int]) -> list[Folded] | None:
    """Fold the events up to `as_of` of contacts of `slices`; None if they cannot be scored that way.

    That is so where nobody said so before (`aim`), where more is folded already, and for too many rules.
    """
    rules = _rules(tx, version)
    rows = tx.execute(statement("scoring.hold_slices"), {"slices": list(slices), "as_of": as_of}).all()
    if len(rules.ids) > MOST_WEIGHTS or not all(row.is_aimed and not row.is_ahead for row in rows):
        return None
    return [_fold_alike(tx, held, rules, as_of) for held in _alike(rows)]


def _alike(rows: Iterable[Row[Any]]) -> list[_Held]:
    """Slices with the same things folded, together: nearly always all of them."""

    def what(row: Row[Any]) -> tuple[str, str, str, str]:
        return str(row.folded_until), str(row.landmark), json.dumps(row.weighings), row.activity

    return [
        _Held(
            slices=tuple(row.slice for row in group), folded_until=group[0].folded_until, landmark=group[0].landmark,
            weighings=tuple(group[0].weighings), activity=group[0].activity,
        )
        for group in (list(same) for _, same in groupby(sorted(rows, key=what), key=what))
    ]  # fmt: skip


def _fold_alike(tx: Tx, held: _Held, rules: _Rules, as_of: datetime) -> Folded:
    since, slices = held.folded_until, list(held.slices)
    late = list(tx.scalars(statement("scoring.take_late"), {"slices": slices, "until": since or as_of}))
    if late:
        tx.execute(statement("scoring.forget_gone"), {"contact_ids": late})
    known = _kept(held, rules)
    added = [weighing for weighing in rules.ids if weighing not in known.weighings]
    if since is None or _is_worn(held, rules, as_of, len(added)) or _is_much(tx, held, len(late)):
        held = _fold_anew(tx, held, rules, as_of)
    else:
        held = _extend(tx, known, rules, added)
        places = _places(held)
        _add(tx, held, rules, _Span(since=since, until=as_of, places=places))
        if late:
            tx.execute(statement("scoring.forget_states"), {"contact_ids": late})
            _add(tx, held, rules, _Span(since=_EVER, until=as_of, places=places, contact_ids=late))
    tx.execute(statement("scoring.keep_fold"), {
        "slices": slices, "folded_until": as_of, "landmark": held.landmark, "activity": rules.activity,
        "weighings": json.dumps(held.weighings),
    })  # fmt: skip
    return _worth(held, rules, as_of)


def _fold_anew(tx: Tx, held: _Held, rules: _Rules, as_of: datetime) -> _Held:
    """Everything from the first event on, with a landmark that is good for a long time."""
    anew = replace(held, folded_until=None, landmark=as_of, weighings=tuple(rules.ids), activity=rules.activity)
    tx.execute(statement("scoring.forget_slices"), {"slices": list(held.slices)})
    # Whatever the statistics of freshly loaded tables say: all events are no matter for look-ups one by one.
    tx.execute(select(func.set_config("enable_nestloop", "off", True)))
    _add(tx, anew, rules, _Span(since=_EVER, until=as_of, places=_places(anew), is_empty=True))
    tx.execute(select(func.set_config("enable_nestloop", "on", True)))
    return anew


def _extend(tx: Tx, held: _Held, rules: _Rules, added: Sequence[str]) -> _Held:
    """Catch up with a change of the rules: only what it touches is weighed again."""
    assert held.folded_until is not None
    more = replace(held, weighings=(*held.weighings, *added))
    if added:
        places = {place: weighing for place, weighing in _places(more).items() if weighing in added}
        _add(tx, more, rules, _Span(since=_EVER, until=held.folded_until, places=places, with_activity=False))
    if held.activity != rules.activity:
        tx.execute(statement("scoring.forget_activity"), {"slices": list(held.slices)})
        _add(tx, more, rules, _Span(since=_EVER, until=held.folded_until, places={}))
    return more


def _kept(held: _Held, rules: _Rules) -> _Held:
    """Without the weights no rule uses any more; their places stay empty until everything is weighed anew."""
    return replace(held, weighings=tuple(each if each in rules.ids else None for each in held.weighings))


def _is_worn(held: _Held, rules: _Rules, as_of: datetime, added: int) -> bool:
    assert held.landmark is not None
    half_lives = (as_of - held.landmark) / timedelta(seconds=1) * rules.fastest
    return half_lives > _MOST_HALF_LIVES or len(held.weighings) + added > MOST_WEIGHTS


def _is_much(tx: Tx, held: _Held, late: int) -> bool:
    if late < _MANY:
        return False
    states = tables.score_states.c.contact_id
    return late > _MUCH * (tx.scalar(select(func.count()).where((states % SLICES).in_(held.slices))) or 0)


def _places(held: _Held) -> dict[int, str]:
    return {place: weighing for place, weighing in enumerate(held.weighings, start=1) if weighing is not None}


def _worth(held: _Held, rules: _Rules, as_of: datetime) -> Folded:
    assert held.landmark is not None
    seconds = (as_of - held.landmark) / timedelta(seconds=1)
    points = [rules.points.get(weighing or "", 0.0) for weighing in held.weighings]
    decay = [0.5 ** (seconds * rules.speeds.get(weighing or "", 0.0)) for weighing in held.weighings]
    echoes = [rules.event_types.get(weighing or "") in ECHOES for weighing in held.weighings]
    return Folded(
        slices=held.slices, points=tuple(0.0 if echo else given for given, echo in zip(points, echoes, strict=True)),
        factors=tuple(given * left for given, left in zip(points, decay, strict=True)),
    )  # fmt: skip


def _rules(tx: Tx, version: int) -> _Rules:
    binds = {"rule_version": version, "not_engagement": _not_engagement()}
    rows = tx.execute(statement("scoring.weighings"), binds).all()
    points: dict[str, float] = {}
    for row in rows:
        points[row.weighing] = points.get(row.weighing, 0.0) + row.points
    return _Rules(
        version=version, points=points, ids={row.weighing: row.rule_id for row in rows},
        event_types={row.weighing: row.event_type for row in rows},
        speeds={row.weighing: row.half_lives_per_second for row in rows},
        activity=json.dumps([_not_engagement(), sorted(row.doubt for row in rows if row.doubt)]),
    )  # fmt: skip


def _not_engagement() -> list[str]:
    return sorted(str(kind) for kind in NOT_ENGAGEMENT)


def _add(tx: Tx, held: _Held, rules: _Rules, span: _Span) -> None:
    """Add the weights of a span of events to what is folded."""
    weighed = (
        statement("scoring.weighed")
        .bindparams(**_binds(held, rules, span))
        .columns(contact_id=BigInteger, place=Integer, weight=Float, active_at=TIMESTAMP(timezone=True))
        .cte("weighed")
    )
    size, contacts, states = len(held.weighings), tables.contacts, tables.score_states

    def by_place(value: Any, nothing: Any) -> array[Any]:
        sums = (
            func.coalesce(value.filter(weighed.c.place == place), nothing) if place in span.places else nothing
            for place in range(1, size + 1)
        )
        return array(list(sums), type_=nothing.type)

    brought = (
        select(weighed.c.contact_id, func.max(weighed.c.active_at).label("last_activity_at"),
               by_place(func.sum(weighed.c.weight), literal(0.0, Float)).label("weights"),
               by_place(func.count(), literal(0, Integer)).label("counts"))
        .where(or_(weighed.c.place.is_not(None), weighed.c.active_at.is_not(None)))
        .group_by(weighed.c.contact_id).cte("brought")
    )  # fmt: skip
    # In the order of the key, so that its index grows at its end.
    living = select(brought).where(exists().where(contacts.c.contact_id == brought.c.contact_id))
    adding = insert(states).from_select([column.name for column in brought.c], living.order_by(brought.c.contact_id))
    if not span.is_empty:
        adding = adding.on_conflict_do_update(index_elements=[states.c.contact_id], set_={
            "last_activity_at": func.greatest(states.c.last_activity_at, adding.excluded.last_activity_at),
            "weights": _summed(states.c.weights, adding.excluded.weights, literal(0.0, Float), size),
            "counts": _summed(states.c.counts, adding.excluded.counts, literal(0, Integer), size),
        })  # fmt: skip
    tx.execute(adding)


def _summed(stored: Any, more: Any, nothing: Any, size: int) -> array[Any]:
    return array(
        [func.coalesce(stored[place], nothing) + more[place] for place in range(1, size + 1)], type_=nothing.type
    )


def _binds(held: _Held, rules: _Rules, span: _Span) -> dict[str, Any]:
    slots = [{"place": place, "rule_id": rules.ids[weighing]} for place, weighing in span.places.items()]
    return {
        "rule_version": rules.version, "slots": json.dumps(slots), "since": span.since, "until": span.until,
        "landmark": held.landmark, "with_activity": span.with_activity, "not_engagement": _not_engagement(),
        "event_types": sorted({rules.event_types[weighing] for weighing in span.places.values()}),
        "contact_ids": span.contact_ids, "slices": None if len(held.slices) == SLICES else list(held.slices),
    }  # fmt: skip
