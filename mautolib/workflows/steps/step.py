"""What a step type is: it reads its keys, checks what it refers to, and runs for many enrollments at once.

A step performs no I/O but statements in the caller's transaction, so moving enrollments can be repeated for ever.
`run` gives one outcome per member, in order; writing logs and moving the enrollments is `advancement`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, Self

from sqlalchemy import Connection

from mautolib.settings import Settings
from mautolib.workflows.model import LogStatus
from mautolib.workflows.steps.fields import Fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One enrollment standing at a step; `resumed`: it has waited here and its time has come."""

    enrollment_id: int
    contact_id: int
    visit: int
    context: Mapping[str, Any]
    entered_at: datetime
    resumed: bool


@dataclass(frozen=True, kw_only=True)
class Visit:
    """All members of one batch that stand at the same step of the same workflow version."""

    tx: Connection
    settings: Settings
    now: datetime
    workflow_id: int
    version: int
    path: str
    members: Sequence[Member]


@dataclass(frozen=True, kw_only=True, slots=True)
class Goes:
    """On to the next step, or into the branch named, or behind the whole list if the branch is empty."""

    branch: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """Stays at this step until a moment; then the step runs again with `resumed`."""

    until: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """Leaves the workflow here; `skips`: what would have followed is logged as skipped."""

    reason: str
    skips: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one member; `status` None writes no log (the visit is logged already)."""

    status: LogStatus | None = LogStatus.COMPLETED
    result: Mapping[str, Any] = field(default_factory=dict)
    move: Goes | Waits | Ends = Goes()


class Step(Protocol):
    """A step of a definition, read and checked."""

    #: The names of its branches, whose steps `definition` reads.
    branches: ClassVar[tuple[str, ...]]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Take the keys of this type.

        Raises:
            InvalidInput: a key is missing or its value is not acceptable; the path names it.
        """
        ...

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """See that what it refers to exists and, with `starting`, can be used now.

        Raises:
            InvalidInput: it does not or cannot; the path names the key.
        """
        ...

    def run(self, visit: Visit) -> list[Outcome]:
        """Take effect for every member, in the caller's transaction."""
        ...
