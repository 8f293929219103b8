"""Signing: what a receiver checks to know that a webhook is ours and unchanged.

Promise: the bytes signed are the bytes sent. Two schemes at once: `X-Webhook-Signature-256` over the body by the newest
secret, and Standard Webhooks over id, time and body by every secret still valid. Pure functions; secrets come unsealed
from `secrets`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"


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
    return f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}"


def standard_signature(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each secret, separated by a blank.

    Args:
        timestamp: of the attempt, in whole seconds since 1970; sent as `webhook-timestamp`.
    """
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, "sha256")).decode() for secret in secrets
    )
