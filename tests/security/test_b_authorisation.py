"""Attacks on roles, fields and paths (group B).

B1, every operation against every caller and every kind of API key, is tests/api/test_operations.py; B5 under races is
tests/api/test_users.py. B7 needs a public subscribe form, which does not exist.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService

CONTACTS, CAMPAIGNS = "/api/v1/contacts/", "/api/v1/campaigns/"
FOREIGN: dict[str, Any] = {
    "id": "1", "contact_id": 1, "campaign_id": 1, "role": "admin", "is_admin": True, "is_superuser": True,
    "status": "sent", "state": "sent", "sent_at": "2026-01-01T00:00:00Z", "score": 99, "password_hash": "x",
    "created_at": "1999-01-01T00:00:00Z", "updated_at": "1999-01-01T00:00:00Z", "version": 77, "suppressed": True,
    "lifecycle_stage": "customer", "total_sent": 10**6, "schedule_id": "1", "created_by": "somebody", "source": "x",
    "email_key": "x", "requested_at": "2026-01-01T00:00:00Z", "__class__": "x", "custom_fields.x": 1,
}  # fmt: skip


def raw(service: LiveService, head: str) -> bytes:
    """Send bytes as they are; a client library would tidy them up."""
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_b3_foreign_fields_change_nothing(service: LiveService, editor: httpx.Client) -> None:
    email = f"{uuid4().hex}@shop.example"
    made = editor.post(CONTACTS, json={**FOREIGN, "email": email}).json()
    path = f"{CONTACTS}{made['id']}"
    assert editor.patch(path, json=FOREIGN).json() == made
    with service.engine.begin() as tx:
        row = tx.execute(text("select * from contacts where email = :email"), {"email": email}).one()
    assert (row.version, row.source, row.email_key, row.custom_fields) == (1, "api", email, {})
    assert row.created_at.year > 1999 and row.updated_at is None


def test_b3_foreign_fields_change_no_campaign(service: LiveService, editor: httpx.Client) -> None:
    body = {"name": "n", "subject": "s", "html_body": "b"}
    made = editor.post(CAMPAIGNS, json={**FOREIGN, **body}).json()
    foreign = {name: value for name, value in FOREIGN.items() if name != "status"}
    assert editor.patch(f"{CAMPAIGNS}{made['id']}", json=foreign).json() == made
    assert (made["status"], made["total_sent"], made["version"], made["sent_at"]) == ("draft", 0, 1, None)
    with service.engine.begin() as tx:
        query = text("select * from campaigns where campaign_id = cast(:id as bigint)")
        row = tx.execute(query, {"id": made["id"]}).one()
    assert (row.requested_at, row.schedule_id) == (None, None) and row.created_by.startswith("user:")


def test_b4_null_for_what_was_not_shown_changes_nothing(editor: httpx.Client) -> None:
    made = editor.post(CONTACTS, json={"email": f"{uuid4().hex}@shop.example", "first_name": "Ana"}).json()
    path = f"{CONTACTS}{made['id']}"
    hidden = {"tags": [], "segments": None, "tag_ids": [], "lifecycle_stage": None, "suppressed": None}
    assert editor.patch(path, json=hidden).json() == made
    assert editor.patch(path, json={"first_name": None}).status_code == 422
    assert editor.patch(path, json={"custom_fields": None}).status_code == 422
    assert editor.get(path).json() == made


USERS, API_KEYS = "/api/v1/users/", "/api/v1/api-keys/"


def test_b3_foreign_fields_make_no_administrator(service: LiveService, admin: httpx.Client) -> None:
    foreign = {**FOREIGN, "user_id": 1, "is_active": False, "email_key": "x", "last_login_at": "1999-01-01T00:00:00Z",
               "sessions_valid_from": "2199-01-01T00:00:00Z"}  # fmt: skip
    body = {"email": f"{uuid4().hex}@shop.example", "password": "correct horse battery", "role": "viewer"}
    made = admin.post(USERS, json={**foreign, **body}).json()
    assert (made["role"], made["is_superuser"], made["is_active"], made["last_login_at"]) == (
        "viewer", False, True, None,
    )  # fmt: skip
    harmless = {name: value for name, value in foreign.items() if name not in ("role", "is_active")}
    assert admin.patch(f"{USERS}{made['id']}", json={**harmless, "email": "x@shop.example"}).json() == made
    with service.engine.begin() as tx:
        query = text("select * from users where user_id = cast(:id as bigint)")
        row = tx.execute(query, {"id": made["id"]}).one()
    assert row.password_hash.startswith("$argon2id$") and row.created_at.year > 1999
    assert row.email_key == body["email"] and row.updated_at is None


def test_b3_foreign_fields_make_no_stronger_key(service: LiveService, admin: httpx.Client) -> None:
    foreign = {**FOREIGN, "key": "mauto_mine", "key_hash": "x", "prefix": "x", "creator_id": 1, "revoked_at": None,
               "last_used_at": "1999-01-01T00:00:00Z"}  # fmt: skip
    made = admin.post(API_KEYS, json={**foreign, "name": "b3", "role": "viewer", "scopes": ["tags:read"]}).json()
    assert (made["role"], made["scopes"], made["last_used_at"]) == ("viewer", ["tags:read"], None)
    assert made["key"] != "mauto_mine" and made["prefix"] != "x" and made["created_by"] != "somebody"
    with service.engine.begin() as tx:
        row = tx.execute(text("select * from api_keys where api_key_id = :id"), {"id": int(made["id"])}).one()
    assert f"user:{row.creator_id}" == row.created_by and row.created_at.year > 1999


def test_b5_nobody_raises_or_lowers_themselves(service: LiveService, admin: httpx.Client) -> None:
    body = {"email": f"{uuid4().hex}@shop.example", "password": "correct horse battery", "role": "admin"}
    made = admin.post(USERS, json=body).json()
    token = service.sign_in(body["email"], body["password"])["access_token"]
    with service.client(headers={"Authorization": f"Bearer {token}"}) as mine:
        for role in ("viewer", "editor"):
            answer = mine.patch(f"{USERS}{made['id']}", json={"role": role, "name": "changed"})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert mine.get(f"{USERS}{made['id']}").json() == {**made, "last_login_at": mine.get(
            "/api/v1/auth/me").json()["last_login_at"]}  # fmt: skip


@pytest.mark.parametrize("role", ["viewer", "editor"])
def test_b5_who_is_no_administrator_gets_to_no_user(service: LiveService, admin: httpx.Client, role: str) -> None:
    me = admin.get("/api/v1/auth/me").json()
    with service.client(role) as client:
        own = client.get("/api/v1/auth/me").json()
        for id in (own["id"], me["id"]):
            assert client.get(f"{USERS}{id}").status_code == 403
            assert client.patch(f"{USERS}{id}", json={"role": "admin"}).status_code == 403
            assert client.delete(f"{USERS}{id}").status_code == 403
        assert client.post(API_KEYS, json={"name": "x", "role": "admin"}).status_code == 403
        assert client.get("/api/v1/auth/me").json() == own


def test_b5_a_key_makes_no_more_rights_of_itself(service: LiveService, admin: httpx.Client) -> None:
    made = admin.post(API_KEYS, json={"name": "b5", "role": "admin", "scopes": ["*"]}).json()
    with service.client(headers={"X-API-Key": made["key"]}) as client:
        assert client.post(API_KEYS, json={"name": "child", "role": "admin"}).status_code == 403
        body = {"email": f"{uuid4().hex}@shop.example", "password": "correct horse battery", "role": "admin"}
        assert client.post(USERS, json=body).status_code == 403
        password = {"current_password": "x", "new_password": "correct horse battery"}
        assert client.post("/api/v1/auth/password", json=password).status_code == 403
        # Crooked spellings of a closed path are closed or unknown, never open.
        for path in ("/api/v1/users", "/api/v1//users/", "/api/v1/users//", "/API/v1/users/", "/api/v1/%75sers/",
                     "/api/v1/contacts/../users/", "/api/v1/users/?x=/contacts/"):  # fmt: skip
            assert client.get(path).status_code in (403, 404)
    with service.engine.begin() as tx:
        assert tx.scalar(text("select count(*) from api_keys where name = 'child'")) == 0
        assert tx.scalar(text("select count(*) from users where email = :email"), {"email": body["email"]}) == 0


@pytest.mark.parametrize(
    "path",
    ["//api/v1/contacts/", "/api/v1//contacts/", "/api/%2e%2e/api/v1/contacts/", "/api/v1/./contacts/",
     "/API/v1/contacts/", "/api/v1/contacts/..;/", "/health/../api/v1/contacts/", "/api/v1/contacts%2f",
     "/api/v1/contacts/count/../",
     "/dashboard/../api/v1/contacts/", "/api/v1/track/../contacts/"],
)  # fmt: skip
def test_b8_a_crooked_path_opens_nothing(service: LiveService, path: str) -> None:
    answer = raw(service, f"GET {path} HTTP/1.1\nHost: x\nConnection: close")
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 401, 404, 405)
    assert b"@shop.example" not in answer


@pytest.mark.parametrize("host", ["x/admin", "evil.example", "127.0.0.1:1/api", "a b", "[::1"])
def test_b8_the_host_header_decides_nothing(service: LiveService, host: str) -> None:
    answer = raw(service, f"GET /api/v1/contacts/ HTTP/1.1\nHost: {host}\nConnection: close")
    assert int(answer.split(b" ", 2)[1]) in (400, 401)
    fine = raw(service, f"GET /docs HTTP/1.1\nHost: {host}\nConnection: close")
    assert host.encode() not in fine.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_b9_a_header_overrides_no_method(editor: httpx.Client, viewer: httpx.Client, header: str) -> None:
    made = editor.post(CONTACTS, json={"email": f"{uuid4().hex}@shop.example"}).json()
    path = f"{CONTACTS}{made['id']}"
    assert editor.get(path, headers={header: "DELETE"}).status_code == 200
    assert viewer.get(f"{path}?_method=DELETE", headers={header: "DELETE"}).status_code == 200
    assert editor.get(path).status_code == 200


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "CONNECT", "PROPFIND"])
def test_b9_other_methods_are_405_and_change_nothing(editor: httpx.Client, method: str) -> None:
    made = editor.post(CONTACTS, json={"email": f"{uuid4().hex}@shop.example"}).json()
    path = f"{CONTACTS}{made['id']}"
    answer = editor.request(method, path)
    assert answer.status_code in (400, 405)
    assert answer.headers.get("Allow", "DELETE, GET, PATCH") == "DELETE, GET, PATCH"
    assert editor.get(path).json() == made


SCORING = "/api/v1/scoring"


def test_b3_foreign_fields_change_no_scoring_rule(service: LiveService, editor: httpx.Client) -> None:
    foreign = {**FOREIGN, "rule_id": "1", "rule_version": 1}
    body = {"name": "b3", "event_type": f"type {uuid4().hex[:20]}"}
    made = editor.post(f"{SCORING}/rules", json={**foreign, **body}).json()
    assert editor.patch(f"{SCORING}/rules/{made['id']}", json=foreign).json() == made
    with service.engine.begin() as tx:
        query = text("select * from scoring_rules where rule_id = cast(:id as bigint)")
        row = tx.execute(query, {"id": made["id"]}).one()
    assert (row.points, row.condition, row.active) == (1, {}, True) and row.created_at.year > 1999


def test_b3_foreign_fields_give_no_other_points(service: LiveService, editor: httpx.Client) -> None:
    contact = editor.post(CONTACTS, json={"email": f"{uuid4().hex}@shop.example"}).json()["id"]
    body = {"contact_id": contact, "event_type": "fair", "points": 2, "metadata": {"points": 900}}
    foreign = {**FOREIGN, "rule_id": "1", "rule_version": 1, "occurred_at": "1999-01-01T00:00:00Z", "grade": "A+",
               "total_score": 99, "award_id": 1, "external_id": "1"}  # fmt: skip
    given = editor.post(f"{SCORING}/events", json={**foreign, **body}).json()
    assert (given["rule_id"], given["points"]) == (None, 2)
    assert given["occurred_at"] == given["created_at"] > "2026"
    done = editor.post(f"{SCORING}/events/process", json={**foreign, **body})
    assert done.json() == {"processed": 0, "events": []}
    found = editor.get(f"{SCORING}/contacts/{contact}").json()
    assert (found["engagement_score"], found["grade"]) == (2, "D")
    assert editor.post(f"{SCORING}/contacts/{contact}/recalculate", json=foreign).json()["engagement_score"] == 2
    with service.engine.begin() as tx:
        query = text("select * from events where contact_id = :id and event_type = 'fair'")
        row = tx.execute(query, {"id": int(contact)}).one()
    assert (row.source, row.external_id) == ("observation", None) and row.occurred_at.year > 1999


def test_b3_scores_and_stages_cannot_be_written_as_fields(editor: httpx.Client) -> None:
    body = {"email": f"{uuid4().hex}@shop.example", "total_score": 99, "score": 99, "lifecycle_stage": "customer"}
    contact = editor.post(CONTACTS, json=body).json()["id"]
    assert editor.get(f"{SCORING}/contacts/{contact}").status_code == 404
    assert editor.post(f"{SCORING}/contacts/{contact}/recalculate").json()["lifecycle_stage"] == "subscriber"


@pytest.mark.parametrize("role", ["viewer", "editor"])
def test_b1_only_administrators_have_the_past_scored_again(service: LiveService, role: str) -> None:
    with service.client(role) as client:
        answer = client.post(f"{SCORING}/recomputations", json={"from": "2026-01-01", "to": "2026-01-01"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_b3_a_condition_is_compared_and_never_run(service: LiveService, editor: httpx.Client) -> None:
    nasty = {"' or true --": "x", "a": "'; drop table contacts; --", "$.b ? (@ > 0)": {"$ne": None}}
    kind = f"type {uuid4().hex[:20]}"
    rule = editor.post(f"{SCORING}/rules", json={"name": "b3", "event_type": kind, "points": 7, "condition": nasty})
    assert rule.json()["condition"] == nasty
    contact = editor.post(CONTACTS, json={"email": f"{uuid4().hex}@shop.example"}).json()["id"]
    event = {"contact_id": contact, "event_type": kind}
    for metadata, processed in (({}, 0), ({"a": True}, 0), ({"' or true --": "x"}, 0), (nasty, 1)):
        done = editor.post(f"{SCORING}/events/process", json={**event, "metadata": metadata})
        assert (done.status_code, done.json()["processed"]) == (200, processed)
    editor.delete(f"{SCORING}/rules/{rule.json()['id']}")
