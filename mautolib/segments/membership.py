"""Who is in a segment: evaluated as a whole or changed by hand, always as history with an event for who comes in.

Promise: of parallel evaluations and changes of one segment one runs after the other (its row is locked), so whoever
becomes a member does so once, with one `segment_entered`. Open rows of `segment_memberships` are the members; closed
ones say who was in when, and rows of one contact never overlap. Called by `store`, the API and workflow_advance.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import CTE, Connection, Engine, Row, Select, exists, func, insert, literal, select, text, update
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError

from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.types import SERVICE, EventType
from mautolib.segments import compile as compiling
from mautolib.segments import setting as settings_of
from mautolib.segments.model import EvaluationStatus, changes_by_itself, definition_of
from mautolib.segments.rules import Definition
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_SEGMENTS, _MEMBERS, _BY_HAND = tables.segments, tables.segment_memberships, tables.segment_static_members
_OPEN: Final = _MEMBERS.c.valid_to == text("'infinity'")
#: A change of a segment is evaluated with it when that takes no longer; else workflow_advance does it.
AT_ONCE: Final = timedelta(seconds=2)
#: Segments with rules or exclusions are evaluated again this long after the last time.
EVALUATE_EVERY: Final = timedelta(minutes=15)
#: Who starts evaluating takes those along that would be due this soon, so that few runs do it all.
EARLY: Final = timedelta(minutes=5)
#: The longest one evaluation may take; then it is given up and tried again with the next round.
LONGEST: Final = timedelta(minutes=5)
_TIMED_OUT: Final = "57014"
#: Classes of errors (a value that does not fit, a statement too complex) that would come again and hold up all others.
_ITS_OWN_FAULT: Final = ("22", "54")


@dataclass(frozen=True, kw_only=True)
class Change:
    """How many contacts an evaluation let in and out."""

    joined: int = 0
    left: int = 0


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """What evaluating all that was due did; `failed` ones stay as they were and are tried again later."""

    evaluated: int = 0
    joined: int = 0
    left: int = 0
    failed: int = 0


def evaluate(tx: Connection, settings: Settings, segment_id: int, *, now: datetime) -> Change:
    """Bring the members of a segment up to date.

    Raises:
        NotFound: no such segment.
    """
    row = hold(tx, segment_id)
    definition = definition_of(row)
    setting = settings_of.load(tx, settings, now=now)
    wanted = compiling.members(definition, setting, segment_id=segment_id)
    change = _apply(tx, row, wanted, now=now)
    due = now + EVALUATE_EVERY if changes_by_itself(definition) else None
    _set(tx, segment_id, evaluation_status=EvaluationStatus.READY, evaluated_at=now, evaluation_due_at=due)
    _LOG.info("segment %s evaluated: %s joined, %s left", segment_id, change.joined, change.left)
    return change


def evaluate_at_once(
    tx: Connection, settings: Settings, segment_id: int, *, now: datetime, within: timedelta = AT_ONCE
) -> bool:
    """Evaluate a segment now if a statement of it takes no longer than `within`; else leave it to workflow_advance.

    Returns: whether it was evaluated; if not, it is pending.
    """
    try:
        with _patience(tx, within):
            evaluate(tx, settings, segment_id, now=now)
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != _TIMED_OUT:
            raise
        request(tx, segment_id, now=now)
        return False
    return True


def request(tx: Connection, segment_id: int, *, now: datetime) -> None:
    """Ask workflow_advance to evaluate a segment; committing wakes it.

    Raises:
        NotFound: no such segment.
    """
    hold(tx, segment_id)
    _set(tx, segment_id, evaluation_status=EvaluationStatus.PENDING, evaluation_due_at=now)


def count_due(engine: Engine, *, now: datetime) -> int:
    """How many segments `evaluate_due` would take."""
    with engine.begin() as tx:
        return int(tx.scalar(statement("segments.count_due"), {"due_by": now + EARLY}) or 0)


def evaluate_due(
    engine: Engine, settings: Settings, *, now: datetime, budget_seconds: float = 300, longest: timedelta = LONGEST
) -> Evaluations:
    """Evaluate the segments that were asked for and those that are due again, each in its own transaction.

    Args:
        budget_seconds: no further segment is begun after this time; those left are still due.
        longest: how long one statement of an evaluation may take.
    """
    done: list[int] = []
    result = Evaluations()
    give_up = time.monotonic() + budget_seconds
    while time.monotonic() < give_up:
        with engine.begin() as tx:
            binds = {"due_by": now + EARLY, "done": done}
            segment_id = tx.execute(statement("segments.next_due"), binds).scalar_one_or_none()
            if segment_id is None:
                break
            done.append(segment_id)
            result = _evaluate_one(tx, settings, segment_id, now, longest, result)
    return result


def _evaluate_one(
    tx: Connection, settings: Settings, segment_id: int, now: datetime, longest: timedelta, before: Evaluations
) -> Evaluations:
    try:
        with _patience(tx, longest):
            change = evaluate(tx, settings, segment_id, now=now)
    except (DBAPIError, InvalidInput) as error:
        why = _why(error, longest)
        if why is None:
            raise
        _set(tx, segment_id, evaluation_due_at=now + EVALUATE_EVERY)
        _LOG.error("segment %s could not be evaluated: %s", segment_id, why)
        return replace(before, failed=before.failed + 1)
    return replace(
        before, evaluated=before.evaluated + 1, joined=before.joined + change.joined, left=before.left + change.left
    )


def _why(error: DBAPIError | InvalidInput, longest: timedelta) -> str | None:
    """Why this segment alone cannot be evaluated; None when the reason lies elsewhere (no connection, a deadlock)."""
    if isinstance(error, InvalidInput):
        return str(error)
    state = str(getattr(error.orig, "pgcode", None) or "")
    if state == _TIMED_OUT:
        return f"it took longer than {longest.total_seconds():.0f} s"
    return f"the database refused a value ({state})" if state.startswith(_ITS_OWN_FAULT) else None


def add_contact(tx: Connection, settings: Settings, segment_id: int, contact_id: int, *, now: datetime) -> bool:
    """Add a contact by hand, at once; lifts that it was kept out. Repeating it changes nothing.

    Returns: whether the contact is a member now; an exclusion of the segment may keep it out all the same.
    Raises:
        NotFound: no such segment or contact.
    """
    return contact_id in _members(tx, segment_id, _known(add_contacts(tx, settings, segment_id, [contact_id], now=now)))


def add_contacts(
    tx: Connection, settings: Settings, segment_id: int, contact_ids: Sequence[int], *, now: datetime
) -> list[int]:
    """The same for many contacts in a few statements; returns those that exist.

    Raises:
        NotFound: no such segment.
    """
    row = hold(tx, segment_id)
    people = _hold_contacts(tx, contact_ids)
    _put(tx, segment_id, people, is_excluded=False, now=now)
    # Added by hand is in, whatever the rules say: only the exclusions are left to look at.
    _reconsider(tx, settings, row, people, replace(definition_of(row), rules=()), now=now)
    return people


def remove_contact(
    tx: Connection, settings: Settings, segment_id: int, contact_id: int, *, exclude: bool, now: datetime
) -> bool:
    """Drop that a contact was added by hand; with `exclude` also keep the rules from bringing it back.

    Returns: whether the contact is still a member.
    Raises:
        NotFound: no such segment or contact.
    """
    people = remove_contacts(tx, settings, segment_id, [contact_id], exclude=exclude, now=now)
    return contact_id in _members(tx, segment_id, _known(people))


def remove_contacts(
    tx: Connection, settings: Settings, segment_id: int, contact_ids: Sequence[int], *, exclude: bool = False,
    now: datetime,
) -> list[int]:  # fmt: skip
    """The same for many contacts in a few statements; returns those that exist.

    Raises:
        NotFound: no such segment.
    """
    row = hold(tx, segment_id)
    people = _hold_contacts(tx, contact_ids)
    definition = Definition() if exclude else definition_of(row)
    if exclude:
        _put(tx, segment_id, people, is_excluded=True, now=now)
    else:
        mine = (_BY_HAND.c.segment_id == segment_id, _BY_HAND.c.contact_id.in_(people))
        tx.execute(delete_from(_BY_HAND).where(*mine, _BY_HAND.c.is_excluded.is_(False)))
    _reconsider(tx, settings, row, people, definition, now=now)
    return people


def audience(tx: Connection, settings: Settings, segment_id: int, *, now: datetime) -> Select[Any]:
    """The query of the members as they are now: column contact_id, each once.

    Raises:
        NotFound: no such segment.
    """
    setting = settings_of.load(tx, settings, now=now)
    if segment_id not in setting.segments:
        raise NotFound("Segment not found")
    return compiling.members(setting.segments[segment_id], setting, segment_id=segment_id)


def members_at(tx: Connection, segment_id: int, at: datetime) -> list[int]:
    """The contacts that were in a segment at a moment of the past, by id; deleted contacts left no trace."""
    member = _MEMBERS.c
    query = select(member.contact_id).where(
        member.segment_id == segment_id, member.valid_from <= at, member.valid_to > at
    )
    return list(tx.scalars(query.order_by(member.contact_id)))


def close(tx: Connection, row: Row[Any], *, now: datetime) -> None:
    """End all memberships of a segment that is about to go; what was stays known."""
    open_rows = update(_MEMBERS).where(_MEMBERS.c.segment_id == row.segment_id, _OPEN)
    tx.execute(open_rows.values(valid_to=_moment(row, now)))


def hold(tx: Connection, segment_id: int) -> Row[Any]:
    """The row of a segment; nobody else changes it or its members before the transaction ends.

    Raises:
        NotFound: no such segment.
    """
    query = select(_SEGMENTS).where(_SEGMENTS.c.segment_id == segment_id).with_for_update(key_share=True)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound("Segment not found")
    return row


def _reconsider(
    tx: Connection, settings: Settings, row: Row[Any], people: Sequence[int], definition: Definition, *, now: datetime
) -> None:
    """Let some contacts in or out, whatever the others do."""
    if people:
        setting = settings_of.load(tx, settings, now=now)
        found = compiling.members(definition, setting, segment_id=row.segment_id).subquery("everybody")
        _apply(tx, row, select(found.c.contact_id).where(found.c.contact_id.in_(people)), now=now, only=people)


def _members(tx: Connection, segment_id: int, people: Sequence[int]) -> set[int]:
    member = _MEMBERS.c
    query = select(member.contact_id).where(member.segment_id == segment_id, member.contact_id.in_(people), _OPEN)
    return set(tx.scalars(query))


def _known(people: Sequence[int]) -> Sequence[int]:
    if not people:
        raise NotFound("Contact not found")
    return people


def _apply(
    tx: Connection, row: Row[Any], wanted: Select[Any], *, now: datetime, only: Sequence[int] | None = None
) -> Change:
    """Make the members those of `wanted` (among `only` some contacts): open and close rows, tell who came in.

    One statement whatever the number. The events need no key of their own: they are written with the row that lets
    the contact in, or neither is.
    """
    moment = _moment(row, now)
    people = wanted.cte("wanted").prefix_with("materialized")
    member = _MEMBERS.c
    is_open = [member.segment_id == row.segment_id, _OPEN]
    joining = select(
        literal(row.segment_id, member.segment_id.type), people.c.contact_id, literal(moment, member.valid_from.type)
    ).where(~exists().where(*is_open, member.contact_id == people.c.contact_id))
    joined = (
        insert(_MEMBERS).from_select(["segment_id", "contact_id", "valid_from"], joining)
        .returning(member.contact_id).cte("joined")
    )  # fmt: skip
    if only is not None:
        is_open.append(member.contact_id.in_(only))
    left = (
        update(_MEMBERS).where(*is_open, ~exists().where(people.c.contact_id == member.contact_id))
        .values(valid_to=moment).returning(member.contact_id).cte("left_it")
    )  # fmt: skip
    numbers = select(
        select(func.count()).select_from(joined).scalar_subquery().label("joined"),
        select(func.count()).select_from(left).scalar_subquery().label("left_it"),
    )
    found = tx.execute(numbers.add_cte(_telling(row, joined, moment))).one()
    if found.joined or found.left_it:
        _set(tx, row.segment_id, members_changed_at=moment)
    return Change(joined=found.joined, left=found.left_it)


def _telling(row: Row[Any], joined: CTE, moment: datetime) -> CTE:
    """The part of a statement that writes an event for each contact in `joined` and queues it for dispatch."""
    event = tables.events.c
    facts: dict[str, Any] = {
        "contact_id": joined.c.contact_id, "occurred_at": literal(moment, event.occurred_at.type),
        "received_at": literal(moment, event.received_at.type),
        "event_type": literal(EventType.SEGMENT_ENTERED.value), "source": literal(SERVICE),
        "properties": literal(
            {"segment_id": str(row.segment_id), "segment_name": row.name}, event.properties.type
        ),
    }  # fmt: skip
    told = (
        insert(tables.events).from_select(list(facts), select(*facts.values()))
        .returning(event.event_id, event.contact_id, event.occurred_at).cte("told")
    )  # fmt: skip
    place = (told.c.contact_id % 64, told.c.occurred_at)
    effects = select(
        *place, func.min(told.c.event_id), func.array_agg(told.c.event_id), func.count()
    ).group_by(*place, told.c.event_id.op("/")(8192))  # fmt: skip
    columns = ["bucket", "occurred_at", "first_event_id", "event_ids", "event_count"]
    return insert(tables.event_pending).from_select(columns, effects).cte("waiting")


def _moment(row: Row[Any], now: datetime) -> datetime:
    """When a change of the members counts from: now, but after the last one, whatever two clocks say."""
    before: datetime | None = row.members_changed_at
    return now if before is None else max(now, before + timedelta(microseconds=1))


def _put(
    tx: Connection, segment_id: int, people: Sequence[int], *, is_excluded: bool, now: datetime
) -> None:
    if not people:
        return
    rows = [
        {"segment_id": segment_id, "contact_id": person, "is_excluded": is_excluded, "added_at": now}
        for person in people
    ]
    query = upsert(_BY_HAND)
    changed = {"is_excluded": query.excluded.is_excluded, "added_at": query.excluded.added_at}
    tx.execute(
        query.on_conflict_do_update(
            index_elements=[_BY_HAND.c.segment_id, _BY_HAND.c.contact_id], set_=changed,
            where=_BY_HAND.c.is_excluded != query.excluded.is_excluded,
        ), rows,
    )  # fmt: skip


def _hold_contacts(tx: Connection, contact_ids: Sequence[int]) -> list[int]:
    people = tables.contacts.c
    query = select(people.contact_id).where(people.contact_id.in_(contact_ids)).order_by(people.contact_id)
    return list(tx.scalars(query.with_for_update(read=True, key_share=True)))


def _set(tx: Connection, segment_id: int, **values: object) -> None:
    tx.execute(update(_SEGMENTS).where(_SEGMENTS.c.segment_id == segment_id).values(**values))


@contextmanager
def _patience(tx: Connection, longest: timedelta) -> Iterator[None]:
    """Let no statement inside take longer; one that does undoes what was done inside, and no more."""
    before = tx.scalar(select(func.current_setting("statement_timeout")))
    with tx.begin_nested():
        milliseconds = str(max(1, round(longest.total_seconds() * 1000)))
        tx.execute(select(func.set_config("statement_timeout", milliseconds, True)))
        yield
        tx.execute(select(func.set_config("statement_timeout", before, True)))
