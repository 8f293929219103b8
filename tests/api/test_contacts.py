"""Contacts over HTTP: status, body and the rows behind them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService

CONTACTS = "/api/v1/contacts/"


def address() -> str:
    return f"{uuid4().hex}@shop.example"


def created(client: httpx.Client, **values: Any) -> dict[str, Any]:
    answer = client.post(CONTACTS, json={"email": address(), **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_created_contact_has_the_defaults_of_the_contract(editor: httpx.Client) -> None:
    email = address()
    answer = editor.post(CONTACTS, json={"email": email.replace("shop.example", "SHOP.Example")})
    body = answer.json()
    assert answer.status_code == 201
    assert answer.headers["ETag"] == '"1"'
    assert body.pop("id").isdecimal() and body.pop("created_at").endswith("Z")
    assert body == {
        "email": email, "first_name": "", "last_name": "", "phone": "", "country": "", "language": "en",
        "timezone": "", "currency": "", "custom_fields": {}, "subscribed": True, "suppressed": False,
        "consent_status": "unknown", "consent_source": None, "consent_at": None, "lifecycle_stage": None, "tags": [],
        "segments": [], "updated_at": None,
    }  # fmt: skip


def test_reading_gives_what_was_created(editor: httpx.Client, viewer: httpx.Client) -> None:
    made = created(editor, first_name=" Ana ", timezone="Europe/Lisbon", custom_fields={"size": "M", "n": 1.5})
    answer = viewer.get(f"{CONTACTS}{made['id']}")
    assert (answer.status_code, answer.json()) == (200, made)
    assert (made["first_name"], made["custom_fields"]) == ("Ana", {"size": "M", "n": 1.5})


def test_one_contact_per_address_whatever_its_case(editor: httpx.Client) -> None:
    made = created(editor)
    again = editor.post(CONTACTS, json={"email": made["email"].upper()})
    assert again.status_code == 409
    assert (again.json()["detail"], again.json()["code"]) == ("Contact with this email already exists", "duplicate")


def test_of_fifty_parallel_creations_exactly_one_succeeds(service: LiveService) -> None:
    email = address()
    with service.client("editor") as client, ThreadPoolExecutor(25) as pool:
        codes = list(pool.map(lambda _: client.post(CONTACTS, json={"email": email}).status_code, range(50)))
    assert sorted(codes) == [201] + [409] * 49


def test_read_only_and_unknown_keys_are_ignored(service: LiveService, editor: httpx.Client) -> None:
    foreign = {"id": "1", "suppressed": True, "created_at": "1999-01-01T00:00:00Z", "segments": [{"id": "1"}]}
    made = created(editor, **foreign, is_admin=True)
    assert (made["suppressed"], made["segments"], made["created_at"][:2]) == (False, [], "20")
    patched = editor.patch(f"{CONTACTS}{made['id']}", json={"id": "5", "created_at": "1999-01-01T00:00:00Z"})
    assert patched.json() == made


@pytest.mark.parametrize(
    ("values", "loc"),
    [
        ({"email": "no-at-sign"}, ["body", "email"]),
        ({"email": None}, ["body", "email"]),
        ({"first_name": None}, ["body", "first_name"]),
        ({"first_name": "x" * 101}, ["body", "first_name"]),
        ({"first_name": "two\nlines"}, ["body", "first_name"]),
        ({"timezone": "Mars/Phobos"}, ["body", "timezone"]),
        ({"currency": "XXX"}, ["body", "currency"]),
        ({"subscribed": "yes"}, ["body", "subscribed"]),
        ({"consent_status": "maybe"}, ["body", "consent_status"]),
        ({"consent_status": "granted"}, ["body", "consent_source"]),
        ({"custom_fields": []}, ["body", "custom_fields"]),
        ({"custom_fields": {"a": {"b": {"c": {"d": {}}}}}}, ["body", "custom_fields"]),
        ({"custom_fields": {"a": "x" * 17_000}}, ["body", "custom_fields"]),
    ],
)
def test_a_bad_value_is_422_and_named(editor: httpx.Client, values: dict[str, Any], loc: list[str]) -> None:
    answer = editor.post(CONTACTS, json={"email": address(), **values})
    assert answer.status_code == 422
    assert [item["loc"] for item in answer.json()["detail"]] == [loc]


def test_a_moment_needs_a_zone(editor: httpx.Client) -> None:
    body = {"email": address(), "consent_status": "granted", "consent_source": "shop"}
    without = editor.post(CONTACTS, json={**body, "consent_at": "2026-01-02T03:04:05"})
    assert (without.status_code, without.json()["code"]) == (422, "timezone_required")
    made = created(editor, **{**body, "consent_at": "2026-01-02T03:04:05+02:00"})
    assert made["consent_at"] == "2026-01-02T01:04:05Z"


def test_patch_changes_only_what_is_sent(editor: httpx.Client) -> None:
    made = created(editor, first_name="Ana", custom_fields={"a": 1})
    nothing = editor.patch(f"{CONTACTS}{made['id']}", json={})
    assert (nothing.json(), nothing.headers["ETag"]) == (made, '"1"')
    answer = editor.patch(f"{CONTACTS}{made['id']}", json={"last_name": "Silva", "custom_fields": {"b": 2}})
    assert answer.headers["ETag"] == '"2"'
    changed = answer.json()
    assert changed.pop("updated_at") is not None
    assert changed == {
        **{k: v for k, v in made.items() if k != "updated_at"}, "last_name": "Silva", "custom_fields": {"b": 2},
    }  # fmt: skip
    assert editor.patch(f"{CONTACTS}{made['id']}", json={"last_name": None}).status_code == 422


def test_a_number_that_becomes_a_truth_value_is_a_change(editor: httpx.Client) -> None:
    made = created(editor, custom_fields={"vip": 1, "more": [{"on": 0}]})
    answer = editor.patch(f"{CONTACTS}{made['id']}", json={"custom_fields": {"vip": True, "more": [{"on": False}]}})
    assert answer.headers["ETag"] == '"2"'
    found = editor.get(f"{CONTACTS}{made['id']}").json()["custom_fields"]
    assert (found["vip"] is True, found["more"][0]["on"] is False) == (True, True)


def test_if_match_refuses_an_edit_of_an_old_copy(editor: httpx.Client) -> None:
    made = created(editor)
    path = f"{CONTACTS}{made['id']}"
    assert editor.patch(path, json={"phone": "1"}, headers={"If-Match": '"1"'}).status_code == 200
    late = editor.patch(path, json={"phone": "2"}, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert editor.delete(path, headers={"If-Match": '"1"'}).status_code == 412
    assert editor.get(path).json()["phone"] == "1"
    assert editor.delete(path, headers={"If-Match": '"1", "2"'}).status_code == 204


def test_a_deleted_contact_is_gone_and_its_address_free(service: LiveService, editor: httpx.Client) -> None:
    made = created(editor)
    path = f"{CONTACTS}{made['id']}"
    assert editor.delete(f"{path}?erase=true").status_code == 403, "erasing is for administrators"
    gone = editor.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert [editor.delete(path).status_code, editor.get(path).status_code] == [404, 404]
    assert editor.get(path).json()["detail"] == "Contact not found"
    again = created(editor, email=made["email"])
    assert again["id"] != made["id"]


@pytest.mark.parametrize("given", ["0", "-1", "abc", "007", "1.0", "9" * 25, "%00", "1%20", "1e3", "%ff", "²"])
def test_an_id_nothing_can_have_is_404(viewer: httpx.Client, given: str) -> None:
    answer = viewer.get(f"{CONTACTS}{given}")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")


def test_a_suppressed_address_cannot_be_subscribed_again(service: LiveService, editor: httpx.Client) -> None:
    email = address()
    with service.engine.begin() as tx:
        query = text("insert into suppressions (email, email_key, reason) values (:email, :email, 'complaint')")
        tx.execute(query, {"email": email})
    made = created(editor, email=email)
    assert (made["subscribed"], made["suppressed"]) == (False, True)
    answer = editor.patch(f"{CONTACTS}{made['id']}", json={"subscribed": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "suppressed")


def test_count_is_exact_and_takes_the_filters(editor: httpx.Client, viewer: httpx.Client) -> None:
    marker = uuid4().hex
    for number in range(3):
        created(editor, last_name=marker, subscribed=number > 0)
    assert viewer.get(f"{CONTACTS}count", params={"q": marker.upper()}).json() == {"count": 3}
    assert viewer.get(f"{CONTACTS}count", params={"q": marker, "subscribed": "true"}).json() == {"count": 2}
    assert viewer.get(f"{CONTACTS}count", params={"q": "%"}).json() == {"count": 0}
    everybody = viewer.get(f"{CONTACTS}count").json()["count"]
    assert everybody >= 3
    assert viewer.patch(f"{CONTACTS}count", json={}).status_code == 405


def test_a_cursor_walks_a_list_once(editor: httpx.Client, viewer: httpx.Client) -> None:
    marker = uuid4().hex
    ids = [created(editor, first_name=marker)["id"] for _ in range(5)]
    seen, path = [], f"{CONTACTS}?q={marker}&limit=2"
    while path:
        answer = viewer.get(path)
        seen += [row["id"] for row in answer.json()]
        assert (answer.headers["X-Total-Count"], answer.headers["X-Total-Count-Exact"]) == ("5", "true")
        link = answer.headers.get("Link", "")
        assert ("X-Next-Cursor" in answer.headers) is bool(link)
        path = link.removeprefix("<").partition(">")[0]
        if len(seen) == 2:
            created(editor, first_name=marker[:-1])  # a new row on top moves nothing
    assert seen == ids[::-1]
    skipped = viewer.get(CONTACTS, params={"q": marker, "skip": 3})
    assert [row["id"] for row in skipped.json()] == ids[1::-1]


def test_a_cursor_is_bound_to_path_and_filters(editor: httpx.Client, viewer: httpx.Client) -> None:
    marker = uuid4().hex
    for _ in range(2):
        created(editor, first_name=marker)
    cursor = viewer.get(CONTACTS, params={"q": marker, "limit": 1}).headers["X-Next-Cursor"]
    assert viewer.get(CONTACTS, params={"q": marker, "limit": 200, "cursor": cursor}).status_code == 200
    flipped = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    for params in (
        {"q": marker[:-1], "cursor": cursor}, {"cursor": cursor}, {"q": marker, "cursor": flipped},
        {"q": marker, "cursor": cursor[:-4]}, {"q": marker, "cursor": "=é!"}, {"q": marker, "cursor": ""},
    ):  # fmt: skip
        answer = viewer.get(CONTACTS, params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor"), params
    assert viewer.get(CONTACTS, params={"q": marker, "cursor": cursor, "skip": 1}).status_code == 422


def test_a_segment_filters_and_an_unknown_one_is_named(service: LiveService, editor: httpx.Client) -> None:
    inside, outside = created(editor), created(editor)
    with service.engine.begin() as tx:
        segment = tx.scalar(text("insert into segments (name) values ('by hand') returning segment_id"))
        query = text(
            "insert into segment_memberships (segment_id, contact_id, valid_from) "
            "values (:s, cast(:c as bigint), now())"
        )
        tx.execute(query, {"s": segment, "c": inside["id"]})
    found = editor.get(CONTACTS, params={"segment_id": segment}).json()
    assert [row["id"] for row in found] == [inside["id"]] != [outside["id"]]
    assert found[0]["segments"] == [{"id": str(segment), "name": "by hand"}]
    assert editor.get(f"{CONTACTS}count", params={"segment_id": segment}).json() == {"count": 1}
    for unknown in ("987654321", "x", "0"):
        answer = editor.get(CONTACTS, params={"segment_id": unknown})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "segment_id"])


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=201", "limit=1000000000", f"limit={2**63}", "skip=-1", "skip=1000001", "limit=ten",
     "limit=1&limit=2", "subscribed=perhaps", "lifecycle_stage=hero", "updated_since=2026-01-01T00:00:00", "q=a%00b"],
)  # fmt: skip
def test_a_bad_query_is_422(viewer: httpx.Client, query: str) -> None:
    assert viewer.get(f"{CONTACTS}?{query}").status_code == 422


def test_an_idempotency_key_has_one_effect(service: LiveService, editor: httpx.Client) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    body = {"email": address()}
    first = editor.post(CONTACTS, json=body, headers=key)
    again = editor.post(CONTACTS.rstrip("/"), json=body, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.content, again.headers["Idempotency-Replayed"]) == (first.content, "true")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert "Idempotency-Replayed" not in first.headers
    other = editor.post(CONTACTS, json={"email": address()}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    with service.client("admin") as stranger:
        assert stranger.post(CONTACTS, json=body, headers=key).status_code == 409


def test_fifty_parallel_calls_with_one_key_have_one_effect(service: LiveService) -> None:
    key, body = {"Idempotency-Key": uuid4().hex}, {"email": address()}
    with service.client("editor") as client, ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda _: client.post(CONTACTS, json=body, headers=key), range(50)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 49
    with service.engine.begin() as tx:
        query = text("select count(*) from audit_log where resource_id = :id and action = 'contact.create'")
        assert tx.scalar(query, {"id": answers[0].json()["id"]}) == 1


def test_a_refusal_is_kept_but_a_validation_error_is_not(editor: httpx.Client) -> None:
    taken = created(editor)["email"]
    key = {"Idempotency-Key": uuid4().hex}
    first = editor.post(CONTACTS, json={"email": taken}, headers=key)
    again = editor.post(CONTACTS, json={"email": taken}, headers=key)
    assert (first.status_code, again.status_code) == (409, 409)
    assert (again.content, again.headers["Idempotency-Replayed"]) == (first.content, "true")
    assert again.headers["Content-Type"] == "application/problem+json"
    key = {"Idempotency-Key": uuid4().hex}
    assert editor.post(CONTACTS, json={"email": "nonsense"}, headers=key).status_code == 422
    assert editor.post(CONTACTS, json={"email": address()}, headers=key).status_code == 201


@pytest.mark.parametrize("key", ["x" * 256, "", "a\tb"])
def test_a_bad_idempotency_key_is_422(editor: httpx.Client, key: str) -> None:
    assert editor.post(CONTACTS, json={"email": address()}, headers={"Idempotency-Key": key}).status_code == 422


def test_a_change_and_its_audit_entry_stand_together(service: LiveService, editor: httpx.Client) -> None:
    request_id = uuid4().hex
    made = editor.post(CONTACTS, json={"email": address()}, headers={"X-Request-ID": request_id}).json()
    editor.post(CONTACTS, json={"email": made["email"]}, headers={"X-Request-ID": request_id})
    editor.post(CONTACTS, json={"email": 5}, headers={"X-Request-ID": request_id})
    with service.client("viewer", headers={"X-Request-ID": request_id}) as reader:
        reader.post(CONTACTS, json={"email": address()})
    with service.engine.begin() as tx:
        query = text("select * from audit_log where request_id = :id order by audit_id")
        rows = tx.execute(query, {"id": request_id}).all()
    assert [(row.action, row.resource_type, row.resource_id, row.status, row.actor_label) for row in rows] == [
        ("contact.create", "contact", made["id"], 201, "editor@shop.example"),
        ("contact.create", "contact", None, 409, "editor@shop.example"),
        ("contact.create", "contact", None, 422, "editor@shop.example"),
        ("contact.create", "contact", None, 403, "viewer@shop.example"),
    ]
    assert made["email"] not in str(rows)
