"""Secrets of endpoints: made, sealed in the database, opened for signing, replaced.

Promise: a secret is readable only with the key ring; after a rotation the previous one signs along for 24 hours.
Called by the API (making, rotating) and by delivery (opening).
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime

from sqlalchemy import Connection

from mautolib.auth.sealing import seal, unseal
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound
from mautolib.settings import Settings
from mautolib.webhooks.model import ROTATION
from mautolib.webhooks.signing import PREFIX

LONGEST_SECRET = 200
#: What the keys of sealed secrets are made for.
PURPOSE = "webhook"


def new_secret() -> str:
    """A secret of 24 random bytes, as the Standard Webhooks libraries take it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(24)).decode()


def check_secret(secret: str) -> str:
    """A secret somebody else chose, unchanged: 1 to 200 characters, and something to guess.

    Raises:
        InvalidInput: it is empty, too long, blank, or only the prefix of a secret.
    """
    if not 1 <= len(secret) <= LONGEST_SECRET:
        raise InvalidInput(f"A secret has 1 to {LONGEST_SECRET} characters", path=("body", "secret"))
    if not secret.strip() or secret == PREFIX:
        raise InvalidInput("A secret is more than blanks and a prefix", path=("body", "secret"))
    return secret


def seal_secret(settings: Settings, secret: str) -> bytes:
    """What is stored of a secret."""
    return seal(settings, PURPOSE, secret.encode())


def open_secret(settings: Settings, sealed: bytes) -> str:
    """The secret that was stored.

    Raises:
        Conflict: sealed with a key that is no longer in the ring.
    """
    return unseal(settings, PURPOSE, bytes(sealed)).decode()


def rotate_secret(
    tx: Connection, settings: Settings, endpoint_id: int, *, secret: str | None, now: datetime
) -> tuple[str, datetime]:
    """Replace the secret of an endpoint; returns the new one and until when the present one signs along.

    Args:
        secret: the new one; None: one is made.
    Raises:
        NotFound: no such endpoint.
    """
    chosen, until = secret or new_secret(), now + ROTATION
    changed = tx.execute(
        statement("webhooks.rotate_secret"),
        {"endpoint_id": endpoint_id, "sealed": seal_secret(settings, chosen), "until": until},
    )
    if not changed.rowcount:
        raise NotFound("Webhook not found")
    return chosen, until
