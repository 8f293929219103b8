"""Double opt-in: asking a person by mail whether they want our mail, and taking their answer.

Guards: asking makes consent pending and leaves a line with the wording; only the answer to a question that still
stands grants consent: a question is void once consent was withdrawn after it, or the person's own word stands against
it. Both may be repeated. The line of a question and its message know each other by the message's dedupe key
`confirm:<contact>:<consent_id>`. Called by the API and the page behind the link; it knows no link and sends nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, select

from mautolib.contacts import consent
from mautolib.contacts.model import CONSENT_STOPPERS, ConsentStatus, SuppressionReason
from mautolib.db import tables
from mautolib.errors import Conflict, NotFound
from mautolib.ledger import content, queue
from mautolib.ledger.model import Kind, NewContent, NewMessage, Status

__all__ = ["ASKED_AGAIN_AFTER", "SOURCE", "Answer", "Asked", "ask", "confirm"]

_LOG = logging.getLogger(__name__)
#: `source` of the consent lines of question and answer.
SOURCE: Final = "double_opt_in"
#: The same question within this time is the same mail: a form sent twice, a button pressed twice.
ASKED_AGAIN_AFTER: Final = timedelta(minutes=1)
#: A question that could not be handed over for so long is no longer expected.
GIVES_UP_AFTER: Final = timedelta(hours=72)
_PREFIX: Final = "confirm"


class Answer(StrEnum):
    """What became of a person's yes."""

    CONFIRMED = "confirmed"
    #: Withdrawn since, or never asked in this way.
    OVER = "over"
    #: A complaint or a legal reason stands against it.
    BLOCKED = "blocked"
    #: There is no such person or question (any more).
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The mail that asks; `is_new` is false where an earlier one still does."""

    message_id: int
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class _Question:
    """The consent line that a message goes with."""

    consent_id: int
    wording_version: str | None


def ask(
    tx: Connection, contact_id: int, mail: NewContent, *, actor: str, now: datetime,
    wording_version: str | None = None, note: str | None = None,
) -> Asked:  # fmt: skip
    """Queue `mail` to a contact and make its consent pending; the same again within a minute, or while the first
    still waits to be handed over, is the same mail.

    Args:
        wording_version: which wording the person agreed to; kept with question and answer.

    Raises:
        NotFound: no such contact.
        Conflict: consent is granted already, or the address is `suppressed`.
    """
    row = consent.locked(tx, contact_id)
    if row is None:
        raise NotFound("Contact not found")
    if row.consent_status == ConsentStatus.GRANTED:
        raise Conflict("Consent is granted already")
    suppressed_as = consent.suppression_of(tx, row.email_key)
    if suppressed_as is not None:
        raise Conflict(f"The address is suppressed ({suppressed_as})", code="suppressed")
    content_id = content.freeze(tx, mail)
    earlier = _still_asking(tx, contact_id, content_id, wording_version, now)
    if earlier is not None and row.consent_status == ConsentStatus.PENDING:
        return Asked(message_id=earlier, is_new=False)
    detail = {"source": SOURCE, "wording_version": wording_version, "note": note}
    consent_id = consent.make_pending(tx, row, source=SOURCE, actor=actor, now=now, detail=detail)
    message_id = _queue(tx, contact_id, consent_id, content_id, now)
    _LOG.info("contact %s asked to confirm by message %s", contact_id, message_id)
    return Asked(message_id=message_id, is_new=True)


def confirm(
    tx: Connection, contact_id: int, message_id: int, *, now: datetime, network: str | None = None
) -> Answer:
    """The person's yes to the question of a message: granted and subscribed, once.

    Args:
        network: where it came from, as a network prefix.
    """
    row = consent.locked(tx, contact_id)
    question = None if row is None else _question(tx, contact_id, message_id)
    if row is None or question is None:
        return Answer.UNKNOWN
    suppressed_as = consent.suppression_of(tx, row.email_key)
    if suppressed_as in CONSENT_STOPPERS:
        # Asking needs an address that is not suppressed, so this came after the question.
        return Answer.OVER if suppressed_as is SuppressionReason.UNSUBSCRIBE else Answer.BLOCKED
    if row.consent_status not in (ConsentStatus.PENDING, ConsentStatus.GRANTED):
        return Answer.OVER
    if row.consent_status == ConsentStatus.PENDING and _is_void(tx, contact_id, question.consent_id):
        return Answer.OVER
    if row.consent_status == ConsentStatus.GRANTED and not row.subscribed:
        return Answer.OVER
    consent.grant(
        tx, contact_id, source=SOURCE, actor="recipient", now=now, wording_version=question.wording_version,
        ip=network or None, note=f"confirmed by message {message_id}",
    )  # fmt: skip
    return Answer.CONFIRMED


def _queue(tx: Connection, contact_id: int, consent_id: int, content_id: int, now: datetime) -> int:
    key = f"{_PREFIX}:{contact_id}:{consent_id}"
    queue.queue(tx, [
        NewMessage(
            kind=Kind.CONFIRMATION, content_id=content_id, dedupe_key=key, due_at=now,
            give_up_at=now + GIVES_UP_AFTER, contact_id=contact_id,
        )
    ])  # fmt: skip
    keys = tables.message_keys.c
    return int(tx.execute(select(keys.message_id).where(keys.dedupe_key == key)).scalar_one())


def _still_asking(
    tx: Connection, contact_id: int, content_id: int, wording_version: str | None, now: datetime
) -> int | None:
    """The last question, if it is the same one and a moment ago or not yet handed over."""
    m = tables.messages.c
    last = select(m.message_id, m.content_id, m.status, m.due_at).where(
        m.contact_id == contact_id, m.kind == Kind.CONFIRMATION.value
    )
    row = tx.execute(last.order_by(m.message_id.desc()).limit(1)).one_or_none()
    if row is None or row.content_id != content_id:
        return None
    question = _question(tx, contact_id, row.message_id)
    if question is None or question.wording_version != wording_version:
        return None
    if _is_void(tx, contact_id, question.consent_id):
        return None
    is_recent = row.due_at > now - ASKED_AGAIN_AFTER and row.status not in (Status.SKIPPED, Status.FAILED)
    return int(row.message_id) if is_recent or row.status in (Status.QUEUED, Status.SENDING) else None


def _question(tx: Connection, contact_id: int, message_id: int) -> _Question | None:
    """The consent line that a confirmation message goes with."""
    m, c = tables.messages.c, tables.consents.c
    key = tx.scalar(
        select(m.dedupe_key).where(
            m.contact_id == contact_id, m.message_id == message_id, m.kind == Kind.CONFIRMATION.value
        )
    )
    prefix, _, number = (key or "").rpartition(":")
    if prefix != f"{_PREFIX}:{contact_id}" or not number.isdecimal():
        return None
    line = select(c.consent_id, c.wording_version).where(c.consent_id == int(number), c.contact_id == contact_id)
    row = tx.execute(line).one_or_none()
    return None if row is None else _Question(consent_id=row.consent_id, wording_version=row.wording_version)


def _is_void(tx: Connection, contact_id: int, consent_id: int) -> bool:
    """Whether the person, or somebody for them, has said no since."""
    c = tables.consents.c
    later = select(c.consent_id).where(
        c.contact_id == contact_id, c.consent_id > consent_id, c.status == ConsentStatus.WITHDRAWN.value
    )
    return tx.scalar(later.limit(1)) is not None

