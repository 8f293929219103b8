"""Settling doubts: a message that may or may not have been taken is decided by evidence, never by hope.

Promise: a lease that ran out becomes a doubt in one statement; a doubt becomes `sent` when the receiving side's log
or a hit on its links proves it, `queued` when a complete log lacks it after the quiet period, or, for mail that is
better sent twice than never, when the quiet period is over. Marketing mail is never repeated without proof.
Callers: the sending pump, feedback processing, operators with a mail log.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.ledger.claim import LEASE_SECONDS
from mautolib.ledger.model import Outcome, Result, Stage, Verdict
from mautolib.ledger.record import record

#: Longer than a mail server keeps an idle connection open and may still finish what it was sent.
QUIET_SECONDS: Final = 900


def expire_leases(tx: Connection) -> int:
    """Turn leases that ran out into doubts; returns how many."""
    return int(tx.execute(statement("ledger.expire_leases"), {"lease_seconds": LEASE_SECONDS}).scalar_one())


def settle_from_log(
    tx: Connection,
    accepted: Iterable[str],
    *,
    complete_until: datetime,
    now: datetime,
    quiet_seconds: float = QUIET_SECONDS,
) -> tuple[int, int]:
    """Settle doubts by the receiving side's log.

    Args:
        accepted: Message-IDs (without <>) the log shows as accepted.
        complete_until: nothing is missing from the log before this moment.
    Returns: how many became sent, and how many went back to the queue.
    """
    parameters = {"accepted": list(accepted), "complete_until": complete_until, "quiet_seconds": quiet_seconds}
    doubts = tx.execute(statement("ledger.settle_from_log"), parameters).all()
    found = [_outcome(row, Verdict.SENT, "found in the log") for row in doubts if row.is_accepted]
    absent = [_outcome(row, Verdict.RELEASED, "not in the log") for row in doubts if not row.is_accepted]
    record(tx, [*found, *absent], now=now)
    return len(found), len(absent)


def settle_by_hits(tx: Connection, *, now: datetime) -> int:
    """Doubts whose links were used were sent; returns how many."""
    proven = tx.execute(statement("ledger.proven_by_hits")).all()
    return len(record(tx, [_outcome(row, Verdict.SENT, "its links were used") for row in proven], now=now))


def requeue_overdue(tx: Connection, *, now: datetime, quiet_seconds: float = QUIET_SECONDS) -> int:
    """Send transactional mail in doubt again once the quiet period is over; returns how many."""
    overdue = tx.execute(statement("ledger.overdue_doubts"), {"quiet_seconds": quiet_seconds}).all()
    return len(record(tx, [_outcome(row, Verdict.RELEASED, "no word") for row in overdue], now=now))


def open_counts(tx: Connection, campaign_id: int) -> dict[str, int]:
    """How many messages of a campaign are queued, sending and unknown."""
    return dict(tx.execute(statement("ledger.open_counts"), {"campaign_id": campaign_id}).mappings().one())


def _outcome(row: Any, verdict: Verdict, reply: str) -> Outcome:
    result = Result(verdict=verdict, stage=Stage.DOT, reply=reply)
    return Outcome(contact_id=row.contact_id, message_id=row.message_id, attempt_id=row.attempt_id, result=result)
