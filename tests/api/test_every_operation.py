"""The shared conventions, tried on every operation the OpenAPI document names: a new route is covered by itself.

Every answer here is also held against the document: its status, its media type, its schema and the headers that
each answer carries. What a request needs to succeed is in `tests/fuzz/objects.py`.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import jsonschema_rs
import pytest
from sqlalchemy import text

from tests.api.contract import PAGES, alone, document, served
from tests.fuzz.objects import CSV, FORM, JSON, MULTIPART, Objects, Ready
from tests.live_service import LiveService, live_settings, serve

DOCUMENT = document()
SERVED = served(DOCUMENT)
Key = tuple[str, str]

TRACK = "/api/v1/track/"
#: Public pages are not JSON and have rules of their own (tests/api/test_tracking.py).
INSIDE = sorted(key for key in SERVED if not key[1].startswith(TRACK))
GUARDED = [key for key in INSIDE if SERVED[key]["x-role"] != "public"]
WRITES = [key for key in INSIDE if key[0] != "GET"]
LISTS = [
    key for key in INSIDE
    if key[0] == "GET" and "cursor" in {parameter["name"] for parameter in SERVED[key].get("parameters", ())}
]  # fmt: skip
PATCHES = [key for key in INSIDE if key[0] == "PATCH" and "requestBody" in SERVED[key]]
WITH_JSON = [key for key in WRITES if JSON in SERVED[key].get("requestBody", {}).get("content", {})]
KEYED = [key for key in WRITES if key[0] == "POST" and SERVED[key]["x-role"].startswith(("editor", "admin"))]
WITH_ID = [key for key in INSIDE if "{" in key[1]]

#: An unknown id is an empty answer there, not 404.
EMPTY_FOR_UNKNOWN = {
    "/api/v1/workflows/{id}/logs", "/api/v1/automation-rules/{id}/logs", "/api/v1/webhooks/{id}/deliveries",
    "/api/v1/scoring/contacts/{id}/history", "/api/v1/lifecycle/contacts/{id}/engagement",
    "/api/v1/analytics/campaigns/{id}/engagement",
}  # fmt: skip
#: Too many calls to write each down.
SILENT = {"/api/v1/events/", "/api/v1/webhooks/inbound/ses", "/api/v1/webhooks/inbound/{token}"}
#: DELETE that takes something off and may be repeated.
REPEATABLE_DELETES = {
    "/api/v1/contacts/{id}/tags/{tag_id}", "/api/v1/segments/{id}/contacts/{contact_id}",
}  # fmt: skip
MIB = 1024 * 1024
#: Where the contract allows more than 1 MiB.
LIMITS = {
    "/api/v1/campaigns/": 4 * MIB, "/api/v1/campaigns/{id}": 4 * MIB, "/api/v1/templates/": 4 * MIB,
    "/api/v1/templates/{id}": 4 * MIB, "/api/v1/templates/validate": 4 * MIB, "/api/v1/contacts/import": 16 * MIB,
    "/api/v1/events/": 5 * MIB, "/api/v1/suppression/bulk": 5 * MIB, "/api/v1/validate/emails/bulk": 5 * MIB,
}  # fmt: skip
LARGEST_LIMIT = {"/api/v1/tags/": 500, "/api/v1/suppression": 500, "/api/v1/scoring/rules": 1000,
                 "/api/v1/analytics/views/{view}": 10_000}  # fmt: skip
#: Resources whose edits `If-Match` protects.
VERSIONED = re.compile(r"/api/v1/(campaigns|templates|workflows|segments|contacts)/\{id\}")
UNKNOWN_IDS = ["987654321987654321", "0", "-1", "007", "1.0", "x", "١", "9" * 30, "%00", "a b"]
_SHOWN_ONCE = {"access_token", "refresh_token", "key", "expires_in", "refresh_expires_in"}


def every(keys: list[Key]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("key", keys, ids=" ".join)


@pytest.fixture(scope="module")
def objects(service: LiveService) -> Iterator[Objects]:
    made = Objects(service, DOCUMENT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def root(service: LiveService) -> Iterator[httpx.Client]:
    """An administrator on one connection."""
    with service.client("admin") as client:
        yield client


_VALIDATORS: dict[str, Any] = {}


def schema_of(key: Key, answer: httpx.Response) -> Any:
    """The validator of what this answer should look like; None without a JSON schema."""
    found = SERVED[key]["responses"][str(answer.status_code)]
    if "$ref" in found:
        found = DOCUMENT["components"]["responses"][found["$ref"].rpartition("/")[2]]
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    if not answer.content:
        return None
    assert media_type in found.get("content", {}), f"{key} {answer.status_code}: {media_type} is not documented"
    schema = found["content"][media_type].get("schema")
    if not media_type.endswith("json") or not schema:
        return None
    name = json.dumps(schema)  # all problems have one, most refusals therefore
    if name not in _VALIDATORS:
        _VALIDATORS[name] = jsonschema_rs.Draft202012Validator(alone(schema, DOCUMENT))
    return _VALIDATORS[name]


def checked(key: Key, answer: httpx.Response) -> httpx.Response:
    """The answer, after comparing it with the document and with what every answer promises."""
    what = f"{' '.join(key)}: {answer.status_code} {answer.text[:300]}"
    assert str(answer.status_code) in SERVED[key]["responses"], f"not documented: {what}"
    validator = schema_of(key, answer)
    if validator is not None:
        problems = [error.message for error in validator.iter_errors(answer.json())]
        assert problems == [], what
    headers = answer.headers
    assert headers["X-Request-ID"] and headers["X-Content-Type-Options"] == "nosniff", what
    assert headers["Cache-Control"] == "no-store", what
    kind = headers.get("Content-Type", "")
    assert not kind.startswith("text/") or "charset=utf-8" in kind, what
    if answer.status_code >= 400:
        body = answer.json()
        assert kind == "application/problem+json" and body["status"] == answer.status_code, what
        assert isinstance(body["detail"], list if answer.status_code == 422 else str), what
        assert body["type"] == f"urn:problem:{body['code']}" and body["request_id"] == headers["X-Request-ID"], what
    if answer.status_code == 204:
        assert answer.content == b"", what
    return answer


def ok(key: Key, answer: httpx.Response) -> httpx.Response:
    """The answer of a call that must succeed."""
    assert answer.is_success, f"{' '.join(key)}: {answer.status_code} {answer.text[:600]}"
    return checked(key, answer)


def refused(key: Key, answer: httpx.Response, status: int, code: str = "") -> httpx.Response:
    """The answer of a call that must be refused so."""
    assert answer.status_code == status, f"{' '.join(key)}: {answer.status_code} {answer.text[:400]}"
    assert not code or answer.json()["code"] == code, answer.text
    return checked(key, answer)


def entries(service: LiveService, request_id: str) -> list[Any]:
    with service.engine.begin() as tx:
        query = text("select action, status, resource_type, actor_type from audit_log where request_id = :id")
        return list(tx.execute(query, {"id": request_id}))


def steady(answer: httpx.Response) -> tuple[Any, ...]:
    """What must be equal when the same thing is asked twice."""
    headers = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id", "x-next-cursor", "link")}
    body = answer.text
    if answer.headers.get("Content-Type", "").endswith("json") and body:
        found = answer.json()
        ignored = {"request_id", "instance", "as_of", "audit", *_SHOWN_ONCE}
        rows = [{k: v for k, v in row.items() if k not in ignored} if isinstance(row, dict) else row
                for row in (found if isinstance(found, list) else [found])]  # fmt: skip
        body = rows if isinstance(found, list) else rows[0]
        headers.pop("content-length", None)
    elif answer.headers.get("Content-Type", "").startswith("text/plain; version="):
        # Metrics count the question itself: their names stay.
        body = {line.split()[2] for line in body.splitlines() if line.startswith("# TYPE ")}
        headers.pop("content-length", None)
    return answer.status_code, body, headers


# ---- success, paths, methods


@every(INSIDE)
def test_it_succeeds_as_documented_and_is_audited_once(
    service: LiveService, objects: Objects, root: httpx.Client, key: Key
) -> None:
    request, request_id = objects.ready(*key), f"every {uuid4()}"
    answer = ok(key, request.send(root, headers={"X-Request-ID": request_id}))
    assert answer.headers["X-Request-ID"] == request_id
    written = entries(service, request_id)
    is_silent = key[1] in SILENT and key[0] == "POST"
    is_export = key[1].endswith((".csv", "/export", "/export/csv"))
    expected = 0 if is_silent else 1 if key[0] != "GET" or is_export else 0
    assert len(written) == expected, written
    if written:
        assert written[0].status == answer.status_code and re.fullmatch(r"[a-z_]+\.[a-z_]+", written[0].action)


@every(INSIDE)
def test_both_slash_forms_are_one_operation(objects: Objects, root: httpx.Client, key: Key) -> None:
    method, template = key
    if method == "GET":
        request = objects.ready(*key, fresh=False)
        bare, slashed = request.path.rstrip("/"), request.path.rstrip("/") + "/"
        answers = [request.send(root, path=path) for path in (bare, slashed)]
        assert answers[0].status_code == 200
    else:
        path = re.sub(r"\{[a-z_]+\}", "987654321", template).rstrip("/")
        answers = [root.request(method, p, content=b"[1,", headers={"Content-Type": JSON}) for p in (path, f"{path}/")]
        assert answers[0].status_code in (404, 415, 422)
    assert steady(answers[0]) == steady(answers[1])


@every(WITH_ID)
def test_an_unknown_id_is_404_whatever_it_looks_like(objects: Objects, root: httpx.Client, key: Key) -> None:
    template = key[1]
    request = objects.ready(*key)
    for unknown in UNKNOWN_IDS:
        path = re.sub(r"\{[a-z_]+\}", unknown, template)
        answer = request.send(root, path=path)
        if template in EMPTY_FOR_UNKNOWN:
            assert answer.status_code == 200, unknown
            continue
        if unknown == "%00" and answer.status_code == 422:
            continue  # NUL anywhere may be refused as such
        refused(key, answer, 404, "not_found")


@pytest.mark.parametrize("path", sorted({key[1] for key in SERVED}))
def test_other_methods_are_405_and_head_is_not_get(objects: Objects, root: httpx.Client, path: str) -> None:
    methods = {method for method, template in SERVED if template == path}
    heads = path in ("/health", "/ready") or (path.startswith(TRACK) and "GET" in methods)
    where = re.sub(r"\{[a-z_]+\}", "987654321", path)
    answer = root.request("PUT", where, json={})
    assert answer.status_code == 405 and answer.json()["code"] == "method_not_allowed"
    allowed = {part.strip() for part in answer.headers["Allow"].split(",")}
    assert allowed == methods | ({"HEAD"} if heads else set())
    head = root.head(where, params={"url": "https://shop.example/"} if "/click/" in path else None)
    assert (head.status_code == 405) is not heads
    assert head.content == b""


# ---- bodies


#: media types that are taken and not described: the form of *Authorize*, and what Amazon SNS calls its JSON
TAKEN_SILENTLY = {("/api/v1/auth/login", FORM), ("/api/v1/webhooks/inbound/ses", "text/plain")}


@every(WRITES)
def test_another_media_type_is_415_and_malformed_json_422(objects: Objects, root: httpx.Client, key: Key) -> None:
    content = SERVED[key].get("requestBody", {}).get("content", {})
    request = objects.ready(*key)
    for kind in ("text/plain", "application/xml", "application/json; charset=utf-16", CSV, MULTIPART, FORM):
        if kind not in content and (key[1], kind) not in TAKEN_SILENTLY:
            refused(key, request.send(root, content=b"<a/>", headers={"Content-Type": kind}), 415)
    if JSON not in content:
        return
    deep = b'{"a":' * 33 + b"1" + b"}" * 33
    odd = [b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a\\u0000": 1}', deep]
    no_object = [b"5", b"-1e-80", b"true", b'"x"']
    if key[1] != "/api/v1/events/":  # there a bad item of an array is told in its own result
        no_object += [b"[5]", b'["x"]']
    for body in [b"{", b"[1,", b"\xff", *odd, *no_object]:
        refused(key, request.send(root, content=body, headers={"Content-Type": JSON}), 422, "validation_error")
    without_type = request.send(root, content=b"{", headers={"Content-Type": ""})
    assert without_type.status_code in (415, 422)


@every(WITH_JSON)
def test_unknown_and_read_only_keys_are_ignored(objects: Objects, root: httpx.Client, key: Key) -> None:
    request = objects.ready(*key)
    foreign = {"no_such_key": {"a": [1]}, "created_at": "1999-01-01T00:00:00Z", "is_admin": True, "__proto__": 1}
    body = request.json
    if isinstance(body, list):
        more: Any = [{**foreign, **item} for item in body]
    elif isinstance(body, dict) and "id" not in body:
        more = {**foreign, "id": "1", **body}
    else:
        more = {**foreign, **body}
    answer = ok(key, request.send(root, content=None, json=more))
    assert "no_such_key" not in answer.text and "1999-01-01" not in answer.text


@every([key for key in WRITES if "requestBody" in SERVED[key]])
def test_a_body_over_the_limit_is_413_before_it_is_read(service: LiveService, key: Key) -> None:
    method, template = key
    path = re.sub(r"\{[a-z_]+\}", "987654321", template)
    limit = LIMITS.get(template, MIB)
    content = SERVED[key]["requestBody"]["content"]
    if JSON not in content:
        return  # uploads have limits by kind: tests/api/test_imports.py
    parts = urlsplit(service.url)
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.token('admin')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {limit + 1}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        connection.sendall(head.encode())
        if template == "/api/v1/contacts/import":  # reads it itself
            for _ in range(17):
                try:
                    connection.sendall(b" " * MIB)
                except OSError:
                    break
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
    with service.client("admin") as client:
        full = client.request(method, path, content=b"[" + b" " * (limit - 1), headers={"Content-Type": JSON})
    assert full.status_code in (404, 422), full.text[:200]


# ---- changing


@every(PATCHES)
def test_an_empty_patch_changes_nothing_and_null_is_refused(objects: Objects, root: httpx.Client, key: Key) -> None:
    request = objects.ready(*key)
    before = root.get(request.path)
    answer = ok(key, request.send(root, content=b"{}", headers={"Content-Type": JSON}))
    after = root.get(request.path)
    assert before.json() == answer.json() == after.json()
    assert before.headers.get("ETag") == after.headers.get("ETag")
    reference = SERVED[key]["requestBody"]["content"][JSON]["schema"]["$ref"].rpartition("/")[2]
    fields = DOCUMENT["components"]["schemas"][reference]["properties"]
    nullable = {name for name, schema in fields.items() if {"type": "null"} in schema.get("anyOf", ())}
    for name in fields.keys() - nullable:
        refused(key, request.send(root, content=None, json={name: None}), 422)
    assert root.get(request.path).json() == before.json()


@every([key for key in INSIDE if key[0] == "DELETE" and key[1] not in REPEATABLE_DELETES])
def test_delete_is_204_and_a_second_time_404(objects: Objects, root: httpx.Client, key: Key) -> None:
    request = objects.ready(*key)
    assert ok(key, request.send(root)).status_code == 204
    refused(key, request.send(root), 404, "not_found")


@every([key for key in WRITES if VERSIONED.match(key[1]) and key[0] in ("PATCH", "DELETE") and key[1].endswith("{id}")])
def test_if_match_protects_edits(objects: Objects, root: httpx.Client, key: Key) -> None:
    request = objects.ready(*key)
    tag = root.get(request.path).headers["ETag"]
    for stale in ('"987654"', 'W/"1"', "1", ""):
        if stale != tag:
            refused(key, request.send(root, headers={"If-Match": stale}), 412, "precondition_failed")
    assert root.get(request.path).headers["ETag"] == tag
    answer = ok(key, request.send(root, headers={"If-Match": f'"987654", {tag}'}))
    if key[0] == "PATCH":
        assert answer.headers["ETag"] == root.get(request.path).headers["ETag"] != tag


@every(WRITES)
def test_a_refused_write_is_audited_once(service: LiveService, root: httpx.Client, key: Key) -> None:
    method, template = key
    path, request_id = re.sub(r"\{[a-z_]+\}", "987654321", template), f"refused {uuid4()}"
    answer = root.request(method, path, content=b"{", headers={"X-Request-ID": request_id, "Content-Type": JSON})
    assert answer.status_code in (404, 415, 422)
    if template in SILENT:
        assert entries(service, request_id) == []
        return
    (entry,) = entries(service, request_id)
    assert entry.status == answer.status_code


# ---- Idempotency-Key


@every(KEYED)
def test_an_idempotency_key_has_one_effect(
    service: LiveService, objects: Objects, root: httpx.Client, key: Key
) -> None:
    request, name = objects.ready(*key), f"key {uuid4()}"
    headers = {"Idempotency-Key": name}
    first = ok(key, request.send(root, headers={**headers, "X-Request-ID": f"first {name}"}))
    assert "Idempotency-Replayed" not in first.headers
    again = ok(key, request.send(root, headers={**headers, "X-Request-ID": f"again {name}"}))
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for header in ("ETag", "Location", "Content-Type"):
        assert again.headers.get(header) == first.headers.get(header)
    assert entries(service, f"again {name}") == []
    slashed = request.path[:-1] if request.path.endswith("/") else f"{request.path}/"
    assert request.send(root, headers=headers, path=slashed).headers.get("Idempotency-Replayed") == "true"
    other = request.send(root, headers=headers, params={**request.params, "something": "else"})
    refused(key, other, 422, "idempotency_mismatch")
    for bad in ("", "x" * 256):
        refused(key, request.send(root, headers={"Idempotency-Key": bad}), 422, "validation_error")


# ---- lists


def _skip(key: Key) -> str:
    """How a list names the rows it is to leave out."""
    names = {parameter["name"] for parameter in SERVED[key]["parameters"]}
    return "offset" if "offset" in names else "skip"


@every(LISTS)
def test_the_bounds_of_a_list(objects: Objects, root: httpx.Client, key: Key) -> None:
    request = objects.ready(*key, fresh=False)
    most = LARGEST_LIMIT.get(key[1], 200)
    skip = _skip(key)
    fine: list[dict[str, Any]] = [{}, {"limit": 1}, {"limit": most}, {skip: 0}, {skip: 1_000_000}]
    for params in fine:
        answer = ok(key, request.send(root, params={**request.params, **params}))
        total, exact = answer.headers["X-Total-Count"], answer.headers["X-Total-Count-Exact"]
        assert total.isdecimal() and exact == "true"
        assert len(answer.json()) <= min(int(total), params.get("limit", most))
    wrong: list[dict[str, Any]] = [
        {"limit": 0}, {"limit": -1}, {"limit": most + 1}, {"limit": 2**63}, {"limit": "x"}, {"limit": ""},
        {"limit": "1e1"}, {skip: -1}, {skip: 1_000_001}, {skip: "x"}, {"limit": [1, 2]}, {skip: [1, 1]},
    ]  # fmt: skip
    for params in wrong:
        refused(key, request.send(root, params={**request.params, **params}), 422, "validation_error")


@every(LISTS)
def test_a_cursor_leads_through_a_list_and_nowhere_else(objects: Objects, root: httpx.Client, key: Key) -> None:
    request = objects.ready(*key, fresh=False)
    for bad in ("", "x", "!", "A" * 40, "A" * 2000, "é"):
        refused(key, request.send(root, params={**request.params, "cursor": bad}), 422, "invalid_cursor")
    refused(key, request.send(root, params={**request.params, "cursor": "A" * 2001}), 422)
    _grow(objects, key, request, root)
    first = ok(key, request.send(root, params={**request.params, "limit": 1}))
    rows = [*first.json()]
    cursor = first.headers["X-Next-Cursor"]
    total = int(first.headers["X-Total-Count"])
    link = re.fullmatch(r'<([^>]+)>; rel="next"', first.headers["Link"])
    assert link and ok(key, root.get(link.group(1))).headers["X-Total-Count"] == str(total)
    refused(key, request.send(root, params={**request.params, "cursor": cursor, _skip(key): 1}), 422)
    for mutilated in (cursor[:-1], f"A{cursor[1:]}" if cursor[0] != "A" else f"B{cursor[1:]}", f"{cursor}AAAA"):
        refused(key, request.send(root, params={**request.params, "cursor": mutilated}), 422, "invalid_cursor")
    mismatched = {**request.params, "cursor": cursor, "foreign_filter": "x"}
    refused(key, request.send(root, params=mismatched), 422, "invalid_cursor")
    for other in LISTS:
        if other[1] != key[1] and "{" not in other[1]:
            refused(other, root.get(other[1], params={"cursor": cursor}), 422, "invalid_cursor")
            break
    answer = ok(key, request.send(root, params={**request.params, "cursor": cursor, "limit": 3}))
    rows += answer.json()
    straight = ok(key, request.send(root, params={**request.params, "limit": 4})).json()
    assert rows == straight


def _grow(objects: Objects, key: Key, request: Ready, root: httpx.Client) -> None:
    """Have at least two rows in a list, by what makes them: POST on the list, or on what it belongs to."""
    for _ in range(4):
        if int(request.send(root).headers["X-Total-Count"]) >= 3:
            return
        objects.grow(key[1], request)


# ---- when the database is away


@pytest.fixture(scope="module")
def away(service: LiveService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An administrator at a service whose database is not there."""
    url, stop = serve(live_settings("postgresql://nobody:x@127.0.0.1:1/nothing", tmp_path_factory.mktemp("home")))
    headers = {"Authorization": f"Bearer {service.token('admin')}"}
    with httpx.Client(base_url=url, headers=headers, timeout=10, trust_env=False, verify=False) as client:
        yield client
    stop()


@every([key for key in INSIDE if key != ("GET", "/health")])
def test_without_the_database_it_is_503_within_two_seconds(objects: Objects, away: httpx.Client, key: Key) -> None:
    method, template = key
    path = re.sub(r"\{[a-z_]+\}", "987654321", template)
    body = SERVED[key].get("requestBody", {}).get("content", {}).get(JSON, {}).get("example")
    began = time.monotonic()
    answer = away.request(method, path, json=body) if body is not None else away.request(method, path)
    assert time.monotonic() - began < 4  # 2 s on a machine that has nothing else to do
    refused(key, answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_every_served_path_is_an_operation_or_a_page() -> None:
    assert not {path for _, path in SERVED} & PAGES
