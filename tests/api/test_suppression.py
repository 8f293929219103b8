"""Suppression over HTTP: entries, strength of reasons, and what suppressing does to the person."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService

LIST = "/api/v1/suppression"


def address() -> str:
    return f"{uuid4().hex}@mail.example"


def suppressed(client: httpx.Client, email: str, reason: str = "manual", **values: Any) -> dict[str, Any]:
    answer = client.post(LIST, json={"email": email, "reason": reason, **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_entry_and_a_known_address(editor: httpx.Client, viewer: httpx.Client) -> None:
    email = address()
    first = suppressed(editor, email, "bounce", source="support", notes="one\ntwo")
    assert {key: first[key] for key in ("email", "reason", "source", "notes")} == {
        "email": email, "reason": "bounce", "source": "support", "notes": "one\ntwo",
    }  # fmt: skip
    weaker = suppressed(editor, email.upper(), "manual")
    assert weaker == first
    stronger = suppressed(editor, email, "complaint", source="mailbox provider")
    assert (stronger["id"], stronger["reason"], stronger["source"]) == (first["id"], "complaint", "mailbox provider")
    check = viewer.get(f"{LIST}/check", params={"email": f" {email.title()} "}).json()
    assert check == {"suppressed": True, "entry": stronger}
    for odd in ("", "nonsense", "@", "a" * 999, f"{'a' * 9999}@mail.example"):
        assert viewer.get(f"{LIST}/check", params={"email": odd}).json() == {"suppressed": False, "entry": None}


def test_notes_are_text_of_many_lines(editor: httpx.Client) -> None:
    notes = "Called.\r\n\tAsked to stop.\rBye"
    assert suppressed(editor, address(), notes=notes)["notes"] == notes
    named = editor.post(LIST, json={"email": address(), "reason": "manual", "notes": "\x07"})
    assert (named.status_code, named.json()["detail"][0]["loc"]) == (422, ["body", "notes"])


@pytest.mark.parametrize(
    ("reason", "subscribed"),
    [("manual", True), ("bounce", True), ("unsubscribe", False), ("complaint", False), ("compliance", False)],
)
def test_the_reason_decides_about_the_subscription(editor: httpx.Client, reason: str, subscribed: bool) -> None:
    email = address()
    contact = editor.post("/api/v1/contacts/", json={"email": email}).json()
    suppressed(editor, email, reason)
    found = editor.get(f"/api/v1/contacts/{contact['id']}").json()
    assert (found["suppressed"], found["subscribed"]) == (True, subscribed)
    assert found["consent_status"] == ("unknown" if subscribed else "withdrawn")


def test_bulk_counts_repeats_and_is_all_or_nothing(service: LiveService, editor: httpx.Client) -> None:
    known, fresh = address(), address()
    suppressed(editor, known)
    answer = editor.post(f"{LIST}/bulk", json={"emails": [known, fresh, fresh.upper()], "reason": "unsubscribe"})
    assert (answer.status_code, answer.json()) == (201, {"suppressed": 3, "new": 1, "known": 1})
    lost = address()
    refused = editor.post(f"{LIST}/bulk", json={"emails": [lost, "no address", address()], "reason": "manual"})
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "emails", 1]
    assert editor.get(f"{LIST}/check", params={"email": lost}).json()["suppressed"] is False
    one = editor.post(f"{LIST}/bulk", json={"emails": ["no address"], "reason": "manual"})
    assert [problem["loc"] for problem in one.json()["detail"]] == [["body", "emails", 0]]
    for emails in ([], [address()] * 10_001, "x@y.example", [None]):
        assert editor.post(f"{LIST}/bulk", json={"emails": emails, "reason": "manual"}).status_code == 422


def test_ten_thousand_at_once(editor: httpx.Client) -> None:
    batch = uuid4().hex
    emails = [f"{batch}-{number}@mail.example" for number in range(10_000)]
    answer = editor.post(f"{LIST}/bulk", json={"emails": emails, "reason": "manual", "source": batch})
    assert answer.json() == {"suppressed": 10_000, "new": 10_000, "known": 0}


def test_the_list_is_newest_first_and_pages_on(editor: httpx.Client, viewer: httpx.Client) -> None:
    emails = [suppressed(editor, address(), "compliance")["email"] for _ in range(5)]
    page = viewer.get(LIST, params={"reason": "compliance", "limit": 3})
    assert [one["email"] for one in page.json()] == emails[:1:-1]
    rest = viewer.get(page.headers["Link"].split(">")[0][1:]).json()
    assert [one["email"] for one in rest[:2]] == [emails[1], emails[0]]
    assert viewer.get(LIST, params={"limit": 500}).status_code == 200
    assert viewer.get(LIST, params={"limit": 501}).status_code == 422
    assert viewer.get(LIST, params={"reason": "whim"}).status_code == 422
    stats = viewer.get(f"{LIST}/stats").json()
    assert stats["total"] == sum(stats["by_reason"].values())
    assert stats["by_reason"]["compliance"] == int(
        viewer.get(LIST, params={"reason": "compliance"}).headers["X-Total-Count"]
    )


@pytest.mark.parametrize("reason", ["complaint", "compliance"])
def test_only_administrators_lift_what_the_law_or_a_complaint_says(
    service: LiveService, editor: httpx.Client, admin: httpx.Client, reason: str
) -> None:
    email = address()
    entry = suppressed(editor, email, reason)
    refused = editor.delete(f"{LIST}/{email}")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert admin.delete(f"{LIST}/{email}").status_code == 204
    missing = admin.delete(f"{LIST}/{email}")
    assert (missing.status_code, missing.json()["detail"]) == (404, "Email not found in suppression list")
    with service.engine.connect() as connection:
        query = "select status from audit_log where action = 'suppression.delete' and resource_id = :id"
        assert connection.scalars(text(query), {"id": entry["id"]}).all() == [204]


def test_lifting_does_not_subscribe_again(editor: httpx.Client) -> None:
    email = f"a/b+c%{uuid4().hex}@mail.example"
    contact = editor.post("/api/v1/contacts/", json={"email": email}).json()
    suppressed(editor, email, "unsubscribe")
    assert editor.patch(f"/api/v1/contacts/{contact['id']}", json={"subscribed": True}).json()["code"] == "suppressed"
    assert editor.delete(f"{LIST}/{quote(email, safe='')}").status_code == 204
    found = editor.get(f"/api/v1/contacts/{contact['id']}").json()
    assert (found["suppressed"], found["subscribed"]) == (False, False)


@pytest.mark.parametrize(
    "body",
    [{"reason": "manual"}, {"email": "x@y.example"}, {"email": "x@y.example", "reason": "whim"},
     {"email": "a\nb@y.example", "reason": "manual"}, {"email": "none", "reason": "manual"},
     {"email": "x@y.example", "reason": "manual", "source": "s" * 101},
     {"email": "x@y.example", "reason": "manual", "notes": "n" * 2001}],
)  # fmt: skip
def test_a_bad_entry_is_422(editor: httpx.Client, body: dict[str, Any]) -> None:
    assert editor.post(LIST, json=body).status_code == 422
