"""What a person sees and changes on the preference page: whether they get our mail, language and time zone.

Guards: the page tells no address; only the person's own unsubscribing is taken back there, never a complaint or a
legal reason; a value that is not acceptable changes nothing. Repeating a call changes nothing. Called by the page
behind the link; consent itself is `consent`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection

from mautolib.contacts import consent, store
from mautolib.contacts.model import ConsentStatus, Contact, SuppressionReason
from mautolib.errors import Conflict, InvalidInput, NotFound

__all__ = ["SOURCE", "Preferences", "Standing", "language_of", "look", "resubscribe", "update"]

#: `source` of the consent lines this page leaves.
SOURCE: Final = "preference page"
_ACTOR: Final = "recipient"
#: A language tag as mail programs and browsers use them (RFC 5646), or nothing.
_LANGUAGE: Final = re.compile(r"(?:[a-zA-Z]{2,3}(?:-[a-zA-Z0-9]{2,8})*)?")


class Standing(StrEnum):
    """Whether marketing mail goes to a person, as they would say it."""

    SUBSCRIBED = "subscribed"
    UNSUBSCRIBED = "unsubscribed"
    #: Asked, or to be asked, for a confirmation.
    PENDING = "pending"
    #: A complaint or a legal reason stands against it.
    BLOCKED = "blocked"


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """What the page shows."""

    standing: Standing
    language: str
    timezone: str


def look(tx: Connection, contact_id: int, *, require_consent: bool = False) -> Preferences | None:
    """The present state; None when there is no such person.

    Args:
        require_consent: whether only granted consent counts here.
    """
    try:
        contact = store.get(tx, contact_id)
    except NotFound:
        return None
    standing = _standing(contact, consent.suppression_of(tx, contact.email_key), require_consent=require_consent)
    return Preferences(standing=standing, language=contact.language, timezone=contact.timezone)


def language_of(tx: Connection, contact_id: int) -> str:
    """The language tag of a person; "" when there is no such person."""
    try:
        return store.get(tx, contact_id).language
    except NotFound:
        return ""


def resubscribe(tx: Connection, contact_id: int, *, now: datetime, network: str | None = None) -> bool:
    """The person wants our mail (again); returns whether they can be given it.

    Args:
        network: where it came from, as a network prefix.
    """
    try:
        consent.resubscribe(tx, contact_id, source=SOURCE, actor=_ACTOR, now=now, ip=network or None)
    except (Conflict, NotFound):
        return False
    return True


def update(
    tx: Connection, contact_id: int, *, now: datetime, language: str | None = None, timezone: str | None = None
) -> None:
    """Change what is given.

    Raises:
        InvalidInput: a value is not acceptable; its path ends in `language` or `timezone`.
        NotFound: no such person.
    """
    changes = {"language": language, "timezone": timezone}
    given = {name: value.strip() for name, value in changes.items() if value is not None}
    if "language" in given and not _LANGUAGE.fullmatch(given["language"]):
        raise InvalidInput("language is not a language tag such as en or pt-BR", path=("body", "language"))
    store.update(tx, contact_id, given, actor=_ACTOR, now=now)


def _standing(contact: Contact, suppressed_as: SuppressionReason | None, *, require_consent: bool) -> Standing:
    if suppressed_as in (SuppressionReason.COMPLAINT, SuppressionReason.COMPLIANCE):
        return Standing.BLOCKED
    is_out = not contact.subscribed or contact.consent_status is ConsentStatus.WITHDRAWN
    if suppressed_as is SuppressionReason.UNSUBSCRIBE or (is_out and contact.consent_status != ConsentStatus.PENDING):
        return Standing.UNSUBSCRIBED
    is_open = contact.consent_status is ConsentStatus.PENDING
    if is_open or (require_consent and contact.consent_status is not ConsentStatus.GRANTED):
        return Standing.PENDING
    return Standing.SUBSCRIBED
