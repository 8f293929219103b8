"""Consent of one contact: its history, and the double opt-in mail that asks for it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Body, Response
from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Line100, Model, Shown, parse_id, path_id
from mautolib import contacts
from mautolib.auth.roles import Role
from mautolib.contacts import confirmation, listing
from mautolib.contacts.model import Consent
from mautolib.templates.confirmation import confirmation_mail

router = Router("Contacts")
MISSING = "Contact not found"
#: Stands for an id nothing can have; ids begin at 1.
_NO_TEMPLATE = 0


class ShownConsent(Answer):
    """One line of a person's consent history: who said what, when, where, to which wording. Never changed."""

    model_config = ConfigDict(title="Consent")

    id: Id
    contact_id: Id
    status: Literal["unknown", "pending", "granted", "withdrawn"]
    source: str
    wording_version: str | None
    ip: str | None = Field(description="The network it came from (IPv4 /24, IPv6 /48), where a person acted.")
    actor: str
    note: str | None
    at: Shown


class ConfirmationBody(Model):
    """What the mail says, and which wording the person agreed to."""

    model_config = ConfigDict(
        title="ConfirmationRequest", json_schema_extra={"example": {"wording_version": "sign-up form 3"}}
    )

    template_id: str | int | None = Field(
        default=None, description="A template that contains `{{ confirm_url }}`; none: the built-in text in the "
        "contact's language, else English.", examples=["7"],
    )  # fmt: skip
    wording_version: Line100 | None = Field(default=None, description="Kept in the consent history.")


class ConfirmationQueued(Answer):
    """The mail that asks."""

    message: str
    message_id: Id


def shown(line: Consent) -> ShownConsent:
    """A line of the history as the API shows it."""
    return ShownConsent(
        id=str(line.consent_id), contact_id=str(line.contact_id), status=line.status.value, source=line.source,
        wording_version=line.wording_version, ip=line.ip, actor=line.actor, note=line.note, at=line.recorded_at,
    )  # fmt: skip


@router.get(
    "/contacts/{id}/consents", response_model=list[ShownConsent], responses=listed(problems(401, 422, s404=MISSING))
)
@allow(Role.VIEWER)
def list_consents(call: CurrentCall, id: str, page: paging.SkipLimit) -> Response:
    """Show the consent history of a contact.

    Newest first. Every change of `subscribed` or consent and every confirmation mail is a line; none is ever changed.
    """
    contact_id, after = path_id(id, MISSING), paging.position_id(page)
    with call.engine.begin() as tx:
        contacts.get(tx, contact_id)
        rows = listing.consents(tx, contact_id, skip=page.skip, limit=page.limit + 1, before=after)
        total = listing.count_consents(tx, contact_id, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].consent_id,) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post(
    "/contacts/{id}/confirmation", status_code=202, response_model=ConfirmationQueued,
    responses=problems(401, 403, 422, s404=MISSING, s409="Consent is granted already, or the address is suppressed"),
)  # fmt: skip
@allow(Role.EDITOR, action="contact.confirmation")
async def ask_for_confirmation(
    call: CurrentCall, id: str, body: Annotated[ConfirmationBody | None, Body()] = None
) -> Response:
    """Send the double opt-in mail.

    Consent becomes `pending`: no marketing mail until the person presses the button behind the link in the mail.
    The same request again within a minute, or while the mail still waits to be handed over, answers the same
    `message_id` and queues nothing; later it is a new mail.
    """
    contact_id, asked = path_id(id, MISSING), body or ConfirmationBody()
    template_id = None if asked.template_id is None else parse_id(str(asked.template_id)) or _NO_TEMPLATE

    def effect(tx: Connection) -> Outcome:
        contact = contacts.get(tx, contact_id, lock=True)
        mail, note = confirmation_mail(tx, call.settings, language=contact.language, template_id=template_id)
        done = confirmation.ask(
            tx, contact_id, mail, actor=str(call.actor), now=call.now, wording_version=asked.wording_version or None,
            note=note,
        )  # fmt: skip
        answer = ConfirmationQueued(message="Confirmation queued", message_id=str(done.message_id))
        log = {"message_id": str(done.message_id), "is_new": done.is_new}
        return Outcome(status=202, body=answer, resource_id=contact_id, changes=log)

    return await call.commit(effect)
