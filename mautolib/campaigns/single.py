"""Single messages that an editor or a shop asks for: test mails of a campaign, and transactional mail.

Promise: they go through the ledger like all mail, once per dedupe key. A test counts in no total, and its links change
nothing for the contact whose data fills it. Transactional mail needs no consent, but stops before a bounce, a complaint
or a legal reason; it is rendered once before it is queued, so a faulty one is refused at once. Called by the API;
hands nothing over.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from mautolib.campaigns import planning
from mautolib.campaigns.experiment_contents import variant_of, with_variant
from mautolib.campaigns.languages import is_tag, variant_for
from mautolib.campaigns.model import Campaign
from mautolib.campaigns.readiness import Text, content_problems, refuse, sender_problems, text_of
from mautolib.contacts import consent, erased
from mautolib.contacts.address import MAX_MAILABLE_OCTETS, Address, parse
from mautolib.contacts.model import SuppressionReason
from mautolib.db import tables
from mautolib.errors import Conflict, InvalidInput, NotFound
from mautolib.ledger import content, queue
from mautolib.ledger.model import Kind, NewContent, NewMessage
from mautolib.settings import Settings
from mautolib.templates import catalogue
from mautolib.templates.compile import CONTACT_FIELDS, SENDING_NAMES, compile_template
from mautolib.templates.render import render_limited

_LOG = logging.getLogger(__name__)
#: A test is looked for at once or not at all; what a person waits for may come late.
TEST_GIVES_UP_AFTER: Final = timedelta(hours=24)
GIVES_UP_AFTER: Final = timedelta(hours=72)
STOPS_TEST: Final = frozenset({SuppressionReason.COMPLAINT, SuppressionReason.COMPLIANCE})
STOPS_TRANSACTIONAL: Final = STOPS_TEST | {SuppressionReason.BOUNCE}
#: What sending gives by itself: a variable of that name would be taken for it.
_RESERVED: Final = frozenset(SENDING_NAMES) - {"event"}
_LINKS: Final = ("unsubscribe_url", "preferences_url")


@dataclass(frozen=True, kw_only=True)
class NewTransactional:
    """One mail to one person, by contact or address, from a template or from words of its own.

    Args:
        external_id: the caller's own number of it; the same one again is the same message.
    """

    contact_id: int | None = None
    email: str | None = None
    template_id: int | None = None
    subject: str = ""
    html_body: str = ""
    text_body: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    locale: str | None = None
    from_name: str = ""
    from_email: str = ""
    reply_to: str = ""
    external_id: str = ""


@dataclass(frozen=True, kw_only=True)
class _Person:
    """Whom a mail goes to: a contact, or an address nobody has."""

    contact_id: int
    email: str
    email_key: str
    values: Mapping[str, Any]


def send_test(
    tx: Connection, settings: Settings, campaign: Campaign, addresses: Sequence[str], *, now: datetime,
    contact_id: int | None = None, locale: str | None = None, variant_id: int | None = None,
) -> list[int]:  # fmt: skip
    """Queue the campaign as it is now to addresses of the team; returns the message ids, one per different address.

    Args:
        contact_id: whose data fills it; None: nobody's, names stay empty.
        locale: the language to send; None: the one this contact would get.
        variant_id: the variant of one of its A/B tests to send; None: the campaign's own words.
    Raises:
        InvalidInput: `not_sendable` with every problem, an address that is none, an unknown contact, locale or variant.
        Conflict: `suppressed`: an address that a complaint or a legal reason stands against.
    """
    if variant_id is not None:
        campaign = with_variant(campaign, variant_of(tx, campaign.campaign_id, variant_id))
    refuse(content_problems(tx, settings, campaign))
    people: dict[str, Address] = {}
    for number, text in enumerate(addresses):
        address = _mailable(text, "addresses", number)
        people.setdefault(address.key, address)
    values = None if contact_id is None else contact_values(tx, contact_id)
    if contact_id is not None and values is None:
        raise InvalidInput("Contact not found", path=("body", "contact_id"))
    _refuse_suppressed(tx, settings, list(people), STOPS_TEST)
    content_id = content.freeze(tx, _test_content(tx, settings, campaign, values or {}, locale))
    context: dict[str, Any] = {"campaign": {"id": str(campaign.campaign_id), "name": campaign.name}}
    if contact_id is not None:
        context["as_contact_id"] = contact_id
    keys = [f"{Kind.TEST.value}:{uuid.uuid4()}" for _ in people]
    queue.queue(tx, [
        NewMessage(
            kind=Kind.TEST, content_id=content_id, dedupe_key=key, due_at=now, give_up_at=now + TEST_GIVES_UP_AFTER,
            to_email=address.email, to_key=address.key, context=context, variant_id=variant_id,
        )
        for key, address in zip(keys, people.values(), strict=True)
    ])  # fmt: skip
    # An erasure of one of them may have committed meanwhile.
    _refuse_suppressed(tx, settings, list(people), STOPS_TEST)
    _LOG.info("campaign %s: %s test mails queued", campaign.campaign_id, len(keys))
    return _ids(tx, keys)


def send_transactional(
    tx: Connection, settings: Settings, new: NewTransactional, *, actor: str, now: datetime
) -> int:
    """Queue one transactional mail; returns its message id, that of the earlier one for a known `external_id`.

    Args:
        actor: whose `external_id` it is.
    Raises:
        NotFound: `Contact not found`.
        InvalidInput: an address that is none, an unknown template, or one that cannot be rendered with these variables.
        Conflict: `suppressed`: the address bounced, complained, or may not be mailed for a legal reason.
    """
    key = f"tx:{actor}:{new.external_id or uuid.uuid4()}"
    known = _ids(tx, [key])
    if known:
        return known[0]
    person = _person(tx, settings, new)
    _refuse_suppressed(tx, settings, [person.email_key], STOPS_TRANSACTIONAL)
    _refuse_sender(settings, new)
    mail = _transactional_content(tx, settings, new, person)
    _try_out(mail, new, person, settings, now)
    message = NewMessage(
        kind=Kind.TRANSACTIONAL, content_id=content.freeze(tx, mail), dedupe_key=key, due_at=now,
        give_up_at=now + GIVES_UP_AFTER, contact_id=person.contact_id, context=dict(new.variables) or None,
        to_email=None if person.contact_id else person.email,
        to_key=None if person.contact_id else person.email_key,
    )  # fmt: skip
    is_new = queue.queue(tx, [message])
    _refuse_suppressed(tx, settings, [person.email_key], STOPS_TRANSACTIONAL)
    (message_id,) = _ids(tx, [key])
    if is_new:
        _LOG.info("message %s queued (transactional)", message_id)
    return message_id


def contact_values(tx: Connection, contact_id: int) -> dict[str, Any] | None:
    """What a template may name of a contact, as a sender would give it; None: there is none."""
    people = tables.contacts.c
    columns = [people[name] for name in CONTACT_FIELDS if name != "id"]
    row = tx.execute(select(*columns).where(people.contact_id == contact_id)).mappings().one_or_none()
    return None if row is None else {"id": str(contact_id), **row}


def nobody(email: str = "") -> dict[str, Any]:
    """The values of no contact: every name there is, empty."""
    return {**dict.fromkeys(CONTACT_FIELDS, ""), "custom_fields": {}, "email": email}


def _person(tx: Connection, settings: Settings, new: NewTransactional) -> _Person:
    people = tables.contacts.c
    # Held, so that nobody erases the contact between this look and our commit.
    query = select(people.contact_id, people.email, people.email_key).with_for_update(read=True, key_share=True)
    if new.contact_id is None:
        address = _mailable(new.email or "", "email")
        row = tx.execute(query.where(people.email_key == address.key)).first()
        if row is None:
            return _Person(contact_id=0, email=address.email, email_key=address.key, values=nobody(address.email))
    else:
        row = tx.execute(query.where(people.contact_id == new.contact_id)).first()
        if row is None:
            raise NotFound("Contact not found")
    values = contact_values(tx, row.contact_id) or {}
    return _Person(contact_id=row.contact_id, email=row.email, email_key=row.email_key, values=values)


def _refuse_sender(settings: Settings, new: NewTransactional) -> None:
    found = [
        (("body", *problem.path), problem.message)
        for problem in sender_problems(settings, from_email=new.from_email, reply_to=new.reply_to)
    ]
    if found:
        raise InvalidInput("The message has no good sender", problems=tuple(found))


def _language(new: NewTransactional, person: _Person) -> str:
    if new.locale is not None:
        return new.locale
    # Whatever somebody typed there: only a tag may stand in the mail.
    spoken = str(person.values.get("language") or "").replace("_", "-")
    return spoken if is_tag(spoken) else ""


def _transactional_content(
    tx: Connection, settings: Settings, new: NewTransactional, person: _Person
) -> NewContent:
    subject, html, text = new.subject, new.html_body, new.text_body
    strict, version = False, None
    declared: Sequence[str] = ()
    if new.template_id is not None:
        try:
            template = catalogue.get(tx, new.template_id)
        except NotFound as error:
            raise InvalidInput(str(error), path=("body", "template_id")) from None
        subject, html, text = template.subject, template.html_body, template.text_body
        strict, version, declared = template.strict, template.version, template.variables
    used = _names_used(subject, html, text, new, declared)
    if not person.contact_id and used & set(_LINKS):
        raise InvalidInput("Only a contact has links to unsubscribe and to preferences", path=_path_of(new))
    return NewContent(
        subject=subject, html_body=html, text_body=text, strict=strict, template_id=new.template_id,
        template_version=version, locale=_language(new, person),
        from_name=new.from_name or settings.default_from_name,
        from_email=new.from_email or settings.default_from_email, reply_to=new.reply_to,
        # Nobody agreed to be watched by a receipt or a password mail.
        track_opens=False, track_clicks=False,
    )  # fmt: skip


def _names_used(
    subject: str, html: str, text: str, new: NewTransactional, declared: Sequence[str]
) -> set[str]:
    """The names a template begins with; refuses a faulty one, and names this mail cannot give whatever is sent."""
    path = _path_of(new)
    compiled = compile_template(subject, html, text, variables={*declared, *new.variables})
    if compiled.problems:
        found = tuple((path, f"{item.message} ({item.part}, line {item.line})") for item in compiled.problems)
        raise InvalidInput("The template is faulty", problems=found)
    reserved = sorted(_RESERVED & new.variables.keys())
    if reserved:
        raise InvalidInput(f"{reserved[0]} is given by sending itself", path=("body", "variables", reserved[0]))
    used = {name.split(".")[0] for name in compiled.variables}
    for name in ("confirm_url", "campaign"):
        if name in used:
            raise InvalidInput(f"Undefined variable: {name}; a transactional mail does not give it", path=path)
    return used


def _path_of(new: NewTransactional) -> tuple[str, str]:
    return "body", "html_body" if new.template_id is None else "template_id"


def _try_out(mail: NewContent, new: NewTransactional, person: _Person, settings: Settings, now: datetime) -> None:
    link = f"{settings.public_base_url}/"
    names = {**new.variables, "contact": person.values, "now": now, **dict.fromkeys(_LINKS, link)}
    path = _path_of(new)
    try:
        rendered = render_limited(
            mail.subject, mail.html_body, mail.text_body, names, strict=mail.strict, language=mail.locale
        )
    except InvalidInput as error:
        raise InvalidInput(str(error), path=path) from None
    if not rendered.rendered.subject.strip():
        raise InvalidInput("The subject is empty", path=("body", "subject") if new.template_id is None else path)


def _test_content(
    tx: Connection, settings: Settings, campaign: Campaign, person: Mapping[str, Any], locale: str | None
) -> NewContent:
    frozen = planning.content_of(settings, campaign, text_for(tx, campaign, person, locale), 1)
    # Of no campaign: another test of the same run may have other words.
    return replace(frozen, campaign_id=None)


def text_for(tx: Connection, campaign: Campaign, person: Mapping[str, Any], locale: str | None) -> Text:
    """What `campaign` says to somebody, in the variant of their language.

    Args:
        locale: the language to show instead of the person's.
    Raises:
        InvalidInput: `locale` is no language tag.
    """
    if locale is not None and not is_tag(locale):
        raise InvalidInput("This is no language tag such as pt-BR", path=("locale",))
    return text_of(tx, campaign, variant_for(campaign.locales, locale or str(person.get("language") or "")) or "")


def _mailable(text: str, *path: str | int) -> Address:
    try:
        address = parse(text)
    except InvalidInput as error:
        raise InvalidInput(str(error), path=("body", *path)) from None
    if len(address.email.encode()) > MAX_MAILABLE_OCTETS:
        message = f"An address of more than {MAX_MAILABLE_OCTETS} octets cannot be mailed"
        raise InvalidInput(message, path=("body", *path))
    return address


def _refuse_suppressed(
    tx: Connection, settings: Settings, keys: Sequence[str], reasons: frozenset[SuppressionReason]
) -> None:
    # An erased address that somebody writes to is known again, with the reason it was erased with.
    erased.revive(tx, keys, settings)
    for key in keys:
        reason = consent.suppression_of(tx, key)
        if reason in reasons:
            raise Conflict(f"The address is suppressed ({reason})", code="suppressed")


def _ids(tx: Connection, keys: Sequence[str]) -> list[int]:
    known = tables.message_keys.c
    rows = tx.execute(select(known.dedupe_key, known.message_id).where(known.dedupe_key.in_(keys)))
    found = {row.dedupe_key: int(row.message_id) for row in rows}
    return [found[key] for key in keys if key in found]
