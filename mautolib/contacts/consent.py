"""Consent and suppression: the only writer of both, each change with its reason, in the transaction of its effect.

Guards: a contact whose address is suppressed by the person's own word (unsubscribe, complaint, compliance) is never
subscribed again by accident; a stronger reason replaces a weaker one only; queued mail of a suppressed address is
skipped in the same transaction; every change leaves a line in `consents`. Repeating a call changes nothing.
Called by the API, tracking pages, feedback, workflows and `contacts.store`. Locks the contact before the suppression.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from mautolib.contacts import erased
from mautolib.contacts.address import address_key, parse
from mautolib.contacts.granted import granted
from mautolib.contacts.model import CONSENT_STOPPERS, ConsentStatus, Suppression, SuppressionReason
from mautolib.contacts.validation import single_line_problem
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import Conflict, InvalidInput, NotAllowed, NotFound
from mautolib.events.append import NewEvent, append
from mautolib.events.types import EventType
from mautolib.ledger.model import Skip
from mautolib.ledger.skip import skip_queued
from mautolib.outbox import FactName, record
from mautolib.settings import Settings

__all__ = ["ConsentState", "Suppressed", "decide", "entry_of", "grant", "locked", "make_pending", "record_change",
           "resubscribe", "set_subscribed", "suppress", "suppress_many", "suppression_of", "unsubscribe",
           "unsuppress"]  # fmt: skip

_LOG = logging.getLogger(__name__)
_CONTACTS, _SUPPRESSIONS = tables.contacts.c, tables.suppressions.c


@dataclass(frozen=True, kw_only=True)
class ConsentState:
    """What a contact row says about consent."""

    subscribed: bool
    consent_status: ConsentStatus
    consent_source: str | None
    consent_at: datetime | None

    @classmethod
    def of(cls, row: Row[Any]) -> ConsentState:
        """The state of a contact row."""
        return cls(
            subscribed=row.subscribed,
            consent_status=ConsentStatus(row.consent_status),
            consent_source=row.consent_source,
            consent_at=row.consent_at,
        )

    def columns(self) -> dict[str, Any]:
        """As column values of `contacts`."""
        return {
            "subscribed": self.subscribed,
            "consent_status": str(self.consent_status),
            "consent_source": self.consent_source,
            "consent_at": self.consent_at,
        }


@dataclass(frozen=True, kw_only=True)
class Suppressed:
    """What a bulk suppression did: addresses given, new ones, and ones known before."""

    suppressed: int
    new: int
    known: int


def decide(
    before: ConsentState,
    changes: Mapping[str, Any],
    *,
    suppressed_as: SuppressionReason | None,
    now: datetime,
    source: str = "api",
) -> ConsentState:
    """The state after `changes` (checked values of subscribed and consent columns); touches nothing.

    Turning `subscribed` on grants consent and turning it off withdraws it, unless a status is given beside it.

    Raises:
        Conflict: `suppressed`: the person's own word forbids turning `subscribed` on.
    """
    wanted = {name: changes[name] for name in before.columns() if name in changes}
    subscribed = wanted.get("subscribed", before.subscribed)
    if subscribed and wanted.get("subscribed") and suppressed_as in CONSENT_STOPPERS:
        raise Conflict(f"The address is suppressed ({suppressed_as}) and cannot be subscribed", code="suppressed")
    if subscribed != before.subscribed and "consent_status" not in wanted:
        wanted["consent_status"] = ConsentStatus.GRANTED if subscribed else ConsentStatus.WITHDRAWN
    status = ConsentStatus(wanted.get("consent_status", before.consent_status))
    if status != before.consent_status or subscribed != before.subscribed:
        wanted["consent_source"] = wanted.get("consent_source") or source
        wanted["consent_at"] = wanted.get("consent_at") or now
    return replace(before, **{**wanted, "consent_status": status})


def record_change(
    tx: Connection,
    contact_id: int,
    before: ConsentState | None,
    after: ConsentState,
    *,
    actor: str,
    now: datetime,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write down what a change of the contact row means: consent line, event, facts, queued mail skipped.

    Args:
        before: None for a contact made now.
        detail: of the request: wording_version, ip, note, campaign_id, message_id, source.
    """
    detail = detail or {}
    if before is None and after.consent_status is ConsentStatus.UNKNOWN:
        return
    if before != after:
        told = {**detail, "source": detail.get("source") or after.consent_source}
        _write_line(tx, contact_id, after.consent_status, told, actor, now)
    if before is None or before.subscribed == after.subscribed:
        return
    if not after.subscribed:
        _tell_unsubscribed(tx, contact_id, now, detail)
    fact = FactName.CONTACT_SUBSCRIBED if after.subscribed else FactName.CONTACT_UNSUBSCRIBED
    # The store uses this module; only here is it the other way round.
    from mautolib.contacts.store import as_json, get

    record(tx, fact, {"contact": as_json(get(tx, contact_id)), "changed": ["subscribed"]}, occurred_at=now)


