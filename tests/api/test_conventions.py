"""What every answer has in common: slashes, methods, ids, headers, errors, body limits."""

from __future__ import annotations

import re

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService


@pytest.mark.parametrize("path", ["/health", "/ready", "/api/v1/auth/me", "/docs"])
def test_a_slash_at_the_end_changes_nothing(viewer: httpx.Client, path: str) -> None:
    bare, slashed = viewer.get(path), viewer.get(f"{path}/")
    ignored = {"x-request-id", "date"}
    assert bare.status_code == slashed.status_code == 200
    assert bare.content == slashed.content
    assert {k: v for k, v in bare.headers.items() if k not in ignored} == {
        k: v for k, v in slashed.headers.items() if k not in ignored
    }


@pytest.mark.parametrize("path", ["/nothing", "//api/v1/auth/me", "/api/v1/auth/me//", "/api/v1", "/api/v1/../health"])
def test_an_unknown_path_is_404(viewer: httpx.Client, path: str) -> None:
    answer = viewer.get(path) if ".." not in path else viewer.get("/api/v1/%2e%2e/health")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_another_method_is_405_and_says_which_are_allowed(viewer: httpx.Client) -> None:
    answer = viewer.put("/api/v1/auth/me", json={})
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET"
    assert viewer.options("/api/v1/auth/login").headers["Allow"] == "POST"
    assert viewer.request("TRACE", "/health").headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_head_is_get_without_a_body(nobody: httpx.Client, path: str) -> None:
    answer = nobody.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_head_is_not_served_elsewhere(viewer: httpx.Client) -> None:
    assert viewer.head("/api/v1/auth/me").status_code == 405


def test_an_error_is_a_problem_document(nobody: httpx.Client) -> None:
    answer = nobody.get("/api/v1/auth/me", headers={"X-Request-ID": "order 42"})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:problem:not_authenticated", "title": "Unauthorized", "status": 401,
        "detail": "Not authenticated", "code": "not_authenticated", "instance": "/api/v1/auth/me",
        "request_id": "order 42",
    }  # fmt: skip


def test_a_validation_error_lists_each_fault_and_no_secret(nobody: httpx.Client) -> None:
    answer = nobody.post("/api/v1/auth/login", json={"email": 7, "password": ["hunter2"]})
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert [(item["loc"], item["type"]) for item in detail] == [
        (["body", "email"], "string_type"), (["body", "password"], "string_type"),
    ]  # fmt: skip
    assert detail[0]["input"] == 7
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1", True), ("x" * 128, True), ("x" * 129, False), ("caf\xe9", False)]
)
def test_the_callers_request_id_is_kept_when_it_is_printable(nobody: httpx.Client, given: str, kept: bool) -> None:
    answer = nobody.get("/health", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    assert (answer.headers["X-Request-ID"] == given) is kept
    assert re.fullmatch(r"[\x20-\x7e]{1,128}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize("path", ["/health", "/nothing", "/api/v1/auth/me", "/docs", "/openapi.json"])
def test_security_headers_are_on_everything(viewer: httpx.Client, path: str) -> None:
    headers = viewer.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe-inline" not in headers["Content-Security-Policy"].split("script-src")[-1].split(";")[0]
    assert "server" not in headers


def test_what_nobody_foresaw_is_a_500_that_shows_nothing(
    viewer: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mautolib import contacts

    def broken(*_: object, **__: object) -> int:
        raise KeyError("a secret of /etc/passwd")

    monkeypatch.setattr(contacts, "count", broken)
    answer = viewer.get("/api/v1/contacts/count")
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert (answer.json()["code"], answer.json()["detail"]) == ("internal_error", "Something went wrong on our side")
    assert answer.headers["X-Request-ID"] in caplog.text and "a secret of" in caplog.text
    monkeypatch.undo()
    assert viewer.get("/api/v1/contacts/count").status_code == 200


def test_cors_is_for_configured_origins_only(nobody: httpx.Client) -> None:
    ours = nobody.get("/health", headers={"Origin": "https://app.shop.example"}).headers
    assert ours["Access-Control-Allow-Origin"] == "https://app.shop.example"
    assert ours["Vary"] == "Origin"
    theirs = nobody.get("/health", headers={"Origin": "https://evil.example"}).headers
    assert "Access-Control-Allow-Origin" not in theirs
    asked = {"Access-Control-Request-Method": "POST", "Origin": "https://app.shop.example"}
    preflight = nobody.options("/api/v1/auth/login", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Methods"] == "POST"
    assert "Access-Control-Allow-Credentials" not in preflight.headers
    asked["Origin"] = "https://evil.example"
    assert nobody.options("/api/v1/auth/login", headers=asked).status_code == 405


def test_a_body_over_the_limit_is_413_with_and_without_a_declared_length(service: LiveService) -> None:
    big = b'{"email": "' + b"x" * 1_048_576 + b'"}'
    with service.client() as client:
        declared = client.post("/api/v1/auth/login", content=big)
        assert (declared.status_code, declared.json()["code"]) == (413, "too_large")
    with service.client() as client:
        streamed = client.post("/api/v1/auth/login", content=iter([big[:40_000], big[40_000:]]))
        assert (streamed.status_code, streamed.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "application/json; charset=utf-16"])
def test_another_media_type_is_415(nobody: httpx.Client, media_type: str) -> None:
    answer = nobody.post("/api/v1/auth/login", content=b"{}", headers={"Content-Type": media_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("parameters", ["; charset=utf-8; v=1", ';charset="UTF-8" ;v=1', "; v=1"])
def test_parameters_beside_the_charset_change_nothing(nobody: httpx.Client, parameters: str) -> None:
    answer = nobody.post(
        "/api/v1/auth/refresh", content=b'{"refresh_token": "x"}',
        headers={"Content-Type": f"application/json{parameters}"},
    )  # fmt: skip
    assert answer.status_code == 401


def test_a_body_without_a_type_is_json(nobody: httpx.Client) -> None:
    answer = nobody.post("/api/v1/auth/login", content=b'{"email": "a@b.example", "password": "x"}')
    assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid email or password")


def test_ready_names_its_checks(nobody: httpx.Client) -> None:
    answer = nobody.get("/ready")
    assert answer.json() == {
        "status": "ready",
        "checks": {"database": "ok", "migrations": "ok", "airflow": "no sign of life yet"},
    }


def test_ready_sees_a_beat_of_airflow(service: LiveService, nobody: httpx.Client) -> None:
    with service.engine.begin() as tx:
        tx.execute(text("insert into heartbeats (component, beat_at) values ('airflow.test', now())"))
    try:
        assert nobody.get("/ready").json()["checks"]["airflow"] == "ok"
        with service.engine.begin() as tx:
            tx.execute(text("update heartbeats set beat_at = timestamptz '2026-01-02 03:04:05+00'"))
        assert nobody.get("/ready").json()["checks"]["airflow"] == "silent since 2026-01-02 03:04 UTC"
    finally:
        with service.engine.begin() as tx:
            tx.execute(text("delete from heartbeats"))
