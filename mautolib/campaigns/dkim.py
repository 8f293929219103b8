"""DKIM (RFC 6376, RFC 8463): a signature over what a mail says and from whom, made here so that no relay needs our key.

Promise: From, Reply-To, Subject, To, Date, Message-ID, the MIME headers and both List-Unsubscribe headers are signed,
and signed once more than they occur, so that adding another one breaks the signature; the whole body is signed. RSA
and Ed25519, relaxed headers, simple body (ours is quoted-printable, which no relay reflows). Called by `building`;
proved against an independent verifier.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from mautolib.contacts.address import domain_name
from mautolib.errors import Misconfigured
from mautolib.settings import Settings, variable

#: What is signed where it occurs, and once more; the absence of one is signed too.
HEADERS: Final = (
    "from", "reply-to", "subject", "to", "cc", "date", "message-id", "mime-version", "content-type",
    "content-transfer-encoding", "list-unsubscribe", "list-unsubscribe-post",
)  # fmt: skip
MINIMUM_RSA_BITS: Final = 2048
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_SELECTOR: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_BLANKS: Final = re.compile(rb"[ \t]+")
_LINE: Final = 70


class DkimSigner:
    """Signs for one domain with one key; safe to share between threads."""

    def __init__(self, domain: str, selector: str, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> None:
        """`key` belongs to the public key in the DNS under <selector>._domainkey.<domain>."""
        self.domain = domain
        self._sign, algorithm = _signing(key)
        names = _folded(":".join(name for name in HEADERS for _ in range(2)))
        self._start = f"v=1; a={algorithm}; c=relaxed/simple; d={domain};\r\n s={selector}; t="
        self._middle = f";\r\n h={names};\r\n bh="

    @classmethod
    def from_settings(cls, settings: Settings) -> DkimSigner | None:
        """The signer of this installation; None where no key is set.

        Raises:
            Misconfigured: names the setting that is missing or cannot be used.
        """
        given = {
            "dkim_domain": settings.dkim_domain, "dkim_selector": settings.dkim_selector,
            "dkim_key_file": settings.dkim_key_file,
        }  # fmt: skip
        if not any(given.values()):
            return None
        for name, value in given.items():
            if not value:
                raise Misconfigured(f"{variable(name)} is not set; DKIM needs domain, selector and key file")
        domain = domain_name(settings.dkim_domain)
        if domain is None:
            raise Misconfigured(f"{variable('dkim_domain')} is no domain")
        if not _SELECTOR.fullmatch(settings.dkim_selector) or len(settings.dkim_selector) > 63:
            raise Misconfigured(f"{variable('dkim_selector')} is no selector (letters, digits, dots and hyphens)")
        return cls(domain, settings.dkim_selector, _read_key(Path(settings.dkim_key_file)))

    def header(self, data: bytes, made_at: datetime) -> bytes:
        """The DKIM-Signature header of a finished message (CRLF line ends), to be put before it."""
        head, _, body = data.partition(b"\r\n\r\n")
        fields = _fields(head)
        value = f"{self._start}{int(made_at.timestamp())}{self._middle}{_body_hash(body)};\r\n b="
        signed: list[bytes] = []
        for name in map(str.encode, HEADERS):
            if name in fields:
                signed.append(name + b":" + fields[name] + b"\r\n")
        signed.append(b"dkim-signature:" + _relaxed(value.encode("ascii")))
        signature = b64encode(self._sign(b"".join(signed))).decode("ascii")
        lines = [signature[at : at + _LINE] for at in range(0, len(signature), _LINE)]
        folded = "\r\n ".join(lines)
        return f"DKIM-Signature: {value}{folded}\r\n".encode("ascii")


def _fields(head: bytes) -> dict[bytes, bytes]:
    """The header's fields by lower-case name, relaxed (RFC 6376 3.4.2)."""
    found: dict[bytes, bytes] = {}
    for line in head.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n"):
        name, _, value = line.partition(b":")
        found[name.rstrip().lower()] = _relaxed(value)
    return found


def _relaxed(value: bytes) -> bytes:
    return _BLANKS.sub(b" ", value.replace(b"\r\n", b"")).strip()


def _body_hash(body: bytes) -> str:
    """Simple canonicalization (RFC 6376 3.4.3): one line end at the end."""
    return b64encode(hashlib.sha256(body.rstrip(b"\r\n") + b"\r\n").digest()).decode("ascii")


def _folded(names: str) -> str:
    """The list of names on lines of its own."""
    lines = [""]
    for name in names.split(":"):
        if len(lines[-1]) + len(name) > _LINE:
            lines.append("")
        lines[-1] += f"{name}:"
    return "\r\n ".join(lines)[:-1]


def _signing(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> tuple[Callable[[bytes], bytes], str]:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        # RFC 8463: what is signed is the SHA-256 of the headers.
        return lambda headers: key.sign(hashlib.sha256(headers).digest()), "ed25519-sha256"
    return lambda headers: key.sign(headers, padding.PKCS1v15(), hashes.SHA256()), "rsa-sha256"


def _read_key(path: Path) -> rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    setting = variable("dkim_key_file")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise Misconfigured(f"{setting} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Misconfigured(f"{setting} holds no private key in PEM without a password") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < MINIMUM_RSA_BITS:
        raise Misconfigured(f"{setting} holds an RSA key of {key.key_size} bits; use {MINIMUM_RSA_BITS} or more")
    if not isinstance(key, (rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise Misconfigured(f"{setting} must hold an RSA or Ed25519 key")
    return key
