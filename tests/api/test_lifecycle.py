"""The lifecycle over HTTP: supposed evaluations, processing, engagement, whom to win back, the report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.api.test_scoring import ABSENT, SCORING, ago, make_contact, recalculate, tell
from tests.live_service import LiveService

LIFECYCLE = "/api/v1/lifecycle"
_ORDER = {"currency": "EUR", "total": "10", "lines": []}


def suppose(client: httpx.Client, contact_id: str, **fields: Any) -> dict[str, Any]:
    answer = client.post(f"{LIFECYCLE}/evaluate", json={"contact_id": contact_id, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def change(service: LiveService, statement: str, contact_id: str, **values: Any) -> None:
    """Make something happen that has no door of its own."""
    with service.engine.begin() as tx:
        assert tx.execute(text(statement), {"id": int(contact_id), **values}).rowcount == 1


@pytest.mark.parametrize(
    ("stage", "score", "expected"),
    [
        ("new", 0, "subscriber"), ("new", 20, "lead"), ("lead", 40, "mql"), ("mql", 19.99, "subscriber"),
        ("sql", 55, "sql"), ("opportunity", 0, "subscriber"), ("lead", 70, "customer"), ("customer", 0, "customer"),
        ("customer", 90, "evangelist"), ("evangelist", 0, "evangelist"), ("lead", -1e300, "subscriber"),
    ],
)  # fmt: skip
def test_the_score_sets_the_ladder(
    viewer: httpx.Client, editor: httpx.Client, stage: str, score: float, expected: str
) -> None:
    contact = make_contact(editor)
    for who in (contact, ABSENT):
        found = suppose(viewer, who, current_stage=stage, score=score)
        assert (found["previous_stage"], found["new_stage"]) == (stage, expected)
        assert (found["transitioned"], found["contact_id"]) == (stage != expected, who)
        assert found["rule_description"] and found["reason"]


def test_nothing_supposed_is_saved(viewer: httpx.Client, editor: httpx.Client) -> None:
    contact = make_contact(editor)
    assert suppose(viewer, contact, score=95)["new_stage"] == "evangelist"
    assert suppose(viewer, contact)["new_stage"] == "subscriber"
    assert editor.get(f"/api/v1/contacts/{contact}").json()["lifecycle_stage"] in (None, "new")
    assert editor.get(f"{SCORING}/contacts/{contact}").status_code == 404


def test_facts_override_the_ladder(viewer: httpx.Client, editor: httpx.Client) -> None:
    contact = make_contact(editor)
    tell(editor, contact, "checkout_started", ago(days=2), cart_id=uuid4().hex, currency="EUR", total="10")
    found = suppose(viewer, contact, score=60)
    assert (found["new_stage"], found["reason"]) == ("opportunity", "checkout without an order")
    tell(editor, contact, "order_placed", ago(days=1), order_id=uuid4().hex, **_ORDER)
    found = suppose(viewer, contact, score=60)
    assert (found["new_stage"], found["reason"]) == ("customer", "order")
    assert recalculate(editor, contact)["lifecycle_stage"] == "customer"
    found = suppose(viewer, contact, current_stage="lead", score=60)  # whatever stage they really are in
    assert (found["new_stage"], found["reason"]) == ("customer", "order")
    gone = make_contact(editor, subscribed=False)
    found = suppose(viewer, gone, current_stage="lead", score=60)
    assert (found["new_stage"], found["reason"]) == ("churned", "unsubscribed")
    assert suppose(viewer, gone, current_stage="customer", score=0)["new_stage"] == "customer"


def test_silence_makes_dormant_and_an_activity_ends_it(
    viewer: httpx.Client, editor: httpx.Client, service: LiveService
) -> None:
    quiet = make_contact(editor)
    change(service, "update contacts set created_at = now() - interval '70 days' where contact_id = :id", quiet)
    for stage, expected in (("subscriber", "dormant"), ("sql", "dormant"), ("new", "lead"), ("opportunity", "lead")):
        assert suppose(viewer, quiet, current_stage=stage, score=30)["new_stage"] == expected
    assert suppose(viewer, quiet, current_stage="dormant", score=30)["new_stage"] == "dormant"
    tell(editor, quiet, "page_viewed", ago(days=1))
    assert suppose(viewer, quiet, current_stage="dormant", score=30)["new_stage"] == "lead"
    assert suppose(viewer, quiet, current_stage="churned", score=30)["new_stage"] == "churned", "without new consent"


def test_wrong_inputs_are_422(viewer: httpx.Client) -> None:
    for fields in ({"current_stage": "vip"}, {"score": "5"}, {"score": None}, {"contact_id": None}, {"score": True},
                   {"contact_id": False}):  # fmt: skip
        answer = viewer.post(f"{LIFECYCLE}/evaluate", json={"contact_id": "1", **fields})
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_error"), fields


def test_processing_takes_who_waits_longest(editor: httpx.Client, service: LiveService) -> None:
    while editor.post(f"{LIFECYCLE}/process", params={"limit": 1000}).json()["transitioned"]:
        pass
    gone, bought, still = make_contact(editor, subscribed=False), make_contact(editor), make_contact(editor)
    tell(editor, bought, "order_placed", ago(days=1), order_id=uuid4().hex, **_ORDER)
    recalculate(editor, still)
    old = text("update contact_stages set evaluated_at = '2020-01-01' where contact_id = :id")
    with service.engine.begin() as tx:
        tx.execute(old, {"id": int(still)})
    done = editor.post(f"{LIFECYCLE}/process", params={"limit": 3}).json()
    assert (done["processed"], done["transitioned"]) == (3, 2)
    assert [(move["contact_id"], move["previous_stage"], move["new_stage"], move["reason"], move["transitioned"])
            for move in done["transitions"]] == [
        (gone, "new", "churned", "unsubscribed", True), (bought, "new", "customer", "order", True),
    ]  # fmt: skip
    for contact, stage in ((gone, "churned"), (bought, "customer"), (still, "subscriber")):
        assert editor.get(f"{SCORING}/contacts/{contact}").json()["lifecycle_stage"] == stage
    with service.engine.begin() as tx:
        ids = {"ids": [int(gone), int(bought), int(still)]}
        least = tx.scalar(text("select min(evaluated_at) from contact_stages where contact_id = any(:ids)"), ids)
    assert least > ago(minutes=5), "their turn comes after everybody else's"
    for limit in (0, 1001, "x"):
        assert editor.post(f"{LIFECYCLE}/process", params={"limit": limit}).status_code == 422


def test_engagement_counts_the_days_asked_for(viewer: httpx.Client, editor: httpx.Client) -> None:
    contact = make_contact(editor)
    observe = {"contact_id": contact}
    for event_type in ("opened", "opened", "clicked", "bounced", "unsubscribed"):
        editor.post(f"{SCORING}/events/process", json={**observe, "event_type": event_type})
    tell(editor, contact, "page_viewed", ago(days=20))
    tell(editor, contact, "page_viewed", ago(days=40))
    path = f"{LIFECYCLE}/contacts/{contact}/engagement"
    found = viewer.get(path, params={"days": 28}).json()
    assert (found["total_opens"], found["total_clicks"]) == (2, 1)
    assert (found["total_bounces"], found["total_unsubscribes"]) == (1, 1)
    assert found["engagement_velocity"] == 1.0, "two opens, a click and a visit in four weeks"
    assert found["last_activity_at"] == found["last_click_at"] > found["last_open_at"]
    assert found["days_since_last_activity"] == 0
    assert viewer.get(path, params={"days": 1}).json()["engagement_velocity"] == 3.0, "less than a week counts as one"
    assert viewer.get(path).json()["engagement_velocity"] == 0.39
    for unknown in (ABSENT, "x"):
        assert viewer.get(f"{LIFECYCLE}/contacts/{unknown}/engagement").json() == {
            "total_opens": 0, "total_clicks": 0, "total_bounces": 0, "total_unsubscribes": 0, "last_open_at": None,
            "last_click_at": None, "last_activity_at": None, "days_since_last_activity": None,
            "engagement_velocity": 0.0,
        }  # fmt: skip
    for days in (0, 366):
        assert viewer.get(path, params={"days": days}).status_code == 422


def store_score(service: LiveService, contact_id: str, engagement: float, quiet: timedelta) -> None:
    """A stored score whose last activity is that long ago."""
    with service.engine.begin() as tx:
        tx.execute(
            text(
                "insert into contact_scores (contact_id, total_score, engagement_score, profile_score, recency_score, "
                "grade, last_activity_at, as_of, rule_version) values (:id, :points, :points, 0, 0, 'C', :at, now(), 1)"
            ),
            {"id": int(contact_id), "points": engagement, "at": datetime.now(UTC) - quiet},
        )


def test_who_went_quiet_is_listed_by_engagement(
    viewer: httpx.Client, editor: httpx.Client, service: LiveService
) -> None:
    day = timedelta(days=1)
    given = {"high": (41.5, 40 * day), "edge": (30, 30 * day + timedelta(minutes=1)), "low": (5, 40 * day),
             "long": (50, 91 * day + timedelta(minutes=1)), "soon": (60, 29 * day), "late": (12, 90.9 * day),
             "gone": (70, 50 * day)}  # fmt: skip
    people = {
        name: make_contact(editor, first_name=name, subscribed=name != "gone") for name in given
    }  # fmt: skip
    for name, (engagement, quiet) in given.items():
        store_score(service, people[name], engagement, quiet)
    path = f"{LIFECYCLE}/reengagement"
    rows = [row for row in viewer.get(path, params={"limit": 500}).json() if row["contact_id"] in people.values()]
    assert [(row["name"], row["days_inactive"], row["reengagement_priority"]) for row in rows] == [
        ("high", 40, "high"), ("edge", 30, "medium"), ("late", 90, "medium"),
    ]  # fmt: skip
    assert (rows[0]["engagement_score"], rows[0]["lifecycle_stage"]) == (41.5, "new")
    assert rows[0]["email"].endswith("@shop.example")
    assert len(viewer.get(path, params={"limit": 1}).json()) == 1
    answer = viewer.get(path, params={"min_inactive_days": 60, "max_inactive_days": 59})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "min_inactive_days"])
    for wrong in ({"min_inactive_days": 6}, {"max_inactive_days": 366}, {"limit": 0}, {"limit": 501}):
        assert viewer.get(path, params=wrong).status_code == 422


def test_the_report_adds_up(viewer: httpx.Client, editor: httpx.Client) -> None:
    recalculate(editor, make_contact(editor))
    report = viewer.get(f"{LIFECYCLE}/report").json()
    counts = viewer.get(f"{SCORING}/lifecycle").json()
    assert {stage: one["count"] for stage, one in report["stages"].items()} == counts
    total = report["total_contacts"]
    assert total == sum(counts.values()) > 0
    assert report["stages"]["subscriber"]["pct"] == pytest.approx(100 * counts["subscriber"] / total, abs=0.0501)
    health = report["health"]
    assert health["churn_rate"] == report["stages"]["churned"]["pct"]
    assert health["dormant_rate"] == report["stages"]["dormant"]["pct"]
    assert sum(health.values()) == pytest.approx(100, abs=0.11)


def test_the_averages_of_a_stage(service: LiveService, viewer: httpx.Client, editor: httpx.Client) -> None:
    people = [make_contact(editor) for _ in range(2)]
    before = viewer.get(f"{LIFECYCLE}/report").json()["stages"]["opportunity"]
    for contact, points in zip(people, (10.0, 20.5), strict=True):
        store_score(service, contact, points, timedelta(days=400))
        with service.engine.begin() as tx:
            stage = "insert into contact_stages values (:id, 'opportunity', now(), now())"
            tx.execute(text(stage), {"id": int(contact)})
    after = viewer.get(f"{LIFECYCLE}/report").json()["stages"]["opportunity"]
    assert after["count"] == before["count"] + 2
    if not before["count"]:
        assert (after["avg_score"], after["avg_engagement"]) == (15.3, 15.3)
