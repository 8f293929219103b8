"""What every channel promises; a new channel is one more entry in `CHANNELS` here and passes the same tests."""

from __future__ import annotations

import mailbox
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mautolib.channels.console import Console
from mautolib.channels.null import Null
from mautolib.channels.protocol import Channel, Outgoing, Pause, TurnTaking, Watch
from mautolib.channels.registry import CHANNELS as REGISTERED
from mautolib.channels.registry import open_channel
from mautolib.channels.ses_email import Account, SesEmail
from mautolib.channels.smtp_email import SmtpEmail
from mautolib.channels.smtp_session import Server
from mautolib.errors import Misconfigured
from mautolib.ledger.model import Result, Skip, Stage, Verdict
from mautolib.settings import Settings
from tests import ses_server
from tests.contracts.smtp_server import Script, SmtpServer
from tests.contracts.watching import NotingWatch, outgoing

#: A channel, and a way to ask what arrived: (recipient or None where it is not kept, bytes).
Arrived = Callable[[], list[bytes]]


@contextmanager
def smtp(_: Path, *offers: str) -> Iterator[tuple[Channel, Arrived]]:
    with SmtpServer(Script(offers=offers)) as server:
        channel = SmtpEmail(
            Server(host="127.0.0.1", port=server.port, connect_seconds=5, command_seconds=5, answer_seconds=5)
        )
        yield channel, lambda: [message.data for message in server.accepted]
        channel.close()


@contextmanager
def smtp_pipelined(folder: Path) -> Iterator[tuple[Channel, Arrived]]:
    with smtp(folder, "PIPELINING", "SMTPUTF8", "8BITMIME") as made:
        yield made


class ByTurns:
    """A channel that takes turns, heard without its pauses."""

    name = "by turns"

    def __init__(self, channel: TurnTaking) -> None:
        self._channel = channel
        self.close = channel.close

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        for step in self._channel.deliver_by_turns(messages, watch):
            if not isinstance(step, Pause):
                yield step


@contextmanager
def smtp_by_turns(folder: Path) -> Iterator[tuple[Channel, Arrived]]:
    with smtp(folder, "PIPELINING", "SMTPUTF8", "8BITMIME") as (channel, arrived):
        assert isinstance(channel, TurnTaking)
        yield ByTurns(channel), arrived


@contextmanager
def console(folder: Path) -> Iterator[tuple[Channel, Arrived]]:
    channel = Console(folder / "out" / "console.mbox")

    def arrived() -> list[bytes]:
        if not channel.path.exists():
            return []
        box = mailbox.mbox(channel.path, create=False)
        kept = [bytes(box.get_bytes(number)) for number in range(len(box))]
        found = [data.replace(b"\n>From ", b"\nFrom ").replace(b"\n", b"\r\n") for data in kept]
        box.close()
        return found

    yield channel, arrived
    channel.close()


@contextmanager
def null(_: Path) -> Iterator[tuple[Channel, Arrived]]:
    channel = Null()
    yield channel, lambda: [message.data for message in channel.accepted]
    channel.close()


@contextmanager
def ses(_: Path) -> Iterator[tuple[Channel, Arrived]]:
    with ses_server.working() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in ses_server.CREDENTIALS.items():
            patch.setenv(name, value)
        channel = SesEmail(Account(region=ses_server.REGION, endpoint_url=server.url, answer_seconds=10))
        yield channel, lambda: [message.raw_data.encode() for message in server.arrived()]
        channel.close()


CHANNELS = {
    "smtp": smtp, "smtp pipelined": smtp_pipelined, "smtp by turns": smtp_by_turns, "ses": ses, "console": console,
    "null": null,
}  # fmt: skip


@pytest.fixture(params=list(CHANNELS))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Channel, Arrived]]:
    with CHANNELS[request.param](tmp_path) as pair:
        yield pair


def messages(*numbers: int) -> list[Outgoing]:
    return [outgoing(number, data=b"Subject: n%d\r\n\r\nText\r\n" % number) for number in numbers]


def test_every_registered_channel_is_tested_here() -> None:
    assert set(REGISTERED) <= set(CHANNELS)


