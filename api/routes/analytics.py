"""Figures of the whole house: the front page, the last days, health, time series and sign-up cohorts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field
from sqlalchemy import Connection

from api.routing import CurrentCall, Router, allow, problems
from api.values import Answer, parse_id
from mautolib.analytics import readers, readers_trends
from mautolib.analytics.readers_trends import CohortGranularity, Granularity
from mautolib.auth.roles import Role
from mautolib.campaigns import store
from mautolib.errors import InvalidInput, NotFound

router = Router("Analytics")


class DashboardStats(Answer):
    """Contacts, campaigns, mails and workflows now. Rates are percent, 0.0 where nothing was delivered."""

    total_contacts: int
    subscribed_contacts: int
    unsubscribed_contacts: int
    total_campaigns: int
    campaigns_sent: int
    campaigns_draft: int
    total_emails_sent: int
    avg_open_rate: float = Field(description="Unique human opens of all campaigns / delivered.", examples=[34.52])
    avg_click_rate: float = Field(description="Unique human clicks of all campaigns / delivered.", examples=[6.1])
    total_workflows: int
    active_workflows: int


class SignupCohort(Answer):
    """Those who signed up in one ISO week."""

    cohort: str = Field(examples=["2026-W07"])
    total: int
    subscribed: int = Field(description="Of them, still subscribed.")
    retention_pct: float = Field(examples=[91.7])


class PeriodContacts(Answer):
    """Contacts now and in the period."""

    total: int
    active_subscribers: int = Field(description="Subscribed now.")
    new_in_period: int
    churn_rate: float = Field(description="Who unsubscribed in the period / subscribed now, percent.", examples=[0.62])


class PeriodCampaigns(Answer):
    """Campaigns that were sent."""

    total_sent: int = Field(description="Ever.")
    in_period: int


class PeriodMail(Answer):
    """What happened to mail of campaigns, workflows and automation rules in the period."""

    sent: int
    opened: int = Field(description="Opens by people.")
    clicked: int = Field(description="Clicks of people.")
    bounced: int
    unsubscribed: int = Field(description="From such a mail, for the first time.")
    open_rate: float = Field(description="Mails first opened or clicked by a person / delivered, percent.")
    click_rate: float = Field(description="Mails first clicked by a person / delivered, percent.")
    bounce_rate: float = Field(description="Bounced / attempted, percent.")


class PeriodHealth(Answer):
    """Two figures to watch."""

    deliverability: float = Field(description="100 - bounce_rate.", examples=[98.8])
    list_growth: int = Field(description="New contacts minus those who unsubscribed.")


class Dashboard(Answer):
    """The last days of the whole house."""

    period_days: int
    contacts: PeriodContacts
    campaigns: PeriodCampaigns
    email_events: PeriodMail
    health: PeriodHealth


class HealthFactors(Answer):
    """What health is made of; rates in percent."""

    subscription_rate: float = Field(examples=[94.66])
    open_rate: float = Field(examples=[19.89])
    bounce_rate: float = Field(examples=[1.25])
    recent_campaigns_30d: int = Field(description="Campaigns created in the last 30 days.", examples=[4])


class HouseHealth(Answer):
    """How well the house does: list, opens, bounces and activity count 25 each."""

    score: float = Field(ge=0, le=100, examples=[82.3])
    grade: Literal["A", "B", "C", "D", "F"] = Field(description="A from 85, B from 70, C from 55, D from 40.")
    factors: HealthFactors


class SeriesPoint(Answer):
    """How often something happened in one period (UTC)."""

    period: str = Field(description="`YYYY-MM-DD HH:00`, `YYYY-MM-DD` or `YYYY-Www`.", examples=["2026-05-01"])
    value: int
    label: str = Field(description="The period as people write it.", examples=["1 May"])


class MailSeries(Answer):
    """What happened to mail, by type."""

    sent: list[SeriesPoint]
    delivered: list[SeriesPoint] = Field(description="By the time it was sent; without what bounced since.")
    opened: list[SeriesPoint] = Field(description="Opens by people.")
    clicked: list[SeriesPoint] = Field(description="Clicks of people.")
    bounced: list[SeriesPoint]
    complained: list[SeriesPoint]
    unsubscribed: list[SeriesPoint]


class Timeseries(Answer):
    """Mail over time."""

    granularity: Granularity
    days: int
    series: MailSeries


class CohortCell(Answer):
    """Who of a sign-up cohort was active in one period since the own sign-up."""

    cohort_period: str = Field(examples=["2026-W18"])
    cohort_size: int
    period_offset: int
    active_count: int | None = Field(description="Null until the period is over for the whole cohort.")
    retention_rate: float | None = Field(description="Percent of the cohort.", examples=[23.08])


@router.get("/dashboard/stats", response_model=DashboardStats, responses=problems(401))
@allow(Role.VIEWER)
def dashboard_stats(call: CurrentCall) -> DashboardStats:
    """Show the figures of the front page.

    Mail is counted now up to 50,000 mails of campaigns; above that it is the sum of what was last recounted.
    """
    with call.engine.begin() as tx:
        return DashboardStats(**readers.dashboard_stats(tx))


@router.get("/analytics/cohorts", response_model=list[SignupCohort], responses=problems(401, 422))
@allow(Role.VIEWER)
def signup_cohorts(
    call: CurrentCall, weeks: Annotated[int, Query(ge=1, le=52, description="How many weeks.")] = 12
) -> list[SignupCohort]:
    """Show sign-ups by week.

    Calendar ISO weeks (UTC), oldest first, ending with the current one; also weeks without a sign-up.
    """
    with call.engine.begin() as tx:
        found = readers.signup_weeks(tx, weeks=weeks, now=call.now)
    return [
        SignupCohort(
            cohort=week["cohort"], total=week["total"], subscribed=week["subscribed"],
            retention_pct=week["retention_pct"],
        )
        for week in found
    ]  # fmt: skip


@router.get("/analytics/cohort", response_model=list[CohortCell], responses=problems(401, 422))
@allow(Role.VIEWER)
def retention_cohorts(
    call: CurrentCall,
    periods: Annotated[int, Query(ge=2, le=52, description="How many cohorts, and periods of each.")] = 12,
    granularity: Annotated[
        CohortGranularity, Query(description="Periods of 1, 7 or 30 days after each sign-up.")
    ] = CohortGranularity.WEEK,
) -> list[CohortCell]:
    """Show who comes back.

    The newest sign-up cohorts (UTC), oldest first; active means a human open or click. Cells that are not over for
    everybody are null; late events restate cells. Cohorts without a sign-up are left out. Restated hourly.
    """
    with call.engine.begin() as tx:
        found = readers_trends.cohort(tx, periods=periods, granularity=granularity, now=call.now)
    return [CohortCell(**cell) for cell in found]


@router.get("/analytics/timeseries", response_model=Timeseries, responses=problems(401, 422))
@allow(Role.VIEWER)
def mail_timeseries(
    call: CurrentCall,
    campaign_id: Annotated[str | None, Query(max_length=20, description="Only mails of this campaign.")] = None,
    days: Annotated[int, Query(ge=1, le=365, description="UTC days, today included.")] = 30,
    granularity: Annotated[
        Granularity, Query(description="How long a period is; weeks are ISO weeks, whole ones.")
    ] = Granularity.DAY,
    fill: Annotated[bool, Query(description="Also periods in which nothing happened.")] = False,
) -> Timeseries:
    """Show mail over time.

    Mail of campaigns, workflows and automation rules, each thing in the period it happened in (UTC), counted now.
    Above 50,000 mails of campaigns, days that were over at the last hourly refresh are as it left them.
    """
    number = None
    with call.engine.begin() as tx:
        if campaign_id is not None:
            number = _campaign(tx, campaign_id)
        series = readers_trends.timeseries(
            tx, days=days, granularity=granularity, now=call.now, campaign_id=number, fill=fill
        )
    return Timeseries(granularity=granularity, days=days, series=MailSeries.model_validate(series))


@router.get("/analytics/dashboard", response_model=Dashboard, responses=problems(401, 422))
@allow(Role.VIEWER)
def period_dashboard(
    call: CurrentCall, days: Annotated[int, Query(ge=1, le=365, description="So many times 24 hours.")] = 30
) -> Dashboard:
    """Show the last days.

    Contacts, campaigns and mail between then and now, counted now. Above 50,000 mails of campaigns, mail of days that
    were over at the last hourly refresh is as it left them.
    """
    with call.engine.begin() as tx:
        return Dashboard.model_validate(readers_trends.dashboard(tx, days=days, now=call.now))


@router.get("/analytics/health", response_model=HouseHealth, responses=problems(401))
@allow(Role.VIEWER)
def house_health(call: CurrentCall) -> HouseHealth:
    """Show how well the house does.

    List: a quarter of the subscribed percent. Opens: the open rate, at most 25; 12.5 if nothing was sent. Bounces: 25
    minus five times the bounce rate. Activity: five for each campaign created in the last 30 days, at most 25. Mail is
    that of all campaigns, as in `/dashboard/stats`.
    """
    with call.engine.begin() as tx:
        return HouseHealth.model_validate(readers_trends.health(tx, now=call.now))


def _campaign(tx: Connection, given: str) -> int:
    number = parse_id(given)
    try:
        if number is not None:
            return store.get(tx, number).campaign_id
    except NotFound:
        pass
    raise InvalidInput("Campaign not found", path=("query", "campaign_id"))
