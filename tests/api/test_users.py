"""Administering users: status, body, the row behind it, and that an administrator always remains."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from mautolib.auth import accounts, users
from mautolib.auth.accounts import UserChange, UserFilter
from mautolib.auth.roles import Role
from mautolib.db.engine import connect
from mautolib.errors import Conflict, NotAllowed, NotFound
from tests.live_service import PASSWORD, LiveService

USERS, ME = "/api/v1/users/", "/api/v1/auth/me"
NOW = datetime(2026, 5, 1, 9, 0, tzinfo=UTC)
KEYS = {
    "id", "email", "name", "role", "is_superuser", "is_active", "last_login_at", "created_at", "updated_at",
}  # fmt: skip


def create(admin: httpx.Client, **fields: Any) -> dict[str, Any]:
    body = {"email": f"{uuid4().hex}@shop.example", "password": PASSWORD, **fields}
    answer = admin.post(USERS, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_user_is_created_with_the_defaults_of_the_contract(service: LiveService, admin: httpx.Client) -> None:
    made = create(admin, email=f"Kim.{uuid4().hex}@SHOP.Example")
    assert made.keys() == KEYS
    assert made["email"].startswith("Kim.") and made["email"].endswith("@shop.example")
    assert (made["name"], made["role"], made["is_superuser"], made["is_active"]) == ("", "viewer", False, True)
    assert made["last_login_at"] is None and made["created_at"].endswith("Z")
    assert made["updated_at"] == made["created_at"]
    with service.engine.begin() as tx:
        row = tx.execute(text("select * from users where user_id = :id"), {"id": int(made["id"])}).one()
        entry = tx.execute(
            text("select * from audit_log where action = 'user.create' and resource_id = :id"), {"id": made["id"]}
        ).one()
    assert row.password_hash.startswith("$argon2id$") and row.email_key == made["email"].lower()
    assert (entry.status, entry.actor_label, entry.changes) == (201, "admin@shop.example", {"role": "viewer"})
    assert service.sign_in(made["email"])["token_type"] == "bearer"
    shown = admin.get(f"{USERS}{made['id']}").json()
    assert shown.pop("last_login_at") is not None
    assert shown == {name: value for name, value in made.items() if name != "last_login_at"}


def test_what_is_kept_of_a_call_is_no_way_to_try_passwords(service: LiveService, admin: httpx.Client) -> None:
    mark, body = uuid4().hex, {"email": f"{uuid4().hex}@shop.example", "password": PASSWORD}
    first = admin.post(USERS, json=body, headers={"Idempotency-Key": mark})
    again = admin.post(USERS, json=body, headers={"Idempotency-Key": mark})
    assert (again.status_code, again.content) == (201, first.content)
    other = admin.post(USERS, json={**body, "password": "another password"}, headers={"Idempotency-Key": mark})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    sent = first.request.content
    plain = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in (b"", sent))).digest()
    with service.engine.begin() as tx:
        kept = tx.execute(text("select * from idempotency_keys where idempotency_key = :mark"), {"mark": mark}).one()
    assert bytes(kept.request_hash) not in (plain, hashlib.sha256(sent).digest())
    assert PASSWORD.encode() not in bytes(kept.body)


def test_an_address_has_one_user(admin: httpx.Client) -> None:
    made = create(admin, email=f"{uuid4().hex}@bücher.example", role="admin")
    assert made["is_superuser"] is True
    local = made["email"].partition("@")[0]
    for other in (made["email"].upper(), f"  {made['email']}", f"{local}@xn--bcher-kva.example"):
        answer = admin.post(USERS, json={"email": other, "password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (409, "duplicate")
        assert answer.json()["detail"] == "User with this email already exists"


def test_fifty_creates_of_one_address_make_one_user(admin: httpx.Client) -> None:
    body = {"email": f"{uuid4().hex}@shop.example", "password": PASSWORD}
    with ThreadPoolExecutor(10) as pool:
        codes = sorted(pool.map(lambda _: admin.post(USERS, json=body, timeout=60).status_code, range(12)))
    assert codes == [201] + [409] * 11


@pytest.mark.parametrize(
    ("fields", "loc"),
    [({"email": "nobody"}, "email"), ({"email": "a@b,c@d.example"}, "email"), ({"email": None}, "email"),
     ({"email": "x" * 310 + "@shop.example"}, "email"), ({"password": "short one"}, "password"),
     ({"password": "x" * 129}, "password"), ({"role": "root"}, "role"), ({"role": None}, "role"),
     ({"name": "x" * 101}, "name"), ({"name": "a\nb"}, "name")],
)  # fmt: skip
def test_a_value_that_is_not_acceptable(admin: httpx.Client, fields: dict[str, Any], loc: str) -> None:
    answer = admin.post(USERS, json={"email": f"{uuid4().hex}@shop.example", "password": PASSWORD, **fields})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", loc])
    assert "short one" not in answer.text


def test_users_are_listed_by_address_and_filtered(admin: httpx.Client) -> None:
    mark = uuid4().hex
    wanted = [("c", "viewer"), ("A", "editor"), ("b", "editor")]
    made = {letter: create(admin, email=f"{letter}{mark}@shop.example", role=role, name=f"{letter} 100%_{mark}")
            for letter, role in wanted}  # fmt: skip
    admin.patch(f"{USERS}{made['b']['id']}", json={"is_active": False})

    def letters(**params: Any) -> list[str]:
        answer = admin.get(USERS, params={"q": mark, **params})
        assert answer.headers["X-Total-Count"] == str(len(answer.json()))
        return [user["email"][0] for user in answer.json()]

    assert letters() == ["A", "b", "c"]
    assert letters(role="editor") == ["A", "b"]
    assert letters(is_active="true") == ["A", "c"]
    assert letters(role="editor", is_active="false") == ["b"]
    assert letters(q=f"100%_{mark.upper()}") == ["A", "b", "c"]
    assert letters(q=f"100__{mark}") == []
    first = admin.get(USERS, params={"q": mark, "limit": 2})
    assert (len(first.json()), first.headers["X-Total-Count"]) == (2, "3")
    rest = admin.get(first.headers["Link"].partition("<")[2].partition(">")[0])
    assert [user["email"][0] for user in rest.json()] == ["c"] and "X-Next-Cursor" not in rest.headers
    assert [user["email"][0] for user in admin.get(USERS, params={"q": mark, "skip": 1}).json()] == ["b", "c"]
    assert admin.get(USERS, params={"role": "root"}).status_code == 422


@pytest.mark.parametrize("id", ["0", "987654321", "x", "01", "9" * 30, "%00"])
def test_an_unknown_user_is_404(admin: httpx.Client, id: str) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        answer = admin.request(method, f"{USERS}{id}", json={} if method == "PATCH" else None)
        assert (answer.status_code, answer.json()["detail"]) == (404, "User not found")


def test_a_patch_changes_what_it_names(service: LiveService, admin: httpx.Client) -> None:
    made = create(admin, name="Kim")
    path = f"{USERS}{made['id']}"
    token = service.sign_in(made["email"])["access_token"]
    assert admin.patch(path, json={}).json()["updated_at"] == made["updated_at"]
    foreign = {"id": "1", "email": "x@shop.example", "is_superuser": True, "created_at": "1999-01-01T00:00:00Z",
               "password_hash": "x", "sessions_valid_from": "2199-01-01T00:00:00Z"}  # fmt: skip
    assert admin.patch(path, json=foreign).json()["email"] == made["email"]
    changed = admin.patch(path, json={"name": "  Kim Berg ", "is_active": True, "role": "viewer"}).json()
    assert (changed["name"], changed["role"], changed["is_superuser"]) == ("Kim Berg", "viewer", False)
    assert changed["updated_at"] > made["updated_at"]
    # A new name, or what was so before, ends nothing.
    assert httpx.get(service.url + ME, headers=bearer(token)).json()["name"] == "Kim Berg"
    for null in ("name", "role", "is_active", "password"):
        assert admin.patch(path, json={null: None}).status_code == 422


@pytest.mark.parametrize("change", [{"role": "editor"}, {"is_active": False}, {"password": "a wholly new password"}])
def test_role_password_and_disabling_end_the_sessions(
    service: LiveService, admin: httpx.Client, nobody: httpx.Client, change: dict[str, Any]
) -> None:
    made = create(admin)
    pairs = [service.sign_in(made["email"]) for _ in range(2)]
    assert admin.patch(f"{USERS}{made['id']}", json=change).status_code == 200
    for pair in pairs:
        assert nobody.get(ME, headers=bearer(pair["access_token"])).status_code == 401
        old = nobody.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})
        assert (old.status_code, old.json()["detail"]) == (401, "Invalid or expired token")
    # What is dead stays dead when the change is taken back.
    back: dict[str, Any] = {"role": "viewer", "is_active": True}
    assert admin.patch(f"{USERS}{made['id']}", json=back).status_code == 200
    assert nobody.get(ME, headers=bearer(pairs[0]["access_token"])).status_code == 401
    assert service.sign_in(made["email"], change.get("password", PASSWORD))["token_type"] == "bearer"
    body = {"email": made["email"], "password": PASSWORD}
    old_password = nobody.post("/api/v1/auth/login", json=body).status_code
    assert old_password == (401 if "password" in change else 200)


def test_a_deleted_user_is_gone_and_the_address_free(
    service: LiveService, admin: httpx.Client, nobody: httpx.Client
) -> None:
    made = create(admin)
    pair = service.sign_in(made["email"])
    gone = admin.delete(f"{USERS}{made['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert admin.delete(f"{USERS}{made['id']}").status_code == 404
    answer = nobody.get(ME, headers=bearer(pair["access_token"]))
    assert (answer.status_code, answer.json()["detail"]) == (401, "User not found or inactive")
    assert nobody.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]}).status_code == 401
    again = create(admin, email=made["email"])
    assert int(again["id"]) > int(made["id"])


def test_an_administrator_may_leave_while_another_stays(service: LiveService, admin: httpx.Client) -> None:
    for ending in ("delete", "disable"):
        made = create(admin, role="admin")
        with service.client(headers=bearer(service.sign_in(made["email"])["access_token"])) as mine:
            own = mine.patch(f"{USERS}{made['id']}", json={"role": "editor"})
            assert (own.status_code, own.json()["code"]) == (403, "forbidden")
            assert mine.patch(f"{USERS}{made['id']}", json={"role": "admin", "name": "Me"}).json()["name"] == "Me"
            if ending == "delete":
                assert mine.delete(f"{USERS}{made['id']}").status_code == 204
            else:
                assert mine.patch(f"{USERS}{made['id']}", json={"is_active": False}).json()["is_active"] is False
            assert mine.get(ME).status_code == 401


@pytest.fixture
def two_admins(fresh_engine: Engine) -> tuple[Engine, int, int]:
    """A database with two active administrators and one who is disabled."""
    with fresh_engine.begin() as tx:
        ids = [
            users.create(tx, users.NewUser(email=f"{name}@shop.example", password=PASSWORD, role=Role.ADMIN), now=NOW)
            for name in ("one", "two", "off")
        ]
        accounts.change(tx, ids[2].user_id, UserChange(is_active=False), by=0, now=NOW)
    return fresh_engine, ids[0].user_id, ids[1].user_id


def test_the_last_active_administrator_stays(two_admins: tuple[Engine, int, int]) -> None:
    engine, one, two = two_admins
    with engine.begin() as tx:
        accounts.delete(tx, two, now=NOW)
        with pytest.raises(Conflict) as deleted:
            accounts.delete(tx, one, now=NOW)
        for change in (UserChange(is_active=False), UserChange(role=Role.EDITOR)):
            with pytest.raises(Conflict) as changed:
                accounts.change(tx, one, change, by=0, now=NOW)
            assert changed.value.code == "last_admin"
        # One's own role is refused for that reason first.
        with pytest.raises(NotAllowed):
            accounts.change(tx, one, UserChange(role=Role.VIEWER), by=one, now=NOW)
        with pytest.raises(NotFound, match="User not found"):
            accounts.delete(tx, two, now=NOW)
        assert accounts.change(tx, one, UserChange(name="Last"), by=one, now=NOW).name == "Last"
        assert accounts.count(tx, UserFilter(role=Role.ADMIN, is_active=True), at_most=9) == 1
    assert deleted.value.code == "last_admin"


def _demote(tx: Any, target: int, by: int) -> None:
    accounts.change(tx, target, UserChange(role=Role.VIEWER), by=by, now=NOW)


def _disable(tx: Any, target: int, by: int) -> None:
    accounts.change(tx, target, UserChange(is_active=False), by=by, now=NOW)


def _delete(tx: Any, target: int, by: int) -> None:
    accounts.delete(tx, target, now=NOW)


@pytest.mark.parametrize("do", [_demote, _disable, _delete])
def test_two_administrators_removing_each_other_leave_one(
    two_admins: tuple[Engine, int, int], do: Callable[[Any, int, int], None]
) -> None:
    engine, one, two = two_admins
    other = connect(engine.url.render_as_string(hide_password=False))

    def second() -> str:
        try:
            with other.begin() as tx:
                do(tx, one, two)
        except Conflict as error:
            return error.code
        return "done"

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as tx:
            do(tx, two, one)
            waiting = pool.submit(second)
            # The second one has started and waits for the first to commit.
            with engine.connect() as look:
                while not look.scalar(text("select count(*) from pg_locks where not granted")):
                    assert not waiting.done()
        assert waiting.result(20) == "last_admin"
    other.dispose()
    with engine.begin() as tx:
        assert [user.user_id for user in accounts.search(tx, UserFilter(role=Role.ADMIN, is_active=True))] == [one]


def test_the_last_administrator_over_http(cluster: Any, template_database: str, tmp_path: Any) -> None:
    from tests.live_service import live_settings, serve

    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    with engine.begin() as tx:
        me = users.create(tx, users.NewUser(email="a@shop.example", password=PASSWORD, role=Role.ADMIN), now=NOW)
    url, stop = serve(live_settings(cluster.url(name), tmp_path))
    with httpx.Client(base_url=url, trust_env=False) as client:
        body = {"email": "a@shop.example", "password": PASSWORD}
        client.headers.update(bearer(client.post("/api/v1/auth/login", json=body).json()["access_token"]))
        for answer in (
            client.delete(f"{USERS}{me.user_id}"), client.patch(f"{USERS}{me.user_id}", json={"is_active": False})
        ):  # fmt: skip
            assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
        assert client.patch(f"{USERS}{me.user_id}", json={"role": "viewer"}).status_code == 403
        assert client.get(ME).status_code == 200
    stop()
    engine.dispose()
    cluster.drop(name)
