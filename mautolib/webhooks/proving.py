"""Who sent this? The signatures of inbound sources: each platform's own, over the bytes that arrived.

Promise: compared in constant time, before a byte of the body is parsed; a header given twice, or in another alphabet,
proves nothing. Only Standard Webhooks signs its time, so only there is it checked (5 minutes either way). Pure
functions; called by `arriving`.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from mautolib.errors import NotAllowed
from mautolib.webhooks.signing import key_of, signature_of_body

__all__ = ["HEADERS", "TOLERANCE_SECONDS", "SourceKind", "check_signature"]

TOLERANCE_SECONDS: Final = 300
_LONGEST_ID, _MOST_SIGNATURES = 200, 20


class SourceKind(StrEnum):
    """How a source signs, and what its bodies look like."""

    GENERIC = "generic"
    STANDARD_WEBHOOKS = "standard_webhooks"
    SHOPIFY = "shopify"
    WOOCOMMERCE = "woocommerce"


#: The header with the signature of each kind.
HEADERS: Final[Mapping[SourceKind, str]] = {
    SourceKind.GENERIC: "x-signature-256",
    SourceKind.STANDARD_WEBHOOKS: "webhook-signature",
    SourceKind.SHOPIFY: "x-shopify-hmac-sha256",
    SourceKind.WOOCOMMERCE: "x-wc-webhook-signature",
}


def check_signature(
    kind: SourceKind, secret: str, headers: Mapping[str, Sequence[str]], body: bytes, *, now: datetime
) -> None:
    """Make sure that whoever knows the secret sent this very body.

    Args:
        headers: all values of each, names in lower case.
    Raises:
        NotAllowed: `bad_signature`; does not say what is wrong with it.
    """
    given = _only(headers, HEADERS[kind])
    match kind:
        case SourceKind.GENERIC:
            is_proven = _is_hex_of(secret, body, given)
        case SourceKind.STANDARD_WEBHOOKS:
            is_proven = _is_standard(secret, headers, body, given, now)
        case _:
            wanted = base64.b64encode(hmac.digest(secret.encode(), body, "sha256"))
            is_proven = hmac.compare_digest(wanted, given.encode())
    if not is_proven:
        raise NotAllowed("The signature does not fit", code="bad_signature")


def _only(headers: Mapping[str, Sequence[str]], name: str) -> str:
    """A header given once; everything else is as good as none."""
    values = headers.get(name, ())
    return values[0] if len(values) == 1 else ""


def _is_hex_of(secret: str, body: bytes, given: str) -> bool:
    return hmac.compare_digest(signature_of_body(secret, body).encode(), given.lower().encode())


def _is_standard(
    secret: str, headers: Mapping[str, Sequence[str]], body: bytes, given: str, now: datetime
) -> bool:
    message_id, written = _only(headers, "webhook-id"), _only(headers, "webhook-timestamp")
    if not 1 <= len(message_id) <= _LONGEST_ID or not message_id.isascii() or not message_id.isprintable():
        return False
    if not (written.isascii() and written.isdecimal() and len(written) <= 12):
        return False
    if abs(now.timestamp() - int(written)) > TOLERANCE_SECONDS:
        return False
    signed = b"%s.%s.%s" % (message_id.encode(), written.encode(), body)
    wanted = base64.b64encode(hmac.digest(key_of(secret), signed, "sha256"))
    # Several while a secret is being replaced; each is compared, whichever fits.
    offered = [one.removeprefix("v1,") for one in given.split(" ")[:_MOST_SIGNATURES] if one.startswith("v1,")]
    return any(hmac.compare_digest(wanted, one.encode()) for one in offered)
