"""Bad input of every kind: documented 4xx, nothing changed, no 5xx (group J).

What holds for every operation is tried on every operation in tests/api/test_every_operation.py: J1 to J3 and J6 in
bodies, J5 (bounds, repeated parameters, cursors), J11 (replay, other body, bad keys), J16. J9 and the rest of J11
(fifty at once, a server that dies) are in tests/api/test_races.py. Timings (J5 pages, J12, J13, J14, J16) are measured
by `make bench-security`; here they are bounded generously.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from benchmarks.ground.patterns import every_pattern, slowest_milliseconds
from tests.api.contract import document, served
from tests.live_service import LiveService, live_settings, serve

CONTACTS, CAMPAIGNS, IMPORT, LOGIN = (
    "/api/v1/contacts/", "/api/v1/campaigns/", "/api/v1/contacts/import", "/api/v1/auth/login",
)  # fmt: skip
_INTERNALS = re.compile(r"Traceback|psycopg|sqlalchemy|select |insert |File \"|\.py\b|postgres|pydantic|starlette")


def email() -> str:
    return f"{uuid4().hex}@shop.example"


def refused(answer: httpx.Response, *statuses: int) -> None:
    """A documented refusal that shows nothing of the inside."""
    assert answer.status_code in statuses, f"{answer.status_code} {answer.text[:300]}"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not _INTERNALS.search(answer.text), answer.text
    body = answer.json()
    assert body["status"] == answer.status_code and body["code"] and body["request_id"]
    assert isinstance(body["detail"], list if answer.status_code == 422 else str)


BAD_JSON = [
    rb'{"email": "a\u0000@shop.example"}', rb'{"first_name\u0000": "x"}', rb'{"email": "\ud800"}',
    rb'{"custom_fields": {"\udfff": 1}}', rb'{"custom_fields": {"a": ["\u0000"]}}', b'{"email": "\xff\xfe"}',
    b'{"email": "a", "email": "b"}', b'{"custom_fields": {"n": NaN}}', b'{"custom_fields": {"n": Infinity}}',
    b'{"custom_fields": {"n": -Infinity}}', b'{"custom_fields": {"n": 1e999}}', b'{"custom_fields": {"n": -1e999}}',
    b'{"custom_fields": {"n": 9223372036854775808}}', b'{"custom_fields": {"n": ' + b"9" * 400 + b"}}",
    b'{"custom_fields": {"n": ' + b"9" * 5000 + b"}}", b"[" * 100_000, b'{"a":' * 33 + b"1" + b"}" * 33,
    b'{"custom_fields": ' + b"[" * 40 + b"]" * 40 + b"}", b"", b"{", b"null", b"5", b'"text"', b"[]", b"\xef\xbb\xbf{}",
    '{"email": "a@b.example"}'.encode("utf-16"), b"{'email': 1}", b'{"email": 1e3}',
    b"{" + b",".join(b'"k%d":1' % n for n in range(20_000)) + b"}",
]  # fmt: skip


@pytest.mark.parametrize("path", [CONTACTS, CAMPAIGNS, IMPORT, LOGIN])
@pytest.mark.parametrize("body", BAD_JSON, ids=[f"{n}" for n in range(len(BAD_JSON))])
def test_j1_to_j6_a_bad_body_is_refused(editor: httpx.Client, path: str, body: bytes) -> None:
    if path == IMPORT and body == b"[]":
        assert editor.post(path, content=body).json() == {"created": 0, "skipped": 0}
        return
    began = time.monotonic()
    refused(editor.post(path, content=body), 413, 422)
    assert time.monotonic() - began < 6


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**63, 10**400, 1.5, -1])
def test_j4_an_integer_out_of_range(editor: httpx.Client, number: float) -> None:
    body = {"name": "n", "subject": "s", "max_per_hour": number}
    refused(editor.post(CAMPAIGNS, json=body), 422)


@pytest.mark.parametrize(
    "moment",
    ["0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T23:59:60Z",
     "2026-01-01T00:00:00+25:00", "infinity", "-infinity", "now", "1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z",
     "2026-13-01T00:00:00Z", "1", "", 1700000000, 1e30, True, "2026-01-01", "9999-12-31T23:59:59-23:59"],
)  # fmt: skip
def test_j7_an_odd_moment(editor: httpx.Client, moment: Any) -> None:
    body = {"email": email(), "consent_status": "granted", "consent_source": "x", "consent_at": moment}
    refused(editor.post(CONTACTS, json=body), 422)
    if isinstance(moment, str):
        refused(editor.get(CONTACTS, params={"updated_since": moment}), 422)


@pytest.mark.parametrize("unit", ["é", "e\u0301", "\u200b", "ש", "👩‍👩‍👧", "𝒳"])
def test_j8_limits_count_characters(editor: httpx.Client, unit: str) -> None:
    fits = (unit * 100)[:100]
    answer = editor.post(CONTACTS, json={"email": email(), "first_name": f"a{fits[:98]}a"})
    assert answer.status_code == 201
    assert answer.json()["first_name"] == f"a{fits[:98]}a"
    refused(editor.post(CONTACTS, json={"email": email(), "first_name": f"a{fits}a"}), 422)


@pytest.mark.parametrize("query", ["%00", "q=%00", "q=a%00b", "%00=1", "q=%ed%a0%80", "q=%ff", "tag=%F0%9F"])
def test_j1_a_bad_query_is_no_5xx(viewer: httpx.Client, query: str) -> None:
    answer = viewer.get(f"{CONTACTS}?{query}")
    if "%00" in query:
        refused(answer, 422)
    assert answer.status_code < 500


@pytest.mark.parametrize("path", ["%00", "1%00", "%ed%a0%80", "%ff", "1%0d%0aX-Evil:%201", "..%2f..%2fhealth", "%2e"])
def test_j1_a_bad_path_is_no_5xx(editor: httpx.Client, path: str) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        answer = editor.request(method, f"{CONTACTS}{path}", json={} if method == "PATCH" else None)
        refused(answer, 404, 422)
        assert "X-Evil" not in answer.headers


@pytest.mark.parametrize("name", ["Idempotency-Key", "If-Match", "X-Request-ID", "Content-Type", "Accept"])
def test_j1_odd_headers_are_no_5xx(editor: httpx.Client, name: str) -> None:
    for value in (b"\xff\xfe", b"\xed\xa0\x80", b"x" * 20_000, b"", "é".encode(), b'"' * 300):
        headers = [(name.encode(), value)]
        answer = editor.post(CONTACTS, content=json.dumps({"email": email()}), headers=headers)
        assert answer.status_code in (201, 412, 415, 422), (name, value, answer.text)


def test_j10_twenty_writers_on_two_rows_end_well(service: LiveService) -> None:
    with service.client("editor") as client:
        ids = [client.post(CONTACTS, json={"email": email()}).json()["id"] for _ in range(2)]

        def write(number: int) -> int:
            body = {"last_name": str(number), "phone": str(number)}
            return client.patch(f"{CONTACTS}{ids[number % 2]}", json=body).status_code

        with ThreadPoolExecutor(20) as pool:
            codes = list(pool.map(write, range(60)))
    assert codes == [200] * 60


def test_j12_idle_and_slow_sockets_do_not_hold_up_the_others(service: LiveService, nobody: httpx.Client) -> None:
    parts = urlsplit(service.url)
    address = (parts.hostname or "", parts.port or 0)
    idle = [socket.create_connection(address) for _ in range(200)]
    try:
        for connection in idle[:100]:
            connection.sendall(b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n")
        for connection in idle[:50]:
            connection.sendall(b"\r\n{")
        spent = []
        for _ in range(10):
            began = time.monotonic()
            assert nobody.get("/health").status_code == 200
            spent.append(time.monotonic() - began)
        assert sorted(spent)[5] < 0.2
    finally:
        for connection in idle:
            connection.close()


def test_j12_a_silent_connection_is_closed(service: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    import api.__main__ as entry

    monkeypatch.setattr(entry, "IDLE_SECONDS", 0.2)
    parts = urlsplit(service.url)
    for head in (b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"):
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as connection:
            connection.sendall(head)
            assert connection.recv(100) == b""


def test_j12_a_body_that_stops_is_given_up(service: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    import api.conventions

    monkeypatch.setattr(api.conventions, "_BODY_SECONDS", 0.2)
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as connection:
        connection.sendall(b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_j13_a_range_of_ten_thousand_parts_is_answered_at_once(nobody: httpx.Client) -> None:
    ranges = ",".join(f"{n}-{n}" for n in range(3000))
    began = time.monotonic()
    answer = nobody.get("/docs/assets/swagger-ui.css", headers={"Range": f"bytes={ranges}"})
    assert answer.status_code in (200, 416) and time.monotonic() - began < 5


@pytest.mark.parametrize(
    "value", ["a@" * 25_000, "a" * 50_000 + "@x", "a@" + "b." * 25_000, "@" * 50_000, "a@" + "-" * 50_000 + ".example"]
)
def test_j14_long_nonsense_is_refused_fast(editor: httpx.Client, value: str) -> None:
    began = time.monotonic()
    refused(editor.post(CONTACTS, json={"email": value}), 422)
    assert editor.get(CONTACTS, params={"email": value[:320]}).status_code == 200
    assert time.monotonic() - began < 5


def test_j14_every_pattern_is_linear() -> None:
    patterns = every_pattern()
    assert len(patterns) > 40  # found by walking the modules; a few would mean the walk is broken
    # A linear one takes 10 ms for 8,000 characters at most, a quadratic one a second (50,000: `make bench-security`).
    took = {name: slowest_milliseconds(name, pattern, 8_000) for name, pattern in patterns.items()}
    assert [name for name, milliseconds in took.items() if milliseconds > 300] == []


def test_j15_a_fault_of_ours_shows_nothing(service: LiveService, caplog: pytest.LogCaptureFixture) -> None:
    with service.engine.begin() as tx:
        tx.execute(text("alter table contacts rename column phone to phone_gone"))
    try:
        with service.client("editor") as client:
            answer = client.post(CONTACTS, json={"email": email()})
    finally:
        with service.engine.begin() as tx:
            tx.execute(text("alter table contacts rename column phone_gone to phone"))
    refused(answer, 500)
    assert answer.json()["code"] == "internal_error"
    assert answer.headers["X-Request-ID"] in caplog.text


@pytest.fixture(scope="module")
def without_database(service: LiveService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service whose database is not there."""
    url, stop = serve(live_settings("postgresql://nobody:x@127.0.0.1:1/nothing", tmp_path_factory.mktemp("home")))
    yield url
    stop()


