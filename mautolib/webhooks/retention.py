"""Retention: what is told or ended goes after a while; what waits for a disabled endpoint ends after 30 days.

Promise: nothing goes that an active endpoint has still to get. Many short transactions, safe to repeat and to kill.
Called by maintenance.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from mautolib.db.statements import statement
from mautolib.errors import Misconfigured
from mautolib.settings import Settings, variable

#: How long a delivery waits for an endpoint that is disabled.
MOST_WAITING: Final = timedelta(days=30)
_AT_ONCE: Final = 20_000


def forget_facts(engine: Engine, settings: Settings, *, now: datetime) -> int:
    """Remove facts older than `outbox_days` that were told, and all of these while nobody listens."""
    return _forget(engine, "webhooks.forget_facts", now - _days(settings, "outbox_days"))


def forget_deliveries(engine: Engine, settings: Settings, *, now: datetime) -> int:
    """Remove deliveries that ended more than `webhook_delivery_days` ago, with their attempts."""
    return _forget(engine, "webhooks.forget_deliveries", now - _days(settings, "webhook_delivery_days"))


def give_up_waiting(engine: Engine, *, now: datetime) -> int:
    """End deliveries that have waited 30 days for their endpoint to come back."""
    with engine.begin() as tx:
        values = {"now": now, "older_than": now - MOST_WAITING}
        return tx.execute(statement("webhooks.give_up_waiting"), values).rowcount


def _forget(engine: Engine, name: str, older_than: datetime) -> int:
    removed = 0
    while True:
        with engine.begin() as tx:
            count = tx.execute(statement(name), {"older_than": older_than, "size": _AT_ONCE}).rowcount
        removed += count
        if count < _AT_ONCE:
            return removed


def _days(settings: Settings, name: str) -> timedelta:
    days: int = getattr(settings, name)
    if days < 1:
        raise Misconfigured(f"{variable(name)} is {days}; it takes 1 or more days")
    return timedelta(days=days)
