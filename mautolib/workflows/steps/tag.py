"""Put a tag on the contact: `{"type": "action", "action": "tag", "tag_name": "welcomed"}`.

A tag that does not exist is made. Who newly gets it has a `tag_added` event; who has it already is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Outcome, Visit, acted, array_of


@dataclass(frozen=True, kw_only=True)
class Tag:
    """Adds one tag."""

    branches: ClassVar[tuple[str, ...]] = ()
    tag_name: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`tag_name` of at most 100 characters."""
        return cls(tag_name=fields.text("tag_name", most=100))

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """The tag is made when it is needed."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Tag every member whose contact still exists."""
        wanted = {"contact_ids": array_of(visit.members.people())}
        present = list(visit.tx.scalars(statement("contacts.hold_existing"), wanted))
        values = {"tag_name": self.tag_name, "now": visit.now}
        # Two statements: the second sees a tag that another transaction made while the first was waiting for it.
        visit.tx.execute(statement("workflows.ensure_tag"), values)
        tag_id = visit.tx.execute(statement("workflows.find_tag"), values).scalar_one()
        people = {"contact_ids": array_of(present), "tag_id": tag_id, "now": visit.now}
        visit.tx.execute(statement("workflows.put_tag"), people)
        return acted(visit, set(present), {"action": "tag", "tag_name": self.tag_name})