def test_j16_without_a_database_the_answer_is_503_in_two_seconds(service: LiveService, without_database: str) -> None:
    headers = {"Authorization": f"Bearer {service.token('admin')}"}
    with httpx.Client(base_url=without_database, headers=headers, timeout=10) as client:
        for method, path in (("GET", CONTACTS), ("POST", CONTACTS), ("POST", LOGIN), ("GET", "/ready")):
            began = time.monotonic()
            body = {"email": "a@b.example", "password": "x"} if method == "POST" else None
            answer = client.request(method, path, json=body)
            assert time.monotonic() - began < 6
            refused(answer, 503)
            assert int(answer.headers["Retry-After"]) > 0
        assert client.get("/ready").json()["checks"]["database"] == "unreachable"
        assert client.get("/health").status_code == 200
        pixel = client.get("/api/v1/track/open/1/2")
        assert (pixel.status_code, pixel.headers["Content-Type"], len(pixel.content)) == (200, "image/gif", 43)


@pytest.mark.parametrize("key", sorted(served(document())), ids=" ".join)
def test_j17_headers_of_every_operation(service: LiveService, key: tuple[str, str]) -> None:
    method, template = key
    path = re.sub(r"\{[a-z_]+\}", "987654321", template)
    with service.client() as client:
        answer = client.request(method, path, headers={"Origin": "https://evil.example"})
    assert answer.status_code < 500
    headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Request-ID"]
    kind = headers.get("Content-Type", "")
    assert "no-store" in headers["Cache-Control"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers.get("X-Frame-Options") == "DENY" or kind == "image/gif"
    assert "Access-Control-Allow-Origin" not in headers and "Access-Control-Allow-Credentials" not in headers
    assert kind.startswith(("application/json", "application/problem+json", "image/gif")) or "charset=utf-8" in kind


_ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=_ANY_JSON,
    field=st.sampled_from(["email", "first_name", "custom_fields", "consent_at", "tag_ids", "country"]),
)
def test_whatever_stands_in_a_field_is_no_5xx(editor: httpx.Client, value: Any, field: str) -> None:
    body = {"email": email(), field: value}
    answer = editor.post(CONTACTS, content=json.dumps(body))
    assert answer.status_code in (201, 409, 422), f"{answer.status_code} {body!r}"
    if answer.status_code == 422:
        refused(answer, 422)
