"""Sending again what was refused for good or may not have arrived: only because an editor says so.

Promise: what goes back to the queue is the same message (same person, content and Message-ID) with its attempts kept;
doubts go back only with the word that duplicates are accepted. A sent campaign is sending again. Called by the API.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from mautolib.campaigns import store, totals
from mautolib.campaigns.model import Status
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, InvalidTransition
from mautolib.ledger.model import Status as MessageStatus

_LOG = logging.getLogger(__name__)
RETRYABLE: Final = (MessageStatus.FAILED, MessageStatus.UNKNOWN)
#: So that no statement runs into the time limit of the API.
_BATCH: Final = 50_000
_FROM: Final = (Status.SENDING, Status.PAUSED, Status.SENT)


def retry(
    tx: Connection, campaign_id: int, statuses: Collection[MessageStatus], *, now: datetime,
    confirm_duplicates: bool = False,
) -> int:  # fmt: skip
    """Queue the campaign's messages in these states once more; returns how many.

    Args:
        statuses: `failed`, `unknown` or both.
        confirm_duplicates: somebody may get a mail in doubt twice, and that is accepted.
    Raises:
        NotFound: there is none.
        InvalidTransition: it is neither sending nor paused nor sent.
        InvalidInput: `unknown` without the confirmation.
    """
    if MessageStatus.UNKNOWN in statuses and not confirm_duplicates:
        raise InvalidInput(
            "Messages in doubt may have arrived; set confirm_duplicates to send them again all the same",
            path=("body", "confirm_duplicates"),
        )
    campaign = store.get(tx, campaign_id, for_update=True)
    if campaign.status not in _FROM:
        raise InvalidTransition(f"Cannot retry campaign in '{campaign.status.value}' status")
    parameters = {
        "campaign_id": campaign_id, "statuses": sorted({status.value for status in statuses}), "now": now,
        "give_up_at": now + timedelta(hours=campaign.expires_after_hours),
    }  # fmt: skip
    requeued = 0
    while batch := tx.execute(statement("campaigns.requeue"), {**parameters, "size": _BATCH}).rowcount:
        requeued += batch
    if requeued:
        tx.execute(statement("campaigns.send_again"), {"campaign_id": campaign_id, "now": now})
        if campaign.is_paced:
            # A pace that sleeps looks again.
            tx.execute(statement("pacing.mark_stale"), {"campaign_id": campaign_id})
        totals.refresh_totals(tx, campaign_id, now)
    _LOG.info("campaign %s: %s messages queued again", campaign_id, requeued)
    return requeued
