"""Replies of a mail server: read them from a socket, and say what they mean for a message.

Promise: a reply is either complete and well-formed or it raises; nothing half-read is taken for an answer. What a
refusal means (RFC 5321, RFC 3463) is decided here once: an address that does not exist is bounced, everything else
that is final is a failure, so a full mailbox or a spam block never marks a person as gone.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mautolib.errors import ProviderUnavailable
from mautolib.ledger.model import Result, Stage, Verdict

_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?")
_ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s|$)")
_QUEUE_ID: Final = re.compile(r"(?:queued as\s+|\bid=|message-id[:=]\s*)<?([\w.@+-]{1,200})", re.I)
_BARE_ID: Final = re.compile(r"(?:2\.[0-9]\.[0-9]\s+)?ok:?\s+([\w.@+-]*[0-9][\w.@+-]*)", re.I)
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")
_MAX_LINE, _MAX_LINES, _MAX_TEXT = 4096, 128, 500
NO_ANSWER: Final = "the mail server did not answer in time"
#: The address does not exist, has moved away, or its domain takes no mail (RFC 3463, RFC 7505).
_NO_SUCH_ADDRESS: Final = frozenset({"5.1.1", "5.1.6", "5.1.10"})


class Lost(ProviderUnavailable):
    """The connection broke, stalled, or something was said that is no reply."""


class CutOff(Lost):
    """A write that ended early; `sent` bytes of it left this process at most."""

    def __init__(self, message: str, *, sent: int) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One complete reply."""

    code: int
    text: str
    lines: tuple[str, ...] = ()

    @property
    def enhanced(self) -> str:
        """The status code of RFC 3463 in it, or nothing."""
        match = _ENHANCED.match(self.text)
        return match.group(1) if match else ""

    @property
    def queue_id(self) -> str:
        """The number under which the server keeps the message, where it says one."""
        match = _QUEUE_ID.search(self.text) or _BARE_ID.match(self.text)
        return match.group(1) if match else ""

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class ReplyReader:
    """Reads replies from a connected socket."""

    def __init__(self, connection: socket.socket, before_waiting: Callable[[], None]) -> None:
        """`before_waiting` is called before every wait for the server, for it knows how long that may be."""
        self._connection = connection
        self._before_waiting = before_waiting
        self._buffer = b""

    @property
    def has_more(self) -> bool:
        """Whether something is buffered that nobody asked for."""
        return bool(self._buffer)

    def skip(self, expected: bytes) -> bool:
        """Take `expected` if that is exactly what is buffered; says whether it was."""
        if self._buffer != expected:
            return False
        self._buffer = b""
        return True

    def buffered(self) -> bytes:
        """What was received and not yet read."""
        return self._buffer

    def read(self) -> Reply:
        """The next reply.

        Raises:
            Lost: end of connection, time-out, or nonsense.
        """
        first = self._line()
        if first[3:4] == b" ":
            return _single(first)
        lines: list[str] = []
        code = 0
        while len(lines) < _MAX_LINES:
            match = _LINE.fullmatch(first if not lines else self._line())
            if match is None or (code and int(match.group(1)) != code):
                raise Lost("the mail server said something that is no SMTP reply")
            code = int(match.group(1))
            lines.append(_UNPRINTABLE.sub(" ", (match.group(3) or b"").decode("utf-8", "replace")).strip())
            if match.group(2) != b"-":
                return Reply(code=code, text=" ".join(filter(None, lines))[:_MAX_TEXT], lines=tuple(lines))
        raise Lost("the mail server's reply does not end")

    def listen(self, flags: int) -> bool:
        """Whether there is something to read, an end or a fault of the connection too; `flags` are those of recv."""
        try:
            self._buffer += self._connection.recv(16384, flags)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError:
            return True
        return True

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE:
                raise Lost("the mail server's reply line is too long")
            self._before_waiting()
            try:
                block = self._connection.recv(16384)
            except (TimeoutError, BlockingIOError) as error:
                raise Lost(NO_ANSWER) from error
            except OSError as error:
                raise Lost(f"the connection to the mail server broke: {error.strerror or error}") from error
            if not block:
                raise Lost("the mail server closed the connection")
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.removesuffix(b"\r")


@lru_cache(maxsize=256)
def _single(line: bytes) -> Reply:
    """A reply of one line; servers say the same few all day."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise Lost("the mail server said something that is no SMTP reply")
    text = _UNPRINTABLE.sub(" ", (match.group(3) or b"").decode("utf-8", "replace")).strip()[:_MAX_TEXT]
    return Reply(code=int(match.group(1)), text=text, lines=(text,))


def refusal(stage: Stage, reply: Reply) -> Result:
    """What a 4xx or 5xx reply to RCPT, DATA or the message means."""
    if reply.code < 500:
        verdict = Verdict.DEFERRED
    elif stage is Stage.RCPT and reply.enhanced in _NO_SUCH_ADDRESS:
        verdict = Verdict.BOUNCED
    else:
        verdict = Verdict.FAILED
    return Result(verdict=verdict, stage=stage, code=reply.code, enhanced=reply.enhanced, reply=reply.text)


def is_about_policy(result: Result) -> bool:
    """Whether the other side refuses what we send or that we send it (5.7.x), not this address."""
    return result.verdict is Verdict.FAILED and result.enhanced.startswith("5.7.")
