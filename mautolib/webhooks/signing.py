"""Signing: what a receiver checks to know that a webhook is ours and unchanged.

Promise: the bytes signed are the bytes sent. Two schemes at once: `X-Webhook-Signature-256` over the body by the newest
secret, and Standard Webhooks over id, time and body by every secret still valid. Pure functions; secrets come unsealed
from `secrets`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

PREFIX: Final = "whsec_"
_BLOCK: Final = 64


def key_of(secret: str) -> bytes:
    """The key of the Standard Webhooks signature: the part after `whsec_` decoded, else the secret's bytes."""
    if secret.startswith(PREFIX):
        part = secret.removeprefix(PREFIX)
        try:
            found = base64.b64decode(part + "=" * (-len(part) % 4), validate=True)
        except (binascii.Error, ValueError):
            found = b""
        if found:
            return found
    return secret.encode()


def signature_of_body(secret: str, body: bytes) -> str:
    """The value of `X-Webhook-Signature-256`."""
    return f"sha256={_keyed(secret.encode()).digest(body).hex()}"


def standard_signature(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each secret, separated by a blank.

    Args:
        timestamp: of the attempt, in whole seconds since 1970; sent as `webhook-timestamp`.
    """
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join(["v1," + base64.b64encode(_keyed(key_of(secret)).digest(signed)).decode() for secret in secrets])


class _Keyed:
    """HMAC-SHA256 (RFC 2104) of many texts under one key: the key is worked in once."""

    def __init__(self, key: bytes) -> None:
        block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in block))
        self._outer = hashlib.sha256(bytes(octet ^ 0x5C for octet in block))

    def digest(self, text: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.digest()


@lru_cache(maxsize=1024)
def _keyed(key: bytes) -> _Keyed:
    return _Keyed(key)
