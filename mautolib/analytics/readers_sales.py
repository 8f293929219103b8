"""What a campaign sold, now: from `analytics.attribution`, and for whoever it does not know yet from orders and hits.

Promise: the figures are those of `analytics.campaign_performance` at this moment, whenever the tables were refreshed
last. Called by `readers_campaigns`; changes nothing.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row, func, select

from mautolib.analytics import orders
from mautolib.db.engine import Tx
from mautolib.db.statements import statement

#: With more buyers than this that the table does not know yet, everything is counted.
_MOST: Final = 20_000


def campaign_sales(tx: Tx, campaign_id: int) -> Row[Any]:
    """`orders`, `revenue` and `reporting_currency` (null without orders) of one campaign."""
    state = tx.execute(statement("rollups.usable_state"), {"table": "attribution"}).one_or_none()
    if state is not None:
        binds = {"since": state.since, "previous_as_of": state.as_of}
        people = list(tx.scalars(statement("order_analytics.unfollowed_buyers"), binds))
        if len(people) <= _MOST:
            return tx.execute(statement("order_analytics.campaign_sales"), {
                "campaign_id": campaign_id, "contact_ids": people, "as_of": "infinity", **orders.windows(tx),
                "currency": tx.scalar(select(func.analytics.reporting_currency())),
            }).one()  # fmt: skip
    return tx.execute(statement("analytics_api.campaign_sales"), {"campaign_id": campaign_id}).one()
