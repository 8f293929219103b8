"""The OpenAPI document: committed, whole, with examples that fit - and what every operation must say about itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

from tests.api.contract import COMMITTED, alone, as_text, belongs_to, contract, document, served

DOCUMENT = document()
SERVED = served(DOCUMENT)
SCHEMAS = DOCUMENT["components"]["schemas"]
Key = tuple[str, str]
every = pytest.mark.parametrize("key", sorted(SERVED), ids=" ".join)
_REFERENCE = re.compile(r'"\$ref": "#/components/(schemas|responses)/([^"]+)"')


def answers(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The answers of an operation, those that are shared looked up."""
    shared = DOCUMENT["components"]["responses"]
    return {
        code: shared[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
        for code, answer in operation["responses"].items()
    }


def contents(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What goes in and comes out when all is well: direction, media type, its part of the document."""
    for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
        yield "in", media_type, media
    for code, answer in answers(operation).items():
        for media_type, media in answer.get("content", {}).items() if code < "300" else ():
            yield code, media_type, media


def test_the_committed_document_is_the_one_that_is_served() -> None:
    same = COMMITTED.read_text(encoding="utf-8") == as_text(DOCUMENT)
    assert same, "the operations changed: run `make openapi`, look at the difference, and commit docs/openapi.json"


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    # A URL there may be relative (OpenAPI 3.1, 4.6); the published schema of the document forgets it.
    absolute = json.dumps(DOCUMENT).replace('Url": "/', 'Url": "https://shop.example/')
    schemathesis.openapi.from_dict(json.loads(absolute)).validate()


def test_nothing_is_missing_but_what_later_work_serves() -> None:
    missing = contract().keys() - SERVED.keys()
    assert {path for _, path in missing if not belongs_to(path)} == set()


def test_every_part_is_referred_to_and_every_reference_leads_somewhere() -> None:
    found = {(kind, name) for kind, name in _REFERENCE.findall(json.dumps(DOCUMENT))}
    assert {name for kind, name in found if kind == "schemas"} == SCHEMAS.keys()
    assert {name for kind, name in found if kind == "responses"} <= DOCUMENT["components"]["responses"].keys()


def test_schemas_are_named_for_what_they_are() -> None:
    vague = re.compile(r"(Status|Kind|Level|Type|Stage|State|Result|Item|Queued)|.*(Body|Schema|Model)|Shown.*|.*__.*")
    assert [name for name in SCHEMAS if vague.fullmatch(name)] == []
    assert [name for name, schema in SCHEMAS.items() if schema["title"] != name] == []
    assert [name for name, schema in SCHEMAS.items() if not schema.get("description")] == []


def test_tags_are_described_and_used() -> None:
    used = {tag for operation in SERVED.values() for tag in operation["tags"]}
    described = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    assert described.keys() == used
    assert all(text.endswith(".") and len(text) > 10 for text in described.values())


def test_a_caller_learns_how_to_sign_in() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert {(scheme["type"], scheme.get("scheme", scheme.get("in", ""))) for scheme in schemes.values()} == {
        ("oauth2", ""), ("http", "bearer"), ("apiKey", "header"),
    }  # fmt: skip
    assert all(scheme["description"] for scheme in schemes.values())
    assert {name for item in DOCUMENT["security"] for name in item} == schemes.keys()


@every
def test_it_says_what_it_does(key: Key) -> None:
    operation = SERVED[key]
    assert operation["summary"] and not operation["summary"].endswith(".")
    assert operation["description"].strip() and operation["description"] != operation["summary"]
    names = [(parameter["in"], parameter["name"]) for parameter in operation.get("parameters", ())]
    assert len(names) == len(set(names))
    for parameter in operation.get("parameters", ()):
        assert len(parameter.get("description", "")) > 2, parameter["name"]
        assert {"type": "null"} not in parameter["schema"].get("anyOf", ()), f"{parameter['name']} is never null"
    wanted = set(re.findall(r"\{([a-z_]+)\}", key[1]))
    assert {name for place, name in names if place == "path"} == wanted


@every
def test_it_names_every_answer_that_everybody_can_get(key: Key) -> None:
    method, path = key
    operation = SERVED[key]
    found = answers(operation)
    is_tracking = path.startswith("/api/v1/track/")
    expected = set() if is_tracking or path == "/health" else {"503"}
    if operation["x-role"] != "public":
        expected |= {"401", "403"}
        assert "WWW-Authenticate" in found["401"]["headers"]
    if not is_tracking:
        expected |= {"422"} | ({"404"} if "{" in path else set())
        expected |= {"408", "413", "415"} if method != "GET" else set()
    if method == "POST" and operation["x-role"] in ("editor", "admin"):
        expected |= {"409"}
        headers = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "header"}
        assert "Idempotency-Key" in headers
    assert expected <= found.keys()
    for code, answer in found.items():
        assert answer["description"], code
        if code >= "400":
            assert answer["content"]["application/problem+json"]["schema"], code
    for code in found.keys() & {"429", "503"}:
        assert "Retry-After" in found[code]["headers"]


@every
def test_lists_and_versions_name_their_headers(key: Key) -> None:
    operation = SERVED[key]
    successes = [answer for code, answer in answers(operation).items() if code < "300"]
    headers = {name for answer in successes for name in answer.get("headers", ())}
    parameters = {parameter["name"] for parameter in operation.get("parameters", ())}
    if "cursor" in parameters:
        assert {"X-Total-Count", "X-Total-Count-Exact", "X-Next-Cursor", "Link"} <= headers
    if "If-Match" in parameters and key[0] == "PATCH":
        assert "ETag" in headers and "412" in operation["responses"]


@every
def test_bodies_have_schemas_and_examples_that_fit(key: Key) -> None:
    for direction, media_type, media in contents(SERVED[key]):
        assert media.get("schema"), f"{direction} {media_type} has no schema"
        if media_type != "application/json":
            continue
        assert "example" in media, f"{direction} has no example"
        validator = jsonschema_rs.Draft202012Validator(alone(media["schema"], DOCUMENT), validate_formats=True)
        found = validator.iter_errors(media["example"])
        assert [f"{list(error.instance_path)}: {error.message}" for error in found] == [], media["example"]


@every
def test_an_example_of_a_body_says_something(key: Key) -> None:
    content = SERVED[key].get("requestBody", {}).get("content", {})
    if "application/json" in content and key[0] in ("POST", "PATCH"):
        example = content["application/json"]["example"]
        assert example not in ({}, [], None, [{}])
        assert ': "value"' not in json.dumps(example), "say what it looks like"


@pytest.mark.parametrize(
    "path", sorted(key[1] for key, operation in SERVED.items() if key[0] == "PATCH" and "requestBody" in operation)
)
def test_a_field_left_out_of_a_patch_has_no_default(path: str) -> None:
    reference = SERVED["PATCH", path]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = SCHEMAS[reference.rpartition("/")[2]]
    assert [name for name, field in schema["properties"].items() if "default" in field] == []
    assert not schema.get("required")
