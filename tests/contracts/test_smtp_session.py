"""Encryption and sign-in: certificates are checked, passwords never travel in the clear, refusals say what to do."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mautolib.channels.smtp_email import SmtpEmail
from mautolib.channels.smtp_session import Server, open_session
from mautolib.errors import Misconfigured, ProviderUnavailable
from mautolib.ledger.model import Verdict
from mautolib.settings import Settings
from tests.contracts.smtp_server import Script, SmtpServer
from tests.contracts.watching import NotingWatch, outgoing


@dataclass
class Certificate:
    path: Path
    server: ssl.SSLContext


def certificate(folder: Path, address: str, *, days: int = 1) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail sink")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=3))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path, both = folder / f"{address}-{days}.pem", folder / f"{address}-{days}-key.pem"
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    both.write_bytes(private + path.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return Certificate(path, context)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")


def server_for(sink: SmtpServer, security: str, ca_file: Path | None = None, **more: str) -> Server:
    return Server(
        host="127.0.0.1", port=sink.port, security=security, ca_file=str(ca_file) if ca_file else None,
        connect_seconds=5, command_seconds=5, answer_seconds=5, **more,
    )  # fmt: skip


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_message_goes_over_an_encrypted_line(good: Certificate, security: str) -> None:
    script = Script(offers=("STARTTLS", "PIPELINING"))
    with SmtpServer(script, tls=good.server, implicit_tls=security == "tls") as sink:
        channel = SmtpEmail(server_for(sink, security, good.path))
        results = list(channel.deliver([outgoing(1), outgoing(2)], NotingWatch()))
        channel.close()
    assert [result.verdict for result in results] == [Verdict.SENT, Verdict.SENT]
    assert sink.commands.count("STARTTLS") == (1 if security == "starttls" else 0)
    assert sum(command.startswith("EHLO") for command in sink.commands) == (2 if security == "starttls" else 1)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_nobody_vouches_for_is_refused(good: Certificate, security: str) -> None:
    with SmtpServer(Script(offers=("STARTTLS",)), tls=good.server, implicit_tls=security == "tls") as sink:
        with pytest.raises(ProviderUnavailable, match=r"over TLS: .*self.signed"):
            open_session(server_for(sink, security))
        assert not any(command.startswith("MAIL") for command in sink.commands)


@pytest.mark.parametrize(("address", "days"), [("127.0.0.2", 1), ("127.0.0.1", -1)], ids=["other name", "expired"])
def test_a_wrong_certificate_is_refused(tmp_path: Path, address: str, days: int) -> None:
    wrong = certificate(tmp_path, address, days=days)
    with (
        SmtpServer(Script(), tls=wrong.server, implicit_tls=True) as sink,
        pytest.raises(ProviderUnavailable, match="over TLS"),
    ):
        open_session(server_for(sink, "tls", wrong.path))


def test_a_server_that_hides_starttls_gets_nothing() -> None:
    with SmtpServer(Script(offers=("PIPELINING",))) as sink:
        with pytest.raises(ProviderUnavailable, match="does not offer STARTTLS"):
            open_session(server_for(sink, "starttls", username="u", password="p"))
        assert all(command.startswith("EHLO") for command in sink.commands)


def test_words_spoken_before_the_encryption_are_not_believed(good: Certificate) -> None:
    script = Script(offers=("STARTTLS",), starttls="220 go\r\n250 injected before the handshake")
    with (
        SmtpServer(script, tls=good.server) as sink,
        pytest.raises(ProviderUnavailable, match="tampered"),
    ):
        open_session(server_for(sink, "starttls", good.path))


@pytest.mark.parametrize("methods", ["PLAIN LOGIN", "LOGIN"])
def test_sign_in(methods: str) -> None:
    with SmtpServer(Script(offers=(f"AUTH {methods}",))) as sink:
        open_session(server_for(sink, "none", username="päul", password="s3cret pass")).quit()
    said = [command for command in sink.commands if not command.startswith(("EHLO", "QUIT"))]
    if methods == "LOGIN":
        assert said == ["AUTH LOGIN", *(base64.b64encode(t.encode()).decode() for t in ("päul", "s3cret pass"))]
    else:
        assert said == ["AUTH PLAIN " + base64.b64encode("\0päul\0s3cret pass".encode()).decode()]


@pytest.mark.parametrize(
    ("script", "error", "word"),
    [
        (Script(offers=("AUTH PLAIN",), auth="535 5.7.8 wrong"), Misconfigured, "MAUTO_SMTP_USERNAME"),
        (Script(offers=("AUTH PLAIN",), auth="454 4.7.0 later"), ProviderUnavailable, "454"),
        (Script(offers=("AUTH LOGIN",), auth="535 5.7.8 wrong"), Misconfigured, "535"),
        (Script(offers=("AUTH CRAM-MD5",)), Misconfigured, "no sign-in"),
        (Script(offers=()), Misconfigured, "no sign-in"),
    ],
)  # fmt: skip
def test_a_refused_sign_in_says_whether_a_setting_must_change(script: Script, error: type, word: str) -> None:
    with SmtpServer(script) as sink, pytest.raises(error, match=word) as caught:
        open_session(server_for(sink, "none", username="user", password="hunter2hunter2"))
    assert "hunter2" not in str(caught.value)


def test_a_password_never_travels_unencrypted_to_another_machine() -> None:
    class Elsewhere(str):
        """A name that stands for this machine only in the test."""

    with SmtpServer(Script(offers=("AUTH PLAIN",))) as sink:
        session = open_session(server_for(sink, "none"))
        object.__setattr__(session.server, "host", Elsewhere("mail.shop.example"))
        object.__setattr__(session.server, "username", "user")
        with pytest.raises(Misconfigured, match="unencrypted"):
            session.sign_in()
        session.drop()
    assert not any("AUTH" in command for command in sink.commands)


def test_a_server_without_extensions_is_greeted_with_helo() -> None:
    with SmtpServer(Script(ehlo="502 5.5.1 what?")) as sink:
        channel = SmtpEmail(server_for(sink, "none"))
        (result,) = channel.deliver([outgoing()], NotingWatch())
        channel.close()
    assert result.verdict is Verdict.SENT
    assert [command.split(" ")[0] for command in sink.commands[:3]] == ["EHLO", "HELO", "MAIL"]


def settings(**changes: object) -> Settings:
    return Settings(**{"smtp_host": "127.0.0.1", **changes})  # type: ignore[arg-type]


def test_settings_that_cannot_work_are_named() -> None:
    with pytest.raises(Misconfigured, match="MAUTO_SMTP_SECURITY"):
        SmtpEmail.from_settings(settings(smtp_security="ssl"))


@pytest.mark.parametrize("host", ["mail.shop.example", "10.0.0.5", "192.0.2.1", "127.0.0.1.nip.example", "0.0.0.0"])
def test_the_demo_sends_to_this_machine_only(host: str) -> None:
    with pytest.raises(Misconfigured, match="demo"):
        SmtpEmail.from_settings(settings(demo=True, smtp_host=host))


@pytest.mark.parametrize("recipient", ["a@gmail.com", "a@example.com.evil.io", "a@myexample.com", "a@test.de"])
def test_the_demo_writes_to_reserved_domains_only(recipient: str) -> None:
    with SmtpServer(Script()) as sink:
        channel = SmtpEmail.from_settings(settings(demo=True, smtp_port=sink.port))
        results = list(channel.deliver([outgoing(1, recipient), outgoing(2, "b@shop.example")], NotingWatch()))
        channel.close()
    assert [result.verdict for result in results] == [Verdict.FAILED, Verdict.SENT]
    assert [message.recipient for message in sink.accepted] == ["b@shop.example"]
