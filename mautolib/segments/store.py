"""Keeping segments: create, read, list, change, delete.

Promise: what is stored can be compiled - the rules are checked, what they name exists, and segments do not refer to
each other in a circle - and what something still needs is not deleted. A change is evaluated with it when that is
quick. Called by the API. Who is a member is decided in `membership`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.db.values import is_same
from mautolib.errors import Conflict, InvalidInput, NotFound
from mautolib.segments import membership, references
from mautolib.segments.model import EvaluationStatus, NewSegment, Segment, definition_of
from mautolib.segments.rules import Definition, MatchType, check
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_TABLE = tables.segments
_C = tables.segments.c
_DEFINITION: Final = tuple(item.name for item in dataclasses.fields(Definition))
_CHANGEABLE: Final = frozenset({"name", "description", *_DEFINITION})


def create(
    tx: Connection, settings: Settings, new: NewSegment, *, now: datetime, within: timedelta = membership.AT_ONCE
) -> Segment:
    """Make a segment and evaluate it, if that takes no longer than `within`; else it is pending.

    Raises:
        InvalidInput: rules that cannot be compiled, something they name does not exist, or a circle of segments.
    """
    checked(tx, new.definition)
    values = _columns(new.definition)
    row = tx.execute(
        insert(_TABLE)
        .values(**values, name=new.name, description=new.description, created_at=now, evaluation_due_at=now)
        .returning(_TABLE)
    ).one()
    references.check_circle(tx, row.segment_id)
    membership.evaluate_at_once(tx, settings, row.segment_id, now=now, within=within)
    _LOG.info("segment %s created", row.segment_id)
    return get(tx, row.segment_id)


def get(tx: Connection, segment_id: int, *, lock: bool = False) -> Segment:
    """The segment; with `lock` nobody else changes it until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    if lock:
        return _segments(tx, [membership.hold(tx, segment_id)])[0]
    row = tx.execute(select(_TABLE).where(_C.segment_id == segment_id)).one_or_none()
    if row is None:
        raise NotFound("Segment not found")
    return _segments(tx, [row])[0]


def search(tx: Connection, *, skip: int = 0, limit: int = 50, before: int | None = None) -> list[Segment]:
    """Segments, newest first; with `before` those older than that id."""
    query = select(_TABLE).order_by(_C.segment_id.desc()).offset(skip).limit(limit)
    if before is not None:
        query = query.where(_C.segment_id < before)
    return _segments(tx, tx.execute(query).all())


def count(tx: Connection) -> int:
    """How many segments there are."""
    return int(tx.scalar(select(func.count()).select_from(_TABLE)) or 0)


def change(
    tx: Connection,
    settings: Settings,
    segment_id: int,
    changes: Mapping[str, Any],
    *,
    now: datetime,
    within: timedelta = membership.AT_ONCE,
) -> Segment:
    """Change fields; another definition is evaluated at once if that takes no longer than `within`.

    Args:
        changes: name, description, fields of `Definition`.
    Raises:
        NotFound: there is none.
        InvalidInput: as for `create`.
    """
    unknown = changes.keys() - _CHANGEABLE
    if unknown:
        raise ValueError(f"not a field of a segment: {sorted(unknown)}")
    row = membership.hold(tx, segment_id)
    before = definition_of(row)
    after = dataclasses.replace(before, **{name: changes[name] for name in _DEFINITION if name in changes})
    wanted = {**_columns(after), **{name: changes[name] for name in ("name", "description") if name in changes}}
    wanted = {name: value for name, value in wanted.items() if not is_same(getattr(row, name), value)}
    is_redefined = bool(wanted.keys() - {"name", "description"})
    if is_redefined:
        checked(tx, after, before)
    if not wanted:
        return get(tx, segment_id)
    query = update(_TABLE).where(_C.segment_id == segment_id)
    tx.execute(query.values(**wanted, version=row.version + 1, updated_at=now))
    if is_redefined or "name" in wanted:
        references.check_circle(tx, segment_id)
    if is_redefined:
        membership.evaluate_at_once(tx, settings, segment_id, now=now, within=within)
    _LOG.info("segment %s changed: %s", segment_id, ", ".join(sorted(wanted)))
    return get(tx, segment_id)


def remove(tx: Connection, segment_id: int, *, now: datetime) -> None:
    """Delete a segment; who was in it when stays known.

    Raises:
        NotFound: there is none.
        Conflict: `in_use`: an unfinished campaign, an active workflow or another segment needs it.
    """
    # Whoever refers to it holds its row; from here on nobody new does.
    query = select(_TABLE).where(_C.segment_id == segment_id).with_for_update()
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound("Segment not found")
    user = tx.execute(statement("segments.find_user"), {"segment_id": segment_id}).scalar_one_or_none()
    user = user or references.find_user(tx, row)
    if user is not None:
        raise Conflict(f"This segment is used by {user}", code="in_use")
    membership.close(tx, row, now=now)
    tx.execute(delete(_TABLE).where(_C.segment_id == segment_id))
    _LOG.info("segment %s deleted", segment_id)


def checked(tx: Connection, definition: Definition, before: Definition | None = None) -> Definition:
    """A definition that can be evaluated.

    Args:
        before: the one it replaces; tags and campaigns that one names may be gone since.

    Raises:
        InvalidInput: the rules cannot be compiled, or something they name does not exist.
    """
    check(list(definition.rules), definition.match_type)
    references.check_segments(tx, definition.rules)
    references.check_others(tx, definition.rules, before.rules if before else ())
    _check_campaigns(tx, definition.exclude_campaign_ids, before.exclude_campaign_ids if before else ())
    return definition


def _check_campaigns(tx: Connection, wanted: Sequence[int], before: Sequence[int]) -> None:
    campaigns = tables.campaigns.c.campaign_id
    known = {*before, *tx.scalars(select(campaigns).where(campaigns.in_(wanted)))} if wanted else set()
    problems = tuple(
        (("body", "exclude_campaign_ids", position), "Campaign not found")
        for position, campaign_id in enumerate(wanted)
        if campaign_id not in known
    )
    if problems:
        raise InvalidInput(problems[0][1], path=problems[0][0], problems=problems[1:])


def _columns(definition: Definition) -> dict[str, Any]:
    values = {name: getattr(definition, name) for name in _DEFINITION}
    return {
        **values, "rules": list(definition.rules), "match_type": MatchType(definition.match_type).value,
        "exclude_campaign_ids": list(definition.exclude_campaign_ids),
    }  # fmt: skip


def _segments(tx: Connection, rows: Iterable[Row[Any]]) -> list[Segment]:
    rows = list(rows)
    binds = {"segment_ids": [row.segment_id for row in rows]}
    sizes = {row.segment_id: row for row in tx.execute(statement("segments.sizes"), binds)}
    return [
        Segment(
            segment_id=row.segment_id, name=row.name, description=row.description, definition=definition_of(row),
            contact_count=sizes[row.segment_id].contact_count, static_count=sizes[row.segment_id].static_count,
            evaluation_status=EvaluationStatus(row.evaluation_status), evaluated_at=row.evaluated_at,
            version=row.version, created_at=row.created_at, updated_at=row.updated_at,
        )
        for row in rows
    ]  # fmt: skip
