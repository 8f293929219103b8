"""Campaigns over HTTP: drafts, edits, sending, stopping - status, body and the rows behind them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService

CAMPAIGNS = "/api/v1/campaigns/"
BODY = {
    "name": "Spring newsletter", "subject": "Hello {{ contact.first_name }}",
    "html_body": '<p>Hello</p><p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>',
}  # fmt: skip
SINGLE_ONLY = {"html_body", "text_body"}


def created(client: httpx.Client, **values: Any) -> dict[str, Any]:
    answer = client.post(CAMPAIGNS, json={**BODY, **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def sent(client: httpx.Client, campaign_id: str) -> None:
    answer = client.post(f"{CAMPAIGNS}{campaign_id}/send")
    assert answer.status_code == 202, answer.text


def test_a_created_campaign_is_a_draft_with_the_defaults_of_the_contract(editor: httpx.Client) -> None:
    answer = editor.post(CAMPAIGNS, json={**BODY, "name": "  Spring newsletter ", "status": "sent", "total_sent": 9})
    body = answer.json()
    assert (answer.status_code, answer.headers["ETag"]) == (201, '"1"')
    assert body.pop("id").isdecimal() and body.pop("created_at").endswith("Z")
    totals = {name: body.pop(name) for name in list(body) if name.startswith("total_") or name == "in_flight"}
    assert sorted(totals) == [
        "in_flight", "total_bounced", "total_clicked", "total_complained", "total_failed", "total_opened",
        "total_recipients", "total_sent", "total_skipped", "total_unknown", "total_unsubscribed",
    ]  # fmt: skip
    assert set(totals.values()) == {0}
    assert body == {
        **BODY, "preheader": "", "from_name": "", "from_email": "", "reply_to": "", "text_body": "", "status": "draft",
        "template_id": None, "segment_id": None, "locales": {}, "track_opens": True, "track_clicks": True, "utm": {},
        "send_window": {}, "max_per_hour": 0, "max_per_day": 0, "domain_limits": {}, "expires_after_hours": 24,
        "scheduled_at": None, "schedule_id": None, "started_at": None, "sent_at": None, "status_reason": None,
        "version": 1, "updated_at": None,
    }  # fmt: skip


def test_one_shows_the_bodies_and_a_list_does_not(editor: httpx.Client, viewer: httpx.Client) -> None:
    made = created(editor)
    one = viewer.get(f"{CAMPAIGNS}{made['id']}")
    assert (one.json(), one.headers["ETag"]) == (made, '"1"')
    first = viewer.get(CAMPAIGNS, params={"limit": 1}).json()[0]
    assert first == {name: value for name, value in made.items() if name not in SINGLE_ONLY}


def test_a_cursor_walks_the_list_and_the_state_filters(editor: httpx.Client, viewer: httpx.Client) -> None:
    ids = [created(editor)["id"] for _ in range(3)]
    first = viewer.get(CAMPAIGNS, params={"limit": 2, "status": "draft"})
    second = viewer.get(first.headers["Link"].removeprefix("<").partition(">")[0])
    assert [row["id"] for row in [*first.json(), *second.json()]][:3] == ids[::-1]
    assert viewer.get(CAMPAIGNS, params={"status": "failed"}).json() == []
    assert viewer.get(CAMPAIGNS, params={"status": "asleep"}).status_code == 422


@pytest.mark.parametrize(
    ("values", "loc"),
    [
        ({"name": " "}, ["body", "name"]),
        ({"name": "x" * 301}, ["body", "name"]),
        ({"subject": "two\nlines"}, ["body", "subject"]),
        ({"subject": None}, ["body", "subject"]),
        ({"from_name": "a\r\nBcc: b@c.example"}, ["body", "from_name"]),
        ({"expires_after_hours": 0}, ["body", "expires_after_hours"]),
        ({"max_per_hour": -1}, ["body", "max_per_hour"]),
        ({"max_per_hour": 2**31}, ["body", "max_per_hour"]),
        ({"track_opens": 1}, ["body", "track_opens"]),
        ({"template_id": "987654321"}, ["body", "template_id"]),
        ({"template_id": "x"}, ["body", "template_id"]),
        ({"segment_id": "987654321"}, ["body", "segment_id"]),
        ({"scheduled_at": "2026-01-02T03:04:05"}, ["body", "scheduled_at"]),
        ({"utm": {"source": 5}}, ["body", "utm", "source"]),
        ({"utm": {"source": "x" * 201}}, ["body", "utm", "source"]),
        ({"preheader": "x" * 201}, ["body", "preheader"]),
        ({"domain_limits": {"no domain": 1}}, ["body", "domain_limits", "no domain", "[key]"]),
        ({"domain_limits": {"*": -1}}, ["body", "domain_limits", "*"]),
        ({"send_window": {"start": "24:00"}}, ["body", "send_window", "start"]),
        ({"send_window": {"start": "10:00", "end": "10:00"}}, ["body", "send_window"]),
        ({"send_window": {"weekdays": []}}, ["body", "send_window", "weekdays"]),
        ({"send_window": {"weekdays": [8]}}, ["body", "send_window", "weekdays", 0]),
        ({"send_window": {"weekdays": [1, 1]}}, ["body", "send_window"]),
        ({"send_window": {"quiet_start": "22:00"}}, ["body", "send_window"]),
        ({"locales": {"no tag": {"subject": "x", "html_body": "x"}}}, ["body", "locales", "no tag", "[key]"]),
        ({"locales": {"de": {"subject": "x"}}}, ["body", "locales", "de", "html_body"]),
        ({"locales": {"de": {"subject": "a\nb", "html_body": "x"}}}, ["body", "locales", "de", "subject"]),
    ],
)
def test_a_bad_value_is_422_and_named(editor: httpx.Client, values: dict[str, Any], loc: list[str]) -> None:
    answer = editor.post(CAMPAIGNS, json={**BODY, **values})
    assert answer.status_code == 422
    assert [item["loc"] for item in answer.json()["detail"]] == [loc]


def test_one_language_is_given_once(editor: httpx.Client) -> None:
    words = {"subject": "x", "html_body": "<p>x</p>"}
    answer = editor.post(CAMPAIGNS, json={**BODY, "locales": {"pt-BR": words, "pt-br": words}})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", "locales", "pt-br"]
    assert created(editor, locales={"pt-BR": words, "zh-Hant-TW": words})["locales"].keys() == {"pt-BR", "zh-Hant-TW"}


def test_a_body_may_be_as_large_as_one_mebibyte(editor: httpx.Client) -> None:
    part = "x" * 1024 * 1024
    assert created(editor, html_body=part, text_body=part)["html_body"] == part
    assert editor.post(CAMPAIGNS, json={**BODY, "html_body": part + "x"}).status_code == 422
    assert editor.post(CAMPAIGNS, json={**BODY, "html_body": part * 5}).status_code == 413


def test_patch_edits_a_draft_under_if_match(editor: httpx.Client) -> None:
    made = created(editor)
    path = f"{CAMPAIGNS}{made['id']}"
    changed = editor.patch(path, json={"subject": "New", "utm": {"source": "news"}}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    body = changed.json()
    assert (body["subject"], body["utm"], body["version"], body["name"]) == ("New", {"source": "news"}, 2, BODY["name"])
    assert editor.patch(path, json={"subject": "Late"}, headers={"If-Match": '"1"'}).status_code == 412
    same = editor.patch(path, json={"status": "draft"})
    assert (same.status_code, same.json()) == (200, body)
    assert editor.patch(path, json={"status": None}).status_code == 422
    assert editor.patch(path, json={"status": "sent"}).status_code == 409


def test_patch_of_the_status_does_what_the_actions_do(editor: httpx.Client) -> None:
    made = created(editor)
    path = f"{CAMPAIGNS}{made['id']}"

    def patched(**values: Any) -> tuple[int, Any]:
        answer = editor.patch(path, json=values)
        return answer.status_code, answer.json().get("status")

    later, past = "2190-01-01T00:00:00Z", "2020-01-01T00:00:00Z"
    assert patched(status="scheduled")[0] == 422, "it has no date"
    assert patched(scheduled_at=past) == (200, "draft") and patched(status="scheduled")[0] == 422
    assert patched(status="paused")[0] == patched(status="sending")[0] == patched(status="cancelled")[0] == 409
    assert patched(status="scheduled", scheduled_at=later) == (200, "scheduled")
    shown = editor.get(path).json()
    assert shown["scheduled_at"] == later and shown["schedule_id"] is not None
    assert patched(status="scheduled") == (200, "scheduled"), "the same changes nothing"
    assert editor.get(path).json() == shown
    moved = editor.patch(path, json={"scheduled_at": "2190-06-01T00:00:00Z", "subject": "New"}).json()
    assert (moved["scheduled_at"], moved["subject"], moved["status"]) == ("2190-06-01T00:00:00Z", "New", "scheduled")
    refused = editor.patch(path, json={"scheduled_at": past})
    assert refused.status_code == 422 and refused.json()["detail"][0]["loc"] == ["body", "scheduled_at"]
    assert patched(scheduled_at=None)[0] == 422
    assert patched(status="paused") == (200, "paused")
    assert patched(subject="No")[0] == 409
    assert patched(status="sending") == (200, "scheduled"), "resuming goes on where it was"
    assert patched(status="draft") == (200, "draft")
    assert editor.get(path).json()["schedule_id"] is None
    assert patched(status="draft", scheduled_at=past) == (200, "draft")
    assert patched(scheduled_at=later, status="scheduled") == (200, "scheduled")
    assert patched(status="draft", scheduled_at=past) == (200, "draft"), "unscheduled, a date is a note again"
    assert patched(status="scheduled", scheduled_at=later)[1] == "scheduled"
    assert patched(status="cancelled") == (200, "cancelled") and patched(status="draft")[0] == 409


def test_what_may_be_edited_follows_the_state(editor: httpx.Client) -> None:
    made = created(editor)
    path = f"{CAMPAIGNS}{made['id']}"
    sent(editor, made["id"])
    pace = {
        "max_per_hour": 5, "max_per_day": 50, "domain_limits": {"Example.COM": 3, "*": 9},
        "send_window": {"start": "08:00", "end": "20:00"},
    }  # fmt: skip
    for state in ("sending", "paused"):
        changed = editor.patch(path, json={**pace, "max_per_day": 60, "name": state})
        assert changed.status_code == 200, changed.text
        assert changed.json()["domain_limits"] == {"example.com": 3, "*": 9}
        for values in (
            {"subject": "x"}, {"html_body": "x"}, {"utm": {}, "from_name": "x"}, {"expires_after_hours": 5},
            {"segment_id": None, "track_opens": False}, {"scheduled_at": "2190-01-01T00:00:00Z"},
            {"subject": "x", **pace},
        ):  # fmt: skip
            refused = editor.patch(path, json=values)
            assert (refused.status_code, refused.json()["code"]) == (409, "not_editable"), values
        assert editor.patch(path, json={"subject": BODY["subject"]}).status_code == 200, "what it is already"
        editor.post(f"{path}/pause")
    editor.post(f"{path}/cancel")
    refused = editor.patch(path, json={"max_per_hour": 9})
    assert (refused.status_code, refused.json()["code"]) == (409, "not_editable")
    assert editor.patch(path, json={"name": "Kept"}).json()["name"] == "Kept"


def test_own_words_win_over_the_template(service: LiveService, editor: httpx.Client) -> None:
    words = {"subject": "Theirs", "html_body": "<p>theirs</p>", "text_body": "theirs"}
    template = editor.post("/api/v1/templates/", json={"name": f"Base {uuid4()}", **words})
    made = created(editor, template_id=template.json()["id"], subject="", html_body="")

    def shown() -> tuple[str, bool]:
        rendered = editor.get(f"{CAMPAIGNS}{made['id']}/preview").json()["rendered"]
        return rendered["subject"], "theirs" in rendered["html_body"]

    assert shown() == ("Theirs", True)
    editor.patch(f"{CAMPAIGNS}{made['id']}", json={"subject": "Ours"})
    assert shown() == ("Ours", True)
    editor.patch(f"{CAMPAIGNS}{made['id']}", json={"html_body": "<p>ours</p>"})
    assert shown() == ("Ours", False)


def test_deleting_a_scheduled_campaign_takes_its_schedule(service: LiveService, editor: httpx.Client) -> None:
    made = created(editor, scheduled_at="2190-01-01T00:00:00Z")
    path = f"{CAMPAIGNS}{made['id']}"
    assert editor.patch(path, json={"status": "scheduled"}).status_code == 200
    query = text("select count(*) from schedules where campaign_id = cast(:id as bigint)")
    with service.engine.begin() as tx:
        assert tx.scalar(query, {"id": made["id"]}) == 1
    assert editor.delete(path).status_code == 204
    with service.engine.begin() as tx:
        assert tx.scalar(query, {"id": made["id"]}) == 0


def test_send_queues_once_and_says_so(service: LiveService, editor: httpx.Client) -> None:
    made = created(editor)
    path = f"{CAMPAIGNS}{made['id']}"
    answer = editor.post(f"{path}/send/")
    assert answer.status_code == 202
    assert answer.json() == {"message": "Campaign queued for sending", "campaign_id": made["id"]}
    assert editor.get(path).json()["status"] == "sending"
    again = editor.post(f"{path}/send")
    assert again.status_code == 400
    assert (again.json()["detail"], again.json()["code"]) == (
        "Cannot send campaign in 'sending' status", "invalid_state",
    )  # fmt: skip
    edit = editor.patch(path, json={"subject": "Too late"})
    assert (edit.status_code, edit.json()["code"]) == (409, "not_editable")
    assert editor.patch(path, json={"name": "Renamed"}).json()["name"] == "Renamed"
    busy = editor.delete(path)
    assert (busy.status_code, busy.json()["detail"]) == (400, "Cannot delete a campaign that is currently sending")


def test_send_lists_every_problem(editor: httpx.Client) -> None:
    made = created(editor, subject="", html_body="<p>{{ oops</p>")
    answer = editor.post(f"{CAMPAIGNS}{made['id']}/send")
    assert (answer.status_code, answer.json()["code"]) == (422, "not_sendable")
    found = [item["msg"] for item in answer.json()["detail"]]
    assert "The campaign has no subject" in found and any("line 1" in message for message in found)
    assert not any(message.startswith("The campaign cannot be sent") for message in found)
    empty = created(editor, subject="", html_body="")
    both = editor.post(f"{CAMPAIGNS}{empty['id']}/send").json()["detail"]
    assert [item["loc"] for item in both] == [["subject"], ["html_body"]]


def test_pause_resume_and_cancel_move_it(editor: httpx.Client) -> None:
    made = created(editor)
    path = f"{CAMPAIGNS}{made['id']}"
    assert editor.post(f"{path}/pause").status_code == 409
    sent(editor, made["id"])
    steps = [editor.post(f"{path}/{verb}").json()["status"] for verb in ("pause", "resume")]
    steps += [editor.patch(path, json={"status": status}).json()["status"] for status in ("paused", "sending")]
    assert steps == ["paused", "sending", "paused", "sending"]
    editor.post(f"{path}/pause")
    paused = editor.delete(path)
    assert paused.status_code == 409
    cancelled = editor.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    late = editor.post(f"{path}/resume")
    assert (late.status_code, late.json()["code"]) == (409, "invalid_state")
    assert [editor.delete(path).status_code, editor.delete(path).status_code] == [204, 404]


@pytest.mark.parametrize(("verb", "suffix"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/send")])
@pytest.mark.parametrize("given", ["987654321", "abc"])
def test_an_unknown_campaign_is_404(editor: httpx.Client, verb: str, suffix: str, given: str) -> None:
    answer = editor.request(verb, f"{CAMPAIGNS}{given}{suffix}", json={} if verb == "PATCH" else None)
    assert (answer.status_code, answer.json()["detail"]) == (404, "Campaign not found")


def test_an_idempotent_send_is_one_send(service: LiveService, editor: httpx.Client) -> None:
    made = created(editor)
    path, key = f"{CAMPAIGNS}{made['id']}/send", {"Idempotency-Key": "send-" + made["id"]}
    first, again = editor.post(path, headers=key), editor.post(path, headers=key)
    assert (first.status_code, again.status_code, again.content) == (202, 202, first.content)
    with service.engine.begin() as tx:
        query = text("select version from campaigns where campaign_id = cast(:id as bigint)")
        assert tx.scalar(query, {"id": made["id"]}) == 2
