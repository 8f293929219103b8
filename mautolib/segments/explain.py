"""Why one contact is, or is not, in a segment: each node with its result and the value that was seen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mautolib.db.engine import Tx
from mautolib.segments.compile import Setting
from mautolib.segments.rules import Definition


class Source(StrEnum):
    """What brings a contact into a segment."""

    RULES = "rules"
    STATIC = "static"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class ExplainedNode:
    """One node: its path (`0.any.1`), whether it holds, and the value seen (null for a group)."""

    path: str
    matched: bool
    actual: Any


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One contact in one segment. `static`: `included`, `excluded` or None."""

    contact_id: int
    member: bool
    source: Source
    static: str | None
    excluded_by: tuple[str, ...]
    nodes: tuple[ExplainedNode, ...]


def explain(
    tx: Tx, definition: Definition, setting: Setting, *, contact_id: int, segment_id: int | None
) -> Explanation:
    """Evaluate every node for one contact, with the conditions `members` uses.

    Raises:
        NotFound: no such contact.
    """
    raise NotImplementedError
