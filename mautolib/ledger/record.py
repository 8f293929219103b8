"""Recording: what became of attempts, written once, with the facts that follow from it.

Promise: an outcome counts only while its attempt still holds the message (fencing): a sender that wakes after its
lease changes nothing, and writing the same outcome twice writes it once. A message that was sent or bounced appends
its event and its webhook fact in the same transaction. Callers: the sending pump, recovery, settling of doubts.
Suppressing a bounced address is the caller's duty: consent is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.events import chains
from mautolib.events.append import NewEvent, append
from mautolib.events.types import EventType
from mautolib.ledger.claim import LEASE_SECONDS
from mautolib.ledger.model import Kind, Outcome, Verdict
from mautolib.outbox import Fact, FactName, record_many

#: Kinds that are nobody's history: no event, no webhook.
_SILENT: Final = frozenset({Kind.TEST, Kind.INTERNAL})
_FACTS: Final = {
    Verdict.SENT: (EventType.EMAIL_SENT, FactName.EMAIL_SENT),
    Verdict.BOUNCED: (EventType.EMAIL_BOUNCED, FactName.EMAIL_BOUNCED),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """One outcome that counted."""

    contact_id: int
    message_id: int
    campaign_id: int | None
    workflow_id: int | None
    kind: Kind
    verdict: Verdict
    to_email: str | None
    reply: str
    depth: int


def record(
    tx: Connection, outcomes: Sequence[Outcome], *, now: datetime, claimed_at: datetime | None = None
) -> list[Recorded]:
    """Write `outcomes`; returns those that counted, in order of message id.

    Args:
        now: when it happened; becomes sent_at or bounced_at and the time of the event.
        claimed_at: when the attempts were claimed; unknown: as early as their lease allows.
    """
    if not outcomes:
        return []
    rows = [
        {
            "contact_id": outcome.contact_id, "message_id": outcome.message_id, "attempt_id": outcome.attempt_id,
            "verdict": outcome.result.verdict, "stage": outcome.result.stage, "code": outcome.result.code,
            "reply": outcome.result.reply, "provider_id": outcome.result.provider_id,
            "reason": outcome.result.reason, "retry_seconds": outcome.result.retry_after_seconds,
        }
        for outcome in outcomes
    ]  # fmt: skip
    since = claimed_at or now - timedelta(seconds=LEASE_SECONDS)
    found = tx.execute(
        statement("ledger.record"), {"outcomes": json.dumps(rows), "now": now, "claimed_at": since}
    ).all()
    written_to = {outcome.message_id: outcome.to_email for outcome in outcomes}
    recorded = [
        Recorded(
            contact_id=row.contact_id, message_id=row.message_id, campaign_id=row.campaign_id,
            workflow_id=row.workflow_id, kind=Kind(row.kind), verdict=Verdict(row.verdict),
            to_email=written_to[row.message_id] or row.to_email, reply=row.reply or "", depth=row.depth,
        )
        for row in found
    ]  # fmt: skip
    _tell(tx, [row for row in recorded if row.verdict in _FACTS and row.kind not in _SILENT], now)
    return recorded


def record_sent(
    tx: Connection, outcomes: Sequence[Outcome], *, now: datetime, claimed_at: datetime | None = None
) -> int:
    """Write accepted messages of one attempt whose addresses are known, in one statement; returns how many counted.

    The same as `record`, for what nearly every outcome is.
    """
    if not outcomes:
        return 0
    results = [outcome.result for outcome in outcomes]
    parameters = {
        "attempt_id": outcomes[0].attempt_id, "now": now,
        "claimed_at": claimed_at or now - timedelta(seconds=LEASE_SECONDS),
        "contact_ids": _numbers(outcome.contact_id for outcome in outcomes),
        "message_ids": _numbers(outcome.message_id for outcome in outcomes),
        "codes": _numbers(result.code for result in results),
        "replies": _texts(result.reply for result in results),
        "provider_ids": _texts(result.provider_id for result in results),
        "addresses": _texts(outcome.to_email or "" for outcome in outcomes),
    }  # fmt: skip
    return int(tx.execute(statement("ledger.record_sent"), parameters).scalar_one())


def _numbers(values: Iterable[int | None]) -> str:
    """Numbers as an array the database reads; adapting a list costs five times as much."""
    return "{" + ",".join(["null" if value is None else str(value) for value in values]) + "}"


def _texts(values: Iterable[str]) -> str:
    return '{"' + '","'.join([value.replace("\\", "\\\\").replace('"', '\\"') for value in values]) + '"}'


def _tell(tx: Connection, recorded: list[Recorded], now: datetime) -> None:
    if not recorded:
        return
    for depth in sorted({row.depth for row in recorded}):
        with chains.caused(tx, depth):
            append(tx, [_event(row, now) for row in recorded if row.contact_id and row.depth == depth], now=now)
    record_many(tx, [_fact(row, now) for row in recorded])


def _event(row: Recorded, now: datetime) -> NewEvent:
    properties: dict[str, str] = {"kind": row.kind.value}
    if row.workflow_id is not None:
        properties["workflow_id"] = str(row.workflow_id)
    if row.verdict is Verdict.BOUNCED:
        properties["reason"] = row.reply
    return NewEvent(
        event_type=_FACTS[row.verdict][0],
        occurred_at=now,
        contact_id=row.contact_id,
        campaign_id=row.campaign_id,
        message_id=row.message_id,
        properties=properties,
    )


def _fact(row: Recorded, now: datetime) -> Fact:
    data: dict[str, str | None] = {
        "message_id": str(row.message_id),
        "campaign_id": None if row.campaign_id is None else str(row.campaign_id),
        "contact_id": str(row.contact_id) if row.contact_id else None,
        "email": row.to_email,
    }
    if row.verdict is Verdict.BOUNCED:
        data["reason"] = row.reply
    return Fact(name=_FACTS[row.verdict][1], data=data, occurred_at=now)
