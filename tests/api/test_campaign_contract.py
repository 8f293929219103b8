"""What the contract says about campaigns, messages and suppression beyond the single operations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from mautolib.campaigns import finishing
from mautolib.ledger.model import Result, Stage, Verdict
from tests.api.test_campaign_life import CAMPAIGNS, campaign, people, person, planned, pumped, unique
from tests.live_service import LiveService

SUPPRESSION = "/api/v1/suppression"
FAILED = Result(verdict=Verdict.FAILED, stage=Stage.DOT, code=554, reply="5.6.0 no")
BOUNCED = Result(verdict=Verdict.BOUNCED, stage=Stage.RCPT, code=550, enhanced="5.1.1", reply="5.1.1 nobody")
DOUBT = Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply="timed out")
COUNTS = ("total_sent", "total_bounced", "total_skipped", "total_failed", "total_unknown", "in_flight")


def test_the_states_of_a_campaign_sum_up_to_its_recipients(service: LiveService, editor: httpx.Client) -> None:
    those = [person(editor) for _ in range(6)]
    made = campaign(editor, segment_id=people(editor, *those))
    planned(service, editor, made["id"])
    gone = editor.post(SUPPRESSION, json={"email": those[5]["email"], "reason": "manual"})
    assert gone.status_code == 201
    pumped(service, {those[0]["email"]: FAILED, those[1]["email"]: BOUNCED, those[2]["email"]: DOUBT})
    finishing.finish(service.engine, datetime.now(UTC))
    shown = editor.get(f"{CAMPAIGNS}{made['id']}").json()
    assert (shown["status"], shown["total_recipients"]) == ("sent", 6)
    rows = editor.get(f"{CAMPAIGNS}{made['id']}/messages").json()
    states = sorted(f"{row['status']} {row['reason'] or ''}".strip() for row in rows)
    assert states == ["bounced", "failed", "sent", "sent", "skipped suppressed", "unknown"]
    assert sum(shown[name] for name in COUNTS) == 6
    assert {name: shown[name] for name in COUNTS} == {
        "total_sent": 2, "total_bounced": 1, "total_skipped": 1, "total_failed": 1, "total_unknown": 1, "in_flight": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "shown", "subscribed"),
    [("bounce", "suppressed", True), ("manual", "suppressed", True), ("complaint", "suppressed", False),
     ("compliance", "suppressed", False), ("unsubscribe", "unsubscribed", False)],
)  # fmt: skip
def test_suppressing_skips_what_is_queued_in_the_same_answer(
    service: LiveService, editor: httpx.Client, reason: str, shown: str, subscribed: bool
) -> None:
    someone = person(editor)
    made = campaign(editor, segment_id=people(editor, someone))
    planned(service, editor, made["id"])
    (before,) = editor.get(f"{CAMPAIGNS}{made['id']}/messages").json()
    assert before["status"] == "queued"
    bulk = {"emails": [someone["email"].upper()], "reason": reason}
    assert editor.post(f"{SUPPRESSION}/bulk", json=bulk).json() == {"suppressed": 1, "new": 1, "known": 0}
    (after,) = editor.get(f"{CAMPAIGNS}{made['id']}/messages").json()
    assert (after["status"], after["reason"]) == ("skipped", shown)
    assert editor.get(f"/api/v1/contacts/{someone['id']}").json()["subscribed"] is subscribed
    assert someone["email"] not in [mail.recipient for mail in pumped(service).accepted]


def test_deleting_follows_the_state_and_leaves_the_figures(service: LiveService, editor: httpx.Client) -> None:
    made = campaign(editor, segment_id=people(editor, person(editor)))
    path = f"{CAMPAIGNS}{made['id']}"
    assert editor.post(f"{path}/send").status_code == 202
    sending = editor.delete(path)
    assert (sending.status_code, sending.json()["detail"]) == (
        400, "Cannot delete a campaign that is currently sending")  # fmt: skip
    assert editor.post(f"{path}/pause").status_code == 200
    assert editor.delete(path).status_code == 409
    assert editor.post(f"{path}/resume").status_code == 200
    planned_now(service, made["id"])
    pumped(service)
    finishing.finish(service.engine, datetime.now(UTC))
    assert editor.get(path).json()["status"] == "sent"
    assert (editor.delete(path).status_code, editor.delete(path).status_code) == (204, 404)
    for verb, suffix in (("GET", ""), ("GET", "/messages"), ("GET", "/preview"), ("POST", "/send"), ("POST", "/clone")):
        assert editor.request(verb, path + suffix).json()["detail"] == "Campaign not found", suffix
    with service.engine.begin() as tx:
        kept = tx.execute(text("select recipients, sent from campaign_totals where campaign_id = :id"),
                          {"id": int(made["id"])}).one()  # fmt: skip
    assert tuple(kept) == (1, 1)


def planned_now(service: LiveService, campaign_id: str) -> None:
    from mautolib.campaigns import planning

    (plan,) = planning.plan_due(service.engine, service.settings, datetime.now(UTC), campaign_id=int(campaign_id))
    assert plan.problem is None


@pytest.mark.parametrize(
    ("suffix", "body", "loc"),
    [
        ("/schedule", {"send_at": "2030-01-01T08:00:00Z", "timezone_name": "Nowhere/Land"}, ["body", "timezone_name"]),
        ("/schedule", {"send_at": "2030-01-01T08:00:00"}, ["body", "send_at"]),
        ("/schedule", {"send_at": "2020-01-01T08:00:00Z"}, ["body", "send_at"]),
        ("/schedule", {}, ["body", "send_at"]),
        ("/test", {"addresses": []}, ["body", "addresses"]),
        ("/test", {"addresses": ["a@shop.example"] * 11}, ["body", "addresses"]),
        ("/retry", {"statuses": []}, ["body", "statuses"]),
        ("/retry", {"statuses": ["sent"]}, ["body", "statuses", 0]),
        ("/clone", {"name": " "}, ["body", "name"]),
    ],
)  # fmt: skip
def test_a_bad_body_of_an_action_is_422_and_named(
    editor: httpx.Client, suffix: str, body: dict[str, Any], loc: list[Any]
) -> None:
    made = campaign(editor)
    answer = editor.post(f"{CAMPAIGNS}{made['id']}{suffix}", json=body)
    assert (answer.status_code, [item["loc"] for item in answer.json()["detail"]]) == (422, [loc])
    assert editor.get(f"{CAMPAIGNS}{made['id']}").json()["status"] == "draft"


@pytest.mark.parametrize(
    ("query", "status", "shown"),
    [("status=sent", 200, 0), ("status=nonsense", 422, None), ("reason=whatever", 200, 0), ("variant_id=77", 200, 0),
     ("variant_id=x", 200, 0), ("contact_id=x", 200, 0), ("contact_id=999999999999", 200, 0), ("occurrence=1", 200, 1),
     ("occurrence=2", 200, 0), ("occurrence=x", 422, None), ("limit=201", 422, None), ("limit=0", 422, None),
     ("skip=1000001", 422, None)],
)  # fmt: skip
def test_a_filter_that_nothing_meets_is_an_empty_list(
    service: LiveService, editor: httpx.Client, query: str, status: int, shown: int | None
) -> None:
    made = campaign(editor, segment_id=people(editor, person(editor)))
    planned(service, editor, made["id"])
    answer = editor.get(f"{CAMPAIGNS}{made['id']}/messages?{query}")
    assert answer.status_code == status, answer.text
    if shown is not None:
        assert len(answer.json()) == shown and answer.headers["X-Total-Count"] == str(shown)
    editor.post(f"{CAMPAIGNS}{made['id']}/cancel")


def test_cancel_skips_what_is_queued_and_a_cancelled_campaign_stays_so(
    service: LiveService, editor: httpx.Client
) -> None:
    made = campaign(editor, segment_id=people(editor, person(editor)))
    planned(service, editor, made["id"])
    path = f"{CAMPAIGNS}{made['id']}"
    assert editor.post(f"{path}/cancel").json()["status"] == "cancelled"
    (row,) = editor.get(f"{path}/messages").json()
    assert (row["status"], row["reason"]) == ("skipped", "cancelled")
    for suffix in ("/pause", "/resume", "/retry", "/cancel", "/schedule"):
        body = {"send_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()} if suffix == "/schedule" else {}
        answer = editor.post(path + suffix, json=body)
        assert answer.status_code == 409, (suffix, answer.text)
    answer = editor.post(f"{path}/send")
    assert (answer.status_code, answer.json()["detail"]) == (400, "Cannot send campaign in 'cancelled' status")


def test_a_list_of_suppressed_addresses_is_a_hundred_long_unless_asked(
    editor: httpx.Client, viewer: httpx.Client
) -> None:
    emails = [f"{unique()}@many.example" for _ in range(120)]
    assert editor.post(f"{SUPPRESSION}/bulk", json={"emails": emails, "reason": "bounce"}).status_code == 201
    assert len(viewer.get(SUPPRESSION).json()) == 100
    assert len(viewer.get(SUPPRESSION, params={"limit": 500, "reason": "bounce"}).json()) >= 120
    for wrong in ({"limit": 501}, {"limit": 0}, {"reason": "nonsense"}, {"skip": -1}):
        assert viewer.get(SUPPRESSION, params=wrong).status_code == 422, wrong
    assert viewer.get(f"{SUPPRESSION}/check").status_code == 422
    for odd in ("", "no address", "\x7f", "a" * 5000, "ü@"):
        answer = viewer.get(f"{SUPPRESSION}/check", params={"email": odd})
        assert (answer.status_code, answer.json()) == (200, {"suppressed": False, "entry": None}), odd
    missing = editor.delete(f"{SUPPRESSION}/{unique()}@many.example")
    assert (missing.status_code, missing.json()["detail"]) == (404, "Email not found in suppression list")


def test_explain_names_its_contact_and_the_preview_a_reference(editor: httpx.Client) -> None:
    path = f"{CAMPAIGNS}{campaign(editor)['id']}"
    assert editor.get(f"{path}/explain").status_code == 422
    for odd in ("999999999999", "x", "-1"):
        answer = editor.get(f"{path}/explain", params={"contact_id": odd})
        assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")
        answer = editor.get(f"{path}/preview", params={"contact_id": odd})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "contact_id"])
