"""Reasons of bounces: in our own words for what servers of all kinds say. Real mails: tests/real/test_bounces.py."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mautolib.classification.bounce_mails import BounceMail, MailKind, read
from mautolib.classification.bounces import ABOUT_SENDER, HARD, BounceClass, Reason, bounce_class, reason_of

HARD_ONES = [
    ("550 5.1.1 <ann@shop.example>: Recipient address rejected: User unknown in local recipient table", ""),
    ("550 No such user here", "5.0.0"), ("550 5.1.1 The email account that you tried to reach does not exist", ""),
    ("550 Invalid recipient", ""), ("Host or domain name not found: no such domain", "5.4.4"), ("", "5.1.1"),
    ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found", ""), ("551 user has moved", "5.1.6"),
    ("domain shop.example does not accept mail (nullMX)", "5.1.10"), ("550 mailbox unavailable", ""), ("", "5.1.2"),
    ("550 Adresse destinataire inconnue", ""), ("550 Benutzer unbekannt", ""),
    ("550 5.4.1 Recipient address rejected: Access denied", ""),
]  # fmt: skip
FULL = [
    ("552 5.2.2 Mailbox full", "5.2.2"), ("550 5.1.1 user is over quota", "5.1.1"), ("452 4.2.2 Over quota", ""),
    ("550 Mailbox quota exceeded for unknown user", ""), ("552 not enough disk space", ""), ("550 inbox is full", ""),
    ("552 5.2.2 The recipient's inbox is out of storage space", ""), ("Storage quota exceeded", "5.1.1"), ("", "5.2.2"),
    ("550 user unknown", "5.2.2"), ("Postfach voll", ""),
    ("552 Requested action aborted: exceeded storage allocation", ""),
]  # fmt: skip
SENDER = [
    ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "5.7.1"),
    ("550 5.1.1 your IP is blacklisted", "5.1.1"), ("550 5.7.1 SPF check failed", ""), ("550 spam detected", "5.1.1"),
    ("550 5.7.26 Unauthenticated email is not accepted due to domain's DMARC policy", ""),
    ("554 Relay access denied", ""),
    ("553 5.1.8 Domain of sender address news@shop.example does not exist", ""), ("550 Sender address rejected", ""),
    ("550 rejected by policy", ""), ("553 http://www.spamhaus.org/query/bl?ip=192.0.2.2", "5.1.3"),
    ("550 Virus detected", "5.1.1"), ("450 4.7.1 rate limit exceeded", ""), ("552 message too large", ""),
    ("550 poor reputation of the sending IP", ""), ("550 No reverse DNS for your host", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "status"), HARD_ONES)
def test_a_dead_address_is_hard(text: str, status: str) -> None:
    assert bounce_class(reason_of(text, status)) is BounceClass.HARD


@pytest.mark.parametrize(("text", "status"), FULL)
def test_a_full_mailbox_is_never_hard_whatever_the_code_says(text: str, status: str) -> None:
    assert reason_of(text, status) is Reason.MAILBOX_FULL


@pytest.mark.parametrize(("text", "status"), SENDER)
def test_a_block_of_the_sender_is_never_hard_whatever_the_code_says(text: str, status: str) -> None:
    assert bounce_class(reason_of(text, status)) is BounceClass.BLOCKED


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("connection timed out", "4.4.1", Reason.NETWORK), ("message expired", "4.4.7", Reason.EXPIRED),
        ("550 user unknown (in reply to end of DATA command)", "5.0.0", Reason.FILTERED),
        ("Host not found, try again", "4.4.3", Reason.NETWORK), ("nothing anybody knows", "", Reason.UNDEFINED),
        ("account temporarily disabled", "", Reason.SUSPENDED),
        ("550 5.2.1 the account is inactive", "", Reason.SUSPENDED),
        ("250 2.1.5 ok", "2.1.5", Reason.DELIVERED), ("too many hops", "5.4.6", Reason.NETWORK),
        ("", "5.9.9", Reason.UNDEFINED),
    ],
)  # fmt: skip
def test_what_may_pass_is_soft(text: str, status: str, reason: Reason) -> None:
    assert reason_of(text, status) is reason


def test_every_reason_has_a_class_and_no_two() -> None:
    assert not HARD & ABOUT_SENDER
    assert {bounce_class(reason) for reason in Reason} == set(BounceClass)


def mail(head: str, body: str) -> bytes:
    return f"{head}\n\n{body}".encode()


DAEMON = "From: MAILER-DAEMON@mx.example\nTo: bounces+1@shop.example\nSubject: Undelivered Mail"


def test_a_report_for_people_names_each_recipient() -> None:
    found = read(mail(DAEMON, """Sorry, I could not deliver your message.

