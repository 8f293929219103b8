"""What one refresh of one table of figures is asked for: as of when, which days, and what it knows already.

Handed by `refreshing` to the `restate` of each table. Promise to them: `since` is the snapshot of the last refresh
that was not limited to a range, so the marks outside of it (`analytics.changed_days`, `analytics.changed_people`) are
all that changed; days from `previous_as_of` on are theirs to restate too, because rows of later moments were left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from mautolib.db.engine import Tx
from mautolib.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Work:
    """A refresh as of a moment.

    Attributes:
        from_, to: first and last UTC day that is restated whatever has changed; both None: what has changed.
        since: snapshot of the last refresh, as PostgreSQL writes it; None: everything is restated.
        previous_as_of: `as_of` of the last refresh; None with `since`.
    """

    as_of: datetime
    from_: date | None = None
    to: date | None = None
    since: str | None = None
    previous_as_of: datetime | None = None

    def __post_init__(self) -> None:
        if self.from_ is not None and self.to is not None and self.from_ > self.to:
            raise InvalidInput(f"the range of days ends ({self.to}) before it begins ({self.from_})", path=("to",))

    @property
    def is_limited(self) -> bool:
        """Only a range of days is asked for: what else has changed stays for the next refresh."""
        return self.from_ is not None or self.to is not None

    @property
    def is_whole(self) -> bool:
        """Everything is restated."""
        return self.since is None and not self.is_limited

    @property
    def binds(self) -> Mapping[str, Any]:
        """The work as the statements of `analytics` take it."""
        return {"as_of": self.as_of, "from_day": self.from_, "to_day": self.to, "since": self.since,
                "previous_as_of": self.previous_as_of}  # fmt: skip


def configure(tx: Tx, **options: str) -> None:
    """Set options of the server until the transaction ends."""
    for name, value in options.items():
        tx.execute(select(func.set_config(name, value, True)))


def runs(days: Iterable[date]) -> Iterable[tuple[date, date]]:
    """Days as runs without a gap: first and last day of each."""
    first = last = None
    for day in sorted(days):
        if first is not None and last is not None and day > last + timedelta(days=1):
            yield first, last
            first = None
        first, last = first or day, day
    if first is not None and last is not None:
        yield first, last
