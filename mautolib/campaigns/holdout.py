"""The global hold-out: a share of contacts that gets no marketing mail, so that one sees what mail is worth.

Promise: which contacts is decided by a hash of salt and contact id alone; under one salt a larger share keeps everybody
who was held out before. The open period in the database is what holds, for all processes at once: the view
`contact_mailability` refuses them (`global_holdout`), at planning and at every claim. Past periods are kept. Mail that
is no marketing is not concerned. Called by the command line and the report (`analytics.incrementality`).
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.errors import InvalidInput

__all__ = ["DRAWS", "MOST_PERCENT", "Period", "draw", "hold_out", "periods"]

#: Numbers a draw can give: 13 hexadecimal digits.
DRAWS: Final = 16**13
MOST_PERCENT: Final = 50
_CENT: Final = Decimal("0.01")


@dataclass(frozen=True, kw_only=True)
class Period:
    """A time of one share: contacts with a draw below `bound` were held out; `ended_at` None: they are."""

    period_id: int
    salt: str
    percent: Decimal
    bound: int
    begun_at: datetime
    ended_at: datetime | None
    changed_by: str


def draw(salt: str, contact_id: int) -> int:
    """The draw of a contact, from 0 to DRAWS - 1: what the SQL function `holdout_draw` gives."""
    return int(hashlib.sha256(f"holdout:{salt}:contact:{contact_id}".encode()).hexdigest()[:13], 16)


def periods(tx: Connection) -> list[Period]:
    """Every period there was, the oldest first; the last one is open if somebody is held out now."""
    return [Period(**row) for row in tx.execute(statement("holdout.periods")).mappings()]


def hold_out(tx: Connection, percent: Decimal, *, by: str, now: datetime, reshuffle: bool = False) -> Period | None:
    """Hold out `percent` of all contacts from now on, 0 for nobody; returns the open period.

    The share that holds already changes nothing. Mail in the queue follows at its claim.

    Args:
        percent: 0 to 50, at most two decimals.
        reshuffle: draw other people; else those of the last time come first again.
    Raises:
        InvalidInput: another percentage.
    """
    share = _checked(percent)
    tx.execute(statement("holdout.lock"))
    known = periods(tx)
    current = known[-1] if known and known[-1].ended_at is None else None
    if not reshuffle and share == (0 if current is None else current.percent):
        return current
    tx.execute(statement("holdout.close"), {"now": now})
    if not share:
        return None
    # Random, so that nobody outside can tell who is held out, nor sign up so as to be.
    salt = known[-1].salt if known and not reshuffle else secrets.token_hex(8)
    tx.execute(statement("holdout.open"), {"salt": salt, "percent": share, "now": now, "by": by})
    return periods(tx)[-1]


def _checked(percent: Decimal) -> Decimal:
    try:
        is_right = 0 <= percent <= MOST_PERCENT and percent == percent.quantize(_CENT)
    except InvalidOperation:
        is_right = False
    if not is_right:
        raise InvalidInput(f"A hold-out is 0 to {MOST_PERCENT} percent of contacts, with two decimals at most")
    return percent