<ann@mail.example>: host mx.mail.example said: 550 5.1.1 no such user
<ben@mail.example>: host mx.mail.example said: 552 5.2.2 mailbox full

--- Below this line is a copy of the message.

From: news@shop.example
To: ann@mail.example
Message-ID: <0123@shop.example>
"""))  # fmt: skip
    assert found.kind is MailKind.BOUNCE
    assert [(told.address, told.reason) for told in found.recipients] == [
        ("ann@mail.example", Reason.USER_UNKNOWN), ("ben@mail.example", Reason.MAILBOX_FULL),
    ]  # fmt: skip
    assert found.message_ids == ("0123@shop.example",) and found.came_to == ("bounces+1@shop.example",)


ARF = """From: fbl@provider.example
To: bounces+1@shop.example
Subject: FW: Hello
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

This is an email abuse report.
--b
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: Provider/1.0
Original-Rcpt-To: <ann@mail.example>
--b
Content-Type: message/rfc822

From: news@shop.example
Return-Path: <bounces+2@shop.example>
Message-ID: <77@shop.example>

Hello
--b--
"""


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("abuse", Reason.COMPLAINT), ("fraud", Reason.COMPLAINT), ("opt-out", Reason.COMPLAINT),
     ("not-spam", Reason.DELIVERED)],
)  # fmt: skip
def test_complaints(kind: str, reason: Reason) -> None:
    found = read(ARF.format(kind=kind).encode())
    assert (found.kind, found.feedback_type) == (MailKind.COMPLAINT, kind)
    assert [(told.address, told.reason) for told in found.recipients] == [("ann@mail.example", reason)]
    assert found.message_ids == ("77@shop.example",) and "bounces+2@shop.example" in found.returned


def test_answering_machines_are_no_bounces() -> None:
    head = "From: Ann <ann@mail.example>\nSubject: Automatic reply: Hello\nAuto-Submitted: auto-replied"
    away = read(mail(head, "Away"))
    assert (away.kind, away.recipients[0].reason) == (MailKind.AUTO_REPLY, Reason.AUTO_REPLY)
    thanks = read(mail("From: Ann <ann@mail.example>\nSubject: Thank you\nReturn-Path: <ann@x.example>", "Hi"))
    assert thanks.kind is MailKind.OTHER


@given(st.binary(max_size=2000))
@hypothesis_settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_give_an_answer(raw: bytes) -> None:
    report = b"Content-Type: multipart/report; boundary=b\n\n--b\n"
    for start in (b"", DAEMON.encode() + b"\n\n", ARF.encode()[:400], report):
        assert isinstance(read(start + raw), BounceMail)


@pytest.mark.parametrize("piece", [b"contact", b"<style ", b"address ", b"\n ", b"a-", b"a.", b"x@y ", b"host ", b"("])
def test_nothing_takes_long(piece: bytes) -> None:
    raw = DAEMON.encode() + b"\nContent-Type: text/html\n\n" + piece * (1_000_000 // len(piece))
    begun = time.process_time()
    read(raw)
    assert time.process_time() - begun < 5
