"""Group E, signing and senders: DKIM that an independent verifier accepts and tampering breaks (E10, E11), senders of
domains that are not ours (E13), and what there is not: attachments (E12)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sqlalchemy import Connection, Engine

from mautolib.campaigns import launch, readiness, store
from mautolib.campaigns.building import Blueprint
from mautolib.campaigns.dkim import DkimSigner
from mautolib.channels.smtp_email import SmtpEmail
from mautolib.errors import InvalidInput, Misconfigured
from mautolib.events.links import LinkSigner
from mautolib.ledger.model import NewContent
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.integration.mailing import NOW, launched, new_campaign, run_pump
from tests.security.test_e_messages import claimed

Key = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KEYS: dict[str, Key] = {
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
LEFT_ALONE = ("from", "subject", "to", "date", "message-id", "list-unsubscribe", "list-unsubscribe-post", "reply-to")


def public_record(key: Key) -> bytes:
    """The TXT record of the key."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(raw)
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


def pem(key: Key | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(params=list(KEYS))
def signing(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> tuple[Settings, Key]:
    key = KEYS[request.param]
    path = tmp_path / "dkim.pem"
    path.write_bytes(pem(key))
    return replace(
        settings, dkim_domain="Shop.example", dkim_selector="s2026", dkim_key_file=str(path), smtp_connections=1
    ), key


def verifies(data: bytes, key: Key) -> bool:
    def look_up(name: bytes, timeout: float = 5) -> bytes:
        assert name == b"s2026._domainkey.shop.example."
        return public_record(key)

    return bool(dkim.verify(data, dnsfunc=look_up))


def written(settings: Settings, **content: object) -> bytes:
    values = {"subject": "Grüße {{ contact.first_name }}", "html_body": "<p>Hi</p>", "campaign_id": 1, **content}
    blueprint = Blueprint(NewContent(**values), settings=settings, signer=LinkSigner.from_settings(settings))  # type: ignore[arg-type]
    return blueprint.write(claimed(first_name="Zoë"), NOW).data


@pytest.mark.parametrize(
    "html",
    [
        "<p>Hi</p>", "<p>Hi</p>\n\n\n\n", "{% set x = 1 %}<p>\t \n . \n{{ x }}</p>   ",
        "<p>é{{ contact.first_name }}</p>" * 500,
    ],
)  # fmt: skip
def test_e10_an_independent_verifier_accepts_what_we_sign(signing: tuple[Settings, Key], html: str) -> None:
    settings, key = signing
    data = written(settings, html_body=html, reply_to="help@shop.example", from_name="Große Läden, " * 8)
    assert data.startswith(b"DKIM-Signature: v=1;") and verifies(data, key)
    assert all(len(line) <= 78 for line in data.partition(b"\r\nFrom:")[0].split(b"\r\n"))
    # What relays do on the way: fold headers anew, and add their own above.
    moved = b"Received: by relay\r\n" + data.replace(b"\r\nSubject: ", b"\r\nSUBJECT:   ")
    assert verifies(moved, key)


@pytest.mark.parametrize("name", [*LEFT_ALONE, "cc", "content-type", "mime-version"])
def test_e10_a_second_header_breaks_the_signature(signing: tuple[Settings, Key], name: str) -> None:
    settings, key = signing
    data = written(settings)
    assert verifies(data, key)
    added = f"{name.title()}: <evil@mail.example>\r\n".encode()
    assert not verifies(added + data, key)
    assert not verifies(data.replace(b"\r\n\r\n", b"\r\n" + added + b"\r\n", 1), key)


def test_e10_any_change_breaks_the_signature(signing: tuple[Settings, Key]) -> None:
    settings, key = signing
    data = written(settings)
    head, _, body = data.partition(b"\r\n\r\n")
    for changed in (
        data.replace(b"<p>Hi</p>", b"<p>Ha</p>"), data + b"more\r\n",
        head + b"\r\n\r\n" + body.replace(b"--=_", b"--=-"),
        re.sub(rb"\r\nTo: [^\r]+", b"\r\nTo: other@mail.example", data), re.sub(rb"Date: \w", b"Date: X", data),
        data.replace(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", b""),
    ):  # fmt: skip
        assert changed != data and not verifies(changed, key)


def test_e10_mail_without_unsubscribe_headers_cannot_be_given_some(signing: tuple[Settings, Key]) -> None:
    settings, key = signing
    content = NewContent(subject="Your order", html_body="<p>It is on its way</p>")
    blueprint = Blueprint(content, settings=settings, signer=LinkSigner.from_settings(settings), is_marketing=False)
    data = blueprint.write(claimed(), NOW).data
    assert b"List-Unsubscribe" not in data and verifies(data, key)
    assert not verifies(b"List-Unsubscribe: <https://evil.example/>\r\n" + data, key)


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[MailSink]:
    with MailSink(tmp_path / "sink") as running:
        yield running


def test_e11_everything_the_sink_gets_verifies_and_can_be_left(
    fresh_engine: Engine, signing: tuple[Settings, Key], sink: MailSink
) -> None:
    settings, key = signing
    shop = replace(settings, public_base_url="https://mail.shop.example", environment="production",
                   smtp_port=sink.smtp_port, bounce_domain="bounces.shop.example")  # fmt: skip
    launched(fresh_engine, shop, 20)
    run_pump(fresh_engine, shop, SmtpEmail.from_settings(shop))
    for mail in sink.wait_for(20):
        assert verifies(mail.raw, key)
        signed = re.sub(rb"\s", b"", re.search(rb"h=([^;]+);", mail.raw)[1]).decode().split(":")  # type: ignore[index]
        assert signed.count("list-unsubscribe") == signed.count("list-unsubscribe-post") == signed.count("from") == 2
        assert mail.header("List-Unsubscribe").startswith("<https://mail.shop.example/")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dkim_selector": ""}, "MAUTO_DKIM_SELECTOR is not set"),
        ({"dkim_domain": ""}, "MAUTO_DKIM_DOMAIN is not set"),
        ({"dkim_key_file": ""}, "MAUTO_DKIM_KEY_FILE is not set"),
        ({"dkim_key_file": "/nowhere/key.pem"}, "cannot be read"),
        ({"dkim_domain": "not a domain"}, "no domain"),
        ({"dkim_selector": "a; d=evil.example"}, "no selector"),
        ({"dkim_selector": "x" * 64}, "no selector"),
    ],
)
def test_signing_that_cannot_work_is_named_before_launch(
    tx: Connection, settings: Settings, tmp_path: Path, changes: dict[str, str], word: str
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(KEYS["ed25519"]))
    given = {"dkim_domain": "shop.example", "dkim_selector": "s1", "dkim_key_file": str(path), **changes}
    broken = replace(settings, **given)
    with pytest.raises(Misconfigured, match=word):
        DkimSigner.from_settings(broken)
    campaign = store.create(tx, new_campaign(), actor="test", now=NOW)
    assert [problem.path for problem in readiness.problems(tx, broken, campaign)] == [("settings", "dkim_key_file")]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"no key at all", "no private key"),
        (pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)), "1024 bits"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "RSA or Ed25519"),
        (KEYS["rsa"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")),
         "no private key"),
    ],
    ids=["text", "short", "other kind", "password"],
)  # fmt: skip
def test_a_key_that_cannot_sign_is_refused(settings: Settings, tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    broken = replace(settings, dkim_domain="shop.example", dkim_selector="s1", dkim_key_file=str(path))
    with pytest.raises(Misconfigured, match=word):
        DkimSigner.from_settings(broken)


def test_without_a_key_nothing_is_signed(settings: Settings) -> None:
    assert DkimSigner.from_settings(settings) is None
    assert b"DKIM" not in written(settings)


def test_e12_there_are_no_attachments() -> None:
    """Nothing takes a file name or content to attach, so none can be abused."""
    names = {field.lower() for kind in (NewContent,) for field in kind.__dataclass_fields__}
    assert not any("attach" in name or "file" in name for name in names)


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("news@shop.example", True), ("news@mail.shop.example", True), ("news@SHOP.example", True),
        ("news@läden.example", True), ("news@xn--lden-loa.example", True), ("news@evil.example", False),
        ("news@notshop.example", False), ("news@shop.example.evil.example", False),
    ],
)  # fmt: skip
def test_e13_mail_is_sent_from_our_domains_only(tx: Connection, settings: Settings, address: str, may: bool) -> None:
    ours = replace(settings, sender_domains=("shop.example", "Läden.example"))
    campaign = store.create(tx, new_campaign(from_email=address), actor="test", now=NOW)
    found = [problem.path for problem in readiness.problems(tx, ours, campaign)]
    assert found == ([] if may else [("from_email",)])
    if may:
        assert written(ours, from_email=address)
        return
    with pytest.raises(InvalidInput, match="MAUTO_SENDER_DOMAINS") as caught:
        launch.request_send(tx, ours, campaign.campaign_id, now=NOW)
    assert caught.value.code == "not_sendable"
    with pytest.raises(Misconfigured, match="MAUTO_SENDER_DOMAINS"):
        written(ours, from_email=address)


def test_e13_the_default_sender_must_be_ours_too(tx: Connection, settings: Settings) -> None:
    ours = replace(settings, sender_domains=("other.example",))
    campaign = store.create(tx, new_campaign(), actor="test", now=NOW)
    assert [problem.path for problem in readiness.problems(tx, ours, campaign)] == [("from_email",)]


def test_e14_what_gmail_would_cut_off_is_said(tx: Connection, settings: Settings) -> None:
    campaign = store.create(tx, new_campaign(html_body=f"<p>{'x' * 110_000}</p>"), actor="test", now=NOW)
    assert readiness.problems(tx, settings, campaign) == []
    said = readiness.warnings_of(readiness.text_of(tx, campaign))
    assert said == ["The HTML is larger than 102 KB: Gmail cuts it off"]
