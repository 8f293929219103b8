"""Asking for an erasure: the contact and its address are gone with this transaction, the rest is written down.

Guards that past totals stay (the tombstone and the counts without the person are written before the row goes), that
the address still stops mail (its keyed hash stays suppressed), and that what is still to be looked for is known to
maintenance alone. Called by the API; `removal` does the rest.
"""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import Connection, insert, select

from mautolib import contacts
from mautolib.contacts import address_key, erased
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import NotFound
from mautolib.privacy.model import Erasure, ErasureStatus, TableCount, Traces
from mautolib.settings import Settings

__all__ = ["erase", "get_erasure"]

_LOG = logging.getLogger(__name__)
_E = tables.erasures.c


def erase(tx: Connection, contact_id: int, *, actor: str, now: datetime, settings: Settings) -> Erasure:
    """Erase a person: nobody can be found or mailed by the contact or its address from this transaction on.

    Raises:
        NotFound: no such contact.
        Misconfigured: the suppression pepper is missing.
    """
    contact = contacts.get(tx, contact_id, lock=True)
    traces = _traces(tx, contact_id)
    who = {"contact_id": contact_id, "now": now}
    tx.execute(statement("privacy.count_activity"), who)
    tx.execute(statement("privacy.bury"), who)
    skipped = tx.execute(statement("privacy.skip_mail_to"), {"email_keys": sorted(traces.keys)}).rowcount
    counts = contacts.erase(tx, contact_id, now=now)
    hashed = sum(
        erased.forget(tx, key, settings, now=now, must_stay=key == contact.email_key) for key in sorted(traces.keys)
    )
    counts |= {name: count for name, count in (("suppressions", hashed), ("messages", skipped)) if count}
    erasure_id = tx.execute(insert(tables.erasures).values(
        contact_id=contact_id, requested_by=actor, requested_at=now, next_try_at=now, tables=counts,
        traces=traces.as_json(),
    ).returning(_E.erasure_id)).scalar_one()  # fmt: skip
    _LOG.info("erasure %s of contact %s requested by %s", erasure_id, contact_id, actor)
    return get_erasure(tx, erasure_id)


def get_erasure(tx: Connection, erasure_id: int) -> Erasure:
    """The erasure with this id.

    Raises:
        NotFound: no such erasure.
    """
    shown = (_E.erasure_id, _E.contact_id, _E.status, _E.requested_by, _E.requested_at, _E.completed_at, _E.tables)
    row = tx.execute(select(*shown).where(_E.erasure_id == erasure_id)).one_or_none()
    if row is None:
        raise NotFound("Erasure not found")
    counts = tuple(TableCount(table=name, rows=rows) for name, rows in sorted(row.tables.items()))
    return Erasure(**{**row._mapping, "status": ErasureStatus(row.status), "tables": counts})


def _traces(tx: Connection, contact_id: int) -> Traces:
    """How the person was ever written down; an earlier address that somebody else has now is theirs."""
    found = tx.execute(statement("privacy.traces_of"), {"contact_id": contact_id}).one()
    keys = sorted({address_key(address) for address in found.addresses})
    taken = {
        row.email_key
        for row in tx.execute(statement("privacy.taken_keys"), {"email_keys": keys})
        if row.contact_id != contact_id
    }
    own = tuple(sorted(address for address in found.addresses if address_key(address) not in taken))
    return Traces(addresses=own, names=tuple(sorted(found.names)), phones=tuple(sorted(found.phones)))
