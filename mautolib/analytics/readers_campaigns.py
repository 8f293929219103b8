"""Readers of campaign figures: metrics, funnel, comparison, best campaigns, and when people read.

Promise: one way of counting for all of them. Up to `LIVE_MAILS` mails of campaigns they are counted now, by the view
analysts read; above that, where counting takes seconds, as last recounted (`campaign_totals`, made from that view: a
few seconds old while a campaign is sent, later nine minutes or a twentieth of its age). Orders and revenue are always
those of now (`readers_sales`). Called by the API and the dashboard; changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypedDict

from sqlalchemy import Row

from mautolib.analytics import figures, readers_sales
from mautolib.contacts.validation import is_timezone
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound

#: Up to so many mails of campaigns all of them are counted while somebody waits (about 0.1 s).
LIVE_MAILS: Final = 50_000
_CENT = 4
#: Up to so many mails the reactions to a campaign are counted now, and later than so long after it began no others.
SMALL: Final = 5_000
_YOUNG: Final = timedelta(hours=1)


class TopMetric(StrEnum):
    """What campaigns are ranked by."""

    OPEN_RATE = "open_rate"
    CLICK_RATE = "click_rate"
    ENGAGEMENT_SCORE = "engagement_score"


class FunnelStage(TypedDict):
    """A step from sent to clicked: how many, in percent of sent, and how many percent of the step before were lost."""

    stage: str
    count: int
    rate: float
    drop_off_rate: float


class Ranked(TypedDict):
    """What a campaign is ranked with; counts are people."""

    campaign_id: str
    campaign_name: str
    total_sent: int
    open_rate: float
    click_rate: float
    ctor: float
    bounce_rate: float
    engagement_score: float
    sent_at: datetime | None


class HourOfDay(TypedDict):
    """Opens and clicks of people in one hour of the day."""

    hour: int
    opens: int
    clicks: int


class Engagement(TypedDict):
    """When the people of a campaign open and click."""

    hourly: list[HourOfDay]
    peak_open_hour: int
    peak_click_hour: int
    avg_time_to_open_minutes: float | None


def sums(tx: Tx) -> Row[Any]:
    """attempted, sent, delivered, bounced, unique_opens and unique_clicks of all campaigns together."""
    return tx.execute(_figures(tx, "sums")).one()


def metrics(tx: Tx, campaign_id: int, *, reporting_currency: str) -> dict[str, Any]:
    """Every figure of one campaign; `total_opened` and `total_clicked` are hits of people, unique ones recipients.

    Args:
        reporting_currency: told where there is no order yet that says it.
    Raises:
        NotFound: no such campaign.
    """
    row = counts(tx, campaign_id)
    if row is None:
        raise NotFound("Campaign not found")
    rates = figures.rates_of(row)
    sold = readers_sales.campaign_sales(tx, campaign_id)
    each = sold.revenue / row.delivered if row.delivered else Decimal(0)
    return {
        "campaign_id": str(campaign_id), "campaign_name": row.campaign_name, "total_sent": row.sent,
        "total_delivered": row.delivered, "total_opened": row.human_opens, "unique_opens": row.unique_opens,
        "total_clicked": row.human_clicks, "unique_clicks": row.unique_clicks, "total_bounced": row.bounced,
        "total_unsubscribed": row.unsubscribed, "delivery_rate": float(rates.delivery), "open_rate": float(rates.open),
        "click_rate": float(rates.click), "click_to_open_rate": float(rates.ctor), "bounce_rate": float(rates.bounce),
        "unsubscribe_rate": float(rates.unsubscribe), "total_attempted": row.attempted, "raw_opens": row.raw_opens,
        "raw_clicks": row.raw_clicks, "total_complained": row.complained, "orders": sold.orders,
        "revenue": sold.revenue, "revenue_per_recipient": figures.rounded(each, _CENT),
        "reporting_currency": sold.reporting_currency or reporting_currency,
    }  # fmt: skip


def funnel(tx: Tx, campaign_id: int) -> dict[str, Any]:
    """A campaign from sent to clicked; all counts are people.

    Raises:
        NotFound: no such campaign.
    """
    row = counts(tx, campaign_id)
    if row is None:
        raise NotFound(f"Campaign {campaign_id} not found")
    rates = figures.rates_of(row)
    return {
        "campaign_id": str(campaign_id), "campaign_name": row.campaign_name, "total_sent": row.sent,
        "total_opened": row.unique_opens, "total_clicked": row.unique_clicks, "total_bounced": row.bounced,
        "total_unsubscribed": row.unsubscribed, "open_rate": float(rates.open), "click_rate": float(rates.click),
        "ctor": float(rates.ctor), "bounce_rate": float(rates.bounce), "unsubscribe_rate": float(rates.unsubscribe),
        "engagement_score": float(figures.engagement_score(rates, sent=row.sent)), "funnel": _stages(row),
    }  # fmt: skip


def top(tx: Tx, *, metric: TopMetric, limit: int, min_sent: int) -> list[Ranked]:
    """The best of all sent campaigns; of equal ones the larger goes first, then the newer.

    Args:
        min_sent: campaigns that fewer people got are left out.
    """
    ranked = [_ranked(row) for row in tx.execute(_figures(tx, "sent"), {"min_sent": min_sent})]
    ranked.sort(key=lambda row: (row[metric.value], row["total_sent"], int(row["campaign_id"])), reverse=True)
    return ranked[:limit]


def engagement(tx: Tx, campaign_id: int, *, timezone: str) -> Engagement:
    """When people open and click, by the hour on the clocks of `timezone`; zeros for an unknown campaign.

    The mean time to open is that from a mail to its first open or click: a click implies an open. Of a campaign that
    is neither small nor young, as of `reactions_as_of`.

    Raises:
        InvalidInput: no such time zone.
    """
    if not is_timezone(timezone):
        raise InvalidInput("is not an IANA time zone such as Europe/Berlin", path=("query", "timezone"))
    binds = {"campaign_id": campaign_id, "timezone": timezone}
    rolled = "" if reactions_as_of(tx, campaign_id) is None else "rolled_"
    rows = tx.execute(statement(f"analytics_api.{rolled}engagement_hours"), binds).all()
    hourly = [HourOfDay(hour=row.hour, opens=row.opens, clicks=row.clicks) for row in rows]
    minutes = rows[0].minutes
    return Engagement(
        hourly=hourly, peak_open_hour=max(hourly, key=lambda one: (one["opens"], -one["hour"]))["hour"],
        peak_click_hour=max(hourly, key=lambda one: (one["clicks"], -one["hour"]))["hour"],
        avg_time_to_open_minutes=None if minutes is None else float(figures.rounded(minutes, 2)),
    )  # fmt: skip


def funnels(tx: Tx, campaign_ids: Sequence[int | None]) -> list[dict[str, Any] | None]:
    """The funnels of some campaigns in that order; None for one that does not exist."""
    found: dict[int | None, dict[str, Any] | None] = {}
    for campaign_id in campaign_ids:
        if campaign_id in found:
            continue
        try:
            found[campaign_id] = None if campaign_id is None else funnel(tx, campaign_id)
        except NotFound:
            found[campaign_id] = None
    return [found[campaign_id] for campaign_id in campaign_ids]


def is_live(tx: Tx) -> bool:
    """Whether there are so few mails of campaigns that they are counted while somebody waits."""
    return int(tx.scalar(statement("analytics_api.ledger_size")) or 0) <= LIVE_MAILS


def reactions_as_of(tx: Tx, campaign_id: int) -> datetime | None:
    """As of when links, hours and domains of a campaign are read from its days; None: they are to be counted now."""
    known = tx.execute(statement("analytics_api.campaign_size"), {"campaign_id": campaign_id}).one_or_none()
    if known is None or known.as_of is None or known.started_at is None or (known.recipients or 0) <= SMALL:
        return None
    as_of: datetime = known.as_of
    return as_of if as_of >= known.started_at + _YOUNG else None


def counts(tx: Tx, campaign_id: int) -> Row[Any] | None:
    """What became of the mails of one campaign: the counts that metrics and funnel are made of; None: no such one."""
    return tx.execute(_figures(tx, "campaign"), {"campaign_id": campaign_id}).first()


def _figures(tx: Tx, what: str) -> Any:
    return statement(f"analytics_api.{'live' if is_live(tx) else 'recounted'}_{what}")


def _stages(row: Row[Any]) -> list[FunnelStage]:
    counts = {"sent": row.sent, "delivered": row.delivered, "opened": row.unique_opens, "clicked": row.unique_clicks}
    stages, before = [], row.sent
    for stage, count in counts.items():
        # Mails of unknown fate may be opened: nobody is lost there.
        lost = figures.percent(max(0, before - count), before)
        rate = figures.percent(count, row.sent)
        stages.append(FunnelStage(stage=stage, count=count, rate=float(rate), drop_off_rate=float(lost)))
        before = count
    return stages


def _ranked(row: Row[Any]) -> Ranked:
    rates = figures.rates_of(row)
    return Ranked(
        campaign_id=str(row.campaign_id), campaign_name=row.campaign_name, total_sent=row.sent,
        open_rate=float(rates.open), click_rate=float(rates.click), ctor=float(rates.ctor),
        bounce_rate=float(rates.bounce), engagement_score=float(figures.engagement_score(rates, sent=row.sent)),
        sent_at=row.sent_at,
    )  # fmt: skip
