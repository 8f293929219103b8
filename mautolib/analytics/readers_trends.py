"""Readers of what happens over time: mail by hour, day or week, sign-up cohorts, the last days of the whole house.

Promise: each thing counts at the moment it happened, in UTC. Mail is that of campaigns, workflows and automation
rules, by `readers_days`. Called by the API and the dashboard; changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypedDict

from sqlalchemy import Row

from mautolib.analytics import figures, readers_campaigns, readers_days
from mautolib.db.engine import Tx
from mautolib.db.statements import statement

#: The types of a time series, in the order of a mail's life.
FACTS: Final = ("sent", "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed")
_STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}


class Granularity(StrEnum):
    """How long a period of a time series is; weeks are those of ISO 8601."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"


class CohortGranularity(StrEnum):
    """How long people sign up for one cohort, and about how long its periods are: 1, 7 or 30 days."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Point(TypedDict):
    """How often something happened in one period."""

    period: str
    value: int
    label: str


class CohortCell(TypedDict):
    """Who of a sign-up cohort was active in one period since the own sign-up; null until that is over for all."""

    cohort_period: str
    cohort_size: int
    period_offset: int
    active_count: int | None
    retention_rate: float | None


class HealthFactors(TypedDict):
    """What the health of a house is made of; rates in percent."""

    subscription_rate: float
    open_rate: float
    bounce_rate: float
    recent_campaigns_30d: int


class Health(TypedDict):
    """How well a house does, from 0 to 100, and its grade."""

    score: float
    grade: str
    factors: HealthFactors


def timeseries(
    tx: Tx, *, days: int, granularity: Granularity, now: datetime, campaign_id: int | None = None, fill: bool = False
) -> dict[str, list[Point]]:
    """What happened to marketing mail, or to that of one campaign, by type and period.

    Args:
        days: UTC days, the current one included; hours are 24 times as many, weeks those the days lie in.
        fill: also periods in which nothing happened, as zeros.
    """
    starts = list(_periods(days, granularity, now))
    found = readers_days.series(tx, since=starts[0], now=now, granularity=str(granularity), campaign_id=campaign_id)
    counted: dict[str, dict[datetime, int]] = {fact: {} for fact in FACTS}
    for (fact, start), count in found.items():
        counted[fact][start] = count
    return {
        fact: [_point(start, values.get(start, 0), granularity) for start in starts if fill or start in values]
        for fact, values in counted.items()
    }


def cohort(tx: Tx, *, periods: int, granularity: CohortGranularity, now: datetime) -> list[CohortCell]:
    """The cells of the newest `periods` sign-up cohorts, oldest first, each with offsets 0 to periods - 1."""
    binds = {"periods": periods, "granularity": str(granularity), "now": now}
    return [
        CohortCell(
            cohort_period=row.cohort_label, cohort_size=row.cohort_size, period_offset=row.period_offset,
            active_count=row.active_count,
            retention_rate=None if row.active_count is None
            else float(figures.percent(row.active_count, row.cohort_size)),
        )
        for row in tx.execute(statement("analytics_api.cohort_cells"), binds)
    ]  # fmt: skip


def dashboard(tx: Tx, *, days: int, now: datetime) -> dict[str, Any]:
    """The last `days` times 24 hours: contacts, sent campaigns, marketing mail, and two figures of health."""
    binds = {"since": now - timedelta(days=days), "now": now}
    people = tx.execute(statement("analytics_api.period_people"), binds).one()
    mails = readers_days.period_mails(tx, since=binds["since"], now=now)
    campaigns = tx.execute(statement("analytics_api.period_campaigns"), binds).one()
    rates = figures.rates_of(mails)
    return {
        "period_days": days,
        "contacts": {
            "total": people.total, "active_subscribers": people.subscribed, "new_in_period": people.new_in_period,
            "churn_rate": float(figures.percent(people.unsubscribed, people.subscribed)),
        },
        "campaigns": {"total_sent": campaigns.total_sent, "in_period": campaigns.sent_in_period},
        "email_events": {
            "sent": mails.sent, "opened": mails.opened, "clicked": mails.clicked, "bounced": mails.bounced,
            "unsubscribed": mails.unsubscribed, "open_rate": float(rates.open), "click_rate": float(rates.click),
            "bounce_rate": float(rates.bounce),
        },
        "health": {
            "deliverability": float(figures.rounded(max(Decimal(0), 100 - rates.bounce), 1)),
            "list_growth": people.new_in_period - people.unsubscribed,
        },
    }  # fmt: skip


def house(tx: Tx) -> Row[Any]:
    """How many contacts, campaigns and workflows there are, and in what state."""
    return tx.execute(statement("analytics_api.house")).one()


def health(tx: Tx, *, now: datetime, counted: Row[Any] | None = None) -> Health:
    """List, opens, bounces and activity in one number; mail is that of all campaigns.

    Args:
        counted: what `house` gave, so that contacts are not counted twice.
    """
    binds = {"since": now - timedelta(days=30), "now": now}
    known = counted or house(tx)
    mails = readers_campaigns.sums(tx)
    recent = tx.execute(statement("analytics_api.period_campaigns"), binds).one().created_in_period
    factors = {
        "subscription_rate": figures.percent(known.subscribed_contacts, known.total_contacts),
        "open_rate": figures.percent(mails.unique_opens, mails.delivered),
        "bounce_rate": figures.percent(mails.bounced, mails.attempted),
    }
    score = figures.health_score(contacts=known.total_contacts, sent=mails.sent, campaigns=recent, **factors)
    rates = {name: float(value) for name, value in factors.items()}
    return Health(
        score=float(score), grade=figures.grade_of(score),
        factors=HealthFactors(
            subscription_rate=rates["subscription_rate"], open_rate=rates["open_rate"],
            bounce_rate=rates["bounce_rate"], recent_campaigns_30d=recent,
        ),
    )  # fmt: skip


def _periods(days: int, granularity: Granularity, now: datetime) -> Iterator[datetime]:
    """The beginnings of the periods, oldest first; UTC has no clock changes."""
    now = now.astimezone(UTC)
    step = _STEPS[granularity]
    if granularity is Granularity.HOUR:
        last = now.replace(minute=0, second=0, microsecond=0)
        start = last - timedelta(hours=24 * days - 1)
    else:
        last = now.replace(hour=0, minute=0, second=0, microsecond=0)
        start = last - timedelta(days=days - 1)
        if granularity is Granularity.WEEK:
            start -= timedelta(days=start.weekday())
    while start <= last:
        yield start
        start += step


def _point(start: datetime, value: int, granularity: Granularity) -> Point:
    if granularity is Granularity.HOUR:
        return Point(period=f"{start:%Y-%m-%d %H}:00", value=value, label=f"{start.day} {start:%b, %H}:00")
    if granularity is Granularity.DAY:
        return Point(period=f"{start:%Y-%m-%d}", value=value, label=f"{start.day} {start:%b}")
    year, week, _ = start.isocalendar()
    return Point(period=f"{year}-W{week:02}", value=value, label=f"Week {week}, {year}")
