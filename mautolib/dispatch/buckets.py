"""The queue of events without effect, worked off bucket by bucket.

Promise: every event in `event_pending` takes effect exactly once, whatever is killed or runs in parallel: buckets are
locked, their oldest events are taken off and take effect in one transaction. A contact is always in the same bucket, so
what happened to one person takes effect in the order it happened. A row of the queue names many events of one bucket
and moment; one that is gone by now has no effect. Called by the workflow_advance DAG.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from mautolib.db.statements import statement
from mautolib.dispatch import effects
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
BATCH: Final = 5000
#: Serialization failure, deadlock: the same transaction may succeed now.
_AGAIN: Final = ("40001", "40P01")
_TRIES: Final = 5


@dataclass(frozen=True, kw_only=True)
class DispatchResult:
    """What dispatching did: events taken off, enrollments begun and ended, runs of rules, facts for webhooks.

    Args:
        entering: how many would enter which workflow; of a dry run only.
    """

    events: int = 0
    batches: int = 0
    enrolled: int = 0
    exited: int = 0
    facts: int = 0
    rules: int = 0
    entering: Mapping[int, int] = field(default_factory=dict)

    def plus(self, events: int, done: effects.Effects) -> DispatchResult:
        """With one more batch."""
        return replace(
            self, events=self.events + events, batches=self.batches + 1, enrolled=self.enrolled + done.enrolled,
            exited=self.exited + done.exited, facts=self.facts + done.facts, rules=self.rules + done.rules,
        )  # fmt: skip


def run(
    engine: Engine, settings: Settings, *, now: datetime, max_batches: int | None = None, batch_size: int = BATCH
) -> DispatchResult:
    """Let the events waiting now take effect; buckets another worker holds are left to it.

    Args:
        max_batches: stop after so many; None: when nothing is left to take.
        batch_size: events of one transaction; a row of the queue more than that at most.
    """
    result = DispatchResult()
    with engine.begin() as tx:
        buckets = list(tx.scalars(statement("dispatch.waiting_buckets")))
    while buckets and (max_batches is None or result.batches < max_batches):
        taken, result = _take(engine, settings, buckets, batch_size, now, result)
        if taken < batch_size:
            break
    if result.events:
        _LOG.info(
            "events dispatched: %d in %d batches, %d enrolled, %d exited, %d rules run, %d facts",
            result.events, result.batches, result.enrolled, result.exited, result.rules, result.facts,
        )  # fmt: skip
    return result


def rehearse(engine: Engine, settings: Settings, *, now: datetime, batch_size: int = BATCH) -> DispatchResult:
    """What the oldest events would do: they take effect in a transaction that is taken back, so nothing is written."""
    with engine.connect() as tx, tx.begin() as transaction:
        buckets = list(tx.scalars(statement("dispatch.waiting_buckets")))
        told = tx.scalar(statement("dispatch.last_fact"))
        taken, done = _apply(tx, settings, buckets, batch_size, now)
        rows = tx.execute(statement("dispatch.count_entries"), {"told": told}).all()
        transaction.rollback()
    result = DispatchResult() if done is None else DispatchResult().plus(taken, done)
    return replace(result, entering={row.workflow_id: row.entry_count for row in rows})


def _take(
    engine: Engine, settings: Settings, buckets: Sequence[int], size: int, now: datetime, before: DispatchResult
) -> tuple[int, DispatchResult]:
    """One batch from those of `buckets` nobody else holds; (0, unchanged) when there is nothing to take."""
    for left in range(_TRIES, 0, -1):
        try:
            with engine.begin() as tx:
                taken, done = _apply(tx, settings, buckets, size, now)
            return taken, before if done is None else before.plus(taken, done)
        except DBAPIError as error:
            if left == 1 or getattr(error.orig, "pgcode", None) not in _AGAIN:
                raise
            _LOG.warning("dispatching a batch again: %s", type(error.orig).__name__)
    raise AssertionError("unreachable")


def _apply(
    tx: Connection, settings: Settings, buckets: Sequence[int], size: int, now: datetime
) -> tuple[int, effects.Effects | None]:
    held = list(tx.scalars(statement("dispatch.lock_buckets"), {"buckets": list(buckets)}))
    rows = tx.execute(statement("dispatch.take"), {"buckets": held, "size": size}).all() if held else []
    if not rows:
        return 0, None
    batch = effects.Batch(
        event_ids=[row.event_id for row in rows], occurred_ats=[row.occurred_at for row in rows],
        depths=[row.depth for row in rows],
    )  # fmt: skip
    return len(rows), effects.apply(tx, settings, batch, now=now)
