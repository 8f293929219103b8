"""Where it breaks decides what is known: the SMTP outcome table, row by row, against a scripted server."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mautolib.channels.protocol import Outgoing
from mautolib.channels.smtp_email import SmtpEmail
from mautolib.channels.smtp_reply import is_about_policy
from mautolib.channels.smtp_session import Server
from mautolib.errors import ProviderUnavailable
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings
from tests.contracts.smtp_server import DROP, HANG, Script, SmtpServer
from tests.contracts.watching import NotingWatch, outgoing

PIPELINED = ("PIPELINING", "8BITMIME", "SIZE 10000000")
STEP_BY_STEP = ("8BITMIME",)
HALF = "250 2.\0"


def channel_for(server: SmtpServer, **changes: float) -> SmtpEmail:
    limits = {"connect_seconds": 5.0, "command_seconds": 5.0, "answer_seconds": 5.0, **changes}
    return SmtpEmail(replace(Server(host="127.0.0.1", port=server.port), **limits))


def send(server: SmtpServer, messages: Sequence[Outgoing] | None = None, watch: NotingWatch | None = None,
         **changes: float) -> list[Result]:  # fmt: skip
    channel = channel_for(server, **changes)
    try:
        return list(channel.deliver(messages or [outgoing()], watch or NotingWatch()))
    finally:
        channel.close()


@pytest.mark.parametrize("offers", [PIPELINED, STEP_BY_STEP], ids=["pipelined", "step by step"])
@pytest.mark.parametrize(
    ("step", "reply", "verdict", "stage", "code"),
    [
        ("mail", "451 4.3.0 later", Verdict.RELEASED, Stage.MAIL, 451),
        ("mail", "550 5.7.1 not you", Verdict.RELEASED, Stage.MAIL, 550),
        ("mail", "552 5.3.4 too big", Verdict.FAILED, Stage.MAIL, 552),
        ("rcpt", "450 4.2.0 greylisted", Verdict.DEFERRED, Stage.RCPT, 450),
        ("rcpt", "451 4.3.0 try later", Verdict.DEFERRED, Stage.RCPT, 451),
        ("rcpt", "452 4.2.2 full", Verdict.DEFERRED, Stage.RCPT, 452),
        ("rcpt", "550 5.1.1 no such user", Verdict.BOUNCED, Stage.RCPT, 550),
        ("rcpt", "550 5.1.6 moved", Verdict.BOUNCED, Stage.RCPT, 550),
        ("rcpt", "556 5.1.10 null MX", Verdict.BOUNCED, Stage.RCPT, 556),
        ("rcpt", "550 no such user, says the text only", Verdict.FAILED, Stage.RCPT, 550),
        ("rcpt", "552 5.2.2 mailbox full", Verdict.FAILED, Stage.RCPT, 552),
        ("rcpt", "550 5.4.1 no route", Verdict.FAILED, Stage.RCPT, 550),
        ("rcpt", "550 5.7.1 blocked", Verdict.FAILED, Stage.RCPT, 550),
        ("data", "451 4.3.0 not now", Verdict.DEFERRED, Stage.DATA, 451),
        ("data", "554 5.6.0 no", Verdict.FAILED, Stage.DATA, 554),
        ("dot", "451 4.7.1 later", Verdict.DEFERRED, Stage.DOT, 451),
        ("dot", "550 5.7.1 spam", Verdict.FAILED, Stage.DOT, 550),
        ("dot", "554 5.6.0 content", Verdict.FAILED, Stage.DOT, 554),
        ("dot", "550 5.1.1 said too late", Verdict.FAILED, Stage.DOT, 550),
        ("dot", "421 4.3.2 shutting down", Verdict.DEFERRED, Stage.DOT, 421),
        ("dot", DROP, Verdict.UNKNOWN, Stage.DOT, None),
        ("dot", HALF, Verdict.UNKNOWN, Stage.DOT, None),
        ("dot", "what is this", Verdict.UNKNOWN, Stage.DOT, None),
        ("dot", "250 2.0.0 Ok: queued as 4FzX", Verdict.SENT, Stage.DOT, 250),
    ],
)  # fmt: skip
def test_a_reply_decides_one_message(
    offers: Sequence[str], step: str, reply: str, verdict: Verdict, stage: Stage, code: int | None
) -> None:
    watch = NotingWatch()
    with SmtpServer(Script(offers=offers, **{step: reply})) as server:  # type: ignore[arg-type]
        (result,) = send(server, watch=watch)
    assert (result.verdict, result.stage, result.code) == (verdict, stage, code)
    took_it = verdict is Verdict.SENT or reply == HALF
    assert len(server.accepted) == took_it, "half an answer leaves us in doubt although the server has the message"
    assert watch.begun == ([1] if stage is Stage.DOT else []), "only the final dot is the point of no return"


def test_silence_after_the_dot_is_a_doubt() -> None:
    with SmtpServer(Script(dot=HANG)) as server:
        (result,) = send(server, answer_seconds=0.2)
    assert (result.verdict, result.stage) == (Verdict.UNKNOWN, Stage.DOT)


def test_a_drop_while_the_body_is_written_is_none_of_their_mail() -> None:
    body = b"Subject: big\r\n\r\n" + b"x" * 76 + b"\r\n"
    with SmtpServer(Script(offers=(), drop_after_bytes=1000)) as server:
        (result,) = send(server, [outgoing(data=body + (b"y" * 76 + b"\r\n") * 400_000)])
    assert (result.verdict, result.stage) == (Verdict.DEFERRED, Stage.BODY)
    assert server.accepted == []


@pytest.mark.parametrize(
    ("script", "word"),
    [
        (Script(greeting="421 4.3.2 busy"), "421"),
        (Script(greeting="554 5.7.1 you are blocked"), "554"),
        (Script(greeting=DROP), "closed"),
        (Script(greeting="hello there"), "no SMTP reply"),
        (Script(ehlo="421 4.3.2 busy"), "421"),
        (Script(mail="421 4.3.2 closing"), "421"),
        (Script(mail=DROP), "MAIL"),
        (Script(rcpt="421 4.3.2 closing"), "421"),
        (Script(rcpt=DROP), "closed"),
        (Script(data="421 4.3.2 closing"), "421"),
        (Script(data=DROP), "closed"),
        (Script(data="250 not what data answers"), "unexpected"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("offers", [PIPELINED, STEP_BY_STEP], ids=["pipelined", "step by step"])
def test_what_ails_the_connection_is_raised_and_nothing_was_handed_over(
    script: Script, word: str, offers: Sequence[str]
) -> None:
    watch = NotingWatch()
    with SmtpServer(replace(script, offers=offers)) as server, pytest.raises(ProviderUnavailable, match=word):
        send(server, watch=watch)
    assert watch.begun == [] and server.accepted == []


def test_a_server_that_is_not_there_is_named() -> None:
    with SmtpServer(Script()) as server:
        port = server.port
    with pytest.raises(ProviderUnavailable, match=f"127.0.0.1:{port} cannot be reached"):
        send(server)


def test_silence_before_the_message_is_raised() -> None:
    with SmtpServer(Script(mail=HANG)) as server, pytest.raises(ProviderUnavailable, match="in time"):
        send(server, command_seconds=0.2)


def test_each_message_gets_its_own_answer_over_one_connection() -> None:
    replies = ["250 2.1.5 ok", "550 5.1.1 no such user", "450 4.2.0 greylisted", "250 2.1.5 ok"]
    for offers in (PIPELINED, STEP_BY_STEP):
        with SmtpServer(Script(offers=offers, rcpt=replies)) as server:
            results = send(server, [outgoing(number) for number in (1, 2, 3, 4)])
        assert [r.verdict for r in results] == [Verdict.SENT, Verdict.BOUNCED, Verdict.DEFERRED, Verdict.SENT]
        assert [m.recipient for m in server.accepted] == ["person1@mail.example", "person4@mail.example"]
        assert server.connections == 1
        assert server.commands[-1] == "QUIT"


def test_a_used_connection_that_was_closed_is_replaced() -> None:
    """Servers close after so many messages, politely or not; that delays nobody."""
    for closing in ("421 4.7.0 enough", DROP):
        with SmtpServer(Script(mail=["250 ok", closing, "250 ok"])) as server:
            results = send(server, [outgoing(1), outgoing(2), outgoing(3)])
        assert [r.verdict for r in results] == [Verdict.SENT] * 3
        assert server.connections == 2
        assert [m.recipient for m in server.accepted] == [f"person{n}@mail.example" for n in (1, 2, 3)]


def test_after_a_doubt_the_next_message_goes_over_a_new_connection() -> None:
    with SmtpServer(Script(dot=[DROP, "250 2.0.0 ok"])) as server:
        results = send(server, [outgoing(1), outgoing(2)])
    assert [r.verdict for r in results] == [Verdict.UNKNOWN, Verdict.SENT]
    assert [m.recipient for m in server.accepted] == ["person2@mail.example"]


def test_data_accepted_for_nobody_is_not_given_an_empty_message() -> None:
    """RFC 2920 allows a server to answer 354 although every RCPT was refused."""
    script = Script(rcpt=["550 5.1.1 no", "250 ok"], offers=("PIPELINING",), data_for_nobody="354 go on")
    with SmtpServer(script) as server:
        results = send(server, [outgoing(1), outgoing(2)])
    assert [r.verdict for r in results] == [Verdict.BOUNCED, Verdict.SENT]
    assert [m.recipient for m in server.accepted] == ["person2@mail.example"]


def test_only_policy_refusals_count_against_a_campaign() -> None:
    with SmtpServer(Script(rcpt=["550 5.7.1 blocked", "550 5.1.1 no", "552 5.2.2 full", "450 4.7.1 slow"])) as server:
        results = send(server, [outgoing(number) for number in (1, 2, 3, 4)])
    assert [is_about_policy(result) for result in results] == [True, False, False, False]


def test_the_size_limit_is_kept_without_asking() -> None:
    with SmtpServer(Script(offers=("SIZE 20",))) as server:
        (result,) = send(server)
    assert (result.verdict, result.enhanced) == (Verdict.FAILED, "5.3.4")
    assert not any(command.startswith("MAIL") for command in server.commands)


def test_the_queue_id_is_kept() -> None:
    replies = ["250 2.0.0 Ok: queued as 4FzX2k1y", "250 OK id=1qXyZ-0001", "250 2.0.0 OK 1699 x12 - gsmtp"]
    with SmtpServer(Script(dot=replies)) as server:
        results = send(server, [outgoing(number) for number in (1, 2, 3)])
    assert [result.provider_id for result in results] == ["4FzX2k1y", "1qXyZ-0001", "1699"]


@pytest.mark.parametrize("offers", [PIPELINED, STEP_BY_STEP], ids=["pipelined", "step by step"])
def test_a_connection_is_renewed_after_so_many_messages(offers: Sequence[str]) -> None:
    """Refused ones count: the other side counts them too. Each connection ends politely."""
    replies = ["250 ok", "550 5.1.1 no such user", "250 ok"]
    with SmtpServer(Script(offers=offers, rcpt=replies)) as server:
        results = send(server, [outgoing(number) for number in range(1, 8)], most_messages=3)
    assert [r.verdict for r in results] == [Verdict.SENT, Verdict.BOUNCED, *[Verdict.SENT] * 5]
    assert server.connections == 3 and server.commands.count("QUIT") == 3
    words = [command.split(" ")[0] for command in server.commands]
    per_connection = "".join(word[0] for word in words).split("Q")
    assert [part.count("M") for part in per_connection] == [3, 3, 1, 0], "no envelope is begun over a worn connection"
    assert [m.recipient for m in server.accepted] == [f"person{n}@mail.example" for n in (1, 3, 4, 5, 6, 7)]


def test_a_connection_is_renewed_after_so_many_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr("mautolib.channels.smtp_session.time.monotonic", lambda: next(clock))
    with SmtpServer(Script()) as server:
        results = send(server, [outgoing(1), outgoing(2), outgoing(3)], most_seconds=15)
    assert [r.verdict for r in results] == [Verdict.SENT] * 3
    assert server.connections == server.commands.count("QUIT") > 1


def test_connection_limits_come_from_the_settings() -> None:
    settings = Settings(smtp_host="127.0.0.1", smtp_messages_per_connection=2)
    with SmtpServer(Script()) as server:
        channel = SmtpEmail.from_settings(replace(settings, smtp_port=server.port))
        assert len(list(channel.deliver([outgoing(number) for number in range(1, 6)], NotingWatch()))) == 5
        channel.close()
    assert server.connections == 3


@pytest.mark.parametrize("offers", [("PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8"), ("SIZE",), ()])
def test_only_what_a_server_offers_is_asked_of_it(offers: Sequence[str]) -> None:
    """SIZE (RFC 1870) with the true length; 8BITMIME and SMTPUTF8 (RFC 6531) for an address that needs them."""
    plain, wide = outgoing(1), outgoing(2, "用户@mail.example")
    with SmtpServer(Script(offers=offers)) as server:
        results = send(server, [plain, wide])
    said = [command for command in server.commands if command.startswith("MAIL")]
    size = f" SIZE={len(plain.data)}" if offers else ""
    assert said[0] == f"MAIL FROM:<news@shop.example>{size}"
    if "SMTPUTF8" in offers:
        assert said[1:] == [f"MAIL FROM:<news@shop.example>{size} BODY=8BITMIME SMTPUTF8"]
        assert [r.verdict for r in results] == [Verdict.SENT, Verdict.SENT]
    else:
        assert said[1:] == [] and [r.verdict for r in results] == [Verdict.SENT, Verdict.FAILED]
