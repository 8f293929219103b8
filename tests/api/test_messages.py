"""Messages over HTTP: transactional mail and what one message shows - status, body and the rows behind them."""

from __future__ import annotations

import email
import uuid
from datetime import UTC, datetime
from email import policy
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from mautolib.campaigns import sending
from mautolib.channels.null import Null
from mautolib.contacts import consent
from mautolib.contacts.model import SuppressionReason
from tests.live_service import LiveService

MESSAGES = "/api/v1/messages/"
BODY = {"subject": "Order {{ order }}", "html_body": "<p>Hi {{ contact.first_name }}: {{ order }}</p>"}


def address() -> str:
    return f"tx-{uuid.uuid4().hex[:12]}@shop.example"


def contact(client: httpx.Client, **values: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/contacts/", json={"email": address(), "first_name": "Ana", **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def queued(client: httpx.Client, **values: Any) -> dict[str, Any]:
    answer = client.post(MESSAGES, json={**BODY, "variables": {"order": "A-1"}, **values})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def words(data: bytes) -> str:
    """The HTML part of a mail, as a mail program reads it."""
    part = email.message_from_bytes(data, policy=policy.default).get_body(("html",))
    assert part is not None
    return str(part.get_content())


def pumped(service: LiveService) -> Null:
    channel = Null()
    sending.pump(service.engine, service.settings, open_way=lambda _: channel)
    return channel


def test_a_message_to_a_contact_needs_no_consent_and_is_sent(service: LiveService, editor: httpx.Client) -> None:
    person = contact(editor, subscribed=False, language="de")
    made = queued(editor, contact_id=person["id"])
    assert {name: made[name] for name in ("kind", "status", "contact_id", "email", "subject", "campaign_id")} == {
        "kind": "transactional", "status": "queued", "contact_id": person["id"], "email": person["email"],
        "subject": "Order {{ order }}", "campaign_id": None,
    }  # fmt: skip
    assert made["locale"] == "de" and made["attempts"] == 0
    (mail,) = [mail for mail in pumped(service).accepted if mail.recipient == person["email"]]
    assert b"Subject: Order A-1\r\n" in mail.data and "Hi Ana: A-1" in words(mail.data)
    assert b"List-Unsubscribe" not in mail.data and b"/track/" not in mail.data
    shown = editor.get(f"{MESSAGES}{made['id']}").json()
    assert shown["status"] == "sent" and shown["attempts"] == 1
    assert [(entry["stage"], entry["code"]) for entry in shown["attempt_log"]] == [("dot", 250)]


def test_a_message_to_an_address_makes_no_contact_but_finds_one(service: LiveService, editor: httpx.Client) -> None:
    unknown = address()
    made = queued(editor, email=unknown)
    assert (made["contact_id"], made["email"]) == (None, unknown)
    assert editor.get("/api/v1/contacts/", params={"q": unknown}).json() == []
    person = contact(editor)
    known = queued(editor, email=person["email"].upper())
    assert (known["contact_id"], known["email"]) == (person["id"], person["email"])
    mails = {mail.recipient: words(mail.data) for mail in pumped(service).accepted}
    assert "Hi : A-1" in mails[unknown] and "Hi Ana: A-1" in mails[person["email"]]


def test_an_external_id_is_one_message_for_each_caller(
    service: LiveService, editor: httpx.Client, admin: httpx.Client
) -> None:
    number, where = uuid.uuid4().hex, address()
    first = queued(editor, email=where, external_id=number)
    assert queued(editor, email=where, external_id=number) == first
    # Also when what was said then can no longer be said.
    assert queued(editor, email=address(), subject="Other", external_id=number) == first
    assert queued(admin, email=where, external_id=number)["id"] != first["id"]
    assert queued(editor, email=where)["id"] != queued(editor, email=where)["id"]


@pytest.mark.parametrize(
    ("values", "loc"),
    [
        ({}, ["body"]),
        ({"contact_id": "1", "email": "a@shop.example"}, ["body"]),
        ({"email": "no address"}, ["body", "email"]),
        ({"email": '"a\\r\\nRCPT TO:<evil@x>"@ex.test'}, ["body", "email"]),
        ({"email": "a@good.test,b@evil.test"}, ["body", "email"]),
        ({"email": "a@shop.example", "subject": ""}, ["body"]),
        ({"email": "a@shop.example", "html_body": " "}, ["body"]),
        ({"email": "a@shop.example", "template_id": "7"}, ["body"]),
        ({"email": "a@shop.example", "subject": "two\nlines"}, ["body", "subject"]),
        ({"email": "a@shop.example", "from_name": "x\r\nBcc: y@z.example"}, ["body", "from_name"]),
        ({"email": "a@shop.example", "from_email": "nobody"}, ["body", "from_email"]),
        ({"email": "a@shop.example", "reply_to": "a@b.example, c@d.example"}, ["body", "reply_to"]),
        ({"email": "a@shop.example", "locale": "not a tag"}, ["body", "locale"]),
        ({"email": "a@shop.example", "variables": {"contact": {}}}, ["body", "variables", "contact"]),
        ({"email": "a@shop.example", "variables": {"confirm_url": "x"}}, ["body", "variables", "confirm_url"]),
        ({"email": "a@shop.example", "html_body": "{{ oops"}, ["body", "html_body"]),
        ({"email": "a@shop.example", "html_body": "{{ confirm_url }}"}, ["body", "html_body"]),
        ({"email": "a@shop.example", "html_body": "{{ campaign.name }}"}, ["body", "html_body"]),
        ({"email": "a@shop.example", "html_body": "{{ unsubscribe_url }}"}, ["body", "html_body"]),
        ({"email": "a@shop.example", "html_body": "{{ 1 // 0 }}"}, ["body", "html_body"]),
        ({"email": "a@shop.example", "html_body": "{{ 'a' * 10**9 }}"}, ["body", "html_body"]),
        ({"email": "a@shop.example", "subject": "{{ missing }}"}, ["body", "subject"]),
        ({"email": "a@shop.example", "external_id": "x" * 201}, ["body", "external_id"]),
        ({"email": "a" * 60 + "@" + "b" * 60 + "." + "c" * 60 + "." + "d" * 60 + "." + "e" * 30 + ".example"},
         ["body", "email"]),
    ],
)  # fmt: skip
def test_a_bad_value_is_422_and_named(editor: httpx.Client, values: dict[str, Any], loc: list[str]) -> None:
    answer = editor.post(MESSAGES, json={**BODY, **values})
    assert answer.status_code == 422, answer.text
    found = [item["loc"] for item in answer.json()["detail"]]
    assert all(item[: len(loc)] == loc for item in found), found


def test_a_template_is_taken_in_its_present_version(service: LiveService, editor: httpx.Client) -> None:
    body = {"name": f"receipt {uuid.uuid4()}", "subject": "Old", "html_body": "<p>{{ total|money('EUR') }}</p>"}
    template = editor.post("/api/v1/templates/", json={**body, "strict": True, "variables": ["total"]}).json()
    where = address()
    ask = {"email": where, "template_id": template["id"]}
    missing = editor.post(MESSAGES, json=ask)
    assert missing.status_code == 422
    assert missing.json()["detail"][0]["loc"] == ["body", "template_id"]
    assert "Undefined variable: total" in missing.json()["detail"][0]["msg"]
    made = editor.post(MESSAGES, json={**ask, "variables": {"total": 1234.5}, "locale": "de"})
    assert made.status_code == 202, made.text
    editor.patch(f"/api/v1/templates/{template['id']}", json={"subject": "New"})
    (mail,) = [mail for mail in pumped(service).accepted if mail.recipient == where]
    assert b"Subject: Old\r\n" in mail.data and "1.234,50" in words(mail.data)
    faulty = editor.post("/api/v1/templates/", json={**body, "name": f"bad {uuid.uuid4()}", "html_body": "{% if %}"})
    answer = editor.post(MESSAGES, json={"email": where, "template_id": faulty.json()["id"]})
    assert answer.status_code == 422 and "syntax" in answer.text
    unknown = editor.post(MESSAGES, json={"email": where, "template_id": "987654321"})
    assert (unknown.status_code, unknown.json()["detail"][0]["msg"]) == (422, "Template not found")


@pytest.mark.parametrize("reason", list(SuppressionReason))
def test_suppression_stops_what_it_should(
    service: LiveService, editor: httpx.Client, reason: SuppressionReason
) -> None:
    person, unknown = contact(editor), address()
    with service.engine.begin() as tx:
        for where in (person["email"], unknown):
            consent.suppress(tx, where, reason, actor="test", now=datetime.now(UTC), settings=service.settings)
    for whom in ({"contact_id": person["id"]}, {"email": person["email"]}, {"email": unknown}):
        answer = editor.post(MESSAGES, json={**BODY, **whom})
        if reason in (SuppressionReason.UNSUBSCRIBE, SuppressionReason.MANUAL):
            assert answer.status_code == 202, answer.text
        else:
            assert (answer.status_code, answer.json()["code"]) == (409, "suppressed")


def test_an_erased_address_that_complained_stays_stopped(
    service: LiveService, editor: httpx.Client, admin: httpx.Client
) -> None:
    from mautolib.contacts import erased
    from mautolib.contacts.address import address_key

    where = address()
    with service.engine.begin() as tx:
        now = datetime.now(UTC)
        consent.suppress(
            tx, where, SuppressionReason.COMPLAINT, actor="test", now=now, settings=service.settings
        )
        erased.forget(tx, address_key(where), service.settings, now=now, must_stay=True)
        assert consent.suppression_of(tx, address_key(where)) is None
    answer = editor.post(MESSAGES, json={**BODY, "email": where})
    assert (answer.status_code, answer.json()["code"]) == (409, "suppressed")
    with service.engine.begin() as tx:
        query = text("select count(*) from messages where to_key = :key")
        assert tx.scalar(query, {"key": address_key(where)}) == 0


def test_an_unknown_contact_is_404(editor: httpx.Client) -> None:
    for unknown in ("987654321", "x", "0"):
        answer = editor.post(MESSAGES, json={**BODY, "contact_id": unknown})
        assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")


def test_only_who_may_write_sees_the_signed_links(
    service: LiveService, editor: httpx.Client, viewer: httpx.Client, admin: httpx.Client, nobody: httpx.Client
) -> None:
    person = contact(editor)
    body = {"name": "Links", "subject": "Hi", "html_body": '<a href="https://shop.example/a">a</a>'}
    campaign = editor.post("/api/v1/campaigns/", json={**body, "utm": {"source": "news"}}).json()
    with service.engine.begin() as tx:
        from tests.builders import make_content, make_message

        content = make_content(
            tx, campaign_id=int(campaign["id"]), html_body=body["html_body"], utm={"source": "news"}
        )
        tx.execute(text("insert into message_links (content_id, position, url) values (:id, 0, :url)"),
                   {"id": content, "url": "https://shop.example/a"})  # fmt: skip
        message = make_message(tx, int(person["id"]), campaign_id=int(campaign["id"]), content_id=content)
    path = f"{MESSAGES}{message}"
    assert viewer.get(path).json()["links"] is None
    key = admin.post("/api/v1/api-keys/", json={"name": "reader", "role": "editor", "scopes": ["messages:read"]})
    assert nobody.get(path, headers={"X-API-Key": key.json()["key"]}).json()["links"] is None
    links = editor.get(path).json()["links"]
    (click,) = links["clicks"]
    assert click["url"] == "https://shop.example/a?utm_source=news"
    assert nobody.get(click["tracked_url"].replace(service.settings.public_base_url, "")).status_code == 302
    page = nobody.post(
        links["unsubscribe"].replace(service.settings.public_base_url, ""), data={"List-Unsubscribe": "One-Click"}
    )
    assert page.status_code == 200
    assert editor.get(f"/api/v1/contacts/{person['id']}").json()["subscribed"] is False


def test_the_link_of_a_confirmation_is_shown_to_nobody(service: LiveService, editor: httpx.Client) -> None:
    person = contact(editor)
    asked = editor.post(f"/api/v1/contacts/{person['id']}/confirmation", json={})
    assert asked.status_code == 202, asked.text
    (message,) = editor.get(f"/api/v1/contacts/{person['id']}/messages").json()
    assert editor.get(f"{MESSAGES}{message['id']}").json()["links"] is None


def test_an_idempotent_message_is_one_message(service: LiveService, editor: httpx.Client) -> None:
    where, key = address(), {"Idempotency-Key": uuid.uuid4().hex}
    answers = [editor.post(MESSAGES, json={**BODY, "email": where}, headers=key) for _ in range(2)]
    assert answers[0].content == answers[1].content
    with service.engine.begin() as tx:
        assert tx.scalar(text("select count(*) from messages where to_email = :to"), {"to": where}) == 1
