"""Group E: envelope, headers, MIME. What an attacker puts into a name, address or text stays a name, address or text.

Signing, senders and attachments (E10 to E13) are in `test_e_signing`. There are no custom headers by template or API:
what looks like one stays text or is ignored (E8).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.campaigns import store
from mautolib.campaigns.building import Blueprint
from mautolib.campaigns.readiness import problems
from mautolib.campaigns.sending import pump
from mautolib.channels.null import Null
from mautolib.channels.smtp_email import SmtpEmail
from mautolib.channels.smtp_session import Server
from mautolib.contacts import NewContact, consent, create
from mautolib.contacts.model import SuppressionReason
from mautolib.errors import Conflict, InvalidInput, Misconfigured, ProviderRejected
from mautolib.events.links import LinkSigner
from mautolib.ledger.model import Claimed, Kind, NewContent, Stage, Verdict
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.contracts.smtp_server import Script, SmtpServer
from tests.contracts.watching import NotingWatch, outgoing
from tests.integration.mailing import NOW, launched, new_campaign, run_pump
from tests.live_service import LiveService

LINE_ENDS = ["\r", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\0"]
HEADERS = {
    "From", "To", "Subject", "Date", "Message-ID", "X-Mauto-Attempt", "List-Unsubscribe", "List-Unsubscribe-Post",
    "MIME-Version", "Content-Type",
}  # fmt: skip


def claimed(**contact: object) -> Claimed:
    return Claimed(
        message_id=1, contact_id=1, attempt_id=1, attempt_no=1, kind=Kind.CAMPAIGN, campaign_id=1, workflow_id=None,
        content_id=1, to_email="person@mail.example", rfc_message_id="abc@shop.example", context=None,
        contact={"id": "1", "email": "person@mail.example", **contact},
    )  # fmt: skip


def blueprint(settings: Settings, **content: object) -> Blueprint:
    values = {"subject": "s", "html_body": "<p>Body</p>", "campaign_id": 1, **content}
    signer = LinkSigner.from_settings(settings)
    return Blueprint(NewContent(**values), settings=settings, signer=signer)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", LINE_ENDS)
def test_e1_contact_data_cannot_end_a_header(settings: Settings, end: str) -> None:
    value = f"Ann{end}Bcc: evil@mail.example{end}{end}<html>"
    made = blueprint(settings, subject="Hello {{ contact.first_name }}").write(claimed(first_name=value), NOW)
    message = message_from_bytes(made.data, policy=default)
    assert set(message.keys()) == HEADERS and len(message.keys()) == len(HEADERS)
    assert message["Subject"] == "Hello Ann Bcc: evil@mail.example <html>"


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("field", ["from_name", "reply_to", "from_email"])
def test_e1_a_sender_cannot_end_a_header(settings: Settings, field: str, end: str) -> None:
    value = {"from_name": f"Shop{end}Bcc: evil@mail.example"}.get(field, f"a@b.example{end}Bcc:x@y.example")
    with pytest.raises((InvalidInput, Misconfigured, ProviderRejected), match=r"control character|cannot be"):
        blueprint(settings, **{field: value})


@pytest.mark.parametrize("end", LINE_ENDS)
def test_e1_a_campaign_with_such_a_sender_is_refused_at_launch(settings: Settings, tx: Connection, end: str) -> None:
    if end == "\0":
        return  # no text of the database holds a NUL
    campaign = store.create(tx, new_campaign(reply_to=f"a@b.example{end}Bcc: c@d.example"), actor="test", now=NOW)
    assert [problem.path for problem in problems(tx, settings, campaign)] == [("reply_to",)]


@pytest.mark.parametrize(
    "address",
    [
        '"a\r\nRCPT TO:<evil@mail.example>"@mail.example', "a@good.example,b@evil.example",
        "<a@mail.example>b@evil.example", "alice@a.example)bob@b.example", "a\0@mail.example",
        "a@mail.example>\r\nRCPT TO:<evil@mail.example>", "x" * 65 + "@mail.example",
        "abc@" + ("b" * 60 + ".") * 4 + "example",
    ],
)  # fmt: skip
def test_e2_e3_e4_no_address_becomes_another_one_or_a_command(address: str) -> None:
    with SmtpServer(Script()) as server:
        channel = SmtpEmail(Server(host="127.0.0.1", port=server.port))
        results = list(channel.deliver([outgoing(1, address), outgoing(2)], NotingWatch()))
        channel.close()
    assert (results[0].verdict, results[0].stage) == (Verdict.FAILED, Stage.ADDRESS)
    said = [command for command in server.commands if command.startswith("RCPT")]
    assert said == ["RCPT TO:<person2@mail.example>"]


@pytest.mark.parametrize("address", ["o'neil+x@mail.example", "a..b@mail.example", "{x}|y@mail.example", "A@MAIL.test"])
def test_e3_the_address_on_the_wire_is_the_stored_one(address: str) -> None:
    with SmtpServer(Script()) as server:
        channel = SmtpEmail(Server(host="127.0.0.1", port=server.port))
        (result,) = channel.deliver([outgoing(1, address)], NotingWatch())
        channel.close()
    assert result.verdict is Verdict.SENT
    local, _, domain = address.rpartition("@")
    assert server.accepted[0].recipient == f"{local}@{domain.lower()}"


def test_e5_an_international_address_needs_a_server_that_takes_it() -> None:
    messages = [outgoing(1, "用户@mail.example"), outgoing(2, "a@bücher.example")]
    for offers, verdict in (((), Verdict.FAILED), (("SMTPUTF8", "8BITMIME"), Verdict.SENT)):
        with SmtpServer(Script(offers=offers)) as server:
            channel = SmtpEmail(Server(host="127.0.0.1", port=server.port))
            results = list(channel.deliver(messages, NotingWatch()))
            channel.close()
        assert [result.verdict for result in results] == [verdict, Verdict.SENT]
        assert server.accepted[-1].recipient == "a@xn--bcher-kva.example"
        if verdict is Verdict.FAILED:
            assert (results[0].enhanced, results[0].stage) == ("5.6.7", Stage.ADDRESS)
        else:
            assert "SMTPUTF8" in server.commands[1] and server.accepted[0].recipient == "用户@mail.example"


@pytest.mark.parametrize(
    "spelling", ["bo@ｓｈｏｐ.example", "BO@SHOP.EXAMPLE", "ｂｏ@shop.example", "bo@shop。example", " bo@shop.example "]
)
def test_e6_another_spelling_is_the_same_person_and_the_same_opt_out(
    tx: Connection, settings: Settings, spelling: str
) -> None:
    made = create(tx, NewContact(email="bo@shop.example"), actor="test", now=NOW)
    with pytest.raises(Conflict):
        create(tx, NewContact(email=spelling), actor="test", now=NOW)
    consent.suppress(tx, spelling, SuppressionReason.COMPLAINT, actor="test", now=NOW, settings=settings)
    refusal = tx.scalar(text("select refusal from contact_mailability where contact_id = :id"), {"id": made.contact_id})
    assert refusal == "suppressed"


TRIED = ("headers", "custom_headers", "bcc", "cc", "to", "sender", "return_path", "message_id", "dkim_signature",
         "list_unsubscribe", "attachments")  # fmt: skip


def test_e8_nobody_gives_a_mail_another_header(service: LiveService, editor: httpx.Client) -> None:
    """Neither as a field, nor in a template, nor in a value."""
    evil = {name: {"Bcc": "evil@mail.example"} for name in TRIED}
    to = f"e8-{uuid.uuid4().hex[:12]}@mail.example"
    html = "Bcc: evil@mail.example\r\n\r\n<p>{{ name }}</p>{# \r\nFrom: evil@mail.example #}"
    body = {"email": to, "subject": "Bcc: evil@mail.example {{ name }}", "html_body": html,
            "variables": {"name": "x\r\nReturn-Path: <evil@mail.example>"}}  # fmt: skip
    answer = editor.post("/api/v1/messages/", json={**body, **evil})
    assert answer.status_code == 202, answer.text
    assert not set(TRIED) - {"to"} & set(answer.json())
    made = editor.post("/api/v1/campaigns/", json={"name": to, "subject": "s", **evil})
    assert made.status_code == 201 and not set(TRIED) & set(made.json())
    channel = Null()
    pump(service.engine, service.settings, urgent_only=True, open_way=lambda _: channel)
    (mail,) = [mail for mail in channel.accepted if mail.recipient == to]
    message = message_from_bytes(mail.data, policy=default)
    marketing = {"List-Unsubscribe", "List-Unsubscribe-Post"}
    assert set(message.keys()) == HEADERS - marketing and len(message.keys()) == len(HEADERS - marketing)
    assert message["Subject"] == "Bcc: evil@mail.example x Return-Path: <evil@mail.example>"
    assert "evil" not in mail.sender and "evil" not in message["From"] and message["To"] == to


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[MailSink]:
    with MailSink(tmp_path / "sink") as running:
        yield running


AWKWARD = "<p>one</p>\n.\n..two\n.\r\n.three\rfour\n" + "x" * 5000 + "\n<p>Ünïcödé 🎉 עברית</p>\nFrom here\n"


def test_e7_the_text_arrives_as_it_was_written(settings: Settings, sink: MailSink) -> None:
    made = blueprint(settings, html_body=AWKWARD, text_body=".\n..\nText\n.\n").write(claimed(), NOW)
    assert made.data.count(b"\r\n") == made.data.count(b"\n") == made.data.count(b"\r")
    channel = SmtpEmail(Server(host="127.0.0.1", port=sink.smtp_port))
    (result,) = channel.deliver([made], NotingWatch())
    channel.close()
    assert result.verdict is Verdict.SENT
    (mail,) = sink.wait_for(1)
    assert mail.raw == made.data
    wanted = AWKWARD.replace("\r\n", "\n").replace("\r", "\n")
    assert wanted.rstrip("\n") in mail.html.replace("\r\n", "\n")
    assert mail.text.replace("\r\n", "\n").startswith(".\n..\nText\n.\n")


def test_e7_a_megabyte_on_one_line_is_folded(settings: Settings, sink: MailSink) -> None:
    made = blueprint(settings, html_body=f"<p>{'y' * 900_000}</p>").write(claimed(), NOW)
    assert max(map(len, made.data.split(b"\r\n"))) <= 998
    channel = SmtpEmail(Server(host="127.0.0.1", port=sink.smtp_port))
    (result,) = channel.deliver([made], NotingWatch())
    channel.close()
    assert result.verdict is Verdict.SENT and "y" * 900_000 in sink.wait_for(1)[0].html


SUBJECTS = ["Grüße", "🎉 Sale", "שלום עולם", "x" * 300, "日本語" * 100, "=?utf-8?q?=41?=", "a  b"]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_e9_every_subject_comes_back(settings: Settings, subject: str) -> None:
    made = blueprint(settings, subject="{{ contact.first_name }}").write(claimed(first_name=subject), NOW)
    head = made.data.partition(b"\r\n\r\n")[0]
    assert head.isascii() and max(map(len, head.split(b"\r\n"))) <= 998
    assert message_from_bytes(made.data, policy=default)["Subject"] == " ".join(subject.split())


def test_e11_all_marketing_mail_can_be_left_with_one_click(
    fresh_engine: Engine, settings: Settings, sink: MailSink
) -> None:
    shop = replace(settings, public_base_url="https://mail.shop.example", environment="production",
                   smtp_port=sink.smtp_port)  # fmt: skip
    launched(fresh_engine, shop, 12)
    with fresh_engine.begin() as tx:
        tx.execute(text("update messages set kind = 'workflow', campaign_id = null where message_id % 2 = 0"))
    channel = SmtpEmail.from_settings(shop)
    run_pump(fresh_engine, shop, channel)
    received = sink.wait_for(12)
    for mail in received:
        assert mail.header("List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"
        first = mail.header("List-Unsubscribe").split(",")[0].strip()
        assert first.startswith("<https://mail.shop.example/api/v1/track/unsubscribe/") and first.endswith(">")
        assert {name for name, _ in mail.headers} >= HEADERS


def test_e14_a_body_of_megabytes_is_refused_before_launch(tx: Connection, settings: Settings) -> None:
    campaign = store.create(tx, new_campaign(html_body="<p>" + "x" * 3_000_000 + "</p>"), actor="test", now=NOW)
    assert [problem.path[0] for problem in problems(tx, settings, campaign)] == ["html_body"]
