"""Outbound webhooks over HTTP: endpoints, their secrets, what was delivered, and delivering again."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from mautolib import webhooks
from mautolib.outbox import FactName
from tests.builders import NOW, make_delivery
from tests.live_service import HOOK, LiveService, serve
from tests.receivers import Answer, WebhookReceiver, receive

WEBHOOKS = "/api/v1/webhooks/"
FIELDS = {
    "id", "url", "events", "active", "description", "consecutive_failures", "total_deliveries", "total_failures",
    "max_failures", "last_success_at", "last_failure_at", "disabled_reason", "created_at",
}  # fmt: skip
DELIVERY_FIELDS = {
    "id", "endpoint_id", "event_type", "response_status", "success", "duration_ms", "attempt", "created_at",
    "message_id", "status", "next_attempt_at", "error",
}  # fmt: skip
PUBLIC = "https://hooks.shop.example/in"


def made(admin: httpx.Client, **fields: Any) -> dict[str, Any]:
    body = {"url": PUBLIC, "events": ["ab_test.winner_selected"], **fields}
    answer = admin.post(WEBHOOKS, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def change(service: LiveService, sql: str, **values: Any) -> None:
    with service.engine.begin() as tx:
        tx.execute(text(sql), values)


@pytest.fixture
def deliver(service: LiveService) -> Callable[..., str]:
    """Writes a delivery to an endpoint, as it stands in the database."""

    def write(webhook: dict[str, Any], **fields: Any) -> str:
        with service.engine.begin() as tx:
            return str(make_delivery(tx, int(webhook["id"]), **fields))

    return write


# ---- endpoints


def test_there_are_19_events_to_listen_to(viewer: httpx.Client) -> None:
    names = viewer.get(f"{WEBHOOKS}events").json()
    assert len(names) == 19 and names == [str(name) for name in FactName]
    assert viewer.get(f"{WEBHOOKS}events/").json() == names


def test_a_secret_that_was_made_is_shown_once_and_stored_sealed(service: LiveService, admin: httpx.Client) -> None:
    webhook = made(admin, description="CRM", max_failures=3)
    assert webhook.keys() == {*FIELDS, "secret"} and webhook["secret"].startswith("whsec_")
    fresh = {"active": True, "consecutive_failures": 0, "total_deliveries": 0, "total_failures": 0, "max_failures": 3,
             "last_success_at": None, "last_failure_at": None, "disabled_reason": None, "description": "CRM",
             "url": PUBLIC}  # fmt: skip
    assert {name: webhook[name] for name in fresh} == fresh
    shown = admin.get(f"{WEBHOOKS}{webhook['id']}").json()
    assert shown == {name: webhook[name] for name in FIELDS} == admin.get(WEBHOOKS, params={"limit": 1}).json()[0]
    with service.engine.begin() as tx:
        query = text("select * from webhook_endpoints where endpoint_id = :id")
        row = tx.execute(query, {"id": int(webhook["id"])}).one()
        audit = str(tx.execute(text("select changes from audit_log order by audit_id desc limit 5")).all())
    assert webhook["secret"] not in str(row) and webhook["secret"] not in audit
    assert webhooks.open_secret(service.settings, bytes(row.secret_encrypted)) == webhook["secret"]


def test_a_secret_that_was_sent_is_never_shown(service: LiveService, admin: httpx.Client) -> None:
    own = "ключ ✓ " + uuid4().hex
    headers = {"Idempotency-Key": uuid4().hex}
    body = {"url": PUBLIC, "secret": own, "events": ["ab_test.winner_selected"]}
    answers = [admin.post(WEBHOOKS, json=body, headers=headers) for _ in range(2)]
    assert answers[0].json().keys() == FIELDS and answers[1].content == answers[0].content
    changed = admin.patch(f"{WEBHOOKS}{answers[0].json()['id']}", json={"secret": "another"})
    assert changed.json().keys() == FIELDS
    with service.engine.begin() as tx:
        query = text("select secret_encrypted from webhook_endpoints where endpoint_id = :id")
        sealed = tx.scalar(query, {"id": int(changed.json()["id"])})
    assert webhooks.open_secret(service.settings, bytes(sealed)) == "another"


def test_a_replayed_creation_shows_the_secret_again_and_keeps_it_sealed(
    service: LiveService, admin: httpx.Client
) -> None:
    headers, body = {"Idempotency-Key": uuid4().hex}, {"url": PUBLIC, "events": ["ab_test.started"]}
    first, again = (admin.post(WEBHOOKS, json=body, headers=headers) for _ in range(2))
    assert first.json()["secret"] == again.json()["secret"] and again.headers["Idempotency-Replayed"] == "true"
    with service.engine.begin() as tx:
        query = text("select body from idempotency_keys where idempotency_key = :key")
        kept = bytes(tx.scalar(query, {"key": headers["Idempotency-Key"]}) or b"")
    assert kept and first.json()["secret"].encode() not in kept


def test_an_unknown_event_is_400_before_the_url_is_looked_at(admin: httpx.Client) -> None:
    for url in (PUBLIC, "http://127.0.0.1/"):
        answer = admin.post(WEBHOOKS, json={"url": url, "events": ["contact.created", "contact.*"]})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
        assert answer.json()["detail"] == "Invalid event type: contact.*"
    path = f"{WEBHOOKS}{made(admin)['id']}"
    assert admin.patch(path, json={"events": ["x"]}).json()["detail"] == "Invalid event type: x"
    assert admin.patch(path, json={"events": ["*", "*"]}).json()["events"] == ["*"]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"url": "http://hooks.shop.example/"}, "url"), ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"), ({"url": "https://a@hooks.shop.example/"}, "url"),
        ({"url": "https://hooks.shop.example:22/"}, "url"), ({"url": "ftp://hooks.shop.example/"}, "url"),
        ({"url": "https://0x7f.1/"}, "url"), ({"url": "https://localhost/"}, "url"), ({"url": ""}, "url"),
        ({"url": "https://hooks.shop.example/" + "a" * 2048}, "url"), ({"url": "https://a b.example/"}, "url"),
        ({"secret": ""}, "secret"), ({"secret": "x" * 201}, "secret"), ({"secret": "whsec_"}, "secret"),
        ({"secret": "a\0b"}, ""), ({"events": []}, "events"), ({"events": "*"}, "events"),
        ({"max_failures": 0}, "max_failures"), ({"max_failures": 101}, "max_failures"),
        ({"description": "x" * 501}, "description"),
    ],
)  # fmt: skip
def test_what_makes_no_webhook_is_422(admin: httpx.Client, fields: dict[str, Any], where: str) -> None:
    answers = [admin.post(WEBHOOKS, json={"url": PUBLIC, **fields}),
               admin.patch(f"{WEBHOOKS}{made(admin)['id']}", json=fields)]  # fmt: skip
    for answer in answers:
        assert answer.status_code == 422, answer.text
        (problem, *_) = answer.json()["detail"]
        assert problem["loc"][:2] == ["body", where] if where else ["body"], answer.text
        assert "input" not in problem or where not in ("secret",)


def test_a_name_that_does_not_resolve_is_accepted(admin: httpx.Client) -> None:
    assert made(admin, url="https://nobody-has-this-name.example:8443/x?y=1")["active"] is True


def test_coming_back_clears_what_failed(service: LiveService, admin: httpx.Client) -> None:
    path = f"{WEBHOOKS}{made(admin)['id']}"
    change(
        service, "update webhook_endpoints set active = false, consecutive_failures = 10, total_failures = 12, "
        "disabled_reason = '10 deliveries in a row failed' where endpoint_id = :id", id=int(path.rpartition("/")[2]),
    )  # fmt: skip
    assert admin.get(path).json()["disabled_reason"] == "10 deliveries in a row failed"
    renamed = admin.patch(path, json={"description": "x"}).json()
    assert (renamed["active"], renamed["consecutive_failures"]) == (False, 10)
    back = admin.patch(path, json={"active": True}).json()
    assert (back["active"], back["consecutive_failures"], back["disabled_reason"]) == (True, 0, None)
    assert back["total_failures"] == 12
    ids = {row["id"] for row in admin.get(WEBHOOKS, params={"active": True, "limit": 200}).json()}
    admin.patch(path, json={"active": False})
    off = {row["id"] for row in admin.get(WEBHOOKS, params={"active": False, "limit": 200}).json()}
    assert back["id"] in ids & off and admin.get(WEBHOOKS, params={"active": "maybe"}).status_code == 422


def test_rotating_keeps_the_old_secret_for_a_day(service: LiveService, admin: httpx.Client) -> None:
    webhook = made(admin)
    path = f"{WEBHOOKS}{webhook['id']}/rotate-secret"
    rotated = admin.post(path).json()
    assert rotated.keys() == {"secret", "previous_valid_until"} and rotated["secret"] != webhook["secret"]
    left = datetime.fromisoformat(rotated["previous_valid_until"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    assert admin.post(path, json={"secret": "of one's own"}).json()["secret"] == "of one's own"
    assert admin.post(path, json={"secret": "  "}).status_code == 422
    with service.engine.begin() as tx:
        kept = "select secret_encrypted, previous_secret_encrypted from webhook_endpoints where endpoint_id = :id"
        row = tx.execute(text(kept), {"id": int(webhook["id"])}).one()
    opened = [webhooks.open_secret(service.settings, bytes(sealed)) for sealed in row]
    assert opened == ["of one's own", rotated["secret"]]


# ---- deliveries


def test_deliveries_are_listed_filtered_and_shown_whole(
    admin: httpx.Client, viewer: httpx.Client, deliver: Callable[..., str]
) -> None:
    webhook, other = made(admin), made(admin)
    deliver(other)
    old = deliver(webhook, status="dead", attempt=10, created_at=NOW - timedelta(days=2))
    fine = deliver(webhook, status="succeeded", event_type="email.sent")
    waits = deliver(webhook, status="pending", attempt=0, response_status=None, duration_ms=0, error=None)
    path = f"{WEBHOOKS}{webhook['id']}/deliveries"
    rows = viewer.get(path).json()
    assert [row["id"] for row in rows] == [waits, fine, old] and all(row.keys() == DELIVERY_FIELDS for row in rows)
    assert [(row["status"], row["success"], row["response_status"], row["attempt"]) for row in rows] == [
        ("pending", False, None, 0), ("succeeded", True, 200, 1), ("dead", False, 0, 10),
    ]  # fmt: skip
    assert rows[0]["next_attempt_at"] == "2026-03-01T00:00:00Z" and rows[2]["next_attempt_at"] is None

    def found(**params: Any) -> list[str]:
        return [row["id"] for row in viewer.get(path, params=params).json()]

    assert found(status="dead") == [old] and found(event_type="email.sent") == [fine]
    assert found(since="2026-03-01T00:00:00Z") == [waits, fine] and found(until="2026-03-01T00:00:00Z") == [old]
    assert found(status="dead", event_type="email.sent") == []
    assert viewer.get(path, params={"status": "lost"}).status_code == 422
    whole = viewer.get(f"{path}/{old}").json()
    assert whole.keys() == {*DELIVERY_FIELDS, "payload", "attempts"} and whole["payload"]["event"] == "contact.created"
    assert len(whole["attempts"]) == 10
    assert whole["attempts"][0] == {
        "at": "2026-03-01T00:00:00Z", "response_status": 0, "duration_ms": 12, "error": "no connection",
        "response_body": None,
    }  # fmt: skip
    foreign = viewer.get(f"{WEBHOOKS}{other['id']}/deliveries/{old}")
    assert (foreign.status_code, foreign.json()["detail"]) == (404, "Delivery not found")
    assert viewer.get(f"{WEBHOOKS}987654321/deliveries").json() == []


def test_one_delivery_is_sent_again_with_its_id(
    admin: httpx.Client, editor: httpx.Client, viewer: httpx.Client, deliver: Callable[..., str]
) -> None:
    webhook = made(admin)
    path = f"{WEBHOOKS}{webhook['id']}/deliveries/{deliver(webhook)}"
    before = viewer.get(path).json()
    assert viewer.post(f"{path}/retry").status_code == 403
    answer = editor.post(f"{path}/retry")
    assert answer.status_code == 202, answer.text
    again = answer.json()
    assert (again["status"], again["message_id"], again["attempt"]) == ("pending", before["message_id"], 1)
    assert again["next_attempt_at"] and viewer.get(path).json()["attempts"] == before["attempts"]
    pending = editor.post(f"{path}/retry")
    assert (pending.status_code, pending.json()["code"]) == (409, "invalid_state")


def test_deliveries_of_a_span_are_sent_again(
    admin: httpx.Client, editor: httpx.Client, viewer: httpx.Client, deliver: Callable[..., str]
) -> None:
    webhook = made(admin)
    early, late = deliver(webhook, created_at=NOW - timedelta(hours=1)), deliver(webhook)
    fine = deliver(webhook, status="succeeded")
    path = f"{WEBHOOKS}{webhook['id']}/deliveries"

    def again(**body: Any) -> int:
        answer = editor.post(f"{path}/retry", json=body)
        assert answer.status_code == 202, answer.text
        count: int = answer.json()["requeued"]
        return count

    assert again(since="2026-03-02T00:00:00Z") == 0
    assert again(since="2026-02-01T00:00:00Z", until="2026-03-01T00:00:00Z") == 1
    assert viewer.get(f"{path}/{early}").json()["status"] == "pending"
    assert again(since="2026-02-01T00:00:00Z") == 1 and again(since="2026-02-01T00:00:00Z") == 0
    assert viewer.get(f"{path}/{late}").json()["status"] == "pending"
    assert again(since="2026-02-01T00:00:00Z", status="succeeded") == 1
    assert viewer.get(f"{path}/{fine}").json()["status"] == "pending"
    assert again(since="2026-02-01T00:00:00Z", status="pending") == 0
    assert editor.post(f"{path}/retry", json={}).status_code == 422
    span = {"since": "2026-02-01T00:00:00Z"}
    assert editor.post(f"{WEBHOOKS}987654321/deliveries/retry", json=span).status_code == 404


def test_deleting_takes_the_deliveries_along(
    service: LiveService, admin: httpx.Client, deliver: Callable[..., str]
) -> None:
    webhook = made(admin)
    delivery = deliver(webhook)
    assert admin.delete(f"{WEBHOOKS}{webhook['id']}").status_code == 204
    assert admin.get(f"{WEBHOOKS}{webhook['id']}").json()["detail"] == "Webhook not found"
    with service.engine.begin() as tx:
        query = text("select count(*) from webhook_attempts where delivery_id = :id")
        assert tx.scalar(query, {"id": int(delivery)}) == 0


# ---- tests


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with receive() as running:
        yield running


@pytest.fixture(scope="module")
def reaching(service: LiveService, receiver: WebhookReceiver) -> Iterator[LiveService]:
    """The same service, which may also call the receiver of these tests."""
    settings = dataclasses.replace(
        service.settings, webhook_allow_http=True, webhook_allowed_hosts=(f"127.0.0.1:{receiver.port}",)
    )
    url, stop = serve(settings)
    yield dataclasses.replace(service, url=url, settings=settings)
    stop()


def test_a_test_is_sent_at_once_and_listed(reaching: LiveService, receiver: WebhookReceiver) -> None:
    receiver.decide = lambda _: Answer("200 OK", (), b"thanks <b>")
    with reaching.client("admin") as admin:
        webhook = made(admin, url=receiver.url)
        answer = admin.post(f"{WEBHOOKS}{webhook['id']}/test")
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"message", "success", "response_status", "duration_ms"}
        assert (answer.json()["message"], answer.json()["success"]) == ("Test webhook sent", True)
        assert answer.json()["response_status"] == 200
        seen = receiver.requests[-1]
        sent = json.loads(seen.body)
        assert (sent["event"], sent["data"]) == ("test.ping", {"message": "Test webhook delivery"})
        digest = hmac.new(webhook["secret"].encode(), seen.body, hashlib.sha256).hexdigest()
        assert seen.headers["x-webhook-signature-256"] == f"sha256={digest}"
        (row,) = admin.get(f"{WEBHOOKS}{webhook['id']}/deliveries").json()
        assert (row["message_id"], row["status"]) == (sent["id"], "succeeded")
        whole = admin.get(f"{WEBHOOKS}{webhook['id']}/deliveries/{row['id']}").json()
        assert whole["payload"] == sent and whole["attempts"][0]["response_body"] == "thanks <b>"
        after = admin.get(f"{WEBHOOKS}{webhook['id']}").json()
        assert (after["total_deliveries"], after["total_failures"]) == (1, 0) and after["last_success_at"]


def test_a_test_may_say_something_else_and_may_fail(reaching: LiveService, receiver: WebhookReceiver) -> None:
    receiver.decide = lambda _: Answer("500 Internal Server Error")
    with reaching.client("admin") as admin:
        path = f"{WEBHOOKS}{made(admin, url=receiver.url, max_failures=2)['id']}"
        body = {"event_type": "order.test", "payload": {"größe": [1, None]}}
        answer = admin.post(f"{path}/test", json=body)
        assert answer.status_code == 200
        assert (answer.json()["success"], answer.json()["response_status"]) == (False, 500)
        assert json.loads(receiver.requests[-1].body)["data"] == body["payload"]
        assert admin.post(f"{path}/test", json={"event_type": "a\r\nb"}).status_code == 422
        admin.post(f"{path}/test")
        assert admin.get(path).json()["active"] is False and admin.get(path).json()["disabled_reason"]


def test_a_test_with_a_key_is_sent_once(reaching: LiveService, receiver: WebhookReceiver) -> None:
    receiver.decide = lambda _: Answer()
    with reaching.client("admin") as admin:
        path = f"{WEBHOOKS}{made(admin, url=receiver.url)['id']}/test"
        before, headers = len(receiver.requests), {"Idempotency-Key": uuid4().hex}
        first, again = (admin.post(path, headers=headers) for _ in range(2))
    assert first.content == again.content and len(receiver.requests) == before + 1


def test_a_test_nobody_answers_is_still_an_answer(admin: httpx.Client, editor: httpx.Client) -> None:
    answer = editor.post(f"{WEBHOOKS}{made(admin, url=HOOK)['id']}/test")
    assert answer.status_code == 200
    assert (answer.json()["success"], answer.json()["response_status"]) == (False, 0)
    missing = editor.post(f"{WEBHOOKS}987654321/test", headers={"Idempotency-Key": uuid4().hex})
    assert (missing.status_code, missing.json()["detail"]) == (404, "Webhook not found")
