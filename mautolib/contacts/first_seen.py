"""Contacts first seen in what a shop tells: found by id or address, many at once, and made where there is none.

An event is no consent: such a contact starts with `subscribed` false, whatever its address says. Each is made once,
also by parallel callers, with its event and webhook fact. Called by `ingestion`; one contact given by a person is
made by `store.create`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from mautolib.contacts import domains, erased
from mautolib.contacts.address import Address
from mautolib.contacts.store import as_json, complete
from mautolib.db.statements import statement
from mautolib.errors import ProviderUnavailable
from mautolib.events.append import NewEvent, append
from mautolib.events.types import EventType
from mautolib.outbox import Fact, FactName, record_many
from mautolib.settings import Settings

__all__ = ["Known", "find_many", "first_seen"]

_LOG = logging.getLogger(__name__)
_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Known:
    """Existing contacts: address key by id, and id by address key."""

    keys: dict[int, str]
    ids: dict[str, int]


def find_many(tx: Connection, contact_ids: Iterable[int] = (), email_keys: Iterable[str] = ()) -> Known:
    """Which contacts with these ids or address keys exist."""
    binds = {"contact_ids": list(set(contact_ids)), "email_keys": list(set(email_keys))}
    if not binds["contact_ids"] and not binds["email_keys"]:
        return Known(keys={}, ids={})
    rows = tx.execute(statement("contacts.find_many"), binds).all()
    return Known(
        keys={row.contact_id: row.email_key for row in rows}, ids={row.email_key: row.contact_id for row in rows}
    )


def first_seen(
    tx: Connection, addresses: Iterable[Address], *, source: str, now: datetime, settings: Settings,
    countries: Mapping[str, str] | None = None, effects: bool = True,
) -> dict[str, int]:
    """The contacts of these addresses by key; who has none gets one, opted out.

    Args:
        source: the door they came through, e.g. "event".
        countries: code of the country by address key, of those that are made.
        effects: False: history; their events start nothing and no webhook is told.
    """  # fmt: skip
    wanted = {address.key: address for address in addresses}
    found: dict[str, int] = {}
    for _ in range(_TRIES):
        missing = [wanted[key] for key in sorted(wanted.keys() - found.keys())]
        if not missing:
            return found
        found |= _make(tx, missing, source, now, settings, countries or {}, effects)
        # What somebody else made meanwhile is theirs; only one deleted this moment would still be missing.
        found |= find_many(tx, email_keys=wanted.keys() - found.keys()).ids
    raise ProviderUnavailable("contacts are being deleted as fast as they are made")


def _make(
    tx: Connection, addresses: Sequence[Address], source: str, now: datetime, settings: Settings,
    countries: Mapping[str, str], effects: bool,
) -> dict[str, int]:  # fmt: skip
    lists = domains.lists(settings)
    rows = [
        {"email": one.email, "email_key": one.key, "country": countries.get(one.key, ""), **_risk(one, lists)}
        for one in addresses
    ]
    binds = {"rows": json.dumps(rows), "source": source, "now": now}
    new = tx.execute(statement("contacts.create_first_seen"), binds).all()
    erased.revive(tx, [row.email_key for row in new], settings)
    made = complete(tx, new)
    append(tx, [
        NewEvent(event_type=EventType.CONTACT_CREATED, contact_id=one.contact_id, occurred_at=now,
                 properties={"source": source})
        for one in made
    ], now=now, effects=effects)  # fmt: skip
    if effects:
        record_many(tx, [
            Fact(name=FactName.CONTACT_CREATED, data={"contact": as_json(one), "changed": []}, occurred_at=now)
            for one in made
        ])  # fmt: skip
    if made:
        _LOG.info("contacts first seen (%s): %s", source, len(made))
    return {one.email_key: one.contact_id for one in made}


def _risk(address: Address, lists: domains.DomainLists) -> dict[str, bool]:
    risk = domains.risk_of(address, lists)
    return {"is_disposable": risk.is_disposable, "is_free_provider": risk.is_free_provider,
            "is_role_based": risk.is_role_based}  # fmt: skip
