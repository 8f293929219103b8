"""One SMTP session: connect, greet, encrypt, sign in - and say commands, each step with its own outcome.

Promise: when `open_session` returns, the server is ready for MAIL and what it offers is known; when it raises, no
message was touched. TLS certificates are checked, nothing said before STARTTLS is trusted after it, and a password
never goes over an unencrypted line to another machine. Used by `smtp_email`; it knows nothing of messages.
"""

from __future__ import annotations

import base64
import contextlib
import re
import select
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import Final

from mautolib.channels.smtp_reply import CutOff, Lost, Reply, ReplyReader
from mautolib.channels.wire import is_loopback
from mautolib.errors import Misconfigured, ProviderUnavailable

CONNECT_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 60.0
#: RFC 5321 4.5.3.2.6 wants ten minutes; a message is leased for fifteen.
ANSWER_SECONDS: Final = 300.0
SECURITY: Final = ("none", "starttls", "tls")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A mail server and how to speak to it."""

    host: str
    port: int
    security: str = "none"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str | None = None
    loopback_only: bool = False
    connect_seconds: float = CONNECT_SECONDS
    command_seconds: float = COMMAND_SECONDS
    answer_seconds: float = ANSWER_SECONDS
    #: A connection is renewed after so many messages or seconds; 0: never.
    most_messages: int = 0
    most_seconds: float = 0.0


class Session:
    """An open session; `offers` are the server's extensions in upper case with their arguments."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self.server = server
        self.offers: dict[str, str] = {}
        self.is_pipelined = self.takes_utf8 = self.takes_size = False
        #: The replies to the last envelope that was accepted, as they were received.
        self.usual = b""
        #: In bytes; 0: not told.
        self.size_limit = 0
        #: Whether nobody listened for so long that the server may have given up what was begun.
        self.is_stale = False
        #: Messages decided so far: a server that closes after some only wants a new connection.
        self.answered = 0
        self._opened_at = time.monotonic()
        self._use(connection)

    def _use(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = ReplyReader(connection, self._before_waiting)
        self.is_encrypted = isinstance(connection, ssl.SSLSocket)
        self._seconds = 0.0
        #: How long the reply that is being read may take; how long `is_answered` waits, if the kernel was told.
        self._reading_seconds = self.server.command_seconds
        self._patience = 0.0

    def is_worn(self, *, under_way: int = 0) -> bool:
        """Whether it has served its time, so that the next message goes over a new one.

        Args:
            under_way: messages begun and not yet decided.
        """
        server = self.server
        return 0 < server.most_messages <= self.answered + under_way or (
            0 < server.most_seconds <= time.monotonic() - self._opened_at
        )

    def _wait_at_most(self, seconds: float) -> None:
        """Limit each read and write; on a plain line by the kernel, which spares asking it twice each time."""
        if seconds == self._seconds and not self._patience:
            return
        self._seconds, self._patience = seconds, 0.0
        if self.is_encrypted:
            self._connection.settimeout(seconds)
            return
        self._connection.settimeout(None)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))

    def _before_waiting(self) -> None:
        self._wait_at_most(self._reading_seconds)

    def write(self, data: bytes, more: bytes = b"") -> None:
        """Send bytes, and `more` in the same packet; if this raises, not all of them left this process.

        Raises:
            CutOff: the connection broke or stalled; says how many bytes left at most.
        """
        sent = 0
        try:
            if not self._seconds:
                self._wait_at_most(self.server.command_seconds)
            if self.is_encrypted:
                sent = len(data) + len(more)  # a record may have left although the call failed
                self._connection.sendall(data + more)
                return
            sent = self._connection.sendmsg((data, more)) if more else self._connection.send(data)
            if sent < len(data) + len(more):
                rest = memoryview(data + more)
                while sent < len(rest):
                    sent += self._connection.send(rest[sent:])
        except (TimeoutError, BlockingIOError) as error:
            raise CutOff("the mail server takes no more data", sent=sent) from error
        except OSError as error:
            raise CutOff(f"the connection to the mail server broke: {error.strerror or error}", sent=sent) from error

    def read(self, *, seconds: float | None = None) -> Reply:
        """The next reply.

        Raises:
            Lost: as `ReplyReader.read`.
        """
        self._reading_seconds = seconds or self.server.command_seconds
        return self._reader.read()

    def is_answered(self, patience: float = 0.0) -> bool:
        """Whether the server has said something (or hung up), waiting for it at most `patience` seconds."""
        if self._reader.has_more:
            return True
        connection = self._connection
        if isinstance(connection, ssl.SSLSocket):
            return connection.pending() > 0 or bool(select.select([connection], [], [], patience)[0])
        if not patience:
            return self._reader.listen(socket.MSG_DONTWAIT)
        if self._patience != patience:
            # The kernel waits: asking it first whether there is something costs another call for every message.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(patience))
            self._patience = patience
        return self._reader.listen(0)

    def read_usual(self, expected: bytes) -> bool:
        """Take what the server has said if it is, byte for byte, `expected`; else nothing is taken."""
        return bool(expected) and self._reader.skip(expected)

    @property
    def received(self) -> bytes:
        """What the server has said that nobody has read yet."""
        return self._reader.buffered()

    def say(self, command: str) -> Reply:
        """One command and its reply.

        Raises:
            Lost: the connection broke or stalled.
        """
        self.write(command.encode("utf-8") + b"\r\n")
        return self.read()

    def quit(self) -> None:
        """End politely; never raises."""
        with contextlib.suppress(Lost):
            self._wait_at_most(2.0)
            self.write(b"QUIT\r\n")
            self.read(seconds=2.0)
        self.drop()

    def drop(self) -> None:
        """Cut the line: the only way to take back a message whose body has begun."""
        with contextlib.suppress(OSError):
            self._connection.close()

    def greet(self) -> None:
        """EHLO; falls back to HELO for a server that knows no extensions."""
        name = _own_name(self._connection)
        reply = self.say(f"EHLO {name}")
        if reply.code in (500, 502, 504):
            reply = self.say(f"HELO {name}")
            reply = Reply(code=reply.code, text=reply.text)
        if reply.code != 250:
            raise ProviderUnavailable(f"The mail server refused the greeting: {reply}")
        words = (line.upper().replace("AUTH=", "AUTH ", 1).partition(" ") for line in reply.lines[1:])
        self.offers = {}
        for word, _, rest in words:
            self.offers[word] = f"{self.offers.get(word, '')} {rest}".strip()
        self.is_pipelined = "PIPELINING" in self.offers
        self.takes_utf8 = "SMTPUTF8" in self.offers
        self.takes_size = "SIZE" in self.offers
        size = self.offers.get("SIZE", "")
        self.size_limit = int(size) if size.isascii() and size.isdigit() else 0

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Encrypt a session that began in the clear."""
        if "STARTTLS" not in self.offers:
            raise ProviderUnavailable("The mail server does not offer STARTTLS; MAUTO_SMTP_SECURITY asks for it")
        reply = self.say("STARTTLS")
        if reply.code != 220:
            raise ProviderUnavailable(f"The mail server refused STARTTLS: {reply}")
        if self._reader.has_more:
            raise ProviderUnavailable("The mail server spoke before the encryption; the line may be tampered with")
        self._use(_encrypted(self._connection, self.server, context))
        self.greet()

    def sign_in(self) -> None:
        """AUTH PLAIN or LOGIN (RFC 4954)."""
        server = self.server
        if server.security == "none" and not is_loopback(server.host):
            raise Misconfigured("MAUTO_SMTP_PASSWORD would travel unencrypted; set MAUTO_SMTP_SECURITY to tls or "
                                "starttls")
        methods = self.offers.get("AUTH", "").split()
        if "PLAIN" in methods:
            token = base64.b64encode(f"\0{server.username}\0{server.password}".encode()).decode()
            reply = self.say(f"AUTH PLAIN {token}")
        elif "LOGIN" in methods:
            reply = self.say("AUTH LOGIN")
            for secret in (server.username, server.password):
                if reply.code == 334:
                    reply = self.say(base64.b64encode(secret.encode()).decode())
        else:
            raise Misconfigured("The mail server offers no sign-in (AUTH PLAIN or LOGIN), but MAUTO_SMTP_USERNAME "
                                "is set")
        if reply.code >= 500:
            raise Misconfigured(f"The mail server refused MAUTO_SMTP_USERNAME and MAUTO_SMTP_PASSWORD: {reply.code}")
        if reply.code != 235:
            raise ProviderUnavailable(f"The mail server did not sign us in: {reply.code}")


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))


def open_session(server: Server) -> Session:
    """Connect and get ready for the first MAIL.

    Raises:
        ProviderUnavailable: it cannot be reached, or not now.
        Misconfigured: a setting must change first.
    """
    connection = _connected(server)
    context = ssl.create_default_context(cafile=server.ca_file) if server.security != "none" else None
    if context is not None and server.security == "tls":
        connection = _encrypted(connection, server, context)
    session = Session(server, connection)
    try:
        banner = session.read()
        if banner.code != 220:
            raise ProviderUnavailable(f"The mail server is not ready: {banner}")
        session.greet()
        if context is not None and server.security == "starttls":
            session.start_tls(context)
        if server.username:
            session.sign_in()
    except BaseException:
        session.drop()
        raise
    return session


def _connected(server: Server) -> socket.socket:
    try:
        connection = socket.create_connection((server.host, server.port), timeout=server.connect_seconds)
    except OSError as error:
        raise ProviderUnavailable(
            f"The mail server {server.host}:{server.port} cannot be reached: {error.strerror or error}"
        ) from error
    if server.loopback_only and not is_loopback(connection.getpeername()[0]):
        connection.close()
        raise Misconfigured("The demo sends to a mail sink on this machine only; MAUTO_SMTP_HOST is elsewhere")
    connection.settimeout(server.command_seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _encrypted(connection: socket.socket, server: Server, context: ssl.SSLContext) -> socket.socket:
    try:
        return context.wrap_socket(connection, server_hostname=server.host)
    except (OSError, ValueError) as error:
        connection.close()
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        raise ProviderUnavailable(f"The mail server {server.host} cannot be spoken to over TLS: {reason}") from error


def _own_name(connection: socket.socket) -> str:
    """What we call ourselves: this machine's full name, else its address as a literal (RFC 5321 4.1.3)."""
    name = socket.gethostname()
    if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", name):
        return name
    address = connection.getsockname()[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
