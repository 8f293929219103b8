"""The return path of a message (VERP): where its bounces come back to, and which message they are about.

Promise: the local part `bounces+<48 hex digits>` (56 octets of the 64 allowed) names one message and one attempt,
tells nothing to anybody else, and cannot be made without our keys. It survives being written in capitals and the
prefixes that mail servers add (BATV, SRS). Every key of the ring reads, only the newest makes. Called by message
building and by the reading of bounces; it knows nothing of either.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, NamedTuple

from mautolib.settings import Settings

PREFIX: Final = "bounces"
_TOKEN: Final = re.compile(rf"(?:^|[^a-z0-9]){PREFIX}\+([0-9a-f]{{48}})(?:[@=>]|$)", re.IGNORECASE)
_TAG, _IDS = 10, 14
_MAX_MESSAGE, _MAX_ATTEMPT = (1 << 63) - 1, (1 << 48) - 1


class Returned(NamedTuple):
    """What a return path names."""

    message_id: int
    attempt_id: int


class ReturnPaths:
    """Makes and reads return paths; safe to share between threads.

    The tag is a keyed hash of both ids, and the ids are hidden by a keyed hash of the tag (RFC 5297's idea).
    """

    def __init__(self, tag_keys: tuple[bytes, ...], pad_keys: tuple[bytes, ...]) -> None:
        """Args:
        tag_keys, pad_keys: 32 bytes each, newest first, equally many.
        """
        self._rings = [
            (hashlib.blake2b(key=tag, digest_size=_TAG), hashlib.blake2b(key=pad, digest_size=_IDS))
            for tag, pad in zip(tag_keys, pad_keys, strict=True)
        ]

    @classmethod
    def from_settings(cls, settings: Settings) -> ReturnPaths:
        """The return paths of this installation.

        Raises:
            Misconfigured: the key ring is missing or weak.
        """
        return cls(settings.keys("verp-tag"), settings.keys("verp-pad"))

    def make(self, message_id: int, attempt_id: int = 0) -> str:
        """The local part of the return path of one attempt to send a message."""
        ids = message_id << 48 | attempt_id & _MAX_ATTEMPT
        keyed, padding = self._rings[0]
        hasher = keyed.copy()
        hasher.update(ids.to_bytes(_IDS, "big"))
        tag = hasher.digest()
        pad = padding.copy()
        pad.update(tag)
        hidden = ids ^ int.from_bytes(pad.digest(), "big")
        return f"{PREFIX}+{tag.hex()}{hidden:028x}"

    def read(self, address: str) -> Returned | None:
        """What an address that a bounce came to names; None when it was not made here."""
        found = _TOKEN.search(address) if len(address) <= 1000 else None
        if found is None:
            return None
        raw = bytes.fromhex(found[1])
        tag, hidden = raw[:_TAG], int.from_bytes(raw[_TAG:], "big")
        for keyed, padding in self._rings:
            pad = padding.copy()
            pad.update(tag)
            ids = hidden ^ int.from_bytes(pad.digest(), "big")
            hasher = keyed.copy()
            hasher.update(ids.to_bytes(_IDS, "big"))
            if hmac.compare_digest(hasher.digest(), tag):
                message_id = ids >> 48
                return Returned(message_id, ids & _MAX_ATTEMPT) if message_id <= _MAX_MESSAGE else None
        return None


def make(settings: Settings, message_id: int, attempt_id: int = 0) -> str:
    """One local part; `ReturnPaths` is the faster way to many."""
    return ReturnPaths.from_settings(settings).make(message_id, attempt_id)


def read(settings: Settings, address: str) -> int | None:
    """The message an address that a bounce came to belongs to; None when it was not made here."""
    found = ReturnPaths.from_settings(settings).read(address)
    return None if found is None else found.message_id
