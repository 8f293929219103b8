"""The operators of segment rules: which kind of value takes which, what value each wants, and which are complements.

A negative operator holds exactly where its positive one does not, missing values included. Nothing here knows fields
or SQL; `rules` checks with it, `compile` gives the positive operators their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from mautolib.errors import InvalidInput

__all__ = ["COMPLEMENT", "OPERATORS", "Kind", "Operator", "Shape", "operator_of", "shape_of"]


class Kind(StrEnum):
    """What a field holds."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"
    BOOL = "bool"
    CHOICE = "choice"
    TAGS = "tags"
    SEGMENTS = "segments"


class Operator(StrEnum):
    """Every operator of the language."""

    EQ = "eq"
    NEQ = "neq"
    CONTAINS = "contains"
    NOT_CONTAINS = "not_contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    IN = "in"
    NOT_IN = "not_in"
    IS_SET = "is_set"
    NOT_SET = "not_set"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    BETWEEN = "between"
    BEFORE = "before"
    AFTER = "after"
    WITHIN_LAST_DAYS = "within_last_days"
    NOT_WITHIN_LAST_DAYS = "not_within_last_days"
    HAS = "has"
    HAS_ANY = "has_any"
    HAS_ALL = "has_all"
    HAS_NONE = "has_none"


class Shape(StrEnum):
    """What an operator wants as its value."""

    NOTHING = "nothing"
    ONE = "one"
    PAIR = "pair"
    LIST = "list"
    DAYS = "days"


_O = Operator
_SET: Final = (_O.IS_SET, _O.NOT_SET)
_LISTS: Final = (_O.IN, _O.NOT_IN)
_BOUNDS: Final = (_O.GT, _O.GTE, _O.LT, _O.LTE, _O.BETWEEN)
_MEMBERSHIP: Final = (_O.HAS, _O.HAS_ANY, _O.HAS_ALL, _O.HAS_NONE, *_SET, *_LISTS)

#: Which operators a kind takes, in the order they are listed to people.
OPERATORS: Final[Mapping[Kind, tuple[Operator, ...]]] = {
    Kind.TEXT: (_O.EQ, _O.NEQ, _O.CONTAINS, _O.NOT_CONTAINS, _O.STARTS_WITH, _O.ENDS_WITH, *_LISTS, *_SET),
    Kind.NUMBER: (_O.EQ, _O.NEQ, *_BOUNDS, *_LISTS, *_SET),
    Kind.TIME: (_O.BEFORE, _O.AFTER, *_BOUNDS, *_SET, _O.WITHIN_LAST_DAYS, _O.NOT_WITHIN_LAST_DAYS),
    Kind.BOOL: (_O.EQ, _O.NEQ),
    Kind.CHOICE: (_O.EQ, _O.NEQ, *_LISTS, *_SET),
    Kind.TAGS: _MEMBERSHIP,
    Kind.SEGMENTS: _MEMBERSHIP,
}

#: Negative operators and what each is the exact complement of.
COMPLEMENT: Final[Mapping[Operator, Operator]] = {
    _O.NEQ: _O.EQ, _O.NOT_CONTAINS: _O.CONTAINS, _O.NOT_IN: _O.IN, _O.NOT_SET: _O.IS_SET,
    _O.NOT_WITHIN_LAST_DAYS: _O.WITHIN_LAST_DAYS, _O.HAS_NONE: _O.HAS_ANY,
}  # fmt: skip

_SHAPES: Final[Mapping[Operator, Shape]] = {
    **dict.fromkeys(_SET, Shape.NOTHING),
    **dict.fromkeys((*_LISTS, _O.HAS_ANY, _O.HAS_ALL, _O.HAS_NONE), Shape.LIST),
    **dict.fromkeys((_O.WITHIN_LAST_DAYS, _O.NOT_WITHIN_LAST_DAYS), Shape.DAYS),
    _O.BETWEEN: Shape.PAIR,
}


def shape_of(operator: Operator) -> Shape:
    """What `operator` wants as its value."""
    return _SHAPES.get(operator, Shape.ONE)


def operator_of(given: object, kind: Kind, field: str) -> Operator:
    """The operator called `given`, if fields of `kind` take it.

    Raises:
        InvalidInput: they do not; names those they take. The caller adds the path.
    """
    allowed = OPERATORS[kind]
    if not isinstance(given, str) or given not in allowed:
        shown = repr(given[:50]) if isinstance(given, str) else "This"
        raise InvalidInput(f"{shown} is no operator for {field}; use {', '.join(allowed)}")
    return Operator(given)
