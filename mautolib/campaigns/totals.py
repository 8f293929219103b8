"""Figures of campaigns: recomputed from the ledger, hits and events, never incremented.

Promise: whatever happened and in whatever order, a refresh gives the true figures; the definitions are in
`sql/queries/campaigns.sql` once. Recounts wait for each other, so call them last in a transaction: nothing that
others may hold should be waited for after it. Callers: senders (every few seconds), finishing, analytics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select

from mautolib.campaigns.model import Totals
from mautolib.db import tables
from mautolib.db.statements import statement

_FIELDS = tuple(item.name for item in dataclasses.fields(Totals))


def refresh_totals(tx: Connection, campaign_id: int, now: datetime) -> None:
    """Recompute the figures of one campaign."""
    refresh_many(tx, [campaign_id], now)


def refresh_many(tx: Connection, campaign_ids: Sequence[int], now: datetime) -> int:
    """Recompute the figures of campaigns in one statement; returns how many."""
    if not campaign_ids:
        return 0
    tx.execute(statement("campaigns.lock_totals"))
    parameters = {"campaign_ids": sorted(set(campaign_ids)), "now": now}
    return tx.execute(statement("campaigns.refresh_totals"), parameters).rowcount


def totals_of(tx: Connection, campaign_ids: Sequence[int]) -> dict[int, Totals]:
    """The figures of campaigns as last counted; zeros for one that was never planned."""
    table = tables.campaign_totals
    rows = tx.execute(select(table).where(table.c.campaign_id.in_(campaign_ids))).mappings() if campaign_ids else ()
    found = {row["campaign_id"]: Totals(**{name: row[name] for name in _FIELDS}) for row in rows}
    return {campaign_id: found.get(campaign_id, Totals()) for campaign_id in campaign_ids}
