"""Every operation of the contract that is served, against every kind of caller."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from api.routing import Router
from mautolib.auth import api_keys, scopes, tokens, users
from mautolib.auth.roles import Role
from tests.api.contract import PAGES, SETTINGS, contract, document, served
from tests.live_service import LiveService

CONTRACT = contract()
DOCUMENT = document()
SERVED = served(DOCUMENT)
RANKS = {"viewer": 0, "editor": 1, "admin": 2}
GUARDED = sorted(key for key in SERVED if key in CONTRACT and CONTRACT[key].role != "public")
CALLERS = ["nobody", "expired", "viewer", "editor", "admin"]
NEEDS = {"viewer": "read", "editor": "write", "admin": "admin"}
#: Where no key goes, whatever its role and scopes.
CLOSED = re.compile(r"/api/v1/(users|api-keys|audit-log)/|/api/v1/auth/password$")


def test_nothing_is_served_that_the_contract_does_not_know() -> None:
    assert SERVED.keys() - CONTRACT.keys() == set()


def test_every_route_is_an_operation_or_a_known_page() -> None:
    from api.app import make_framework
    from mautolib.db.engine import connect

    app = make_framework(SETTINGS, connect(SETTINGS.database_url))
    routes = {
        (method, route.path.replace(":path}", "}"))
        for route in app.routes
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert {path for method, path in routes - CONTRACT.keys()} == PAGES


def test_the_contract_has_202_operations() -> None:
    assert len(CONTRACT) == 202


#: WooCommerce greets a new address without a signature, and takes no other answer than 200.
BESIDES = {("POST", "/api/v1/webhooks/inbound/{token}"): {200}}


@pytest.mark.parametrize("key", sorted(SERVED), ids=" ".join)
def test_role_and_success_are_those_of_the_contract(key: tuple[str, str]) -> None:
    operation, wanted = SERVED[key], CONTRACT[key]
    assert operation["x-role"] == wanted.role
    successes = {int(status) for status in operation["responses"] if status[0] in "23"}
    assert successes == set(wanted.statuses) | BESIDES.get(key, set())


def test_every_reference_of_the_document_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)))
    assert references <= schemas.keys()
    assert {"Problem", "Contact", "ContactCreate", "Campaign", "Import", "Login"} <= references
    assert not any(name.endswith("Body") or name.startswith("Shown") for name in schemas)
    kinds = {"HTTPValidationError", "ValidationError"}
    assert kinds & schemas.keys() == set()


def test_operation_ids_are_unique_names() -> None:
    ids = [operation["operationId"] for operation in SERVED.values()]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z][a-z_]+", name) for name in ids)


@pytest.mark.parametrize("key", sorted(SERVED), ids=" ".join)
def test_an_operation_is_documented(key: tuple[str, str]) -> None:
    operation = SERVED[key]
    assert operation.get("description") and operation.get("summary")
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert len(operation["tags"]) == 1 and operation["tags"][0] in tags
    if CONTRACT[key].role != "public":
        assert "401" in operation["responses"]


def _expired(service: LiveService) -> str:
    past = datetime.now(UTC) - timedelta(days=3)
    return tokens.sign(
        service.settings, tokens.Kind.ACCESS, user_id=1, role=Role.ADMIN, jti=uuid4(), now=past, life=timedelta(days=1)
    )


def test_a_route_without_a_rule_is_refused() -> None:
    router = Router("Contacts")

    with pytest.raises(TypeError, match="forgotten has no policy"):

        @router.get("/forgotten")
        def forgotten() -> None: ...


@pytest.fixture(scope="module")
def client(service: LiveService) -> Iterator[httpx.Client]:
    """One connection for the whole matrix; credentials come with each call."""
    with service.client() as found:
        yield found


def _call(client: httpx.Client, key: tuple[str, str], headers: dict[str, str]) -> httpx.Response:
    """Call with a body that is wrong for every operation that takes one: who may is decided before it is read."""
    method, template = key
    path = re.sub(r"\{[a-z_]+\}", "987654321", template)
    return client.request(method, path, headers=headers, content=b"[" if method in ("POST", "PATCH") else None)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("key", GUARDED, ids=" ".join)
def test_who_may_call_what(service: LiveService, client: httpx.Client, key: tuple[str, str], caller: str) -> None:
    headers = {}
    if caller == "expired":
        headers["Authorization"] = f"Bearer {_expired(service)}"
    elif caller != "nobody":
        is_ending = "logout" in key[1]
        token = service.sign_in(f"{caller}@shop.example")["access_token"] if is_ending else service.token(caller)
        headers["Authorization"] = f"Bearer {token}"
    answer = _call(client, key, headers)
    if caller == "nobody":
        assert (answer.status_code, answer.json()["detail"]) == (401, "Not authenticated")
    elif caller == "expired":
        assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid or expired token")
    elif RANKS[caller] < RANKS[CONTRACT[key].role]:
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    else:
        assert answer.status_code not in (401, 403) and answer.status_code < 500
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"


class Keys:
    """API keys by role and scopes, each made when first asked for."""

    def __init__(self, service: LiveService) -> None:
        self._service = service
        self._made: dict[tuple[str, tuple[str, ...]], str] = {}

    def headers(self, role: str, *granted: str) -> dict[str, str]:
        if (role, granted) not in self._made:
            now, new = datetime.now(UTC), api_keys.NewKey(name="matrix", role=Role(role), scopes=granted)
            with self._service.engine.begin() as tx:
                creator = users.find_for_sign_in(tx, "admin@shop.example")
                assert creator is not None
                made = api_keys.create(
                    tx, new, creator_id=creator[0].user_id, created_by=f"user:{creator[0].user_id}", now=now
                )
            self._made[role, granted] = made[1]
        return {"X-API-Key": self._made[role, granted]}


@pytest.fixture(scope="module")
def keys(service: LiveService) -> Keys:
    return Keys(service)


@pytest.mark.parametrize("key", GUARDED, ids=" ".join)
def test_which_keys_may_call_what(client: httpx.Client, keys: Keys, key: tuple[str, str]) -> None:
    role = CONTRACT[key].role
    segment = key[1].removeprefix("/api/v1/").strip("/").partition("/")[0]
    wanted = f"{segment}:{NEEDS[role]}"
    every = sorted(scopes.SEGMENTS - {segment})
    others = [f"{segment}:{need}" for need in NEEDS.values() if need != NEEDS[role]]
    sufficient = [keys.headers(role, granted) for granted in (wanted, f"{segment}:*", "*")]
    without = [
        keys.headers(role, *others, *[f"{other}:*" for other in every]),
        keys.headers("admin", *others, *[f"{other}:{NEEDS[role]}" for other in every]),
    ]
    (sufficient if role == "viewer" else without).append(keys.headers(role, "*:read"))
    for headers in sufficient:
        answer = _call(client, key, headers)
        if CLOSED.match(key[1]):
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        else:
            assert answer.status_code not in (401, 403) and answer.status_code < 500
    for headers in without:
        answer = _call(client, key, headers)
        code = "forbidden" if CLOSED.match(key[1]) else "insufficient_scope"
        assert (answer.status_code, answer.json()["code"]) == (403, code)
    for lower in list(RANKS)[: RANKS[role]]:
        answer = _call(client, key, keys.headers(lower, "*"))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("key", sorted(SERVED), ids=" ".join)
def test_an_operation_says_who_may_and_how(key: tuple[str, str]) -> None:
    operation, role = SERVED[key], CONTRACT[key].role
    schemes = [name for requirement in operation["security"] for name in requirement]
    if role == "public":
        assert schemes == [] and "x-scope" not in operation
        return
    assert {"401", "403"} <= operation["responses"].keys()
    assert f"Needs the role *{role}*" in operation["description"]
    if CLOSED.match(key[1]):
        assert schemes == ["Password", "Bearer"] and "x-scope" not in operation
        assert "API keys are refused" in operation["description"]
    else:
        assert schemes == ["Password", "Bearer", "ApiKey"]
        scope = operation["x-scope"]
        assert scope.endswith(f":{NEEDS[role]}") and f"`{scope}`" in operation["description"]


def test_the_ways_to_sign_in_are_documented() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {
        "Password": "oauth2", "Bearer": "http", "ApiKey": "apiKey",
    }  # fmt: skip
    assert (schemes["ApiKey"]["in"], schemes["ApiKey"]["name"]) == ("header", "X-API-Key")
