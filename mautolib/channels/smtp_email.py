"""The SMTP channel: our own client, because no library says whether a message was surely not sent or maybe sent.

Promise: MAIL, RCPT, DATA, the body and the final dot are driven separately, so a failure before the dot is known to
be none of the other side's mail, and one after it is a doubt. One recipient per transaction; the address on the wire
is the stored one. Where the server offers PIPELINING (RFC 2920) the envelope of the next message travels with the dot
of the one before: one write and one answer a message. Connections are reused. Registered as `smtp`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, cast

from mautolib.channels.protocol import Outgoing, Pause, Watch
from mautolib.channels.smtp_reply import NO_ANSWER, CutOff, Lost, Reply, refusal
from mautolib.channels.smtp_session import SECURITY, Server, Session, open_session
from mautolib.channels.wire import check_data, check_seven_bit, is_loopback, is_reserved, unfit, wire_address
from mautolib.errors import Misconfigured, ProviderRejected, ProviderUnavailable
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings

_DOT: Final = b".\r\n"
#: So many bytes fit into any socket's buffer: a longer message is begun before its last write.
_LAST_WRITE: Final = 65_536
#: How long a turn waits for an answer before another connection has its turn.
_TURN_SECONDS: Final = 0.02
#: An envelope that waited so long for its message, while other connections had their turns, is begun anew.
_STALE_SECONDS: Final = 8.0
_LOOPBACK_ONLY: Final = "The demo sends to a mail sink on this machine only; MAUTO_SMTP_HOST is {host}"


class _ClosedBetween(Exception):
    """A used connection was closed by the server before it took anything of the next message."""


class SmtpEmail:
    """E-mail through one mail server (usually a relay)."""

    name = "smtp"

    def __init__(self, server: Server, *, reserved_only: bool = False) -> None:
        """Nothing is connected yet.

        Args:
            reserved_only: take reserved domains only (the demo).
        """
        self._server = server
        self._reserved_only = reserved_only
        self._session: Session | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> SmtpEmail:
        """The mail server of the settings.

        Raises:
            Misconfigured: an unknown kind of security, or a demo that would send elsewhere.
        """
        if settings.smtp_security not in SECURITY:
            raise Misconfigured(f"MAUTO_SMTP_SECURITY is {settings.smtp_security!r}; it takes {', '.join(SECURITY)}")
        if settings.demo and not is_loopback(settings.smtp_host):
            raise Misconfigured(_LOOPBACK_ONLY.format(host=settings.smtp_host))
        server = Server(
            host=settings.smtp_host,
            port=settings.smtp_port,
            security=settings.smtp_security,
            username=settings.smtp_username,
            password=settings.smtp_password,
            most_messages=settings.smtp_messages_per_connection,
            most_seconds=settings.smtp_seconds_per_connection,
            loopback_only=settings.demo,
        )
        return cls(server, reserved_only=settings.demo)

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        """Hand over `messages` one by one; see `Channel.deliver`."""
        return cast(Iterator[Result], self._steps(messages, watch, is_alone=True))

    def deliver_by_turns(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result | Pause]:
        """See `TurnTaking.deliver_by_turns`."""
        return self._steps(messages, watch, is_alone=False)

    def _steps(self, messages: Iterable[Outgoing], watch: Watch, *, is_alone: bool) -> Iterator[Result | Pause]:
        coming = _Coming(messages)
        is_open = False
        try:
            while (message := coming.take()) is not None:
                if not is_open:
                    result = watch.before(message) or self._begin(message)
                    if result is not None:
                        yield result
                        continue
                # The server waits for this message; while it works, the next ones are looked at.
                is_open = True
                following = coming.look()
                kept = None if following is None else watch.before(following)
                early = self._early(following) if following is not None and kept is None else b""
                result = self._hand_over(message, watch, early)
                if result is None:
                    coming.prepare()
                    result = (None if is_alone else (yield from self._awaited())) or self._answer()
                is_open = bool(early) and self._session is not None
                yield result
                if kept is not None:
                    coming.take()
                    yield kept
                elif is_open and following is not None:
                    result = self._begun_early(following)
                    is_open = result is None
                    if result is not None:
                        coming.take()
                        yield result
        finally:
            if is_open:
                # It must not take the next word for a message.
                self._drop()

    def close(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.quit()
            self._session = None

    def _begin(self, message: Outgoing) -> Result | None:
        """The envelope of a message, over a new connection if the old one has been closed between two messages.

        Returns: what refused it; None when the server waits for the message.
        """
        try:
            self._check_before_connecting(message)
        except ProviderRejected as error:
            return unfit(error)
        if self._session is not None and self._session.is_worn():
            self.close()
        for _ in range(2):
            session = self._session or open_session(self._server)
            self._session = session
            try:
                commands = self._commands(session, message)
                return commands if isinstance(commands, Result) else self._envelope(session, commands)
            except ProviderRejected as error:
                return unfit(error)
            except _ClosedBetween:
                self._drop()
        raise ProviderUnavailable("The mail server closes every connection before it takes a message")

    def _early(self, message: Outgoing) -> bytes:
        """The envelope of the message after the one under way; nothing where it cannot be said yet."""
        session = self._session
        if session is None or not session.is_pipelined or session.is_worn(under_way=1):
            return b""
        try:
            self._check_before_connecting(message)
            commands = self._commands(session, message)
        except ProviderRejected:
            return b""  # its own turn finds and tells that
        return b"" if isinstance(commands, Result) else _lines(commands)

    def _begun_early(self, message: Outgoing) -> Result | None:
        """What became of an envelope that was sent with the dot before; as `_begin`."""
        session = self._session
        assert session is not None
        if session.is_stale:
            self._drop()
            return self._begin(message)
        if session.read_usual(session.usual):
            return None
        received = session.received
        try:
            refused = self._envelope(session, [])
        except _ClosedBetween:
            return self._begin(message)
        if refused is None:
            # Most servers agree to every envelope in the same words.
            session.usual = received if not session.received else b""
        return refused

    def _check_before_connecting(self, message: Outgoing) -> None:
        wire_address(message.recipient, smtputf8=True)
        if not message.is_checked:
            check_data(message.data)
        if self._reserved_only and not is_reserved(message.recipient):
            raise ProviderRejected("the demo writes to reserved domains only", code="invalid_address")

    def _commands(self, session: Session, message: Outgoing) -> list[str] | Result:
        """MAIL, RCPT and DATA; or what keeps this server from taking the message."""
        is_ascii = message.recipient.isascii()
        utf8 = session.takes_utf8 and not is_ascii
        sender = wire_address(message.sender)
        # Within ASCII it makes no difference, and that question was asked already.
        recipient = wire_address(message.recipient, smtputf8=utf8 or is_ascii)
        if not utf8 and not message.is_checked:
            check_seven_bit(message.data)
        length = len(message.data)
        if 0 < session.size_limit < length:
            reply = f"the mail server takes {session.size_limit} bytes, the message has {length}"
            return Result(verdict=Verdict.FAILED, stage=Stage.MAIL, enhanced="5.3.4", reply=reply)
        options = f" SIZE={length}" if session.takes_size else ""
        options += " BODY=8BITMIME SMTPUTF8" if utf8 else ""
        return [f"MAIL FROM:<{sender}>{options}", f"RCPT TO:<{recipient}>", "DATA"]

    def _envelope(self, session: Session, commands: list[str]) -> Result | None:
        """MAIL, RCPT and DATA; None when the server waits for the message. Without commands: they are said already."""
        stage = Stage.MAIL
        try:
            replies = _said(session, commands)
            for stage, reply in zip((Stage.MAIL, Stage.RCPT, Stage.DATA), replies, strict=False):
                if reply.code == 421:
                    raise Lost(f"the mail server closes the connection: {reply}")
                if reply.code >= 400:
                    return self._refused(session, stage, reply, replies)
                if not (reply.code == 354 if stage is Stage.DATA else 200 <= reply.code < 300):
                    raise Lost(f"the mail server said something unexpected: {reply}")
        except Lost as error:
            self._drop()
            if session.answered:
                raise _ClosedBetween from error
            raise ProviderUnavailable(f"{error} (at {stage.value.upper()})") from error
        return None

    def _refused(self, session: Session, stage: Stage, reply: Reply, replies: list[Reply]) -> Result:
        """A refusal before the message; leaves the session ready for the next one, or gives it up."""
        session.answered += 1
        try:
            if len(replies) == 3 and replies[2].code == 354:
                # RCPT was refused and yet the server waits for a message: it must not get an empty one.
                self._drop()
            elif session.say("RSET").code != 250:
                self._drop()
        except Lost:
            self._drop()
        is_about_message = stage is not Stage.MAIL or reply.enhanced.startswith(("5.3.4", "5.6."))
        if is_about_message:
            return refusal(stage, reply)
        return Result(verdict=Verdict.RELEASED, stage=stage, code=reply.code, enhanced=reply.enhanced,
                      reply=reply.text)  # fmt: skip

    def _hand_over(self, message: Outgoing, watch: Watch, early: bytes) -> Result | None:
        """The message and its dot, with what may travel behind it; None when the server is to answer."""
        session = self._session
        assert session is not None
        data = message.data if message.is_checked else _stuffed(message.data)
        # Where a write may take long or hide how far it came, the dot goes in a write of its own.
        ahead = len(data) if session.is_encrypted else max(0, len(data) - _LAST_WRITE)
        try:
            if ahead:
                session.write(data[:ahead])
            if not watch.begins(message):
                self._drop()
                return Result(verdict=Verdict.RELEASED, stage=Stage.BODY, reply="stopped before the end")
        except Lost as error:
            self._drop()
            return Result(verdict=Verdict.DEFERRED, stage=Stage.BODY, reply=str(error))
        rest = data[ahead:] if ahead else data
        try:
            session.write(rest, _DOT + early)
        except Lost as error:
            self._drop()
            if isinstance(error, CutOff) and error.sent <= len(rest):
                return Result(verdict=Verdict.DEFERRED, stage=Stage.BODY, reply=str(error))
            return Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply=str(error))
        return None

    def _awaited(self) -> Generator[Pause, None, Result | None]:
        """Pauses until the server has answered; a result if it has had its time."""
        session = self._session
        assert session is not None
        paused_at = time.monotonic()
        yield Pause.BEGUN
        session.is_stale = time.monotonic() - paused_at > _STALE_SECONDS
        if session.is_answered(_TURN_SECONDS):
            return None
        until = paused_at + self._server.answer_seconds
        while not session.is_answered():
            if time.monotonic() >= until:
                self._drop()
                return Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply=NO_ANSWER)
            yield Pause.WAITING
        return None

    def _answer(self) -> Result:
        session = self._session
        assert session is not None
        try:
            reply = session.read(seconds=self._server.answer_seconds)
        except Lost as error:
            self._drop()
            return Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply=str(error))
        session.answered += 1
        if 200 <= reply.code < 300:
            return _accepted(reply)
        if reply.code == 421:
            self._drop()
        if reply.code >= 400:
            return refusal(Stage.DOT, reply)
        self._drop()
        return Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, code=reply.code, reply=f"unexpected: {reply}")

    def _drop(self) -> None:
        if self._session is not None:
            self._session.drop()
            self._session = None


@lru_cache(maxsize=64)
def _accepted(reply: Reply) -> Result:
    return Result(verdict=Verdict.SENT, stage=Stage.DOT, code=reply.code, enhanced=reply.enhanced, reply=reply.text,
                  provider_id=reply.queue_id)  # fmt: skip


class _Coming:
    """The messages to come; `prepare` fetches one more than is looked at, so that it is written in a pause."""

    def __init__(self, messages: Iterable[Outgoing]) -> None:
        self._source = iter(messages)
        self._fetched: deque[Outgoing] = deque()
        self._failure: Exception | None = None

    def take(self) -> Outgoing | None:
        """The next message, which is then past."""
        return self._fetched.popleft() if self._fetched else self._next()

    def look(self) -> Outgoing | None:
        """The next message, which stays."""
        if not self._fetched:
            message = self._next()
            if message is None:
                return None
            self._fetched.append(message)
        return self._fetched[0]

    def prepare(self) -> None:
        """Have one more message made; never raises, for the answer to another one is awaited."""
        try:
            message = next(self._source, None)
        except Exception as error:  # noqa: BLE001 - raised when its turn comes
            self._failure = error
        else:
            if message is not None:
                self._fetched.append(message)

    def _next(self) -> Outgoing | None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return next(self._source, None)


def _lines(commands: Sequence[str]) -> bytes:
    return "".join([f"{command}\r\n" for command in commands]).encode()


def _said(session: Session, commands: Sequence[str]) -> list[Reply]:
    """The replies to the envelope, as far as they are needed to know what was refused."""
    is_pipelined = session.is_pipelined
    if is_pipelined and commands:
        session.write(_lines(commands))
    replies: list[Reply] = []
    for number in range(3):
        try:
            replies.append(session.read() if is_pipelined else session.say(commands[number]))
        except Lost:
            if replies and replies[-1].code >= 400:
                break
            raise
        if replies[-1].code == 421 or (replies[-1].code >= 400 and not is_pipelined):
            break
    return replies


def _stuffed(data: bytes) -> bytes:
    """Dot-stuffing (RFC 5321 4.5.2)."""
    stuffed = data.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed
