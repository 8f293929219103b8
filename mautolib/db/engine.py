"""SQLAlchemy engines over psycopg2: one way to open them, the same session settings everywhere.

A function that takes `engine` may open transactions; one that takes `tx` works inside its caller's and cannot commit.
"""

from __future__ import annotations

from typing import Any

import psycopg2
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from mautolib.errors import Misconfigured

__all__ = ["connect", "is_unavailable", "parse_url", "Tx"]

#: A network that swallows everything would be waited for two hours: asked after 30 s, given up after 60 s.
_LOST_AFTER_A_MINUTE = {
    "keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}  # fmt: skip
#: A connection inside a transaction that its caller ends.
Tx = Connection


def parse_url(url: str) -> URL:
    """Read a database URL and point it at psycopg2 (`postgres://` and `postgresql://` are both accepted).

    Raises:
        Misconfigured: not a PostgreSQL URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Misconfigured(
            "MAUTO_DATABASE_URL cannot be read; it looks like postgresql://user:password@host:5432/db"
        ) from error
    if parsed.drivername.split("+")[0] not in ("postgres", "postgresql"):
        raise Misconfigured(f"MAUTO_DATABASE_URL names {parsed.drivername!r}; only PostgreSQL is supported")
    return parsed.set(drivername="postgresql+psycopg2")


def connect(
    url: str,
    *,
    application_name: str = "mauto",
    pool_size: int = 5,
    max_overflow: int = 5,
    statement_timeout_ms: int = 0,
    connect_timeout_seconds: int = 2,
) -> Engine:
    """Open an engine on `url`; nothing is connected before the first use.

    Sessions are UTC; a transaction left idle for 5 minutes is ended by the server, so that a frozen worker
    cannot hold row locks for ever (send ledger, rule 7).

    Raises:
        Misconfigured: not a PostgreSQL URL.
    """
    options = (
        "-c timezone=UTC -c idle_in_transaction_session_timeout=300000 "
        f"-c statement_timeout={statement_timeout_ms} -c lock_timeout=0"
    )
    arguments: dict[str, Any] = {
        "application_name": application_name,
        "connect_timeout": connect_timeout_seconds,
        "options": options,
        **_LOST_AFTER_A_MINUTE,
    }
    return create_engine(
        parse_url(url),
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_pre_ping=True,
        pool_timeout=5,
        connect_args=arguments,
        # Parameters hold addresses; error texts end up in logs.
        hide_parameters=True,
    )


def is_unavailable(error: BaseException) -> bool:
    """Whether `error` says that the database cannot be reached, is going away or has no room (retry later)."""
    if isinstance(error, DBAPIError | psycopg2.Error):
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return True
        # COPY speaks to the driver itself.
        original = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(original, "pgcode", None)
        if code is None:
            return type(original).__name__ in ("OperationalError", "InterfaceError")
        # 53: no room, no memory, too many connections; 58030: its disk fails. Either is somebody's to mend, not ours.
        return str(code).startswith(("08", "57P", "53")) or code == "58030"
    return type(error).__name__ == "TimeoutError" and type(error).__module__.startswith("sqlalchemy")