def test_what_is_given_arrives_unchanged_and_in_order(made: tuple[Channel, Arrived]) -> None:
    channel, arrived = made
    awkward = b"Subject: dots\r\n\r\n.\r\n..two\r\n...\r\nFrom here\r\n" + b"x" * 900 + b"\r\n.end\r\n"
    given = [*messages(1, 2), outgoing(3, data=awkward)]
    results = list(channel.deliver(given, NotingWatch()))
    assert [result.verdict for result in results] == [Verdict.SENT] * 3
    assert arrived() == [message.data for message in given]


def test_results_come_one_by_one(made: tuple[Channel, Arrived]) -> None:
    """So that each is in the journal before the next message can be lost."""
    channel, arrived = made
    seen = [(result.verdict, len(arrived())) for result in channel.deliver(messages(1, 2, 3), NotingWatch())]
    assert seen == [(Verdict.SENT, 1), (Verdict.SENT, 2), (Verdict.SENT, 3)]


def test_the_watch_is_asked_before_anything_is_said(made: tuple[Channel, Arrived]) -> None:
    channel, arrived = made
    kept = Result(verdict=Verdict.SKIPPED, stage=Stage.BUILD, reason=Skip.UNSUBSCRIBED)
    watch = NotingWatch(keep={2: kept})
    results = list(channel.deliver(messages(1, 2, 3), watch))
    assert [result.verdict for result in results] == [Verdict.SENT, Verdict.SKIPPED, Verdict.SENT]
    assert watch.begun == [1, 3] and len(arrived()) == 2


def test_the_last_moment_is_a_moment(made: tuple[Channel, Arrived]) -> None:
    """A lease that ran out while the body was written: the message must not arrive, and the next one still can."""
    channel, arrived = made
    results = list(channel.deliver(messages(1, 2, 3), NotingWatch(stop={2})))
    assert [result.verdict for result in results] == [Verdict.SENT, Verdict.RELEASED, Verdict.SENT]
    assert [data[:11] for data in arrived()] == [b"Subject: n1", b"Subject: n3"]


@pytest.mark.parametrize(
    "recipient",
    [
        '"a\r\nRCPT TO:<evil@x.example>"@mail.example', "a@mail.example>\r\nDATA\r\n", "a@good.example,b@evil.example",
        "<a@mail.example>b@other.example", "alice@mail.example)bob@b.example", "a\0@mail.example", "a b@mail.example",
        "a@", "@mail.example", "plain", "a@mail .example", "a@mail.example\n", "a@[127.0.0.1]", "a@-.example",
        "x" * 65 + "@mail.example", "a@" + "b" * 250 + ".example", "a@mail.example SIZE=1", "a\u2028@mail.example",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_said_fails_without_a_word(made: tuple[Channel, Arrived], recipient: str) -> None:
    channel, arrived = made
    watch = NotingWatch()
    (result,) = channel.deliver([outgoing(1, recipient)], watch)
    assert (result.verdict, result.stage) == (Verdict.FAILED, Stage.ADDRESS)
    assert watch.begun == [] and arrived() == []


@pytest.mark.parametrize(
    "data",
    [b"Subject: x\n\nbare\n", b"Subject: x\r\n\r\nlone\rreturn\r\n", b"Subject: x\r\n\r\nno end",
     b"Subject: x\r\n\r\nsmuggled\n.\r\nMAIL FROM:<a@b.example>\r\n", b"Subject: x\r\n\r\nnul\0\r\n"],
)  # fmt: skip
def test_a_message_that_smtp_cannot_carry_fails_here(made: tuple[Channel, Arrived], data: bytes) -> None:
    channel, arrived = made
    (result,) = channel.deliver([outgoing(1, data=data)], NotingWatch())
    assert (result.verdict, result.stage) == (Verdict.FAILED, Stage.BUILD)
    assert arrived() == []


def test_the_registry_opens_what_settings_name(tmp_path: Path) -> None:
    assert open_channel(Settings(channel="smtp")).name == "smtp"
    assert open_channel(Settings(channel="console", home=tmp_path)).name == "console"
    assert open_channel(Settings(channel="ses", ses_region="eu-central-1")).name == "ses"
    with pytest.raises(Misconfigured, match="MAUTO_CHANNEL is 'pigeon'; it takes smtp, ses, console"):
        open_channel(Settings(channel="pigeon"))
