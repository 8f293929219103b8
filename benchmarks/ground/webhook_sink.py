"""A receiver of webhooks in a process of its own: answers at once, or never, and tells afterwards what came."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import uvloop

from mautolib.webhooks.addresses import Policy
from mautolib.webhooks.connecting import Reach

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_SAMPLE = 50


class _Sink(asyncio.Protocol):
    """Takes every POST; keeps ids and times, and some requests whole. What goes to /hang is never answered."""

    ids: ClassVar[Counter[str]] = Counter()
    first_at: ClassVar[dict[str, float]] = {}
    samples: ClassVar[list[tuple[bytes, bytes]]] = []
    hung: ClassVar[set[str]] = set()
    connections: ClassVar[int] = 0

    def connection_made(self, transport: Any) -> None:
        self._transport, self._rest = transport, b""
        _Sink.connections += 1

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            at = data.index(b"Content-Length: ") + 16
            length = int(data[at : data.index(b"\r", at)])
            if len(data) < end + 4 + length:
                break
            head, body, data = data[:end], data[end + 4 : end + 4 + length], data[end + 4 + length :]
            at = head.index(b"webhook-id: ") + 12
            message_id = head[at : at + 36].decode()
            self.ids[message_id] += 1
            self.first_at.setdefault(message_id, time.time())
            if len(self.samples) < _SAMPLE:
                self.samples.append((head, body))
            if head.startswith(b"POST /hang"):
                self.hung.add(message_id)
            else:
                self._transport.write(_ANSWER)
        self._rest = data


@dataclass
class Account:
    """What the sink says: how often each id came and when first, some requests whole, and what it cost."""

    ids: dict[str, int]
    first_at: dict[str, float]
    samples: list[tuple[bytes, bytes]]
    hung: set[str]
    connections: int
    cpu_seconds: float


class SinkProcess:
    """A receiver on loopback."""

    def __init__(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = listening.getsockname()[1]
        self._pipe, other = multiprocessing.Pipe()
        forks = multiprocessing.get_context("fork")
        self.process = forks.Process(target=_serve, args=(listening, other), daemon=True)
        self.process.start()
        listening.close()

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def reach(self) -> Reach:
        """The one override of the guard: this port of this machine."""
        return reach_of(self.port)

    def end(self) -> Account:
        """Stop it, and have its account."""
        self._pipe.send("enough")
        account: Account = self._pipe.recv()
        self.process.join()
        return account


@contextmanager
def sink() -> Iterator[SinkProcess]:
    """A sink that is ended whatever happens."""
    made = SinkProcess()
    try:
        yield made
    finally:
        made.process.kill()
        made.process.join()


def reach_of(port: int) -> Reach:
    """Lets deliveries go to one port of this machine; no setting makes such a thing."""
    policy = Policy(allow_http=True, allowed_hosts=frozenset({f"127.0.0.1:{port}"}))
    return Reach(policy=policy, look_up=_nobody)


async def _nobody(_: str) -> tuple[()]:
    return ()


def _serve(listening: socket.socket, pipe: Connection) -> None:
    """The sink's process: serves until asked, then tells."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Sink, sock=listening, backlog=1024)
        await loop.run_in_executor(None, pipe.recv)
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pipe.send(Account(
        ids=dict(_Sink.ids), first_at=_Sink.first_at, samples=_Sink.samples, hung=_Sink.hung,
        connections=_Sink.connections, cpu_seconds=usage.ru_utime + usage.ru_stime,
    ))  # fmt: skip
