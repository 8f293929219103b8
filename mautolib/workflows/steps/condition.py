"""Look at the contact or the enrollment's context and choose a way: `then` or `else`.

`{"type": "condition", "field": "country", "operator": "in", "value": ["DE", "AT"], "then": [...]}`. Text is compared
case-blind, numbers as numbers; a missing (or blank) value passes only `is_null`. Without both branches a condition
that does not hold ends the run. One statement judges all members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Final, Self

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Ends, Goes, Members, Outcome, Visit

CONTACT_FIELDS: Final = (
    "email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency", "subscribed",
    "consent_status", "consent_source", "source", "tags", "score",
)  # fmt: skip
#: Those that stand elsewhere, or are no text.
STATES: Final = ("suppressed", "lifecycle_stage", "consent_at", "created_at", "updated_at")
CUSTOM: Final = "custom_fields."
#: Of each operator the test that `workflows.judge` makes, whether it has to fail, and a value where none is given.
_TESTS: Final[Mapping[str, tuple[str, bool, bool | None]]] = {
    "eq": ("among", False, None),
    "neq": ("among", True, None),
    "contains": ("contains", False, None),
    "not_contains": ("contains", True, None),
    "in": ("among", False, None),
    "not_in": ("among", True, None),
    "gt": ("above", False, None),
    "gte": ("below", True, None),
    "lt": ("below", False, None),
    "lte": ("above", True, None),
    "is_true": ("among", False, True),
    "is_false": ("among", False, False),
    "is_set": ("present", False, None),
    "is_null": ("missing", False, None),
}
OPERATORS: Final = tuple(_TESTS)
_WITHOUT_VALUE: Final = frozenset({"is_true", "is_false", "is_set", "is_null"})
_NUMERIC: Final = frozenset({"gt", "gte", "lt", "lte"})
_MOST_VALUES: Final = 1000


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = Decimal(str(value).strip())
    except (InvalidOperation, ValueError):
        # Also whole numbers of more digits than Python turns into text.
        return None
    return number if number.is_finite() and -1000 < number.adjusted() < 1000 else None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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
        if field == CUSTOM:
            raise fields.error("field", f"'{CUSTOM}' must be followed by a key")
        operator = fields.choice("operator", OPERATORS, default="eq")
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
        values = {**visit.members.columns(), **self._question()}
        return [
            self._outcome(Members(row.enrollment_ids, row.contact_ids), row.passed)
            for row in visit.tx.execute(statement("workflows.judge"), values)
        ]

    def _question(self) -> dict[str, Any]:
        field, key = "context", self.field
        if self.field.startswith(CUSTOM):
            field, key = "custom", self.field.removeprefix(CUSTOM)
        elif self.field in CONTACT_FIELDS:
            field = self.field
        elif self.field in STATES:
            field = "state"
        test, negated, value = _TESTS[self.operator]
        values = self.value if isinstance(self.value, list) else [self.value if value is None else value]
        texts = [_text(item).lower() for item in values]
        number = _number(self.value) if self.operator in _NUMERIC else None
        return {
            "field": field, "key": key, "test": test, "negated": negated, "texts": texts, "text": texts[0],
            "number": number,
        }  # fmt: skip

    def _outcome(self, members: Members, passed: bool) -> Outcome:
        result = {"passed": passed}
        if passed:
            move: Goes | Ends = Goes(branch="then" if "then" in self.given else None)
        elif "else" in self.given:
            move = Goes(branch="else")
        elif not self.given:
            move = Ends(reason="condition not met", skips=True)
        else:
            move = Goes()
        return Outcome(members=members, result=result, move=move)
