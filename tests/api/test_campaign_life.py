"""Campaigns before and after sending, over HTTP: test, preview, messages, explain, retry, clone."""

from __future__ import annotations

import email
import uuid
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from mautolib.campaigns import finishing, planning, sending
from mautolib.channels.null import Null
from mautolib.contacts import consent
from mautolib.contacts.model import SuppressionReason
from mautolib.ledger.model import Result, Stage, Verdict
from tests.live_service import LiveService

CAMPAIGNS = "/api/v1/campaigns/"
HTML = '<p>Hello {{ contact.first_name }} <a href="https://shop.example/sale">sale</a></p>'
REFUSED = Result(verdict=Verdict.FAILED, stage=Stage.DOT, code=554, reply="5.6.0 no")
DOUBT = Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply="timed out")


def unique() -> str:
    return uuid.uuid4().hex[:12]


def person(client: httpx.Client, **values: Any) -> dict[str, Any]:
    body = {"email": f"life-{unique()}@{values.pop('domain', 'life.example')}", "first_name": "Ana", **values}
    answer = client.post("/api/v1/contacts/", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def people(client: httpx.Client, *those: dict[str, Any]) -> str:
    """A segment of exactly these contacts."""
    segment = client.post("/api/v1/segments/", json={"name": f"life {unique()}"}).json()
    for one in those:
        answer = client.post(f"/api/v1/segments/{segment['id']}/contacts/{one['id']}")
        assert answer.status_code == 200, answer.text
    return str(segment["id"])


def campaign(client: httpx.Client, **values: Any) -> dict[str, Any]:
    body = {"name": f"life {unique()}", "subject": "Hi {{ contact.first_name }}", "html_body": HTML, **values}
    answer = client.post(CAMPAIGNS, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def planned(service: LiveService, client: httpx.Client, campaign_id: str) -> None:
    assert client.post(f"{CAMPAIGNS}{campaign_id}/send").status_code == 202
    (plan,) = planning.plan_due(
        service.engine, service.settings, datetime.now(UTC), campaign_id=int(campaign_id)
    )
    assert plan.problem is None


def pumped(service: LiveService, answers: dict[str, Result] | None = None) -> Null:
    channel = Null(dict(answers or {}))
    sending.pump(service.engine, service.settings, open_way=lambda _: channel)
    return channel


def finished(service: LiveService) -> None:
    finishing.finish(service.engine, datetime.now(UTC))


def read(data: bytes) -> EmailMessage:
    found = email.message_from_bytes(data, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


def html_of(data: bytes) -> str:
    part = read(data).get_body(("html",))
    assert part is not None
    return str(part.get_content())


# ---- test mails


def test_a_test_mail_looks_like_the_campaign_and_counts_nowhere(service: LiveService, editor: httpx.Client) -> None:
    shown = person(editor, first_name="Zoë", language="de-AT")
    made = campaign(editor, name="Spring", locales={"de": {"subject": "Hallo {{ contact.first_name }}",
                    "html_body": "<p>{{ campaign.name }} für {{ contact.email }}</p>"}})  # fmt: skip
    where = [f"team-{unique()}@shop.example", f"boss-{unique()}@shop.example"]
    path = f"{CAMPAIGNS}{made['id']}"
    answer = editor.post(f"{path}/test", json={"addresses": [*where, where[0].upper()], "contact_id": shown["id"]})
    assert answer.status_code == 202, answer.text
    assert len(answer.json()["message_ids"]) == 2
    mails = {mail.recipient: mail.data for mail in pumped(service).accepted}
    assert set(where) <= mails.keys() and shown["email"] not in mails
    mail = read(mails[where[0]])
    assert mail["Subject"] == "Hallo Zoë" and mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert f"Spring für {shown['email']}" in html_of(mails[where[0]])
    # The way out leads nobody out: who presses it is not the person whose data is shown.
    link = str(mail["List-Unsubscribe"]).strip("<>").replace(service.settings.public_base_url, "")
    pressed = httpx.post(f"{service.url}{link}", data={"List-Unsubscribe": "One-Click"}, trust_env=False)
    assert pressed.status_code == 200
    assert editor.get(f"/api/v1/contacts/{shown['id']}").json()["subscribed"] is True
    message = editor.get(f"/api/v1/messages/{answer.json()['message_ids'][0]}").json()
    assert {name: message[name] for name in ("kind", "status", "email", "contact_id", "campaign_id", "locale")} == {
        "kind": "test", "status": "sent", "email": where[0], "contact_id": None, "campaign_id": made["id"],
        "locale": "de",
    }  # fmt: skip
    after = editor.get(path).json()
    assert {name: value for name, value in after.items() if name.startswith("total_") and value} == {}
    assert after["status"] == "draft" and editor.get(f"{path}/messages").json() == []


def test_a_test_goes_out_whatever_the_state_of_the_campaign(service: LiveService, editor: httpx.Client) -> None:
    made = campaign(editor, segment_id=people(editor))
    path, where = f"{CAMPAIGNS}{made['id']}", f"team-{unique()}@shop.example"
    planned(service, editor, made["id"])
    for verb in ("pause", "cancel"):
        assert editor.post(f"{path}/{verb}").status_code == 200
        assert editor.post(f"{path}/test", json={"addresses": [where]}).status_code == 202
    finished(service)
    assert [mail.recipient for mail in pumped(service).accepted].count(where) == 2


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"addresses": []}, ["body", "addresses"]),
        ({"addresses": ["a@b.example"] * 11}, ["body", "addresses"]),
        ({"addresses": ["a@b.example", "nobody"]}, ["body", "addresses", 1]),
        ({"addresses": ["a@b.example\r\nBcc: x@y.example"]}, ["body", "addresses", 0]),
        ({"addresses": ["a@b.example"], "contact_id": "987654321"}, ["body", "contact_id"]),
        ({"addresses": ["a@b.example"], "contact_id": "x"}, ["body", "contact_id"]),
        ({"addresses": ["a@b.example"], "variant_id": "1"}, ["body", "variant_id"]),
        ({"addresses": ["a@b.example"], "locale": "<b>"}, ["body", "locale"]),
    ],
)
def test_a_bad_test_is_422_and_named(editor: httpx.Client, body: dict[str, Any], loc: list[Any]) -> None:
    made = campaign(editor)
    answer = editor.post(f"{CAMPAIGNS}{made['id']}/test", json=body)
    assert answer.status_code == 422, answer.text
    assert [item["loc"] for item in answer.json()["detail"]] == [loc]


