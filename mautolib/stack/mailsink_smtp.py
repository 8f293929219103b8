"""The SMTP side of the mail sink: accepts everything, keeps it, says so.

Speaks RFC 5321 with PIPELINING, SIZE, 8BITMIME, SMTPUTF8 and enhanced status codes, strictly: lines end in CRLF, the
message ends in CRLF.CRLF and nothing else. 250 is answered after the mailbox has the message. No login, no TLS: it
listens on this machine only unless told otherwise. Used by `mailsink`; a third of aiosmtpd's CPU here.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import Final

from mautolib.stack.mailsink_box import Mailbox

MAX_SIZE: Final = 36_700_160
MAX_RECIPIENTS: Final = 1_000
IDLE_SECONDS: Final = 300.0
_MAX_LINE: Final = 2_048
_EXTENSIONS: Final = ("PIPELINING", f"SIZE {MAX_SIZE}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "HELP")
_END: Final = b"\r\n.\r\n"
_PATH = re.compile(r"(?:FROM|TO):[ ]?<([^<>\x00-\x20\x7f]*)>(?: (.*))?", re.I)
_SIZE = re.compile(r"SIZE=(\d{1,18})", re.I)


class SmtpConnection(asyncio.Protocol):
    """One client."""

    def __init__(self, mailbox: Mailbox, connections: set[SmtpConnection]) -> None:
        self._mailbox = mailbox
        self._connections = connections
        self._buffer = bytearray()
        self._replies: list[str] = []
        self._in_data = False
        self._too_long = False
        self._scanned = 0
        self._greeted = False
        self._reset()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        self._loop = asyncio.get_running_loop()
        self._last_seen = self._loop.time()
        self._timer = self._loop.call_later(IDLE_SECONDS, self._check_idle)
        self._reply("220 localhost mail sink ready")
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; a message without its final dot is not kept."""
        self._timer.cancel()
        self._connections.discard(self)

    def close(self, reason: str = "421 4.3.2 mail sink is stopping") -> None:
        """Say why and hang up."""
        self._reply(reason)
        self._send()
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what came, answer all of it in one piece."""
        self._last_seen = self._loop.time()
        self._buffer += data
        while not self._transport.is_closing() and (self._take_message() if self._in_data else self._take_line()):
            pass
        self._send()

    def _check_idle(self) -> None:
        left = self._last_seen + IDLE_SECONDS - self._loop.time()
        if left <= 0:
            self.close("421 4.4.2 idle too long")
        else:
            self._timer = self._loop.call_later(left, self._check_idle)

    def _reply(self, line: str) -> None:
        self._replies.append(line)

    def _send(self) -> None:
        if self._replies and not self._transport.is_closing():
            self._transport.write("".join(f"{line}\r\n" for line in self._replies).encode("ascii", "replace"))
        self._replies.clear()

    def _reset(self) -> None:
        self._sender: str | None = None
        self._rcpt: list[str] = []
        self._utf8 = False

    def _take_line(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0 and len(self._buffer) > _MAX_LINE:
            self.close("500 5.5.2 line too long")
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if len(line) > _MAX_LINE or b"\n" in line or b"\r" in line or b"\x00" in line:
            self._reply("500 5.5.2 a command is one line of at most 2048 bytes ended by CRLF")
            return True
        try:
            self._command(line.decode("utf-8"))
        except UnicodeDecodeError:
            self._reply("500 5.5.2 a command is UTF-8")
        return True

    def _command(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "EHLO":
                self._hello(rest, _EXTENSIONS)
            case "HELO":
                self._hello(rest, ())
            case "MAIL":
                self._mail(rest)
            case "RCPT":
                self._recipient(rest)
            case "DATA":
                self._data()
            case "RSET":
                self._reset()
                self._reply("250 2.0.0 reset")
            case "NOOP":
                self._reply("250 2.0.0 ok")
            case "VRFY":
                self._reply("252 2.5.2 send some mail, it will be kept")
            case "HELP":
                self._reply("214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT")
            case "QUIT":
                self._reply("221 2.0.0 bye")
                self._send()
                self._transport.close()
            case _:
                self._reply("500 5.5.2 unknown command")

    def _hello(self, name: str, extensions: tuple[str, ...]) -> None:
        if not name.strip():
            self._reply("501 5.5.4 say who you are")
            return
        self._greeted = True
        self._reset()
        lines = ("localhost", *extensions)
        for number, text in enumerate(lines, start=1):
            self._reply(f"250{' ' if number == len(lines) else '-'}{text}")

    def _mail(self, rest: str) -> None:
        found = _PATH.fullmatch(rest)
        parameters = (found.group(2) or "").upper().split() if found else []
        size = next((int(given.group(1)) for given in map(_SIZE.fullmatch, parameters) if given), 0)
        if not self._greeted:
            self._reply("503 5.5.1 say EHLO first")
        elif self._sender is not None:
            self._reply("503 5.5.1 one sender a message")
        elif found is None or not rest.upper().startswith("FROM:"):
            self._reply("501 5.5.4 write MAIL FROM:<address>")
        elif size > MAX_SIZE:
            self._reply(f"552 5.3.4 at most {MAX_SIZE} bytes")
        elif not found.group(1).isascii() and "SMTPUTF8" not in parameters:
            self._reply("553 5.6.7 an address beyond ASCII needs SMTPUTF8")
        else:
            self._sender, self._utf8 = found.group(1), "SMTPUTF8" in parameters
            self._reply("250 2.1.0 ok")

    def _recipient(self, rest: str) -> None:
        found = _PATH.fullmatch(rest)
        if self._sender is None:
            self._reply("503 5.5.1 MAIL first")
        elif found is None or not rest.upper().startswith("TO:") or not found.group(1):
            self._reply("501 5.5.4 write RCPT TO:<address>")
        elif not found.group(1).isascii() and not self._utf8:
            self._reply("553 5.6.7 an address beyond ASCII needs SMTPUTF8")
        elif len(self._rcpt) >= MAX_RECIPIENTS:
            self._reply("452 4.5.3 too many recipients")
        else:
            self._rcpt.append(found.group(1))
            self._reply("250 2.1.5 ok")

    def _data(self) -> None:
        if not self._rcpt:
            self._reply("503 5.5.1 RCPT first")
            return
        self._in_data, self._too_long, self._scanned = True, False, 0
        self._reply("354 end with a dot on a line of its own")

    def _take_message(self) -> bool:
        """Take a whole message off the buffer; False while its end has not come."""
        if self._buffer.startswith(b".\r\n") and not self._too_long:
            end, length = 0, 3
        else:
            end, length = self._buffer.find(_END, max(0, self._scanned - 4)), len(_END)
        if end < 0:
            self._scanned = len(self._buffer)
            if self._scanned > 2 * MAX_SIZE:  # keep only what the end may be in
                del self._buffer[:-4]
                self._scanned, self._too_long = 4, True
            return False
        content = bytes(self._buffer[: end + (2 if length == len(_END) else 0)])
        del self._buffer[: end + length]
        self._in_data = False
        self._keep(content)
        self._reset()
        return True

    def _keep(self, content: bytes) -> None:
        if content.startswith(b"."):
            content = content[1:]
        content = content.replace(b"\r\n..", b"\r\n.")
        if self._too_long or len(content) > MAX_SIZE:
            self._reply(f"552 5.3.4 at most {MAX_SIZE} bytes")
            return
        try:
            entry = self._mailbox.append(self._sender or "", self._rcpt, content, now=datetime.now(UTC))
        except OSError as error:
            self._reply(f"452 4.3.1 cannot be kept: {error.strerror}")
            return
        self._reply(f"250 2.0.0 kept as {entry.id}")
