"""Attacks on sign-in and tokens (group A). The limits are per address, so each test comes from one of its own.

A7 (odd times) is tried further in tests/unit/test_auth_tokens.py. Of A15 this file has the answers; the time they take
is measured by `make bench-security`.
"""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import resource
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import text

from mautolib.auth import users
from mautolib.auth.roles import Role
from mautolib.errors import Misconfigured
from mautolib.settings import Settings
from tests.live_service import PASSWORD, VIEWER, LiveService

LOGIN, ME = "/api/v1/auth/login", "/api/v1/auth/me"
_ADDRESSES = itertools.count(10)


def stranger(service: LiveService, **options: Any) -> httpx.Client:
    """A client from an address nobody else has."""
    number = next(_ADDRESSES)
    transport = httpx.HTTPTransport(local_address=f"127.0.{number // 200}.{10 + number % 200}")
    return service.client(transport=transport, **options)


def victim(service: LiveService) -> str:
    email = f"{uuid4().hex}@shop.example"
    with service.engine.begin() as tx:
        users.create(tx, users.NewUser(email=email, password=PASSWORD), now=datetime.now(UTC))
    return email


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, payload, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, payload))  # type: ignore[return-value]


def packed(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def signed(service: LiveService, head: dict[str, Any], payload: dict[str, Any], digest: str = "sha256") -> str:
    """A token with any header, signed with the real key."""
    body = f"{packed(head)}.{packed(payload)}"
    mac = hmac.digest(service.settings.keys("access-token")[0], body.encode(), digest)
    return f"{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def refused(client: httpx.Client, token: str) -> None:
    answer = client.get(ME, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401, token
    assert answer.json()["detail"] in ("Invalid or expired token", "Invalid token payload", "Not authenticated")


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "NONE", "", "HS256"])
def test_a1_a_token_without_a_signature(service: LiveService, nobody: httpx.Client, algorithm: str) -> None:
    head, payload = parts_of(service.token("admin"))
    body = f"{packed({**head, 'alg': algorithm})}.{packed(payload)}"
    for token in (f"{body}.", body, f"{body}.AAAA"):
        refused(nobody, token)


def test_a2_a_public_key_as_the_secret(service: LiveService, nobody: httpx.Client) -> None:
    _, payload = parts_of(service.token("admin"))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    refused(nobody, jwt.encode(payload, private, algorithm="RS256"))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    body = f"{packed({'alg': 'HS256', 'typ': 'JWT'})}.{packed(payload)}"
    mac = hmac.digest(public, body.encode(), "sha256")
    refused(nobody, f"{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}")


@pytest.mark.parametrize(("algorithm", "digest"), [("HS384", "sha384"), ("HS512", "sha512")])
def test_a3_another_algorithm_with_the_real_key(
    service: LiveService, nobody: httpx.Client, algorithm: str, digest: str
) -> None:
    head, payload = parts_of(service.token("admin"))
    refused(nobody, signed(service, {**head, "alg": algorithm}, payload, digest))
    assert nobody.get(ME, headers={"Authorization": f"Bearer {signed(service, head, payload)}"}).status_code == 200


@pytest.mark.parametrize(
    "extra",
    [{"crit": ["x"], "x": 1}, {"jku": "http://127.0.0.1:1/keys"}, {"x5u": "http://127.0.0.1:1/"},
     {"jwk": {"kty": "oct"}}, {"kid": "../../etc/passwd"}, {"kid": "' or 1=1--"}, {"b64": False}],
)  # fmt: skip
def test_a4_a5_a_header_steers_nothing(service: LiveService, nobody: httpx.Client, extra: dict[str, Any]) -> None:
    head, payload = parts_of(service.token("admin"))
    refused(nobody, signed(service, {**head, **extra}, payload))


