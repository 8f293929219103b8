"""Marketing mail over time: whole UTC days from `analytics.daily_email_metrics`, and what the table lacks counted now.

Promise: a day that was not over at the last refresh, such as today, is counted now, whether the table was ever
refreshed. Where all mail is counted while somebody waits (`readers_campaigns.is_live`), so is a day in which something
changed since, by its marks (decision 0019): the figures are then always those of ledger, hits and events. In a larger
house it stays as the table, and so the analysts' view, has it. Opens and clicks whose raw hits are kept no longer are
those of the table. Called by `readers_trends`; changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any, Final, TypeAlias

from mautolib.analytics import readers_campaigns
from mautolib.db.engine import Tx
from mautolib.db.statements import statement

_DAY: Final = timedelta(days=1)
#: Each stretch that is counted now is a statement of its own: more than so many are joined over the shortest gaps.
_STRETCHES: Final = 6

Stretch: TypeAlias = tuple[datetime, datetime | None]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is read where.

    Attributes:
        kept: days that the table has as they are now.
        live: stretches from a moment until another one (exclusive; None: without an end) that are counted.
    """

    kept: Sequence[date]
    live: Sequence[Stretch]


@dataclass(frozen=True, kw_only=True)
class PeriodMails:
    """What happened to marketing mail; `unique_` are messages first opened or clicked by a person then."""

    sent: int = 0
    delivered: int = 0
    bounced: int = 0
    attempted: int = 0
    opened: int = 0
    clicked: int = 0
    unique_opens: int = 0
    unique_clicks: int = 0
    unsubscribed: int = 0


def series(
    tx: Tx, *, since: datetime, now: datetime, granularity: str, campaign_id: int | None
) -> dict[tuple[str, datetime], int]:
    """How often each thing happened by (type, beginning of the period); what never happened is left out.

    Args:
        since: the beginning of a period.
        granularity: hour, day or week; hours are always counted now.
        campaign_id: only mail of this campaign; None: all marketing mail.
    """
    binds = {"granularity": granularity, "campaign_id": campaign_id, "now": now}
    found: dict[tuple[str, datetime], int] = {}
    parts = Parts(kept=(), live=[(since, None)]) if granularity == "hour" else split(tx, since=since, now=now)
    for row in _rows(tx, parts, kept="kept_series", live="mail_series", binds=binds):
        key = (row.fact, row.period_start.astimezone(UTC))
        found[key] = found.get(key, 0) + row.fact_count
    return found


def period_mails(tx: Tx, *, since: datetime, now: datetime) -> PeriodMails:
    """What happened to all marketing mail from `since` until `now`."""
    binds = {"campaign_id": None, "now": now}
    parts = split(tx, since=since, now=now)
    rows = list(_rows(tx, parts, kept="kept_period", live="period_mails", binds=binds))
    return PeriodMails(**{
        name: sum(int(getattr(row, name) or 0) for row in rows) for name in PeriodMails.__dataclass_fields__
    })  # fmt: skip


def split(tx: Tx, *, since: datetime, now: datetime) -> Parts:
    """Which days from `since` until `now` the table has, and which stretches have to be counted."""
    since, today = since.astimezone(UTC), now.astimezone(UTC).date()
    first = since.date() if since == _midnight(since.date()) else since.date() + _DAY
    state = tx.execute(statement("rollups.usable_state"), {"table": "daily_email_metrics"}).one_or_none()
    if state is None or first >= today:
        return Parts(kept=(), live=[(since, None)])
    days = [first + number * _DAY for number in range((today - first).days)]
    changed = {day for day in days if day >= state.as_of.astimezone(UTC).date()}
    if readers_campaigns.is_live(tx):
        changed |= set(tx.scalars(statement("rollups.changed_days"), {
            "since": state.since, "previous_as_of": state.as_of, "as_of": now, "subject": "mail"}))  # fmt: skip
    stretches = [(since, _midnight(first))] if since < _midnight(first) else []
    stretches += [(_midnight(day), _midnight(day + _DAY)) for day in days if day in changed]
    live = _joined([*stretches, (_midnight(today), _midnight(today))])
    kept = [day for day in days if not any(start <= _midnight(day) < end for start, end in live)]
    return Parts(kept=kept, live=[*live[:-1], (live[-1][0], None)])


def _joined(stretches: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Stretches in order, those that touch as one, and few of them."""
    found = list(stretches)
    while len(found) > 1:
        gaps = [after[0] - before[1] for before, after in pairwise(found)]
        at = min(range(len(gaps)), key=lambda number: gaps[number])
        if gaps[at] and len(found) <= _STRETCHES:
            break
        found[at : at + 2] = [(found[at][0], found[at + 1][1])]
    return found


def _rows(tx: Tx, parts: Parts, *, kept: str, live: str, binds: dict[str, Any]) -> list[Any]:
    rows: list[Any] = []
    if parts.kept:
        rows += tx.execute(statement(f"analytics_api.{kept}"), {**binds, "days": list(parts.kept)})
    for since, until in parts.live:
        bounds = {"since": since, "until": "infinity" if until is None else until}
        rows += tx.execute(statement(f"analytics_api.{live}"), {**binds, **bounds})
    return rows


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
