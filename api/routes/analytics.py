"""Figures: the front page's numbers and sign-ups by week, read from the views that analysts read."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field

from api.routing import CurrentCall, Router, allow, problems
from api.values import Answer
from mautolib.analytics import readers
from mautolib.auth.roles import Role

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


@router.get("/dashboard/stats", response_model=DashboardStats, responses=problems(401))
@allow(Role.VIEWER)
def dashboard_stats(call: CurrentCall) -> DashboardStats:
    """Show the figures of the front page."""
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