def _write_line(
    tx: Connection, contact_id: int, status: ConsentStatus, detail: Mapping[str, Any], actor: str, now: datetime
) -> int:
    line = insert(tables.consents).values(
        contact_id=contact_id, status=str(status), source=detail.get("source") or "api", actor=actor, recorded_at=now,
        **{name: detail.get(name) for name in ("wording_version", "ip", "note")},
    )  # fmt: skip
    return int(tx.execute(line.returning(tables.consents.c.consent_id)).scalar_one())


def _tell_unsubscribed(tx: Connection, contact_id: int, now: datetime, detail: Mapping[str, Any]) -> None:
    skip_queued(tx, [contact_id], Skip.UNSUBSCRIBED)
    event = NewEvent(
        event_type=EventType.UNSUBSCRIBED, contact_id=contact_id, occurred_at=now,
        campaign_id=detail.get("campaign_id"), message_id=detail.get("message_id"),
        properties={"source": detail.get("source") or "api"},
    )  # fmt: skip
    append(tx, [event], now=now)


def unsubscribe(
    tx: Connection,
    contact_id: int,
    *,
    source: str,
    actor: str,
    now: datetime,
    campaign_id: int | None = None,
    message_id: int | None = None,
    ip: str | None = None,
) -> bool:
    """The person's own "no more": opted out, suppressed, told to everybody. Returns whether anything changed.

    A contact that no longer exists is nobody to unsubscribe: False.
    """
    row = locked(tx, contact_id)
    if row is None:
        return False
    address = (row.email, row.email_key)
    entry = _write_suppressions(tx, [address], SuppressionReason.UNSUBSCRIBE, source[:100], "", now)[0]
    detail = {"source": source, "campaign_id": campaign_id, "message_id": message_id, "ip": ip}
    if not row.subscribed and not entry.is_changed:
        return False
    before, after = _turn_off(tx, row, source, now)
    record_change(tx, contact_id, before, after, actor=actor, now=now, detail=detail)
    if not row.subscribed:
        # Opted out before by an editor: the person's own word is still a fact of its own.
        _tell_unsubscribed(tx, contact_id, now, detail)
    if message_id is not None:
        data = {"message_id": str(message_id), "campaign_id": str(campaign_id) if campaign_id else None,
                "contact_id": str(contact_id), "email": row.email, "url": None}  # fmt: skip
        record(tx, FactName.EMAIL_UNSUBSCRIBED, data, occurred_at=now)
    _LOG.info("contact %s unsubscribed (%s)", contact_id, source)
    return True


def set_subscribed(
    tx: Connection, contact_id: int, subscribed: bool, *, source: str, actor: str, now: datetime,
    status: ConsentStatus | None = None, detail: Mapping[str, Any] | None = None,
) -> bool:  # fmt: skip
    """Turn marketing mail on or off for a contact; returns whether anything changed.

    Raises:
        NotFound: no such contact.
        Conflict: `suppressed`: the address is suppressed by the person's own word.
    """
    row = locked(tx, contact_id)
    if row is None:
        raise NotFound("Contact not found")
    before = ConsentState.of(row)
    changes: dict[str, Any] = {"subscribed": subscribed}
    changes |= {"consent_status": status} if status not in (None, before.consent_status) else {}
    after = decide(before, changes, suppressed_as=suppression_of(tx, row.email_key), now=now, source=source)
    if after == before:
        return False
    _store(tx, row, after, now)
    record_change(tx, contact_id, before, after, actor=actor, now=now, detail={**(detail or {}), "source": source})
    if after.subscribed:
        append(tx, [granted(contact_id, before.columns(), after.columns(), now)], now=now)
    return True


def grant(
    tx: Connection, contact_id: int, *, source: str, actor: str, now: datetime,
    wording_version: str | None = None, ip: str | None = None, note: str | None = None,
) -> bool:  # fmt: skip
    """Consent given and confirmed (double opt-in): granted and subscribed. Returns whether anything changed.

    Raises:
        NotFound: no such contact.
        Conflict: `suppressed`: the address is suppressed by the person's own word.
    """
    detail = {"wording_version": wording_version, "ip": ip, "note": note}
    return set_subscribed(
        tx, contact_id, True, source=source, actor=actor, now=now, status=ConsentStatus.GRANTED, detail=detail
    )


