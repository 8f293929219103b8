"""One change for many contacts at once, in a few statements whatever the number.

Promise: to each contact it is what `store.update`, `consent.set_subscribed` or `tags.detach` would do - the same
checks, versions, events, consent lines and webhook facts. Contacts are locked in the order of their ids. Called by the
actions of workflows and rules; a contact that is gone is passed over, one that refuses is told with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select

from mautolib.contacts import consent
from mautolib.contacts.consent import ConsentState
from mautolib.contacts.granted import granted
from mautolib.contacts.model import SuppressionReason
from mautolib.contacts.store import as_json, complete
from mautolib.contacts.validation import check_changes
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.db.values import is_same
from mautolib.errors import Conflict, InvalidInput
from mautolib.events.append import NewEvent, append
from mautolib.events.types import EventType
from mautolib.ledger.model import Skip
from mautolib.ledger.skip import skip_queued
from mautolib.outbox import Fact, FactName, record_many

__all__ = ["CUSTOM", "check_field", "remove_tag", "set_field", "set_subscribed"]

#: Before the key of a custom field.
CUSTOM: Final = "custom_fields."
_FIELDS: Final = ("first_name", "last_name", "phone", "country", "language", "timezone", "currency")
_C = tables.contacts.c


def check_field(field: str, value: object) -> None:
    """See that a field can be set to a value for whoever it is.

    Raises:
        InvalidInput: no such field, or not a value of it; paths end in `field` or `value`.
    """
    if field not in _FIELDS and not (field.startswith(CUSTOM) and field != CUSTOM):
        raise InvalidInput(f"'field' must be {', '.join(_FIELDS)} or {CUSTOM}<key>", path=("field",))
    try:
        check_changes(_change(field, value, {}))
    except InvalidInput as error:
        raise InvalidInput(str(error), path=("value",)) from None


def set_field(
    tx: Connection, contact_ids: Sequence[int], field: str, value: object, *, now: datetime
) -> dict[int, str | None]:
    """Set one field (`custom_fields.<key>`: that key of the dict, the others stay).

    Returns: by contact that exists why it could not be set (its custom fields are full), None if it is set.
    """
    refused: dict[int, str | None] = {}
    changed: dict[int, dict[str, Any]] = {}
    for row in _locked(tx, contact_ids):
        refused[row.contact_id] = None
        try:
            wanted = check_changes(_change(field, value, row.custom_fields))
        except InvalidInput as error:
            refused[row.contact_id] = str(error)
            continue
        if not all(is_same(getattr(row, name), new) for name, new in wanted.items()):
            changed[row.contact_id] = wanted
    if changed:
        name = "custom_fields" if field.startswith(CUSTOM) else field
        _write(tx, changed, now)
        ids = sorted(changed)
        _tell(tx, ids, EventType.CONTACT_UPDATED, {"changed": [name]}, now)
        _offer(tx, ids, FactName.CONTACT_UPDATED, name, now)
    return refused


def set_subscribed(
    tx: Connection, contact_ids: Sequence[int], subscribed: bool, *, source: str, actor: str, now: datetime
) -> dict[int, str | None]:
    """Turn marketing mail on or off; on grants consent, off withdraws it, whoever has it so is left alone.

    Returns: by contact that exists why it may not be turned on (suppressed by the person's own word), else None.
    """
    rows = _locked(tx, contact_ids)
    stoppers = _suppressions(tx, [row.email_key for row in rows]) if subscribed else {}
    refused: dict[int, str | None] = {}
    after: dict[int, ConsentState] = {}
    for row in rows:
        refused[row.contact_id] = None
        before = ConsentState.of(row)
        try:
            state = consent.decide(
                before, {"subscribed": subscribed}, suppressed_as=stoppers.get(row.email_key), now=now, source=source
            )
        except Conflict as error:
            refused[row.contact_id] = str(error)
            continue
        if state != before:
            after[row.contact_id] = state
    if after:
        _write(tx, {person: _plain(state.columns()) for person, state in after.items()}, now)
        _record_consent(tx, sorted(after), subscribed, source=source, actor=actor, now=now)
        if subscribed:
            were = {row.contact_id: ConsentState.of(row) for row in rows}
            append(tx, [
                granted(person, were[person].columns(), state.columns(), now) for person, state in sorted(after.items())
            ], now=now)  # fmt: skip
    return refused


def remove_tag(tx: Connection, contact_ids: Sequence[int], tag_name: str, *, now: datetime) -> set[int]:
    """Take the tag of a name, in whatever case, off contacts, each with its `tag_removed` event.

    Returns: those of the contacts that exist.
    """
    binds = {"contact_ids": sorted(set(contact_ids)), "tag_name": tag_name}
    present = set(tx.scalars(statement("contacts.hold_existing"), binds))
    pairs = tx.execute(statement("contacts.detach_tag_of_many"), binds).all()
    append(tx, [
        NewEvent(event_type=EventType.TAG_REMOVED, contact_id=pair.contact_id, occurred_at=now,
                 properties={"tag_id": str(pair.tag_id), "tag_name": pair.name})
        for pair in pairs
    ], now=now)  # fmt: skip
    return present


def _change(field: str, value: object, custom: Mapping[str, Any]) -> dict[str, Any]:
    if field.startswith(CUSTOM):
        return {"custom_fields": {**custom, field.removeprefix(CUSTOM): value}}
    return {field: value}


def _locked(tx: Connection, contact_ids: Sequence[int]) -> Sequence[Row[Any]]:
    wanted = sorted(set(contact_ids))
    query = select(tables.contacts).where(_C.contact_id.in_(wanted)).order_by(_C.contact_id)
    return tx.execute(query.with_for_update()).all() if wanted else []


def _suppressions(tx: Connection, keys: Sequence[str]) -> dict[str, SuppressionReason]:
    table = tables.suppressions.c
    rows = tx.execute(select(table.email_key, table.reason).where(table.email_key.in_(keys)))
    return {row.email_key: SuppressionReason(row.reason) for row in rows}


def _write(tx: Connection, changes: Mapping[int, Mapping[str, Any]], now: datetime) -> None:
    rows = [{"contact_id": person, **values} for person, values in sorted(changes.items())]
    tx.execute(statement("contacts.change_many"), {"changes": json.dumps(rows), "now": now})


def _plain(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in columns.items()}


def _record_consent(
    tx: Connection, people: Sequence[int], subscribed: bool, *, source: str, actor: str, now: datetime
) -> None:
    status = "granted" if subscribed else "withdrawn"
    lines = [
        {"contact_id": person, "status": status, "source": source, "actor": actor, "recorded_at": now}
        for person in people
    ]
    tx.execute(insert(tables.consents), lines)
    if not subscribed:
        skip_queued(tx, people, Skip.UNSUBSCRIBED)
        _tell(tx, people, EventType.UNSUBSCRIBED, {"source": source}, now)
    fact = FactName.CONTACT_SUBSCRIBED if subscribed else FactName.CONTACT_UNSUBSCRIBED
    _offer(tx, people, fact, "subscribed", now)


def _offer(tx: Connection, people: Sequence[int], fact: FactName, changed: str, now: datetime) -> None:
    """Offer what became of contacts to webhooks, whole as single changes do."""
    rows = tx.execute(select(tables.contacts).where(_C.contact_id.in_(people))).all()
    record_many(tx, [
        Fact(name=fact, data={"contact": as_json(contact), "changed": [changed]}, occurred_at=now)
        for contact in complete(tx, rows)
    ])  # fmt: skip


def _tell(
    tx: Connection, people: Sequence[int], event_type: EventType, properties: Mapping[str, Any], now: datetime
) -> None:
    append(tx, [
        NewEvent(event_type=event_type, contact_id=person, occurred_at=now, properties=properties)
        for person in people
    ], now=now)  # fmt: skip
