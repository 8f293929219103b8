"""Partitions ahead of time, the end of what need not be kept or was left behind, erasures, the proof of the ledger.

Each task is one or a few short transactions; a second run finds nothing left to do. Called hourly by the
maintenance DAG. A lock that is not free within 2 s is left for the next run, so tracking never waits long.
It deletes only what has a rule here: hits by age, answers and tokens past their use, what a killed import left,
people who were erased.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, Row
from sqlalchemy.exc import OperationalError

from mautolib import privacy
from mautolib.contacts import imports, searching
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, Misconfigured
from mautolib.maintenance import ledger_proof
from mautolib.settings import Settings
from mautolib.webhooks import retention
from mautolib.workflows import control

_LOG = logging.getLogger(__name__)
_MONTHS_AHEAD = 2
_IDEMPOTENCY = timedelta(hours=24)
_SIGN_IN_FAILURES = timedelta(days=1)
_NOTICES = timedelta(days=90)
_LOCK_NOT_AVAILABLE = "55P03"


class Task(StrEnum):
    """What maintenance does, in its order."""

    PARTITIONS = "partitions"
    SEARCH = "search"
    RETENTION = "retention"
    IMPORTS = "imports"
    ERASURE = "erasure"
    LEDGER = "ledger"


def run(engine: Engine, settings: Settings, *, now: datetime, task: Task | str | None = None) -> dict[str, int]:
    """Do all housekeeping that is due, or one task of it.

    Args:
        now: the moment ages are measured at.
        task: only this one.
    Returns: `partitions` made; `contacts_indexed` for searching; `hit_months`, `idempotency_keys`, `tokens`, `notices`,
        `sign_in_failures`, `facts` for webhooks, `deliveries`, `workflow_logs` of deleted workflows, `import_tables`
        and `uploads` removed; `waiting_deliveries` given up; `erasures` completed; `ledger_findings` where it was
        checked: about once a day, and whenever it is the task.
    Raises:
        InvalidInput: no such task.
        Misconfigured: MAUTO_RAW_HIT_DAYS is below 1.
    """
    if task is not None and task not in list(Task):
        raise InvalidInput(f"There is no task {task!r}; choose one of {', '.join(Task)}", path=("task",))
    chosen = [Task(task)] if task is not None else list(Task)
    if task is None and not ledger_proof.is_due(engine, now=now):
        chosen.remove(Task.LEDGER)
    counts = {name: work(engine, settings, now) for each in chosen for name, work in _WORK[each].items()}
    _LOG.info("maintenance: %s", ", ".join(f"{name} {count}" for name, count in counts.items()))
    return counts


def _make_partitions(engine: Engine, settings: Settings, now: datetime) -> int:
    last_month = now.year * 12 + now.month - 1 + _MONTHS_AHEAD
    last_day = now.date().replace(year=last_month // 12, month=last_month % 12 + 1, day=1)
    made = _rows_if_free(engine, "ensure_partitions", {"first_day": now.date(), "last_day": last_day})
    return len(made)


def _index_contacts(engine: Engine, settings: Settings, now: datetime) -> int:
    return searching.extend_index(engine)


def _drop_hits(engine: Engine, settings: Settings, now: datetime) -> int:
    if settings.raw_hit_days < 1:
        raise Misconfigured(f"MAUTO_RAW_HIT_DAYS is {settings.raw_hit_days}; it takes 1 or more days")
    older_than = now - timedelta(days=settings.raw_hit_days)
    dropped = 0
    while months := _rows_if_free(engine, "drop_oldest_hits", {"older_than": older_than}):
        if months[0].dropped is None:
            break
        _LOG.info("dropped %s with %d hits, older than %s", months[0].dropped, months[0].hit_count, older_than.date())
        dropped += 1
    return dropped


def _forget_answers(engine: Engine, settings: Settings, now: datetime) -> int:
    with engine.begin() as tx:
        statement_ = statement("maintenance.forget_idempotency_keys")
        return tx.execute(statement_, {"older_than": now - _IDEMPOTENCY}).rowcount


def _forget_tokens(engine: Engine, settings: Settings, now: datetime) -> int:
    with engine.begin() as tx:
        refresh = tx.execute(statement("maintenance.forget_refresh_tokens"), {"now": now}).rowcount
        revoked = tx.execute(statement("maintenance.forget_revoked_tokens"), {"now": now}).rowcount
    return refresh + revoked


def _forget_sign_ins(engine: Engine, settings: Settings, now: datetime) -> int:
    with engine.begin() as tx:
        statement_ = statement("maintenance.forget_sign_in_failures")
        return tx.execute(statement_, {"older_than": now - _SIGN_IN_FAILURES}).rowcount


def _drop_import_rows(engine: Engine, settings: Settings, now: datetime) -> int:
    return imports.forget_left_behind(engine)


def _forget_uploads(engine: Engine, settings: Settings, now: datetime) -> int:
    return imports.forget_orphans(engine, settings, now=now)


def _forget_notices(engine: Engine, settings: Settings, now: datetime) -> int:
    with engine.begin() as tx:
        return tx.execute(statement("feedback.forget_notices"), {"older_than": now - _NOTICES}).rowcount


def _forget_facts(engine: Engine, settings: Settings, now: datetime) -> int:
    return retention.forget_facts(engine, settings, now=now)


def _forget_deliveries(engine: Engine, settings: Settings, now: datetime) -> int:
    return retention.forget_deliveries(engine, settings, now=now)


def _give_up_waiting(engine: Engine, settings: Settings, now: datetime) -> int:
    return retention.give_up_waiting(engine, now=now)


def _forget_logs(engine: Engine, settings: Settings, now: datetime) -> int:
    return control.forget_left_behind(engine)


def _erase(engine: Engine, settings: Settings, now: datetime) -> int:
    completed = 0
    while (carried := privacy.carry_out(engine, settings, now=now)).completed:
        completed += carried.completed
    return completed


def _prove_ledger(engine: Engine, settings: Settings, now: datetime) -> int:
    return ledger_proof.prove(engine, now=now)


def _rows_if_free(engine: Engine, name: str, values: dict[str, object]) -> Sequence[Row[Any]]:
    """Run a statement that locks a table in a transaction of its own; no rows when the table is busy."""
    try:
        with engine.begin() as tx:
            tx.execute(statement("maintenance.limit_lock_waits"))
            return tx.execute(statement(f"maintenance.{name}"), values).all()
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != _LOCK_NOT_AVAILABLE:
            raise
        _LOG.info("%s: the table is in use; the next run tries again", name)
        return []


_WORK: dict[Task, dict[str, Callable[[Engine, Settings, datetime], int]]] = {
    Task.PARTITIONS: {"partitions": _make_partitions},
    Task.SEARCH: {"contacts_indexed": _index_contacts},
    Task.RETENTION: {
        "hit_months": _drop_hits,
        "idempotency_keys": _forget_answers,
        "tokens": _forget_tokens,
        "sign_in_failures": _forget_sign_ins,
        "notices": _forget_notices,
        "facts": _forget_facts,
        "deliveries": _forget_deliveries,
        "waiting_deliveries": _give_up_waiting,
        "workflow_logs": _forget_logs,
    },
    Task.IMPORTS: {"import_tables": _drop_import_rows, "uploads": _forget_uploads},
    Task.ERASURE: {"erasures": _erase},
    # Last: it takes the longest, and nobody waits for it.
    Task.LEDGER: {"ledger_findings": _prove_ledger},
}
