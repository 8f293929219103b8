"""The NOTIFY asset watcher: a commit in the warehouse starts a DAG within a second or two.

Runs in the triggerer, listens on one channel and knows when work falls due by itself (a delay that ends, a lease that
runs out). A notification is only a hint - PostgreSQL forgets it when nobody listens - so the queue itself is asked at
start, after every reconnect and at the next due time. It reads, it never claims.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from mauto_airflow.warehouse import CONNECTION_ID

_LOG = logging.getLogger(__name__)


class QueueTrigger(BaseEventTrigger):  # type: ignore[misc]  # airflow is not followed by mypy
    """Fires when a queue has work.

    Args:
        channel: what the table's statement trigger notifies.
        due_statement: name in `sql/queries/queues.sql`; gives the moment of the earliest work, or null.
        hold_off_seconds: further notifications within this time become one event at its end.
        repeat_seconds: work that stays due is reported again after this time.
    """

    def __init__(
        self, channel: str, due_statement: str, hold_off_seconds: float = 1.0, repeat_seconds: float = 60.0
    ) -> None:
        super().__init__()
        self.channel = channel
        self.due_statement = due_statement
        self.hold_off_seconds = hold_off_seconds
        self.repeat_seconds = repeat_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where the triggerer finds this class, and its arguments."""
        return (
            "mauto_airflow.watcher.QueueTrigger",
            {
                "channel": self.channel,
                "due_statement": self.due_statement,
                "hold_off_seconds": self.hold_off_seconds,
                "repeat_seconds": self.repeat_seconds,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event whenever there is work, for as long as the triggerer lives."""
        pause = 1.0
        while True:
            try:
                async for reason in self._listen():
                    pause = 1.0
                    yield TriggerEvent({"reason": reason, "queue": self.channel})
            except _database_errors() as error:
                kind = type(error).__name__
                _LOG.warning("watcher %s: database away (%s), again in %.0f s", self.channel, kind, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30.0)

    async def _listen(self) -> AsyncIterator[str]:
        import asyncpg

        from mautolib.db.statements import load

        due_sql = load("queues")[self.due_statement].sql
        connection = await asyncpg.connect(await _dsn(), timeout=10)
        wake = asyncio.Event()
        reported = float("-inf")  # on the loop's monotonic clock
        clock = asyncio.get_running_loop().time
        try:
            connection.add_termination_listener(lambda *_: wake.set())
            await connection.add_listener(self.channel, lambda *_: wake.set())
            while not connection.is_closed():
                notified, due = wake.is_set(), await connection.fetchval(due_sql)
                wake.clear()
                wait = (due - datetime.now(UTC)).total_seconds() if due else self.repeat_seconds
                if wait <= 0 and (notified or clock() - reported >= self.repeat_seconds):
                    yield "notified" if notified else "due"
                    reported = clock()
                    # Whoever was started needs a moment to claim; what comes in meanwhile is one event.
                    await asyncio.sleep(self.hold_off_seconds)
                else:
                    # Work that was reported and is still due is looked at again soon, reported again later.
                    await _wait(wake, wait if wait > 0 else 5.0, self.repeat_seconds)
        finally:
            await connection.close(timeout=5)


async def _wait(wake: asyncio.Event, seconds: float, longest: float) -> None:
    try:
        await asyncio.wait_for(wake.wait(), min(max(seconds, 0.05), longest))
    except TimeoutError:
        return


async def _dsn() -> str:
    from airflow.sdk import BaseHook

    connection = await BaseHook.aget_connection(CONNECTION_ID)
    uri: str = connection.get_uri()
    return uri.replace("postgres://", "postgresql://", 1)


def _database_errors() -> tuple[type[BaseException], ...]:
    import asyncpg

    return (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
