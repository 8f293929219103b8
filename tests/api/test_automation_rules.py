"""Automation rules over HTTP: drawing up, firing, figures and logs."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.live_service import LiveService

RULES = "/api/v1/automation-rules"
DEFAULTS = {
    "description": "", "active": True, "trigger_config": {}, "conditions": [], "actions": [], "priority": 0,
    "max_executions": 0, "total_executions": 0, "cooldown_minutes": 0,
}  # fmt: skip


def trigger() -> str:
    return f"t {secrets.token_hex(6)}"


def make(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post(f"{RULES}/", json={"name": "Rule", "trigger_type": trigger(), **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def make_contact(client: httpx.Client, **fields: Any) -> str:
    answer = client.post("/api/v1/contacts/", json={"email": f"{secrets.token_hex(6)}@shop.example", **fields})
    return str(answer.json()["id"])


def fire(client: httpx.Client, rule: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = client.post(f"{RULES}/fire", json={"trigger_type": rule["trigger_type"], **fields})
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


def test_a_rule_is_made_shown_changed_and_deleted(editor: httpx.Client, viewer: httpx.Client) -> None:
    body = {
        "name": "  Big order ", "trigger_type": "order_placed", "description": "two\nlines", "active": False,
        "trigger_config": {"currency": "EUR"}, "conditions": [{"field": "total", "operator": "gte", "value": 100.5}],
        "actions": [{"type": "add_tag", "config": {"tag_name": "big"}, "name": "Mark", "meta": {"x": 1}}],
        "priority": -5, "max_executions": 3, "cooldown_minutes": 60,
    }  # fmt: skip
    answer = editor.post(f"{RULES}/", json={**body, "id": "9", "total_executions": 7, "unknown": 1})
    assert answer.status_code == 201
    made = answer.json()
    expected = {**body, "name": "Big order", "total_executions": 0}
    assert made == {**expected, "id": made["id"], "created_at": made["created_at"]}
    assert datetime.fromisoformat(made["created_at"]).tzinfo
    assert viewer.get(f"{RULES}/{made['id']}").json() == made
    changed = editor.patch(f"{RULES}/{made['id']}", json={"priority": 2, "active": True})
    assert changed.json() == {**made, "priority": 2, "active": True}
    assert editor.patch(f"{RULES}/{made['id']}", json={}).json() == changed.json()
    assert editor.patch(f"{RULES}/{made['id']}", json={"name": None}).status_code == 422
    assert editor.delete(f"{RULES}/{made['id']}").status_code == 204
    for call in (editor.delete, editor.get):
        again = call(f"{RULES}/{made['id']}")
        assert (again.status_code, again.json()["detail"]) == (404, "Rule not found")
    assert editor.patch(f"{RULES}/{made['id']}", json={"priority": 1}).status_code == 404
    assert viewer.get(f"{RULES}/{made['id']}/stats").status_code == 404
    logs = viewer.get(f"{RULES}/{made['id']}/logs")
    assert (logs.status_code, logs.json(), logs.headers["X-Total-Count"]) == (200, [], "0")


def test_the_defaults(editor: httpx.Client) -> None:
    made = make(editor)
    assert {name: made[name] for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    ("fields", "loc"),
    [
        ({"name": "\n"}, ["body", "name"]), ({"name": "x" * 301}, ["body", "name"]),
        ({"trigger_type": ""}, ["body", "trigger_type"]), ({"trigger_type": "x" * 51}, ["body", "trigger_type"]),
        ({"trigger_type": " "}, ["body", "trigger_type"]), ({"description": "x" * 2001}, ["body", "description"]),
        ({"priority": 2**31}, ["body", "priority"]), ({"max_executions": -1}, ["body", "max_executions"]),
        ({"cooldown_minutes": 1.5}, ["body", "cooldown_minutes"]), ({"active": "yes"}, ["body", "active"]),
        ({"conditions": [{"field": "a", "operator": "like", "value": 1}]}, ["body", "conditions", 0, "operator"]),
        ({"actions": [{"type": "explode"}]}, ["body", "actions", 0, "type"]),
        ({"actions": [{"type": "tag", "config": {"tag_name": "x"}}]}, ["body", "actions", 0, "type"]),
        ({"actions": [{"type": "add_tag", "config": {"tag_name": "x", "y": 1}}]},
         ["body", "actions", 0, "config", "y"]),
        ({"actions": [{"type": "add_to_segment", "config": {"segment_id": "no"}}]},
         ["body", "actions", 0, "config", "segment_id"]),
        ({"actions": [{"type": "wait_delay", "config": {"minutes": 1e300}}]},
         ["body", "actions", 0, "config", "minutes"]),
    ],
)  # fmt: skip
def test_what_is_refused(editor: httpx.Client, fields: dict[str, Any], loc: list[Any]) -> None:
    answer = editor.post(f"{RULES}/", json={"name": "x", "trigger_type": "x", **fields})
    assert (answer.status_code, [one["loc"] for one in answer.json()["detail"]]) == (422, [loc])
    made = make(editor)
    assert editor.patch(f"{RULES}/{made['id']}", json=fields).status_code == 422
    assert editor.get(f"{RULES}/{made['id']}").json() == made


@pytest.mark.parametrize("template_id", ["987654321", "no-such-template", "99999999999999999999999"])
def test_an_unknown_template_is_accepted_and_fails_when_it_is_run(editor: httpx.Client, template_id: str) -> None:
    made = make(editor, actions=[{"type": "send_email", "config": {"template_id": template_id}}])
    assert made["actions"][0]["config"]["template_id"] == template_id
    done = fire(editor, made, contact_id=make_contact(editor))
    assert done["results"] == [{"rule_id": made["id"], "status": "failed"}]
    log = editor.get(f"{RULES}/{made['id']}/logs").json()[0]
    assert log["error"] == "Template not found"


def test_lists_are_by_priority_and_can_be_paged(editor: httpx.Client) -> None:
    kind = trigger()
    made = [make(editor, trigger_type=kind, priority=number, active=number != 2)["id"] for number in (1, 3, 2, 3)]
    expected = [made[1], made[3], made[2], made[0]]
    whole = editor.get(f"{RULES}/", params={"trigger_type": kind})
    assert [rule["id"] for rule in whole.json()] == expected
    assert (whole.headers["X-Total-Count"], whole.headers["X-Total-Count-Exact"]) == ("4", "true")
    assert [rule["id"] for rule in editor.get(f"{RULES}/", params={"trigger_type": kind, "active": False}).json()] == [
        made[2]]  # fmt: skip
    part = editor.get(f"{RULES}/", params={"trigger_type": kind, "limit": 2, "offset": 1})
    assert [rule["id"] for rule in part.json()] == expected[1:3]
    seen, url = [], f"{RULES}/?trigger_type={kind}&limit=1"
    for _ in range(4):
        page = editor.get(url)
        seen += [rule["id"] for rule in page.json()]
        url = page.headers.get("Link", "").partition(";")[0].strip("<>")
    assert (seen, url) == (expected, "")
    cursor = editor.get(f"{RULES}/", params={"trigger_type": kind, "limit": 1}).headers["X-Next-Cursor"]
    both = editor.get(f"{RULES}/", params={"trigger_type": kind, "cursor": cursor, "offset": 1})
    assert both.status_code == 422
    for params in ({"limit": 0}, {"limit": 201}, {"offset": -1}, {"offset": 1_000_001}, {"active": "maybe"}):
        assert editor.get(f"{RULES}/", params=params).status_code == 422, params


def test_firing_runs_the_rules_at_once(editor: httpx.Client) -> None:
    kind = trigger()
    tag = {"type": "add_tag", "config": {"tag_name": f"tag {kind}"}}
    low = make(editor, trigger_type=kind, actions=[tag], conditions=[{"field": "country", "value": "DE"}])
    high = make(editor, trigger_type=kind, actions=[tag], priority=9, trigger_config={"form": "demo"})
    make(editor, trigger_type=kind, active=False)
    german, austrian = make_contact(editor, country="DE"), make_contact(editor, country="AT")
    assert fire(editor, low, contact_id=german, data={"form": "demo"}) == {
        "trigger_type": kind, "rules_matched": 2,
        "results": [{"rule_id": high["id"], "status": "success"}, {"rule_id": low["id"], "status": "success"}],
    }  # fmt: skip
    assert [tag["name"] for tag in editor.get(f"/api/v1/contacts/{german}").json()["tags"]] == [f"tag {kind}"]
    done = fire(editor, low, contact_id=austrian)
    assert done["results"] == [{"rule_id": low["id"], "status": "skipped"}]
    for nobody in ({}, {"contact_id": "987654321"}, {"contact_id": "no-id"}, {"contact_id": None}):
        done = fire(editor, low, data={"country": "DE"}, **nobody)
        assert done["results"] == [{"rule_id": low["id"], "status": "failed"}], nobody
    stats = editor.get(f"{RULES}/{low['id']}/stats").json()
    assert stats == {"rule_id": low["id"], "total": 6, "success": 1, "failed": 4, "skipped": 1, "success_rate": 16.67}
    assert editor.get(f"{RULES}/{low['id']}").json()["total_executions"] == 5
    logs = editor.get(f"{RULES}/{low['id']}/logs").json()
    assert [(log["status"], log["contact_id"], log["error"]) for log in logs[3:]] == [
        ("failed", None, "Unknown action or no contact"), ("skipped", austrian, "Conditions not met"),
        ("success", german, None),
    ]  # fmt: skip
    assert set(logs[-1]) == {
        "id", "contact_id", "trigger_type", "status", "duration_ms", "created_at", "error", "actions"}  # fmt: skip
    assert logs[-1]["trigger_type"] == kind
    assert logs[-1]["actions"] == [{"type": "add_tag", "success": True, "tag_name": f"tag {kind}"}]
    pages = [editor.get(f"{RULES}/{low['id']}/logs", params={"limit": 1, "offset": n}).json()[0] for n in range(6)]
    assert pages == logs


def test_nothing_matches_nothing(editor: httpx.Client) -> None:
    kind = trigger()
    answer = editor.post(f"{RULES}/fire", json={"trigger_type": kind})
    assert (answer.status_code, answer.json()) == (200, {"trigger_type": kind, "rules_matched": 0, "results": []})


def test_a_synonym_is_the_type_it_stands_for(editor: httpx.Client) -> None:
    name = secrets.token_hex(6)
    made = make(editor, trigger_type="clicked", trigger_config={"url": name})
    done = fire(editor, {"trigger_type": "email_clicked"}, data={"url": name})
    assert done["results"] == [{"rule_id": made["id"], "status": "success"}]
    assert made["trigger_type"] == "clicked"


def test_firing_again_with_the_same_key_runs_nothing_again(editor: httpx.Client) -> None:
    made = make(editor)
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    answers = [
        editor.post(f"{RULES}/fire", json={"trigger_type": made["trigger_type"]}, headers=headers) for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    assert editor.get(f"{RULES}/{made['id']}").json()["total_executions"] == 1


def test_an_editor_is_needed(viewer: httpx.Client, editor: httpx.Client) -> None:
    made = make(editor)
    assert viewer.post(f"{RULES}/", json={"name": "x", "trigger_type": "x"}).status_code == 403
    assert viewer.patch(f"{RULES}/{made['id']}", json={}).status_code == 403
    assert viewer.delete(f"{RULES}/{made['id']}").status_code == 403
    assert viewer.post(f"{RULES}/fire", json={"trigger_type": "x"}).status_code == 403


def test_twenty_callers_never_run_a_rule_more_often_than_its_limit(
    editor: httpx.Client, service: LiveService
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    made = make(editor, max_executions=7)
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda _: fire(editor, made)["results"][0]["status"], range(20)))
    assert (done.count("success"), done.count("skipped")) == (7, 13)
    stats = editor.get(f"{RULES}/{made['id']}/stats").json()
    assert (stats["success"], stats["skipped"]) == (7, 13)
