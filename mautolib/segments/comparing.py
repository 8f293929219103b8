"""What operators mean: a value and what a rule says about it become a condition and its exact complement.

Promise: a missing value satisfies only `not_set` and the negative operators. Texts are compared without their case and
never as patterns, so `%`, `_` and `\\` are characters like others. Called by `compile` with positive operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Numeric, Text, and_, cast, false, func, literal, not_, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB

from mautolib.segments.operators import Kind, Operator
from mautolib.segments.rules import Leaf
from mautolib.segments.sources import fold, moment

__all__ = ["Truth", "certain", "compare"]

_Element = ColumnElement[Any]
#: Lists up to this length are written out: the planner knows how many contacts each of these values has.
_FEW: Final = 10


class Truth(NamedTuple):
    """A condition and its complement. Where one is false or null, the other is true."""

    holds: ColumnElement[bool]
    fails: ColumnElement[bool]


def certain(condition: ColumnElement[bool]) -> Truth:
    """The truth of a condition that is never null."""
    return Truth(condition, not_(condition))


def compare(value: _Element, leaf: Leaf, operator: Operator, now: datetime) -> Truth:
    """Whether `value` is as a leaf with the positive `operator` wants it."""
    if leaf.field.is_zero_without:
        return _against_zero(value, leaf, operator)
    if leaf.field.kind == Kind.BOOL:
        # Not NOT: what is missing is neither true nor false.
        wanted = true() if leaf.value else false()
        return Truth(value.is_(wanted), value.is_not(wanted))
    condition = _condition(value, leaf, operator, now)
    return Truth(condition, condition.is_not(true()))


def _against_zero(value: _Element, leaf: Leaf, operator: Operator) -> Truth:
    """A total that is 0 where nothing was recorded; written so that a join need not keep everybody for it."""
    if operator == Operator.IS_SET:
        return Truth(true(), false())
    if leaf.field.name.endswith(".count") and (operator in _BORDERS or (operator, leaf.value) == (Operator.EQ, 0)):
        # Whoever has a row has one or more: to tell none from any, nothing needs counting.
        at_zero, at_one = (_COMPARISONS[operator](number, leaf.value) for number in (0, 1))
        if at_zero != at_one:
            return certain(value.is_(None) if at_zero else value.is_not(None))
    condition = _number(value, operator, leaf.value)
    if _holds_for_zero(operator, leaf.value):
        return Truth(or_(value.is_(None), condition), not_(condition))
    return Truth(condition, condition.is_not(true()))


def _holds_for_zero(operator: Operator, wanted: Any) -> bool:
    if operator == Operator.BETWEEN:
        return bool(wanted[0] <= 0 <= wanted[1])
    if operator == Operator.IN:
        return 0 in wanted
    return bool(_COMPARISONS[operator](0, wanted))


def _condition(value: _Element, leaf: Leaf, operator: Operator, now: datetime) -> ColumnElement[bool]:
    wanted = leaf.value
    if leaf.field.kind == Kind.TEXT:
        return _text(value, operator, wanted)
    if operator == Operator.IS_SET:
        return value.is_not(None)
    if leaf.field.kind == Kind.NUMBER:
        return _number(value, operator, wanted)
    if leaf.field.kind == Kind.TIME:
        return _time(value, operator, wanted, now)
    return value.in_(tuple(dict.fromkeys(wanted))) if operator == Operator.IN else value == wanted


def _rows(values: list[Any]) -> _Element:
    """A list as rows of text, by one bind: a hundred lists of a thousand binds take half a minute to make."""
    return func.jsonb_array_elements_text(literal(values, JSONB()), type_=Text()).column_valued()


def _text(value: _Element, operator: Operator, wanted: Any) -> ColumnElement[bool]:
    # A blank is a missing value: it is never equal to anything, and every other text contains it.
    if operator == Operator.IS_SET or (wanted == "" and operator != Operator.EQ):
        return value != ""
    folded = fold(value)
    if operator in (Operator.EQ, Operator.IN):
        texts = [one for one in dict.fromkeys(wanted if isinstance(wanted, tuple) else (wanted,)) if one]
        if len(texts) > _FEW:
            return folded.in_(select(fold(_rows(texts))))
        given = [_folded(one) for one in texts]
        return folded.in_(given) if len(given) > 1 else folded == given[0] if given else false()
    part = _folded(wanted)
    if operator == Operator.CONTAINS:
        return func.strpos(folded, part) > 0
    if operator == Operator.STARTS_WITH:
        return func.starts_with(folded, part)
    return func.right(folded, func.length(part)) == part


def _folded(text: str) -> _Element:
    # By the database too: what it takes for one letter in two forms is up to its locale.
    return fold(literal(text, Text()))


_COMPARISONS: Final[Mapping[Operator, Callable[[Any, Any], Any]]] = {
    Operator.EQ: lambda value, wanted: value == wanted,
    Operator.GT: lambda value, wanted: value > wanted,
    Operator.GTE: lambda value, wanted: value >= wanted,
    Operator.LT: lambda value, wanted: value < wanted,
    Operator.LTE: lambda value, wanted: value <= wanted,
    Operator.AFTER: lambda value, wanted: value > wanted,
    Operator.BEFORE: lambda value, wanted: value < wanted,
}


#: Compared with a number, these change their answer once, going up.
_BORDERS: Final = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE})


def _number(value: _Element, operator: Operator, wanted: Any) -> ColumnElement[bool]:
    if operator == Operator.IN:
        numbers = list(dict.fromkeys(wanted))
        if len(numbers) > _FEW:
            return value.in_(select(cast(_rows(numbers), Numeric())))
        return value.in_([_decimal(one) for one in numbers])
    if operator == Operator.BETWEEN:
        return and_(value >= _decimal(wanted[0]), value <= _decimal(wanted[1]))
    return _COMPARISONS[operator](value, _decimal(wanted))  # type: ignore[no-any-return]


def _decimal(number: float) -> _Element:
    # As it was typed: 0.1 is one tenth beside money, and the same float beside a score.
    return literal(Decimal(str(number)))


def _time(value: _Element, operator: Operator, wanted: Any, now: datetime) -> ColumnElement[bool]:
    if operator == Operator.WITHIN_LAST_DAYS:
        return and_(value >= now - timedelta(days=wanted), value <= now)
    if operator == Operator.BETWEEN:
        return and_(value >= moment(wanted[0], now), value <= moment(wanted[1], now))
    return _COMPARISONS[operator](value, moment(wanted, now))  # type: ignore[no-any-return]
