"""Why one contact is, or is not, in a segment: each node with its result and the value that was seen.

Promise: nodes and membership come from the same compiled conditions as everything else, looked at for one contact.
Called by the API; it saves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Text, case, cast, false, func, literal, null, select, text
from sqlalchemy.dialects.postgresql import array

from mautolib.db import tables
from mautolib.db.engine import Tx
from mautolib.errors import NotFound
from mautolib.segments.compile import Build, Setting, breakdown
from mautolib.segments.operators import Kind, Operator
from mautolib.segments.rules import Definition, Group, Leaf, MatchType, Node, leaves, read

__all__ = ["ExplainedNode", "Explanation", "Source", "explain"]

#: Column of `breakdown` -> reason as shown.
_REASONS: Final = {"is_unsubscribed": "unsubscribed", "is_suppressed": "suppressed", "is_bounced": "bounced",
                   "is_in_campaign": "campaign"}  # fmt: skip


class Source(StrEnum):
    """What brings a contact into a segment."""

    RULES = "rules"
    STATIC = "static"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class ExplainedNode:
    """One node: its path (`0.any.1`), whether it holds, and the value seen.

    `actual` is None for a group and for a missing value. For tags it is the names the contact has, for segments the
    ids of those of the rule that the contact is in; moments are text in UTC.
    """

    path: str
    matched: bool
    actual: Any


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One contact in one segment.

    Args:
        source: `rules` also where the contact was added by hand as well.
        static: `included`, `excluded` or None.
        excluded_by: `unsubscribed`, `suppressed`, `bounced`, `campaign`, as far as the definition asks for them.
    """

    contact_id: int
    member: bool
    source: Source
    static: str | None
    excluded_by: tuple[str, ...]
    nodes: tuple[ExplainedNode, ...]


def explain(
    tx: Tx, definition: Definition, setting: Setting, *, contact_id: int, segment_id: int | None = None
) -> Explanation:
    """Evaluate every node for one contact, with the conditions `members` uses.

    Raises:
        NotFound: no such contact.
        InvalidInput: a referenced segment is unknown, or segments refer to each other in a circle.
    """
    row = tx.execute(breakdown(definition, setting, segment_id=segment_id, contact_id=contact_id)).one_or_none()
    if row is None:
        raise NotFound("Contact not found")
    source = Source.RULES if row.by_rules else Source.STATIC if row.is_added else Source.NONE
    return Explanation(
        contact_id=contact_id,
        member=row.is_member,
        source=source,
        static="included" if row.is_added else "excluded" if row.is_kept_out else None,
        excluded_by=tuple(reason for name, reason in _REASONS.items() if getattr(row, name)),
        nodes=tuple(_nodes(tx, definition, setting, contact_id, segment_id)),
    )


def _nodes(
    tx: Tx, definition: Definition, setting: Setting, contact_id: int, segment_id: int | None
) -> Iterator[ExplainedNode]:
    if not definition.rules:
        return
    tree = read(definition.rules, definition.match_type)
    build = Build(setting, segment_id=segment_id, only=contact_id)
    columns: list[ColumnElement[Any]] = []
    for number, leaf in enumerate(leaves(tree)):
        columns.append(func.coalesce(build.truth(leaf).holds, false()).label(f"matched_{number}"))
        columns.append(_actual(build, leaf, contact_id, segment_id).label(f"actual_{number}"))
    people = build.sources.people
    query = select(*columns).select_from(build.sources.joined()).where(people.c.contact_id == contact_id)
    row = tx.execute(query).one()._mapping
    seen = {leaf.path: (row[f"matched_{number}"], row[f"actual_{number}"])
            for number, leaf in enumerate(leaves(tree))}  # fmt: skip
    for node in tree.nodes:
        yield from _explained(node, seen)


def _explained(node: Node, seen: Mapping[str, tuple[bool, Any]]) -> Iterator[ExplainedNode]:
    if isinstance(node, Leaf):
        matched, actual = seen[node.path]
        if node.field.kind == Kind.TIME and isinstance(actual, str):
            actual = actual.replace("+00:00", "Z")
        yield ExplainedNode(path=node.path, matched=matched, actual=actual)
        return
    yield ExplainedNode(path=node.path, matched=_holds(node, seen), actual=None)
    for child in node.nodes:
        yield from _explained(child, seen)


def _holds(node: Node, seen: Mapping[str, tuple[bool, Any]]) -> bool:
    if isinstance(node, Leaf):
        return seen[node.path][0]
    return _joined(node, [_holds(child, seen) for child in node.nodes])


def _joined(group: Group, results: list[bool]) -> bool:
    if group.join == MatchType.ALL:
        return all(results)
    return any(results) if group.join == MatchType.ANY else not any(results)


def _actual(build: Build, leaf: Leaf, contact_id: int, segment_id: int | None) -> ColumnElement[Any]:
    """What the contact has there, as JSON."""
    if leaf.field.kind == Kind.TAGS:
        held, known = tables.contact_tags.alias(), tables.tags.alias()
        mine = select(known.c.name).join(held, held.c.tag_id == known.c.tag_id)
        return _list(mine.where(held.c.contact_id == contact_id).order_by(func.lower(known.c.name)).subquery().c.name)
    if leaf.field.kind == Kind.SEGMENTS:
        is_any = leaf.operator in (Operator.IS_SET, Operator.NOT_SET)
        return _latest_segments(contact_id, segment_id) if is_any else func.to_jsonb(_segments(build, leaf))
    value = build.sources.value(leaf.field, leaf.qualifiers)
    if leaf.field.kind == Kind.TEXT:
        value = func.nullif(value, "", type_=Text())
    return func.to_jsonb(func.coalesce(value, 0) if leaf.field.is_zero_without else value)


def _list(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(select(func.jsonb_agg(column)).scalar_subquery(), func.jsonb_build_array())


def _segments(build: Build, leaf: Leaf) -> ColumnElement[Any]:
    shown: list[ColumnElement[Any]] = [
        case((build.is_in_segments([one]), literal(str(one), Text()))) for one in build.named_segments(leaf)
    ]
    in_them: ColumnElement[Any] = array(shown, type_=Text())
    return func.array_remove(in_them, null())


def _latest_segments(contact_id: int, besides: int | None) -> ColumnElement[Any]:
    """What `is_set` looks at: the last evaluations of all other segments."""
    member = tables.segment_memberships.alias()
    mine = select(cast(member.c.segment_id, Text()).label("name")).where(
        member.c.contact_id == contact_id, member.c.valid_to == text("'infinity'")
    )
    if besides is not None:
        mine = mine.where(member.c.segment_id != besides)
    return _list(mine.order_by(member.c.segment_id).subquery().c.name)
