"""Feedback end to end in the library: the mailbox, five transient bounces, and what is broken."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib import feedback
from mautolib.errors import Misconfigured, ProviderUnavailable
from mautolib.events import verp
from mautolib.feedback import applying
from mautolib.settings import Settings
from tests import sns
from tests.security.test_h_feedback import DSN, NOW, PROVIDER, count, drop, make_message, run, state, tell
from tests.unit.test_bounces import ARF
from tests.web_server import Authority

TRANSIENT = {"smtp; 452 4.2.2 mailbox full": "soft", "smtp; 554 5.7.1 blocked using zen.spamhaus.org": "blocked"}


def bounce(engine: Engine, settings: Settings, number: int, diagnostic: str, email: str = "anna@mail.example") -> None:
    recipient = {"emailAddress": email, "action": "failed", "diagnosticCode": diagnostic}
    body = sns.ses("Bounce", PROVIDER.format(number), email, bounceType="Transient", bouncedRecipients=[recipient])
    with engine.begin() as tx:
        tell(tx, body, f"bounce {number}")
        assert applying.apply_due(tx, settings, now=NOW).applied == 1


def suppressions(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        query = text("select email_key || ' ' || reason || ' ' || source from suppressions order by 1")
        return list(connection.scalars(query))


def test_what_becomes_of_mail_is_as_deep_as_the_mail(fresh_engine: Engine, settings: Settings) -> None:
    """Else a rule that mails whoever a mail was delivered to would run for ever."""
    for number, depth in enumerate((0, 3)):
        message = make_message(fresh_engine, f"anna{number}@mail.example", number, hours_ago=10)
        with fresh_engine.begin() as tx:
            values = {"id": message, "depth": depth}
            tx.execute(text("update messages set depth = :depth where message_id = :id"), values)
            tell(tx, sns.ses("Delivery", PROVIDER.format(number), f"anna{number}@mail.example"), f"delivery {number}")
    with fresh_engine.begin() as tx:
        tx.execute(text("delete from event_pending"))
        assert applying.apply_due(tx, settings, now=NOW).applied == 2
        tx.execute(text("insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)"
                        " values (1, now(), 0, '{0}', 1)"))  # fmt: skip
        found = tx.execute(text(
            "select event_type, depth from event_pending left join events on event_id = first_event_id"
            " order by depth, event_type")).all()  # fmt: skip
    assert found == [("email_delivered", 0), (None, 0), ("email_delivered", 3)], "and depth ends with what was told"


@pytest.mark.parametrize(("diagnostic", "reason"), TRANSIENT.items())
def test_five_transient_bounces_in_a_row(
    fresh_engine: Engine, settings: Settings, diagnostic: str, reason: str
) -> None:
    ids = [make_message(fresh_engine, "anna@mail.example", n, hours_ago=10 - n) for n in range(5)]
    for number in (4, 0, 2, 1):
        bounce(fresh_engine, settings, number, diagnostic)
        assert suppressions(fresh_engine) == []
    bounce(fresh_engine, settings, 3, diagnostic)
    assert {state(fresh_engine, one)[:2] for one in ids} == {("bounced", reason)}
    # Who blocks us says nothing about the address.
    assert suppressions(fresh_engine) == (["anna@mail.example bounce ses"] if reason == "soft" else [])


def test_a_delivery_in_between_begins_the_row_anew(fresh_engine: Engine, settings: Settings) -> None:
    for number in range(7):
        make_message(fresh_engine, "anna@mail.example", number, hours_ago=10 - number)
    with fresh_engine.begin() as tx:
        tell(tx, sns.ses("Delivery", PROVIDER.format(3), "anna@mail.example"), "delivered")
        applying.apply_due(tx, settings, now=NOW)
    for number in (0, 1, 2, 4, 5, 6):
        bounce(fresh_engine, settings, number, "smtp; 452 4.2.2 mailbox full")
    assert suppressions(fresh_engine) == []


def test_an_answering_machine_is_no_bounce(fresh_engine: Engine, settings: Settings) -> None:
    message_id = make_message(fresh_engine, "anna@mail.example", 0)
    away = sns.ses("Bounce", PROVIDER.format(0), "", bounceType="Transient", bounceSubType="General",
                   bouncedRecipients=[{"emailAddress": "anna@mail.example"}])  # fmt: skip
    not_spam = sns.ses("Complaint", PROVIDER.format(0), "anna@mail.example", complaintFeedbackType="not-spam")
    with fresh_engine.begin() as tx:
        tell(tx, away, "away")
        tell(tx, not_spam, "not spam")
    run(fresh_engine, settings)
    assert state(fresh_engine, message_id)[0] == "delivered" and suppressions(fresh_engine) == []


def test_a_tag_finds_the_message_where_no_id_is_known(fresh_engine: Engine, settings: Settings) -> None:
    message_id = make_message(fresh_engine, "anna@mail.example", 0)
    body = sns.ses("Bounce", "unknown-to-us", "anna@mail.example").replace(
        '"mail": {', f'"mail": {{"tags": {{"mauto_message": ["{message_id}"]}}, '
    )
    with fresh_engine.begin() as tx:
        tell(tx, body, "tagged")
    assert run(fresh_engine, settings).applied == 1
    assert state(fresh_engine, message_id)[0] == "bounced"


def test_a_broken_notice_does_not_hold_up_the_others(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [make_message(fresh_engine, f"p{n}@mail.example", n) for n in range(3)]
    with fresh_engine.begin() as tx:
        for number in range(3):
            tell(tx, sns.ses("Bounce", PROVIDER.format(number), f"p{number}@mail.example"), f"n{number}")
    real = applying.of_body

    def broken(source: str, body: str) -> Any:
        if "p1@mail.example" in body:
            raise RuntimeError("a bug")
        return real(source, body)

    monkeypatch.setattr(applying, "of_body", broken)
    done = run(fresh_engine, settings)
    assert (done.applied, done.broken) == (2, 1)
    assert [state(fresh_engine, one)[0] for one in ids] == ["bounced", "sent", "bounced"]
    monkeypatch.setattr(applying, "of_body", real)
    assert run(fresh_engine, settings, now=NOW + timedelta(hours=2)).applied == 1


# ---- the mailbox


def test_a_maildir_is_read_once_and_nothing_is_lost(fresh_engine: Engine, settings: Settings) -> None:
    ids = [make_message(fresh_engine, f"p{n}@mail.example", n) for n in range(2)]
    to = [f"{verp.make(settings, one, 7)}@shop.example".encode() for one in ids]
    reading = drop(settings, DSN % {b"to": to[0], b"who": b"p0@mail.example", b"rfc": b"x@y"}, "1.dsn")
    complaint = ARF.format(kind="abuse").encode().replace(b"bounces+2@shop.example", to[1])
    drop(settings, complaint, "2.arf")
    drop(settings, b"From: friend@mail.example\nSubject: Hello\nReturn-Path: <friend@mail.example>\n\nHi", "3.other")
    done = run(fresh_engine, reading)
    assert (done.mails.stored, done.applied, done.ignored) == (3, 2, 1)
    assert [state(fresh_engine, one)[0] for one in ids] == ["bounced", "complained"]
    assert suppressions(fresh_engine) == [
        "p0@mail.example bounce bounce mailbox", "p1@mail.example complaint bounce mailbox",
    ]  # fmt: skip
    box = Path(reading.bounce_mailbox)
    assert sorted(path.name for path in (box / "cur").iterdir()) == ["1.dsn:2,S", "2.arf:2,S", "3.other:2,S"]
    assert list((box / "new").iterdir()) == []
    drop(settings, (box / "cur" / "1.dsn:2,S").read_bytes(), "again")
    assert run(fresh_engine, reading).mails == feedback.mailbox.Read(known=1)
    assert count(fresh_engine, "select count(*) from provider_notices") == 3


def test_poison_is_put_aside(fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = drop(settings, b"poison", "1.bad")
    drop(settings, b"From: x@y.example\n\nfine", "2.good")
    real = feedback.mailbox.bounce_mails.read

    def choke(raw: bytes) -> Any:
        if raw == b"poison":
            raise RecursionError
        return real(raw)

    monkeypatch.setattr(feedback.mailbox.bounce_mails, "read", choke)
    assert run(fresh_engine, reading).mails == feedback.mailbox.Read(stored=1, quarantined=1)
    aside = Path(reading.bounce_mailbox) / ".mauto-quarantine" / "cur"
    assert [path.read_bytes() for path in aside.iterdir()] == [b"poison"]


def test_a_database_that_is_away_leaves_the_mail_unread(settings: Settings) -> None:
    from mautolib.db.engine import connect

    reading = drop(settings, b"From: x@y.example\n\nfine")
    away = connect("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(Exception, match="refused"):
        feedback.mailbox.read_mailbox(away, reading, now=NOW)
    assert [path.name for path in (Path(reading.bounce_mailbox) / "new").iterdir()] == ["1.mail"]


@pytest.mark.parametrize(
    "where", ["/no/such/folder", "imap://mail.example/INBOX", "pop3://mail.example/", "imaps://u:p@mail.example/INBOX"]
)
def test_a_mailbox_that_cannot_be_is_said_so_after_the_rest_was_done(
    fresh_engine: Engine, settings: Settings, where: str
) -> None:
    message_id = make_message(fresh_engine, "anna@mail.example", 0)
    with fresh_engine.begin() as tx:
        tell(tx, sns.ses("Delivery", PROVIDER.format(0), "anna@mail.example"), "one")
    with pytest.raises(Misconfigured, match="MAUTO_BOUNCE_MAILBOX"):
        run(fresh_engine, replace(settings, bounce_mailbox=where))
    assert state(fresh_engine, message_id)[0] == "delivered"


@dataclass
class ImapServer:
    """As much of an IMAP server as is asked of it: one folder of mails with flags, and copies."""

    mails: dict[int, bytes]
    flags: dict[int, set[str]] = field(default_factory=dict)
    copied: list[int] = field(default_factory=list)
    password: str = "let me in"
    port: int = 0
    #: Speaks TLS from the first byte (imaps://).
    tls: ssl.SSLContext | None = None
    logins: int = 0

    def accept(self, connection: socket.socket) -> None:
        """One session; over, if the other side does not like the certificate."""
        with connection, contextlib.suppress(OSError):
            self.serve(connection if self.tls is None else self.tls.wrap_socket(connection, server_side=True))

    def serve(self, connection: socket.socket) -> None:
        """What is said in a session."""
        with connection, connection.makefile("rwb") as stream:

            def say(line: bytes) -> None:
                stream.write(line + b"\r\n")
                stream.flush()

            say(b"* OK IMAP4rev1 ready")
            while line := stream.readline().decode("latin-1").strip():
                tag, _, command = line.partition(" ")
                for answer in self.answers(command):
                    say(answer)
                self.logins += command.startswith("LOGIN")
                word = b"NO no" if command.startswith("LOGIN") and self.password not in command else b"OK done"
                say(tag.encode() + b" " + word)
                if command == "LOGOUT":
                    return

    def answers(self, command: str) -> Iterator[bytes]:
        """The untagged answers to a command."""
        if command == "CAPABILITY":
            yield b"* CAPABILITY IMAP4rev1"
        elif command.startswith("SELECT"):
            yield b"* %d EXISTS" % len(self.mails)
        elif command == "UID SEARCH UNSEEN":
            unseen = [one for one in self.mails if r"\Seen" not in self.flags.get(one, set())]
            yield b"* SEARCH " + " ".join(map(str, unseen)).encode()
        elif found := re.match(r"UID FETCH (\d+) \(BODY\.PEEK\[\]<0\.\d+>\)", command):
            raw = self.mails[int(found[1])]
            yield b"* 1 FETCH (UID %s BODY[]<0> {%d}\r\n%s)" % (found[1].encode(), len(raw), raw)
        elif found := re.match(r"UID STORE (\d+) \+FLAGS\.SILENT \((.*)\)", command):
            self.flags.setdefault(int(found[1]), set()).update(found[2].split())
        elif found := re.match(r"UID COPY (\d+) mauto-quarantine", command):
            self.copied.append(int(found[1]))


@pytest.fixture
def imap() -> Iterator[ImapServer]:
    server = ImapServer(mails={})
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.port = listening.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                server.accept(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_an_imap_folder_is_read_once(
    fresh_engine: Engine, settings: Settings, imap: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = make_message(fresh_engine, "anna@mail.example", 0)
    to = f"{verp.make(settings, message_id, 7)}@shop.example".encode()
    dsn = (DSN % {b"to": to, b"who": b"anna@mail.example", b"rfc": b"x@y"}).replace(b"\n", b"\r\n")
    imap.mails = {11: dsn, 12: b"poison", 13: b"From: x@y.example\r\n\r\nfine"}
    real = feedback.mailbox.bounce_mails.read
    monkeypatch.setattr(
        feedback.mailbox.bounce_mails, "read", lambda raw: real(raw) if raw != b"poison" else {}["no"]
    )
    reading = replace(
        settings, bounce_mailbox=f"imap://127.0.0.1:{imap.port}/INBOX", bounce_mailbox_username="bounces",
        bounce_mailbox_password="let me in",
    )  # fmt: skip
    assert run(fresh_engine, reading).mails == feedback.mailbox.Read(stored=2, quarantined=1)
    assert state(fresh_engine, message_id)[0] == "bounced"
    assert imap.flags == {11: {r"\Seen"}, 12: {r"\Seen", r"\Flagged"}, 13: {r"\Seen"}} and imap.copied == [12]
    assert run(fresh_engine, reading).mails == feedback.mailbox.Read()
    with pytest.raises(Misconfigured, match="refuses"):
        run(fresh_engine, replace(reading, bounce_mailbox_password="wrong"))
    with pytest.raises(ProviderUnavailable):
        run(fresh_engine, replace(reading, bounce_mailbox="imap://127.0.0.1:1/INBOX"))


def over_tls(settings: Settings, port: int, **changes: Any) -> Settings:
    """Settings that read `INBOX` of a server on this machine over TLS."""
    where = {"bounce_mailbox": f"imaps://localhost:{port}/INBOX", "bounce_mailbox_username": "bounces"}
    return replace(settings, **{**where, "bounce_mailbox_password": "let me in", **changes})


def test_imaps_reads_the_folder_of_a_server_whose_certificate_is_good(
    fresh_engine: Engine, settings: Settings, imap: ImapServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    imap.tls = authority.for_server("localhost")
    message_id = make_message(fresh_engine, "anna@mail.example", 0)
    to = f"{verp.make(settings, message_id, 7)}@shop.example".encode()
    imap.mails = {7: (DSN % {b"to": to, b"who": b"anna@mail.example", b"rfc": b"x@y"}).replace(b"\n", b"\r\n")}
    reading = over_tls(settings, imap.port)
    assert run(fresh_engine, reading).mails == feedback.mailbox.Read(stored=1)
    assert state(fresh_engine, message_id)[0] == "bounced" and imap.flags == {7: {r"\Seen"}}
    assert run(fresh_engine, reading).mails == feedback.mailbox.Read()
    with pytest.raises(Misconfigured, match="refuses"):
        run(fresh_engine, replace(reading, bounce_mailbox_password="wrong"))


@pytest.mark.parametrize("fault", ["another name", "an unknown authority", "no TLS", "an old version"])
def test_imaps_tells_its_password_to_nobody_it_cannot_trust(
    fresh_engine: Engine, settings: Settings, imap: ImapServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    fault: str,
) -> None:  # fmt: skip
    authority, other = (Authority(tmp_path / name) for name in folders(tmp_path, "ours", "other"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    giver = other if fault == "an unknown authority" else authority
    if fault != "no TLS":
        imap.tls = giver.for_server("mail.example" if fault == "another name" else "localhost")
    if fault == "an old version":
        assert imap.tls is not None
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            imap.tls.maximum_version = ssl.TLSVersion.TLSv1_1
    imap.mails = {7: b"From: x@y.example\r\n\r\nfine"}
    with pytest.raises(ProviderUnavailable, match=r"cannot be reached \((SSL|ConnectionReset)"):
        run(fresh_engine, over_tls(settings, imap.port))
    assert imap.logins == 0 and imap.flags == {}


def folders(where: Path, *names: str) -> list[str]:
    for name in names:
        (where / name).mkdir()
    return list(names)
