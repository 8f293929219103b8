"""Look at the contact or the enrollment's context and choose a way: `then` or `else`.

`{"type": "condition", "field": "country", "operator": "in", "value": ["DE", "AT"], "then": [...]}`. Text is compared
case-blind, numbers as numbers; a missing (or blank) value passes only `is_null`. Without both branches a condition
that does not hold ends the run. One query reads the facts of all members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Final, Self

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Ends, Goes, Outcome, Visit

CONTACT_FIELDS: Final = (
    "email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency", "subscribed",
    "consent_status", "consent_source", "source", "tags", "score",
)  # fmt: skip
_CUSTOM: Final = "custom_fields."
_MOST_VALUES: Final = 1000


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).casefold()


def _texts(value: Any) -> list[str]:
    return [_text(item) for item in value] if isinstance(value, list | tuple) else [_text(value)]


def _contains(actual: Any, value: Any) -> bool:
    # A list contains an item, a text contains a part.
    return _text(value) in _texts(actual) if isinstance(actual, list | tuple) else _text(value) in _text(actual)


def _equals(actual: Any, value: Any) -> bool:
    return _text(value) in _texts(actual)


def _among(actual: Any, value: Any) -> bool:
    return not set(_texts(actual)).isdisjoint(_texts(value))


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = Decimal(str(value).strip())
    except (InvalidOperation, ValueError):
        # Also whole numbers of more digits than Python turns into text.
        return None
    return number if number.is_finite() else None


def _comparing(holds: Callable[[Decimal, Decimal], bool]) -> Callable[[Any, Any], bool]:
    def compare(actual: Any, value: Any) -> bool:
        left, right = _number(actual), _number(value)
        return left is not None and right is not None and holds(left, right)

    return compare


#: Operators that look at a value that is there.
OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": _equals,
    "neq": lambda actual, value: not _equals(actual, value),
    "contains": _contains,
    "not_contains": lambda actual, value: not _contains(actual, value),
    "in": _among,
    "not_in": lambda actual, value: not _among(actual, value),
    "gt": _comparing(lambda left, right: left > right),
    "gte": _comparing(lambda left, right: left >= right),
    "lt": _comparing(lambda left, right: left < right),
    "lte": _comparing(lambda left, right: left <= right),
    "is_true": lambda actual, value: _text(actual) == "true",
    "is_false": lambda actual, value: _text(actual) == "false",
    "is_set": lambda actual, value: True,
    "is_null": lambda actual, value: False,
}
_WITHOUT_VALUE: Final = frozenset({"is_true", "is_false", "is_set", "is_null"})
_NUMERIC: Final = frozenset({"gt", "gte", "lt", "lte"})


def holds(operator: str, actual: Any, value: Any) -> bool:
    """Whether `actual` passes; None, blank text and an empty list are missing and pass only `is_null`."""
    if actual is None or actual == "" or actual == []:
        return operator == "is_null"
    return OPERATORS[operator](actual, value)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One comparison and up to two branches."""

    branches: ClassVar[tuple[str, ...]] = ("then", "else")
    field: str
    operator: str
    value: Any
    given: frozenset[str]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`field`, `operator` (default eq) and, unless the operator needs none, `value`."""
        field = fields.text("field", most=150)
        operator = fields.choice("operator", tuple(OPERATORS), default="eq")
        value = fields.any("value", None)
        if operator in _WITHOUT_VALUE:
            value = None
        elif operator in ("in", "not_in"):
            if not isinstance(value, list) or not 0 < len(value) <= _MOST_VALUES:
                raise fields.error("value", f"'{operator}' needs a list of 1 to {_MOST_VALUES} values")
        elif value is None or isinstance(value, list | dict):
            raise fields.error("value", f"'{operator}' needs one text, number or true/false")
        if operator in _NUMERIC and _number(value) is None:
            raise fields.error("value", f"'{operator}' needs a number")
        given = frozenset(name for name in cls.branches if fields.has(name))
        return cls(field=field, operator=operator, value=value, given=given)

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """It refers to nothing."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Send every member its way."""
        facts = self._facts(visit)
        outcomes = []
        for member in visit.members:
            known = facts.get(member.contact_id, {})
            actual = known.get(self.field) if self._is_about_contact else member.context.get(self.field)
            outcomes.append(self._outcome(holds(self.operator, actual, self.value)))
        return outcomes

    @property
    def _is_about_contact(self) -> bool:
        return self.field in CONTACT_FIELDS or self.field.startswith(_CUSTOM)

    def _facts(self, visit: Visit) -> dict[int, dict[str, Any]]:
        if not self._is_about_contact:
            return {}
        wanted = sorted({member.contact_id for member in visit.members})
        rows = visit.tx.execute(statement("workflows.contact_facts"), {"contact_ids": wanted}).mappings()
        facts = {}
        for row in rows:
            custom = {f"{_CUSTOM}{key}": value for key, value in row["custom_fields"].items()}
            facts[row["contact_id"]] = {**row, **custom}
        return facts

    def _outcome(self, passed: bool) -> Outcome:
        result = {"passed": passed}
        if passed:
            return Outcome(result=result, move=Goes(branch="then" if "then" in self.given else None))
        if "else" in self.given:
            return Outcome(result=result, move=Goes(branch="else"))
        if not self.given:
            return Outcome(result=result, move=Ends(reason="condition not met", skips=True))
        return Outcome(result=result)
