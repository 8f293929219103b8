"""Writing outcomes down with everything that follows: ledger, event, webhook fact, and the end of a dead address.

Promise: one transaction, given by the caller. A bounced address is suppressed by the only writer of suppressions;
recovery replays what a dead sender's journal knows through the same door. Callers: the pump.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from mautolib.contacts import consent
from mautolib.contacts.model import SuppressionReason
from mautolib.db.statements import statement
from mautolib.ledger.journal import DeadJournal, dead_journals, journal_folder
from mautolib.ledger.model import Outcome, Stage, Verdict
from mautolib.ledger.record import record, record_sent
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What the journals of dead senders told: outcomes written, and messages given back."""

    journals: int = 0
    recorded: int = 0
    released: int = 0


def write_down(
    tx: Connection, settings: Settings, outcomes: Sequence[Outcome], *, now: datetime,
    claimed_at: datetime | None = None,
) -> int:  # fmt: skip
    """Record `outcomes` and suppress the addresses that bounced; returns how many counted."""
    accepted: dict[int, list[Outcome]] = {}
    others: list[Outcome] = []
    for outcome in outcomes:
        if outcome.result.verdict is Verdict.SENT and outcome.to_email and outcome.result.stage is Stage.DOT:
            accepted.setdefault(outcome.attempt_id, []).append(outcome)
        else:
            others.append(outcome)
    counted = sum(record_sent(tx, group, now=now, claimed_at=claimed_at) for group in accepted.values())
    recorded = record(tx, others, now=now, claimed_at=claimed_at)
    for row in recorded:
        if row.verdict is Verdict.BOUNCED and row.to_email:
            consent.suppress(
                tx, row.to_email, SuppressionReason.BOUNCE, source="smtp", notes=row.reply, actor="system", now=now,
                campaign_id=row.campaign_id, message_id=row.message_id, settings=settings,
            )  # fmt: skip
    return counted + len(recorded)


def recover(engine: Engine, settings: Settings, now: datetime) -> Recovered:
    """Bring the database up to date with the journals of senders that died on this machine."""
    journals = recorded = released = 0
    for journal in dead_journals(journal_folder(settings)):
        with engine.begin() as tx:
            known, given_back = _replay(tx, settings, journal, now)
        journal.path.unlink(missing_ok=True)
        journals, recorded, released = journals + 1, recorded + known, released + given_back
    if journals:
        _LOG.info("recovered %s journals: %s outcomes, %s messages given back", journals, recorded, released)
    return Recovered(journals=journals, recorded=recorded, released=released)


def _replay(tx: Connection, settings: Settings, journal: DeadJournal, now: datetime) -> tuple[int, int]:
    open_attempts = set(
        tx.scalars(statement("ledger.open_attempts"), {"attempt_ids": journal.attempts}) if journal.attempts else ()
    )
    if not open_attempts:
        return 0, 0
    outcomes = [outcome for outcome in journal.outcomes.values() if outcome.attempt_id in open_attempts]
    recorded = write_down(tx, settings, outcomes, now=now)
    if not journal.unbegun_is_known:
        return recorded, 0
    begun = {
        "begun_attempts": [outcome.attempt_id for outcome in outcomes],
        "begun_messages": [outcome.message_id for outcome in outcomes],
    }
    parameters = {"attempt_ids": sorted(open_attempts), "now": now, **begun}
    return recorded, tx.execute(statement("ledger.release_unbegun"), parameters).rowcount