@pytest.mark.parametrize(
    "changes",
    [{"exp": None}, {"sub": None}, {"jti": None}, {"iat": None}, {"exp": 10**30}, {"exp": "9999999999"}, {"exp": -5},
     {"aud": "mauto-pages"}, {"iss": "x"}, {"typ": "unsubscribe"}, {"role": "editor"}, {"sub": "999999999"}],
)  # fmt: skip
def test_a6_to_a8_claims_missing_or_wrong(service: LiveService, nobody: httpx.Client, changes: dict[str, Any]) -> None:
    head, payload = parts_of(service.token("admin"))
    changed = {name: value for name, value in {**payload, **changes}.items() if value is not None}
    answer = nobody.get(ME, headers={"Authorization": f"Bearer {signed(service, head, changed)}"})
    assert answer.status_code == 401


USERS = "/api/v1/users/"


@pytest.mark.parametrize("ending", ["logout", "own password", "new password", "role", "disabled", "deleted"])
def test_a9_a_token_is_dead_when_its_reason_is(
    service: LiveService, admin: httpx.Client, nobody: httpx.Client, ending: str
) -> None:
    email = victim(service)
    mine, other = service.sign_in(email), service.sign_in(email)
    headers = {"Authorization": f"Bearer {mine['access_token']}"}
    path = USERS + nobody.get(ME, headers=headers).json()["id"]
    if ending == "logout":
        done = nobody.post("/api/v1/auth/logout", json={"all_sessions": True}, headers=headers)
    elif ending == "own password":
        body = {"current_password": PASSWORD, "new_password": "a wholly new password"}
        done = nobody.post("/api/v1/auth/password", json=body, headers=headers)
    elif ending == "deleted":
        done = admin.delete(path)
    else:
        changes = {"new password": {"password": PASSWORD}, "role": {"role": "editor"}, "disabled": {"is_active": False}}
        done = admin.patch(path, json=changes[ending])
    assert done.status_code in (200, 204), done.text
    for pair in (mine, other) if ending != "own password" else (other,):
        assert nobody.get(ME, headers={"Authorization": f"Bearer {pair['access_token']}"}).status_code == 401
        renewed = nobody.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})
        assert (renewed.status_code, renewed.json()["detail"]) == (401, "Invalid or expired token")


def test_a10_a_refresh_token_used_twice_ends_its_family(service: LiveService, nobody: httpx.Client) -> None:
    email = victim(service)
    first, stranger_to_it = service.sign_in(email), service.sign_in(email)

    def renew(pair: dict[str, Any]) -> httpx.Response:
        return nobody.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})

    second = renew(first).json()
    third = renew(second).json()
    assert renew(first).status_code == 401
    for pair in (first, second, third):
        refused(nobody, pair["access_token"])
        assert renew(pair).status_code == 401
    # Another session of the same user is not of the family.
    assert renew(stranger_to_it).status_code == 200


def test_a10_of_parallel_uses_of_a_refresh_token_none_survives(service: LiveService, nobody: httpx.Client) -> None:
    pair = service.sign_in(victim(service))
    body = {"refresh_token": pair["refresh_token"]}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: nobody.post("/api/v1/auth/refresh", json=body, timeout=60), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    won = next(answer.json() for answer in answers if answer.status_code == 200)
    refused(nobody, won["access_token"])
    again = nobody.post("/api/v1/auth/refresh", json={"refresh_token": won["refresh_token"]})
    assert again.status_code == 401


def test_a11_a_retired_key_of_the_ring_verifies_until_it_is_removed(service: LiveService) -> None:
    import dataclasses

    from tests.live_service import serve

    pair = service.sign_in(victim(service))
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    new, old = "b7e151628aed2a6abf7158809cf4f3c7", service.settings.secret_keys[0]
    found = []
    for ring in ((new, old), (new,)):
        url, stop = serve(dataclasses.replace(service.settings, secret_keys=ring))
        found.append(httpx.get(f"{url}{ME}", headers=headers, trust_env=False).status_code)
        stop()
    assert found == [200, 401]


