"""Schedules over HTTP: made, listed, changed, stopped, given up - and what that means for their campaign."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from mautolib.campaigns import finishing, planning
from tests.live_service import LiveService

CAMPAIGNS, SCHEDULES = "/api/v1/campaigns/", "/api/v1/schedules/"
SEND_AT = "2030-01-07T08:00:00Z"
WEEKLY = {"schedule_type": "recurring", "recurrence_rule": {"interval": "weekly", "days": [4, 1], "colour": "red"}}


def campaign(client: httpx.Client, **values: Any) -> str:
    body = {"name": "Weekly", "subject": "Hello", "html_body": "<p>Hello</p>"}
    return str(client.post(CAMPAIGNS, json={**body, **values}).json()["id"])


def scheduled(client: httpx.Client, **values: Any) -> dict[str, Any]:
    body = {"send_at": SEND_AT, **values}
    answer = client.post(SCHEDULES, json={"campaign_id": values.get("campaign_id") or campaign(client), **body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def of(client: httpx.Client, schedule: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{CAMPAIGNS}{schedule['campaign_id']}").json()
    return found


def test_a_schedule_has_the_defaults_of_the_contract(editor: httpx.Client, viewer: httpx.Client) -> None:
    made = scheduled(editor, timezone_name="Europe/Berlin")
    assert viewer.get(f"{SCHEDULES}{made['id']}").json() == made
    campaign_id, number = made.pop("campaign_id"), made.pop("id")
    assert number.isdecimal() and made.pop("created_at").endswith("Z")
    assert made == {
        "schedule_type": "one_time", "status": "pending", "send_at": SEND_AT, "timezone_name": "Europe/Berlin",
        "recurrence_rule": {}, "next_run_at": SEND_AT, "runs_completed": 0, "max_runs": 0, "max_per_hour": 0,
        "max_per_day": 0, "ab_test_id": None, "auto_pick_winner": False, "winner_wait_hours": 4,
        "max_late_minutes": 1440, "error_message": "", "updated_at": None,
    }  # fmt: skip
    shown = viewer.get(f"{CAMPAIGNS}{campaign_id}").json()
    assert (shown["status"], shown["scheduled_at"], shown["schedule_id"]) == ("scheduled", SEND_AT, number)


def test_only_known_keys_of_a_rule_are_kept_and_the_first_run_is_its_first(editor: httpx.Client) -> None:
    made = scheduled(editor, **WEEKLY, timezone_name="America/New_York", send_at="2030-03-08T14:00:00Z")  # a Friday
    assert made["recurrence_rule"] == {"interval": "weekly", "days": [4, 1]}
    assert made["next_run_at"] == "2030-03-11T13:00:00Z", "Monday at nine, and the clocks went forward on Sunday"


@pytest.mark.parametrize(
    ("values", "loc"),
    [
        ({"send_at": "2020-01-01T00:00:00Z"}, ["body", "send_at"]),
        ({"send_at": "2030-01-01T00:00:00"}, ["body", "send_at"]),
        ({"timezone_name": "Mars/Olympus"}, ["body", "timezone_name"]),
        ({"timezone_name": "../etc/passwd"}, ["body", "timezone_name"]),
        ({"schedule_type": "often"}, ["body", "schedule_type"]),
        ({"schedule_type": "recurring"}, ["body", "recurrence_rule", "interval"]),
        ({"recurrence_rule": {"interval": "daily"}}, ["body", "recurrence_rule"]),
        ({**WEEKLY, "recurrence_rule": {"interval": "yearly"}}, ["body", "recurrence_rule", "interval"]),
        ({**WEEKLY, "recurrence_rule": {"interval": "daily", "every": 0}}, ["body", "recurrence_rule", "every"]),
        ({**WEEKLY, "recurrence_rule": {"interval": "daily", "until": "soon"}}, ["body", "recurrence_rule", "until"]),
        ({**WEEKLY, "recurrence_rule": {"interval": "daily", "until": "2029-01-01"}}, ["body", "recurrence_rule"]),
        ({**WEEKLY, "recurrence_rule": {"rrule": "FREQ=SECONDLY"}}, ["body", "recurrence_rule", "rrule"]),
        ({**WEEKLY, "recurrence_rule": {"rrule": "FREQ=DAILY\nDTSTART=1"}}, ["body", "recurrence_rule", "rrule"]),
        ({**WEEKLY, "send_at": "1970-01-01T00:00:00Z"}, ["body", "send_at"]),
        ({"max_runs": -1}, ["body", "max_runs"]),
        ({"max_per_hour": 2**31}, ["body", "max_per_hour"]),
        ({"winner_wait_hours": 73}, ["body", "winner_wait_hours"]),
        ({"ab_test_id": "7"}, ["body", "ab_test_id"]),
    ],
)
def test_a_bad_value_is_422_and_named(editor: httpx.Client, values: dict[str, Any], loc: list[str]) -> None:
    body = {"campaign_id": campaign(editor), "send_at": SEND_AT, **values}
    answer = editor.post(SCHEDULES, json=body)
    assert answer.status_code == 422, answer.text
    assert [item["loc"] for item in answer.json()["detail"]] == [loc]


def test_a_campaign_is_scheduled_once_and_only_as_a_draft(editor: httpx.Client) -> None:
    made = scheduled(editor)
    body = {"campaign_id": made["campaign_id"], "send_at": SEND_AT}
    assert editor.post(SCHEDULES, json=body).status_code == 409
    assert editor.post(f"{CAMPAIGNS}{made['campaign_id']}/schedule", json={"send_at": SEND_AT}).status_code == 409
    for unknown in ("987654321", "x"):
        answer = editor.post(SCHEDULES, json={**body, "campaign_id": unknown})
        assert (answer.status_code, answer.json()["detail"]) == (404, "Campaign not found")
    assert editor.get(f"{SCHEDULES}987654321").json()["detail"] == "Schedule not found"


def test_the_list_filters_by_campaign_and_state(editor: httpx.Client, viewer: httpx.Client) -> None:
    first, second = scheduled(editor), scheduled(editor)
    editor.post(f"{SCHEDULES}{first['id']}/pause")
    shown = viewer.get(SCHEDULES, params={"limit": 2}).json()
    assert [row["id"] for row in shown] == [second["id"], first["id"]]
    of_first = viewer.get(SCHEDULES, params={"campaign_id": first["campaign_id"]}).json()
    assert [row["id"] for row in of_first] == [first["id"]]
    assert first["id"] in [row["id"] for row in viewer.get(SCHEDULES, params={"status": "paused"}).json()]
    assert viewer.get(SCHEDULES, params={"campaign_id": "x"}).json() == []
    assert viewer.get(SCHEDULES, params={"status": "asleep"}).status_code == 422


def test_pausing_cancelling_and_deleting_take_the_campaign_along(editor: httpx.Client) -> None:
    made = scheduled(editor)
    path = f"{SCHEDULES}{made['id']}"
    assert editor.post(f"{path}/resume").status_code == 409
    assert editor.post(f"{path}/pause").json()["status"] == "paused" and of(editor, made)["status"] == "paused"
    assert editor.post(f"{path}/pause").status_code == 409
    assert editor.post(f"{path}/resume").json()["status"] == "pending" and of(editor, made)["status"] == "scheduled"
    assert editor.post(f"{CAMPAIGNS}{made['campaign_id']}/pause").status_code == 200
    assert editor.get(path).json()["status"] == "paused", "and the schedule follows its campaign"
    assert editor.post(f"{path}/cancel").json()["status"] == "cancelled"
    shown = of(editor, made)
    assert (shown["status"], shown["scheduled_at"], shown["schedule_id"]) == ("draft", None, None)
    for answer in (editor.post(f"{path}/cancel"), editor.delete(path), editor.patch(path, json={"max_runs": 3})):
        assert answer.status_code == 409
    again = scheduled(editor, campaign_id=made["campaign_id"])
    assert editor.delete(f"{SCHEDULES}{again['id']}").status_code == 204 and of(editor, made)["status"] == "draft"
    assert editor.delete(f"{SCHEDULES}{again['id']}").status_code == 404


def test_send_replaces_a_schedule_and_deleting_a_campaign_takes_it_away(editor: httpx.Client) -> None:
    made = scheduled(editor)
    assert editor.post(f"{CAMPAIGNS}{made['campaign_id']}/send").status_code == 202
    assert editor.get(f"{SCHEDULES}{made['id']}").json()["status"] == "cancelled"
    assert of(editor, made)["schedule_id"] is None
    other = scheduled(editor)
    assert editor.delete(f"{CAMPAIGNS}{other['campaign_id']}").status_code == 204
    assert editor.get(f"{SCHEDULES}{other['id']}").status_code == 404


def test_a_patch_moves_the_next_run(editor: httpx.Client) -> None:
    made = scheduled(editor)
    path = f"{SCHEDULES}{made['id']}"
    assert editor.patch(path, json={}).json() == made
    changed = editor.patch(path, json={"send_at": "2031-05-01T08:00:00Z", "max_per_hour": 100}).json()
    assert (changed["next_run_at"], changed["max_per_hour"]) == ("2031-05-01T08:00:00Z", 100)
    assert of(editor, made)["scheduled_at"] == "2031-05-01T08:00:00Z"
    rule = {"schedule_type": "recurring", "recurrence_rule": {"rrule": "FREQ=MONTHLY;BYDAY=1MO"}}
    assert editor.patch(path, json=rule).json()["next_run_at"] == "2031-05-05T08:00:00Z"
    assert editor.patch(path, json={"send_at": None}).status_code == 422
    assert editor.patch(path, json={"ab_test_id": "7"}).status_code == 422
    moved = editor.patch(f"{CAMPAIGNS}{made['campaign_id']}", json={"scheduled_at": "2032-01-01T08:00:00Z"})
    assert moved.status_code == 200, moved.text
    assert editor.get(path).json()["next_run_at"] == "2032-01-05T08:00:00Z", "the first Monday from then on"
    back = editor.patch(f"{CAMPAIGNS}{made['campaign_id']}", json={"status": "draft"})
    assert back.json()["status"] == "draft" and editor.get(path).json()["status"] == "cancelled"


def test_schedule_of_a_campaign_refuses_what_cannot_be_sent(editor: httpx.Client) -> None:
    path = f"{CAMPAIGNS}{campaign(editor, html_body='')}/schedule"
    answer = editor.post(path, json={"send_at": SEND_AT})
    assert (answer.status_code, answer.json()["code"]) == (422, "not_sendable")
    path = f"{CAMPAIGNS}{campaign(editor)}/schedule"
    assert editor.post(path, json={"send_at": "2020-01-01T00:00:00Z"}).status_code == 422
    assert editor.post(path, json={"send_at": SEND_AT, "timezone_name": "Nowhere"}).status_code == 422
    done = editor.post(path, json={"send_at": SEND_AT}, headers={"If-Match": '"1"'})
    assert (done.status_code, done.json()["status"], done.json()["scheduled_at"]) == (200, "scheduled", SEND_AT)


def test_stats_count_the_runs(service: LiveService, editor: httpx.Client, viewer: httpx.Client) -> None:
    """The planner, a sender (here a statement) and the finisher between two answers."""
    engine, settings = service.engine, service.settings
    people = editor.post("/api/v1/contacts/", json={"email": "stats@mail.example", "country": "LI"}).json()
    segment = editor.post("/api/v1/segments/", json={
        "name": "Of schedules", "rules": [{"field": "email", "operator": "eq", "value": people["email"]}]}).json()
    made = scheduled(
        editor, campaign_id=campaign(editor, segment_id=segment["id"]), schedule_type="recurring",
        recurrence_rule={"interval": "daily"}, max_runs=2,
    )  # fmt: skip
    path = f"{SCHEDULES}{made['id']}"
    empty = viewer.get(f"{path}/stats").json()
    assert empty == {"schedule_id": made["id"], "total": 0, "sent": 0, "failed": 0, "throttled": 0, "success_rate": 0.0,
                     "skipped": 0, "unknown": 0, "runs": []}  # fmt: skip
    due = datetime(2030, 1, 7, 8, tzinfo=UTC)
    for day in range(2):
        now = due + timedelta(days=day)
        assert planning.plan_due(engine, settings, now, campaign_id=int(made["campaign_id"]))[0].queued == 1
        assert editor.post(f"{path}/pause").status_code == 409, "it is running"
        assert editor.delete(path).status_code == 409
        with engine.begin() as tx:
            tx.execute(text("update messages set status = 'sent', sent_at = :now where campaign_id = :id and status = "
                            "'queued'"), {"now": now, "id": int(made["campaign_id"])})  # fmt: skip
        finishing.finish(engine, now)
        shown = viewer.get(path).json()
        assert (shown["runs_completed"], shown["status"]) == (day + 1, "pending" if day == 0 else "completed")
    stats = viewer.get(f"{path}/stats").json()
    assert (stats["total"], stats["sent"], stats["success_rate"]) == (2, 2, 100.0)
    assert [(run["occurrence"], run["status"], run["due_at"], run["total"], run["sent"]) for run in stats["runs"]] == [
        (2, "completed", "2030-01-08T08:00:00Z", 1, 1), (1, "completed", "2030-01-07T08:00:00Z", 1, 1),
    ]  # fmt: skip
    assert of(viewer, made)["status"] == "sent"
    with engine.connect() as tx:
        keys = tx.scalars(text("select dedupe_key from messages where campaign_id = :id order by 1"),
                          {"id": int(made["campaign_id"])}).all()  # fmt: skip
    assert [key.split(":")[3] for key in keys] == ["1", "2"]


def test_a_viewer_may_look_only(viewer: httpx.Client, editor: httpx.Client) -> None:
    made = scheduled(editor)
    body = {"campaign_id": made["campaign_id"], "send_at": SEND_AT}
    assert viewer.post(SCHEDULES, json=body).status_code == 403
    assert viewer.post(f"{SCHEDULES}{made['id']}/cancel").status_code == 403
    assert viewer.get(f"{SCHEDULES}{made['id']}/stats").status_code == 200
