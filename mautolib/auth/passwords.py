"""Passwords: argon2id, and the same time for a known and an unknown user.

Guards that hashing cannot be used to exhaust memory: at most `CONCURRENT_HASHES` run at once in a process, each
with 19 MiB (OWASP's minimum of m=19 MiB, t=2, p=1; about 40 ms). Called by users and sessions; limits on the
number of attempts are in `attempts`.
"""

from __future__ import annotations

import threading
from functools import cache

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from mautolib.errors import InvalidInput

MINIMUM_CHARACTERS = 10
MAXIMUM_CHARACTERS = 128
CONCURRENT_HASHES = 4

_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)
_SLOTS = threading.BoundedSemaphore(CONCURRENT_HASHES)


def check_new(password: str, *, path: tuple[str | int, ...] = ("body", "password")) -> None:
    """Refuse a password nobody should have.

    Raises:
        InvalidInput: shorter than 10 or longer than 128 characters, or not storable text.
    """
    if not MINIMUM_CHARACTERS <= len(password) <= MAXIMUM_CHARACTERS:
        message = f"A password has {MINIMUM_CHARACTERS} to {MAXIMUM_CHARACTERS} characters"
        raise InvalidInput(message, path=path)
    if "\0" in password or not _is_unicode(password):
        raise InvalidInput("A password is text without NUL", path=path)


def hash_new(password: str, *, path: tuple[str | int, ...] = ("body", "password")) -> str:
    """The hash of a password somebody chose.

    Raises:
        InvalidInput: as `check_new`.
    """
    check_new(password, path=path)
    return hash_password(password)


def hash_password(password: str) -> str:
    """The argon2id hash to store; the whole password counts, nothing is cut off."""
    with _SLOTS:
        return _HASHER.hash(password)


def verify(stored: str | None, password: str) -> bool:
    """Whether `password` belongs to `stored`; `None` (no such user) takes as long and is never right."""
    if not _is_unicode(password):
        password, stored = "", None
    with _SLOTS:
        try:
            right = _HASHER.verify(stored or _nobodys_hash(), password)
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False
    return right and stored is not None


def needs_rehash(stored: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(stored)


@cache
def _nobodys_hash() -> str:
    return _HASHER.hash("a password that belongs to nobody")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
