"""The rule language of segments: what a list of rules may say.

Promise: whatever `check` accepts can be compiled and run; everything else is refused with the path of the node and
key, e.g. `("body", "rules", 0, "any", 1, "value")`. Called when a segment is saved, previewed or compiled.
It neither reads the database nor knows SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class MatchType(StrEnum):
    """How the nodes of one list are joined."""

    ALL = "all"
    ANY = "any"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Who is in a segment, apart from those added or kept out by hand.

    Args:
        rules: nodes as they were given, checked and ready for JSON; none of them match nobody.
        match_type: how the nodes are joined.
        exclude_campaign_ids: contacts who have a handed-over message of these campaigns stay out.
    """

    rules: tuple[Any, ...] = ()
    match_type: MatchType = MatchType.ALL
    exclude_unsubscribed: bool = False
    exclude_suppressed: bool = False
    exclude_bounced: bool = False
    exclude_campaign_ids: tuple[int, ...] = ()


def check(rules: object, match_type: str = MatchType.ALL, *, path: tuple[str | int, ...] = ("body", "rules")) -> None:
    """See that rules can be compiled.

    Raises:
        InvalidInput: with the path of what cannot be accepted; further ones in `problems`.
    """


def references(rules: object) -> frozenset[int]:
    """The ids of the segments that checked rules name (`segments` with `in` or `not_in`)."""
    return frozenset()


def names(rules: object) -> frozenset[str]:
    """The names, folded like `segment_ids_by_name`, of the segments that checked rules name (`has` and the like)."""
    return frozenset()
