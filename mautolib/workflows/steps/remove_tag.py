"""Take a tag off the contact: `{"type": "action", "action": "remove_tag", "tag_name": "lead"}`.

Who has it gets a `tag_removed` event; who has not is left alone. A tag nobody knows is on nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from sqlalchemy import Connection

from mautolib.contacts import many
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Outcome, Visit, acted


@dataclass(frozen=True, kw_only=True)
class RemoveTag:
    """Takes one tag off."""

    branches: ClassVar[tuple[str, ...]] = ()
    tag_name: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`tag_name` of at most 100 characters."""
        return cls(tag_name=fields.text("tag_name", most=100))

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """A tag that does not exist is on nobody."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Take it off every member whose contact still exists."""
        present = many.remove_tag(visit.tx, visit.members.people(), self.tag_name, now=visit.now)
        return acted(visit, present, {"action": "remove_tag", "tag_name": self.tag_name})
