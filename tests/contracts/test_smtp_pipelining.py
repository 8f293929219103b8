"""The envelope of the next message travels with the dot of the one before; nothing is accepted that should not be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from mautolib.channels.protocol import Outgoing
from mautolib.channels.smtp_email import SmtpEmail
from mautolib.channels.smtp_reply import CutOff
from mautolib.channels.smtp_session import Server, Session
from mautolib.errors import MautoError, ProviderUnavailable
from mautolib.ledger.model import Result, Stage, Verdict
from tests.contracts.smtp_server import DROP, Script, SmtpServer
from tests.contracts.watching import NotingWatch, outgoing


def channel_for(server: SmtpServer) -> SmtpEmail:
    return SmtpEmail(
        Server(host="127.0.0.1", port=server.port, connect_seconds=5, command_seconds=5, answer_seconds=5)
    )


def test_the_next_envelope_is_there_before_the_answer() -> None:
    """The server answers the first dot only once it has seen the second MAIL: whoever waits would never get it."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(5)
        with connection, connection.makefile("rwb", buffering=0) as line:
            line.write(b"220 ready\r\n")
            for expected, answer in (
                (b"EHLO", b"250-mx\r\n250 PIPELINING\r\n"), (b"MAIL", b"250 ok\r\n"), (b"RCPT", b"250 ok\r\n"),
                (b"DATA", b"354 go\r\n"), (b".\r\n", b""), (b"MAIL", b"250 2.0.0 queued as A\r\n250 ok\r\n"),
                (b"RCPT", b"250 ok\r\n"), (b"DATA", b"354 go\r\n"), (b".\r\n", b"250 2.0.0 queued as B\r\n"),
            ):  # fmt: skip
                while not (said := line.readline()).startswith(expected):
                    assert said
                seen.append(said)
                line.write(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    channel = SmtpEmail(Server(host="127.0.0.1", port=listener.getsockname()[1], command_seconds=5, answer_seconds=5))
    watch = NotingWatch()
    results = list(channel.deliver([outgoing(1), outgoing(2)], watch))
    channel.close()
    thread.join(5)
    listener.close()
    assert [(result.verdict, result.provider_id) for result in results] == [(Verdict.SENT, "A"), (Verdict.SENT, "B")]
    assert watch.begun == [1, 2] and len(seen) == 9


def test_a_message_that_was_only_announced_is_not_sent() -> None:
    """Whoever stops after a result finds nothing more accepted, not even an empty message."""
    with SmtpServer(Script()) as server:
        channel = channel_for(server)
        watch = NotingWatch()
        messages = channel.deliver([outgoing(1), outgoing(2), outgoing(3)], watch)
        assert next(messages).verdict is Verdict.SENT
        messages.close()  # type: ignore[attr-defined]
        (result,) = channel.deliver([outgoing(4)], NotingWatch())
        channel.close()
    assert result.verdict is Verdict.SENT and watch.begun == [1]
    assert [message.recipient for message in server.accepted] == ["person1@mail.example", "person4@mail.example"]
    assert server.connections == 2


class Faulty:
    """Messages, and a fault while the nth is written."""

    def __init__(self, good: int, fault: Exception) -> None:
        self._good, self._fault = good, fault

    def __iter__(self) -> Iterator[Outgoing]:
        yield from (outgoing(number) for number in range(1, self._good + 1))
        raise self._fault


@pytest.mark.parametrize("good", [1, 2, 3, 4])
@pytest.mark.parametrize("offers", [("PIPELINING",), ()], ids=["pipelined", "step by step"])
def test_a_fault_in_a_later_message_costs_no_earlier_answer(good: int, offers: tuple[str, ...]) -> None:
    results: list[Result] = []
    watch = NotingWatch()
    with SmtpServer(Script(offers=offers)) as server:
        channel = channel_for(server)
        with pytest.raises(ProviderUnavailable, match="no database"):
            for result in channel.deliver(Faulty(good, ProviderUnavailable("no database")), watch):
                results.append(result)
        channel.close()
    assert [result.verdict for result in results] == [Verdict.SENT] * len(results)
    assert len(results) == len(server.accepted) == len(watch.begun), "what was begun has its answer"
    assert len(results) >= good - 1


def test_what_the_watch_keeps_in_between_is_told_in_order() -> None:
    kept = Result(verdict=Verdict.SKIPPED, stage=Stage.CONNECT)
    with SmtpServer(Script()) as server:
        channel = channel_for(server)
        watch = NotingWatch(keep={2: kept, 3: kept, 5: kept}, stop={4})
        results = list(channel.deliver([outgoing(number) for number in range(1, 7)], watch))
        channel.close()
    assert [result.verdict.value for result in results] == ["sent", "skipped", "skipped", "released", "skipped", "sent"]
    assert [message.recipient[:7] for message in server.accepted] == ["person1", "person6"]


@pytest.mark.parametrize(
    ("script", "expected", "accepted"),
    [
        (Script(rcpt=["250 ok", "550 5.1.1 no", "450 4.2.0 later", "250 ok"]), "sent bounced deferred sent", "14"),
        (Script(mail=["250 ok", "552 5.3.4 big", "250 ok"]), "sent failed sent sent", "134"),
        (Script(dot=["250 ok", "451 4.3.0 later", "554 5.7.1 no", "250 ok"]), "sent deferred failed sent", "14"),
        (Script(dot=["421 4.3.2 bye", "250 ok"]), "deferred sent sent sent", "234"),
        (Script(dot=[DROP, "250 ok"]), "unknown sent sent sent", "234"),
        (Script(data=["354 go", "451 4.3.0 later", "354 go"]), "sent deferred sent sent", "134"),
        (Script(rcpt=["250 ok", "421 4.7.0 enough", "250 ok"]), "sent sent sent sent", "1234"),
        (Script(rcpt=["250 ok", DROP, "250 ok"]), "sent sent sent sent", "1234"),
    ],
)
def test_each_message_has_its_own_fate_among_others(script: Script, expected: str, accepted: str) -> None:
    with SmtpServer(script) as server:
        channel = channel_for(server)
        results = list(channel.deliver([outgoing(number) for number in (1, 2, 3, 4)], NotingWatch()))
        channel.close()
    assert " ".join(result.verdict.value for result in results) == expected
    assert [message.recipient for message in server.accepted] == [f"person{n}@mail.example" for n in accepted]


class Cut:
    """A line that takes so many bytes and breaks."""

    def __init__(self, takes: int) -> None:
        self._left = takes

    def send(self, data: bytes) -> int:
        if not self._left:
            raise ConnectionResetError(104, "Connection reset by peer")
        taken = min(self._left, len(data))
        self._left -= taken
        return taken

    def sendmsg(self, blocks: tuple[bytes, ...]) -> int:
        return self.send(b"".join(blocks))

    def recv(self, size: int) -> bytes:
        return b"250 ok\r\n250 ok\r\n354 go\r\n"

    def settimeout(self, seconds: float | None) -> None: ...

    def setsockopt(self, *values: object) -> None: ...

    def close(self) -> None: ...


def test_how_far_a_write_came_decides_what_is_known() -> None:
    """Before the dot nobody can have the message; from its first byte on we do not know."""
    message = outgoing(1)
    envelope = len(b"MAIL FROM:<news@shop.example>\r\nRCPT TO:<person1@mail.example>\r\nDATA\r\n")
    body = len(message.data)
    found = {}
    for takes in range(envelope, envelope + body + 4):
        channel = SmtpEmail(Server(host="127.0.0.1", port=1))
        session = Session(channel._server, Cut(takes))  # type: ignore[arg-type]
        session.is_pipelined = True
        session.opened_at = float("inf")
        channel._session = session
        try:
            (result,) = channel.deliver([message], NotingWatch())
        except MautoError as error:
            found[takes - envelope] = str(error)
            continue
        found[takes - envelope] = (result.verdict, result.stage)
    before = dict.fromkeys(range(body + 1), (Verdict.DEFERRED, Stage.BODY))
    assert {n: found[n] for n in before} == before
    assert {found[n] for n in (body + 1, body + 2)} == {(Verdict.UNKNOWN, Stage.DOT)}
    assert found[body + 3] == (Verdict.SENT, Stage.DOT), "all of it left"


def test_a_cut_off_write_tells_how_much_left() -> None:
    session = Session(Server(host="127.0.0.1", port=1), Cut(7))  # type: ignore[arg-type]
    with pytest.raises(CutOff, match="Connection reset") as caught:
        session.write(b"12345", b"67890")
    assert caught.value.sent == 7
