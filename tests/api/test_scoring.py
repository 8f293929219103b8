"""Scores over HTTP: stored, as of a moment, explained, told over time, and who leads."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.api.test_scoring_rules import make_rule
from tests.live_service import LiveService

SCORING = "/api/v1/scoring"
ABSENT = "987654321987654321"


def make_contact(client: httpx.Client, **fields: Any) -> str:
    """A contact nobody knows anything of but the address."""
    answer = client.post("/api/v1/contacts/", json={"email": f"{uuid4().hex}@shop.example", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def tell(client: httpx.Client, contact_id: str, event_type: str, at: datetime, **properties: Any) -> None:
    """Have an event of the past."""
    body = {"type": event_type, "contact_id": contact_id, "occurred_at": at.isoformat(), "properties": properties}
    assert client.post("/api/v1/events/", json=body).status_code == 202


def ago(**parts: float) -> datetime:
    return datetime.now(UTC) - timedelta(**parts)


def recalculate(client: httpx.Client, contact_id: str) -> dict[str, Any]:
    answer = client.post(f"{SCORING}/contacts/{contact_id}/recalculate")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_score_is_made_by_recalculating(editor: httpx.Client, viewer: httpx.Client) -> None:
    contact = make_contact(editor, first_name="Ana", country="PT")
    path = f"{SCORING}/contacts/{contact}"
    answer = viewer.get(path)
    assert (answer.status_code, answer.json()["detail"]) == (404, "No score found for this contact")
    rule = make_rule(editor, points=10, decay_days=30)
    tell(editor, contact, rule["event_type"], ago(days=30))
    score = recalculate(editor, contact)
    assert score["engagement_score"] == pytest.approx(5, abs=1e-4)
    assert score["profile_score"] == 11
    assert score["recency_score"] == pytest.approx(20 * math.exp(-0.9), abs=1e-4)
    assert score["total_score"] == pytest.approx(5 + 11 + 20 * math.exp(-0.9), abs=0.006)
    assert (score["grade"], score["lifecycle_stage"]) == ("F", "lead")
    assert score["contact_id"] == contact and score["as_of"].endswith("Z") and score["score_updated_at"]
    assert viewer.get(path).json() == score
    (snapshot,) = viewer.get(f"{path}/snapshots").json()
    assert snapshot == {**score, "source": "recalculated", "score_updated_at": snapshot["score_updated_at"]}


def test_recalculating_nobody_is_404(editor: httpx.Client) -> None:
    for unknown in (ABSENT, "x"):
        answer = editor.post(f"{SCORING}/contacts/{unknown}/recalculate")
        assert (answer.status_code, answer.json()["detail"]) == (404, f"Contact {unknown} not found")


def test_a_past_moment_is_evaluated_and_not_kept(editor: httpx.Client, service: LiveService) -> None:
    contact = make_contact(editor)
    rule = make_rule(editor, points=8)
    tell(editor, contact, rule["event_type"], ago(hours=1))
    with service.engine.begin() as tx:
        earlier = text("update contacts set created_at = now() - interval '1 year' where contact_id = :id")
        tx.execute(earlier, {"id": int(contact)})
    path = f"{SCORING}/contacts/{contact}"
    before = editor.get(path, params={"as_of": ago(hours=2).isoformat()}).json()
    after = editor.get(path, params={"as_of": ago(minutes=30).isoformat()}).json()
    assert (before["engagement_score"], after["engagement_score"]) == (0, 8)
    assert (before["last_activity_at"], before["score_updated_at"]) == (None, None)
    assert before["lifecycle_stage"] == "dormant" and after["lifecycle_stage"] == "lead"
    assert editor.get(path).status_code == 404, "nothing was stored"
    assert editor.get(f"{path}/snapshots").json() == []
    for past_creation in (ago(days=800).isoformat(),):
        assert editor.get(path, params={"as_of": past_creation}).status_code == 404
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for where in (path, f"{path}/explain"):
        answer = editor.get(where, params={"as_of": ahead})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "as_of"])
        assert editor.get(where, params={"as_of": "2026-01-01T00:00:00"}).json()["code"] == "timezone_required"


def test_the_same_moment_gives_the_same_number(editor: httpx.Client) -> None:
    contact = make_contact(editor, first_name="Ana")
    rule = make_rule(editor, points=9, decay_days=3)
    for hours in (1, 30, 200):
        tell(editor, contact, rule["event_type"], ago(hours=hours))
    stored = recalculate(editor, contact)
    again = editor.get(f"{SCORING}/contacts/{contact}", params={"as_of": stored["as_of"]}).json()
    assert {**again, "score_updated_at": stored["score_updated_at"]} == stored


def test_an_explanation_adds_up(editor: httpx.Client, viewer: httpx.Client) -> None:
    contact = make_contact(
        editor, first_name="Ana", last_name=" ", phone="+351 1", custom_fields={"size": "M", "color": "red"}
    )
    capped = make_rule(editor, points=10, max_per_contact=2, decay_days=7)
    strict = make_rule(editor, points=4, event_type=capped["event_type"], condition={"form": "demo"})
    off = make_rule(editor, points=100, event_type=capped["event_type"], active=False)
    silent = make_rule(editor, points=50)
    for days in (1, 2, 3):
        tell(editor, contact, capped["event_type"], ago(days=days), form="demo" if days == 1 else "other")
    body = {"contact_id": contact, "event_type": "fair", "points": -1.5}
    assert editor.post(f"{SCORING}/events", json=body).status_code == 201
    score = recalculate(editor, contact)
    found = viewer.get(f"{SCORING}/contacts/{contact}/explain", params={"as_of": score["as_of"]}).json()
    parts = {part["rule_id"]: part for part in found["rules"]}
    assert (parts[capped["id"]]["matched"], parts[capped["id"]]["counted"]) == (3, 2)
    assert parts[capped["id"]]["points"] == pytest.approx(10 * 0.5 ** (3 / 7) + 10 * 0.5 ** (2 / 7), abs=1e-3)
    assert parts[strict["id"]] == {
        "rule_id": strict["id"], "name": strict["name"], "matched": 1, "counted": 1, "points": 4,
    }  # fmt: skip
    assert parts[silent["id"]]["matched"] == parts[silent["id"]]["points"] == 0
    assert off["id"] not in parts
    assert found["manual"] == -1.5
    assert found["profile"] == {
        "email": 4, "first_name": 4, "last_name": 0, "phone": 3, "country": 0, "custom_fields": 3,
    }  # fmt: skip
    assert sum(found["profile"].values()) == score["profile_score"]
    engagement = sum(part["points"] for part in found["rules"]) + found["manual"]
    assert engagement == pytest.approx(score["engagement_score"], abs=1e-8)
    assert found["recency"] == {"last_activity_at": score["last_activity_at"], "points": score["recency_score"]}
    total = max(0, engagement) + sum(found["profile"].values()) + found["recency"]["points"]
    assert round(total, 2) == pytest.approx(score["total_score"], abs=1e-9)
    assert found["stage"] == {"stage": score["lifecycle_stage"], "reason": f"score {score['total_score']:g}"}
    assert found["rule_version"] == score["rule_version"]
    assert viewer.get(f"{SCORING}/contacts/{contact}/explain").json()["stage"]["stage"] == score["lifecycle_stage"]


def test_an_explanation_has_churn(editor: httpx.Client) -> None:
    contact = make_contact(editor, subscribed=False)
    found = editor.get(f"{SCORING}/contacts/{contact}/explain").json()
    assert found["stage"] == {"stage": "churned", "reason": "unsubscribed"}
    assert recalculate(editor, contact)["lifecycle_stage"] == "subscriber", "a score moves nobody into churned"


def test_points_by_hand_take_effect_at_once(editor: httpx.Client, viewer: httpx.Client) -> None:
    contact = make_contact(editor)
    body = {"contact_id": contact, "event_type": "page_visited", "points": 25.5, "reason": "Fair", "metadata": {"a": 1}}
    given = editor.post(f"{SCORING}/events", json=body).json()
    version = viewer.get(f"{SCORING}/rules/versions", params={"limit": 1}).json()[0]["version"]
    assert given == {
        "id": given["id"], "contact_id": contact, "rule_id": None, "event_type": "page_viewed", "points": 25.5,
        "reason": "Fair", "created_at": given["created_at"], "occurred_at": given["created_at"],
        "rule_version": version,
    }  # fmt: skip
    score = viewer.get(f"{SCORING}/contacts/{contact}").json()
    assert (score["engagement_score"], score["recency_score"], score["total_score"]) == (25.5, 20, 49.5)
    assert (score["lifecycle_stage"], score["last_activity_at"]) == ("mql", given["created_at"])
    assert viewer.get(f"{SCORING}/contacts/{contact}/snapshots").json()[0]["source"] == "running"
    assert viewer.get(f"{SCORING}/contacts/{contact}/history").json() == [given]
    minus = editor.post(f"{SCORING}/events", json={**body, "points": -100}).json()
    lower = viewer.get(f"{SCORING}/contacts/{contact}").json()
    assert (lower["engagement_score"], lower["lifecycle_stage"]) == (0, "lead"), "down the ladder, and the floor holds"
    assert viewer.get(f"{SCORING}/contacts/{contact}/history").json() == [minus, given]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"points": "5"}, 422), ({"points": 1e6 + 1}, 422), ({"points": -1e300}, 422), ({"points": None}, 422),
        ({"reason": "x" * 501}, 422), ({"event_type": "x" * 51}, 422), ({"event_type": ""}, 422),
        ({"metadata": [1]}, 422), ({"metadata": {"a": "x" * 270_000}}, 422), ({"contact_id": ABSENT}, 404),
        ({"contact_id": "x"}, 404), ({"contact_id": None}, 422),
    ],
    ids=str,
)  # fmt: skip
def test_an_award_that_is_refused_leaves_nothing(editor: httpx.Client, fields: dict[str, Any], status: int) -> None:
    contact = make_contact(editor)
    body = {"contact_id": contact, "event_type": "fair", "points": 5, **fields}
    answer = editor.post(f"{SCORING}/events", json=body)
    assert answer.status_code == status, answer.text
    assert status != 404 or answer.json()["detail"] == "Contact not found"
    assert editor.get(f"{SCORING}/contacts/{contact}").status_code == 404
    assert editor.get(f"{SCORING}/contacts/{contact}/history").json() == []


def test_processing_an_event_applies_the_rules_now(editor: httpx.Client, viewer: httpx.Client) -> None:
    contact = make_contact(editor)
    once = make_rule(editor, points=12, max_per_contact=1, decay_days=5)
    demo = make_rule(editor, points=3, event_type=once["event_type"], condition={"form": "demo"})
    make_rule(editor, points=90, event_type=once["event_type"], active=False)
    body = {"contact_id": contact, "event_type": once["event_type"], "metadata": {"form": "demo"}}
    done = editor.post(f"{SCORING}/events/process", json=body).json()
    assert done["processed"] == 2 and [event["points"] for event in done["events"]] == [12, 3]
    told = viewer.get(f"{SCORING}/contacts/{contact}/history").json()
    assert [(event["id"], event["rule_id"], event["reason"]) for event in reversed(told)] == [
        (done["events"][0]["id"], once["id"], f"Rule: {once['name']}"),
        (done["events"][1]["id"], demo["id"], f"Rule: {demo['name']}"),
    ]
    score = viewer.get(f"{SCORING}/contacts/{contact}").json()
    assert (score["engagement_score"], score["profile_score"], score["recency_score"]) == (15, 4, 20)
    again = editor.post(f"{SCORING}/events/process", json={**body, "metadata": {"form": "other"}}).json()
    assert again == {"processed": 0, "events": []}, "the cap lets the first one count only"
    assert viewer.get(f"{SCORING}/contacts/{contact}/history").json() == told
    (stored, first) = viewer.get("/api/v1/events/", params={"contact_id": contact, "type": once["event_type"]}).json()
    assert (stored["source"], stored["properties"], first["properties"]) == (
        "observation", {"form": "other"}, {"form": "demo"},
    )  # fmt: skip
    recalculated = recalculate(editor, contact)
    assert recalculated["engagement_score"] == pytest.approx(15, abs=1e-3), "what is told once is not counted twice"


def test_an_observation_counts_in_scores_and_is_no_order(editor: httpx.Client) -> None:
    contact = make_contact(editor)
    for event_type in ("opened", "order_placed", "email_bounced"):
        body = {"contact_id": contact, "event_type": event_type}
        assert editor.post(f"{SCORING}/events/process", json=body).status_code == 200
    types = {event["type"] for event in editor.get(f"/api/v1/contacts/{contact}/events").json()}
    assert types >= {"email_opened", "order_placed", "email_bounced"}
    assert editor.get("/api/v1/orders/", params={"contact_id": contact}).json() == []
    assert editor.get(f"{SCORING}/contacts/{contact}").json()["lifecycle_stage"] == "lead"
    answer = editor.post(f"{SCORING}/events/process", json={"contact_id": ABSENT, "event_type": "opened"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")


def test_snapshots_are_told_newest_first_within_bounds(editor: httpx.Client) -> None:
    contact = make_contact(editor)
    path = f"{SCORING}/contacts/{contact}/snapshots"
    moments = [recalculate(editor, contact)["as_of"] for _ in range(3)]
    assert [row["as_of"] for row in editor.get(path).json()] == moments[::-1]
    found = editor.get(path, params={"since": moments[1], "until": moments[2]})
    assert [row["as_of"] for row in found.json()] == [moments[1]] and found.headers["X-Total-Count"] == "1"
    answer = editor.get(f"{SCORING}/contacts/{ABSENT}/snapshots")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")


def test_the_leaderboard_is_by_total(editor: httpx.Client, viewer: httpx.Client) -> None:
    points = [700_001.25, 700_003, 700_002, 700_002]
    people = [make_contact(editor, first_name="Ana", last_name=f"Silva {number}") for number in range(4)]
    for contact, given in zip(people, points, strict=True):
        editor.post(f"{SCORING}/events", json={"contact_id": contact, "event_type": "fair", "points": given})
    board = f"{SCORING}/leaderboard"
    rows = viewer.get(board, params={"min_score": 700_000}).json()
    assert [row["contact_id"] for row in rows] == [people[1], people[3], people[2], people[0]]
    assert (rows[0]["name"], rows[0]["total_score"], rows[0]["grade"]) == ("Ana Silva 1", 700_034, "A+")
    assert rows[0]["email"].endswith("@shop.example") and rows[0]["last_activity_at"]
    seen, params = [], {"min_score": 700_000, "limit": 1}
    page = viewer.get(board, params=params)
    seen += page.json()
    while "X-Next-Cursor" in page.headers:
        page = viewer.get(board, params={**params, "cursor": page.headers["X-Next-Cursor"]})
        seen += page.json()
    assert seen == rows and page.headers["X-Total-Count"] == "4"
    assert viewer.get(board, params={"min_score": 700_034.01}).json() == []
    stage = rows[0]["lifecycle_stage"]
    assert viewer.get(board, params={"min_score": 700_000, "lifecycle_stage": stage}).json() == rows
    assert viewer.get(board, params={"min_score": 700_000, "lifecycle_stage": "new"}).json() == []
    for wrong in ({"lifecycle_stage": "vip"}, {"min_score": "nan"}, {"min_score": "inf"}, {"min_score": "x"}):
        assert viewer.get(board, params=wrong).status_code == 422


def test_stages_of_scored_contacts_are_counted(editor: httpx.Client, viewer: httpx.Client) -> None:
    make_contact(editor)
    before = viewer.get(f"{SCORING}/lifecycle").json()
    assert list(before) == [
        "new", "subscriber", "lead", "mql", "sql", "opportunity", "customer", "evangelist", "dormant", "churned",
    ]  # fmt: skip
    recalculate(editor, make_contact(editor))
    assert viewer.get(f"{SCORING}/lifecycle").json() == {**before, "subscriber": before["subscriber"] + 1}
