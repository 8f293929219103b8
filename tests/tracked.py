"""The tracking app as a test meets it: around an app that answers 404, on a database that can be taken away.

`tracking` is one that a module's tests share, emptied before each; `tracked` runs another one. `links_of` makes the
links of one message. `Gate` is a TCP proxy in front of PostgreSQL that can be shut, frozen or made deaf.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import uvicorn
from psycopg2.errors import DeadlockDetected
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from mautolib.events.links import LinkSigner, MessageLinks, Owner
from mautolib.settings import Settings
from tests.builders import make_contact
from tests.live_service import live_settings

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


async def not_here(scope: Any, receive: Any, send: Any) -> None:
    """The app inside: knows the lifespan, and answers everything with 404."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"inside"})


@dataclass(kw_only=True)
class Tracking:
    """A running tracking app and what is behind it."""

    client: httpx.Client
    settings: Settings
    engine: Engine

    def links(self, contact_id: int, **message: Any) -> MessageLinks:
        """The links of a message; see `links_of`."""
        return links_of(self.settings, contact_id, **message)

    def rows(self, query: str, **values: Any) -> list[Any]:
        """What a query answers now."""
        return rows(self.engine, query, **values)

    def count(self, table: str, where: str = "true") -> int:
        """How many rows of `table` there are."""
        return count(self.engine, table, where)

    def contact(self, **fields: Any) -> int:
        """A new contact."""
        with self.engine.begin() as tx:
            return make_contact(tx, **fields)

    def empty(self) -> None:
        """Forget everything, once what nobody waited for is written too (hits are written in order)."""
        self.client.get(path_of(self.links(1).open()))
        for patience in range(4, -1, -1):
            try:
                with self.engine.begin() as tx:
                    tx.execute(text(
                        "truncate hits, hit_verdicts, events, event_keys, event_pending, contacts, suppressions, "
                        "consents, contact_history, outbox, messages, message_keys restart identity cascade"
                    ))  # fmt: skip
                return
            except OperationalError as error:  # what an earlier test gave up waiting for may still be written
                if not patience or not isinstance(error.orig, DeadlockDetected):
                    raise


@pytest.fixture(scope="module")
def running_tracking(
    cluster: Any, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tracking]:
    """The app of one module."""
    from mautolib.db.engine import connect

    name = cluster.create(template=template_database)
    settings = live_settings(cluster.url(name), tmp_path_factory.mktemp("home"))
    engine = connect(cluster.url(name))
    with tracked(settings) as client:
        yield Tracking(client=client, settings=settings, engine=engine)
    engine.dispose()
    cluster.drop(name)


@pytest.fixture
def tracking(running_tracking: Tracking) -> Tracking:
    """The app of this module, with nothing in its database."""
    running_tracking.empty()
    return running_tracking


@contextlib.contextmanager
def tracked(settings: Settings) -> Iterator[httpx.Client]:
    """A client of the running tracking app (a real server), as a browser; does not follow redirects."""
    from api.tracking import TrackingApp

    with serving(TrackingApp(not_here, settings)) as url, httpx.Client(
        base_url=url, headers={"User-Agent": BROWSER}, timeout=20, trust_env=False, verify=False
    ) as client:
        yield client


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Any ASGI app behind a real server on a free port; gives its URL."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, ws="none", log_config=None, access_log=False,
                            proxy_headers=False, server_header=False, lifespan="on")  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started, "the app did not start"
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive(), "the app did not stop"


def links_of(
    settings: Settings, contact_id: int, *, campaign_id: int | None = 7, workflow_id: int | None = None,
    message_id: int = 1, age_seconds: float = 3600,
) -> MessageLinks:
    """The links of a message that was rendered a while ago."""  # fmt: skip
    return LinkSigner.from_settings(settings).for_message(
        owner=Owner.of(campaign_id=campaign_id, workflow_id=workflow_id), contact_id=contact_id,
        message_id=message_id, made_at=datetime.now(UTC) - timedelta(seconds=age_seconds),
    )  # fmt: skip


def path_of(url: str) -> str:
    """The part of a link after the host."""
    return url.split("8000", 1)[1]


def rows(engine: Engine, query: str, **values: Any) -> list[Any]:
    """What a query answers now."""
    with engine.connect() as connection:
        return list(connection.execute(text(query), values).all())


def count(engine: Engine, table: str, where: str = "true") -> int:
    """How many rows of `table` there are."""
    return int(rows(engine, f"select count(*) from {table} where {where}")[0][0])


def until(condition: Callable[[], bool], *, seconds: float = 15) -> None:
    """Wait for a condition; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class Gate:
    """A TCP proxy in front of a database."""

    def __init__(self, database_url: str) -> None:
        self._target = make_url(database_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[socket.socket] = []
        self._open = threading.Event()
        self._open.set()
        self._deaf = False
        self._shut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self) -> str:
        """The database's URL through this gate."""
        url = self._target.set(host="127.0.0.1", port=self.port)
        return url.render_as_string(hide_password=False)

    def through(self, settings: Settings) -> Settings:
        """The settings with every connection going through this gate."""
        return dataclasses.replace(settings, database_url=self.url())

    def shut(self) -> None:
        """Break every connection and refuse new ones."""
        self._shut = True
        self._drop()

    def freeze(self) -> None:
        """Connections stay, nothing moves."""
        self._open.clear()

    def deafen(self) -> None:
        """What is asked arrives; answers do not."""
        self._deaf = True

    def reopen(self) -> None:
        """As if nothing had been (old connections are gone)."""
        self._drop()
        self._shut = self._deaf = False
        self._open.set()

    def close(self) -> None:
        """End the proxy."""
        self.reopen()
        self._listener.close()

    def _drop(self) -> None:
        for one in self._pairs:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._shut:
                    client.close()
                    continue
                server = socket.create_connection((self._target.host or "127.0.0.1", self._target.port or 5432))
                self._pairs += [client, server]
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                if not (self._deaf and is_answer):
                    target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
