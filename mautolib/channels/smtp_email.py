"""The SMTP channel: our own client, because no library says whether a message was surely not sent or maybe sent.

Promise: MAIL, RCPT, DATA, the body and the final dot are driven separately, so a failure before the dot is known to
be none of the other side's mail, and one after it is a doubt. One recipient per transaction; the address on the wire
is the stored one. Envelope commands travel together where the server offers PIPELINING (RFC 2920); connections are
reused. Registered as `smtp`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from mautolib.channels.protocol import Outgoing, Watch
from mautolib.channels.smtp_reply import Lost, Reply, refusal
from mautolib.channels.smtp_session import SECURITY, Server, Session, open_session
from mautolib.channels.wire import check_data, check_seven_bit, is_loopback, is_reserved, unfit, wire_address
from mautolib.errors import Misconfigured, ProviderRejected, ProviderUnavailable
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings

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
            loopback_only=settings.demo,
        )
        return cls(server, reserved_only=settings.demo)

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        """Hand over `messages` one by one; see `Channel.deliver`."""
        for message in messages:
            kept = watch.before(message)
            yield kept if kept is not None else self._one(message, watch)

    def close(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.quit()
            self._session = None

    def _one(self, message: Outgoing, watch: Watch) -> Result:
        """One message, over a new connection if the old one has been closed between two messages."""
        try:
            self._check_before_connecting(message)
        except ProviderRejected as error:
            return unfit(error)
        for _ in range(2):
            session = self._session or open_session(self._server)
            self._session = session
            try:
                return self._transaction(session, message, watch)
            except ProviderRejected as error:
                return unfit(error)
            except _ClosedBetween:
                self._drop()
        raise ProviderUnavailable("The mail server closes every connection before it takes a message")

    def _check_before_connecting(self, message: Outgoing) -> None:
        wire_address(message.recipient, smtputf8=True)
        check_data(message.data)
        if self._reserved_only and not is_reserved(message.recipient):
            raise ProviderRejected("the demo writes to reserved domains only", code="invalid_address")

    def _transaction(self, session: Session, message: Outgoing, watch: Watch) -> Result:
        utf8 = "SMTPUTF8" in session.offers and not message.recipient.isascii()
        sender = wire_address(message.sender)
        recipient = wire_address(message.recipient, smtputf8=utf8)
        if not utf8:
            check_seven_bit(message.data)
        size = session.offers.get("SIZE", "")
        if size.isdigit() and 0 < int(size) < len(message.data):
            return Result(verdict=Verdict.FAILED, stage=Stage.MAIL, enhanced="5.3.4",
                          reply=f"the mail server takes {size} bytes, the message has {len(message.data)}")  # fmt: skip
        options = f" SIZE={len(message.data)}" if "SIZE" in session.offers else ""
        options += " BODY=8BITMIME SMTPUTF8" if utf8 else ""
        commands = [f"MAIL FROM:<{sender}>{options}", f"RCPT TO:<{recipient}>", "DATA"]
        refused = self._envelope(session, commands)
        return refused if refused is not None else self._body(session, message, watch)

    def _envelope(self, session: Session, commands: list[str]) -> Result | None:
        """MAIL, RCPT and DATA; None when the server waits for the message."""
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

    def _body(self, session: Session, message: Outgoing, watch: Watch) -> Result:
        try:
            session.write(_stuffed(message.data))
        except Lost as error:
            self._drop()
            return Result(verdict=Verdict.DEFERRED, stage=Stage.BODY, reply=str(error))
        if not watch.begins(message):
            self._drop()
            return Result(verdict=Verdict.RELEASED, stage=Stage.BODY, reply="stopped before the end")
        try:
            session.write(b".\r\n")
            reply = session.read(seconds=self._server.answer_seconds)
        except Lost as error:
            self._drop()
            return Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply=str(error))
        return self._answered(session, reply)

    def _answered(self, session: Session, reply: Reply) -> Result:
        session.answered += 1
        if 200 <= reply.code < 300:
            return Result(verdict=Verdict.SENT, stage=Stage.DOT, code=reply.code, enhanced=reply.enhanced,
                          reply=reply.text, provider_id=reply.queue_id)  # fmt: skip
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


def _said(session: Session, commands: list[str]) -> list[Reply]:
    """The replies to the envelope, as far as they are needed to know what was refused."""
    is_pipelined = "PIPELINING" in session.offers
    if is_pipelined:
        session.write("".join(f"{command}\r\n" for command in commands).encode())
    replies: list[Reply] = []
    for command in commands:
        try:
            replies.append(session.read() if is_pipelined else session.say(command))
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
