"""Scoring rules over HTTP: kept by version, every value within its bounds."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

RULES, VERSIONS = "/api/v1/scoring/rules", "/api/v1/scoring/rules/versions"


def make_rule(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    """A rule for a type of event of its own."""
    body = {"name": f"rule {uuid4().hex}", "event_type": f"type {uuid4().hex[:20]}", **fields}
    answer = client.post(RULES, json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def newest(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get(VERSIONS, params={"limit": 1}).json()[0]
    return found


def test_a_rule_has_the_defaults_of_the_contract(editor: httpx.Client, viewer: httpx.Client) -> None:
    made = make_rule(editor, name="  Fair  ", event_type="page_visited")
    assert {name: value for name, value in made.items() if name not in ("id", "created_at")} == {
        "name": "Fair", "description": "", "event_type": "page_viewed", "condition": {}, "points": 1,
        "max_per_contact": 0, "decay_days": 0, "active": True,
    }  # fmt: skip
    assert viewer.get(f"{RULES}/{made['id']}").json() == made
    assert viewer.get(RULES).json()[0] == made


def test_every_change_is_a_version_of_all_rules(admin: httpx.Client, editor: httpx.Client) -> None:
    me = editor.get("/api/v1/auth/me").json()["id"]
    made = make_rule(editor, points=3)
    first = newest(editor)
    assert (first["rules"][-1], first["created_by"]) == (made, f"user:{me}")
    assert editor.patch(f"{RULES}/{made['id']}", json={"points": 3}).json() == made
    assert editor.patch(f"{RULES}/{made['id']}", json={}).json() == made
    assert newest(editor) == first, "what changes nothing makes no version"
    changed = admin.patch(f"{RULES}/{made['id']}", json={"points": -7, "active": False}).json()
    assert changed == {**made, "points": -7, "active": False}
    second = newest(editor)
    assert (second["version"], second["rules"][-1]) == (first["version"] + 1, changed)
    assert second["created_by"] == f"user:{admin.get('/api/v1/auth/me').json()['id']}"
    assert editor.delete(f"{RULES}/{made['id']}").status_code == 204
    third, *older = editor.get(VERSIONS, params={"limit": 3}).json()
    assert made["id"] not in [rule["id"] for rule in third["rules"]]
    assert older == [second, first], "older versions keep what they were"
    answer = editor.get(f"{RULES}/{made['id']}")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Scoring rule not found")


def test_inactive_rules_can_be_left_out(editor: httpx.Client) -> None:
    on, off = make_rule(editor), make_rule(editor, active=False)
    every = editor.get(RULES)
    active = editor.get(RULES, params={"active_only": True})
    assert every.json()[:2] == [off, on]
    assert off not in active.json() and active.json()[0] == on
    assert int(every.headers["X-Total-Count"]) > int(active.headers["X-Total-Count"])


@pytest.mark.parametrize(
    "fields",
    [
        {"name": " "}, {"name": "x" * 201}, {"name": "a\nb"}, {"name": 1}, {"event_type": ""}, {"event_type": "x" * 51},
        {"event_type": "a\tb"}, {"points": 1001}, {"points": -1001}, {"points": 1.5}, {"points": "1"},
        {"points": True}, {"max_per_contact": -1}, {"max_per_contact": 2**31}, {"decay_days": -1},
        {"decay_days": 2**31}, {"condition": []}, {"condition": {"form": "x" * 20_000}}, {"active": 1},
        {"description": "x" * 2001}, {"event_type": None},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_values_are_422_and_change_nothing(editor: httpx.Client, fields: dict[str, Any]) -> None:
    made = make_rule(editor)
    before = newest(editor)
    for answer in (
        editor.post(RULES, json={"name": "Fair", "event_type": "fair_visit", **fields}),
        editor.patch(f"{RULES}/{made['id']}", json=fields),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_error"), answer.text
        assert answer.json()["detail"][0]["loc"][:2] == ["body", next(iter(fields))]
    assert newest(editor) == before


def test_an_event_type_of_blanks_is_refused(editor: httpx.Client) -> None:
    answer = editor.post(RULES, json={"name": "Fair", "event_type": "  "})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "event_type"])
