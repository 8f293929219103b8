"""A mail server that follows a script: it answers, refuses, hangs up or falls silent at any step, and notes it all."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

DROP = "<drop>"
HANG = "<hang>"


@dataclass(kw_only=True)
class Script:
    """What to say at each step; of a list the nth is for the nth time, and the last one from then on.

    A reply without a line end at its end (`"250 2."`, marked by a trailing `\\0`) is cut off and the line dropped.
    """

    greeting: str | list[str] = "220 mx.test ready"
    offers: Sequence[str] = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 10000000")
    ehlo: str | list[str] = ""
    starttls: str | list[str] = "220 2.0.0 go ahead"
    auth: str | list[str] = "235 2.7.0 welcome"
    mail: str | list[str] = "250 2.1.0 ok"
    rcpt: str | list[str] = "250 2.1.5 ok"
    data: str | list[str] = "354 end with a dot"
    dot: str | list[str] = "250 2.0.0 Ok: queued as Q1"
    #: DATA although every RCPT was refused.
    data_for_nobody: str = "554 5.5.1 no valid recipients"
    #: Hang up after so many bytes of a message.
    drop_after_bytes: int | None = None


@dataclass
class Accepted:
    """One message that got a 250 after its dot."""

    sender: str
    recipient: str
    #: Exactly what came over the wire, dot-unstuffed.
    data: bytes


@dataclass
class SmtpServer:
    """Runs `script` on a port of this machine, one thread per connection, until the `with` block ends."""

    script: Script
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    accepted: list[Accepted] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> SmtpServer:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._times: dict[str, int] = {}
        self._open: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._thread.join(5)

    def _serve(self) -> None:
        workers = []
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            self.connections += 1
            self.opened(connection)
            worker = threading.Thread(target=self._guarded, args=(connection,), daemon=True)
            worker.start()
            workers.append(worker)
        for worker in workers:
            worker.join(5)

    def _guarded(self, connection: socket.socket) -> None:
        dialogue = _Dialogue(self, connection)
        with contextlib.suppress(OSError, ValueError):
            dialogue.run()
        with contextlib.suppress(OSError):
            dialogue.connection.close()

    def opened(self, connection: socket.socket) -> None:
        """Remember a connection, to be closed at the end."""
        self._open.append(connection)

    def next(self, step: str) -> str:
        """What the script says this time."""
        said = getattr(self.script, step)
        if isinstance(said, str):
            return said
        number = self._times.get(step, 0)
        self._times[step] = number + 1
        return str(said[min(number, len(said) - 1)])

    def wait_over(self) -> None:
        """Stay silent until the test ends."""
        self._over.wait(20)


class _Dialogue:
    def __init__(self, server: SmtpServer, connection: socket.socket) -> None:
        self.server, self.connection = server, connection
        self.buffer = b""
        self.sender = self.recipient = ""

    def encrypt(self) -> None:
        if self.server.tls:
            self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
            self.server.opened(self.connection)

    def run(self) -> None:
        if self.server.implicit_tls:
            self.encrypt()
        self.say(self.server.next("greeting"))
        while True:
            line = self.line().decode("utf-8", "surrogateescape")
            self.server.commands.append(line)
            word = line.split(" ")[0].upper()
            if word == "QUIT":
                self.say("221 bye")
                return
            getattr(self, f"on_{word.lower()}", self.on_other)(line)

    def on_ehlo(self, _: str) -> None:
        said = self.server.next("ehlo")
        lines = ["mx.test", *self.server.script.offers]
        self.say(said or "\r\n".join(f"250{'-' if n < len(lines) - 1 else ' '}{o}" for n, o in enumerate(lines)))

    def on_helo(self, _: str) -> None:
        self.say("250 mx.test")

    def on_starttls(self, _: str) -> None:
        said = self.server.next("starttls")
        self.say(said)
        if said.startswith("220"):
            self.encrypt()

    def on_auth(self, line: str) -> None:
        if line.upper() == "AUTH LOGIN":
            for question in ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"):
                self.say(question)
                self.server.commands.append(self.line().decode())
        self.say(self.server.next("auth"))

    def on_mail(self, line: str) -> None:
        self.sender = line[len("MAIL FROM:<") :].partition(">")[0]
        self.say(self.server.next("mail"))

    def on_rcpt(self, line: str) -> None:
        said = self.server.next("rcpt")
        self.recipient = line[len("RCPT TO:<") :].rpartition(">")[0] if said.startswith("2") else ""
        self.say(said)

    def on_data(self, _: str) -> None:
        said = self.server.next("data") if self.recipient else self.server.script.data_for_nobody
        self.say(said)
        if said.startswith("354"):
            self.take_message()

    def on_rset(self, _: str) -> None:
        self.sender = self.recipient = ""
        self.say("250 2.0.0 ok")

    def on_other(self, _: str) -> None:
        self.say("502 5.5.1 what?")

    def take_message(self) -> None:
        limit = self.server.script.drop_after_bytes
        while b"\r\n.\r\n" not in b"\r\n" + self.buffer:
            if limit is not None and len(self.buffer) >= limit:
                raise ConnectionError("as the script says")
            self.fill()
        data, _, self.buffer = (b"\r\n" + self.buffer).partition(b"\r\n.\r\n")
        plain = (data + b"\r\n")[2:] if data.startswith(b"\r\n") else data
        plain = (b"\r\n" + plain).replace(b"\r\n..", b"\r\n.")[2:]
        said = self.server.next("dot")
        if said.startswith("2"):
            self.server.accepted.append(Accepted(self.sender, self.recipient, plain))
        self.say(said)
        self.sender = self.recipient = ""

    def say(self, reply: str) -> None:
        if reply == HANG:
            self.server.wait_over()
            raise ConnectionError("as the script says")
        if reply == DROP:
            raise ConnectionError("as the script says")
        half = reply.endswith("\0")
        self.connection.sendall(reply.rstrip("\0").encode() + (b"" if half else b"\r\n"))
        if half or reply.startswith("421"):
            raise ConnectionError("as the script says")

    def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self.fill()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def fill(self) -> None:
        block = self.connection.recv(65536)
        if not block:
            raise ConnectionError("the client is gone")
        self.buffer += block
