"""Consent over HTTP: the history, the double opt-in mail, and what changing a contact writes down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.api.test_contacts import CONTACTS, address, created
from tests.live_service import LiveService

TEMPLATE = '<p><a href="{{ confirm_url }}">Yes</a></p>'


def history(client: httpx.Client, contact_id: str) -> list[dict[str, Any]]:
    answer = client.get(f"{CONTACTS}{contact_id}/consents")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def ask(client: httpx.Client, contact_id: str, body: Any = None, **more: Any) -> httpx.Response:
    return client.post(f"{CONTACTS}{contact_id}/confirmation", json=body, **more)


def template(client: httpx.Client, html: str = TEMPLATE) -> str:
    body = {"name": uuid4().hex, "subject": "Yes?", "html_body": html}
    answer = client.post("/api/v1/templates/", json=body)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


def test_every_change_is_a_line_newest_first(editor: httpx.Client, viewer: httpx.Client) -> None:
    made = created(editor)
    path = f"{CONTACTS}{made['id']}"
    assert history(viewer, made["id"]) == []
    for change in (
        {"subscribed": False}, {"subscribed": False}, {"subscribed": True, "consent_source": "phone"},
        {"first_name": "Ana"}, {"consent_status": "withdrawn"}, {"subscribed": False},
    ):  # fmt: skip
        assert editor.patch(path, json=change).status_code == 200
    lines = history(viewer, made["id"])
    assert [(line["status"], line["source"]) for line in lines] == [
        ("withdrawn", "api"), ("withdrawn", "api"), ("granted", "phone"), ("withdrawn", "api"),
    ]  # fmt: skip
    first = lines[-1]
    assert set(first) == {"id", "contact_id", "status", "source", "wording_version", "ip", "actor", "note", "at"}
    assert (first["contact_id"], first["wording_version"], first["ip"], first["note"]) == (made["id"], None, None, None)
    assert first["id"].isdecimal() and first["at"].endswith("Z") and first["actor"].startswith("user:")


def test_what_a_contact_is_made_with_is_its_first_line(editor: httpx.Client) -> None:
    made = created(
        editor, consent_status="granted", consent_source="checkout", consent_at="2026-01-02T03:04:05Z"
    )
    assert [(line["status"], line["source"]) for line in history(editor, made["id"])] == [("granted", "checkout")]


def test_the_history_is_paged(editor: httpx.Client) -> None:
    made = created(editor)
    for number in range(5):
        editor.patch(f"{CONTACTS}{made['id']}", json={"subscribed": number % 2 == 1})
    path = f"{CONTACTS}{made['id']}/consents"
    whole = editor.get(path)
    assert (whole.headers["X-Total-Count"], whole.headers["X-Total-Count-Exact"]) == ("5", "true")
    seen, answer = [], editor.get(path, params={"limit": 2})
    while True:
        seen += answer.json()
        if "X-Next-Cursor" not in answer.headers:
            break
        answer = editor.get(path, params={"limit": 2, "cursor": answer.headers["X-Next-Cursor"]})
    assert seen == whole.json()
    assert editor.get(path, params={"skip": 3}).json() == whole.json()[3:]
    assert editor.get(path, params={"limit": 201}).status_code == 422
    other = created(editor)
    foreign = editor.get(f"{CONTACTS}{other['id']}/consents", params={
        "cursor": editor.get(path, params={"limit": 1}).headers["X-Next-Cursor"]})  # fmt: skip
    assert (foreign.status_code, foreign.json()["code"]) == (422, "invalid_cursor")


@pytest.mark.parametrize("contact_id", ["999999999999", "0", "x", "1e3", "-1"])
def test_an_unknown_contact_has_no_history_and_is_not_asked(editor: httpx.Client, contact_id: str) -> None:
    for answer in (editor.get(f"{CONTACTS}{contact_id}/consents"), ask(editor, contact_id)):
        assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")


def test_the_history_of_a_deleted_contact_is_not_shown(service: LiveService, editor: httpx.Client) -> None:
    made = created(editor, consent_status="granted", consent_source="shop")
    editor.delete(f"{CONTACTS}{made['id']}")
    assert editor.get(f"{CONTACTS}{made['id']}/consents").status_code == 404
    with service.engine.connect() as connection:
        kept = text("select count(*) from consents where contact_id = :id")
        assert connection.scalar(kept, {"id": made["id"]}) == 1


def test_asking_queues_a_mail_and_consent_is_pending(service: LiveService, editor: httpx.Client) -> None:
    made = created(editor, language="de")
    answer = ask(editor, made["id"], {"wording_version": "form 3"})
    assert answer.status_code == 202
    body = answer.json()
    assert set(body) == {"message", "message_id"} and body["message_id"].isdecimal()
    after = editor.get(f"{CONTACTS}{made['id']}").json()
    assert (after["consent_status"], after["consent_source"], after["subscribed"]) == ("pending", "double_opt_in", True)
    line = history(editor, made["id"])[0]
    assert (line["status"], line["wording_version"], line["note"]) == ("pending", "form 3", "built-in text (de)")
    with service.engine.connect() as connection:
        query = text("select kind, status, subject, track_opens, track_clicks from messages "
                     "join message_contents using (content_id) where message_id = :id")  # fmt: skip
        row = connection.execute(query, {"id": body["message_id"]}).one()
        assert tuple(row) == ("confirmation", "queued", "Bitte bestätigen Sie Ihre Anmeldung", False, False)
        audited = text("select action, resource_id, status from audit_log where resource_id = :id "
                       "and action = 'contact.confirmation'")  # fmt: skip
        assert connection.execute(audited, {"id": made["id"]}).all() == [("contact.confirmation", made["id"], 202)]


def test_the_same_question_twice_is_one_mail(editor: httpx.Client) -> None:
    made = created(editor)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(editor, made["id"]), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["message_id"] for answer in answers}) == 1
    assert len(history(editor, made["id"])) == 1
    other = ask(editor, made["id"], {"wording_version": "form 4"})
    assert other.json()["message_id"] != answers[0].json()["message_id"]


def test_a_key_replays_the_question(editor: httpx.Client) -> None:
    made, key = created(editor), {"Idempotency-Key": uuid4().hex}
    first, again = ask(editor, made["id"], headers=key), ask(editor, made["id"], headers=key)
    assert (again.status_code, again.json(), again.headers["Idempotency-Replayed"]) == (202, first.json(), "true")


def test_a_template_of_ones_own(service: LiveService, editor: httpx.Client) -> None:
    made, template_id = created(editor), template(editor)
    answer = ask(editor, made["id"], {"template_id": template_id})
    assert answer.status_code == 202
    assert history(editor, made["id"])[0]["note"] == f"template {template_id} version 1"


@pytest.mark.parametrize("html", ["<p>No link</p>", "{% if %}", "{{ confirm_url }} {{ campaign.name }}"])
def test_a_template_that_cannot_ask_is_422(editor: httpx.Client, html: str) -> None:
    made = created(editor)
    answer = ask(editor, made["id"], {"template_id": template(editor, html)})
    assert (answer.status_code, [item["loc"] for item in answer.json()["detail"]]) == (422, [["body", "template_id"]])
    assert editor.get(f"{CONTACTS}{made['id']}").json()["consent_status"] == "unknown"


@pytest.mark.parametrize("body", [
    {"template_id": "999999999999"}, {"template_id": "x"}, {"template_id": -1}, {"template_id": 10**30},
    {"template_id": ""}, {"template_id": True}, {"template_id": []}, {"wording_version": "x" * 101},
    {"wording_version": "a\nb"}, {"wording_version": 3}, [], "x",
])  # fmt: skip
def test_a_body_that_makes_no_sense_is_422(editor: httpx.Client, body: Any) -> None:
    made = created(editor)
    answer = ask(editor, made["id"], body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    assert history(editor, made["id"]) == []


def test_who_agreed_or_is_suppressed_is_not_asked(editor: httpx.Client) -> None:
    granted = created(editor, consent_status="granted", consent_source="shop")
    answer = ask(editor, granted["id"])
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")
    for reason in ("bounce", "complaint", "unsubscribe", "manual", "compliance"):
        made = created(editor)
        editor.post("/api/v1/suppression", json={"email": made["email"], "reason": reason})
        answer = ask(editor, made["id"])
        assert (answer.status_code, answer.json()["code"]) == (409, "suppressed")


def test_a_viewer_sees_and_does_not_ask(editor: httpx.Client, viewer: httpx.Client, nobody: httpx.Client) -> None:
    made = created(editor)
    assert history(viewer, made["id"]) == []
    assert ask(viewer, made["id"]).status_code == 403
    assert (nobody.get(f"{CONTACTS}{made['id']}/consents").status_code, ask(nobody, made["id"]).status_code) == (
        401, 401)  # fmt: skip


@pytest.mark.parametrize(("before", "change", "is_good"), [
    ({}, {"consent_status": "granted"}, False),
    ({}, {"consent_status": "granted", "consent_source": None}, False),
    ({}, {"consent_status": "granted", "consent_source": " "}, False),
    ({}, {"consent_status": "granted", "consent_source": "form"}, True),
    ({}, {"consent_source": "form", "consent_status": "pending"}, True),
    ({}, {"subscribed": False, "consent_status": "granted"}, False),
    ({"consent_status": "pending", "consent_source": "form"}, {"consent_status": "granted"}, False),
    ({"consent_status": "granted", "consent_source": "form"}, {"consent_status": "granted"}, True),
    ({"consent_status": "granted", "consent_source": "form"}, {"consent_source": None}, False),
    ({"consent_status": "granted", "consent_source": "form"}, {"consent_status": "unknown", "consent_source": None},
     True),
])  # fmt: skip
def test_granted_consent_has_a_source_in_every_change(
    editor: httpx.Client, before: dict[str, Any], change: dict[str, Any], is_good: bool
) -> None:
    made = created(editor, **before)
    answer = editor.patch(f"{CONTACTS}{made['id']}", json=change)
    assert answer.status_code == (200 if is_good else 422), answer.text
    if not is_good:
        assert [item["loc"] for item in answer.json()["detail"]] == [["body", "consent_source"]]
        assert editor.get(f"{CONTACTS}{made['id']}").json() == made


@pytest.mark.parametrize("reason", ["unsubscribe", "complaint", "compliance"])
def test_the_persons_own_word_is_not_overruled(editor: httpx.Client, reason: str) -> None:
    email = address()
    assert editor.post("/api/v1/suppression", json={"email": email, "reason": reason}).status_code == 201
    made = created(editor, email=email.upper(), subscribed=True)
    assert (made["subscribed"], made["suppressed"]) == (False, True)
    answer = editor.patch(f"{CONTACTS}{made['id']}", json={"subscribed": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "suppressed")
    assert editor.patch(f"{CONTACTS}{made['id']}", json={"subscribed": False}).status_code == 200


@pytest.mark.parametrize("reason", ["bounce", "manual"])
def test_a_dead_address_may_be_subscribed(editor: httpx.Client, reason: str) -> None:
    email = address()
    editor.post("/api/v1/suppression", json={"email": email, "reason": reason})
    made = created(editor, email=email)
    assert (made["subscribed"], made["suppressed"]) == (True, True)
    editor.patch(f"{CONTACTS}{made['id']}", json={"subscribed": False})
    assert editor.patch(f"{CONTACTS}{made['id']}", json={"subscribed": True}).status_code == 200


def test_every_door_keeps_the_own_word(editor: httpx.Client) -> None:
    email = address()
    editor.post("/api/v1/suppression", json={"email": email, "reason": "unsubscribe"})
    answer = editor.post(f"{CONTACTS}import", json=[{"email": email, "subscribed": True}])
    assert (answer.status_code, answer.json()) == (201, {"created": 1, "skipped": 0})
    (found,) = editor.get(CONTACTS, params={"email": email}).json()
    assert found["subscribed"] is False
