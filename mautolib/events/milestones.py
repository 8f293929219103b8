"""Milestones: what a contact reached, told once each by the event `milestone_reached`.

Promise: of parallel writers, whatever they store, exactly one tells that a contact placed the 1st, 5th, 10th, 25th,
50th or 100th order, in the transaction of an order: writers of orders of one contact count one after the other, and
the key of `contact_milestones` keeps the first. Called by whatever stores orders; `scoring` tells grades and stages.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.events.append import NewEvent, append
from mautolib.events.numbering import rows_json
from mautolib.events.types import EventType

__all__ = ["ORDER_COUNTS", "MilestoneKind", "milestone_event", "tell_orders"]

#: How many orders are worth telling.
ORDER_COUNTS: Final = (1, 5, 10, 25, 50, 100)
#: Advisory locks: contacts in buckets. Taken after everything else that could wait, so nobody waits in a circle.
_CONTACTS_SPACE, _BUCKETS = 722620, 64
_AT_ONCE: Final = 5000


class MilestoneKind(StrEnum):
    """What can be reached; mirrored by a CHECK on `contact_milestones`."""

    GRADE = "grade"
    STAGE = "stage"
    ORDERS = "orders"


def tell_orders(tx: Tx, contact_ids: Iterable[int], *, now: datetime, effects: bool = True) -> int:
    """Tell the numbers of orders these contacts reached; the last thing a transaction does that stores orders.

    Args:
        contact_ids: whose orders were stored; 0 (nobody) reaches nothing.
        effects: queue the events for dispatch; False for history that is loaded silently.
    Returns: how many events were told.
    """
    people = sorted({contact_id for contact_id in contact_ids if contact_id > 0})
    told = 0
    # Everybody's lock before anybody is counted, in one order.
    buckets = sorted({contact_id % _BUCKETS for contact_id in people})
    if people:
        rows = [{"space": _CONTACTS_SPACE, "bucket": bucket, "is_exclusive": True} for bucket in buckets]
        tx.execute(statement("events.lock_orders"), {"rows": rows_json(rows)})
    for start in range(0, len(people), _AT_ONCE):
        binds = {"contact_ids": people[start : start + _AT_ONCE], "counts": list(ORDER_COUNTS)}
        reached = tx.execute(statement("events.reach_orders"), binds).all()
        events = [
            milestone_event(row.contact_id, MilestoneKind.ORDERS, row.milestone, row.reached_at, orders=row.place)
            for row in reached
        ]
        told += append(tx, events, now=now, effects=effects).accepted
    return told


def milestone_event(
    contact_id: int, kind: MilestoneKind, milestone: str, reached_at: datetime, **properties: Any
) -> NewEvent:
    """The event of a milestone somebody reached."""
    return NewEvent(
        event_type=EventType.MILESTONE_REACHED, contact_id=contact_id, occurred_at=reached_at,
        properties={"milestone": milestone, "kind": str(kind), **properties},
    )  # fmt: skip
