"""`/metrics`: who may read it, what it says, that it is cheap and names nobody."""

from __future__ import annotations

import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from tests.live_service import LiveService


def numbers(answer: httpx.Response) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    assert answer.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_viewer_and_a_key_with_the_scope_may_read(
    viewer: httpx.Client, nobody: httpx.Client, admin: httpx.Client
) -> None:
    assert viewer.get("/metrics").headers["content-type"].startswith("text/plain")
    assert nobody.get("/metrics").status_code == 401
    for scope, status in (("metrics:read", 200), ("*:read", 200), ("contacts:read", 403)):
        made = admin.post("/api/v1/api-keys/", json={"name": f"scraper {scope}", "scopes": [scope]}).json()
        assert nobody.get("/metrics", headers={"X-API-Key": made["key"]}).status_code == status
        assert nobody.get("/metrics", headers={"Authorization": f"Bearer {made['key']}"}).status_code == status


def test_it_says_what_waits_and_what_was_answered(viewer: httpx.Client) -> None:
    viewer.get("/api/v1/campaigns/987654321012")
    found = numbers(viewer.get("/metrics"))
    names = {name for name, _ in found}
    assert found["mauto_sending_enabled", ()] == 1
    assert found["mauto_epoch", ()] == 1
    assert found["mauto_schema_version", ()] >= 51
    assert {("mauto_messages", (("state", state),)) for state in ("queued", "sending", "unknown")} <= found.keys()
    for queue in ("imports", "events", "webhook_deliveries", "webhook_dead_letters", "notices", "erasures"):
        assert found["mauto_queue", (("queue", queue),)] >= 0
    assert ("mauto_events_last_minute", (("type", "email_sent"),)) in found
    assert {"mauto_campaign_messages_total", "mauto_webhook_attempts_total", "mauto_hits_spool_bytes"} <= names
    asked = (("method", "GET"), ("path", "/api/v1/campaigns/{id}"), ("status", "404"))
    assert found["mauto_http_requests_total", asked] >= 1
    assert found["mauto_http_request_seconds_count", asked[:2]] >= 1
    assert not any("987654321012" in str(labels) for _, labels in found), "an id is never a label"


def test_what_is_queued_shows_after_ten_seconds_at_the_latest(
    service: LiveService, viewer: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = numbers(viewer.get("/metrics"))["mauto_queue", (("queue", "imports"),)]
    with service.engine.begin() as tx:
        tx.execute(text("insert into imports (storage_uri, status) values ('/nowhere', 'queued')"))
    try:
        assert numbers(viewer.get("/metrics"))["mauto_queue", (("queue", "imports"),)] == before, "kept"
        monkeypatch.setattr("api.metrics.FRESH_SECONDS", 0.0)
        found = numbers(viewer.get("/metrics"))
        assert found["mauto_queue", (("queue", "imports"),)] == before + 1
        assert found["mauto_queue_oldest_seconds", (("queue", "imports"),)] >= 0
    finally:
        with service.engine.begin() as tx:
            tx.execute(text("delete from imports where storage_uri = '/nowhere'"))


def test_it_is_answered_from_what_is_kept(viewer: httpx.Client) -> None:
    viewer.get("/metrics")
    began = time.process_time()
    for _ in range(5):
        assert viewer.get("/metrics").status_code == 200
    assert time.process_time() - began < 2
