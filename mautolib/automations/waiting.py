"""Runs that wait: when their time has come they go on with the actions they began with.

Promise: each goes on once, whatever is killed or runs in parallel: a batch is claimed, taken through its actions,
logged and put down or ended in one transaction. What was edited or switched off meanwhile makes no difference to it.
Called by the workflow_advance DAG.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine

from mautolib.automations import definition
from mautolib.automations.model import RuleResult, RunStatus
from mautolib.automations.running import Run, Runner
from mautolib.automations.triggering import as_json
from mautolib.db.statements import statement
from mautolib.events import chains
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
BATCH: Final = 1000


def resume(engine: Engine, settings: Settings, *, now: datetime, batch_size: int = BATCH) -> RuleResult:
    """Let every run go on whose wait is over, in batches that are one transaction each."""
    result, taken = RuleResult(), batch_size
    while taken == batch_size:
        with engine.begin() as tx:
            runs = go_on(tx, settings, now=now, size=batch_size)
        taken = len(runs)
        ended = [run.status for run in runs]
        result = replace(
            result, succeeded=result.succeeded + ended.count(RunStatus.SUCCESS),
            failed=result.failed + ended.count(RunStatus.FAILED),
            waiting=result.waiting + ended.count(RunStatus.WAITING),
        )  # fmt: skip
    if result.executed:
        _LOG.info("runs of rules that had waited: %s succeeded, %s failed, %s wait again",
                  result.succeeded, result.failed, result.waiting)  # fmt: skip
    return result


def next_due(tx: Connection) -> datetime | None:
    """When the next run has to go on (may be past); None when none waits."""
    due: datetime | None = tx.scalar(statement("automations.next_due"))
    return due


def go_on(tx: Connection, settings: Settings, *, now: datetime, size: int) -> list[Run]:
    """Take at most `size` runs that are due a step further; returns them as they stand then."""
    rows = tx.execute(statement("automations.claim_due"), {"now": now, "size": size}).all()
    groups: dict[tuple[int, int, int, int, str], list[Run]] = {}
    places: dict[int, int] = {}
    for row in rows:
        run = Run(
            log_id=row.log_id, rule_id=row.rule_id, contact_id=row.contact_id, event_id=None, depth=row.depth,
            data=row.data, begun_at=row.begun_at, error=row.error,
        )  # fmt: skip
        # Of one person who was due first goes first; nobody has no order.
        place = places.get(row.contact_id, 0)
        places[row.contact_id] = place + 1 if row.contact_id else 0
        groups.setdefault((place, row.rule_id, row.next_action, row.depth, json.dumps(row.actions)), []).append(run)
    runner = Runner(tx=tx, settings=settings, now=now)
    for (_, _, next_action, _, actions), runs in sorted(groups.items(), key=lambda item: item[0]):
        with chains.caused(tx, runs[0].depth):
            runner.act(definition.read_actions(json.loads(actions)), runs, first=next_action)
    done = [run for runs in groups.values() for run in runs]
    if done:
        tx.execute(statement("automations.go_on"), {"runs": as_json(done)})
    return done
