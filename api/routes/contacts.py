"""Contacts: list, count, create, read, change, delete."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import JSON, Outcome, json_bytes
from api.concurrency import check_if_match, etag
from api.routing import PREFIX, CurrentCall, Router, allow, listed, problems
from api.values import (
    Answer,
    Id,
    Line3,
    Line10,
    Line30,
    Line64,
    Line100,
    Line320,
    Model,
    Moment,
    Shown,
    parse_id,
    path_id,
)
from mautolib import contacts, privacy
from mautolib.auth.callers import check_rights
from mautolib.auth.roles import Role
from mautolib.contacts.model import Contact, ContactFilter, NewContact
from mautolib.errors import InvalidInput
from mautolib.scoring.model import Stage

router = Router("Contacts")
MISSING = "Contact not found"
#: Stands for an id nothing can have; ids begin at 1.
_NO_SEGMENT = 0
ConsentStatus = Literal["unknown", "pending", "granted", "withdrawn"]

_EXAMPLE: dict[str, JsonValue] = {
    "email": "ana@shop.example", "first_name": "Ana", "last_name": "Silva", "country": "PT", "language": "pt",
    "timezone": "Europe/Lisbon", "currency": "EUR", "custom_fields": {"size": "M"}, "subscribed": True,
}  # fmt: skip


class ShownTag(Answer):
    """A tag of a contact."""

    model_config = ConfigDict(title="TagRef")

    id: Id
    name: str
    color: str


class ShownSegment(Answer):
    """A segment a contact is in."""

    model_config = ConfigDict(title="SegmentRef")

    id: Id
    name: str


class ShownContact(Answer):
    """A person as known now. *Mailable* is who is subscribed, not suppressed, and has not withdrawn consent."""

    model_config = ConfigDict(title="Contact")

    id: Id
    email: str
    first_name: str
    last_name: str
    phone: str
    country: str
    language: str
    timezone: str
    currency: str
    custom_fields: dict[str, Any]
    subscribed: bool
    suppressed: bool
    consent_status: ConsentStatus
    consent_source: str | None
    consent_at: Shown | None
    lifecycle_stage: str | None
    tags: list[ShownTag]
    segments: list[ShownSegment]
    created_at: Shown
    updated_at: Shown | None


class ContactBody(Model):
    """What may be given for a contact."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    email: Line320
    first_name: Line100 = ""
    last_name: Line100 = ""
    phone: Line30 = ""
    country: Line3 = ""
    language: Line10 = "en"
    timezone: Line64 = ""
    currency: Line3 = ""
    custom_fields: dict[str, Any] = Field(default_factory=dict)
    subscribed: bool = True
    consent_status: ConsentStatus = "unknown"
    consent_source: Line100 | None = None
    consent_at: Moment | None = None


class NewContactBody(ContactBody):
    """A new contact."""

    model_config = ConfigDict(title="ContactCreate")

    tag_ids: list[str | int] = Field(default=[], description="Unknown ids are dropped.", examples=[["7"]])

    def to_domain(self) -> NewContact:
        """The noun the library takes."""
        values = self.model_dump(exclude={"tag_ids"})
        ids = [number for number in (parse_id(str(given)) for given in self.tag_ids) if number is not None]
        return NewContact(**values, tag_ids=tuple(dict.fromkeys(ids)))


class ContactPatch(ContactBody):
    """The fields to change; others stay. `custom_fields` replaces the whole dict."""

    model_config = ConfigDict(title="ContactPatch", json_schema_extra={"example": {"first_name": "Ana Maria"}})

    email: Line320 = ""


class ContactCount(Answer):
    """How many contacts match."""

    count: int


def shown(contact: Contact) -> ShownContact:
    """A contact as the API shows it."""
    return ShownContact(
        id=str(contact.contact_id), email=contact.email, first_name=contact.first_name, last_name=contact.last_name,
        phone=contact.phone, country=contact.country, language=contact.language, timezone=contact.timezone,
        currency=contact.currency, custom_fields=dict(contact.custom_fields), subscribed=contact.subscribed,
        suppressed=contact.suppressed, consent_status=contact.consent_status.value,
        consent_source=contact.consent_source, consent_at=contact.consent_at, lifecycle_stage=contact.lifecycle_stage,
        tags=[ShownTag(id=str(tag.tag_id), name=tag.name, color=tag.color) for tag in contact.tags],
        segments=[ShownSegment(id=str(one.segment_id), name=one.name) for one in contact.segments],
        created_at=contact.created_at, updated_at=contact.updated_at,
    )  # fmt: skip


def _filters(
    subscribed: Annotated[bool | None, Query(description="Only those (not) subscribed.")] = None,
    tag: Annotated[str | None, Query(max_length=100, description="Exact name of a tag.")] = None,
    q: Annotated[str | None, Query(max_length=320, description="Part of e-mail, first or last name.")] = None,
    email: Annotated[str | None, Query(max_length=320, description="Exact address, however it is spelled.")] = None,
    segment_id: Annotated[str | None, Query(max_length=20, description="Members of its last evaluation.")] = None,
    lifecycle_stage: Annotated[Stage | None, Query(description="Exact stage.")] = None,
    updated_since: Annotated[Moment | None, Query(description="Changed or created at or after this.")] = None,
) -> ContactFilter:
    segment = None if segment_id is None else parse_id(segment_id) or _NO_SEGMENT
    return ContactFilter(
        subscribed=subscribed, tag=tag, q=q, email=email, segment_id=segment, lifecycle_stage=lifecycle_stage,
        updated_since=updated_since,
    )  # fmt: skip


