"""What a batch of events does: workflows are left and entered, opens and clicks become facts for webhooks.

Each effect is a few set-based statements in the transaction that takes the events off the queue. A further effect is
one more call in `apply`. Scores are not folded here, but the night is told which events came after it had folded their
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from mautolib import scoring, workflows
from mautolib.db.statements import statement


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Counts of what some events did."""

    enrolled: int = 0
    exited: int = 0
    facts: int = 0


def apply(tx: Connection, event_ids: Sequence[int], occurred_ats: Sequence[datetime], *, now: datetime) -> Effects:
    """Let the events named by two parallel sequences take effect."""
    entries = workflows.take_events(tx, event_ids, occurred_ats, now=now)
    batch = {"event_ids": list(event_ids), "occurred_ats": list(occurred_ats)}
    facts = tx.execute(statement("dispatch.tell_engagement"), batch).rowcount
    scoring.mark_late(tx, event_ids, occurred_ats)
    return Effects(enrolled=entries.entered, exited=entries.exited, facts=facts)
