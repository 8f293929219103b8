"""Recomputations over HTTP: only administrators ask, within bounds, and everybody sees how far they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from mautolib.scoring import recomputations
from tests.api.test_scoring import SCORING, ago, make_contact, recalculate, tell
from tests.api.test_scoring_rules import make_rule, newest
from tests.live_service import LiveService

ASK = f"{SCORING}/recomputations"


def today() -> Any:
    return datetime.now(UTC).date()


def ask(client: httpx.Client, first: Any, last: Any, **more: Any) -> dict[str, Any]:
    answer = client.post(ASK, json={"from": str(first), "to": str(last), **more})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_past_days_are_queued_and_told(admin: httpx.Client, viewer: httpx.Client) -> None:
    queued = ask(admin, first="2024-01-01", last="2024-12-31", known_at="2025-01-01T00:00:00+01:00")
    number = queued["recomputation_id"]
    assert queued == {"recomputation_id": number, "status_url": f"{ASK}/{number}"}
    found = viewer.get(queued["status_url"]).json()
    assert found == {
        "id": number, "status": "queued", "from": "2024-01-01", "to": "2024-12-31",
        "rule_version": newest(viewer)["version"], "known_at": "2024-12-31T23:00:00Z", "done_through": None,
        "contacts": 0, "snapshots": 0, "grade_matrix": {}, "error": None, "created_at": found["created_at"],
        "finished_at": None,
    }  # fmt: skip
    for unknown in ("987654321987654321", "x"):
        answer = viewer.get(f"{ASK}/{unknown}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "Recomputation not found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"from": "2024-01-02", "to": "2024-01-01"}, "from"), ({"from": "2023-01-01", "to": "2024-01-02"}, "to"),
        ({"from": "2024-01-01", "to": str(today() + timedelta(days=1))}, "to"), ({"from": "2024-01-01"}, "to"),
        ({"from": "2024-02-30", "to": "2024-03-01"}, "from"), ({"from": 1, "to": "2024-01-01"}, "from"),
        ({"from": "2024-01-01", "to": "2024-01-01", "rule_version": 2**31 - 1}, "rule_version"),
        ({"from": "2024-01-01", "to": "2024-01-01", "rule_version": 0}, "rule_version"),
        ({"from": "2024-01-01", "to": "2024-01-01", "known_at": "2024-01-01T00:00:00"}, "known_at"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_recomputed_is_422(admin: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = admin.post(ASK, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["body", field]


def test_a_day_again_by_other_rules(admin: httpx.Client, service: LiveService) -> None:
    contact = make_contact(admin)
    rule = make_rule(admin, points=30)
    version = newest(admin)["version"]
    tell(admin, contact, rule["event_type"], ago(days=3))
    admin.patch(f"{SCORING}/rules/{rule['id']}", json={"points": 80})
    with service.engine.begin() as tx:
        tx.exec_driver_sql(f"update contacts set created_at = now() - interval '9 days' where contact_id = {contact}")
    score = recalculate(admin, contact)
    first, last = today() - timedelta(days=1), today()
    queued = ask(admin, first=first, last=last, rule_version=version)
    done = recomputations.run_waiting(service.engine, clock=lambda: datetime.now(UTC))
    assert queued["recomputation_id"] in [str(one.recomputation_id) for one in done]
    found = admin.get(queued["status_url"]).json()
    assert (found["status"], found["done_through"], found["error"]) == ("completed", str(last), None)
    matrix = found["grade_matrix"]
    assert sum(sum(new.values()) for new in matrix.values()) == found["contacts"] > 0
    assert found["snapshots"] >= 2 and found["finished_at"]
    path = f"{SCORING}/contacts/{contact}"
    rows = [row for row in admin.get(f"{path}/snapshots").json() if row["source"] == "recomputed"]
    assert [(row["as_of"], row["rule_version"], row["engagement_score"]) for row in rows] == [
        (f"{last}T00:00:00Z", version, 30), (f"{first}T00:00:00Z", version, 30),
    ]  # fmt: skip
    assert admin.get(path).json() == score, "the current score stays"
