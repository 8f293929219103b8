"""Inbound sources: made once, and what shops post there becomes events and orders, each once."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from mautolib import dispatch, workflows
from mautolib.auth import sealing
from tests.live_service import LiveService
from tests.shop_webhooks import (
    SECRET,
    as_sent,
    shopify_order,
    shopify_refund,
    sign_generic,
    sign_shopify,
    sign_standard,
    sign_woocommerce,
    woo_order,
)

SOURCES = "/api/v1/inbound-sources/"
DOOR = "/api/v1/webhooks/inbound/"
FIELDS = {"id", "name", "kind", "active", "mapping", "last_received_at", "created_at"}
_numbers = count(5_000_000_001)


def made(admin: httpx.Client, kind: str, **fields: Any) -> dict[str, Any]:
    answer = admin.post(SOURCES, json={"name": uuid4().hex, "kind": kind, "secret": SECRET, **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def email() -> str:
    return f"{uuid4().hex}@shop.example"


def post(client: httpx.Client, source: dict[str, Any], body: bytes, headers: dict[str, str]) -> httpx.Response:
    return client.post(f"{DOOR}{source['token']}", content=body, headers=headers)


def taken(answer: httpx.Response) -> tuple[int, int]:
    assert answer.status_code == 202, answer.text
    found = answer.json()
    assert found.keys() == {"accepted", "duplicates"}
    return found["accepted"], found["duplicates"]


def events_of(viewer: httpx.Client, source: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = viewer.get("/api/v1/events/", params={"source": f"inbound:{source['id']}"}).json()
    return rows


def orders_of(viewer: httpx.Client, source: dict[str, Any]) -> list[dict[str, Any]]:
    rows = viewer.get("/api/v1/orders/", params={"limit": 200}).json()
    return [row for row in rows if row["source"] == f"inbound:{source['id']}"]


Tell = Callable[[Any, str], httpx.Response]


@pytest.fixture
def shopify(admin: httpx.Client) -> dict[str, Any]:
    return made(admin, "shopify")


@pytest.fixture
def woo(admin: httpx.Client) -> dict[str, Any]:
    return made(admin, "woocommerce")


def teller(client: httpx.Client, source: dict[str, Any]) -> Tell:
    sign = sign_shopify if source["kind"] == "shopify" else sign_woocommerce

    def tell(order: Any, topic: str) -> httpx.Response:
        body = as_sent(order)
        return post(client, source, body, sign(body, topic))

    return tell


# ---- sources


def test_token_url_and_secret_are_shown_once_and_not_stored(service: LiveService, admin: httpx.Client) -> None:
    answer = admin.post(SOURCES, json={"name": "  leads "})
    source = answer.json()
    assert source.keys() == {*FIELDS, "token", "url", "secret"}
    assert (source["name"], source["kind"], source["active"], source["mapping"]) == ("leads", "generic", True, {})
    assert source["url"] == f"{service.settings.public_base_url}{DOOR}{source['token']}"
    assert len(source["token"]) == 43 and source["secret"].startswith("whsec_")
    listed = admin.get(SOURCES, params={"limit": 1}).json()
    assert listed == [{name: source[name] for name in listed[0]}] and listed[0].keys() == FIELDS
    with service.engine.begin() as tx:
        found = tx.execute(text("select * from inbound_sources where source_id = :id"), {"id": int(source["id"])}).one()
        audit = str(tx.execute(text("select changes from audit_log order by audit_id desc limit 5")).all())
    assert len(bytes(found.token_hash)) == 32
    for secret in (source["token"], source["secret"]):
        assert secret not in str(found) and secret not in audit
    assert sealing.unseal(service.settings, "webhook", bytes(found.secret_encrypted)).decode() == source["secret"]


def test_a_replayed_creation_shows_the_secrets_again_but_the_database_does_not(
    service: LiveService, admin: httpx.Client
) -> None:
    headers, body = {"Idempotency-Key": uuid4().hex}, {"name": uuid4().hex}
    first, again = (admin.post(SOURCES, json=body, headers=headers) for _ in range(2))
    assert again.content == first.content and again.headers["Idempotency-Replayed"] == "true"
    with service.engine.begin() as tx:
        query = text("select body from idempotency_keys where idempotency_key = :key")
        kept = bytes(tx.scalar(query, {"key": headers["Idempotency-Key"]}) or b"")
    assert kept and first.json()["token"].encode() not in kept and first.json()["secret"].encode() not in kept


def test_changing_and_removing(admin: httpx.Client, nobody: httpx.Client) -> None:
    source = made(admin, "generic")
    body = as_sent({"type": "visit", "email": email(), "external_id": "1"})
    path = f"{SOURCES}{source['id']}"
    new = {"name": "n", "mapping": {"type": "seen", "email": "$.email"}, "secret": "another one", "active": False}
    changed = admin.patch(path, json=new).json()
    assert (changed["name"], changed["mapping"], changed["active"]) == ("n", new["mapping"], False)
    gone = post(nobody, source, body, sign_generic(body, "another one"))
    assert (gone.status_code, gone.json()["detail"]) == (404, "Inbound source not found")
    admin.patch(path, json={"active": True, "secret": None})
    assert post(nobody, source, body, sign_generic(body)).status_code == 403
    assert taken(post(nobody, source, body, sign_generic(body, "another one"))) == (1, 0)
    assert admin.delete(path).status_code == 204
    assert post(nobody, source, body, sign_generic(body, "another one")).status_code == 404
    assert admin.get(path).json()["detail"] == "Inbound source not found"


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"name": " "}, "name"), ({"kind": "magento"}, "kind"), ({"secret": ""}, "secret"), ({"secret": " "}, "secret"),
        ({"secret": "whsec_"}, "secret"), ({"secret": "x" * 201}, "secret"), ({"mapping": []}, "mapping"),
        ({"mapping": {"email": "$.a[*]"}}, "mapping"), ({"mapping": {"contact": "$.a"}}, "mapping"),
    ],
)  # fmt: skip
def test_what_makes_no_source_is_422(admin: httpx.Client, fields: dict[str, Any], where: str) -> None:
    answer = admin.post(SOURCES, json={"name": "x", **fields})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"][:2] == ["body", where], answer.text
    assert "input" not in answer.json()["detail"][0] or where != "secret"


def test_the_last_message_is_noted_to_the_minute(
    service: LiveService, admin: httpx.Client, nobody: httpx.Client
) -> None:
    source = made(admin, "generic")

    def send() -> Any:
        body = as_sent({"type": "visit", "email": email()})
        assert taken(post(nobody, source, body, sign_generic(body))) == (1, 0)
        return admin.get(f"{SOURCES}{source['id']}").json()["last_received_at"]

    assert source["last_received_at"] is None
    first = send()
    assert abs((datetime.fromisoformat(first) - datetime.now(UTC)).total_seconds()) < 30
    assert send() == first
    values, an_hour_ago = {"id": int(source["id"])}, "set last_received_at = now() - interval '1 hour'"
    with service.engine.begin() as tx:
        tx.execute(text(f"update inbound_sources {an_hour_ago} where source_id = :id"), values)
    with service.engine.begin() as tx:  # somebody holds the row: nobody waits for it
        tx.execute(text("select from inbound_sources where source_id = :id for update"), values)
        assert send() < first
    assert send() > first


# ---- sources of one's own


def test_a_body_is_an_event_and_a_repetition_is_a_duplicate(
    admin: httpx.Client, viewer: httpx.Client, nobody: httpx.Client
) -> None:
    source, address = made(admin, "generic"), email()
    event = {
        "type": "form_submitted", "external_id": "lead-1", "email": address, "source": "mauto",
        "occurred_at": "2026-05-01T09:00:00Z", "properties": {"form": "trial", "fields": {"size": 3}},
    }  # fmt: skip
    body = as_sent(event)
    assert [taken(post(nobody, source, body, sign_generic(body))) for _ in range(2)] == [(1, 0), (0, 1)]
    (found,) = events_of(viewer, source)
    told = ("type", "external_id", "properties")
    assert [found[name] for name in told] == [event[name] for name in told]
    assert found["source"] == f"inbound:{source['id']}" and found["occurred_at"] == "2026-05-01T09:00:00Z"
    person = viewer.get(f"/api/v1/contacts/{found['contact_id']}").json()
    assert (person["email"], person["subscribed"]) == (address, False)


def test_without_a_number_the_same_body_is_the_same_event(
    admin: httpx.Client, viewer: httpx.Client, nobody: httpx.Client
) -> None:
    source = made(admin, "generic")
    body = as_sent([{"type": "visit", "email": address} for address in (email(), email())])
    assert [taken(post(nobody, source, body, sign_generic(body))) for _ in range(2)] == [(2, 0), (0, 2)]
    assert len(events_of(viewer, source)) == 2


def test_of_an_array_all_is_stored_or_nothing(
    admin: httpx.Client, viewer: httpx.Client, nobody: httpx.Client
) -> None:
    source = made(admin, "generic")
    body = as_sent([{"type": "visit", "email": email()}, {"type": "visit", "email": "nobody at all"}])
    answer = post(nobody, source, body, sign_generic(body))
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", 1, "email"]
    assert events_of(viewer, source) == []
    for wrong in ([], [{"type": "visit", "email": email()}] * 1001, 5, "x", [7], {"type": "email_sent"}, {}):
        body = as_sent(wrong)
        assert post(nobody, source, body, sign_generic(body)).status_code == 422, wrong
    unknown = as_sent({"type": "visit", "contact_id": "987654321"})
    answer = post(nobody, source, unknown, sign_generic(unknown))
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_contact")


def test_a_mapping_reads_what_somebody_else_wrote(
    admin: httpx.Client, viewer: httpx.Client, nobody: httpx.Client
) -> None:
    mapping = {
        "type": "lead_created", "external_id": "$.lead.id", "email": "$.lead['e mail']", "occurred_at": "$.ts",
        "properties": {"plan": "$.lead.plans[0]", "via": "typeform"},
    }  # fmt: skip
    source = made(admin, "generic", mapping=mapping)
    body = as_sent({"ts": 1777626000, "lead": {"id": 7, "e mail": email(), "plans": ["pro", "team"]}})
    assert [taken(post(nobody, source, body, sign_generic(body))) for _ in range(2)] == [(1, 0), (0, 1)]
    (found,) = events_of(viewer, source)
    assert (found["type"], found["external_id"]) == ("lead_created", "7")
    assert found["properties"] == {"plan": "pro", "via": "typeform"} and found["occurred_at"] == "2026-05-01T09:00:00Z"


def test_an_order_of_ones_own_told_differently_is_a_conflict(admin: httpx.Client, nobody: httpx.Client) -> None:
    source, address = made(admin, "generic"), email()

    def tell(total: str, number: str) -> httpx.Response:
        order = {"order_id": "1", "currency": "EUR", "total": total, "lines": []}
        event = {"type": "order_placed", "email": address, "external_id": number, "properties": order}
        body = as_sent({**event, "occurred_at": "2026-05-01T09:00:00Z"})
        return post(nobody, source, body, sign_generic(body))

    assert taken(tell("10.00", "a")) == (1, 0)
    assert taken(tell("10.00", "b")) == (0, 1)
    assert (tell("11.00", "c").status_code, tell("11.00", "d").json()["code"]) == (409, "order_conflict")


def test_standard_webhooks_are_told_once_by_their_id(
    admin: httpx.Client, viewer: httpx.Client, nobody: httpx.Client
) -> None:
    source = made(admin, "standard_webhooks", secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    key = __import__("base64").b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = as_sent({
        "type": "invoice.paid", "timestamp": "2026-05-01T09:00:00Z", "data": {"email": email(), "amount": 5},
    })  # fmt: skip
    for expected in ((1, 0), (0, 1)):
        assert taken(post(nobody, source, body, sign_standard(body, "msg_1", key=key))) == expected
    assert taken(post(nobody, source, body, sign_standard(body, "msg_2", key=key))) == (1, 0)
    found = events_of(viewer, source)
    assert [row["external_id"] for row in found] == ["msg_2", "msg_1"]
    assert found[0]["type"] == "invoice.paid" and found[0]["properties"]["amount"] == 5


# ---- Shopify


def test_a_shopify_order_becomes_an_order(
    admin: httpx.Client, viewer: httpx.Client, nobody: httpx.Client, shopify: dict[str, Any]
) -> None:
    number, address = next(_numbers), email()
    tell = teller(nobody, shopify)
    assert taken(tell(shopify_order(number, address), "orders/create")) == (2, 0)
    later = shopify_order(number, address, updated_at="2026-05-01T12:00:00+02:00", note="wrap it", tags="vip")
    for topic in ("orders/paid", "orders/updated"):
        assert taken(tell(later, topic)) == (0, 2)
    (order,) = orders_of(viewer, shopify)
    assert order["order_id"] == str(number) and order["placed_at"] == "2026-05-01T09:00:00Z"
    amounts = [order[name] for name in ("currency", "total", "discount", "shipping", "tax", "net_total", "status")]
    assert amounts == ["EUR", "66.80", "3.00", "9.90", "10.67", "66.80", "placed"]
    line = {"sku": "TEA-SENCHA", "name": "Sencha - 100 g", "quantity": 2, "unit_price": "29.95", "discount": "3.00"}
    assert order["lines"] == [line] and order["cart_id"] == f"cart{number}"
    found = {row["type"]: row for row in events_of(viewer, shopify)}
    assert found.keys() == {"order_placed", "order_paid"}
    assert found["order_paid"]["properties"] == {"order_id": str(number), "currency": "EUR", "total": "66.80"}
    assert viewer.get(f"/api/v1/contacts/{order['contact_id']}").json()["email"] == address


def test_a_shopify_refund_is_taken_off_once_whichever_way_it_is_told(
    viewer: httpx.Client, nobody: httpx.Client, shopify: dict[str, Any]
) -> None:
    number, address = next(_numbers), email()
    tell, refund = teller(nobody, shopify), shopify_refund(next(_numbers), number, "29.95")
    assert taken(tell(refund, "refunds/create")) == (0, 0)  # whose order it is about is not known yet
    assert taken(tell(shopify_order(number, address), "orders/create")) == (2, 0)
    assert taken(tell(refund, "refunds/create")) == (1, 0)
    refunded = shopify_order(number, address, financial_status="partially_refunded", refunds=[refund])
    assert taken(tell(refunded, "orders/updated")) == (0, 3)
    (order,) = orders_of(viewer, shopify)
    assert (order["refunded_total"], order["net_total"], order["status"]) == ("29.95", "36.85", "partially_refunded")


def test_a_shopify_refund_may_come_with_the_first_we_hear_of_an_order(
    viewer: httpx.Client, nobody: httpx.Client, shopify: dict[str, Any]
) -> None:
    number = next(_numbers)
    cancelled = {"cancelled_at": "2026-05-03T08:30:00+02:00", "cancel_reason": "customer"}
    order = shopify_order(
        number, email(), financial_status="refunded", **cancelled,
        refunds=[shopify_refund(next(_numbers), number, "66.80")],
    )  # fmt: skip
    assert taken(teller(nobody, shopify)(order, "orders/cancelled")) == (4, 0)
    (found,) = orders_of(viewer, shopify)
    assert (found["net_total"], found["status"]) == ("0.00", "refunded")
    told = next(row for row in events_of(viewer, shopify) if row["type"] == "order_cancelled")
    assert told["properties"]["reason"] == "customer" and told["occurred_at"] == "2026-05-03T06:30:00Z"


@pytest.mark.parametrize("first", ["orders/create", "orders/cancelled"])
def test_a_shopify_order_cancelled_before_it_was_paid_counts_nothing(
    viewer: httpx.Client, nobody: httpx.Client, shopify: dict[str, Any], first: str
) -> None:
    number, address, tell = next(_numbers), email(), teller(nobody, shopify)
    told = {
        "orders/create": shopify_order(number, address, financial_status="pending"),
        "orders/cancelled": shopify_order(
            number, address, financial_status="voided", cancelled_at="2026-05-02T08:00:00Z", cancel_reason="fraud"
        ),
    }
    for topic in sorted(told, key=lambda topic: topic != first):
        assert tell(told[topic], topic).status_code == 202
    (order,) = orders_of(viewer, shopify)
    assert (order["total"], order["net_total"]) == ("66.80", "0.00")


def test_what_shopify_sends_and_nobody_needs_is_taken_quietly(
    viewer: httpx.Client, nobody: httpx.Client, shopify: dict[str, Any]
) -> None:
    tell = teller(nobody, shopify)
    order = shopify_order(next(_numbers), email())
    quiet = [
        ({**order, "test": True}, "orders/create"), (order, "products/update"), (order, ""), ({}, "orders/create"),
        ({"id": 5}, "orders/create"), (shopify_order(1, "", customer=None, contact_email=None), "orders/create"),
        ({**order, "currency": "XXX?"}, "orders/create"), ({**order, "total_price": None}, "orders/updated"),
        ({"id": 1, "order_id": 2, "transactions": None}, "refunds/create"),
    ]  # fmt: skip
    for body, topic in quiet:
        assert taken(tell(body, topic)) == (0, 0), (topic, body)
    assert events_of(viewer, shopify) == []


# ---- WooCommerce


def test_a_woocommerce_order_becomes_an_order_when_woocommerce_counts_it(
    viewer: httpx.Client, nobody: httpx.Client, woo: dict[str, Any]
) -> None:
    number, address = next(_numbers), email()
    tell = teller(nobody, woo)
    pending = woo_order(number, address, status="pending", date_paid=None, date_paid_gmt=None)
    assert taken(tell(pending, "order.created")) == (0, 0)
    assert taken(tell(woo_order(number, address), "order.updated")) == (2, 0)
    assert taken(tell(woo_order(number, address, status="completed"), "order.updated")) == (0, 2)
    (order,) = orders_of(viewer, woo)
    amounts = [order[name] for name in ("currency", "total", "discount", "shipping", "tax", "net_total", "placed_at")]
    assert amounts == ["EUR", "71.70", "3.00", "4.80", "10.00", "71.70", "2026-05-01T09:00:00Z"]
    line = {"sku": "TEA-SENCHA", "name": "Sencha", "quantity": 3, "unit_price": "19.9667", "discount": "3.00"}
    assert order["lines"] == [line]
    refunds = [{"id": next(_numbers), "reason": "", "total": "-20.00"}]
    assert taken(tell(woo_order(number, address, refunds=refunds), "order.updated")) == (1, 2)
    refunds.append({"id": next(_numbers), "reason": "broken", "total": "-51.70"})
    assert taken(tell(woo_order(number, address, status="refunded", refunds=refunds), "order.updated")) == (1, 3)
    (order,) = orders_of(viewer, woo)
    assert (order["refunded_total"], order["net_total"], order["status"]) == ("71.70", "0.00", "refunded")


@pytest.mark.parametrize(("paid_at", "net"), [(None, "0.00"), ("2026-05-01T09:00:08", "71.70")])
def test_a_cancelled_woocommerce_order_counts_only_if_it_was_paid(
    viewer: httpx.Client, nobody: httpx.Client, woo: dict[str, Any], paid_at: str | None, net: str
) -> None:
    number, address, tell = next(_numbers), email(), teller(nobody, woo)
    tell(woo_order(number, address, status="on-hold", date_paid_gmt=paid_at), "order.created")
    answer = tell(woo_order(number, address, status="cancelled", date_paid_gmt=paid_at), "order.updated")
    assert answer.status_code == 202
    (order,) = orders_of(viewer, woo)
    assert order["net_total"] == net
    assert "order_cancelled" in {row["type"] for row in events_of(viewer, woo)}


def test_woocommerce_is_greeted(admin: httpx.Client, nobody: httpx.Client, woo: dict[str, Any]) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    greeted = post(nobody, woo, b"webhook_id=3", form)
    assert (greeted.status_code, greeted.json()) == (200, {"accepted": 0, "duplicates": 0})
    assert nobody.post(f"{DOOR}nothing", content=b"webhook_id=3", headers=form).status_code == 404
    assert post(nobody, made(admin, "generic"), b"webhook_id=3", form).status_code == 403
    assert post(nobody, woo, b"webhook_id=3&a=b", form).status_code == 415


def test_a_mapping_takes_the_place_of_a_preset(
    admin: httpx.Client, viewer: httpx.Client, nobody: httpx.Client
) -> None:
    mapping = {"type": "signed_up_in_shop", "external_id": "$.id", "email": "$.email", "occurred_at": "$.created_at"}
    source = made(admin, "shopify", mapping=mapping)
    body = as_sent({"id": 207119551, "email": email(), "created_at": "2026-05-01T11:00:00+02:00"})
    assert taken(post(nobody, source, body, sign_shopify(body, "customers/create"))) == (1, 0)
    assert [row["type"] for row in events_of(viewer, source)] == ["signed_up_in_shop"]


# ---- many at once


def test_one_order_told_by_many_at_once_is_one_order(
    service: LiveService, viewer: httpx.Client, shopify: dict[str, Any]
) -> None:
    number, address = next(_numbers), email()
    body = as_sent(shopify_order(number, address))
    headers = sign_shopify(body, "orders/create")

    def tell(_: int) -> tuple[int, int]:
        with service.client() as client:
            return taken(post(client, shopify, body, headers))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(tell, range(24)))
    assert sum(accepted for accepted, _ in results) == 2
    assert all(sum(pair) == 2 for pair in results)
    assert len(orders_of(viewer, shopify)) == 1 and len(events_of(viewer, shopify)) == 2
    assert json.loads(body)["id"] == number


def test_what_a_source_brings_starts_a_workflow(
    service: LiveService, admin: httpx.Client, nobody: httpx.Client, viewer: httpx.Client
) -> None:
    """From the signed post over dispatch to the first step."""
    source, other = made(admin, "generic"), made(admin, "generic")
    steps = [{"type": "condition", "field": "plan", "value": "gold"}, {"type": "delay", "hours": 1}]
    body = {"name": "leads", "trigger_type": "webhook", "trigger_config": {"source_id": source["id"]}, "active": True,
            "steps": steps}  # fmt: skip
    workflow = admin.post("/api/v1/workflows/", json=body).json()["id"]
    for door in (source, other):
        sent = json.dumps({"type": "lead_created", "email": email(), "properties": {"plan": "gold"}}).encode()
        assert taken(post(nobody, door, sent, sign_generic(sent))) == (1, 0)
        assert taken(post(nobody, door, sent, sign_generic(sent))) == (0, 1)
    now = datetime.now(UTC)
    dispatch.run(service.engine, service.settings, now=now)
    workflows.advance(service.engine, service.settings, now=now, workflow_id=int(workflow))
    [entered] = viewer.get(f"/api/v1/workflows/{workflow}/enrollments").json()
    assert (entered["status"], entered["step_path"], entered["context"]) == ("waiting", "1", {"plan": "gold"})
    [event] = events_of(viewer, source)
    assert event["contact_id"] == entered["contact_id"]


def test_a_source_an_active_workflow_needs_stays(admin: httpx.Client) -> None:
    source = made(admin, "generic")
    body = {"name": "leads", "trigger_type": "webhook", "trigger_config": {"source_id": source["id"]}, "active": True}
    workflow = admin.post("/api/v1/workflows/", json=body).json()["id"]
    refused = admin.delete(f"{SOURCES}{source['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert workflow in refused.json()["detail"]
    assert admin.patch(f"/api/v1/workflows/{workflow}/deactivate").status_code == 200
    assert admin.delete(f"{SOURCES}{source['id']}").status_code == 204
    assert admin.delete(f"{SOURCES}{source['id']}").status_code == 404
    again = admin.patch(f"/api/v1/workflows/{workflow}/activate")
    assert (again.status_code, again.json()["detail"][0]["loc"]) == (422, ["body", "trigger_config", "source_id"])
