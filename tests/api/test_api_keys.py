"""API keys: made once, bounded by role, scopes, time and their creator, and never a way to more rights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from mautolib.auth import scopes
from mautolib.auth.roles import Role
from mautolib.errors import InvalidInput
from tests.api.contract import contract
from tests.live_service import PASSWORD, LiveService

API_KEYS, ME, CONTACTS = "/api/v1/api-keys/", "/api/v1/auth/me", "/api/v1/contacts/"
FIELDS = {
    "id", "name", "prefix", "role", "scopes", "expires_at", "last_used_at", "revoked_at", "created_by", "created_at",
}  # fmt: skip


def create(admin: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = admin.post(API_KEYS, json={"name": uuid4().hex, **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def with_key(made: dict[str, Any]) -> dict[str, str]:
    return {"X-API-Key": made["key"]}


def new_contact() -> dict[str, str]:
    return {"email": f"{uuid4().hex}@shop.example"}


def test_a_key_is_shown_once_and_stored_as_a_hash(service: LiveService, admin: httpx.Client) -> None:
    made = create(admin, name="  shop  ")
    assert made.keys() == {*FIELDS, "key"}
    assert (made["name"], made["role"], made["scopes"]) == ("shop", "viewer", ["*"])
    assert made["expires_at"] is None and made["last_used_at"] is None and made["revoked_at"] is None
    assert made["key"].startswith(made["prefix"]) and len(made["key"]) == 49 and len(made["prefix"]) == 12
    assert made["created_by"].startswith("user:")
    listed = admin.get(API_KEYS, params={"limit": 1}).json()
    assert listed == [{name: value for name, value in made.items() if name != "key"}]
    with service.engine.begin() as tx:
        row = tx.execute(text("select * from api_keys where api_key_id = :id"), {"id": int(made["id"])}).one()
        stored = tx.execute(text("select cast(audit_log as text) from audit_log order by audit_id desc limit 9")).all()
    secret = made["key"].removeprefix(made["prefix"])
    assert len(bytes(row.key_hash)) == 32 and secret not in str(row) and secret not in str(stored)


def test_a_replay_shows_the_key_again_but_the_database_does_not(service: LiveService, admin: httpx.Client) -> None:
    headers, body = {"Idempotency-Key": uuid4().hex}, {"name": uuid4().hex}
    first, second = (admin.post(API_KEYS, json=body, headers=headers) for _ in range(2))
    assert second.headers["Idempotency-Replayed"] == "true"
    assert (second.status_code, second.content) == (201, first.content)
    assert second.headers["Content-Type"] == "application/json" and "kept-answer" not in second.headers
    with service.engine.begin() as tx:
        kept = tx.scalar(
            text("select body from idempotency_keys where idempotency_key = :key"), {"key": headers["Idempotency-Key"]}
        )
        made = tx.scalar(text("select count(*) from api_keys where name = :name"), {"name": body["name"]})
    assert made == 1
    assert first.json()["key"].encode() not in bytes(kept) and b"mauto_" not in bytes(kept)


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
def test_either_header_takes_a_key(admin: httpx.Client, nobody: httpx.Client, header: str) -> None:
    made = create(admin, role="editor", scopes=["auth:read", "contacts:write"])
    headers = {header: made["key"] if header == "X-API-Key" else f"bearer {made['key']}"}
    assert nobody.get(ME, headers=headers).json() == {
        "id": made["id"], "email": "", "is_superuser": False, "name": made["name"], "role": "editor",
        "scopes": ["auth:read", "contacts:write"], "auth": "api_key", "last_login_at": None,
    }  # fmt: skip
    contact = nobody.post(CONTACTS, json=new_contact(), headers=headers)
    assert contact.status_code == 201


def test_two_credentials_at_once_are_none(service: LiveService, admin: httpx.Client, nobody: httpx.Client) -> None:
    made = create(admin)
    token = service.token("viewer")
    for pair in (
        [("X-API-Key", made["key"]), ("Authorization", f"Bearer {token}")],
        [("X-API-Key", made["key"]), ("Authorization", f"Bearer {made['key']}")],
        [("X-API-Key", made["key"]), ("Authorization", "Basic eDp5")],
        [("X-API-Key", made["key"]), ("X-API-Key", made["key"])],
        [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")],
        [("X-API-Key", ""), ("Authorization", f"Bearer {token}")],
    ):
        answer = nobody.get(ME, headers=pair)
        assert (answer.status_code, answer.json()["detail"]) == (401, "Not authenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("key", ["", " ", "mauto_", "mauto_x", "x", "mauto_" + "A" * 43, "mauto_" + "A" * 5000, "é"])
def test_an_unknown_key_is_401(nobody: httpx.Client, key: str) -> None:
    for name, value in (("X-API-Key", key.strip()), ("Authorization", f"Bearer {key}".strip())):
        answer = nobody.get(ME, headers=[(name.encode(), value.encode("latin-1"))])
        assert answer.status_code == 401
        assert answer.json()["detail"] in ("Not authenticated", "Invalid or expired token")


def test_a_token_is_no_key(service: LiveService, nobody: httpx.Client) -> None:
    assert nobody.get(ME, headers={"X-API-Key": service.token("admin")}).status_code == 401


def test_a_revoked_key_is_dead_at_once_and_stays_listed(admin: httpx.Client, nobody: httpx.Client) -> None:
    made = create(admin)
    assert nobody.get(ME, headers=with_key(made)).status_code == 200
    gone = admin.delete(f"{API_KEYS}{made['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    answer = nobody.get(ME, headers=with_key(made))
    assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid or expired token")
    listed = next(key for key in admin.get(API_KEYS).json() if key["id"] == made["id"])
    assert listed["revoked_at"].endswith("Z")
    again = admin.delete(f"{API_KEYS}{made['id']}")
    assert (again.status_code, again.json()["detail"]) == (404, "API key not found")
    for id in ("0", "x", "987654321"):
        assert admin.delete(f"{API_KEYS}{id}").json()["detail"] == "API key not found"


def test_a_key_ends_when_it_says(service: LiveService, admin: httpx.Client, nobody: httpx.Client) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = create(admin, expires_at=soon)
    assert made["expires_at"] == soon.replace("+00:00", "Z")
    assert nobody.get(ME, headers=with_key(made)).status_code == 200
    with service.engine.begin() as tx:
        tx.execute(text("update api_keys set expires_at = now() where api_key_id = :id"), {"id": int(made["id"])})
    answer = nobody.get(ME, headers=with_key(made))
    assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid or expired token")
    past = create(admin, expires_at="2026-01-01T00:00:00Z")
    assert nobody.get(ME, headers=with_key(past)).status_code == 401


#: Codes of the refusals.
SCOPE, ROLE = "insufficient_scope", "forbidden"


@pytest.mark.parametrize(
    ("role", "granted", "read", "write", "count"),
    [
        ("editor", ["*"], 200, 201, 200), ("editor", ["contacts:*"], 200, 201, 200),
        ("editor", ["contacts:read"], 200, SCOPE, 200), ("editor", ["*:read"], 200, SCOPE, 200),
        ("editor", ["contacts:write"], SCOPE, 201, SCOPE), ("editor", ["contacts:admin"], SCOPE, SCOPE, SCOPE),
        ("editor", ["campaigns:*", "contacts:read"], 200, SCOPE, 200), ("editor", ["campaigns:*"], SCOPE, SCOPE, SCOPE),
        ("viewer", ["*"], 200, ROLE, 200), ("viewer", ["contacts:write"], SCOPE, ROLE, SCOPE),
        ("admin", ["contacts:read", "contacts:write"], 200, 201, 200),
    ],
)  # fmt: skip
def test_a_call_needs_role_and_scope(
    admin: httpx.Client, nobody: httpx.Client, role: str, granted: list[str], read: Any, write: Any, count: Any
) -> None:
    made = create(admin, role=role, scopes=granted)
    answers = [
        nobody.get(CONTACTS, params={"limit": 1}, headers=with_key(made)),
        nobody.post(CONTACTS, json=new_contact(), headers=with_key(made)),
        nobody.get(f"{CONTACTS}count", headers=with_key(made)),
    ]
    found = [answer.json()["code"] if answer.status_code == 403 else answer.status_code for answer in answers]
    assert found == [read, write, count]


@pytest.mark.parametrize("granted", [["*"], ["users:*", "api-keys:*", "audit-log:*", "auth:*"], ["*:read"]])
def test_no_key_reaches_users_keys_and_audit(admin: httpx.Client, nobody: httpx.Client, granted: list[str]) -> None:
    made = create(admin, role="admin", scopes=granted)
    closed = [
        ("GET", "/api/v1/users/"), ("GET", "/api/v1/users"), ("POST", "/api/v1/users/"), ("GET", "/api/v1/users/1"),
        ("PATCH", "/api/v1/users/1"), ("DELETE", "/api/v1/users/1"), ("GET", API_KEYS), ("POST", API_KEYS),
        ("DELETE", f"{API_KEYS}{made['id']}"), ("GET", "/api/v1/audit-log/"), ("GET", "/api/v1/audit-log"),
        ("POST", "/api/v1/auth/password"),
    ]  # fmt: skip
    for method, path in closed:
        answer = nobody.request(method, path, headers=with_key(made), content=b"{}" if method != "GET" else None)
        assert (method, path, answer.status_code, answer.json()["code"]) == (method, path, 403, "forbidden")
        assert answer.json()["detail"] == "API keys may not do this; sign in"
    elsewhere = nobody.get(CONTACTS, params={"limit": 1}, headers=with_key(made))
    assert elsewhere.status_code == (403 if "users:*" in granted else 200)


def test_a_key_has_no_session_to_end(admin: httpx.Client, nobody: httpx.Client) -> None:
    made = create(admin)
    for body in ({}, {"all_sessions": True}):
        answer = nobody.post("/api/v1/auth/logout", json=body, headers=with_key(made))
        assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")
        assert answer.json()["detail"] == "An API key has no session"
    assert nobody.get(ME, headers=with_key(made)).status_code == 200


def test_what_a_key_does_is_audited_under_its_name(
    service: LiveService, admin: httpx.Client, nobody: httpx.Client
) -> None:
    made = create(admin, role="editor")
    request_id = uuid4().hex
    contact = nobody.post(CONTACTS, json=new_contact(), headers={**with_key(made), "X-Request-ID": request_id}).json()
    with service.engine.begin() as tx:
        query = text("select * from audit_log where request_id = :id")
        entry = tx.execute(query, {"id": request_id}).one()
        by = tx.scalar(text("select actor from consents where contact_id = :id"), {"id": int(contact["id"])})
    assert (entry.actor_type, entry.actor_id, entry.actor_label) == ("api_key", int(made["id"]), made["name"])
    assert (entry.action, entry.resource_id, entry.status) == ("contact.create", contact["id"], 201)
    assert by in (None, f"api_key:{made['id']}")


def test_an_idempotency_key_belongs_to_one_key(admin: httpx.Client, nobody: httpx.Client) -> None:
    one, two = create(admin, role="editor"), create(admin, role="editor")
    mark, first, second = uuid4().hex, new_contact(), new_contact()
    made = nobody.post(CONTACTS, json=first, headers={**with_key(one), "Idempotency-Key": mark})
    other = nobody.post(CONTACTS, json=second, headers={**with_key(two), "Idempotency-Key": mark})
    users = admin.post(CONTACTS, json=new_contact(), headers={"Idempotency-Key": mark})
    assert [made.status_code, other.status_code, users.status_code] == [201, 201, 201]
    again = nobody.post(CONTACTS, json=first, headers={**with_key(one), "Idempotency-Key": mark})
    assert (again.content, again.headers["Idempotency-Replayed"]) == (made.content, "true")


def test_the_last_use_is_noted_once_a_minute(service: LiveService, admin: httpx.Client, nobody: httpx.Client) -> None:
    made = create(admin)

    def noted() -> tuple[datetime, str]:
        query = text("select last_used_at, cast(xmin as text) from api_keys where api_key_id = :id")
        with service.engine.begin() as tx:
            return tuple(tx.execute(query, {"id": int(made["id"])}).one())

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: nobody.get(ME, headers=with_key(made)).status_code, range(16)))
    assert codes == [200] * 16
    used, version = noted()
    assert abs(datetime.now(UTC) - used) < timedelta(seconds=30)
    nobody.get(ME, headers=with_key(made))
    assert noted() == (used, version)
    with service.engine.begin() as tx:
        query = text("update api_keys set last_used_at = last_used_at - interval '61 seconds' where api_key_id = :id")
        tx.execute(query, {"id": int(made["id"])})
    nobody.get(ME, headers=with_key(made))
    assert noted()[0] > used
    assert admin.get(API_KEYS, params={"limit": 200}).json()[0]["last_used_at"] is not None


def _second_admin(service: LiveService, admin: httpx.Client) -> tuple[str, httpx.Client]:
    email = f"{uuid4().hex}@shop.example"
    body = {"email": email, "password": PASSWORD, "role": "admin"}
    user_id = str(admin.post("/api/v1/users/", json=body).json()["id"])
    token = service.sign_in(email)["access_token"]
    return user_id, service.client(headers={"Authorization": f"Bearer {token}"})


def test_a_key_can_no_more_than_its_creator(service: LiveService, admin: httpx.Client, nobody: httpx.Client) -> None:
    user_id, creator = _second_admin(service, admin)
    with creator:
        made = create(creator, role="admin")
    path = f"/api/v1/users/{user_id}"
    assert nobody.get(ME, headers=with_key(made)).json()["is_superuser"] is True
    admin.patch(path, json={"role": "viewer"})
    me = nobody.get(ME, headers=with_key(made)).json()
    assert (me["role"], me["is_superuser"]) == ("viewer", False)
    refused = nobody.post(CONTACTS, json=new_contact(), headers=with_key(made))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    listed = next(key for key in admin.get(API_KEYS).json() if key["id"] == made["id"])
    assert listed["role"] == "admin"
    admin.patch(path, json={"is_active": False})
    answer = nobody.get(ME, headers=with_key(made))
    assert (answer.status_code, answer.json()["detail"]) == (401, "User not found or inactive")
    admin.patch(path, json={"is_active": True, "role": "editor"})
    assert nobody.post(CONTACTS, json=new_contact(), headers=with_key(made)).status_code == 201
    assert admin.delete(path).status_code == 204
    gone = nobody.get(ME, headers=with_key(made))
    assert (gone.status_code, gone.json()["detail"]) == (401, "Invalid or expired token")
    listed = next(key for key in admin.get(API_KEYS).json() if key["id"] == made["id"])
    assert listed["revoked_at"] is not None and listed["created_by"] == f"user:{user_id}"


def test_keys_are_listed_newest_first(admin: httpx.Client) -> None:
    made = [create(admin)["id"] for _ in range(3)]
    first = admin.get(API_KEYS, params={"limit": 2})
    assert [key["id"] for key in first.json()] == [made[2], made[1]]
    second = admin.get(API_KEYS, params={"limit": 2, "cursor": first.headers["X-Next-Cursor"]})
    assert second.json()[0]["id"] == made[0]
    assert int(first.headers["X-Total-Count"]) >= 3
    assert admin.get(API_KEYS, params={"skip": 2, "limit": 1}).json()[0]["id"] == made[0]


@pytest.mark.parametrize(
    ("fields", "loc"),
    [({"name": " "}, ["name"]), ({"name": "x" * 101}, ["name"]), ({"role": "root"}, ["role"]),
     ({"role": None}, ["role"]), ({"scopes": []}, ["scopes"]), ({"scopes": None}, ["scopes"]),
     ({"scopes": "*"}, ["scopes"]),
     ({"scopes": ["*", "*", "contacts:delete"]}, ["scopes", 2]), ({"scopes": ["nothing:read"]}, ["scopes", 0]),
     ({"scopes": ["*:write"]}, ["scopes", 0]), ({"scopes": ["contacts"]}, ["scopes", 0]),
     ({"scopes": ["Contacts:read"]}, ["scopes", 0]), ({"scopes": [" *"]}, ["scopes", 0]),
     ({"scopes": [""]}, ["scopes", 0]),
     ({"scopes": ["contacts:read"] * 101}, ["scopes"]),
     ({"expires_at": "2027-01-01T00:00:00"}, ["expires_at"]), ({"expires_at": 5}, ["expires_at"])],
)  # fmt: skip
def test_a_value_that_is_not_acceptable(admin: httpx.Client, fields: dict[str, Any], loc: list[Any]) -> None:
    answer = admin.post(API_KEYS, json={"name": "x", **fields})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", *loc])


def test_a_scope_given_twice_is_one(admin: httpx.Client) -> None:
    assert create(admin, scopes=["tags:read", "*:read", "tags:read"])["scopes"] == ["tags:read", "*:read"]


def test_the_segments_are_those_of_the_operations() -> None:
    guarded = {path.removeprefix("/api/v1/").strip("/").partition("/")[0]
               for (_, path), operation in contract().items() if operation.role != "public"}  # fmt: skip
    assert guarded == scopes.SEGMENTS


_SEGMENT = st.sampled_from(sorted(scopes.SEGMENTS))
_NEED = st.sampled_from(["read", "write", "admin"])
_ENDINGS = ("read", "write", "admin", "*")
_SCOPE = st.one_of(st.sampled_from(["*", "*:read"]), st.builds("{}:{}".format, _SEGMENT, st.sampled_from(_ENDINGS)))


@given(st.lists(_SCOPE, min_size=1, max_size=5), _SEGMENT, _NEED)
def test_what_scopes_cover(granted: list[str], segment: str, need: str) -> None:
    wanted = (
        "*" in granted or f"{segment}:*" in granted or f"{segment}:{need}" in granted
        or (need == "read" and "*:read" in granted)
    )  # fmt: skip
    assert scopes.cover(granted, f"{segment}:{need}") is wanted
    assert scopes.check(granted) == tuple(dict.fromkeys(granted))


@given(st.text(max_size=30))
def test_other_text_is_no_scope(given_text: str) -> None:
    segment, _, need = given_text.partition(":")
    if given_text not in ("*", "*:read") and not (segment in scopes.SEGMENTS and need in _ENDINGS):
        with pytest.raises(InvalidInput):
            scopes.check([given_text])


def test_what_an_operation_needs() -> None:
    assert scopes.required("/contacts/{id}/tags/{tag_id}", Role.EDITOR) == "contacts:write"
    assert scopes.required("/fx-rates/", Role.ADMIN) == "fx-rates:admin"
    assert scopes.required("/metrics", Role.VIEWER) == "metrics:read"
    for closed in ("/users/", "/users/{id}", "/api-keys/", "/audit-log/", "/auth/password"):
        assert scopes.required(closed, Role.VIEWER) is None
    assert scopes.required("/auth/passwords", Role.VIEWER) == "auth:read"


def test_a_browser_may_send_a_key_from_a_configured_origin(nobody: httpx.Client) -> None:
    asked = {"Origin": "https://app.shop.example", "Access-Control-Request-Method": "GET"}
    allowed = nobody.options(ME, headers=asked).headers["Access-Control-Allow-Headers"].split(", ")
    assert {"X-API-Key", "Authorization", "Idempotency-Key"} <= set(allowed)
