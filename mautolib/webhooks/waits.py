"""When a delivery is tried again: ten attempts over three days, spread a little, and never before the receiver wants.

Promise: the same delivery and attempt always give the same wait, so nothing here draws lots. Pure functions of their
arguments. Called by recording.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
#: Between an attempt and the next one; the first is made at once.
WAITS: Final = (
    _MINUTE, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR,
)  # fmt: skip
MOST_ATTEMPTS: Final = len(WAITS) + 1
SPREAD: Final = 0.2
MOST_RETRY_AFTER: Final = timedelta(hours=24)


def wait_after(attempts_made: int, message_id: str, *, retry_after_seconds: float | None = None) -> timedelta | None:
    """How long to wait after an attempt that failed; None: it was the last one.

    Args:
        attempts_made: since the delivery was made or replayed, this one included.
        retry_after_seconds: what the receiver asked for; a shorter time than the schedule's changes nothing.
    """
    if attempts_made > len(WAITS):
        return None
    wait = WAITS[attempts_made - 1] * (1 + SPREAD * _lot(message_id, attempts_made))
    asked = timedelta(seconds=retry_after_seconds or 0)
    return max(wait, min(asked, MOST_RETRY_AFTER))


def retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds a `Retry-After` header asks for, at most a day; None: it says nothing that can be understood."""
    most = MOST_RETRY_AFTER.total_seconds()
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return most if len(text) > 9 else min(float(text), most)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), most)


def _lot(message_id: str, attempt: int) -> float:
    """A number from -1 to 1 that belongs to this attempt."""
    drawn = int.from_bytes(hashlib.sha256(f"{message_id}:{attempt}".encode()).digest()[:4])
    return drawn / 0xFFFF_FFFF * 2 - 1
