"""Suppression: the addresses that must not be mailed, and why."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import MIB, Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Line100, Line320, Model, Shown, Text2000
from mautolib.auth.roles import Role
from mautolib.contacts import consent, listing
from mautolib.contacts.model import Suppression, SuppressionReason

router = Router("Suppression")
MISSING = "Email not found in suppression list"
MAX_EMAILS = 10_000
#: A longer text is no spelling of an address, whatever surrounds it.
_LONGEST_SPELLING = 1000
ReasonName = Literal["bounce", "complaint", "unsubscribe", "manual", "compliance"]

_EXAMPLE: dict[str, JsonValue] = {
    "email": "bo@mail.example", "reason": "manual", "source": "support", "notes": "Asked by phone.",
}  # fmt: skip
_BULK_EXAMPLE: dict[str, JsonValue] = {
    "emails": ["bo@mail.example", "cy@mail.example"], "reason": "compliance", "source": "old system",
}  # fmt: skip


class ShownEntry(Answer):
    """A suppressed address; `email` is `erased:<hash>` for a person who was erased."""

    model_config = ConfigDict(title="SuppressionEntry")

    id: Id
    email: str
    reason: ReasonName
    source: str
    notes: str
    created_at: Shown


class NewEntryBody(Model):
    """An address to suppress."""

    model_config = ConfigDict(title="SuppressionCreate", json_schema_extra={"example": _EXAMPLE})

    email: Line320
    reason: ReasonName
    source: Line100 = ""
    notes: Text2000 = ""


class BulkBody(Model):
    """Addresses to suppress for one reason."""

    model_config = ConfigDict(title="SuppressionBulk", json_schema_extra={"example": _BULK_EXAMPLE})

    emails: list[Line320] = Field(min_length=1, max_length=MAX_EMAILS)
    reason: ReasonName
    source: Line100 = ""


class ShownBulk(Answer):
    """What became of the addresses."""

    model_config = ConfigDict(title="SuppressionBulkResult")

    suppressed: int = Field(description="Addresses given, repeats counted.")
    new: int
    known: int


class ShownCheck(Answer):
    """Whether an address is suppressed."""

    model_config = ConfigDict(title="SuppressionCheck")

    suppressed: bool
    entry: ShownEntry | None


class ShownStats(Answer):
    """How many addresses are suppressed."""

    model_config = ConfigDict(title="SuppressionStats")

    total: int
    by_reason: dict[str, int] = Field(examples=[{"bounce": 3, "unsubscribe": 12}])


def shown(entry: Suppression) -> ShownEntry:
    """An entry as the API shows it."""
    return ShownEntry(
        id=str(entry.suppression_id), email=entry.email, reason=entry.reason.value, source=entry.source,
        notes=entry.notes, created_at=entry.created_at,
    )  # fmt: skip


@router.get("/suppression", response_model=list[ShownEntry], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_suppressions(
    call: CurrentCall, page: paging.WideSkipLimit,
    reason: Annotated[SuppressionReason | None, Query(description="Only with this reason.")] = None,
) -> Response:  # fmt: skip
    """List suppressed addresses.

    Newest first.
    """
    with call.engine.begin() as tx:
        rows = listing.suppressions(
            tx, reason=reason, skip=page.skip, limit=page.limit + 1, after=paging.position(page)
        )
        total = listing.count_suppressions(tx, reason=reason, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].created_at.isoformat(), kept[-1].suppression_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post("/suppression", status_code=201, response_model=ShownEntry, responses=problems(401, 403, 422))
@allow(Role.EDITOR, action="suppression.create")
async def suppress(call: CurrentCall, body: NewEntryBody) -> Response:
    """Suppress an address.

    Its queued messages are skipped in the same transaction; unsubscribe, complaint and compliance also turn
    `subscribed` off. A known address keeps its entry; a stronger reason replaces a weaker one (compliance, complaint,
    unsubscribe, bounce, manual).
    """

    def effect(tx: Connection) -> Outcome:
        entry = consent.suppress(
            tx, body.email, SuppressionReason(body.reason), source=body.source, notes=body.notes,
            actor=str(call.actor), now=call.now, settings=call.settings,
        )  # fmt: skip
        return Outcome(
            status=201, body=shown(entry), resource_id=entry.suppression_id, changes={"reason": body.reason}
        )

    return await call.commit(effect)


@router.post(
    "/suppression/bulk", status_code=201, response_model=ShownBulk, responses=problems(401, 403, 413, 422)
)
@allow(Role.EDITOR, action="suppression.bulk", body_limit=5 * MIB)
async def suppress_in_bulk(call: CurrentCall, body: BulkBody) -> Response:
    """Suppress many addresses.

    1 to 10000 for one reason, all or nothing: a text that is no address is named and nothing is stored.
    """

    def effect(tx: Connection) -> Outcome:
        done = consent.suppress_many(
            tx, body.emails, SuppressionReason(body.reason), source=body.source, actor=str(call.actor), now=call.now,
            settings=call.settings,
        )  # fmt: skip
        counts = {"suppressed": done.suppressed, "new": done.new, "known": done.known}
        return Outcome(status=201, body=ShownBulk(**counts), changes={"reason": body.reason, **counts})

    return await call.commit(effect)


@router.get("/suppression/check", response_model=ShownCheck, responses=problems(401, 422))
@allow(Role.VIEWER)
def check_suppression(
    call: CurrentCall, email: Annotated[str, Query(description="Any text.")]
) -> ShownCheck:
    """Ask whether an address is suppressed.

    However it is spelled; a text that is no address is not suppressed.
    """
    if len(email) > _LONGEST_SPELLING:
        return ShownCheck(suppressed=False, entry=None)
    with call.engine.begin() as tx:
        entry = listing.find_suppression(tx, email, call.settings)
    return ShownCheck(suppressed=entry is not None, entry=shown(entry) if entry else None)


@router.get("/suppression/stats", response_model=ShownStats, responses=problems(401))
@allow(Role.VIEWER)
def count_suppressions(call: CurrentCall) -> ShownStats:
    """Count suppressed addresses by reason."""
    with call.engine.begin() as tx:
        counts = listing.suppression_counts(tx)
    by_reason = {reason.value: counts.get(reason, 0) for reason in SuppressionReason}
    return ShownStats(total=sum(by_reason.values()), by_reason=by_reason)


@router.delete(
    "/suppression/{email:path}", status_code=204, response_class=Response,
    responses=problems(401, s404=MISSING, s403="A complaint or compliance entry, and the caller is no administrator"),
)  # fmt: skip
@allow(Role.EDITOR, action="suppression.delete")
async def unsuppress(call: CurrentCall, email: Annotated[str, Path(description="The address.")]) -> Response:
    """Take an address off the list.

    Nobody is subscribed again by it. Complaint and compliance entries: administrators only.
    """

    def effect(tx: Connection) -> Outcome:
        entry = consent.unsuppress(
            tx, email, actor=str(call.actor), now=call.now, may_remove_any=call.role is Role.ADMIN,
            settings=call.settings,
        )  # fmt: skip
        return Outcome(status=204, resource_id=entry.suppression_id, changes={"reason": entry.reason})

    return await call.commit(effect)
