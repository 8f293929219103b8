"""The figures over HTTP equal what the rows say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService


def test_stats_have_the_keys_of_the_contract_and_follow_the_rows(editor: httpx.Client) -> None:
    before = editor.get("/api/v1/dashboard/stats").json()
    assert list(before) == [
        "total_contacts", "subscribed_contacts", "unsubscribed_contacts", "total_campaigns", "campaigns_sent",
        "campaigns_draft", "total_emails_sent", "avg_open_rate", "avg_click_rate", "total_workflows",
        "active_workflows",
    ]  # fmt: skip
    for subscribed in (True, True, False):
        body = {"email": f"{uuid4().hex}@shop.example", "subscribed": subscribed}
        assert editor.post("/api/v1/contacts/", json=body).status_code == 201
    after = editor.get("/api/v1/dashboard/stats").json()
    grown = {name: after[name] - before[name] for name in before if after[name] != before[name]}
    assert grown == {"total_contacts": 3, "subscribed_contacts": 2, "unsubscribed_contacts": 1}


def _made_since(service: LiveService, moment: datetime) -> int:
    """Contacts made since a moment; those erased meanwhile stay counted."""
    query = text(
        "select (select count(*) from contacts where created_at >= :moment) + (select coalesce(sum(contact_count), 0) "
        "from erased_signups where signup_day >= cast(:moment as date))"
    )
    with service.engine.begin() as tx:
        return int(tx.execute(query, {"moment": moment}).scalar_one())


def test_cohorts_are_the_last_calendar_weeks_oldest_first(service: LiveService, viewer: httpx.Client) -> None:
    today = datetime.now(UTC)
    weeks = [(today - timedelta(weeks=back)).isocalendar() for back in (2, 1, 0)]
    monday = datetime.fromisocalendar(*weeks[-1][:2], 1).replace(tzinfo=UTC)
    made = _made_since(service, monday)
    found = viewer.get("/api/v1/analytics/cohorts", params={"weeks": 3}).json()
    assert [row["cohort"] for row in found] == [f"{week.year}-W{week.week:02}" for week in weeks]
    assert all(set(row) == {"cohort", "total", "subscribed", "retention_pct"} for row in found)
    current = found[-1]
    assert current["total"] == made
    assert current["retention_pct"] == pytest.approx(100 * current["subscribed"] / max(1, current["total"]), abs=0.051)
    assert len(viewer.get("/api/v1/analytics/cohorts").json()) == 12


@pytest.mark.parametrize("weeks", ["0", "53", "x", "1.5"])
def test_weeks_outside_1_to_52_are_422(viewer: httpx.Client, weeks: str) -> None:
    assert viewer.get("/api/v1/analytics/cohorts", params={"weeks": weeks}).status_code == 422