def make_pending(
    tx: Connection, row: Row[Any], *, source: str, actor: str, now: datetime, detail: Mapping[str, Any]
) -> int:
    """The person is asked (`row` is `locked`): consent is pending, whatever it was; `subscribed` stays.

    Every question leaves a line, also when one was asked before. Returns: the id of that line.
    """
    before = ConsentState.of(row)
    after = replace(before, consent_status=ConsentStatus.PENDING, consent_source=source, consent_at=now)
    if before.consent_status is not ConsentStatus.PENDING:
        _store(tx, row, after, now)
    return _write_line(tx, row.contact_id, ConsentStatus.PENDING, {**detail, "source": source}, actor, now)


def resubscribe(
    tx: Connection, contact_id: int, *, source: str, actor: str, now: datetime, ip: str | None = None
) -> bool:
    """The person changes their mind on their own preference page: an `unsubscribe` is lifted, then as `grant`.

    Raises:
        NotFound: no such contact.
        Conflict: `suppressed`: a complaint or a legal reason stays.
    """
    row = locked(tx, contact_id)
    if row is None:
        raise NotFound("Contact not found")
    own_word = (_SUPPRESSIONS.email_key == row.email_key, _SUPPRESSIONS.reason == str(SuppressionReason.UNSUBSCRIBE))
    tx.execute(delete(tables.suppressions).where(*own_word))
    return grant(tx, contact_id, source=source, actor=actor, now=now, ip=ip)


def suppress(
    tx: Connection,
    email: str,
    reason: SuppressionReason,
    *,
    source: str = "",
    notes: str = "",
    actor: str,
    now: datetime,
    campaign_id: int | None = None,
    message_id: int | None = None,
    settings: Settings | None = None,
) -> Suppression:
    """Suppress one address (a known one keeps its entry, and its reason if that is stronger); returns the entry.

    Args:
        settings: for comparing with erased addresses, whose entries stay hashes.

    Raises:
        InvalidInput: not an address, or a text that is too long.
    """
    detail = {"campaign_id": campaign_id, "message_id": message_id}
    _check_texts({("body", "email"): email}, source, notes)
    return _suppress(tx, [email], reason, source, notes, actor, now, detail, settings)[0].entry


def suppress_many(
    tx: Connection, emails: Sequence[str], reason: SuppressionReason, *, source: str = "", actor: str, now: datetime,
    settings: Settings | None = None,
) -> Suppressed:  # fmt: skip
    """Suppress a list of addresses; repeats are counted in `suppressed`.

    Raises:
        InvalidInput: names the first entry that is not an address, and all others.
    """
    _check_texts({("body", "emails", place): email for place, email in enumerate(emails)}, source, "")
    done = _suppress(tx, emails, reason, source, "", actor, now, {}, settings)
    new = sum(one.is_new for one in done)
    _LOG.info("suppressed %s addresses as %s, %s new", len(emails), reason, new)
    return Suppressed(suppressed=len(emails), new=new, known=len(done) - new)


def unsuppress(
    tx: Connection, email: str, *, actor: str, now: datetime, may_remove_any: bool = False,
    settings: Settings | None = None,
) -> Suppression:  # fmt: skip
    """Take an address off the list; nobody is re-subscribed by it. Returns the entry that was removed.

    Args:
        may_remove_any: complaint and compliance entries need it (administrators).
        settings: for finding the entry of an erased address.

    Raises:
        NotFound: the address is not suppressed.
        NotAllowed: a complaint or compliance entry.
    """
    key = address_key(email)
    person = tx.execute(select(tables.contacts).where(_CONTACTS.email_key == key).with_for_update()).one_or_none()
    query = select(tables.suppressions).where(_SUPPRESSIONS.email_key == key).with_for_update()
    row = tx.execute(query).one_or_none() or erased.entries(tx, [key], settings).get(key)
    if row is None:
        raise NotFound("Email not found in suppression list")
    if not may_remove_any and row.reason in (SuppressionReason.COMPLAINT, SuppressionReason.COMPLIANCE):
        raise NotAllowed(f"A suppression because of {row.reason} is removed by an administrator only")
    tx.execute(delete(tables.suppressions).where(_SUPPRESSIONS.suppression_id == row.suppression_id))
    if person is not None and person.subscribed and row.reason in CONSENT_STOPPERS:
        # Made while the entry was written, neither having seen the other: mail must not begin by taking it off.
        before, after = _turn_off(tx, person, row.source or row.reason, now)
        record_change(tx, person.contact_id, before, after, actor=actor, now=now)
    _LOG.info("suppression %s (%s) removed", row.suppression_id, row.reason)
    return entry_of(row)


