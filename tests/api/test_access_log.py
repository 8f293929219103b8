"""One line a request: which operation, how it ended, who called - and nothing of the path, the query or the body."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from tests.live_service import LiveService


def lines(caplog: pytest.LogCaptureFixture, request_id: str) -> list[dict[str, Any]]:
    """What the lines of one request have beside their message."""
    return [
        {**getattr(record, "mauto_fields", {}), "message": record.getMessage()}
        for record in caplog.records if record.name == "api.access" and f"[{request_id}]" in record.getMessage()
    ]  # fmt: skip


def test_a_line_has_the_template_and_never_the_path(
    viewer: httpx.Client, nobody: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="api.access"):
        answer = viewer.get("/api/v1/contacts/471104", headers={"X-Request-ID": "mine 1"}, params={"token": "s3cret"})
        assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == "mine 1"
        nobody.get("/api/v1/contacts/471104", headers={"X-Request-ID": "mine 2"})
        nobody.get("/no/such/471104", headers={"X-Request-ID": "mine 3"})
    (first,), (second,), (third,) = (lines(caplog, f"mine {number}") for number in (1, 2, 3))
    assert first.pop("duration_ms") >= 0 and first.pop("message").startswith("GET /api/v1/contacts/{id} 404 ")
    assert first == {"method": "GET", "route": "/api/v1/contacts/{id}", "status": 404, "actor": "user"}
    assert (second["status"], second["actor"], second["route"]) == (401, "none", "/api/v1/contacts/{id}")
    assert (third["status"], third["route"]) == (404, "unknown")
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert not any(secret in line for line in ours for secret in ("471104", "s3cret"))


def test_lines_within_a_request_name_it_in_threads_too(
    service: LiveService, viewer: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mautolib import contacts, log

    seen: list[object] = []

    def noted(*_: object, **__: object) -> int:
        seen.append(log._BOUND.get().get("request_id"))
        return 3

    monkeypatch.setattr(contacts, "count", noted)
    for number in range(3):
        viewer.get("/api/v1/contacts/count", headers={"X-Request-ID": f"n{number}"})
    assert seen == ["n0", "n1", "n2"] and "request_id" not in log._BOUND.get()
    odd = viewer.get("/health", headers={"X-Request-ID": "a" * 129}).headers["X-Request-ID"]
    assert len(odd) == 32, "what is too long is replaced"
