"""Delivering webhooks: what is sent, what is recorded, when it is tried again."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sqlalchemy import Engine
from standardwebhooks.webhooks import Webhook

from mautolib.settings import Settings
from mautolib.webhooks import delivery
from tests.integration.webhook_making import NOON, SECRET, add_endpoint, rows, tell, value
from tests.receivers import receive


def test_a_fact_is_delivered_signed_and_logged(fresh_engine: Engine, settings: Settings) -> None:
    now = datetime.now(UTC)
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url)
            tell(tx, data={"contact": {"id": "7", "first_name": "Zoë 🦊"}, "changed": []})
        done = delivery.run(fresh_engine, settings, now=now, reach=receiver.reach())
    assert (done.facts, done.made, done.succeeded, done.failed, done.dead) == (1, 1, 1, 0, 0)
    [request] = receiver.requests
    told = Webhook(SECRET).verify(request.body, dict(request.headers))
    assert told == {
        "id": request.headers["webhook-id"], "event": "contact.created", "timestamp": "2026-11-23T12:00:00.000000Z",
        "data": {"contact": {"id": "7", "first_name": "Zoë 🦊"}, "changed": []},
    }  # fmt: skip
    assert request.headers["x-webhook-event"] == "contact.created"
    assert request.headers["x-webhook-delivery-attempt"] == "1"
    assert request.headers["content-type"] == "application/json"
    [row] = rows(fresh_engine, "select * from webhook_deliveries")
    assert (row.status, row.attempt, row.response_status, row.error) == ("succeeded", 1, 204, None)
    assert (row.webhook_message_id, row.payload) == (told["id"], json.loads(request.body))
    assert (row.next_attempt_at, row.attempt_id, row.lease_until) == (None, None, None)
    [logged] = rows(fresh_engine, "select * from webhook_attempts")
    assert (logged.delivery_id, logged.attempt, logged.response_status) == (row.delivery_id, 1, 204)
    [state] = rows(fresh_engine, "select * from webhook_endpoints where endpoint_id = :id", id=endpoint)
    assert (state.total_deliveries, state.total_failures, state.consecutive_failures) == (1, 0, 0)
    assert state.last_success_at is not None and state.last_failure_at is None
    assert value(fresh_engine, "select count(*) from outbox where expanded_at is null") == 0


def test_nothing_to_do(fresh_engine: Engine, settings: Settings) -> None:
    assert delivery.run(fresh_engine, settings, now=NOON) == delivery.Delivered()
    assert not delivery.is_anything_to_do(fresh_engine, NOON)
