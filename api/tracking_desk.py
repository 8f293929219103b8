"""Where the pages behind links reach the database: a few threads, and no waiting for one that is away.

`run` carries a transaction out and gives up on it after a while. What was given up may still come through, so what is
run here must bear being done twice. Called by `api/unsubscribe.py`, `api/preferences.py` and `api/confirm.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mautolib.db.engine import connect, is_unavailable
from mautolib.settings import Settings

__all__ = ["Away", "Desk"]

#: Connections and threads; requests beyond wait their turn.
_AT_ONCE = 4
_STATEMENT_TIMEOUT_MS = 5_000
#: Cancelled, not serializable, deadlock, lock not available: nothing is wrong with the request.
_BUSY = ("57014", "40001", "40P01", "55P03")
_T = TypeVar("_T")


class Away(Exception):
    """The database cannot be reached, or does not answer in time."""


class Desk:
    """The database as the pages see it.

    Args:
        engine: used instead of a pool of its own (the caller disposes of it).
    """

    def __init__(self, settings: Settings, *, engine: Engine | None) -> None:
        self._owns_engine = engine is None
        self.engine = engine or connect(
            settings.url_for("api"), application_name="mauto-pages", pool_size=_AT_ONCE, max_overflow=0,
            statement_timeout_ms=_STATEMENT_TIMEOUT_MS,
        )  # fmt: skip
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pages")

    async def run(self, work: Callable[[Connection], _T], *, patience_seconds: float) -> _T:
        """What `work` gives for a transaction of its own.

        Raises:
            Away: the database is away, busy, or takes longer than that.
        """

        def transaction() -> _T:
            with self.engine.begin() as tx:
                return work(tx)

        try:
            going = asyncio.get_running_loop().run_in_executor(self._threads, transaction)
            return await asyncio.wait_for(going, patience_seconds)
        except TimeoutError as error:
            raise Away from error
        except SQLAlchemyError as error:
            if is_unavailable(error) or _is_busy(error):
                raise Away from error
            raise

    def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._owns_engine:
            self.engine.dispose()


def _is_busy(error: SQLAlchemyError) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "pgcode", None) in _BUSY
