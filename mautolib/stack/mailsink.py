"""A mail server that delivers nothing: it keeps what it received and shows it.

`python -m mautolib.stack.mailsink --help`. The local stack and the demo send to it; tests use `MailSink` in a
thread. Every accepted message is on disk before it is accepted and stands as one JSON line in
`<directory>/accepted.jsonl`. One process, loopback only unless told otherwise; stops cleanly on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from mautolib.errors import MautoError, Misconfigured
from mautolib.stack.mailsink_box import Mailbox
from mautolib.stack.mailsink_mail import ReceivedMail
from mautolib.stack.mailsink_smtp import SmtpConnection
from mautolib.stack.mailsink_web import HttpConnection, SinkSite


class _Servers:
    """Both servers over one mailbox, in the running event loop."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._smtp_clients: set[SmtpConnection] = set()
        self._http_clients: set[HttpConnection] = set()
        self._servers: list[asyncio.Server] = []

    async def start(self, smtp: tuple[str, int], http: tuple[str, int]) -> tuple[int, int]:
        """Listen; returns the two ports (of which 0 means any free one).

        Raises:
            Misconfigured: an address or port cannot be listened on; says which option to change.
        """
        site = SinkSite(self._mailbox, only_local=_is_loopback(http[0]))
        smtp_port = await self._listen(
            lambda: SmtpConnection(self._mailbox, self._smtp_clients), smtp, "--smtp-host or --smtp-port"
        )
        http_port = await self._listen(
            lambda: HttpConnection(site, self._http_clients), http, "--http-host or --http-port"
        )
        return smtp_port, http_port

    async def _listen(self, factory: Callable[[], asyncio.Protocol], address: tuple[str, int], options: str) -> int:
        host, port = address
        try:
            server = await asyncio.get_running_loop().create_server(factory, host, port)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Misconfigured(f"cannot listen on {host}:{port} ({reason}); change {options}") from None
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no more connections, say goodbye to those there are."""
        for server in self._servers:
            server.close()
        for mail_client in list(self._smtp_clients):
            mail_client.close()
        for page_client in list(self._http_clients):
            page_client.close()
        deadline = asyncio.get_running_loop().time() + 2
        while (self._smtp_clients or self._http_clients) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        self._mailbox.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class MailSink:
    """A sink in a background thread, for tests: `with MailSink(directory) as sink: ...`."""

    def __init__(self, directory: Path, smtp_port: int = 0, http_port: int = 0, host: str = "127.0.0.1") -> None:
        self.directory = directory
        self.host = host
        self.smtp_port = smtp_port
        self.http_port = http_port
        self._ready = threading.Event()
        self._failed: BaseException | None = None

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://{self.host}:{self.http_port}"

    @property
    def log_path(self) -> Path:
        """The log: one JSON line for each accepted message."""
        return self.directory / "accepted.jsonl"

    def __enter__(self) -> MailSink:
        self._thread = threading.Thread(target=self._run, name="mail-sink", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            self._thread.join()
            raise self._failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except MautoError as error:
            self._failed = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._mailbox = Mailbox(self.directory)
        servers = _Servers(self._mailbox)
        try:
            ports = await servers.start((self.host, self.smtp_port), (self.host, self.http_port))
            self.smtp_port, self.http_port = ports
            self._ready.set()
            await self._stopping.wait()
        finally:
            await servers.stop()

    def count(self) -> int:
        """How many messages it holds."""
        return self._mailbox.count()

    def messages(self, search: str = "") -> list[ReceivedMail]:
        """All messages, oldest first; `search` is looked for in recipients, subject and Message-ID."""
        entries = self._mailbox.after(0, search=search, limit=-1)
        return [ReceivedMail(entry=entry, raw=self._mailbox.content(entry)) for entry in entries]

    def clear(self) -> int:
        """Delete all messages; returns how many there were."""
        return self._mailbox.clear()

    def wait_for(self, count: int, timeout: float = 10.0) -> list[ReceivedMail]:
        """Wait until it holds `count` messages and return all it holds.

        Raises:
            TimeoutError: fewer came in `timeout` seconds; says how many.
        """
        with self._mailbox.arrived:
            if not self._mailbox.arrived.wait_for(lambda: self._mailbox.count() >= count, timeout):
                raise TimeoutError(f"{self._mailbox.count()} of {count} messages came in {timeout} s")
        return self.messages()


async def _serve(options: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    mailbox = Mailbox(options.directory)
    servers = _Servers(mailbox)
    try:
        smtp, http = await servers.start((options.smtp_host, options.smtp_port), (options.http_host, options.http_port))
        pages = f"http://{_in_url(options.http_host)}:{http}/"
        print(f"mail sink: SMTP on {options.smtp_host}:{smtp}, pages at {pages}, "
              f"{mailbox.count()} messages kept in {options.directory}", flush=True)  # fmt: skip
        await stopping.wait()
    finally:
        await servers.stop()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sink until SIGTERM or Ctrl-C; 1 and one line when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m mautolib.stack.mailsink", description=__doc__.split("\n\n")[0])
    parser.add_argument("--smtp-host", default="127.0.0.1", help="address to take mail on (default %(default)s)")
    parser.add_argument("--smtp-port", type=_port, default=1025, help="its port, 0 for any (default %(default)s)")
    parser.add_argument("--http-host", default="127.0.0.1", help="address of the pages (default %(default)s)")
    parser.add_argument("--http-port", type=_port, default=8025, help="their port, 0 for any (default %(default)s)")
    parser.add_argument("--directory", type=Path, required=True, help="where mail is kept")
    try:
        asyncio.run(_serve(parser.parse_args(arguments)))
    except (MautoError, OSError, socket.gaierror) as error:
        print(f"mail sink: {error}", file=sys.stderr)
        return 1
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
