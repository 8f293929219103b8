"""What a step type is: it reads its keys, checks what it refers to, and runs for many enrollments at once.

A step performs no I/O but statements in the caller's transaction, so moving enrollments can be repeated for ever.
`run` says what became of which members, as few sets as possible; writing logs and moving the enrollments is
`advancement`'s business. What a step wants to know of an enrollment it reads by set from `enrollments`, whose rows
still show where the members stood before the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol, Self

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.settings import Settings
from mautolib.workflows.model import LogStatus
from mautolib.workflows.steps.fields import Fields

NO_CONTACT: Final = "Unknown action or no contact"


class Arrival(StrEnum):
    """How the members came to run this step now."""

    #: They have just come to it.
    FRESH = "fresh"
    #: They wait here, and something they may wait for has happened.
    WOKEN = "woken"
    #: They have waited here, and their time has come.
    EXPIRED = "expired"


def array_of(numbers: Iterable[int]) -> str:
    """Whole numbers as an array literal of the database."""
    return "{" + ",".join(map(str, numbers)) + "}"


@dataclass(frozen=True, slots=True)
class Members:
    """Enrollments as parallel columns; contact 0 is nobody, and a contact may occur more than once."""

    enrollment_ids: Sequence[int] = ()
    contact_ids: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.enrollment_ids)

    def columns(self) -> dict[str, str]:
        """Their numbers as array literals, for statements; the server reads them much faster than lists."""
        return {"enrollment_ids": array_of(self.enrollment_ids), "contact_ids": array_of(self.contact_ids)}

    def plus(self, other: Members) -> Members:
        """Both together."""
        return Members([*self.enrollment_ids, *other.enrollment_ids], [*self.contact_ids, *other.contact_ids])

    def people(self) -> list[int]:
        """Their contacts, each once, in order."""
        return sorted({contact_id for contact_id in self.contact_ids if contact_id > 0})

    def split(self, contact_ids: Collection[int]) -> tuple[Members, Members]:
        """Those who are one of these contacts (a set is fastest), and the others."""
        if len(contact_ids) and all(contact_id in contact_ids for contact_id in self.contact_ids):
            return self, Members()
        kept: tuple[list[int], list[int]] = ([], [])
        others: tuple[list[int], list[int]] = ([], [])
        for enrollment_id, contact_id in zip(self.enrollment_ids, self.contact_ids, strict=True):
            chosen = kept if contact_id in contact_ids else others
            chosen[0].append(enrollment_id)
            chosen[1].append(contact_id)
        return Members(*kept), Members(*others)


    def halves(self) -> tuple[Members, Members]:
        """The first half of them and the second."""
        middle = len(self) // 2
        ids, people = self.enrollment_ids, self.contact_ids
        return Members(ids[:middle], people[:middle]), Members(ids[middle:], people[middle:])

    def part(self, enrollment_ids: Collection[int]) -> tuple[Members, Members]:
        """Those among these enrollments (a set is fastest), and the others."""
        if not enrollment_ids:
            return Members(), self
        kept: tuple[list[int], list[int]] = ([], [])
        others: tuple[list[int], list[int]] = ([], [])
        for enrollment_id, contact_id in zip(self.enrollment_ids, self.contact_ids, strict=True):
            chosen = kept if enrollment_id in enrollment_ids else others
            chosen[0].append(enrollment_id)
            chosen[1].append(contact_id)
        return Members(*kept), Members(*others)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """All members of one batch that stand at the same step of the same workflow version.

    Args:
        number: which visit of this step it is; part of every key of what the step makes.
        rule_id: the automation rule whose action this is; the members are its runs then, and there is no workflow.
    """

    tx: Connection
    settings: Settings
    now: datetime
    workflow_id: int
    version: int
    path: str
    members: Members
    number: int = 1
    arrival: Arrival = Arrival.FRESH
    rule_id: int | None = None

    @property
    def origin(self) -> str:
        """Who acts, as consents, points and stages remember it."""
        return f"workflow:{self.workflow_id}" if self.rule_id is None else f"automation_rule:{self.rule_id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Goes:
    """On to the next step, or into the branch named, or behind the whole list if the branch is empty."""

    branch: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """Stays at this step until a moment; then the step runs again as `EXPIRED`.

    Args:
        until: one moment for all, or one for each member, in their order.
        waiting_for: the type of event that is waited for, if any.
    """

    until: datetime | Sequence[datetime]
    waiting_for: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """Leaves the workflow here; `skips`: what would have followed is logged as skipped."""

    reason: str
    skips: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of some members.

    Args:
        status: as logged; None writes no log (the visit is logged already, or not over).
        result: what is logged for each.
        results: what is logged besides for each member, in their order: JSON objects as text.
    """

    members: Members
    status: LogStatus | None = LogStatus.COMPLETED
    result: Mapping[str, Any] = field(default_factory=dict)
    results: Sequence[str] | None = None
    move: Goes | Waits | Ends = Goes()


def acted(visit: Visit, done: Collection[int], shown: Mapping[str, Any], error: str = NO_CONTACT) -> list[Outcome]:
    """The outcomes of an action that succeeded for the contacts `done` and failed with `error` for the others.

    Args:
        shown: what both results show: `action` and its keys.
    """
    members, others = visit.members.split(done)
    failed = {"success": False, **shown, "error": error}
    outcomes = [
        Outcome(members=members, result={"success": True, **shown}),
        Outcome(members=others, status=LogStatus.FAILED, result=failed),
    ]
    return [outcome for outcome in outcomes if len(outcome.members)]


def stay(visit: Visit, members: Members | None = None, waiting_for: str | None = None) -> list[Outcome]:
    """Let members who were woken for nothing wait on, until when they would have waited; by default all of them."""
    values = (visit.members if members is None else members).columns()
    rows = visit.tx.execute(statement("workflows.read_waits"), values)
    return [
        Outcome(
            members=Members(row.enrollment_ids, row.contact_ids), status=None,
            move=Waits(until=row.until_at, waiting_for=waiting_for),
        )
        for row in rows
    ]  # fmt: skip


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
        """Take effect for every member, in the caller's transaction; each member is in one outcome."""
        ...
