"""What becomes of messages in doubt when an operator says so: sent, not sent, or handed over again.

Promise: only what is in doubt is touched, each decision is logged as an outcome of its attempt, and the figures of the
campaigns follow. Whether somebody may get a mail twice is asked by the caller. Called by the command line.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection

from mautolib.campaigns import totals
from mautolib.db.statements import statement
from mautolib.ledger.model import Outcome, Result, Stage, Verdict
from mautolib.ledger.record import record
from mautolib.ledger.settle import settle_from_log

#: In one transaction; the caller asks again while there are more.
BATCH: Final = 10_000
_ALL: Final = 10_000_000
_TIME: Final = timedelta(days=1)


class Decision(StrEnum):
    """What an operator may say of a message in doubt."""

    SENT = "sent"
    NOT_SENT = "not-sent"
    AGAIN = "again"


_VERDICTS: Final = {
    Decision.SENT: Verdict.SENT, Decision.NOT_SENT: Verdict.FAILED, Decision.AGAIN: Verdict.RELEASED,
}  # fmt: skip


def in_doubt(
    tx: Connection, *, campaign_id: int | None = None, message_ids: Collection[int] | None = None, size: int = BATCH
) -> Sequence[Any]:
    """Messages in doubt: of one campaign, of some ids, or all; locked until the transaction ends."""
    given = {
        "campaign_id": campaign_id, "message_ids": None if message_ids is None else list(message_ids), "size": size
    }  # fmt: skip
    return tx.execute(statement("ledger.doubts"), given).all()


def resolve(tx: Connection, rows: Sequence[Any], decision: Decision, *, by: str, now: datetime) -> int:
    """Write the decision about rows of `in_doubt`; returns how many it concerned.

    Args:
        by: who decided; stands in the log of attempts.
    """
    if decision is Decision.AGAIN:
        given = {"message_ids": [row.message_id for row in rows], "give_up_at": now + _TIME}
        tx.execute(statement("ledger.give_time"), given)
    result = Result(verdict=_VERDICTS[decision], stage=Stage.DOT, reply=f"{decision}, says {by}")
    outcomes = [
        Outcome(contact_id=row.contact_id, message_id=row.message_id, attempt_id=row.attempt_id, result=result)
        for row in rows
    ]
    done = record(tx, outcomes, now=now)
    totals.refresh_many(tx, sorted({row.campaign_id for row in rows if row.campaign_id is not None}), now)
    return len(done)


def settle(tx: Connection, accepted: Collection[str], *, complete_until: datetime, now: datetime) -> tuple[int, int]:
    """Decide by the receiving side's log, and recount; returns how many were sent, and how many are queued again.

    Args:
        accepted: Message-IDs (without <>) the log shows as accepted.
        complete_until: nothing is missing from the log before this moment.
    """
    concerned = {row.campaign_id for row in in_doubt(tx, size=_ALL)} - {None}
    found = settle_from_log(tx, accepted, complete_until=complete_until, now=now)
    totals.refresh_many(tx, sorted(concerned), now)
    return found
