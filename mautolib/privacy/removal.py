"""Carrying erasures out: every store a person left rows in is cleaned, then the traces themselves are forgotten.

Promises that it may be killed, repeated or run twice at once: each step is one transaction that finds nothing the
second time, and an erasure ends only when a whole pass ran after everything that still knew the person (mail being
handed over, an import at work) had settled. Works as role mauto_eraser where there is one. Called by maintenance.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, Row, func, select

from mautolib.contacts import address_key
from mautolib.db import tables
from mautolib.db.engine import connect
from mautolib.db.statements import statement
from mautolib.privacy.files import clean_files
from mautolib.privacy.model import ErasureStatus, Search, Traces
from mautolib.privacy.staged import clean_staged
from mautolib.privacy.sweep import sweep
from mautolib.settings import Settings

__all__ = ["CLEANED", "Carried", "carry_out"]

_LOG = logging.getLogger(__name__)
_LOCK = 7_226_170_011  # any constant; the same in every process
_AT_ONCE = 100
_WAIT = timedelta(minutes=2)
_AGAIN_AFTER_FAILURE = timedelta(hours=1)
#: Tables cleaned by contact, each with its statement `clean_<table>`; in this order, and before the sweep.
CLEANED = (
    "message_contents", "message_attempts", "messages", "event_keys", "events", "orders", "hits", "consents",
    "workflow_logs", "automation_logs", "score_awards", "stage_transitions", "outbox", "webhook_deliveries",
    "idempotency_keys", "audit_log", "contact_search",
)  # fmt: skip
#: Properties of events that say what happened and how much, not to whom.
KEPT_PROPERTIES = (
    "kind", "workflow_id", "import_id", "tag_id", "segment_id", "form", "order_id", "refund_id", "cart_id", "currency",
    "total", "amount", "discount", "shipping", "tax", "lines",
)  # fmt: skip
#: What files and the rows of imports that wait are counted as, beside the names of tables.
_STORAGE, _STAGED = "storage", "import_rows"


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What a run did: erasures that ended, and those that wait for something to settle."""

    completed: int = 0
    waiting: int = 0


def carry_out(engine: Engine, settings: Settings, *, now: datetime) -> Carried:
    """Clean all stores for the erasures that are due; nothing to do when another run is at it.

    Args:
        engine: used where neither the eraser's nor the owner's URL is set.

    Raises:
        Exception: whatever went wrong; the erasures at hand are `failed` and tried again in an hour.
    """
    with _as_eraser(engine, settings) as eraser, _alone(eraser) as is_alone:
        with eraser.begin() as tx:
            due = tx.execute(statement("privacy.due"), {"now": now, "limit": _AT_ONCE}).all() if is_alone else []
            searches = _searches(tx, settings, due)
        if not searches:
            return Carried()
        ids = [search.erasure_id for search in searches]
        try:
            waiting = _clean(eraser, settings, searches, now)
        except Exception:
            _LOG.exception("erasures %s failed and are tried again", ids)
            _settle(eraser, dict.fromkeys(ids, ErasureStatus.FAILED), now)
            raise
        ended = {one: ErasureStatus.RUNNING if one in waiting else ErasureStatus.COMPLETED for one in ids}
        _settle(eraser, ended, now)
    _LOG.info("erasures: %s completed, %s wait", len(ids) - len(waiting), len(waiting))
    return Carried(completed=len(ids) - len(waiting), waiting=len(waiting))


@contextmanager
def _as_eraser(engine: Engine, settings: Settings) -> Iterator[Engine]:
    url = settings.eraser_database_url or settings.database_url
    if not url:
        yield engine
        return
    eraser = connect(url, application_name="mauto-eraser", pool_size=2)
    try:
        yield eraser
    finally:
        eraser.dispose()