def test_a_faulty_campaign_has_no_test(editor: httpx.Client) -> None:
    made = campaign(editor, html_body="{{ oops }}")
    answer = editor.post(f"{CAMPAIGNS}{made['id']}/test", json={"addresses": ["team@shop.example"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "not_sendable")


@pytest.mark.parametrize("reason", list(SuppressionReason))
def test_only_complaint_and_law_stop_a_test(
    service: LiveService, editor: httpx.Client, reason: SuppressionReason
) -> None:
    where, made = f"team-{unique()}@shop.example", campaign(editor)
    with service.engine.begin() as tx:
        consent.suppress(tx, where, reason, actor="test", now=datetime.now(UTC), settings=service.settings)
    answer = editor.post(f"{CAMPAIGNS}{made['id']}/test", json={"addresses": [f"x-{unique()}@shop.example", where]})
    if reason in (SuppressionReason.COMPLAINT, SuppressionReason.COMPLIANCE):
        assert (answer.status_code, answer.json()["code"]) == (409, "suppressed")
        with service.engine.begin() as tx:
            assert tx.scalar(text("select count(*) from messages where to_email = :to"), {"to": where}) == 0
    else:
        assert answer.status_code == 202
        assert where in [mail.recipient for mail in pumped(service).accepted]


# ---- preview


def test_a_preview_counts_what_sending_would_do(
    service: LiveService, editor: httpx.Client, viewer: httpx.Client
) -> None:
    now = datetime.now(UTC)
    those = [
        person(editor, language="de", domain="a.example"), person(editor, language="de_AT", domain="a.example"),
        person(editor, language="fr", domain="b.example"), person(editor, subscribed=False),
        person(editor), person(editor, language="de"),
    ]  # fmt: skip
    with service.engine.begin() as tx:
        for one, reason in ((those[4], SuppressionReason.BOUNCE), (those[5], SuppressionReason.UNSUBSCRIBE)):
            consent.suppress(tx, one["email"], reason, actor="test", now=now, settings=service.settings)
    words = "<p>Hallo {{ contact.first_name }}</p>"
    content = {"de": {"subject": "Hallo", "html_body": words, "preheader": "Nur {{ 1 + 1 }}"}}
    made = campaign(editor, segment_id=people(editor, *those), locales=content, from_name='Ana "A" Shop, Ltd.')
    path = f"{CAMPAIGNS}{made['id']}"
    found = viewer.get(f"{path}/preview", params={"contact_id": those[1]["id"]}).json()
    assert found["audience"] == {
        "candidates": 6, "mailable": 3, "excluded": {"unsubscribed": 2, "suppressed": 1},
        "by_locale": {"de": 2, "default": 1}, "by_domain": {"a.example": 2, "b.example": 1},
    }  # fmt: skip
    mail = found["rendered"]
    assert (mail["subject"], mail["preheader"]) == ("Hallo", "Nur 2")
    assert "Hallo Ana" in mail["html_body"] and "Hallo Ana" in mail["text_body"] and 'lang="de"' in mail["html_body"]
    assert mail["headers"]["From"] == '"Ana \\"A\\" Shop, Ltd." <news@shop.example>'
    assert mail["headers"]["To"] == those[1]["email"]
    assert mail["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert found["problems"] == [] and found["warnings"] == []
    planned(service, editor, made["id"])
    after = editor.get(path).json()
    assert (after["total_recipients"], after["total_skipped"]) == (6, 3)


def test_a_preview_shows_the_language_asked_for_and_no_link_that_works(
    service: LiveService, viewer: httpx.Client, editor: httpx.Client
) -> None:
    one = person(editor, language="de")
    content = {"de": {"subject": "Hallo", "html_body": "<p>{{ unsubscribe_url }}</p>"}}
    made = campaign(editor, segment_id=people(editor, one), locales=content)
    path = f"{CAMPAIGNS}{made['id']}/preview"
    assert viewer.get(path).json()["rendered"]["subject"] == "Hi"
    assert viewer.get(path, params={"locale": "de-CH"}).json()["rendered"]["subject"] == "Hallo"
    assert viewer.get(path, params={"contact_id": one["id"], "locale": "fr"}).json()["rendered"]["subject"] == "Hi Ana"
    rendered = viewer.get(path, params={"contact_id": one["id"]}).json()["rendered"]
    link = rendered["headers"]["List-Unsubscribe"].strip("<>")
    assert link in rendered["html_body"]
    answer = httpx.post(link.replace(service.settings.public_base_url, service.url),
                        data={"List-Unsubscribe": "One-Click"}, trust_env=False)  # fmt: skip
    assert answer.status_code == 200
    assert editor.get(f"/api/v1/contacts/{one['id']}").json()["subscribed"] is True


def test_a_preview_tells_every_problem_and_has_no_effect(service: LiveService, editor: httpx.Client) -> None:
    made = campaign(editor, subject="", html_body="<p>{{ nothing_we_know }}</p>", segment_id=people(editor))
    path = f"{CAMPAIGNS}{made['id']}"
    before = editor.get(path).json()
    with service.engine.begin() as tx:
        counted = text("select (select count(*) from messages), (select count(*) from message_contents),"
                       " (select count(*) from hits), (select count(*) from audit_log)")  # fmt: skip
        rows = tx.execute(counted).one()
    answer = editor.get(f"{path}/preview")
    # Whatever it shows is data: a browser that is led there runs nothing and asks for nothing (D10).
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    found = answer.json()
    messages = [problem["message"] for problem in found["problems"]]
    assert "The campaign has no subject" in messages
    assert any("nothing_we_know" in message for message in messages)
    assert found["audience"]["candidates"] == 0
    assert any("Nobody" in warning for warning in found["warnings"])
    with service.engine.begin() as tx:
        assert tx.execute(counted).one() == rows
    assert editor.get(path).json() == before


def test_a_preview_warns_of_what_gmail_cuts_off_and_of_scripts(editor: httpx.Client) -> None:
    body = "<script>alert(1)</script><p>" + "many words " * 12_000 + "</p>"
    made = campaign(editor, html_body=body, segment_id=people(editor, person(editor)))
    warnings = editor.get(f"{CAMPAIGNS}{made['id']}/preview").json()["warnings"]
    assert any("Gmail" in warning for warning in warnings), warnings
    assert any("script" in warning for warning in warnings), warnings


@pytest.mark.parametrize("params", [{"contact_id": "987654321"}, {"locale": "<"}, {"variant_id": "1"}])
def test_a_bad_preview_is_422(editor: httpx.Client, params: dict[str, str]) -> None:
    made = campaign(editor)
    answer = editor.get(f"{CAMPAIGNS}{made['id']}/preview", params=params)
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["query", *params]


# ---- who got what


def test_the_messages_of_a_campaign_by_every_filter(
    service: LiveService, editor: httpx.Client, viewer: httpx.Client
) -> None:
    those = [person(editor), person(editor), person(editor), person(editor, subscribed=False)]
    made = campaign(editor, segment_id=people(editor, *those))
    planned(service, editor, made["id"])
    pumped(service, {those[0]["email"]: REFUSED, those[1]["email"]: DOUBT})
    path = f"{CAMPAIGNS}{made['id']}/messages"
    everything = viewer.get(path)
    ids = [int(row["id"]) for row in everything.json()]
    assert ids == sorted(ids, reverse=True) and len(ids) == 4 and everything.headers["X-Total-Count"] == "4"

    def who(**params: Any) -> list[str]:
        answer = viewer.get(path, params=params)
        assert answer.headers["X-Total-Count"] == str(len(answer.json()))
        return [row["contact_id"] for row in answer.json()]

    assert who(status="failed") == [those[0]["id"]] and who(status="unknown") == [those[1]["id"]]
    assert who(reason="unsubscribed") == [those[3]["id"]] == who(contact_id=those[3]["id"])
    assert len(who(occurrence=1)) == 4 and who(occurrence=2) == [] == who(variant_id="1") == who(contact_id="x")
    first = viewer.get(path, params={"limit": 3})
    rest = viewer.get(first.headers["Link"].removeprefix("<").partition(">")[0])
    assert [row["id"] for row in first.json() + rest.json()] == [row["id"] for row in everything.json()]
    assert viewer.get(path, params={"skip": 3}).json() == rest.json()
    assert viewer.get(path, params={"status": "lost"}).status_code == 422


def test_explain_follows_a_contact_through_the_life_of_a_campaign(
    service: LiveService, editor: httpx.Client, viewer: httpx.Client
) -> None:
    inside, away, gone = person(editor), person(editor), person(editor, subscribed=False)
    made = campaign(editor, segment_id=people(editor, inside, gone))
    path = f"{CAMPAIGNS}{made['id']}"

    def fate(one: dict[str, Any]) -> tuple[str, str]:
        answer = viewer.get(f"{path}/explain", params={"contact_id": one["id"]})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        failed = [check["check"] for check in found["checks"] if not check["passed"]]
        assert (found["outcome"] in ("will_send", "queued")) or failed or found["outcome"] == "handed_over", found
        return found["outcome"], found["reason"]

    assert fate(inside) == ("will_send", "draft")
    assert fate(gone) == ("skipped", "unsubscribed")
    assert fate(away) == ("not_in_audience", "not_in_segment")
    planned(service, editor, made["id"])
    assert fate(inside) == ("queued", "due") and fate(gone) == ("skipped", "unsubscribed")
    assert fate(away) == ("not_in_audience", "not_in_audience_at_launch")
    editor.post(f"{path}/pause")
    assert fate(inside) == ("queued", "paused")
    editor.post(f"{path}/resume")
    pumped(service)
    assert fate(inside) == ("handed_over", "sent")
    for unknown in ("987654321", "x"):
        answer = viewer.get(f"{path}/explain", params={"contact_id": unknown})
        assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")
    assert viewer.get(f"{path}/explain").status_code == 422


# ---- again


def test_retry_sends_again_what_failed_and_a_doubt_only_when_confirmed(
    service: LiveService, editor: httpx.Client
) -> None:
    those = [person(editor), person(editor), person(editor)]
    made = campaign(editor, segment_id=people(editor, *those))
    path = f"{CAMPAIGNS}{made['id']}"
    assert editor.post(f"{path}/retry").status_code == 409
    planned(service, editor, made["id"])
    pumped(service, {those[0]["email"]: REFUSED, those[1]["email"]: DOUBT})
    finished(service)
    before = editor.get(path).json()
    assert (before["status"], before["total_failed"], before["total_unknown"]) == ("sent", 1, 1)
    for body in ({"statuses": ["unknown"]}, {"statuses": ["failed", "unknown"]}):
        refused = editor.post(f"{path}/retry", json=body)
        assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "confirm_duplicates"])
    for bad in ([], ["sent"], ["failed"] * 3, None):
        assert editor.post(f"{path}/retry", json={"statuses": bad}).status_code == 422
    answer = editor.post(f"{path}/retry", json={})
    assert (answer.status_code, answer.json()["requeued"]) == (202, 1)
    again = editor.get(path).json()
    assert (again["status"], again["sent_at"], again["total_failed"]) == ("sending", None, 0)
    assert [mail.recipient for mail in pumped(service).accepted] == [those[0]["email"]]
    editor.post(f"{path}/pause")
    answer = editor.post(f"{path}/retry", json={"statuses": ["unknown"], "confirm_duplicates": True})
    assert (answer.status_code, answer.json()["requeued"]) == (202, 1)
    assert editor.get(path).json()["status"] == "paused" and pumped(service).accepted == []
    editor.post(f"{path}/resume")
    assert [mail.recipient for mail in pumped(service).accepted] == [those[1]["email"]]
    finished(service)
    after = editor.get(path).json()
    assert (after["status"], after["total_sent"], after["total_recipients"]) == ("sent", 3, 3)
    assert editor.post(f"{path}/retry").json()["requeued"] == 0
    assert editor.get(path).json()["status"] == "sent", "nothing to do leaves it sent"
    messages = editor.get(f"{path}/messages").json()
    assert sorted(row["attempts"] for row in messages) == [1, 2, 2]


def test_a_clone_is_a_draft_with_content_and_settings(service: LiveService, editor: httpx.Client) -> None:
    segment = people(editor, person(editor))
    settings = {
        "preheader": "Pre", "from_name": "Shop", "reply_to": "help@shop.example", "utm": {"source": "news"},
        "locales": {"de": {"subject": "Hallo", "html_body": "<p>x</p>"}}, "track_opens": False, "max_per_hour": 7,
        "expires_after_hours": 48, "segment_id": segment, "scheduled_at": "2190-01-01T00:00:00Z",
    }  # fmt: skip
    made = campaign(editor, **settings)
    editor.post(f"{CAMPAIGNS}{made['id']}/send")
    answer = editor.post(f"{CAMPAIGNS}{made['id']}/clone")
    copy = answer.json()
    assert answer.status_code == 201 and answer.headers["ETag"] == '"1"'
    own = {"id", "name", "status", "version", "created_at", "updated_at", "scheduled_at"}
    assert {k: v for k, v in copy.items() if k not in own} == {k: v for k, v in made.items() if k not in own}
    assert (copy["status"], copy["scheduled_at"], copy["name"]) == ("draft", None, made["name"] + " (copy)")
    named = editor.post(f"{CAMPAIGNS}{copy['id']}/clone", json={"name": " Summer "}).json()
    assert named["name"] == "Summer"
    assert editor.post(f"{CAMPAIGNS}{copy['id']}/clone", json={"name": " "}).status_code == 422
    long = campaign(editor, name="n" * 300)
    assert editor.post(f"{CAMPAIGNS}{long['id']}/clone").json()["name"] == "n" * 293 + " (copy)"
    with service.engine.begin() as tx:
        told = text("select count(*) from outbox where event_name = 'campaign.created' and data->>'campaign_id' = :id")
        assert tx.scalar(told, {"id": copy["id"]}) == 1
    editor.post(f"{CAMPAIGNS}{made['id']}/cancel")
