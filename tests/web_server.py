"""Servers on loopback for what fetches: a function answers each connection, over TLS from an authority of ours."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(kw_only=True)
class WebServer:
    """Where it listens, and the first bytes of each request it got."""

    port: int
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def serve_web(answer: Callable[[socket.socket, bytes], None], tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """Run a server whose connections are handed to `answer` with the head of the request."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = WebServer(port=listening.getsockname()[1])

    def one(raw: socket.socket) -> None:
        # Whoever is cut off in the middle has done its job.
        with suppress(OSError), raw:
            connection = tls.wrap_socket(raw, server_side=True) if tls else raw
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (part := connection.recv(65536)):
                    head += part
                server.requests.append(head)
                answer(connection, head)

    def run() -> None:
        while True:
            try:
                raw, _ = listening.accept()
            except OSError:
                return
            raw.settimeout(30)
            threading.Thread(target=one, args=(raw,), daemon=True).start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def says(status: str, body: bytes = b"", *headers: str) -> Callable[[socket.socket, bytes], None]:
    """An answer that is always the same."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return answer


class Authority:
    """An authority of our own, with certificates for any name."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._folder, self._name = folder, _name("Test authority")
        self._number = 0
        self.certificate = self._made(self._name, self._key, authority=True)
        self.path = folder / "authority.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def trusted(self) -> ssl.SSLContext:
        """What a client that trusts this authority, and no other, uses."""
        return ssl.create_default_context(cafile=str(self.path))

    def for_server(self, host: str) -> ssl.SSLContext:
        """What a server called `host` uses."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._made(_name(host), key, host=host)
        self._number += 1
        path = self._folder / f"server{self._number}.pem"
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private_pem(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _made(self, subject: x509.Name, key: Key, *, host: str = "", authority: bool = False) -> x509.Certificate:
        builder = _builder(subject, self._name, key).add_extension(
            x509.BasicConstraints(ca=authority, path_length=None), critical=True
        )
        if host:
            names: list[x509.GeneralName] = [x509.DNSName(host)]
            with suppress(ValueError):
                names = [x509.IPAddress(ipaddress.ip_address(host))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(own, critical=False)
        else:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def self_signed(key: Key, subject: str, *, days: int = 30, since_days: int = 1) -> bytes:
    """The PEM of a certificate signed by its own key."""
    name = _name(subject)
    made = _builder(name, name, key, days=days, since_days=since_days).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def private_pem(key: Key) -> bytes:
    """A private key as PEM, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, *, days: int = 30, since_days: int = 1
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    since = now - datetime.timedelta(days=since_days)
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(since)
        .not_valid_after(since + datetime.timedelta(days=days))
    )  # fmt: skip
