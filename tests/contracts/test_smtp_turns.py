"""Several connections in one thread: each message gets the fate it would have alone; nobody waits for a slow one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mautolib.channels import smtp_email
from mautolib.channels.protocol import Pause
from mautolib.channels.smtp_email import SmtpEmail
from mautolib.channels.smtp_reply import NO_ANSWER
from mautolib.channels.smtp_session import Server
from mautolib.ledger.model import Result, Stage, Verdict
from tests.contracts.smtp_server import DROP, HANG, Script, SmtpServer
from tests.contracts.watching import NotingWatch, outgoing


def channel_for(server: SmtpServer, *, answer_seconds: float = 5) -> SmtpEmail:
    return SmtpEmail(
        Server(host="127.0.0.1", port=server.port, connect_seconds=5, command_seconds=5, answer_seconds=answer_seconds)
    )


def steps_of(channel: SmtpEmail, *numbers: int) -> Iterator[Result | Pause]:
    return channel.deliver_by_turns([outgoing(number) for number in numbers], NotingWatch())


def test_while_one_is_answered_another_is_handed_over() -> None:
    with SmtpServer(Script()) as server:
        channels = [channel_for(server), channel_for(server)]
        first, second = steps_of(channels[0], 1, 3), steps_of(channels[1], 2)
        assert [next(first), next(second)] == [Pause.BEGUN, Pause.BEGUN], "both are under way"
        results = [step for steps in (first, second) for step in steps if isinstance(step, Result)]
        for channel in channels:
            channel.close()
    assert [result.verdict for result in results] == [Verdict.SENT] * 3
    assert sorted(message.recipient[:7] for message in server.accepted) == ["person1", "person2", "person3"]


@pytest.mark.parametrize(
    ("script", "expected", "accepted"),
    [
        (Script(rcpt=["250 ok", "550 5.1.1 no", "450 4.2.0 later", "250 ok"]), "sent bounced deferred sent", "14"),
        (Script(dot=["250 ok", "451 4.3.0 later", "554 5.7.1 no", "250 ok"]), "sent deferred failed sent", "14"),
        (Script(dot=["421 4.3.2 bye", "250 ok"]), "deferred sent sent sent", "234"),
        (Script(dot=[DROP, "250 ok"]), "unknown sent sent sent", "234"),
        (Script(dot=["250 half\0", "250 ok"]), "unknown sent sent sent", "1234"),
        (Script(dot=["250-one\r\n250 two", "250 ok"]), "sent sent sent sent", "1234"),
        (Script(rcpt=["250 ok", DROP, "250 ok"]), "sent sent sent sent", "1234"),
    ],
)
def test_each_message_has_its_own_fate(script: Script, expected: str, accepted: str) -> None:
    with SmtpServer(script) as server:
        channel = channel_for(server)
        results = [step for step in steps_of(channel, 1, 2, 3, 4) if isinstance(step, Result)]
        channel.close()
    assert " ".join(result.verdict.value for result in results) == expected
    assert "".join(message.recipient[6] for message in server.accepted) == accepted


def test_a_server_that_says_nothing_holds_up_nobody_and_ends_in_doubt() -> None:
    with SmtpServer(Script(dot=HANG)) as server:
        channel = channel_for(server, answer_seconds=0.3)
        steps = steps_of(channel, 1)
        assert next(steps) is Pause.BEGUN
        began = time.monotonic()
        assert next(steps) is Pause.WAITING
        assert time.monotonic() - began < 0.25, "the thread is free long before the time for an answer is over"
        rest = [step for step in steps if isinstance(step, Result)]
        channel.close()
    assert rest == [Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply=NO_ANSWER)]


def test_an_envelope_nobody_looked_after_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may have closed it in the meantime: then the message would be lost or in doubt."""
    monkeypatch.setattr(smtp_email, "_STALE_SECONDS", 0.05)
    with SmtpServer(Script()) as server:
        channel = channel_for(server)
        steps = steps_of(channel, 1, 2)
        assert next(steps) is Pause.BEGUN
        time.sleep(0.1)
        results = [step for step in steps if isinstance(step, Result)]
        channel.close()
    assert [result.verdict for result in results] == [Verdict.SENT, Verdict.SENT] and server.connections == 2
    assert [message.recipient[:7] for message in server.accepted] == ["person1", "person2"]


def test_whoever_stops_between_two_turns_leaves_nothing_half_said() -> None:
    with SmtpServer(Script()) as server:
        channel = channel_for(server)
        steps = channel.deliver_by_turns([outgoing(1), outgoing(2)], NotingWatch())
        assert next(steps) is Pause.BEGUN
        steps.close()  # type: ignore[attr-defined]
        (result,) = channel.deliver([outgoing(3)], NotingWatch())
        channel.close()
    assert result.verdict is Verdict.SENT
    assert {message.recipient[:7] for message in server.accepted} <= {"person1", "person3"}
