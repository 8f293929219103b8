"""Which segments name which others: what they name exists, and they do not go in a circle.

Promise: two writers cannot close a circle between them, and a segment is not deleted while a rule names it. Rules name
segments by id (`in`, `not_in`) or by name (`has` and the like; a name nobody has is allowed). Called by `store`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Connection, Row, func, select

from mautolib.db import tables
from mautolib.errors import InvalidInput
from mautolib.segments.operators import Kind, Operator
from mautolib.segments.rules import fold, leaves, names, read, references

_TABLE = tables.segments
_C = tables.segments.c
_CAMPAIGN: Final = tables.campaigns.c.campaign_id
_RULES: Final = ("body", "rules")
_GROUPS: Final = ("all", "any", "none")
#: Number of the lock that writers of references take; only one of them at a time.
_LOCK: Final = 7_009_001


def check_segments(tx: Connection, rules: Sequence[Any]) -> None:
    """See that the segments named by id exist, and keep them from being deleted until the transaction ends.

    Raises:
        InvalidInput: with the place of each that does not.
    """
    wanted = references(rules)
    if not wanted:
        return
    query = select(_C.segment_id).where(_C.segment_id.in_(wanted)).order_by(_C.segment_id)
    missing = wanted - set(tx.scalars(query.with_for_update(read=True, key_share=True)))
    if missing:
        unknown = {str(one) for one in missing}
        paths = [path for path, given in _places(rules, _RULES) if given in unknown] or [_RULES]
        problems = tuple((path, "Segment not found") for path in paths[1:])
        raise InvalidInput("Segment not found", path=paths[0], problems=problems)


def check_others(tx: Connection, rules: Sequence[Any], before: Sequence[Any] = ()) -> None:
    """See that tags and campaigns that checked rules name by id exist.

    Args:
        before: the rules that are replaced; what they name may be gone since.

    Raises:
        InvalidInput: with the place of each that does not exist.
    """
    stored = {(column, one) for column, one, _ in _others(before)}
    named = [(column, one, path) for column, one, path in _others(rules) if (column, one) not in stored]
    problems = []
    for column, message in ((tables.tags.c.tag_id, "Tag not found"), (_CAMPAIGN, "Campaign not found")):
        wanted = {one for column_of, one, _ in named if column_of is column}
        known = set(tx.scalars(select(column).where(column.in_(wanted)))) if wanted else set()
        problems += [(path, message) for column_of, one, path in named if column_of is column and one not in known]
    if problems:
        raise InvalidInput(problems[0][1], path=problems[0][0], problems=tuple(problems[1:]))


def check_circle(tx: Connection, segment_id: int) -> None:
    """See that a segment just written does not lead back to itself.

    Raises:
        InvalidInput: it does.
    """
    rules = tx.scalar(select(_C.rules).where(_C.segment_id == segment_id))
    if not references(rules) and not names(rules):
        return
    tx.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    arrows = _arrows(tx)
    seen: set[int] = set()
    ahead = [segment_id]
    while ahead:
        for target in arrows.get(ahead.pop(), ()):
            if target == segment_id:
                raise InvalidInput("Segments refer to each other in a circle", path=_RULES)
            if target not in seen:
                seen.add(target)
                ahead.append(target)


def find_user(tx: Connection, row: Row[Any]) -> str | None:
    """Another segment that names this one, for people to read; None when there is none."""
    for segment_id, targets in _arrows(tx).items():
        if segment_id != row.segment_id and row.segment_id in targets:
            return f"segment {segment_id}"
    return None


def _arrows(tx: Connection) -> Mapping[int, frozenset[int]]:
    """By segment the ids of those it names."""
    rows = tx.execute(select(_C.segment_id, _C.name, _C.rules)).all()
    by_name: dict[str, set[int]] = {}
    for row in rows:
        by_name.setdefault(fold(row.name), set()).add(row.segment_id)
    return {row.segment_id: _targets(row.rules, by_name) for row in rows if row.rules}


def _targets(rules: Sequence[Any], by_name: Mapping[str, set[int]]) -> frozenset[int]:
    try:
        return references(rules).union(*(by_name.get(name, set()) for name in names(rules)))
    except InvalidInput:
        # Stored by a version that allowed more; it cannot be evaluated, so it leads nowhere.
        return frozenset()


def _others(rules: Sequence[Any]) -> Iterator[tuple[Column[int], int, tuple[str | int, ...]]]:
    """Where rules name a tag or campaign by id: which of them, the id and the path; none in rules of another time."""
    try:
        tree = read(rules)
    except InvalidInput:
        return
    for leaf in leaves(tree):
        place = (*_RULES, *(int(part) if part.isdigit() else part for part in leaf.path.split(".")))
        if leaf.field.kind == Kind.TAGS and leaf.operator in (Operator.IN, Operator.NOT_IN):
            yield from ((tables.tags.c.tag_id, one, (*place, "value", number)) for number, one in enumerate(leaf.value))
        if leaf.qualifiers.campaign_id is not None:
            yield _CAMPAIGN, leaf.qualifiers.campaign_id, (*place, "campaign_id")


def _places(rules: Sequence[Any], path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where checked rules name segments by id: the path, and the id as text."""
    for position, node in enumerate(rules):
        here = (*path, position)
        for group in _GROUPS:
            if group in node:
                yield from _places(node[group], (*here, group))
        if node.get("field") == "segments" and node.get("operator") in ("in", "not_in"):
            value = node.get("value")
            if isinstance(value, list):
                yield from (((*here, "value", number), str(one)) for number, one in enumerate(value))
            else:
                yield (*here, "value"), str(value)