@contextmanager
def _alone(engine: Engine) -> Iterator[bool]:
    """Whether this is the only run; held by a session of its own, without a transaction that could grow old."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        is_alone = bool(guard.scalar(select(func.pg_try_advisory_lock(_LOCK))))
        try:
            yield is_alone
        finally:
            if is_alone:
                guard.execute(select(func.pg_advisory_unlock(_LOCK)))


def _searches(tx: Connection, settings: Settings, due: Sequence[Row[tuple[object, ...]]]) -> list[Search]:
    found = []
    own = _own_keys(tx, settings) if due else frozenset()
    for row in due:
        traces = Traces.of(row.traces)
        living = tx.execute(statement("privacy.taken_keys"), {"email_keys": sorted(traces.keys)})
        found.append(Search(
            erasure_id=row.erasure_id, contact_id=row.contact_id, requested_at=row.requested_at, traces=traces,
            living=frozenset(person.contact_id for person in living), is_own=bool(traces.keys & own),
            neighbours=frozenset(tx.scalars(statement("privacy.neighbours"), {"email_keys": sorted(traces.keys)})),
        ))  # fmt: skip
    return found


def _own_keys(tx: Connection, settings: Settings) -> frozenset[str]:
    """Addresses the shop itself uses: accounts, senders, reply addresses."""
    campaigns = tables.campaigns.c
    used = {settings.default_from_email, settings.admin_email}
    used |= set(tx.scalars(select(tables.users.c.email)))
    for column in (campaigns.from_email, campaigns.reply_to):
        used |= set(tx.scalars(select(column).distinct()))
    return frozenset(address_key(address) for address in used if address)


def _clean(engine: Engine, settings: Settings, searches: Sequence[Search], now: datetime) -> set[int]:
    """One pass over everything; returns the erasures that need another one."""
    ids = [search.erasure_id for search in searches]
    with engine.begin() as tx:
        waiting = set(tx.scalars(statement("privacy.unsettled"), {"erasure_ids": ids}))
    erasure_of = {search.contact_id: search.erasure_id for search in searches}
    binds = _binds(searches)
    for table in CLEANED:
        with engine.begin() as tx:
            rows = tx.execute(statement(f"privacy.clean_{table}"), binds).all()
            _count(tx, {erasure_of[row.contact_id]: {table: row.row_count} for row in rows})
    swept = sweep(engine, searches)
    staged = clean_staged(engine, searches)
    files = clean_files(engine, settings, searches, now=now)
    with engine.begin() as tx:
        _count(tx, swept)
        _count(tx, {one: {_STAGED: count} for one, count in staged.counts.items()})
        _count(tx, {one: {_STORAGE: count} for one, count in files.counts.items()})
    return waiting | staged.busy | files.busy


def _binds(searches: Sequence[Search]) -> dict[str, object]:
    keys = [(search, key) for search in searches for key in sorted(search.traces.keys)]
    return {
        "contact_ids": [search.contact_id for search in searches],
        "ids_as_text": [str(search.contact_id) for search in searches],
        "key_contact_ids": [search.contact_id for search, _ in keys],
        "email_keys": [key for _, key in keys],
        "key_moments": [search.requested_at for search, _ in keys],
        "kept_properties": list(KEPT_PROPERTIES),
    }


def _count(tx: Connection, counts: Mapping[int, Mapping[str, int] | Counter[str]]) -> None:
    for erasure_id, found in counts.items():
        if found:
            binds = {"erasure_id": erasure_id, "counts": json.dumps(dict(found))}
            tx.execute(statement("privacy.add_counts"), binds)


def _settle(engine: Engine, ended: Mapping[int, ErasureStatus], now: datetime) -> None:
    pause = {ErasureStatus.RUNNING: _WAIT, ErasureStatus.FAILED: _AGAIN_AFTER_FAILURE}
    with engine.begin() as tx:
        for erasure_id, status in ended.items():
            completed_at = now if status is ErasureStatus.COMPLETED else None
            next_try_at = now + pause.get(status, timedelta(0))
            tx.execute(statement("privacy.settle"), {
                "erasure_id": erasure_id, "status": str(status), "completed_at": completed_at,
                "next_try_at": next_try_at,
            })  # fmt: skip
