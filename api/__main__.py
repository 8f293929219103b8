"""`python -m api`: the service on MAUTO_API_HOST and MAUTO_API_PORT.

Refuses to start, in one line that says what to do, when the port is taken, the database cannot be reached or is not
migrated, or a secret is weak. Makes the first administrator. Believes no proxy header.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import sys
from datetime import UTC, datetime
from typing import Any

import uvicorn
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.app import create_app
from mautolib.auth import users
from mautolib.db import migrate
from mautolib.db.engine import connect, parse_url
from mautolib.errors import MautoError, Misconfigured, ProviderUnavailable
from mautolib.log import setup
from mautolib.settings import Settings

_LOG = logging.getLogger("api")
IDLE_SECONDS = 30


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection that has not sent a whole request head within 30 seconds of opening.

    It never writes uvicorn's own access log, whatever the logging of the process says: that one shows queries.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self.loop.call_later(IDLE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if getattr(self, "cycle", None) is None and not self.transport.is_closing():
            self.transport.close()


def prepare(settings: Settings) -> None:
    """Check what the service needs before it listens, and make the first administrator.

    Raises:
        Misconfigured: a secret, the database URL, the schema or the first administrator.
        ProviderUnavailable: the database cannot be reached.
    """
    settings.check_secrets()
    url = settings.url_for("api")
    engine = connect(url, application_name="mauto-api", pool_size=1)
    try:
        _check_database(engine, settings)
    except SQLAlchemyError as error:
        place = parse_url(url)
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ProviderUnavailable(
            f"the database {place.database} on {place.host}:{place.port or 5432} cannot be used: {reason}; "
            "start it (`make up`) or set MAUTO_DATABASE_URL"
        ) from None
    finally:
        engine.dispose()


def _check_database(engine: Engine, settings: Settings) -> None:
    missing = migrate.pending(engine)
    if missing:
        what = f"{len(missing)} files to apply, first {missing[0]}"
        raise Misconfigured(f"the database is not up to date ({what}); run `make migrate`")
    with engine.begin() as tx:
        users.ensure_admin(tx, settings, datetime.now(UTC))


def listen(settings: Settings) -> socket.socket:
    """The listening socket.

    Raises:
        Misconfigured: the port is taken, or the address is not this machine's.
    """
    opened: socket.socket | None = None
    try:
        found = socket.getaddrinfo(settings.api_host, settings.api_port, type=socket.SOCK_STREAM)
        opened = socket.socket(found[0][0], socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(found[0][4])
        # Bound alone is not taken yet, and a caller between our log line and the server's start would be refused.
        opened.listen(1024)
    except (OSError, OverflowError) as error:
        if opened is not None:
            opened.close()
        place = f"{settings.api_host}:{settings.api_port}"
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        why = "is taken" if taken else f"cannot be used ({getattr(error, 'strerror', None) or error})"
        raise Misconfigured(f"{place} {why}; set MAUTO_API_PORT (or MAUTO_API_HOST) to another one") from None
    return opened


def settle_memory() -> None:
    """Leave what is loaded out of every later search for garbage, and search less often.

    A full search through everything that is imported takes 50 ms, in which nobody is answered.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def main() -> int:
    """Run until told to stop; returns the exit code."""
    try:
        settings = Settings.from_env()
        setup(settings.log_level, settings.log_format)
        opened = listen(settings)
        prepare(settings)
        app = create_app(settings)
    except MautoError as error:
        sys.stderr.write(f"api: {error}\n")
        return 2
    config = uvicorn.Config(
        app, http=ImpatientProtocol, ws="none", access_log=False, log_config=None, proxy_headers=False,
        server_header=False, timeout_keep_alive=IDLE_SECONDS, timeout_graceful_shutdown=10, lifespan="on",
    )  # fmt: skip
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    _LOG.info("listening on http://%s:%s", settings.api_host, opened.getsockname()[1])
    settle_memory()
    uvicorn.Server(config).run(sockets=[opened])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
