"""A receiver of webhooks on loopback: notes each request, and answers as a function of it says.

Runs in a thread of its own with an event loop of its own; the answer may be a coroutine that takes its time.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

from mautolib.webhooks.addresses import Address, Policy
from mautolib.webhooks.connecting import Reach


@dataclass(frozen=True)
class Request:
    """One request as it came: names of headers in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True)
class Answer:
    """What the receiver says: status and reason, further headers, body."""

    status: str = "204 No Content"
    headers: tuple[str, ...] = ()
    body: bytes = b""

    def __bytes__(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status}", f"Content-Length: {len(self.body)}", *self.headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


Decide = Callable[[Request], Answer | Awaitable[Answer]]


@dataclass
class WebhookReceiver:
    """Where it listens and what came; `decide` may be replaced at any time."""

    port: int
    decide: Decide
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def reach(self, *others: WebhookReceiver, tls: ssl.SSLContext | None = None) -> Reach:
        """The override that lets deliveries of a test come here, and nowhere else inside."""
        hosts = frozenset(f"127.0.0.1:{one.port}" for one in (self, *others))
        return Reach(policy=Policy(allow_http=True, allowed_hosts=hosts), look_up=nobody, tls=tls)


async def nobody(host: str) -> tuple[Address, ...]:
    """A DNS that knows one public address for everybody."""
    return (ip_address("8.8.4.4"),)


@contextmanager
def receive(decide: Decide | None = None, tls: ssl.SSLContext | None = None) -> Iterator[WebhookReceiver]:
    """Run a receiver that takes everything, or answers as `decide` says."""
    receiver = WebhookReceiver(0, decide or (lambda _: Answer()))
    loop, ready, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1)[:1] + line.split(": ", 1)[1:] for line in lines if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Request(first.split(" ")[1], headers, body, loop.time())
                receiver.requests.append(request)
                answer = receiver.decide(request)
                writer.write(bytes(answer if isinstance(answer, Answer) else await answer))
                await writer.drain()
        with suppress(OSError):
            writer.transport.abort()

    async def serve() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
        receiver.port = server.sockets[0].getsockname()[1]
        ready.set()
        await ended.wait()
        server.close()
        others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)

    def work() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield receiver
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
