"""One contact: make, read, change, delete - with consent, tags, events and webhook facts in the same transaction.

Guards one contact per address key (a taken one is `Conflict` `duplicate`) and a version for every change, from which
the database keeps the history. Called by the API, events (contacts first seen there), workflows and the JSON import;
files come in through `contacts.imports`. Lists are in `listing`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy import delete as delete_from
from sqlalchemy import update as update_of
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from mautolib.contacts import consent, domains, erased
from mautolib.contacts.address import Address, address_key
from mautolib.contacts.consent import ConsentState
from mautolib.contacts.granted import consent_told
from mautolib.contacts.model import (
    CONSENT_STOPPERS,
    ConsentStatus,
    Contact,
    NewContact,
    SegmentRef,
    TagRef,
)
from mautolib.contacts.validation import check_changes, check_grant, check_new
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.db.values import is_same
from mautolib.errors import Conflict, NotFound
from mautolib.events.append import NewEvent, append
from mautolib.events.types import EventType
from mautolib.ledger.model import Skip
from mautolib.ledger.skip import skip_queued
from mautolib.outbox import FactName, record
from mautolib.settings import Settings

__all__ = ["add_tags", "as_json", "complete", "create", "delete", "erase", "find_by_email", "get", "remove_tag",
           "update"]  # fmt: skip

_LOG = logging.getLogger(__name__)
_TABLE = tables.contacts
_C = tables.contacts.c
_DUPLICATE = "Contact with this email already exists"


def create(
    tx: Connection,
    new: NewContact,
    *,
    actor: str,
    now: datetime,
    source: str = "api",
    settings: Settings | None = None,
) -> Contact:
    """Make a contact; one whose address is suppressed by the person's own word starts opted out.

    Args:
        source: the door: api, import, event, demo.
        settings: for further lists of disposable domains, and for comparing with erased addresses.

    Raises:
        InvalidInput: lists every value that is not acceptable.
        Conflict: `duplicate`: the address has a contact.
    """
    values = check_new(new)
    address: Address = values.pop("email")
    risk = domains.risk_of(address, domains.lists(settings))
    erased.revive(tx, [address.key], settings)
    if consent.suppression_of(tx, address.key) in CONSENT_STOPPERS:
        values["subscribed"] = False
    if values["consent_status"] is not ConsentStatus.UNKNOWN:
        values["consent_at"] = values["consent_at"] or now
        values["consent_source"] = values["consent_source"] or "api"
    row = tx.execute(
        insert(_TABLE).values(
            **values, email=address.email, email_key=address.key, source=source, created_at=now,
            is_disposable=risk.is_disposable, is_free_provider=risk.is_free_provider,
            is_role_based=risk.is_role_based,
        ).on_conflict_do_nothing(index_elements=[_C.email_key]).returning(_TABLE)
    ).one_or_none()  # fmt: skip
    if row is None:
        raise Conflict(_DUPLICATE, code="duplicate")
    row = _opt_out_if_erased(tx, row, settings)
    contact_id = int(row.contact_id)
    consent.record_change(tx, contact_id, None, ConsentState.of(row), actor=actor, now=now)
    _tell(tx, EventType.CONTACT_CREATED, contact_id, {"source": source}, now)
    if new.tag_ids:
        add_tags(tx, [contact_id], new.tag_ids, now=now)
    contact = complete(tx, [row])[0]
    record(tx, FactName.CONTACT_CREATED, {"contact": as_json(contact), "changed": []}, occurred_at=now)
    _LOG.info("contact %s created (%s)", contact_id, source)
    return contact


def get(tx: Connection, contact_id: int, *, lock: bool = False) -> Contact:
    """The contact with this id.

    Args:
        lock: keep others from changing it until the transaction ends.

    Raises:
        NotFound: no such contact.
    """
    return complete(tx, [_row(tx, contact_id, lock=lock)])[0]


def find_by_email(tx: Connection, email: str) -> Contact | None:
    """The contact of an address, however it is typed; None when there is none."""
    rows = tx.execute(select(_TABLE).where(_C.email_key == address_key(email))).all()
    return complete(tx, rows)[0] if rows else None


def update(
    tx: Connection, contact_id: int, changes: Mapping[str, Any], *, actor: str, now: datetime,
    settings: Settings | None = None,
) -> Contact:  # fmt: skip
    """Change the given fields (create fields but tags; `custom_fields` replaces the whole dict); others stay.

    A change that changes nothing makes no version and no event. Unknown and read-only names are ignored.

    Raises:
        NotFound: no such contact.
        InvalidInput: lists every value that is not acceptable.
        Conflict: `duplicate` address, or `suppressed` when turning `subscribed` on.
    """
    row = _row(tx, contact_id, lock=True)
    tidy = check_changes(changes)
    before = ConsentState.of(row)
    wanted = _columns(tidy, settings)
    if wanted.get("email_key", row.email_key) != row.email_key:
        erased.revive(tx, [wanted["email_key"]], settings)
    stopper = consent.suppression_of(tx, wanted.get("email_key", row.email_key))
    check_grant(before.consent_status, before.consent_source, tidy)
    after = consent.decide(before, tidy, suppressed_as=stopper, now=now)
    if after.subscribed and wanted.get("email_key", row.email_key) != row.email_key and stopper in CONSENT_STOPPERS:
        after = consent.decide(before, {**tidy, "subscribed": False}, suppressed_as=stopper, now=now)
    wanted |= after.columns()
    changed = {name: value for name, value in wanted.items() if not is_same(getattr(row, name), value)}
    if not changed:
        return complete(tx, [row])[0]
    new_row = _write(tx, row, changed, now)
    if "email_key" in changed:
        new_row = _opt_out_if_erased(tx, new_row, settings)
        after = ConsentState.of(new_row)
    if after != before:
        consent.record_change(tx, contact_id, before, after, actor=actor, now=now)
    contact = complete(tx, [new_row])[0]
    names = sorted(set(changed) - {"email_key", "is_disposable", "is_free_provider", "is_role_based"})
    consented = consent_told(after.columns()) if after != before else {}
    _tell(tx, EventType.CONTACT_UPDATED, contact_id, {"changed": names, **consented}, now)
    record(tx, FactName.CONTACT_UPDATED, {"contact": as_json(contact), "changed": names}, occurred_at=now)
    _LOG.info("contact %s updated: %s", contact_id, ", ".join(names))
    return contact


def delete(tx: Connection, contact_id: int, *, actor: str, now: datetime) -> None:
    """Remove a contact with tags, memberships, enrollments and scores; its events, messages and suppression stay.

    Raises:
        NotFound: no such contact.
    """
    contact = get(tx, contact_id, lock=True)
    skip_queued(tx, [contact_id], Skip.CANCELLED)
    tx.execute(statement("contacts.delete_contact"), {"contact_id": contact_id})
    record(tx, FactName.CONTACT_DELETED, {"contact": as_json(contact), "changed": []}, occurred_at=now)
    _LOG.info("contact %s deleted by %s", contact_id, actor)


def erase(tx: Connection, contact_id: int, *, now: datetime) -> dict[str, int]:
    """Remove a contact with its versions, tags, memberships, enrollments and scores; nothing of it is told outside.

    Returns: rows removed by table. The other stores, totals and suppression are `privacy.erase`'s part.
    Raises:
        NotFound: no such contact.
    """
    _row(tx, contact_id, lock=True)
    skip_queued(tx, [contact_id], Skip.ERASED)
    owned = {"contact_tags": tables.contact_tags, "segment_static_members": tables.segment_static_members,
             "automation_waits": tables.automation_waits, "cart_timers": tables.cart_timers}  # fmt: skip
    counts = {
        name: tx.execute(delete_from(table).where(table.c.contact_id == contact_id)).rowcount
        for name, table in owned.items()
    }
    rows = tx.execute(statement("contacts.erase_contact"), {"contact_id": contact_id})
    counts |= {row.table_name: row.row_count for row in rows}
    record(tx, FactName.CONTACT_DELETED, {"contact": {"id": str(contact_id)}, "changed": []}, occurred_at=now)
    _LOG.info("contact %s erased", contact_id)
    return {name: count for name, count in counts.items() if count}


def add_tags(tx: Connection, contact_ids: Sequence[int], tag_ids: Sequence[int], *, now: datetime) -> int:
    """Add tags to contacts, each new pair with its `tag_added` event; unknown ids are passed over.

    Returns: the number of new pairs.
    """
    binds = {"contact_ids": list(contact_ids), "tag_ids": list(tag_ids), "now": now}
    pairs = tx.execute(statement("contacts.attach_tags"), binds).all()
    append(tx, [
        NewEvent(event_type=EventType.TAG_ADDED, contact_id=pair.contact_id, occurred_at=now,
                 properties={"tag_id": str(pair.tag_id), "tag_name": pair.name})
        for pair in pairs
    ], now=now)  # fmt: skip
    return len(pairs)


def remove_tag(tx: Connection, contact_id: int, tag_id: int, *, now: datetime) -> bool:
    """Take a tag off a contact; returns whether it was there."""
    name = tx.scalar(statement("contacts.detach_tag"), {"contact_id": contact_id, "tag_id": tag_id})
    if name is not None:
        _tell(tx, EventType.TAG_REMOVED, contact_id, {"tag_id": str(tag_id), "tag_name": name}, now)
    return name is not None


def complete(tx: Connection, rows: Sequence[Row[Any]]) -> list[Contact]:
    """Rows of `contacts` with stage, suppression, tags and segments, in the same order, by one statement."""
    ids = [row.contact_id for row in rows]
    details = {row.contact_id: row for row in tx.execute(statement("contacts.details"), {"contact_ids": ids})}
    return [_contact(row, details[row.contact_id]) for row in rows]


def as_json(contact: Contact) -> dict[str, Any]:
    """The contact as webhooks and exports show it: ids as text, moments in ISO 8601."""
    shown = {name: getattr(contact, name) for name in (
        "email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency", "subscribed",
        "suppressed", "consent_source", "lifecycle_stage",
    )}  # fmt: skip
    return {
        "id": str(contact.contact_id), **shown, "custom_fields": dict(contact.custom_fields),
        "consent_status": str(contact.consent_status), "consent_at": _iso(contact.consent_at),
        "tags": [{"id": str(tag.tag_id), "name": tag.name, "color": tag.color} for tag in contact.tags],
        "segments": [{"id": str(one.segment_id), "name": one.name} for one in contact.segments],
        "created_at": _iso(contact.created_at), "updated_at": _iso(contact.updated_at),
    }  # fmt: skip


def _row(tx: Connection, contact_id: int, *, lock: bool) -> Row[Any]:
    query = select(_TABLE).where(_C.contact_id == contact_id)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound("Contact not found")
    return row


def _columns(tidy: Mapping[str, Any], settings: Settings | None) -> dict[str, Any]:
    columns = {name: value for name, value in tidy.items() if name != "email"}
    if "email" in tidy:
        address: Address = tidy["email"]
        risk = domains.risk_of(address, domains.lists(settings))
        columns |= {"email": address.email, "email_key": address.key, "is_disposable": risk.is_disposable,
                    "is_free_provider": risk.is_free_provider, "is_role_based": risk.is_role_based}  # fmt: skip
    return columns


def _opt_out_if_erased(tx: Connection, row: Row[Any], settings: Settings | None) -> Row[Any]:
    """The row after a second look: its address may have been erased while writing it waited for just that."""
    if erased.revive(tx, [row.email_key], settings).get(row.email_key) not in CONSENT_STOPPERS or not row.subscribed:
        return row
    change = update_of(_TABLE).where(_C.contact_id == row.contact_id).values(subscribed=False)
    return tx.execute(change.returning(_TABLE)).one()


def _write(tx: Connection, row: Row[Any], changed: Mapping[str, Any], now: datetime) -> Row[Any]:
    change = update_of(_TABLE).where(_C.contact_id == row.contact_id)
    change = change.values(**changed, version=row.version + 1, updated_at=now)
    try:
        with tx.begin_nested():
            return tx.execute(change.returning(_TABLE)).one()
    except IntegrityError as error:
        if "one_contact_per_address" in str(error.orig):
            raise Conflict(_DUPLICATE, code="duplicate") from error
        raise


def _tell(tx: Connection, event_type: EventType, contact_id: int, properties: dict[str, Any], now: datetime) -> None:
    event = NewEvent(event_type=event_type, contact_id=contact_id, occurred_at=now, properties=properties)
    append(tx, [event], now=now)


def _contact(row: Row[Any], detail: Row[Any]) -> Contact:
    values = {column.name: getattr(row, column.name) for column in _TABLE.columns if column.name != "source"}
    values["consent_status"] = ConsentStatus(row.consent_status)
    return Contact(
        **values, suppressed=detail.is_suppressed, lifecycle_stage=detail.lifecycle_stage,
        tags=tuple(TagRef(tag_id=one[0], name=one[1], color=one[2]) for one in detail.tags),
        segments=tuple(SegmentRef(segment_id=one[0], name=one[1]) for one in detail.segments),
    )  # fmt: skip


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
