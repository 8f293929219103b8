"""The three roles. A higher role includes the lower ones."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a caller may do: read, change marketing data, or administer."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """Higher means more rights."""
        return list(Role).index(self)

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may do."""
        return self.rank >= needed.rank
