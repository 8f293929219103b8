"""Set a field of the contact: `{"type": "action", "action": "update_field", "field": "language", "value": "de"}`.

A custom field is `custom_fields.<key>`; the other custom fields stay. Who has the value already is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from sqlalchemy import Connection

from mautolib.contacts import many
from mautolib.errors import InvalidInput
from mautolib.workflows.steps.answering import answered
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Outcome, Visit

_LONGEST_FIELD = 150


@dataclass(frozen=True, kw_only=True)
class UpdateField:
    """Sets one field to one value."""

    branches: ClassVar[tuple[str, ...]] = ()
    field: str
    value: Any

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`field` and a `value` that this field can have."""
        field, value = fields.text("field", most=_LONGEST_FIELD), fields.any("value")
        try:
            many.check_field(field, value)
        except InvalidInput as error:
            raise fields.error(str(error.path[-1]), str(error)) from None
        return cls(field=field, value=value)

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """It refers to nothing."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Set it for every member whose contact still exists."""
        reasons = many.set_field(visit.tx, visit.members.people(), self.field, self.value, now=visit.now)
        return answered(visit, reasons, {"action": "update_field", "field": self.field, "value": self.value})
