"""What a batch of events does: workflows are left and entered, rules run, opens and clicks become facts for webhooks.

Each effect is a few set-based statements in the transaction that takes the events off the queue. A further effect is
one more call in `apply`. Scores are not folded here, but the night is told which events came after it had folded their
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from mautolib import automations, scoring, workflows
from mautolib.db.statements import statement
from mautolib.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Counts of what some events did."""

    enrolled: int = 0
    exited: int = 0
    facts: int = 0
    rules: int = 0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Events as parallel columns; `depths`: how many rules and workflows each follows from."""

    event_ids: Sequence[int]
    occurred_ats: Sequence[datetime]
    depths: Sequence[int]


def apply(tx: Connection, settings: Settings, batch: Batch, *, now: datetime) -> Effects:
    """Let the events of a batch take effect."""
    event_ids, occurred_ats = batch.event_ids, batch.occurred_ats
    entries = workflows.take_events(tx, event_ids, occurred_ats, batch.depths, now=now)
    done = automations.take_events(tx, settings, event_ids, occurred_ats, batch.depths, now=now)
    told = {"event_ids": list(event_ids), "occurred_ats": list(occurred_ats)}
    facts = tx.execute(statement("dispatch.tell_engagement"), told).rowcount
    scoring.mark_late(tx, event_ids, occurred_ats)
    return Effects(enrolled=entries.entered, exited=entries.exited, facts=facts, rules=done.executed)
