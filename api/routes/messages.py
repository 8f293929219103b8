"""Messages of the send ledger: what was queued for a person, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import ConfigDict, Field

from api import paging
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, OptionalId, Shown, path_id
from mautolib import contacts
from mautolib.auth.roles import Role
from mautolib.ledger import reading
from mautolib.ledger.model import Kind, Status

router = Router("Messages")
MISSING_CONTACT = "Contact not found"


class ShownMessage(Answer):
    """One message: one person and one intention to write, in exactly one state."""

    model_config = ConfigDict(title="Message")

    id: Id
    kind: Literal["campaign", "workflow", "automation", "transactional", "test", "confirmation", "internal"]
    campaign_id: OptionalId
    workflow_id: OptionalId
    occurrence: int = Field(description="Run of a recurring campaign, from 1.")
    contact_id: OptionalId
    email: str | None = Field(description="Where it went, or would go as the contact is now.")
    status: Literal[
        "queued", "sending", "sent", "delivered", "bounced", "complained", "skipped", "failed", "unknown"
    ]
    reason: str | None = Field(description="Why it was skipped, or how it bounced.")
    variant_id: OptionalId
    locale: str | None
    subject: str = Field(description="As written, before names are filled in.")
    due_at: Shown | None
    attempts: int
    last_code: int | None
    last_error: str | None
    provider_id: str | None
    queued_at: Shown
    sent_at: Shown | None
    delivered_at: Shown | None
    bounced_at: Shown | None
    complained_at: Shown | None
    first_open_at: Shown | None
    first_click_at: Shown | None
    unsubscribed_at: Shown | None


def shown(message: reading.Message) -> ShownMessage:
    """A message as the API shows it."""
    values: dict[str, Any] = {
        name: None if value is None else str(value)
        for name in ("campaign_id", "workflow_id", "contact_id", "variant_id")
        for value in (getattr(message, name),)
    }
    same = ("occurrence", "email", "reason", "locale", "subject", "due_at", "attempts", "last_code", "last_error",
            "provider_id", "queued_at", "sent_at", "delivered_at", "bounced_at", "complained_at", "first_open_at",
            "first_click_at", "unsubscribed_at")  # fmt: skip
    values |= {name: getattr(message, name) for name in same}
    return ShownMessage(
        id=str(message.message_id), kind=message.kind.value, status=message.status.value, **values
    )


@router.get(
    "/contacts/{id}/messages", response_model=list[ShownMessage],
    responses=listed(problems(401, 422, s404=MISSING_CONTACT)),
)  # fmt: skip
@allow(Role.VIEWER)
def list_contact_messages(
    call: CurrentCall, id: str, page: paging.SkipLimit,
    status: Annotated[Status | None, Query(description="Only in this state.")] = None,
    kind: Annotated[Kind | None, Query(description="Only of this kind.")] = None,
) -> Response:  # fmt: skip
    """List the messages of a contact.

    Newest first, of every kind. Opens and clicks are human ones.
    """
    contact_id, before = path_id(id, MISSING_CONTACT), paging.position_id(page)
    wanted = reading.MessageFilter(contact_id=contact_id, status=status, kind=kind)
    with call.engine.begin() as tx:
        contacts.get(tx, contact_id)
        rows = reading.messages(tx, wanted, skip=page.skip, limit=page.limit + 1, before=before)
        total = reading.count_messages(tx, wanted, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].message_id,) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )
