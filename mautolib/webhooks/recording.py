"""Recording: what became of attempts, written once, with what follows for their endpoints.

Promise: an outcome counts only while its attempt still holds the delivery (fencing), so a worker that wakes after its
lease changes nothing and writing twice writes once. Endpoints that failed too often are disabled in the same
transaction. Called by delivery and testing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.webhooks.model import InHand, Outcome, Reply, Verdict
from mautolib.webhooks.waits import wait_after

_LOG = logging.getLogger(__name__)
#: So long without a success, while attempts fail, and an endpoint is disabled.
MOST_FAILING_DAYS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What counted: how many outcomes of each kind, and the endpoints that were disabled, with the reason."""

    counts: Mapping[str, int] = field(default_factory=dict)
    disabled: Mapping[int, str] = field(default_factory=dict)


def judge(delivery: InHand, reply: Reply, at: datetime) -> Outcome:
    """What an attempt means for its delivery."""
    if reply.is_success:
        return Outcome(delivery, Verdict.SUCCEEDED, at, reply)
    wait = wait_after(
        delivery.scheduled_attempt + 1, delivery.message_id, retry_after_seconds=reply.retry_after_seconds
    )
    if wait is None:
        return Outcome(delivery, Verdict.DEAD, at, reply)
    return Outcome(delivery, Verdict.FAILED, at, reply, at + wait)


def release(delivery: InHand, at: datetime) -> Outcome:
    """An attempt that was never begun."""
    return Outcome(delivery, Verdict.RELEASED, at, Reply(0, 0), at)


def record(tx: Connection, outcomes: Sequence[Outcome], *, now: datetime) -> Recorded:
    """Write outcomes, in the order they happened."""
    if not outcomes:
        return Recorded()
    endpoint_ids = sorted({outcome.delivery.endpoint_id for outcome in outcomes})
    rows = [_row(place, outcome) for place, outcome in enumerate(outcomes)]
    places = tx.scalars(
        statement("webhooks.record"), {"outcomes": json.dumps(rows), "endpoint_ids": endpoint_ids}
    ).all()
    counted = [outcomes[place] for place in places]
    if not counted:
        return Recorded()
    notes = _notes(counted)
    values = {
        "notes": json.dumps(notes), "endpoint_ids": sorted({note["endpoint_id"] for note in notes}), "now": now,
        "most_days": MOST_FAILING_DAYS,
    }  # fmt: skip
    told = tx.execute(statement("webhooks.note_on_endpoints"), values).all()
    disabled = {row.endpoint_id: row.reason for row in told if row.reason is not None}
    for endpoint_id, reason in disabled.items():
        _LOG.warning("webhook %s was disabled: %s; what waits for it is kept 30 days", endpoint_id, reason)
    counts: dict[str, int] = {}
    for outcome in counted:
        counts[outcome.verdict.value] = counts.get(outcome.verdict.value, 0) + 1
    return Recorded(counts=counts, disabled=disabled)


def _row(place: int, outcome: Outcome) -> dict[str, Any]:
    delivery, reply = outcome.delivery, outcome.reply
    return {
        "place": place, "delivery_id": delivery.delivery_id, "attempt_id": delivery.attempt_id,
        "verdict": outcome.verdict.value, "at": outcome.at.isoformat(),
        "next_attempt_at": outcome.next_attempt_at and outcome.next_attempt_at.isoformat(),
        "response_status": reply.response_status, "duration_ms": reply.duration_ms, "error": reply.error,
        "response_body": reply.response_body,
    }  # fmt: skip


def _notes(counted: Sequence[Outcome]) -> list[dict[str, Any]]:
    """For each endpoint: what ended, what died since its last success, and since when it fails."""
    notes: dict[int, dict[str, Any]] = {}
    for outcome in counted:
        endpoint_id, at = outcome.delivery.endpoint_id, outcome.at.isoformat()
        note = notes.setdefault(endpoint_id, {
            "endpoint_id": endpoint_id, "ended": 0, "died": 0, "died_since": 0, "is_gone": False,
            "succeeded_at": None, "failed_at": None, "failing_since": None,
        })  # fmt: skip
        note["ended"] += outcome.verdict is not Verdict.FAILED
        if outcome.verdict is Verdict.SUCCEEDED:
            note.update(died_since=0, failing_since=None, succeeded_at=at)
            continue
        note.update(failed_at=at, failing_since=note["failing_since"] or at)
        note["is_gone"] = note["is_gone"] or outcome.reply.response_status == 410
        if outcome.verdict is Verdict.DEAD:
            note["died"] += 1
            note["died_since"] += 1
    return list(notes.values())