def _check_segment(tx: Connection, filters: ContactFilter) -> None:
    if filters.segment_id is not None and not contacts.has_segment(tx, filters.segment_id):
        raise InvalidInput("Segment not found", path=("query", "segment_id"))


Filters = Annotated[ContactFilter, Depends(_filters)]


@router.get("/contacts/", response_model=list[ShownContact], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_contacts(call: CurrentCall, page: paging.SkipLimit, filters: Filters) -> Response:
    """List contacts.

    Newest first. Filters combine with AND.
    """
    after = paging.position(page)
    with call.engine.begin() as tx:
        _check_segment(tx, filters)
        rows = contacts.search(tx, filters, skip=page.skip, limit=page.limit + 1, after=after)
        total = contacts.count(tx, filters, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].created_at.isoformat(), kept[-1].contact_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.get("/contacts/count", response_model=ContactCount, responses=problems(401, 422))
@allow(Role.VIEWER)
def count_contacts(call: CurrentCall, filters: Filters) -> ContactCount:
    """Count contacts.

    Exact, with the filters of the list; without any, all contacts.
    """
    with call.engine.begin() as tx:
        _check_segment(tx, filters)
        return ContactCount(count=contacts.count(tx, filters))


@router.post(
    "/contacts/", status_code=201, response_model=ShownContact,
    responses=problems(401, 403, 422, s409="Contact with this email already exists"),
)  # fmt: skip
@allow(Role.EDITOR, action="contact.create")
async def create_contact(call: CurrentCall, body: NewContactBody) -> Response:
    """Create a contact.

    An address suppressed as unsubscribe, complaint or compliance starts with `subscribed=false`.
    """

    def effect(tx: Connection) -> Outcome:
        made = contacts.create(tx, body.to_domain(), actor=str(call.actor), now=call.now, settings=call.settings)
        headers = {"etag": etag(made.version)}
        return Outcome(status=201, body=shown(made), resource_id=made.contact_id, headers=headers)

    return await call.commit(effect)


@router.get("/contacts/{id}", response_model=ShownContact, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_contact(call: CurrentCall, id: str) -> Response:
    """Show a contact."""
    with call.engine.begin() as tx:
        found = contacts.get(tx, path_id(id, MISSING))
    return Response(json_bytes(shown(found)), media_type=JSON, headers={"etag": etag(found.version)})


@router.patch(
    "/contacts/{id}", response_model=ShownContact,
    responses=problems(401, 403, 412, 422, s404=MISSING, s409="The address is taken, or the address is suppressed"),
)  # fmt: skip
@allow(Role.EDITOR, action="contact.update")
async def update_contact(call: CurrentCall, id: str, body: ContactPatch) -> Response:
    """Change a contact.

    Only the fields sent; `{}` changes nothing.
    Turning `subscribed` on for an address suppressed as unsubscribe, complaint or compliance is 409 `suppressed`.
    """
    changes = body.model_dump(exclude_unset=True)
    contact_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        check_if_match(call.request, contacts.get(tx, contact_id, lock=True).version)
        changed = contacts.update(
            tx, contact_id, changes, actor=str(call.actor), now=call.now, settings=call.settings
        )
        headers = {"etag": etag(changed.version)}
        log = {"fields": sorted(changes)}
        return Outcome(body=shown(changed), resource_id=contact_id, changes=log, headers=headers)

    return await call.commit(effect)


@router.delete(
    "/contacts/{id}", status_code=204, response_class=Response,
    responses={
        **problems(401, 412, 422, s404=MISSING, s403="The caller is no editor, or `erase` and no administrator"),
        204: {"headers": {"Location": {
            "description": "The erasure, with `erase=true`.", "schema": {"type": "string"}
        }}},
    },
)  # fmt: skip
@allow(Role.EDITOR, action="contact.delete")
async def delete_contact(
    call: CurrentCall, id: str,
    erase: Annotated[bool, Query(description="Remove the person from every store; administrators only.")] = False,
) -> Response:  # fmt: skip
    """Delete a contact.

    Its tags, memberships and enrollments go with it.
    Events, messages and totals stay under the bare id, a suppression stays, and the address may be created again.
    With `erase=true` the person leaves every other store too: contact and address at once, the rest within an hour;
    `Location` shows how far that is. Past totals stay, and so does a keyed hash of the address that stops mail.
    """
    if erase:
        check_rights(call.caller, Role.ADMIN, "contacts:admin")
    contact_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        check_if_match(call.request, contacts.get(tx, contact_id, lock=True).version)
        if erase:
            asked = privacy.erase(tx, contact_id, actor=str(call.actor), now=call.now, settings=call.settings)
            return Outcome(
                status=204, resource_id=contact_id, changes={"erasure_id": str(asked.erasure_id)},
                headers={"location": f"{PREFIX}/erasures/{asked.erasure_id}"},
            )  # fmt: skip
        contacts.delete(tx, contact_id, actor=str(call.actor), now=call.now)
        return Outcome(status=204, resource_id=contact_id)

    return await call.commit(effect)
