"""One attempt: a signed request to a checked address, and what came of it within its time.

Promise: it always ends in a `Reply`, within 20 s, having read at most 64 KB, whatever the receiver does; redirects are
answers, and nothing is unpacked beyond what is kept. Called by delivery and testing; whom to deliver to and what is
recorded is theirs.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import aiohttp

from mautolib.errors import Conflict, MautoError
from mautolib.webhooks.connecting import Gate
from mautolib.webhooks.guard import MAX_BYTES
from mautolib.webhooks.model import KEPT_BYTES, InHand, Receiver, Reply
from mautolib.webhooks.signing import signature_of_body, standard_signature
from mautolib.webhooks.waits import retry_after

_LOG = logging.getLogger(__name__)
ANSWER_SECONDS: Final = 10.0
TOTAL_SECONDS: Final = 20.0
_LONGEST_ERROR: Final = 300


def headers_of(delivery: InHand, body: bytes, secrets: tuple[str, ...], now: datetime) -> dict[str, str]:
    """The headers of one attempt; `secrets` newest first, none: unsigned."""
    timestamp = int(now.timestamp())
    headers = {
        "Content-Type": "application/json", "User-Agent": "mauto-webhooks", "Accept-Encoding": "identity",
        "X-Webhook-Event": delivery.event_type, "X-Webhook-Delivery-Attempt": str(delivery.attempt + 1),
        "webhook-id": delivery.message_id, "webhook-timestamp": str(timestamp),
    }  # fmt: skip
    if secrets:
        headers["X-Webhook-Signature-256"] = signature_of_body(secrets[0], body)
        headers["webhook-signature"] = standard_signature(secrets, delivery.message_id, timestamp, body)
    return headers


async def attempt(
    session: aiohttp.ClientSession, gate: Gate, receiver: Receiver, delivery: InHand, now: datetime, *,
    keeps_open: bool = True,
) -> Reply:  # fmt: skip
    """Make one attempt.

    Args:
        now: the moment of the attempt; signed, and what a date in `Retry-After` is compared with.
        keeps_open: keep the connection for the next one.
    """
    begun = time.monotonic()
    if receiver.is_signed and not receiver.secrets:
        return Reply(0, 0, "The secret was sealed with a key that is no longer in use")
    body = delivery.body.encode()
    try:
        return await _ask(session, gate, receiver, delivery, body, now, begun, keeps_open)
    except TimeoutError:
        error = f"No answer within {ANSWER_SECONDS:.0f} s"
    except (ssl.SSLError, aiohttp.ClientSSLError) as failed:
        error = f"TLS: {_words(failed)}"
    except (aiohttp.ClientError, OSError, MautoError) as failed:
        error = _words(failed)
    except Exception as failed:  # noqa: BLE001 - see below
        # A receiver must not be able to end the run, whatever it makes the library do.
        _LOG.exception("an attempt of %s ended in a way that is not foreseen", delivery.message_id)
        error = type(failed).__name__
    return Reply(0, _elapsed(begun), error)


async def _ask(
    session: aiohttp.ClientSession, gate: Gate, receiver: Receiver, delivery: InHand, body: bytes, now: datetime,
    begun: float, keeps_open: bool,
) -> Reply:  # fmt: skip
    headers = headers_of(delivery, body, receiver.secrets, now)
    if not keeps_open:
        headers["Connection"] = "close"
    async with asyncio.timeout(ANSWER_SECONDS):
        url = await gate.check(receiver.url)
        response = await session.post(url, data=body, headers=headers, allow_redirects=False)
    try:
        text = await _read(response, begun + TOTAL_SECONDS)
    finally:
        # Keeps the connection if all was read, ends it if not.
        response.close() if not response.content.at_eof() else response.release()
    status = response.status
    error = None if 200 <= status < 300 else _said(status)
    return Reply(
        status, _elapsed(begun), error, _kept(text, response.headers),
        None if error is None else retry_after(response.headers.get("Retry-After"), now),
    )  # fmt: skip


async def _read(response: aiohttp.ClientResponse, ends_at: float) -> bytes:
    """The beginning of the answer as it came; what is said after the status never changes what it meant."""
    if response.content.at_eof():
        return b""
    found = bytearray()
    try:
        async with asyncio.timeout(max(0.0, ends_at - time.monotonic())):
            while len(found) < MAX_BYTES and (part := await response.content.readany()):
                found += part
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        _LOG.info("an answer broke off: %s", type(error).__name__)
    return bytes(found[:MAX_BYTES])


def _kept(raw: bytes, headers: Mapping[str, str]) -> str | None:
    """What the log keeps of an answer: at most 1 KB of text."""
    if not raw:
        return None
    if headers.get("Content-Encoding", "").strip().lower() in ("gzip", "deflate"):
        try:
            raw = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(raw, KEPT_BYTES)
        except zlib.error:
            return None
    text = raw[:KEPT_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd")
    return text.encode()[:KEPT_BYTES].decode("utf-8", "ignore")


def _said(status: int) -> str:
    if 300 <= status < 400:
        return f"Answered {status}; redirects are not followed"
    return f"Answered {status}"


def _words(error: Exception) -> str:
    """What went wrong, in a line: no addresses of this network, no text of the receiver."""
    if isinstance(error, MautoError) and not isinstance(error, Conflict):
        return str(error)[:_LONGEST_ERROR]
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the certificate was not accepted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"No connection ({type(error.os_error).__name__})"
    return f"No answer that can be understood ({type(error).__name__})"


def _elapsed(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
