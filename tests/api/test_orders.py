"""Orders over HTTP: told as events, refunded, conflicting, listed."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.test_events import EVENTS, make_contact, order, told, unique
from tests.live_service import LiveService

ORDERS = "/api/v1/orders/"


def placed(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    event_id = told(client, body)["results"][0]["event_id"]
    order_id = client.get(f"{EVENTS}{event_id}").json()["order_id"]
    found: dict[str, Any] = client.get(f"{ORDERS}{order_id}").json()
    return found


def refund(of: dict[str, Any], amount: Any, **values: Any) -> dict[str, Any]:
    properties = {"order_id": of["properties"]["order_id"], "currency": "EUR", "amount": amount}
    return {"type": "order_refunded", "email": of["email"], **values,
            "properties": {**properties, **values.get("properties", {})}}  # fmt: skip


def test_an_order_is_shown_as_the_contract_says(editor: httpx.Client, viewer: httpx.Client) -> None:
    contact_id = make_contact(editor)
    body = order(total=112.5, discount="3.1", shipping="4.9000", tax=0, cart_id="c-1", note="gift", currency="usd",
                 lines=[{"sku": "TEA", "name": "Tea", "quantity": 2, "unit_price": "29.95", "discount": 0.1, "x": 1},
                        {"unit_price": "-5"}])  # fmt: skip
    del body["email"]
    found = placed(editor, {**body, "contact_id": contact_id, "source": "shop", "occurred_at": "2026-05-01T09:00:00Z"})
    assert found.pop("id").isdecimal()
    assert found == {
        "order_id": body["properties"]["order_id"], "source": "shop", "contact_id": contact_id,
        "placed_at": "2026-05-01T09:00:00Z", "currency": "USD", "total": "112.50", "discount": "3.10",
        "shipping": "4.90", "tax": "0.00", "refunded_total": "0.00", "net_total": "112.50", "status": "placed",
        "lines": [{"sku": "TEA", "name": "Tea", "quantity": 2, "unit_price": "29.95", "discount": "0.10"},
                  {"sku": "", "name": "", "quantity": 1, "unit_price": "-5.00", "discount": "0.00"}],
        "cart_id": "c-1", "net_reporting": "112.50", "reporting_currency": "USD", "fx_rate": "1",
        "fx_date": "2026-05-01",
    }  # fmt: skip
    told_of = viewer.get(EVENTS, params={"contact_id": contact_id, "type": "order_placed"}).json()[0]["properties"]
    assert (told_of["total"], told_of["note"], told_of["lines"]) == ("112.50", "gift", found["lines"])


@pytest.mark.parametrize(("written", "shown"), [
    ("0.1", "0.10"), ("1e2", "100.00"), ("999999999999999.9999", "999999999999999.9999"), ('"0.0001"', "0.0001"),
    ("123456789012345.1234", "123456789012345.1234"), ("19.990000000000000000000", "19.99"), ("0", "0.00"),
    ("-0.0", "0.00"),
])  # fmt: skip
def test_money_is_exact_however_it_is_written(editor: httpx.Client, written: str, shown: str) -> None:
    body = json.dumps(order(total="TOTAL")).replace('"TOTAL"', written)
    answer = editor.post(EVENTS, content=body, headers={"content-type": "application/json"})
    event = editor.get(f"{EVENTS}{answer.json()['results'][0]['event_id']}").json()
    assert event["properties"]["total"] == shown
    assert editor.get(f"{ORDERS}{event['order_id']}").json()["total"] == shown


def test_a_converted_amount_may_have_more_digits_than_one_taken_in(admin: httpx.Client) -> None:
    rate = {"rate_date": "2026-05-01", "base": "KWD", "quote": "USD", "rate": "3.25", "source": "test"}
    assert admin.post("/api/v1/fx-rates/", json={"rates": [rate]}).json()["upserted"] == 1
    found = placed(admin, order(total="999999999999999.9999", currency="KWD"))
    assert found["net_reporting"] == "3249999999999999.9997"


def test_money_with_a_digit_too_much_is_refused_however_it_is_written(editor: httpx.Client) -> None:
    for written in ("0.1" + "0" * 30 + "1", "1e-5", "1e-400", "4503599627370497.5e-4", "999999999999999.99999"):
        body = json.dumps(order(total="TOTAL")).replace('"TOTAL"', written)
        answer = editor.post(EVENTS, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422, written


def test_equal_content_is_a_duplicate_and_other_content_a_conflict(editor: httpx.Client) -> None:
    body = order(total="59.90", tax="1", lines=[{"sku": "A", "unit_price": 5}])
    first = told(editor, body)["results"][0]
    properties = {**body["properties"], "total": 59.9, "tax": "1.0000", "lines": [{"unit_price": "5.00", "sku": "A"}]}
    same = told(editor, {**body, "properties": properties, "external_id": unique()})
    assert same["results"][0] == {**first, "status": "duplicate"}
    for change in ({"total": "59.91"}, {"lines": []}, {"currency": "USD"}, {"shipping": "1"}, {"cart_id": "1"}):
        other = {**body, "properties": {**body["properties"], **change}, "external_id": unique()}
        alone = editor.post(EVENTS, json=other)
        assert (alone.status_code, alone.json()["code"]) == (409, "order_conflict"), change
        batch = told(editor, [other, order()])
        assert [(result["status"], result["code"]) for result in batch["results"]] == [
            ("rejected", "order_conflict"), ("accepted", None)]  # fmt: skip
        # Nothing of it is left: its number is free for another event.
        assert told(editor, {**order(), "external_id": other["external_id"]})["accepted"] == 1
    assert told(editor, {**body, "source": "other-shop"})["accepted"] == 1


def test_an_order_of_somebody_else_is_other_content(editor: httpx.Client) -> None:
    body = order()
    told(editor, body)
    other = {**body, "contact_id": make_contact(editor)}
    del other["email"]
    assert editor.post(EVENTS, json=other).status_code == 409


def test_one_order_told_twice_in_a_batch(editor: httpx.Client) -> None:
    body = order()
    other = {**body, "properties": {**body["properties"], "total": "1"}}
    batch = told(editor, [body, {**body, "external_id": unique()}, other])["results"]
    assert [result["status"] for result in batch] == ["accepted", "duplicate", "rejected"]
    assert batch[1]["event_id"] == batch[0]["event_id"]


def test_refunds_change_status_and_net(editor: httpx.Client, viewer: httpx.Client) -> None:
    body = order(total="50")
    found = placed(editor, body)

    def now() -> tuple[str, str, str]:
        shown = viewer.get(f"{ORDERS}{found['id']}").json()
        return shown["status"], shown["refunded_total"], shown["net_total"]

    first = refund(body, "20.5", properties={"refund_id": "r1"})
    result = told(editor, [first, first])["results"]
    assert [one["status"] for one in result] == ["accepted", "duplicate"]
    assert result[0]["event_id"] == result[1]["event_id"]
    assert told(editor, first)["results"][0] == {**result[0], "status": "duplicate"}
    assert now() == ("partially_refunded", "20.50", "29.50")
    unnumbered = refund(body, "29.5", external_id=unique())
    told(editor, unnumbered)
    assert told(editor, unnumbered)["duplicates"] == 1
    assert now() == ("refunded", "50.00", "0.00")
    event = viewer.get(f"{EVENTS}{result[0]['event_id']}").json()
    assert (event["order_id"], event["properties"]["amount"]) == (found["id"], "20.50")


def test_a_refund_may_come_before_its_order(editor: httpx.Client) -> None:
    body = order(total="50")
    early = told(editor, refund(body, "10"))["results"][0]["event_id"]
    assert editor.get(f"{EVENTS}{early}").json()["order_id"] is None
    found = placed(editor, body)
    assert (found["status"], found["net_total"]) == ("partially_refunded", "40.00")
    assert editor.get(f"{EVENTS}{early}").json()["order_id"] == found["id"]
    both = order(total="50")
    batch = told(editor, [refund(both, "50"), both])
    order_id = editor.get(f"{EVENTS}{batch['results'][1]['event_id']}").json()["order_id"]
    assert editor.get(f"{ORDERS}{order_id}").json()["status"] == "refunded"


def test_a_refund_in_another_currency_is_refused(editor: httpx.Client) -> None:
    body = order()
    told(editor, body)
    wrong = refund(body, "1", properties={"currency": "USD"})
    answer = editor.post(EVENTS, json=wrong)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "properties", "currency"])
    both = order()
    batch = told(editor, [refund(both, "1", properties={"currency": "USD"}), both])
    assert [result["status"] for result in batch["results"]] == ["rejected", "accepted"]


def test_orders_are_filtered_and_newest_first(editor: httpx.Client, viewer: httpx.Client) -> None:
    contact_id = make_contact(editor)
    given = [("EUR", "2026-03-01", 0), ("USD", "2024-01-01", 5), ("EUR", "2026-04-01", 10), ("EUR", "2019-12-31", 12)]
    batch = []
    for currency, day, back in given:
        body = {**order(currency=currency, total="10"), "contact_id": contact_id, "occurred_at": f"{day}T12:00:00Z"}
        del body["email"]
        batch.append(body)
        if back:
            told_back = refund({**body, "email": None}, back, contact_id=contact_id, properties={"currency": currency})
            batch.append(told_back)
    assert told(editor, batch)["accepted"] == 7

    def found(**filters: str) -> list[str]:
        answer = viewer.get(ORDERS, params={"contact_id": contact_id, **filters})
        assert answer.status_code == 200, answer.text
        return [one["placed_at"][:4] for one in answer.json()]

    assert found() == ["2026", "2026", "2024", "2019"]
    assert found(status="placed") == ["2026"]
    assert found(status="partially_refunded") == ["2024"]
    assert found(status="refunded") == ["2026", "2019"]
    assert found(currency="eur", until="2026-04-01T12:00:00Z") == ["2026", "2019"]
    assert found(since="2024-01-01T12:00:00Z", status="refunded") == ["2026"]
    for bad in ({"currency": "XXX"}, {"status": "paid"}, {"contact_id": "999999999"}, {"since": "2026-01-01"}):
        assert viewer.get(ORDERS, params=bad).status_code == 422, bad


def test_paging_neither_repeats_nor_skips(editor: httpx.Client) -> None:
    contact_id = make_contact(editor)
    batch = [{**order(), "contact_id": contact_id, "occurred_at": f"202{n % 3}-01-01T00:00:00Z"} for n in range(7)]
    for body in batch:
        del body["email"]
    told(editor, batch)
    whole = [one["id"] for one in editor.get(ORDERS, params={"contact_id": contact_id}).json()]
    page = editor.get(ORDERS, params={"contact_id": contact_id, "limit": 2})
    seen = [one["id"] for one in page.json()]
    while "X-Next-Cursor" in page.headers:
        page = editor.get(httpx.URL(page.headers["Link"].split(">")[0][1:]))
        seen += [one["id"] for one in page.json()]
    assert seen == whole and len(set(seen)) == 7 and page.headers["X-Total-Count"] == "7"


@pytest.mark.parametrize("order_id", ["999999999999", "x", "0", "-1", "99999999999999999999"])
def test_an_unknown_order_is_404(viewer: httpx.Client, order_id: str) -> None:
    answer = viewer.get(f"{ORDERS}{order_id}")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Order not found")


def test_nobody_reads_no_orders(service: LiveService, nobody: httpx.Client) -> None:
    assert (nobody.get(ORDERS).status_code, nobody.get(f"{ORDERS}1").status_code) == (401, 401)
