"""`/metrics`: who may read it, what it says, that it is cheap and names nobody."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from api.metrics import Metrics
from mautolib.maintenance import heartbeat, watch
from tests.architecture.source import ROOT
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


def test_every_metric_of_the_rules_exists_and_their_runbooks_too(service: LiveService, viewer: httpx.Client) -> None:
    folder = ROOT / "docker" / "prometheus"
    scrape = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    (group,) = yaml.safe_load((folder / scrape["rule_files"][0]).read_text(encoding="utf-8"))["groups"]
    with service.engine.begin() as tx:
        for component in ("airflow", "backup", "ledger_check"):
            heartbeat(tx, component, datetime.now(UTC), {"findings": 0})
    try:
        own = Metrics().text(service.engine, service.settings, now=datetime.now(UTC)).decode()
    finally:
        with service.engine.begin() as tx:
            tx.execute(text("delete from heartbeats"))
    families = text_string_to_metric_families(own + viewer.get("/metrics").text)
    served = {sample.name for family in families for sample in family.samples}
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").lower()
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"]) > 10
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"[0-9]+[mhd]", rule.get("for", "1m"))
        asked = set(re.findall(r"\bmauto_[a-z_]+", rule["expr"]))
        assert asked <= served and (asked or rule["expr"].startswith("up{")), asked - served
        assert set(re.findall(r"\$labels\.([a-z]+)", rule["annotations"]["summary"])) <= {"dag", "check", "queue"}
        assert f"## {rule['annotations']['runbook'].partition('#')[2].replace('-', ' ')}\n" in guide


def test_it_says_what_is_stuck_and_which_dag_lags(viewer: httpx.Client) -> None:
    found = numbers(viewer.get("/metrics"))
    for check in watch.CHECKS:
        assert ("mauto_stuck", (("check", check.name),)) in found
        assert ("mauto_stuck_oldest_seconds", (("check", check.name),)) in found
    for dag in watch.DAGS:
        assert found["mauto_dag_last_success_age_seconds", (("dag", dag),)] >= 0
        assert found["mauto_dag_lag_seconds", (("dag", dag),)] == 0
