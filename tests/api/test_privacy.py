"""A person's rights over HTTP: export, erasure, and the messages of a contact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from mautolib import maintenance
from tests import builders
from tests.live_service import LiveService

CONTACTS = "/api/v1/contacts/"
NOW = builders.NOW


def created(client: httpx.Client, **values: Any) -> dict[str, Any]:
    answer = client.post(CONTACTS, json={"email": f"{uuid4().hex}@shop.example", **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def erase(client: httpx.Client, contact: dict[str, Any], **options: Any) -> httpx.Response:
    return client.delete(f"{CONTACTS}{contact['id']}", params={"erase": "true"}, **options)


def test_an_erasure_is_told_by_its_location(service: LiveService, admin: httpx.Client) -> None:
    contact = created(admin, first_name="Zoe")
    answer = erase(admin, contact)
    assert (answer.status_code, answer.content) == (204, b"")
    location = answer.headers["Location"]
    assert admin.get(f"{CONTACTS}{contact['id']}").status_code == 404
    shown = admin.get(location).json()
    assert location == f"/api/v1/erasures/{shown['id']}"
    assert (shown["contact_id"], shown["status"], shown["completed_at"]) == (contact["id"], "running", None)
    assert shown["requested_by"].startswith("user:") and shown["requested_at"].endswith("Z")
    assert {"table": "contacts", "rows": 1} in shown["tables"]
    maintenance.run(service.engine, service.settings, now=datetime.now(UTC), task="erasure")
    done = admin.get(location).json()
    assert done["status"] == "completed" and done["completed_at"].endswith("Z")
    assert {count["table"]: count["rows"] for count in done["tables"]}.keys() >= {"contacts", "outbox", "suppressions"}
    assert erase(admin, contact).status_code == 404, "a second time there is nobody"


def test_only_an_administrator_erases(service: LiveService, editor: httpx.Client, viewer: httpx.Client) -> None:
    contact = created(editor)
    refused = erase(editor, contact)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert erase(viewer, contact).status_code == 403
    assert editor.get(f"{CONTACTS}{contact['id']}").status_code == 200
    assert editor.delete(f"{CONTACTS}{contact['id']}", params={"erase": "false"}).status_code == 204
    with service.engine.connect() as tx:
        query = text("select count(*) from erasures where contact_id = :id")
        assert tx.scalar(query, {"id": int(contact["id"])}) == 0


def test_a_key_needs_the_scope_of_an_administrator(admin: httpx.Client, nobody: httpx.Client) -> None:
    contact = created(admin)
    for scopes, status in ((["contacts:write"], 403), (["contacts:*"], 204)):
        key = admin.post("/api/v1/api-keys/", json={"name": "k", "role": "admin", "scopes": scopes}).json()["key"]
        answer = erase(nobody, contact, headers={"X-API-Key": key})
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("value", ["", "maybe", "2", "true ", "tru"])
def test_what_is_no_yes_or_no_is_neither(editor: httpx.Client, value: str) -> None:
    contact = created(editor)
    answer = editor.delete(f"{CONTACTS}{contact['id']}", params={"erase": value})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "erase"])
    twice = editor.delete(f"{CONTACTS}{contact['id']}?erase=false&erase=true")
    assert twice.status_code == 422
    assert editor.get(f"{CONTACTS}{contact['id']}").status_code == 200


def test_an_erasure_heeds_if_match(admin: httpx.Client) -> None:
    contact = created(admin)
    assert erase(admin, contact, headers={"If-Match": '"9"'}).status_code == 412
    assert erase(admin, contact, headers={"If-Match": '"1"'}).status_code == 204


@pytest.mark.parametrize("id", ["0", "abc", "999999999", "9" * 40])
def test_an_unknown_erasure(admin: httpx.Client, id: str) -> None:
    answer = admin.get(f"/api/v1/erasures/{id}")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Erasure not found")


def test_the_address_may_come_back_but_not_into_mailings(admin: httpx.Client) -> None:
    contact = created(admin)
    assert contact["subscribed"] is True
    erase(admin, contact)
    check = admin.get("/api/v1/suppression/check", params={"email": contact["email"]}).json()
    assert check["suppressed"] is True
    assert check["entry"]["email"].startswith("erased:")
    assert (check["entry"]["reason"], check["entry"]["source"]) == ("unsubscribe", "erasure")
    again = created(admin, email=contact["email"].upper())
    assert (again["subscribed"], again["suppressed"], again["id"] != contact["id"]) == (False, True, True)
    assert admin.patch(f"{CONTACTS}{again['id']}", json={"subscribed": True}).json()["code"] == "suppressed"
    known = admin.get("/api/v1/suppression/check", params={"email": contact["email"]}).json()["entry"]
    assert (known["id"], known["email"]) == (check["entry"]["id"], contact["email"])


def test_an_erased_address_is_lifted_by_its_address(admin: httpx.Client) -> None:
    contact = created(admin)
    erase(admin, contact)
    first = admin.get("/api/v1/suppression/check", params={"email": contact["email"]}).json()["entry"]
    told = admin.post("/api/v1/suppression", json={"email": contact["email"], "reason": "complaint"}).json()
    assert (told["id"], told["email"], told["reason"]) == (first["id"], first["email"], "complaint")
    assert admin.delete(f"/api/v1/suppression/{contact['email']}").status_code == 204
    assert created(admin, email=contact["email"])["subscribed"] is True


def furnished(service: LiveService, admin: httpx.Client) -> tuple[dict[str, Any], int, int]:
    """A contact with something of everything, and the ids of two of its messages, the older one first."""
    contact = created(admin, first_name="Zoe", consent_status="granted", consent_source="form")
    admin.patch(f"{CONTACTS}{contact['id']}", json={"first_name": "Zoë"})
    one = int(contact["id"])
    with service.engine.begin() as tx:
        campaign = builders.make_campaign(tx, name="Autumn")
        content = builders.make_content(tx, subject="Hello {{ contact.first_name }}", locale="de")
        sent = builders.make_message(tx, one, campaign_id=campaign, status="delivered", content_id=content,
                                     provider_id="q1", attempt_no=1)  # fmt: skip
        queued = builders.make_message(tx, one, kind="transactional", status="queued", context={"code": "7"})
        builders.make_hit(tx, one, sent, "click", url="https://shop.example/a", user_agent="Firefox")
        for kind, days in (("email_opened", 2), ("email_opened", 1), ("email_clicked", 1)):
            builders.make_event(tx, one, kind, NOW + timedelta(days=days), message_id=sent, campaign_id=campaign)
        builders.make_order(tx, one, NOW, total="20.50", lines=[{"sku": "A", "name": "Ring", "quantity": 1}])
        builders.make_tag(tx, f"vip {uuid4().hex}", [one])
        builders.make_event(tx, builders.make_contact(tx), "form_submitted", properties={"form": "other"})
    return contact, sent, queued


def test_the_messages_of_a_contact(service: LiveService, admin: httpx.Client, viewer: httpx.Client) -> None:
    contact, sent, queued = furnished(service, admin)
    path = f"{CONTACTS}{contact['id']}/messages"
    answer = viewer.get(path)
    assert answer.status_code == 200
    assert [message["id"] for message in answer.json()] == [str(queued), str(sent)]
    shown = answer.json()[1]
    assert shown.pop("campaign_id").isdecimal()
    assert shown == {
        "id": str(sent), "kind": "campaign", "workflow_id": None, "occurrence": 1, "contact_id": contact["id"],
        "email": contact["email"], "status": "delivered", "reason": None, "variant_id": None, "locale": "de",
        "subject": "Hello {{ contact.first_name }}", "due_at": "2026-03-01T00:00:00Z", "attempts": 1,
        "last_code": None, "last_error": None, "provider_id": "q1", "queued_at": "2026-03-01T00:00:00Z",
        "sent_at": "2026-03-01T00:00:00Z", "delivered_at": None, "bounced_at": None, "complained_at": None,
        "first_open_at": "2026-03-02T00:00:00Z", "first_click_at": "2026-03-02T00:00:00Z", "unsubscribed_at": None,
    }  # fmt: skip
    assert [m["id"] for m in viewer.get(path, params={"status": "queued"}).json()] == [str(queued)]
    assert [m["id"] for m in viewer.get(path, params={"kind": "campaign"}).json()] == [str(sent)]
    assert viewer.get(path, params={"status": "queued", "kind": "campaign"}).json() == []
    first = viewer.get(path, params={"limit": 1})
    assert first.headers["X-Total-Count"] == "2"
    second = viewer.get(path, params={"limit": 1, "cursor": first.headers["X-Next-Cursor"]})
    assert ([m["id"] for m in second.json()], "X-Next-Cursor" in second.headers) == ([str(sent)], False)
    assert viewer.get(path, params={"skip": 1}).json() == second.json()
    assert viewer.get(path, params={"status": "lost"}).status_code == 422
    assert viewer.get(f"{CONTACTS}999999999/messages").json()["detail"] == "Contact not found"


def test_an_export_holds_everything_of_one_person(service: LiveService, admin: httpx.Client) -> None:
    contact, sent, queued = furnished(service, admin)
    answer = admin.get(f"{CONTACTS}{contact['id']}/export")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == f'attachment; filename="contact-{contact["id"]}.json"'
    assert answer.headers["Cache-Control"] == "no-store"
    found = answer.json()
    assert list(found) == ["contact", "consents", "suppression", "tags", "segments", "events", "orders", "messages",
                           "hits", "scores", "stages", "enrollments", "imports", "audit"]  # fmt: skip
    person = found["contact"]
    assert (person["id"], person["first_name"], person["email"]) == (contact["id"], "Zoë", contact["email"])
    assert [version["first_name"] for version in person["history"]] == ["Zoe"]
    assert [line["status"] for line in found["consents"]] == ["granted"]
    assert found["suppression"] is None
    assert [tag["name"][:3] for tag in found["tags"]] == ["vip"]
    kinds = [event["type"] for event in found["events"]]
    assert sorted(kinds) == sorted(
        ["contact_created", "contact_updated", "email_opened", "email_opened", "email_clicked"])
    assert {event["contact_id"] for event in found["events"]} == {contact["id"]}
    assert [(o["total"], o["lines"][0]["name"], o["status"]) for o in found["orders"]] == [
        ("20.5000", "Ring", "placed")]
    assert [(m["id"], m["variables"]) for m in found["messages"]] == [(str(queued), {"code": "7"}), (str(sent), {})]
    assert found["messages"][1]["first_open_at"] == "2026-03-02T00:00:00Z"
    assert [(hit["user_agent"], hit["verdict"]) for hit in found["hits"]] == [("Firefox", "human")]
    assert found["scores"] == {"current": None, "history": [], "awards": []}
    assert found["stages"] == {"current": None, "transitions": []}
    assert [entry["action"] for entry in found["audit"]] == ["contact.update", "contact.create"]
    assert "admin@shop.example" not in answer.text, "who of the staff acted is about somebody else"
    again = admin.get(f"{CONTACTS}{contact['id']}/export").json()
    assert again["audit"][0]["action"] == "contact.export", "an export is audited"


def test_only_an_administrator_exports(editor: httpx.Client, admin: httpx.Client) -> None:
    contact = created(editor)
    assert editor.get(f"{CONTACTS}{contact['id']}/export").status_code == 403
    missing = admin.get(f"{CONTACTS}999999999/export")
    assert (missing.status_code, missing.json()["detail"]) == (404, "Contact not found")


def test_an_import_that_made_the_contact_is_named(admin: httpx.Client) -> None:
    email = f"{uuid4().hex}@shop.example"
    assert admin.post("/api/v1/contacts/import", json=[{"email": email}]).status_code == 201
    contact = admin.get(CONTACTS, params={"email": email}).json()[0]
    found = admin.get(f"{CONTACTS}{contact['id']}/export").json()["imports"]
    assert [(one["format"], one["status"]) for one in found] == [("json", "completed")]
