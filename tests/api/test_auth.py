"""Sign-in, refresh, sign-out: status, body and the rows behind them."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from mautolib.auth import sessions, tokens, users
from mautolib.auth.roles import Role
from mautolib.errors import NotAuthenticated
from tests.live_service import PASSWORD, LiveService


def new_user(service: LiveService, role: Role = Role.VIEWER, password: str = PASSWORD) -> str:
    """The address of a user nobody else uses."""
    email = f"{uuid4().hex}@shop.example"
    with service.engine.begin() as tx:
        users.create(tx, users.NewUser(email=email, password=password, role=role), now=datetime.now(UTC))
    return email


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


def test_sign_in_answers_with_a_pair(service: LiveService, nobody: httpx.Client) -> None:
    email = new_user(service, Role.ADMIN)
    answer = nobody.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in"}
    assert (body["token_type"], body["expires_in"], body["refresh_expires_in"]) == ("bearer", 86400, 2592000)
    claims = claims_of(body["access_token"])
    assert set(claims) == {"sub", "iat", "exp", "jti", "role", "is_superuser", "typ", "aud", "iss"}
    assert (claims["role"], claims["is_superuser"], claims["typ"]) == ("admin", True, "access")
    me = nobody.get("/api/v1/auth/me", headers=bearer(body["access_token"])).json()
    assert me.pop("last_login_at").endswith("Z")
    assert me == {
        "id": claims["sub"], "email": email, "is_superuser": True, "name": "", "role": "admin", "auth": "jwt",
        "scopes": None,
    }  # fmt: skip


def test_the_form_of_the_password_flow_is_taken_too(service: LiveService, nobody: httpx.Client) -> None:
    form = {"grant_type": "password", "username": new_user(service), "password": PASSWORD}
    answer = nobody.post("/api/v1/auth/login", data=form)
    assert answer.status_code == 200
    form["password"] = "wrong"
    assert nobody.post("/api/v1/auth/login", data=form).json()["detail"] == "Invalid email or password"
    del form["username"]
    missing = nobody.post("/api/v1/auth/login", data=form)
    assert (missing.status_code, missing.json()["detail"][0]["loc"]) == (422, ["body", "email"])


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(service: LiveService, nobody: httpx.Client) -> None:
    answers = [
        nobody.post("/api/v1/auth/login", json={"email": email, "password": "not this one"})
        for email in (new_user(service), "nobody-at-all@shop.example")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    first, second = ({**answer.json(), "request_id": ""} for answer in answers)
    assert first == second
    assert (first["detail"], first["code"]) == ("Invalid email or password", "invalid_credentials")


def test_a_disabled_account_is_told_only_after_a_right_password(service: LiveService, nobody: httpx.Client) -> None:
    email = new_user(service)
    token = service.sign_in(email)["access_token"]
    with service.engine.begin() as tx:
        tx.execute(text("update users set is_active = false where email = :email"), {"email": email})
    wrong = nobody.post("/api/v1/auth/login", json={"email": email, "password": "not this one"})
    assert (wrong.status_code, wrong.json()["detail"]) == (401, "Invalid email or password")
    right = nobody.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
    assert right.status_code == 403
    assert (right.json()["detail"], right.json()["code"]) == ("Account is disabled", "account_disabled")
    old = nobody.get("/api/v1/auth/me", headers=bearer(token))
    assert (old.status_code, old.json()["detail"]) == (401, "User not found or inactive")


def test_refresh_gives_a_new_pair_once(service: LiveService, nobody: httpx.Client) -> None:
    first = service.sign_in(new_user(service))
    second = nobody.post("/api/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert second.status_code == 200
    pair = [first["access_token"], second.json()["access_token"]]
    assert [nobody.get("/api/v1/auth/me", headers=bearer(t)).status_code for t in pair] == [200, 200]
    again = nobody.post("/api/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert (again.status_code, again.json()["detail"]) == (401, "Invalid or expired token")
    # A token used twice was stolen by somebody: the whole family ends.
    assert [nobody.get("/api/v1/auth/me", headers=bearer(t)).status_code for t in pair] == [401, 401]
    newest = nobody.post("/api/v1/auth/refresh", json={"refresh_token": second.json()["refresh_token"]})
    assert newest.status_code == 401


def test_logout_ends_this_session_only(service: LiveService, nobody: httpx.Client) -> None:
    email = new_user(service)
    mine, other = service.sign_in(email), service.sign_in(email)
    gone = nobody.post("/api/v1/auth/logout", headers=bearer(mine["access_token"]))
    assert (gone.status_code, gone.content) == (204, b"")
    assert nobody.get("/api/v1/auth/me", headers=bearer(mine["access_token"])).status_code == 401
    assert nobody.post("/api/v1/auth/refresh", json={"refresh_token": mine["refresh_token"]}).status_code == 401
    assert nobody.get("/api/v1/auth/me", headers=bearer(other["access_token"])).status_code == 200
    body = {"all_sessions": True}
    assert nobody.post("/api/v1/auth/logout", json=body, headers=bearer(other["access_token"])).status_code == 204
    assert nobody.post("/api/v1/auth/refresh", json={"refresh_token": other["refresh_token"]}).status_code == 401


def test_a_password_change_ends_the_other_sessions(service: LiveService, nobody: httpx.Client) -> None:
    email = new_user(service)
    mine, other = service.sign_in(email), service.sign_in(email)
    body = {"current_password": "not this one", "new_password": "an entirely new one"}
    wrong = nobody.post("/api/v1/auth/password", json=body, headers=bearer(mine["access_token"]))
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong_password")
    body["current_password"] = PASSWORD
    short = nobody.post(
        "/api/v1/auth/password", json={**body, "new_password": "short"}, headers=bearer(mine["access_token"])
    )
    assert (short.status_code, short.json()["detail"][0]["loc"]) == (422, ["body", "new_password"])
    changed = nobody.post("/api/v1/auth/password", json=body, headers=bearer(mine["access_token"]))
    assert changed.status_code == 204
    assert nobody.get("/api/v1/auth/me", headers=bearer(mine["access_token"])).status_code == 200
    assert nobody.get("/api/v1/auth/me", headers=bearer(other["access_token"])).status_code == 401
    assert nobody.post("/api/v1/auth/refresh", json={"refresh_token": other["refresh_token"]}).status_code == 401
    assert service.sign_in(email, "an entirely new one")["token_type"] == "bearer"


def test_a_role_change_acts_at_once(service: LiveService, nobody: httpx.Client) -> None:
    email = new_user(service, Role.ADMIN)
    token = service.sign_in(email)["access_token"]
    with service.engine.begin() as tx:
        tx.execute(text("update users set role = 'viewer' where email = :email"), {"email": email})
    assert nobody.get("/api/v1/auth/me", headers=bearer(token)).status_code == 401


def test_each_sign_in_attempt_is_audited_without_secrets(service: LiveService, nobody: httpx.Client) -> None:
    email = new_user(service)
    for password, request_id in ((PASSWORD, f"right-{email}"), ("wrong one", f"wrong-{email}")):
        body = {"email": email, "password": password}
        nobody.post("/api/v1/auth/login", json=body, headers={"X-Request-ID": request_id})
    with service.engine.begin() as tx:
        query = text("select * from audit_log where request_id like :id order by audit_id")
        rows = tx.execute(query, {"id": f"%-{email}"}).all()
    assert [(row.action, row.status, row.actor_label) for row in rows] == [
        ("auth.login", 200, email), ("auth.login", 401, email),
    ]  # fmt: skip
    assert "wrong one" not in str(rows)


def test_a_token_of_a_retired_key_is_taken_until_the_key_is_gone(service: LiveService) -> None:
    email = new_user(service)
    now = datetime.now(UTC)
    token = service.sign_in(email)["access_token"]
    new, old = "b7e151628aed2a6abf7158809cf4f3c7", service.settings.secret_keys[0]
    during = dataclasses.replace(service.settings, secret_keys=(new, old))
    after = dataclasses.replace(service.settings, secret_keys=(new,))
    with service.engine.begin() as tx:
        assert sessions.resolve(tx, during, tokens.Kind.ACCESS, token, now=now).user.email == email
        with pytest.raises(NotAuthenticated, match="Invalid or expired token"):
            sessions.resolve(tx, after, tokens.Kind.ACCESS, token, now=now)


def test_the_first_admin_is_made_once(service: LiveService) -> None:
    with service.engine.begin() as tx:
        assert users.ensure_admin(tx, service.settings, datetime.now(UTC) + timedelta(days=1)) is None
