"""The action `webhook`: what workflows and rules tell an address, and how it gets there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib import automations, dispatch, privacy, webhooks, workflows
from mautolib.automations import NewRule
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.append import NewEvent, append
from mautolib.settings import Settings
from mautolib.webhooks import delivery, endpoints, reading, retention
from mautolib.webhooks.addresses import Policy
from mautolib.webhooks.reading import DeliveryFilter
from mautolib.workflows import NewWorkflow
from tests.builders import make_contact
from tests.integration.webhook_making import NOON, add_endpoint, rows, tell, value
from tests.receivers import Answer, WebhookReceiver, receive

PAYLOAD = {"list": "vip", "text": "{{ contact.email }}", "deep": [1, {"a": None}]}


def call(receiver: WebhookReceiver, path: str = "") -> dict[str, Any]:
    return {"url": receiver.url + path, "payload": PAYLOAD}


def add_workflow(engine: Engine, receiver: WebhookReceiver, *steps: Mapping[str, Any], **fields: Any) -> int:
    new = NewWorkflow(name="Tells", steps=steps or [{"action": "webhook", **call(receiver)}], **fields)
    with engine.begin() as tx:
        return workflows.create(tx, new, actor="test", now=NOON, policy=receiver.reach().policy).workflow_id


def ping(engine: Engine, settings: Settings, *people: int, **properties: Any) -> None:
    with engine.begin() as tx:
        append(tx, [
            NewEvent(event_type="ping", contact_id=one, occurred_at=NOON, properties=properties) for one in people
        ], now=NOON)  # fmt: skip
    dispatch.run(engine, settings, now=NOON)


def test_a_step_tells_an_address_about_everybody_once(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        workflow = add_workflow(
            fresh_engine, receiver, trigger_type="event", trigger_config={"event_type": "ping"}, active=True
        )
        with fresh_engine.begin() as tx:
            people = [make_contact(tx, email=f"p{n}@shop.example", first_name=f"Zoë {n}") for n in range(3)]
        ping(fresh_engine, settings, *people, plan="gold")
        assert workflows.advance(fresh_engine, settings, now=NOON).completed == 3
        assert receiver.requests == [], "a step sends nothing"
        assert delivery.is_anything_to_do(fresh_engine, NOON)
        done = delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
        again = delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
    assert (done.facts, done.succeeded, again.succeeded) == (0, 3, 0)
    bodies = [json.loads(request.body) for request in receiver.requests]
    enrolled = {str(row.contact_id): str(row.enrollment_id) for row in rows(fresh_engine, "select * from enrollments")}
    assert {one["data"]["contact"]["id"] for one in bodies} == enrolled.keys()
    for request, body in zip(receiver.requests, bodies, strict=True):
        contact = body["data"].pop("contact")
        n = people.index(int(contact["id"]))
        assert (contact["email"], contact["first_name"]) == (f"p{n}@shop.example", f"Zoë {n}")
        assert body == {
            "id": request.headers["webhook-id"], "event": "workflow.webhook",
            "timestamp": "2026-11-23T12:00:00.000000Z",
            "data": {"workflow_id": str(workflow), "enrollment_id": enrolled[contact["id"]], "step": "0",
                     "event": {"plan": "gold"}, "payload": PAYLOAD},
        }  # fmt: skip
        assert request.headers["x-webhook-event"] == "workflow.webhook"
        assert int(request.headers["webhook-timestamp"]) == NOON.timestamp()
        assert not {"webhook-signature", "x-webhook-signature-256"} & request.headers.keys()
    logs = rows(fresh_engine, "select status, result from workflow_logs")
    assert [(row.status, row.result["success"], row.result["url"]) for row in logs] == [
        ("completed", True, receiver.url)] * 3  # fmt: skip
    assert value(fresh_engine, "select count(*) from webhook_attempts") == 3


def test_a_rule_tells_what_triggered_it(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            rule = automations.create(
                tx, NewRule(name="Tells", trigger_type="ping", actions=[
                    {"type": "webhook", "config": call(receiver)}, {"type": "webhook", "config": call(receiver)}]),
                actor="test", now=NOON, policy=receiver.reach().policy,
            ).rule_id  # fmt: skip
            person = make_contact(tx, email="ann@shop.example")
        ping(fresh_engine, settings, person, 0, total="9.90")
        delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
    runs = {row.contact_id: row for row in rows(fresh_engine, "select * from automation_logs")}
    assert {row.status for row in runs.values()} == {"success"} and len(runs) == 2
    told = sorted((json.loads(request.body) for request in receiver.requests), key=json.dumps)
    assert len(told) == 4 and len({one["id"] for one in told}) == 4
    seen = set()
    for one in told:
        contact, data = one["data"].pop("contact"), one["data"]
        assert one["event"] == "automation.webhook"
        person_id = int(contact["id"]) if contact else 0
        assert data == {"rule_id": str(rule), "rule_run_id": str(runs[person_id].log_id), "action": data["action"],
                        "event": {"total": "9.90"}, "payload": PAYLOAD}  # fmt: skip
        seen.add((person_id, data["action"]))
    assert seen == {(person, "0"), (person, "1"), (0, "0"), (0, "1")}


def test_a_failed_call_is_repeated_by_the_schedule_then_dead_and_replayed(
    fresh_engine: Engine, settings: Settings
) -> None:
    with receive(lambda _: Answer("500 Oh no")) as receiver:
        workflow = add_workflow(fresh_engine, receiver)
        with fresh_engine.begin() as tx:
            person = make_contact(tx)
            workflows.trigger(tx, settings, workflow, contact_id=person, now=NOON)
        now = NOON
        for attempt in range(1, 11):
            delivery.run(fresh_engine, settings, now=now, reach=receiver.reach())
            [row] = rows(fresh_engine, "select * from webhook_deliveries")
            assert (row.attempt, row.status) == (attempt, "pending" if attempt < 10 else "dead")
            now = row.next_attempt_at or now
        assert timedelta(hours=60) < now - NOON < timedelta(hours=92)
        assert {request.headers["webhook-id"] for request in receiver.requests} == {row.webhook_message_id}
        with fresh_engine.begin() as tx:
            webhooks.retry_delivery(tx, row.endpoint_id, row.delivery_id, now=now)
        receiver.decide = lambda _: Answer()
        assert delivery.run(fresh_engine, settings, now=now, reach=receiver.reach()).succeeded == 1
    assert retention.forget_deliveries(fresh_engine, settings, now=now + timedelta(days=31)) == 1


def test_an_address_is_never_disabled_nor_shown_as_an_endpoint(fresh_engine: Engine, settings: Settings) -> None:
    with receive(lambda _: Answer("410 Gone")) as receiver:
        workflow = add_workflow(fresh_engine, receiver)
        with fresh_engine.begin() as tx:
            for _ in range(12):
                workflows.trigger(tx, settings, workflow, contact_id=make_contact(tx), now=NOON)
            tx.execute(text("update webhook_deliveries set attempt = 9"))
        assert delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach()).dead == 12
        [address] = rows(fresh_engine, "select * from webhook_endpoints")
        assert (address.active, address.disabled_reason, address.consecutive_failures) == (True, None, 12)
        number = address.endpoint_id
        with fresh_engine.begin() as tx:
            assert endpoints.search(tx) == [] and endpoints.count(tx, active=True, at_most=9) == 0
            assert endpoints.addresses(tx, {number}) == {number: receiver.url}
            assert len(reading.search(tx, DeliveryFilter(endpoint_id=None))) == 12
            for refused in (
                lambda: endpoints.get(tx, number), lambda: endpoints.remove(tx, number),
                lambda: endpoints.update(tx, settings, number, {"active": False}),
                lambda: webhooks.rotate_secret(tx, settings, number, secret=None, now=NOON),
                lambda: webhooks.retry_many(tx, number, since=None, until=None, now=NOON),
            ):
                with pytest.raises(NotFound):
                    refused()
        with pytest.raises(NotFound):
            webhooks.send_test(fresh_engine, settings, number, event_type="test.ping", payload={}, now=NOON)


def test_an_address_listens_to_no_fact(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        workflow = add_workflow(fresh_engine, receiver)
        with fresh_engine.begin() as tx:
            workflows.trigger(tx, settings, workflow, contact_id=make_contact(tx), now=NOON)
        delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
        with fresh_engine.begin() as tx:
            tell(tx, 3)
        assert not delivery.is_anything_to_do(fresh_engine, NOON + timedelta(days=1))
        delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
        assert len(receiver.requests) == 1
        assert value(fresh_engine, "select count(*) from outbox where expanded_at is not null") == 0
        # With somebody who listens both are told, each in its own way.
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, receiver.url, events=["contact.created"])
        assert delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach()).made >= 3
    assert sum("webhook-signature" in request.headers for request in receiver.requests) == len(receiver.requests) - 1


def test_two_workflows_share_the_lane_of_an_address(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        first, second = add_workflow(fresh_engine, receiver), add_workflow(fresh_engine, receiver)
        other = add_workflow(fresh_engine, receiver, {"action": "webhook", **call(receiver, "/other")})
        with fresh_engine.begin() as tx:
            for workflow in (first, second, other):
                workflows.trigger(tx, settings, workflow, contact_id=make_contact(tx), now=NOON)
        assert value(fresh_engine, "select count(*) from webhook_endpoints") == 2
        assert delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach()).succeeded == 3


def test_every_attempt_asks_the_guard(fresh_engine: Engine, settings: Settings) -> None:
    """What was allowed when it was saved, and is not any more."""
    with receive() as receiver:
        workflow = add_workflow(fresh_engine, receiver)
        with fresh_engine.begin() as tx:
            workflows.trigger(tx, settings, workflow, contact_id=make_contact(tx), now=NOON)
        assert delivery.run(fresh_engine, settings, now=NOON).failed == 1
        assert receiver.connections == 0
    [row] = rows(fresh_engine, "select response_status, error from webhook_attempts")
    assert (row.response_status, row.error) == (0, "The URL has to begin with https://")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://10.0.0.1/x", "not on the public internet"), ("http://shop.example/", "https://"),
        ("https://user@shop.example/", "user name"), ("https://shop.example:22/", "Port 22"),
        ("https://localhost/", "public internet"), ("https://[::ffff:10.0.0.1]/", "public internet"),
        ("no url", "https://"), ("https://shop.example/{{ contact.email }}", "https://"),
    ],
)  # fmt: skip
def test_a_url_that_may_not_be_called_is_refused_with_its_place(fresh_engine: Engine, url: str, said: str) -> None:
    steps = [{"type": "wait_for_event", "event_type": "ping", "else": [{"action": "webhook", "url": url}]}]
    with fresh_engine.begin() as tx, pytest.raises(InvalidInput, match=said) as caught:
        workflows.create(tx, NewWorkflow(name="No", steps=steps), actor="test", now=NOON)
    assert caught.value.path == ("body", "steps", 0, "else", 0, "url")


@pytest.mark.parametrize("payload", [[], "text", 7, None, {"x": "y" * 16_400}, {"x": "\0"}, {"x": float("nan")}])
def test_a_payload_that_cannot_be_sent_is_refused(fresh_engine: Engine, payload: Any) -> None:
    steps = [{"action": "webhook", "url": "https://shop.example/", "payload": payload}]
    with fresh_engine.begin() as tx, pytest.raises(InvalidInput) as caught:
        workflows.create(tx, NewWorkflow(name="No", steps=steps), actor="test", now=NOON)
    assert caught.value.path[:2] == ("body", "steps")


def test_what_was_saved_stays_readable_under_a_stricter_policy(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        workflow = add_workflow(fresh_engine, receiver)
        with fresh_engine.begin() as tx:
            renamed = workflows.update(tx, workflow, {"name": "Other"}, actor="test", now=NOON, policy=Policy())
            assert renamed.version == 1
            with pytest.raises(InvalidInput):
                workflows.activate(tx, workflow, actor="test", now=NOON, policy=Policy())


def test_a_rolled_back_step_and_a_rehearsal_tell_nobody(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        workflow = add_workflow(fresh_engine, receiver)
        with fresh_engine.connect() as tx, tx.begin() as transaction:
            workflows.trigger(tx, settings, workflow, contact_id=make_contact(tx), now=NOON)
            transaction.rollback()
        assert delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach()).succeeded == 0
        assert receiver.requests == []
    assert value(fresh_engine, "select count(*) from webhook_deliveries") == 0


def test_an_erased_person_is_erased_from_calls(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        workflow = add_workflow(fresh_engine, receiver)
        with fresh_engine.begin() as tx:
            person = make_contact(tx, email="ann@shop.example")
            workflows.trigger(tx, settings, workflow, contact_id=person, context={"name": "Ann"}, now=NOON)
            privacy.erase(tx, person, actor="test", now=NOON, settings=settings)
        assert privacy.carry_out(fresh_engine, settings, now=NOON + timedelta(hours=1)).completed == 1
    [row] = rows(fresh_engine, "select payload -> 'data' as data from webhook_deliveries")
    assert row.data == {"contact": {"id": str(person)}}
