"""The queue of events without effect, worked off bucket by bucket.

Promise: every event in `event_pending` takes effect exactly once, whatever is killed or runs in parallel: a bucket is
locked, its oldest events are taken off and take effect in one transaction. A contact is always in the same bucket, so
what happened to one person takes effect in the order it happened. Called by the workflow_advance DAG.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from mautolib.db.statements import statement
from mautolib.dispatch import effects
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
BATCH: Final = 5000


@dataclass(frozen=True, kw_only=True)
class DispatchResult:
    """What dispatching did: events taken off, enrollments begun and ended, facts told to webhooks."""

    events: int = 0
    batches: int = 0
    enrolled: int = 0
    exited: int = 0
    facts: int = 0

    def plus(self, events: int, done: effects.Effects) -> DispatchResult:
        """With one more batch."""
        return replace(
            self, events=self.events + events, batches=self.batches + 1, enrolled=self.enrolled + done.enrolled,
            exited=self.exited + done.exited, facts=self.facts + done.facts,
        )  # fmt: skip


def run(
    engine: Engine, settings: Settings, *, now: datetime, max_batches: int | None = None, batch_size: int = BATCH
) -> DispatchResult:
    """Let the events waiting now take effect; buckets another worker holds are left to it.

    Args:
        max_batches: stop after so many; None: when nothing is left to take.
        batch_size: events of one transaction at most.
    """
    result = DispatchResult()
    with engine.begin() as tx:
        buckets = list(tx.scalars(statement("dispatch.waiting_buckets")))
    for bucket in buckets:
        while max_batches is None or result.batches < max_batches:
            taken, result = _take(engine, bucket, batch_size, now, result)
            if taken < batch_size:
                break
    if result.events:
        _LOG.info("events dispatched: %d in %d batches, %d enrolled, %d exited, %d facts",
                  result.events, result.batches, result.enrolled, result.exited, result.facts)  # fmt: skip
    return result


def _take(
    engine: Engine, bucket: int, size: int, now: datetime, before: DispatchResult
) -> tuple[int, DispatchResult]:
    """One batch of one bucket; (0, unchanged) when it is empty or held by another worker."""
    with engine.begin() as tx:
        if not tx.scalar(statement("dispatch.lock_bucket"), {"bucket": bucket}):
            return 0, before
        rows = tx.execute(statement("dispatch.take"), {"bucket": bucket, "size": size}).all()
        if not rows:
            return 0, before
        done = effects.apply(tx, [row.event_id for row in rows], [row.occurred_at for row in rows], now=now)
    return len(rows), before.plus(len(rows), done)
