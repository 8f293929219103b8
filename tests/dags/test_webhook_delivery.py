"""The DAG webhook_delivery against a real warehouse and a receiver that the settings let it reach."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib import workflows
from mautolib.events.append import NewEvent, append
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow
from tests.builders import make_contact
from tests.integration.webhook_making import add_endpoint, rows, tell
from tests.receivers import WebhookReceiver, receive


def name_in_settings(monkeypatch: pytest.MonkeyPatch, receiver: WebhookReceiver) -> None:
    """As an operator does for a server of the own network."""
    monkeypatch.setenv("MAUTO_WEBHOOK_ALLOW_HTTP", "true")
    monkeypatch.setenv("MAUTO_WEBHOOK_ALLOWED_HOSTS", f"127.0.0.1:{receiver.port}")


def test_a_fact_reaches_who_listens(
    run_dag: Any, fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receive() as receiver:
        name_in_settings(monkeypatch, receiver)
        with fresh_engine.begin() as tx:
            first = add_endpoint(tx, settings, receiver.url + "/1")
            add_endpoint(tx, settings, receiver.url + "/2")
            tell(tx, 3)
        assert run_dag("webhook_delivery", endpoint_id=first).state == "success"
        assert {request.path for request in receiver.requests} == {"/hook/1"}
        assert run_dag("webhook_delivery").state == "success"
        assert run_dag("webhook_delivery").state == "success"
        assert sorted(request.path for request in receiver.requests) == ["/hook/1"] * 3 + ["/hook/2"] * 3


def test_a_step_of_a_workflow_reaches_its_address(
    run_dag: Any, fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    with receive() as receiver:
        name_in_settings(monkeypatch, receiver)
        new = NewWorkflow(
            name="Tells", trigger_type="event", trigger_config={"event_type": "ping"}, active=True,
            steps=[{"action": "webhook", "url": receiver.url, "payload": {"list": "vip"}}],
        )  # fmt: skip
        with fresh_engine.begin() as tx:
            workflows.create(tx, new, actor="test", now=now, policy=receiver.reach().policy)
            person = make_contact(tx)
            append(tx, [NewEvent(event_type="ping", contact_id=person, occurred_at=now)], now=now)
        assert run_dag("workflow_advance").state == "success"
        assert receiver.requests == []
        assert run_dag("webhook_delivery").state == "success"
        [request] = receiver.requests
    told = json.loads(request.body)
    assert (told["event"], told["data"]["contact"]["id"], told["data"]["payload"]) == (
        "workflow.webhook", str(person), {"list": "vip"})  # fmt: skip


def test_somebody_is_told_when_an_endpoint_is_disabled(
    run_dag: Any, fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("mautolib.maintenance.alerts.report", lambda engine, settings, finding, **_: told.append(
        f"{finding.name}: {finding.summary}"))  # fmt: skip
    with fresh_engine.begin() as tx:
        # Not public: refused before any connection, which is a failure like any other.
        endpoint = add_endpoint(tx, settings, "https://127.0.0.1/", max_failures=1)
        tell(tx)
    assert run_dag("webhook_delivery").state == "success"
    with fresh_engine.begin() as tx:
        tx.execute(text("update webhook_deliveries set attempt = 9, next_attempt_at = now()"))
    assert run_dag("webhook_delivery").state == "success"
    assert rows(fresh_engine, "select active, disabled_reason from webhook_endpoints") == [
        (False, "1 deliveries in a row failed")]
    assert told == [
        f"webhook_disabled.{endpoint}: webhook {endpoint} was disabled: 1 deliveries in a row failed"]
