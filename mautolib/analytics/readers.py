"""Readers of the analyst views: the figures the API and the dashboard show, so that both show the same ones.

Promise: no figure is computed here that the views do not hold; only sums, roundings and shapes. Every function takes
the caller's transaction and changes nothing. Called by the API and by `pages`. Campaigns are read by
`readers_campaigns`, what happens over time by `readers_trends`, whole views by `readers_views`.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypedDict

from sqlalchemy import Engine, text

from mautolib.analytics import readers_campaigns
from mautolib.analytics.figures import percent
from mautolib.analytics.readers_trends import health
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    import pandas

__all__ = [
    "DashboardStats", "GradeCount", "SignupWeek", "campaign_performance", "dashboard_stats", "grade_distribution",
    "health", "percent", "recent_campaigns", "signup_weeks", "to_frame",
]  # fmt: skip


class DashboardStats(TypedDict):
    """The figures of the front page; rates in percent, 0.0 where nothing was delivered."""

    total_contacts: int
    subscribed_contacts: int
    unsubscribed_contacts: int
    total_campaigns: int
    campaigns_sent: int
    campaigns_draft: int
    total_emails_sent: int
    avg_open_rate: float
    avg_click_rate: float
    total_workflows: int
    active_workflows: int


class SignupWeek(TypedDict):
    """Those who signed up in one ISO week, and how many of them are subscribed now."""

    cohort: str
    week_start: date
    total: int
    subscribed: int
    retention_pct: float


class GradeCount(TypedDict):
    """How many scored contacts have a grade."""

    grade: str
    contacts: int


def dashboard_stats(tx: Tx) -> DashboardStats:
    """Contacts, campaigns, mails and workflows now; `total_emails_sent` and the rates are those of all campaigns."""
    row = tx.execute(statement("analytics_api.house")).one()
    mails = readers_campaigns.sums(tx)
    return DashboardStats(
        total_contacts=row.total_contacts,
        subscribed_contacts=row.subscribed_contacts,
        unsubscribed_contacts=row.total_contacts - row.subscribed_contacts,
        total_campaigns=row.total_campaigns,
        campaigns_sent=row.campaigns_sent,
        campaigns_draft=row.campaigns_draft,
        total_emails_sent=mails.sent,
        avg_open_rate=float(percent(mails.unique_opens, mails.delivered)),
        avg_click_rate=float(percent(mails.unique_clicks, mails.delivered)),
        total_workflows=row.total_workflows,
        active_workflows=row.active_workflows,
    )


def signup_weeks(tx: Tx, *, weeks: int, now: datetime) -> list[SignupWeek]:
    """Sign-ups of the last `weeks` calendar weeks (UTC), oldest first, the current week last.

    Raises:
        InvalidInput: fewer than 1 or more than 520 weeks.
    """
    if not 1 <= weeks <= 520:
        raise InvalidInput(f"weeks is {weeks}; it takes 1 to 520", path=("weeks",))
    rows = tx.execute(statement("analytics.signup_weeks"), {"weeks": weeks, "now": now})
    return [
        SignupWeek(cohort=row.week_label, week_start=row.week_start, total=row.total, subscribed=row.subscribed,
                   retention_pct=float(percent(row.subscribed, row.total, decimals=1)))
        for row in rows
    ]  # fmt: skip


def grade_distribution(tx: Tx) -> list[GradeCount]:
    """All seven grades, best first, with the number of scored contacts."""
    rows = tx.execute(statement("analytics.grade_distribution"))
    return [GradeCount(grade=row.grade, contacts=row.contact_count) for row in rows]


def recent_campaigns(tx: Tx, *, limit: int = 10) -> list[dict[str, Any]]:
    """The newest campaigns that began to send, each a row of `analytics.campaign_performance` without its orders."""
    rows = tx.execute(statement("analytics.recent_campaigns"), {"limit": limit}).mappings()
    return [dict(row) for row in rows]


def campaign_performance(tx: Tx, campaign_id: int) -> dict[str, Any]:
    """The row of one campaign in `analytics.campaign_performance`.

    Raises:
        NotFound: no such campaign.
    """
    row = tx.execute(statement("analytics.campaign_performance_of"), {"campaign_id": campaign_id}).mappings().first()
    if row is None:
        raise NotFound("Campaign not found")
    return dict(row)


def to_frame(engine: Engine, view: str) -> pandas.DataFrame:
    """A relation of schema `analytics` as a pandas DataFrame, for notebooks; it is read as a whole.

    Raises:
        NotFound: no such relation.
    """
    import pandas as pd

    with engine.connect() as connection:
        known = connection.scalar(text("select to_regclass(format('analytics.%I', cast(:v as text)))"), {"v": view})
        if known is None:
            raise NotFound(f"There is no view {view!r} in schema analytics")
        return pd.read_sql(text(f"select * from {known}"), connection)  # noqa: S608 - a name the catalogue gave back
