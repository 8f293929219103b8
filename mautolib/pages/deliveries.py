"""The pages of webhooks: which endpoints there are, what was delivered to them, and one delivery in full.

Promises: no script, nothing loaded from elsewhere; whatever a receiver answered is text. All
rows come from the readers of `webhooks`, so they are the API's own. Signing in and delivering again are the caller's.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import Connection

from mautolib.pages.frame import House, page_html
from mautolib.pages.registry import navigation
from mautolib.webhooks import DeliveryStatus, endpoints, reading
from mautolib.webhooks.reading import DeliveryFilter

__all__ = ["deliveries_html", "delivery_html"]

_DELIVERIES: Final = 50
_ENDPOINTS: Final = 100
_HERE: Final[dict[str, Any]] = {"nav": navigation("webhooks"), "is_webhooks": True, "charts": {}}
_STATUSES: Final = (("", "All"), ("dead", "Dead"), ("pending", "Pending"), ("succeeded", "Succeeded"))


def deliveries_html(
    tx: Connection, *, now: datetime, house: House, status: DeliveryStatus | None = None,
    endpoint_id: int | None = None, before: int | None = None, alert: str = "",
) -> str:  # fmt: skip
    """Endpoints, and a page of deliveries, newest first.

    Args:
        status, endpoint_id: which deliveries; None: all.
        before: id of the delivery the page before ended with.
        alert: what went wrong, to be told on top.
    """
    wanted = DeliveryFilter(endpoint_id=endpoint_id, status=status)
    rows = reading.search(tx, wanted, limit=_DELIVERIES + 1, after=before)
    shown = rows[:_DELIVERIES]
    known = endpoints.search(tx, limit=_ENDPOINTS)

    def link(**parts: object) -> str:
        given = {"endpoint": endpoint_id, **parts}
        return "/dashboard/webhooks?" + urlencode({name: value for name, value in given.items() if value})

    return page_html(
        "deliveries.html", title="Webhooks", house=house, **_HERE, now=now, endpoints=known, deliveries=shown,
        urls=endpoints.addresses(tx, {one.endpoint_id for one in shown}), status=status or "", statuses=_STATUSES,
        link=link, endpoint_id=endpoint_id, alert=alert, most_endpoints=_ENDPOINTS,
        older=shown[-1].delivery_id if len(rows) > _DELIVERIES else None,
    )  # fmt: skip


def delivery_html(
    tx: Connection, delivery_id: int, *, house: House, can_replay: bool, note: str = ""
) -> str:
    """One delivery: what is sent, every attempt, and a button to deliver it again.

    Raises:
        NotFound: there is none.
    """
    found = reading.get(tx, delivery_id)
    return page_html(
        "delivery.html", title=found.delivery.event_type, house=house, csrf=house.csrf, **_HERE,
        delivery=found.delivery,
        endpoint=endpoints.get(tx, found.delivery.endpoint_id, only_listed=False), attempts=found.attempts,
        can_replay=can_replay, payload=json.dumps(found.payload, indent=2, ensure_ascii=False), note=note,
    )  # fmt: skip
