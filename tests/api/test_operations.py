"""Every operation of the contract that is served, against every kind of caller."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from mautolib.auth import tokens
from mautolib.auth.roles import Role
from tests.api.contract import PAGES, SETTINGS, contract, document, served
from tests.live_service import LiveService

CONTRACT = contract()
DOCUMENT = document()
SERVED = served(DOCUMENT)
RANKS = {"viewer": 0, "editor": 1, "admin": 2}
GUARDED = sorted(key for key in SERVED if key in CONTRACT and CONTRACT[key].role != "public")
CALLERS = ["nobody", "expired", "viewer", "editor", "admin"]


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


@pytest.mark.parametrize("key", sorted(SERVED), ids=" ".join)
def test_role_and_success_are_those_of_the_contract(key: tuple[str, str]) -> None:
    operation, wanted = SERVED[key], CONTRACT[key]
    assert operation["x-role"] == wanted.role
    successes = {int(status) for status in operation["responses"] if status[0] in "23"}
    assert successes == set(wanted.statuses)


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


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("key", GUARDED, ids=" ".join)
def test_who_may_call_what(service: LiveService, key: tuple[str, str], caller: str) -> None:
    method, template = key
    path = re.sub(r"\{[a-z_]+\}", "987654321", template)
    headers = {}
    if caller == "expired":
        headers["Authorization"] = f"Bearer {_expired(service)}"
    elif caller != "nobody":
        token = service.sign_in(f"{caller}@shop.example")["access_token"] if "logout" in path else service.token(caller)
        headers["Authorization"] = f"Bearer {token}"
    with service.client() as client:
        # A body that is wrong for every operation that takes one: the role is checked before it.
        answer = client.request(method, path, headers=headers, content=b"[" if method in ("POST", "PATCH") else None)
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
