"""Finishing: doubts are settled where evidence allows, campaigns with nothing left are sent, figures are recounted.

Promise: "sent" is a question to the ledger, not a counter: no row waiting or in flight. Safe to run at any time and
in parallel. Called after the senders by the DAG `campaign_send`; it hands nothing over.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, Engine

from mautolib.campaigns import experiment_results, runs, totals
from mautolib.db.statements import statement
from mautolib.ledger import settle
from mautolib.outbox import FactName, record

_LOG = logging.getLogger(__name__)


def finish(engine: Engine, now: datetime) -> list[int]:
    """Settle, close and count; returns the campaigns that became sent."""
    with engine.begin() as tx:
        expired = settle.expire_leases(tx)
        proven = settle.settle_by_hits(tx, now=now)
        requeued = settle.requeue_overdue(tx, now=now)
        reopened = tx.scalars(statement("campaigns.reopen"), {"now": now}).all()
        tx.execute(statement("campaigns.skip_of_ended"))
    with engine.begin() as tx:
        done = tx.execute(statement("campaigns.finish"), {"now": now}).all()
        for row in done:
            runs.complete(tx, row.campaign_id, now)
        tx.execute(statement("pacing.forget_old"), {"now": now})
        tx.execute(statement("campaigns.settle"), {"now": now})
        finished = [row.campaign_id for row in done]
        stale = tx.scalars(statement("campaigns.stale_totals"), {"older_than": now}).all()
        aging = tx.scalars(statement("campaigns.aging_totals"), {"now": now}).all()
        totals.refresh_many(tx, [*finished, *stale, *aging], now)
        experiment_results.recount(tx, now)
        _tell(tx, {row.campaign_id: row.name for row in done}, now)
    _LOG.info(
        "%s campaigns finished, %s reopened; %s leases expired, %s doubts proven, %s sent again",
        len(finished), len(reopened), expired, proven, requeued,
    )  # fmt: skip
    return finished


def _tell(tx: Connection, finished: Mapping[int, str], now: datetime) -> None:
    for campaign_id, figures in totals.totals_of(tx, list(finished)).items():
        data = {
            "campaign_id": str(campaign_id), "name": finished[campaign_id],
            "totals": {
                "recipients": figures.recipients, "sent": figures.sent, "skipped": figures.skipped,
                "bounced": figures.bounced, "failed": figures.failed, "unknown": figures.unknown,
            },
        }  # fmt: skip
        record(tx, FactName.CAMPAIGN_COMPLETED, data, occurred_at=now)
