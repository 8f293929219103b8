"""Sealing: what must be shown again but not be readable in the database or a backup of it.

Fernet (AES-128-CBC and HMAC-SHA256) with keys of the ring: the newest seals, all open. Called by the API for kept
answers that show a secret, and by webhooks for theirs.
"""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from mautolib.errors import Conflict
from mautolib.settings import Settings


def seal(settings: Settings, purpose: str, plain: bytes) -> bytes:
    """Encrypt; only the same purpose opens it."""
    return _box(settings, purpose).encrypt(plain)


def unseal(settings: Settings, purpose: str, sealed: bytes) -> bytes:
    """Decrypt.

    Raises:
        Conflict: made with a key that is no longer in the ring, or not made by `seal`.
    """
    try:
        return _box(settings, purpose).decrypt(sealed)
    except InvalidToken:
        raise Conflict("This was sealed with a key that is no longer in use") from None


def place_of_key(settings: Settings, purpose: str, sealed: bytes) -> int | None:
    """Which key of the ring opens it: 0 the newest; None: none of them."""
    for place, box in enumerate(_boxes(settings, purpose)):
        try:
            box.decrypt(sealed)
        except InvalidToken:
            continue
        return place
    return None


def _box(settings: Settings, purpose: str) -> MultiFernet:
    return MultiFernet(_boxes(settings, purpose))


def _boxes(settings: Settings, purpose: str) -> list[Fernet]:
    return [Fernet(base64.urlsafe_b64encode(key)) for key in settings.keys(f"seal/{purpose}")]
