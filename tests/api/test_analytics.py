"""The figures over HTTP equal what the rows say, and one metric is one number wherever it is asked for."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Connection, text

from mautolib.analytics import cohorts, readers, readers_campaigns, readers_views
from mautolib.campaigns import totals
from tests.builders import (
    make_campaign,
    make_contact,
    make_content,
    make_event,
    make_hit,
    make_message,
    make_order,
    make_tag,
)
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


def send(tx: Connection, campaign: int, status: str = "sent", **fields: Any) -> tuple[int, int]:
    """A contact and its message of a campaign, sent a day ago."""
    contact = make_contact(tx, email=f"{uuid4().hex}@shop.example", created_at=datetime.now(UTC))
    if status in ("sent", "delivered", "complained"):
        fields.setdefault("sent_at", datetime.now(UTC) - timedelta(days=1))
    key = {"dedupe_key": uuid4().hex, "content_id": fields.pop("content_id", None) or make_content(tx)}
    return contact, make_message(tx, contact, campaign_id=campaign, status=status, **key, **fields)


@pytest.fixture
def history(service: LiveService) -> str:
    """A campaign with everything that can happen to one."""
    now = datetime.now(UTC)
    with service.engine.begin() as tx:
        campaign = make_campaign(tx, name=f"Rich {uuid4().hex}", status="sent", sent_at=now, created_at=now)
        content = make_content(tx)
        made = [send(tx, campaign, content_id=content) for _ in range(12)]
        send(tx, campaign, "bounced", bounced_at=now, sent_at=now - timedelta(days=1))
        send(tx, campaign, "bounced", bounced_at=now, sent_at=None)
        send(tx, campaign, "failed", last_code=552)
        send(tx, campaign, "failed", last_stage="build")
        doubt = send(tx, campaign, "unknown")
        send(tx, campaign, "skipped", reason="suppressed")
        send(tx, campaign, "complained", complained_at=now)
        send(tx, campaign, kind="test")
        for contact, message in (*made[:5], doubt):
            make_hit(tx, contact, message, "open", occurred_at=now - timedelta(hours=5))
            make_hit(tx, contact, message, "open", occurred_at=now - timedelta(hours=4))
        for contact, message in made[4:6]:
            make_hit(tx, contact, message, "click", occurred_at=now - timedelta(hours=3))
        for contact, message in made[6:9]:
            make_hit(tx, contact, message, "open", occurred_at=now, verdict="prefetch")
            make_hit(tx, contact, message, "click", occurred_at=now, verdict="bot")
        for contact, message in made[:2]:
            make_event(tx, contact, "unsubscribed", now, campaign_id=campaign, message_id=message)
        for contact, total, refunded, currency, rate in (
            (made[0][0], "100", "40", "USD", 1), (made[4][0], "50", "0", "EUR", "1.2"),
            (made[5][0], "9000", "1000", "JPY", "0.0064"), (made[9][0], "999", "0", "USD", 1),
        ):
            make_order(tx, contact, now, total=total, refunded_total=refunded, currency=currency, fx_rate=rate,
                       order_id=uuid4().hex)  # fmt: skip
        totals.refresh_totals(tx, campaign, now)
    return str(campaign)


@pytest.mark.parametrize("live_mails", [10**9, -1], ids=["counted now", "recounted"])
def test_one_metric_is_the_same_number_everywhere(
    service: LiveService, viewer: httpx.Client, history: str, monkeypatch: pytest.MonkeyPatch, live_mails: int
) -> None:
    monkeypatch.setattr(readers_campaigns, "LIVE_MAILS", live_mails)
    place = f"/api/v1/analytics/campaigns/{history}"
    metrics, funnel = viewer.get(f"{place}/metrics").json(), viewer.get(f"{place}/funnel").json()
    # By hand: 12 + 1 + 1 sent, one of them bounced later; refused, 552 and unknown are attempted too.
    assert {name: value for name, value in metrics.items() if name != "campaign_name"} == {
        "campaign_id": history, "total_sent": 14, "total_delivered": 13, "total_opened": 12, "unique_opens": 7,
        "total_clicked": 2, "unique_clicks": 2, "total_bounced": 2, "total_unsubscribed": 2, "delivery_rate": 76.47,
        "open_rate": 53.85, "click_rate": 15.38, "click_to_open_rate": 28.57, "bounce_rate": 11.76,
        "unsubscribe_rate": 15.38, "total_attempted": 17, "raw_opens": 15, "raw_clicks": 5, "total_complained": 1,
        # 60 + 60 + 51.20; the fourth buyer had touched nothing.
        "orders": 3, "revenue": "171.20", "revenue_per_recipient": "13.1692", "reporting_currency": "USD",
    }  # fmt: skip
    assert list(metrics) == [
        "campaign_id", "campaign_name", "total_sent", "total_delivered", "total_opened", "unique_opens",
        "total_clicked", "unique_clicks", "total_bounced", "total_unsubscribed", "delivery_rate", "open_rate",
        "click_rate", "click_to_open_rate", "bounce_rate", "unsubscribe_rate", "total_attempted", "raw_opens",
        "raw_clicks", "total_complained", "orders", "revenue", "revenue_per_recipient", "reporting_currency",
    ]  # fmt: skip
    same = {"total_sent": "total_sent", "total_opened": "unique_opens", "total_clicked": "unique_clicks",
            "total_bounced": "total_bounced", "total_unsubscribed": "total_unsubscribed", "open_rate": "open_rate",
            "click_rate": "click_rate", "ctor": "click_to_open_rate", "bounce_rate": "bounce_rate",
            "unsubscribe_rate": "unsubscribe_rate"}  # fmt: skip
    assert {name: funnel[name] for name in same} == {name: metrics[other] for name, other in same.items()}
    compared = viewer.post("/api/v1/analytics/campaigns/compare", json={"campaign_ids": ["9" * 18, history]}).json()
    assert compared == [{"campaign_id": "9" * 18, "error": "not found"}, funnel]
    top = viewer.get("/api/v1/analytics/top-campaigns", params={"limit": 50, "min_sent": 1}).json()
    ranked = [row for row in top if row["campaign_id"] == history]
    assert ranked, "this campaign is among the best fifty"
    assert {name: funnel[name] for name in ranked[0] if name in funnel} == {
        name: value for name, value in ranked[0].items() if name != "sent_at"}  # fmt: skip

    (view,) = viewer.get("/api/v1/analytics/views/campaign_performance", params={"campaign_id": history}).json()
    columns = {"total_sent": "sent", "total_delivered": "delivered", "total_opened": "human_opens",
               "unique_opens": "unique_opens", "total_clicked": "human_clicks", "unique_clicks": "unique_clicks",
               "total_bounced": "bounced", "total_unsubscribed": "unsubscribed", "total_attempted": "attempted",
               "raw_opens": "raw_opens", "raw_clicks": "raw_clicks", "total_complained": "complained",
               "orders": "orders", "revenue": "revenue", "revenue_per_recipient": "revenue_per_recipient",
               "reporting_currency": "reporting_currency", "campaign_name": "campaign_name",
               "campaign_id": "campaign_id"}  # fmt: skip
    assert {name: metrics[name] for name in columns} == {name: view[column] for name, column in columns.items()}
    rates = {"delivery_rate": "delivery_rate", "open_rate": "open_rate", "click_rate": "click_rate",
             "click_to_open_rate": "ctor", "bounce_rate": "bounce_rate", "unsubscribe_rate": "unsubscribe_rate"}
    assert {name: view[column] for name, column in rates.items()} == {
        name: pytest.approx(metrics[name], abs=0.0051) for name in rates}  # fmt: skip

    campaign = viewer.get(f"/api/v1/campaigns/{history}").json()
    assert (campaign["total_sent"], campaign["total_opened"], campaign["total_clicked"], campaign["total_bounced"],
            campaign["total_unsubscribed"], campaign["total_complained"]) == (14, 7, 2, 2, 2, 1)  # fmt: skip
    hourly = viewer.get(f"{place}/engagement").json()["hourly"]
    assert (sum(row["opens"] for row in hourly), sum(row["clicks"] for row in hourly)) == (12, 2)
    for granularity in ("hour", "day", "week"):
        asked = {"campaign_id": history, "granularity": granularity, "days": 3}
        series = viewer.get("/api/v1/analytics/timeseries", params=asked).json()["series"]
        assert {fact: sum(point["value"] for point in points) for fact, points in series.items()} == {
            "sent": 14, "delivered": 13, "opened": 12, "clicked": 2, "bounced": 2, "complained": 1, "unsubscribed": 2,
        }  # fmt: skip
    with service.engine.begin() as tx:
        assert readers.campaign_performance(tx, int(history))["sent"] == metrics["total_sent"]


@pytest.mark.parametrize("live_mails", [10**9, -1], ids=["counted now", "recounted"])
def test_the_whole_house_is_the_sum_of_its_campaigns(
    service: LiveService, viewer: httpx.Client, history: str, monkeypatch: pytest.MonkeyPatch, live_mails: int
) -> None:
    with service.engine.begin() as tx:
        everyone = [int(number) for number in tx.scalars(text("select campaign_id from campaigns"))]
        totals.refresh_many(tx, everyone, datetime.now(UTC))
    monkeypatch.setattr(readers_campaigns, "LIVE_MAILS", live_mails)
    rows = viewer.get("/api/v1/analytics/views/campaign_performance", params={"limit": 10_000}).json()
    sums = {name: sum(row[name] for row in rows)
            for name in ("sent", "delivered", "unique_opens", "unique_clicks", "attempted", "bounced")}  # fmt: skip
    assert sums["sent"] >= 14
    stats, health = (viewer.get(f"/api/v1/{path}").json() for path in ("dashboard/stats", "analytics/health"))
    assert stats["total_emails_sent"] == sums["sent"]
    assert stats["avg_open_rate"] == pytest.approx(100 * sums["unique_opens"] / sums["delivered"], abs=0.0051)
    assert stats["avg_click_rate"] == pytest.approx(100 * sums["unique_clicks"] / sums["delivered"], abs=0.0051)
    factors = health["factors"]
    assert factors["open_rate"] == stats["avg_open_rate"]
    assert factors["bounce_rate"] == pytest.approx(100 * sums["bounced"] / sums["attempted"], abs=0.0051)
    assert factors["subscription_rate"] == pytest.approx(
        100 * stats["subscribed_contacts"] / stats["total_contacts"], abs=0.0051)  # fmt: skip
    dashboard = viewer.get("/api/v1/analytics/dashboard", params={"days": 2}).json()
    assert dashboard["contacts"]["total"] == stats["total_contacts"]
    assert dashboard["contacts"]["active_subscribers"] == stats["subscribed_contacts"]
    assert dashboard["campaigns"]["total_sent"] == stats["campaigns_sent"]
    assert dashboard["health"]["deliverability"] == pytest.approx(
        100 - dashboard["email_events"]["bounce_rate"], abs=0.051)  # fmt: skip


def test_unknown_campaigns(viewer: httpx.Client) -> None:
    for unknown in ("987654321", "x", "007", "9" * 30):
        place = f"/api/v1/analytics/campaigns/{unknown}"
        answers = [viewer.get(f"{place}/{what}") for what in ("metrics", "funnel", "engagement")]
        assert [answer.status_code for answer in answers] == [404, 404, 200]
        assert [answer.json()["detail"] for answer in answers[:2]] == [
            "Campaign not found", f"Campaign {unknown} not found"]  # fmt: skip
        found = answers[2].json()
        assert (found["campaign_id"], len(found["hourly"]), found["avg_time_to_open_minutes"]) == (unknown, 24, None)
        series = viewer.get("/api/v1/analytics/timeseries", params={"campaign_id": unknown[:20]})
        assert (series.status_code, series.json()["detail"][0]["loc"]) == (422, ["query", "campaign_id"])


def test_at_most_ten_campaigns_are_compared(viewer: httpx.Client, service: LiveService) -> None:
    place = "/api/v1/analytics/campaigns/compare"
    refused = viewer.post(place, json={"campaign_ids": ["1"] * 11})
    assert (refused.status_code, refused.json()["detail"]) == (400, "Maximum 10 campaigns for comparison")
    assert viewer.post(place, json={"campaign_ids": []}).json() == []
    for wrong in ({}, [], {"campaign_ids": "1"}, {"campaign_ids": None}, {"campaign_ids": [None]}):
        assert viewer.post(place, json=wrong).status_code == 422
    answer = viewer.post(place, json={"campaign_ids": ["x", 7, "x"]}, headers={"X-Request-ID": f"compare {uuid4()}"})
    assert [row["campaign_id"] for row in answer.json()] == ["x", "7", "x"]
    with service.engine.begin() as tx:
        query = text("select action from audit_log where request_id = :id")
        assert tx.scalars(query, {"id": answer.headers["X-Request-ID"]}).all() == ["campaign.compare"]


@pytest.mark.parametrize(("path", "wrong"), [
    ("timeseries", {"days": 0}), ("timeseries", {"days": 366}), ("timeseries", {"granularity": "month"}),
    ("timeseries", {"fill": "perhaps"}), ("cohort", {"periods": 1}), ("cohort", {"periods": 53}),
    ("cohort", {"granularity": "hour"}), ("top-campaigns", {"limit": 51}), ("top-campaigns", {"min_sent": 0}),
    ("top-campaigns", {"metric": "revenue"}), ("dashboard", {"days": 0}), ("dashboard", {"days": 366}),
    ("campaigns/1/engagement", {"timezone": "Mars/Olympus"}), ("campaigns/1/engagement", {"timezone": ""}),
])  # fmt: skip
def test_what_is_out_of_bounds_is_422(viewer: httpx.Client, path: str, wrong: dict[str, Any]) -> None:
    answer = viewer.get(f"/api/v1/analytics/{path}", params=wrong)
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["query", *wrong]


def test_periods_are_filled_up_to_now(viewer: httpx.Client) -> None:
    today = datetime.now(UTC)
    for granularity, days, count, last in (
        ("hour", 2, 48, f"{today:%Y-%m-%d %H}:00"), ("day", 30, 30, f"{today:%Y-%m-%d}"),
        ("week", 1, 1, f"{today.isocalendar().year}-W{today.isocalendar().week:02}"),
    ):
        asked = {"granularity": granularity, "days": days, "fill": True}
        found = viewer.get("/api/v1/analytics/timeseries", params=asked).json()
        assert (found["granularity"], found["days"]) == (granularity, days)
        assert list(found["series"]) == ["sent", "delivered", "opened", "clicked", "bounced", "complained",
                                         "unsubscribed"]  # fmt: skip
        assert all(len(points) == count and points[-1]["period"] == last for points in found["series"].values())


def test_cohorts_of_the_api_are_those_of_the_view(service: LiveService, viewer: httpx.Client) -> None:
    cohorts.refresh(service.engine, as_of=datetime.now(UTC))
    cells = viewer.get("/api/v1/analytics/cohort", params={"periods": 4, "granularity": "month"}).json()
    shown = {"granularity": "month", "limit": 10_000}
    rows = {(row["cohort_label"], row["period_offset"]): row
            for row in viewer.get("/api/v1/analytics/views/contact_cohorts", params=shown).json()}  # fmt: skip
    assert cells and {cell["period_offset"] for cell in cells} == {0, 1, 2, 3}
    for cell in cells:
        row = rows.get((cell["cohort_period"], cell["period_offset"]))
        assert cell["active_count"] == (row and row["active_count"])
        assert row is None or row["cohort_size"] == cell["cohort_size"]


def test_views_are_listed_with_their_columns(viewer: httpx.Client) -> None:
    found = {row["view"]: row for row in viewer.get("/api/v1/analytics/views").json()}
    assert {"campaign_performance", "contact_cohorts", "dim_contacts", "fct_orders", "lifecycle_funnel"} <= set(found)
    performance = found["campaign_performance"]
    kinds = {column["name"]: column["type"] for column in performance["columns"]}
    assert (kinds["campaign_id"], kinds["open_rate"], kinds["reporting_currency"], kinds["sent_at"]) == (
        "bigint", "numeric(7,4)", "char(3)", "timestamptz")  # fmt: skip
    assert performance["grain"] == "campaign" and performance["as_of"] is not None
    assert "contacts" not in found, "only what analysts may read"


def test_rows_of_a_view_by_time_and_grain(service: LiveService, viewer: httpx.Client) -> None:
    place, key = "/api/v1/analytics/views/fct_orders", uuid4().hex
    with service.engine.begin() as tx:
        contact = make_contact(tx, email=f"{key}@shop.example")
        orders = [make_order(tx, contact, datetime(1999, 5, day, 23, 59, tzinfo=UTC), order_id=f"{key}{day}",
                             total="12.5", currency="EUR", fx_rate="1.2") for day in (1, 2, 3)]  # fmt: skip
    days = {"from": "1999-05-01", "to": "1999-05-02"}
    answer = viewer.get(place, params=days)
    assert [row["order_id"] for row in answer.json()] == [str(order) for order in orders[:2]]
    assert answer.headers["X-Total-Count"] == "2"
    row = answer.json()[0]
    assert (row["contact_id"], row["placed_at"], row["placed_month"], row["total"], row["net_revenue"]) == (
        str(contact), "1999-05-01T23:59:00Z", "1999-05-01", "12.50", "15.00")  # fmt: skip
    one = viewer.get(place, params={"order_id": str(orders[2])}).json()
    assert [found["order_id"] for found in one] == [str(orders[2])]
    first = viewer.get(place, params={**days, "limit": 1})
    second = viewer.get(place, params={**days, "limit": 1, "cursor": first.headers["X-Next-Cursor"]})
    assert [first.json()[0]["order_id"], second.json()[0]["order_id"]] == [str(order) for order in orders[:2]]
    assert "X-Next-Cursor" not in second.headers


def test_csv_of_a_view_is_safe_to_open(service: LiveService, viewer: httpx.Client) -> None:
    with service.engine.begin() as tx:
        campaign = make_campaign(tx, name='=HYPERLINK("http://x"),"', created_at=datetime(1999, 6, 1, tzinfo=UTC))
        contact = make_contact(tx, email=f"{uuid4().hex}@shop.example", created_at=datetime(1999, 6, 1, tzinfo=UTC))
        names = sorted([f"a|b {uuid4().hex}", f"=c {uuid4().hex}"])
        for name in names:
            make_tag(tx, name, [contact])
    asked = {"campaign_id": campaign, "format": "csv"}
    answer = viewer.get("/api/v1/analytics/views/dim_campaigns", params=asked)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="dim_campaigns.csv"'
    header, row = csv.reader(io.StringIO(answer.text, newline=""))
    found = dict(zip(header, row, strict=True))
    assert found["campaign_name"] == """'=HYPERLINK("http://x"),\""""
    assert (found["campaign_id"], found["created_at"], found["sent_at"], found["track_opens"]) == (
        str(campaign), "1999-06-01T00:00:00Z", "", "true")  # fmt: skip
    asked = {"contact_id": contact, "format": "csv"}
    people = csv.DictReader(io.StringIO(viewer.get("/api/v1/analytics/views/dim_contacts", params=asked).text))
    (person,) = people
    assert person["tags"].endswith(names[1].replace("|", "\\|")) and person["tags"].startswith("'=c ")
    assert person["signup_month"] == "1999-06-01"


def test_a_view_is_read_in_time_or_refused(viewer: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_views, "TIMEOUT_MS", 1)
    answers = [viewer.get("/api/v1/analytics/views/campaign_performance", params={"limit": 10_000}) for _ in range(20)]
    refused = [answer for answer in answers if answer.status_code == 422]
    assert refused and "takes longer than 0.001 seconds" in refused[0].json()["detail"][0]["msg"]
