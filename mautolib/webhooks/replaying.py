"""Replaying: deliveries that ended are sent again, with the id they had; or dead ones are given up for good.

Promise: a replay begins the schedule anew and keeps the message id and the log of earlier attempts. The commit wakes
the delivery. Called by the API and the command line, in their transactions.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.errors import InvalidTransition, NotFound
from mautolib.webhooks.model import DeliveryStatus


def retry_delivery(tx: Connection, endpoint_id: int, delivery_id: int, *, now: datetime) -> None:
    """Put one delivery that ended back in line.

    Raises:
        NotFound: the endpoint has no such delivery.
        InvalidTransition: it has not ended yet.
    """
    values = {"endpoint_id": endpoint_id, "delivery_id": delivery_id}
    status = tx.scalar(statement("webhooks.status_for_update"), values)
    if status is None:
        raise NotFound("Delivery not found")
    if status == DeliveryStatus.PENDING:
        raise InvalidTransition("The delivery is still pending")
    tx.execute(statement("webhooks.replay_one"), {**values, "now": now})


def retry_many(
    tx: Connection, endpoint_id: int, *, since: datetime | None, until: datetime | None,
    status: DeliveryStatus | str = DeliveryStatus.DEAD, now: datetime,
) -> int:  # fmt: skip
    """Put all deliveries of an endpoint that ended so, and were made from `since` to before `until`, back in line.

    Returns: how many; pending ones are never among them.
    Raises:
        NotFound: no such endpoint.
    """
    if tx.scalar(statement("webhooks.is_endpoint"), {"endpoint_id": endpoint_id}) is None:
        raise NotFound("Webhook not found")
    values = {"endpoint_id": endpoint_id, "since": since, "until": until, "status": str(status), "now": now}
    return tx.execute(statement("webhooks.replay_many"), values).rowcount


def give_up(tx: Connection, *, endpoint_id: int | None = None, delivery_id: int | None = None) -> int:
    """Remove dead deliveries (of one endpoint, one of them, or all) with the log of their attempts; returns how many.

    Raises:
        NotFound: the delivery asked for is not there, or not dead.
    """
    values = {"endpoint_id": endpoint_id, "delivery_id": delivery_id}
    count = tx.execute(statement("webhooks.give_up_dead"), values).rowcount
    if delivery_id is not None and not count:
        raise NotFound("There is no dead delivery with that id")
    return count