@pytest.mark.parametrize(
    "changes",
    [{"secret_keys": ()}, {"secret_keys": ("short",)}, {"secret_keys": ("x" * 64,)},
     {"secret_keys": ("change-me-please-change-me-please-1",)}, {"suppression_pepper": ""},
     {"suppression_pepper": "0123456789abcdef0123456789abcdef"}],
)  # fmt: skip
def test_a12_a_weak_secret_stops_the_start(service: LiveService, changes: dict[str, Any], tmp_path: Path) -> None:
    import dataclasses

    from api.app import create_app

    weak: Settings = dataclasses.replace(service.settings, **changes)
    with pytest.raises(Misconfigured, match="MAUTO_"):
        create_app(weak)


@pytest.mark.parametrize(
    ("password", "status"),
    [("x" * 73, 201), ("ä" * 73, 201), ("🔐" * 32, 201), ("x" * 128, 201), (" spaces count ", 201), ("x" * 129, 422),
     ("x" * 1000, 422), ("🔐" * 129, 422), ("ten chars \0 and NUL", 422), ("x" * 9, 422)],
)  # fmt: skip
def test_a13_a_password_is_taken_whole_or_refused(admin: httpx.Client, password: str, status: int) -> None:
    email = f"{uuid4().hex}@shop.example"
    made = admin.post(USERS, json={"email": email, "password": password})
    assert made.status_code == status and password not in made.text
    with httpx.Client(base_url=admin.base_url, trust_env=False) as client:
        right = client.post(LOGIN, json={"email": email, "password": password})
        assert right.status_code == (200 if status == 201 else 422 if "\0" in password else 401)
        if status == 201:
            # As a hash that reads 72 bytes would not tell.
            wrong = client.post(LOGIN, json={"email": email, "password": f"{password[:-1]}y"})
            assert wrong.status_code == 401


def test_a15_nothing_in_the_answer_tells_known_from_unknown(service: LiveService, admin: httpx.Client) -> None:
    known, disabled, unknown = victim(service), victim(service), "nobody-at-all@shop.example"
    user = admin.get(USERS, params={"q": disabled}).json()[0]
    admin.patch(f"{USERS}{user['id']}", json={"is_active": False})
    with stranger(service) as client:
        answers = [client.post(LOGIN, json={"email": e, "password": "not this"}) for e in (known, disabled, unknown)]
    bodies = [{**answer.json(), "request_id": ""} for answer in answers]
    assert bodies[0] == bodies[1] == bodies[2]
    assert [answer.status_code for answer in answers] == [401] * 3
    names = [sorted(answer.headers.keys()) for answer in answers]
    assert names[0] == names[1] == names[2] and len({answer.headers["Content-Length"] for answer in answers}) == 1


def test_a14_a_huge_password_is_refused_before_it_is_hashed(service: LiveService) -> None:
    with stranger(service) as client:
        long = client.post(LOGIN, json={"email": VIEWER, "password": "x" * 1025})
        assert (long.status_code, long.json()["detail"][0]["loc"]) == (422, ["body", "password"])
        assert client.post(LOGIN, json={"email": VIEWER, "password": "x" * 1_000_000}).status_code == 422


def test_a16_guessing_is_stopped_but_nobody_is_locked_out(service: LiveService) -> None:
    email = victim(service)
    with stranger(service) as guesser:
        codes = [guesser.post(LOGIN, json={"email": email, "password": f"guess {n}"}).status_code for n in range(12)]
        assert codes == [401] * 10 + [429] * 2
        blocked = guesser.post(LOGIN, json={"email": email, "password": PASSWORD})
        assert (blocked.status_code, blocked.json()["code"]) == (429, "rate_limited")
        assert 800 <= int(blocked.headers["Retry-After"]) <= 900
    with stranger(service) as owner:
        assert owner.post(LOGIN, json={"email": email, "password": PASSWORD}).status_code == 200
    with service.engine.begin() as tx:
        tx.execute(text("update sign_in_failures set failed_at = failed_at - interval '16 minutes'"))
    with stranger(service) as later:
        assert later.post(LOGIN, json={"email": email, "password": PASSWORD}).status_code == 200