def suppression_of(tx: Connection, email_key: str) -> SuppressionReason | None:
    """Why an address (its key) is suppressed, None when it is not."""
    reason = tx.scalar(select(_SUPPRESSIONS.reason).where(_SUPPRESSIONS.email_key == email_key))
    return SuppressionReason(reason) if reason is not None else None


@dataclass(frozen=True, kw_only=True)
class _Done:
    entry: Suppression
    is_new: bool
    is_changed: bool


def _suppress(
    tx: Connection, emails: Sequence[str], reason: SuppressionReason, source: str, notes: str, actor: str,
    now: datetime, detail: Mapping[str, Any], settings: Settings | None,
) -> list[_Done]:  # fmt: skip
    reason = SuppressionReason(reason)
    addresses = [(parsed.email, parsed.key) for parsed in map(parse, emails)]
    keys = sorted({key for _, key in addresses})
    locked = select(tables.contacts).where(_CONTACTS.email_key.in_(keys)).order_by(_CONTACTS.contact_id)
    people = tx.execute(locked.with_for_update()).all()
    hashed = erased.entries(tx, keys, settings)
    done = [
        _Done(entry=entry_of(after), is_new=False, is_changed=after is not row)
        for row in hashed.values()
        for after in (erased.strengthen(tx, row, reason, now=now),)
    ]
    shown = [(email, key) for email, key in addresses if key not in hashed]
    done += _write_suppressions(tx, shown, reason, source, notes, now) if shown else []
    # Before `subscribed` is turned off: where it is the complaint that stops these, they are to say so.
    word = Skip.UNSUBSCRIBED if reason is SuppressionReason.UNSUBSCRIBE else Skip.SUPPRESSED
    skip_queued(tx, [person.contact_id for person in people], word)
    if reason in CONSENT_STOPPERS:
        for row in (person for person in people if person.subscribed):
            before, after = _turn_off(tx, row, source or str(reason), now)
            told = {**detail, "source": source or str(reason)}
            record_change(tx, row.contact_id, before, after, actor=actor, now=now, detail=told)
    return done


def _check_texts(emails: Mapping[tuple[str | int, ...], str], source: str, notes: str) -> None:
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for path, email in emails.items():
        try:
            parse(email)
        except InvalidInput as error:
            problems.append((path, str(error)))
    # Notes are text of many lines: tabs and line breaks of any kind belong there.
    for name, text, limit in (("source", source, 100), ("notes", re.sub("[\t\r\n]", " ", notes), 2000)):
        problem = single_line_problem(text, limit)
        if problem:
            problems.append((("body", name), f"{name} {problem}"))
    if problems:
        raise InvalidInput(problems[0][1], path=problems[0][0], problems=tuple(problems[1:]))


def _write_suppressions(
    tx: Connection, addresses: Sequence[tuple[str, str]], reason: SuppressionReason, source: str, notes: str,
    now: datetime,
) -> list[_Done]:  # fmt: skip
    rows = tx.execute(statement("contacts.suppress"), {
        "email": [email for email, _ in addresses], "email_key": [key for _, key in addresses],
        "reason": str(reason), "source": source, "notes": notes, "now": now,
    }).all()  # fmt: skip
    return [_Done(entry=entry_of(row), is_new=row.is_new, is_changed=row.is_changed) for row in rows]


def locked(tx: Connection, contact_id: int) -> Row[Any] | None:
    """The row of a contact, kept from changing until the transaction ends; None when there is none."""
    query = select(tables.contacts).where(_CONTACTS.contact_id == contact_id).with_for_update()
    return tx.execute(query).one_or_none()


def _turn_off(tx: Connection, row: Row[Any], source: str, now: datetime) -> tuple[ConsentState, ConsentState]:
    before = ConsentState.of(row)
    after = ConsentState(
        subscribed=False, consent_status=ConsentStatus.WITHDRAWN, consent_source=source[:100], consent_at=now
    )
    _store(tx, row, after, now)
    return before, after


def _store(tx: Connection, row: Row[Any], after: ConsentState, now: datetime) -> None:
    change = update(tables.contacts).where(_CONTACTS.contact_id == row.contact_id)
    tx.execute(change.values(**after.columns(), version=row.version + 1, updated_at=now))


def entry_of(row: Row[Any]) -> Suppression:
    """The entry a row of `suppressions` stands for."""
    return Suppression(
        suppression_id=row.suppression_id,
        email=row.email if row.email is not None else f"erased:{bytes(row.email_hash).hex()}",
        reason=SuppressionReason(row.reason), source=row.source, notes=row.notes, created_at=row.created_at,
    )  # fmt: skip
