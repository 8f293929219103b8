"""Messages of the send ledger: what was queued for a person and what became of it; transactional mail."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import Connection

from api import paging
from api.calls import Call, Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import (
    Answer,
    BodyPart,
    Id,
    Line64,
    Line200,
    Line320,
    Line500,
    Model,
    OptionalId,
    Shown,
    parse_id,
    path_id,
)
from mautolib import contacts
from mautolib.auth import callers
from mautolib.auth.roles import Role
from mautolib.campaigns import issued, single
from mautolib.campaigns.languages import is_tag
from mautolib.campaigns.single import NewTransactional
from mautolib.errors import InvalidInput, NotAllowed, NotFound
from mautolib.ledger import reading
from mautolib.ledger.model import Kind, Status

router = Router("Messages")
MISSING = "Message not found"
MISSING_CONTACT = "Contact not found"
_EXAMPLE: dict[str, JsonValue] = {
    "email": "ana@shop.example", "subject": "Your order {{ order }}",
    "html_body": "<p>Thank you, {{ name }}. We received your order {{ order }}.</p>",
    "variables": {"name": "Ana", "order": "A-1001"}, "external_id": "order-A-1001-received",
}  # fmt: skip


def _tag(value: str) -> str:
    if value and not is_tag(value):
        raise PydanticCustomError("language_tag", "This is no language tag such as de or pt-BR")
    return value


class TransactionalBody(Model):
    """One mail to one person that they wait for: a receipt, a password link, a delivery note."""

    model_config = ConfigDict(title="TransactionalMessage", json_schema_extra={"example": _EXAMPLE})

    contact_id: OptionalId = None
    email: Line320 | None = Field(default=None, description="Instead of contact_id; need not be that of a contact.")
    template_id: OptionalId = None
    subject: Line500 = Field(default="", description="With html_body, instead of template_id.")
    html_body: BodyPart = ""
    text_body: BodyPart = Field(default="", description="Empty: made from the HTML.")
    variables: dict[str, Any] = Field(default={}, description="Further names for the template.")
    locale: Annotated[
        Line64 | None, AfterValidator(lambda value: None if value is None else _tag(value)),
        Field(description="Language (BCP 47) for dates and numbers; none: that of the contact."),
    ] = None
    from_name: Line200 = ""
    from_email: Line320 = ""
    reply_to: Line320 = ""
    external_id: Line200 = Field(default="", description="Your number of it: the same one again is the same message.")

    @model_validator(mode="after")
    def _is_complete(self) -> TransactionalBody:
        if (self.contact_id is None) == (self.email is None):
            raise PydanticCustomError("recipient", "Give either contact_id or email")
        own = self.subject or self.html_body or self.text_body
        if self.template_id is not None and own:
            raise PydanticCustomError("content", "Give either template_id or subject and html_body")
        if self.template_id is None and not (self.subject.strip() and self.html_body.strip()):
            raise PydanticCustomError("content", "Without template_id there must be a subject and an html_body")
        return self

    def wanted(self) -> NewTransactional:
        """As the library takes it.

        Raises:
            NotFound: an id no contact can have.
            InvalidInput: an id no template can have.
        """
        values = self.model_dump()
        contact_id, template_id = values["contact_id"], values["template_id"]
        if contact_id is not None:
            values["contact_id"] = parse_id(contact_id)
            if values["contact_id"] is None:
                raise NotFound(MISSING_CONTACT)
        if template_id is not None:
            values["template_id"] = parse_id(template_id)
            if values["template_id"] is None:
                raise InvalidInput("Template not found", path=("body", "template_id"))
        return NewTransactional(**values)


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


class ShownAttempt(Answer):
    """What became of one attempt to hand a message over, or of a doubt about it."""

    model_config = ConfigDict(title="MessageAttempt")

    at: Shown
    stage: str | None = Field(examples=["dot"])
    code: int | None = Field(examples=[250])
    reply: str | None = Field(examples=["2.0.0 Ok: queued as 4F1B2"])


class ShownLink(Answer):
    """A link of the mail, and its tracked address."""

    model_config = ConfigDict(title="SignedLink")

    url: str
    tracked_url: str


class ShownLinks(Answer):
    """The signed links of a message."""

    model_config = ConfigDict(title="SignedLinks")

    open: str | None
    unsubscribe: str
    preferences: str
    clicks: list[ShownLink]


class WholeMessage(ShownMessage):
    """A message with its attempts."""

    model_config = ConfigDict(title="MessageWithAttempts")

    attempt_log: list[ShownAttempt]
    links: ShownLinks | None = Field(description="The signed links of the mail, for editors.")


def shown(message: reading.Message) -> ShownMessage:
    """A message as the API shows it."""
    return ShownMessage(**_values(message))


def _values(message: reading.Message) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: None if value is None else str(value)
        for name in ("campaign_id", "workflow_id", "contact_id", "variant_id")
        for value in (getattr(message, name),)
    }
    same = ("occurrence", "email", "reason", "locale", "subject", "due_at", "attempts", "last_code", "last_error",
            "provider_id", "queued_at", "sent_at", "delivered_at", "bounced_at", "complained_at", "first_open_at",
            "first_click_at", "unsubscribed_at")  # fmt: skip
    values |= {name: getattr(message, name) for name in same}
    return {"id": str(message.message_id), "kind": message.kind.value, "status": message.status.value, **values}


@router.post(
    "/messages/", status_code=202, response_model=ShownMessage,
    responses=problems(401, 403, s404=MISSING_CONTACT, s409="The address is suppressed as bounce, complaint or "
                       "compliance", s422="A faulty template, or a value that is not acceptable"),
)  # fmt: skip
@allow(Role.EDITOR, action="message.send")
async def send_message(call: CurrentCall, body: TransactionalBody) -> Response:
    """Send a transactional message.

    One mail that somebody waits for. It needs no marketing consent and counts for no frequency cap, goes before
    campaigns, and is sent at least once: a doubt about it is settled by sending it again after the quiet period.
    `campaign`, `confirm_url` and the other names sending gives by itself cannot be variables.
    """
    new = body.wanted()

    def effect(tx: Connection) -> Outcome:
        made = single.send_transactional(tx, call.settings, new, actor=str(call.actor), now=call.now)
        return Outcome(status=202, body=shown(reading.message(tx, made)), resource_id=made)

    return await call.commit(effect)


@router.get("/messages/{id}", response_model=WholeMessage, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_message(call: CurrentCall, id: str) -> WholeMessage:
    """Show a message.

    With what became of each attempt to hand it over; editors also see its signed links.
    """
    with call.engine.begin() as tx:
        message = reading.message(tx, path_id(id, MISSING))
        log = reading.attempts(tx, message.message_id, message.contact_id or 0)
        links = issued.links_of(tx, call.settings, message) if _may_write(call) else None
    return WholeMessage(
        **_values(message), attempt_log=[ShownAttempt.model_validate(item) for item in log],
        links=None if links is None else ShownLinks.model_validate(links),
    )  # fmt: skip


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


def _may_write(call: Call) -> bool:
    """Whether the caller is an editor; a key must also be allowed to write messages."""
    try:
        callers.check_rights(call.caller, Role.EDITOR, "messages:write")
    except NotAllowed:
        return False
    return True