def test_a16_one_address_fails_a_hundred_times_at_most(service: LiveService) -> None:
    with stranger(service) as client:
        body = {"email": "nobody@shop.example", "password": "x"}
        client.post(LOGIN, json=body)
        with service.engine.begin() as tx:
            query = (
                "insert into sign_in_failures (account_hash, network, failed_at) "
                "select sha256(cast(n as text)::bytea), network, failed_at from sign_in_failures, "
                "generate_series(1, 99) as n where failure_id = (select max(failure_id) from sign_in_failures)"
            )
            tx.exec_driver_sql(query)
        answer = client.post(LOGIN, json={"email": VIEWER, "password": PASSWORD})
        assert answer.status_code == 429


def test_a17_spellings_and_headers_are_the_same_bucket(service: LiveService) -> None:
    email = victim(service)
    spellings = [email, email.upper(), f" {email}", f"{email} ", email.replace("s", "ｓ")]
    with stranger(service) as guesser:
        for number in range(10):
            headers = {"X-Forwarded-For": f"203.0.113.{number}", "Forwarded": f"for=203.0.113.{number}"}
            body = {"email": spellings[number % 5], "password": "wrong"}
            assert guesser.post(LOGIN, json=body, headers=headers).status_code == 401
        again = guesser.post(LOGIN, json={"email": email, "password": PASSWORD}, headers={"X-Real-IP": "203.0.113.99"})
        assert again.status_code == 429


def test_a18_fifty_parallel_sign_ins_stay_within_memory(service: LiveService) -> None:
    email = victim(service)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with stranger(service, limits=httpx.Limits(max_connections=50)) as client, ThreadPoolExecutor(50) as pool:
        body = {"email": email, "password": PASSWORD}
        codes = list(pool.map(lambda _: client.post(LOGIN, json=body, timeout=60).status_code, range(50)))
    assert codes == [200] * 50
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"grew by {grown:.0f} MiB"


def test_a19_a_token_in_the_query_is_no_credential(service: LiveService, caplog: pytest.LogCaptureFixture) -> None:
    token = service.token("admin")
    with caplog.at_level("DEBUG"), service.client() as client:
        for name in ("access_token", "token", "authorization"):
            assert client.get(ME, params={name: token}).status_code == 401
        assert client.get(ME, params={name: f"Bearer {token}"}).status_code == 401
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert any("GET /api/v1/auth/me 401" in line for line in ours)
    assert not any(token in line for line in ours)


def test_a20_a_form_without_its_token_changes_nothing(service: LiveService) -> None:
    body = {"email": VIEWER, "password": PASSWORD}
    with stranger(service) as client:
        assert client.post("/dashboard/sign-in", data=body).status_code == 403
        client.get("/dashboard/sign-in")
        assert client.post("/dashboard/sign-in", data={**body, "csrf": "0" * 64}).status_code == 403
        as_text = client.post("/dashboard/sign-in", content=json.dumps(body), headers={"Content-Type": "text/plain"})
        assert as_text.status_code == 415
        assert client.post("/dashboard/sign-out", data={"csrf": ""}).status_code == 403
        assert client.get("/dashboard").status_code == 303
    with stranger(service, headers={"Content-Type": "text/plain"}) as client:
        assert client.post(LOGIN, content=json.dumps(body)).status_code == 415


def test_an_expired_role_of_a_token_is_not_believed(service: LiveService, nobody: httpx.Client) -> None:
    head, payload = parts_of(service.token("viewer"))
    raised = {**payload, "role": str(Role.ADMIN), "is_superuser": True}
    refused(nobody, signed(service, head, raised))
    old = {**payload, "iat": (datetime.now(UTC) - timedelta(days=9)).timestamp()}
    refused(nobody, signed(service, head, old))
