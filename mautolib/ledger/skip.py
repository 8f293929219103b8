"""Giving up waiting messages: an opt-out, a suppression, a deleted contact or a cancelled campaign moves rows at once.

Promise: done in the transaction of its cause, so nothing waits for ever and nothing is handed over after it (what is
in flight is finished). Callers: contacts.consent, contacts deletion, campaigns.control, workflows.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.ledger.model import Skip


def skip_queued(tx: Connection, contact_ids: Sequence[int], reason: Skip | str) -> int:
    """Skip the queued messages of contacts; returns how many.

    With `unsubscribed`, `no_consent` and `suppressed`, mail that needs no consent stays queued unless the
    suppression (bounce, complaint, compliance) forbids that too: call it after the suppression is written.
    """
    if not contact_ids:
        return 0
    parameters = {"contact_ids": list(contact_ids), "reason": str(Skip(reason))}
    return tx.execute(statement("ledger.skip_queued"), parameters).rowcount


def skip_campaign(tx: Connection, campaign_id: int, reason: Skip | str) -> int:
    """Skip all queued messages of a campaign; returns how many."""
    parameters = {"campaign_id": campaign_id, "reason": str(Skip(reason))}
    return tx.execute(statement("ledger.skip_campaign"), parameters).rowcount
