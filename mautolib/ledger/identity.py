"""The Message-ID of a message: a keyed hash of its dedupe key, the same on every attempt, telling nothing.

Promise: one intention has one Message-ID, whatever machine or attempt hands it over, and key rotation does not
change it. The hash is made in SQL when a message is first claimed; here are its keys. Used by the claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from mautolib.settings import Settings

_BLOCK = 64
#: Tags a channel puts on a message for a provider that tells them again; values are the decimal ids.
MESSAGE_TAG: Final = "mauto_message"
ATTEMPT_TAG: Final = "mauto_attempt"


@dataclass(frozen=True, kw_only=True)
class MessageIdentity:
    """The two padded keys of HMAC-SHA256 (RFC 2104) and the domain behind the @."""

    inner_key: bytes
    outer_key: bytes
    domain: str


def message_identity(settings: Settings) -> MessageIdentity:
    """The identity of all messages of this installation.

    Raises:
        Misconfigured: the suppression pepper is missing or weak.
    """
    key = settings.pepper("message-id").ljust(_BLOCK, b"\0")
    return MessageIdentity(
        inner_key=bytes(byte ^ 0x36 for byte in key),
        outer_key=bytes(byte ^ 0x5C for byte in key),
        domain=_domain(settings),
    )


def _domain(settings: Settings) -> str:
    """The sender's domain, else the host of the links in mail; always a plain ASCII name."""
    _, _, domain = settings.default_from_email.rpartition("@")
    host = domain or urlsplit(settings.public_base_url).hostname or ""
    try:
        host = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        host = ""
    return host if host and all(part.replace("-", "").isalnum() for part in host.split(".")) else "localhost"
