"""Awaited group commit: what `keep` gives is done when the hit is durable, in the database or else in the spool.

Hits that come in while one batch is being written form the next one, so each costs a small part of a transaction.
With the database away (refused, frozen or too slow) batches go to the spool at once and are replayed, each once, when
it is back. Called by `api/tracking.py`, one per process; asyncpg, because it is the one async path of the service.
It judges nothing and knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import asyncpg

from mautolib.db.engine import parse_url
from mautolib.events import hits
from mautolib.events.hits import Hit
from mautolib.events.spool import Refused, Spool

__all__ = ["HitWriter"]

_LOG = logging.getLogger(__name__)

_MOST = 200
_LINGER_SECONDS = 0.003
#: A batch that takes longer goes to the spool; should it be stored after all, its replay is recognised.
_PATIENCE_SECONDS = 2.0
_RETRY_SECONDS = 1.0
_STOP_SECONDS = 10.0
_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

Record = dict[str, Any]


class HitWriter:
    """Writes hits for one process and replays what was spooled.

    Args:
        url: the database, as the tracker's role.
        rule_version: of the verdicts that the hits carry.
        apply_other: applies a spooled record that is not a batch of hits (in a thread); any error but
            `spool.Refused` means: again later.
    """

    def __init__(
        self, url: str, spool: Spool, *, rule_version: int, apply_other: Callable[[Record], None]
    ) -> None:
        self._dsn = parse_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._spool = spool
        self._rule_version = rule_version
        self._apply_other = apply_other
        self._sql = hits.record_sql()
        self._waiting: list[tuple[Hit, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._connection: Any = None
        self._statement: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._new_future: Callable[[], asyncio.Future[None]]
        # One thread: records reach the file one at a time, in order.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._is_away = False
        self._has_spooled = True  # an earlier process may have
        self.spooled = 0
        self.dropped = 0

    async def start(self) -> None:
        """Begin to write; the database is first asked for when there is something to say."""
        # Kept, because asking for the running loop is a system call in Python 3.11.
        self._new_future = asyncio.get_running_loop().create_future
        self._tasks = [asyncio.create_task(self._write_batches()), asyncio.create_task(self._come_back())]

    async def stop(self) -> None:
        """Write what is waiting, then let go of everything."""
        self._ending.set()
        self._wake.set()
        # A replay may hang on a frozen database; its records stay in the spool.
        _, hanging = await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
        for task in hanging:
            task.cancel()
        self._disconnect()
        await self._on_disk(self._spool.close)
        self._disk.shutdown()

    def keep(self, hit: Hit) -> asyncio.Future[None]:
        """Keep one hit; what comes back is done when it is durable (or counted as lost)."""
        durable: asyncio.Future[None] = self._new_future()
        self._waiting.append((hit, durable))
        self._wake.set()
        return durable

    async def keep_record(self, record: Record) -> None:
        """Spool something that is not a hit, for `apply_other`; durable on return.

        Raises:
            OSError: the disk refused it.
        """
        await self._on_disk(partial(self._spool.add, record))
        self._has_spooled = True

    async def _write_batches(self) -> None:
        is_crowded = False
        while self._waiting or not self._ending.is_set():
            await self._wake.wait()
            # A lone hit does not wait for company; in a crowd a short pause makes batches several times larger.
            if len(self._waiting) < _MOST and (is_crowded or len(self._waiting) > 1):
                await asyncio.sleep(_LINGER_SECONDS)
            is_crowded = len(self._waiting) > 1
            batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            if not self._waiting and not self._ending.is_set():
                self._wake.clear()
            if batch:
                await self._write_and_tell(batch)

    async def _write_and_tell(self, batch: list[tuple[Hit, asyncio.Future[None]]]) -> None:
        try:
            await self._write([hit for hit, _ in batch])
        except Exception:  # noqa: BLE001 - whatever it is, the reader's answer must not hang on it
            self.dropped += len(batch)
            _LOG.exception("tracking: %s hits lost", len(batch))
        for _, future in batch:
            if not future.done():
                future.set_result(None)

    async def _write(self, batch: list[Hit]) -> None:
        key = secrets.token_hex(12)
        # A connection may have died while idle: once more on a new one. The key makes that harmless.
        for _ in range(0 if self._is_away else 2):
            try:
                if self._connection is None:
                    self._connection, self._statement = await self._connect()
                await self._store(self._statement, key, self._rule_version, batch)
                return
            except Refused as error:
                await self._write_singly(batch, error)
                return
            except TimeoutError:
                self._disconnect()
                break
            except _AWAY:
                self._disconnect()
        if not self._is_away:
            _LOG.warning("tracking: the database is away, hits go to the spool")
            self._is_away = True
        record = {"key": key, "rule": self._rule_version, "hits": hits.to_json(batch)}
        await self._on_disk(partial(self._spool.add, record))
        self._has_spooled = True
        self.spooled += len(batch)

    async def _write_singly(self, batch: list[Hit], error: Refused) -> None:
        if len(batch) > 1:
            for hit in batch:
                await self._write([hit])
            return
        self.dropped += 1
        _LOG.error("tracking: a hit of message %s cannot be stored: %s", batch[0].message_id, error)

    async def _connect(self) -> tuple[Any, Any]:
        settings = {"application_name": "mauto-tracker"}
        connection = await asyncpg.connect(self._dsn, timeout=_PATIENCE_SECONDS, server_settings=settings)
        return connection, await connection.prepare(self._sql, timeout=_PATIENCE_SECONDS)

    async def _store(self, prepared: Any, key: str, rule_version: int, batch: list[Hit]) -> None:
        """One statement, one transaction. A batch that is stored already is no error.

        Raises:
            Refused: the data can never be stored.
        """
        try:
            values = hits.arguments(key, rule_version, batch)
            await asyncio.wait_for(prepared.fetchval(*values), _PATIENCE_SECONDS)
        except asyncpg.UniqueViolationError as error:
            if "batch_key" not in (error.constraint_name or ""):
                raise Refused(str(error)) from error
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, TypeError) as error:
            raise Refused(type(error).__name__) from error

    async def _come_back(self) -> None:
        while not self._ending.is_set():
            if self._has_spooled or self._is_away:
                try:
                    await self._replay()
                except Exception as error:  # noqa: BLE001 - tried again in a moment, whatever it was
                    _LOG.info("tracking: the spool has to wait (%s)", type(error).__name__)
                    self._has_spooled = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _RETRY_SECONDS)

    async def _replay(self) -> None:
        self._has_spooled = False
        if not self._is_away and self._spool.is_empty():
            return
        connection, prepared = await self._connect()
        try:
            self._is_away = False
            await self._on_disk(self._spool.close)
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(self._spool.replay, partial(self._apply, loop, prepared))
        finally:
            connection.terminate()

    def _apply(self, loop: asyncio.AbstractEventLoop, prepared: Any, record: Record) -> None:
        if self._ending.is_set():
            raise InterruptedError("stopping; the rest of the spool is for the next start")
        if "hits" not in record:
            self._apply_other(record)
            return
        try:
            key, rule_version, batch = record["key"], record["rule"], hits.from_json(record["hits"])
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"not a batch of hits: {error}") from error
        asyncio.run_coroutine_threadsafe(self._store(prepared, key, rule_version, batch), loop).result()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _on_disk(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)
