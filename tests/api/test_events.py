"""Events over HTTP: what is taken, what is refused and how, and the lists they are read by."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService

EVENTS = "/api/v1/events/"


def unique() -> str:
    return uuid4().hex


def address() -> str:
    return f"{unique()}@shop.example"


def view(**values: Any) -> dict[str, Any]:
    return {"type": "page_viewed", "email": address(), **values}


def order(**properties: Any) -> dict[str, Any]:
    told = {"order_id": unique(), "currency": "EUR", "total": "59.90", "lines": []}
    return {"type": "order_placed", "email": address(), "properties": {**told, **properties}}


def told(client: httpx.Client, given: Any) -> dict[str, Any]:
    answer = client.post(EVENTS, json=given)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def make_contact(client: httpx.Client, email: str | None = None) -> str:
    answer = client.post("/api/v1/contacts/", json={"email": email or address()})
    assert answer.status_code == 201
    return str(answer.json()["id"])


def stored(client: httpx.Client, given: Any) -> dict[str, Any]:
    event_id = told(client, given)["results"][0]["event_id"]
    found: dict[str, Any] = client.get(f"{EVENTS}{event_id}").json()
    return found


def test_an_event_is_stored_as_it_was_told(editor: httpx.Client) -> None:
    contact_id = make_contact(editor)
    body = {"type": "page_visited", "source": "shop", "external_id": unique(), "contact_id": contact_id,
            "occurred_at": "2026-05-01T09:00:00.5+02:00", "id": "1", "received_at": "1999-01-01T00:00:00Z",
            "properties": {"url": "https://shop.example/tea", "deep": {"a": [1, None, 0.5]}}}  # fmt: skip
    answer = told(editor, body)
    result = answer["results"][0]
    event_id = result.pop("event_id")
    assert answer == {"accepted": 1, "duplicates": 0, "rejected": 0, "results": [
        {"index": 0, "status": "accepted", "contact_id": contact_id, "code": None, "detail": None}]}  # fmt: skip
    event = editor.get(f"{EVENTS}{event_id}").json()
    assert event.pop("received_at").startswith("20")
    assert event == {
        "id": event_id, "type": "page_viewed", "source": "shop", "external_id": body["external_id"],
        "contact_id": contact_id, "occurred_at": "2026-05-01T07:00:00.500000Z", "properties": body["properties"],
        "campaign_id": None, "message_id": None, "order_id": None,
    }  # fmt: skip


def test_the_defaults_of_the_contract(editor: httpx.Client) -> None:
    before = datetime.now(UTC)
    event = stored(editor, {"type": "My own type", "contact_id": int(make_contact(editor))})
    assert (event["type"], event["source"], event["external_id"], event["properties"]) == (
        "My own type", "api", None, {})  # fmt: skip
    assert before <= datetime.fromisoformat(event["occurred_at"]) <= datetime.now(UTC)


def test_a_repetition_names_the_first_event(editor: httpx.Client) -> None:
    body = view(external_id=unique(), source="shop")
    first = told(editor, body)["results"][0]
    again = told(editor, {**body, "properties": {"url": "/other"}, "email": address()})
    assert (again["accepted"], again["duplicates"]) == (0, 1)
    assert again["results"][0] == {**first, "status": "duplicate"}
    batch = told(editor, [body, {**body, "source": "blog"}, view(), {**body, "source": "blog"}])
    assert [result["status"] for result in batch["results"]] == ["duplicate", "accepted", "accepted", "duplicate"]
    assert batch["results"][3]["event_id"] == batch["results"][1]["event_id"]
    assert (batch["accepted"], batch["duplicates"], batch["rejected"]) == (2, 2, 0)


def test_a_repetition_makes_no_contact(service: LiveService, editor: httpx.Client) -> None:
    body = view(external_id=unique())
    told(editor, body)
    email = address()
    told(editor, {**body, "email": email})
    told(editor, [view(external_id="e1" + email), view(external_id="e1" + email, email=email)])
    with service.engine.begin() as tx:
        assert tx.scalar(text("select count(*) from contacts where email = :email"), {"email": email}) == 0


BAD: list[tuple[dict[str, Any], list[Any], str]] = [
    ({"type": ""}, ["type"], "validation_error"),
    ({"type": None}, ["type"], "validation_error"),
    ({"type": "x" * 51}, ["type"], "validation_error"),
    ({"type": "two\nlines"}, ["type"], "validation_error"),
    ({"type": "email_opened"}, ["type"], "reserved_type"),
    ({"type": "clicked"}, ["type"], "reserved_type"),
    ({"type": "segment_entered"}, ["type"], "reserved_type"),
    ({"source": "mauto"}, ["source"], "reserved_source"),
    ({"source": "observation"}, ["source"], "reserved_source"),
    ({"source": ""}, ["source"], "validation_error"),
    ({"source": None}, ["source"], "validation_error"),
    ({"source": "s" * 51}, ["source"], "validation_error"),
    ({"external_id": ""}, ["external_id"], "validation_error"),
    ({"external_id": "e" * 201}, ["external_id"], "validation_error"),
    ({"external_id": 7}, ["external_id"], "validation_error"),
    ({"email": "no-at-sign"}, ["email"], "validation_error"),
    ({"email": None}, ["contact_id"], "validation_error"),
    ({"contact_id": "999999999999"}, ["contact_id"], "unknown_contact"),
    ({"contact_id": "abc"}, ["contact_id"], "unknown_contact"),
    ({"contact_id": -1}, ["contact_id"], "unknown_contact"),
    ({"contact_id": 0}, ["contact_id"], "unknown_contact"),
    ({"contact_id": "99999999999999999999"}, ["contact_id"], "unknown_contact"),
    ({"contact_id": True}, ["contact_id"], "validation_error"),
    ({"occurred_at": "2026-05-01T09:00:00"}, ["occurred_at"], "timezone_required"),
    ({"occurred_at": "2026-05-01"}, ["occurred_at"], "validation_error"),
    ({"occurred_at": "2026-02-30T09:00:00Z"}, ["occurred_at"], "validation_error"),
    ({"occurred_at": "2026-05-01T09:00:60Z"}, ["occurred_at"], "validation_error"),
    ({"occurred_at": "2026-05-01T09:00:00+25:00"}, ["occurred_at"], "validation_error"),
    ({"occurred_at": "1969-12-31T23:59:59Z"}, ["occurred_at"], "validation_error"),
    ({"occurred_at": "0001-01-01T00:00:00+23:00"}, ["occurred_at"], "validation_error"),
    ({"occurred_at": "2199-12-31T00:00:00Z"}, ["occurred_at"], "validation_error"),
    ({"occurred_at": "9999-12-31T23:59:59-23:00"}, ["occurred_at"], "validation_error"),
    ({"occurred_at": 1767225600}, ["occurred_at"], "validation_error"),
    ({"occurred_at": None}, ["occurred_at"], "validation_error"),
    ({"properties": None}, ["properties"], "validation_error"),
    ({"properties": []}, ["properties"], "validation_error"),
    ({"properties": {"a": "x" * 262_145}}, ["properties"], "validation_error"),
    ({"properties": {"url": 7}}, ["properties", "url"], "validation_error"),
    ({"properties": {"title": "two\nlines"}}, ["properties", "title"], "validation_error"),
    ({"properties": {"fields": []}}, ["properties", "fields"], "validation_error"),
    ({"type": "form_submitted"}, ["properties", "form"], "validation_error"),
    ({"type": "form_submitted", "properties": {"form": " "}}, ["properties", "form"], "validation_error"),
    ({"type": "cart_updated", "properties": {"currency": "EUR", "lines": []}}, ["properties", "cart_id"],
     "validation_error"),
    ({"type": "cart_updated", "properties": {"cart_id": "1", "currency": "EUR"}}, ["properties", "lines"],
     "validation_error"),
    ({"type": "checkout_started", "properties": {"cart_id": "1", "currency": "EUR"}}, ["properties", "total"],
     "validation_error"),
    ({"type": "order_refunded", "properties": {"order_id": "1", "currency": "EUR"}}, ["properties", "amount"],
     "validation_error"),
    ({"type": "order_refunded", "properties": {"order_id": "1", "currency": "EUR", "amount": "0.00"}},
     ["properties", "amount"], "validation_error"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "loc", "code"), BAD)
def test_a_bad_event_is_422_alone_and_rejected_in_an_array(
    editor: httpx.Client, values: dict[str, Any], loc: list[Any], code: str
) -> None:
    bad = {**({} if "contact_id" in values else {"email": address()}), "type": "page_viewed", **values}
    alone = editor.post(EVENTS, json=bad)
    assert (alone.status_code, alone.json()["code"]) == (422, code), alone.text
    assert [item["loc"] for item in alone.json()["detail"]] == [["body", *loc]]
    batch = told(editor, [view(), bad, view()])
    assert (batch["accepted"], batch["rejected"]) == (2, 1)
    assert [result["status"] for result in batch["results"]] == ["accepted", "rejected", "accepted"]
    wrong = batch["results"][1]
    assert (wrong["index"], wrong["event_id"], wrong["contact_id"], wrong["code"]) == (1, None, None, code)
    assert wrong["detail"] == alone.json()["detail"][0]["msg"]


def test_an_event_without_a_type_is_told_what_is_missing(editor: httpx.Client) -> None:
    batch = told(editor, [{"email": address(), "event_type": "page_viewed"}])
    assert [result["detail"] for result in batch["results"]] == ["type is missing"]


BAD_ORDERS: list[tuple[dict[str, Any], list[Any]]] = [
    ({"order_id": ""}, ["order_id"]),
    ({"order_id": 1001}, ["order_id"]),
    ({"order_id": "o" * 101}, ["order_id"]),
    ({"currency": "XXX"}, ["currency"]),
    ({"currency": "EURO"}, ["currency"]),
    ({"currency": 978}, ["currency"]),
    ({"total": "-1"}, ["total"]),
    ({"total": "1.00001"}, ["total"]),
    ({"total": 1.00001}, ["total"]),
    ({"total": "1e2"}, ["total"]),
    ({"total": "1,00"}, ["total"]),
    ({"total": "1000000000000000"}, ["total"]),
    ({"total": 1e300}, ["total"]),
    ({"total": True}, ["total"]),
    ({"total": None}, ["total"]),
    ({"tax": "x"}, ["tax"]),
    ({"shipping": {}}, ["shipping"]),
    ({"lines": None}, ["lines"]),
    ({"lines": {}}, ["lines"]),
    ({"lines": [{}] * 1001}, ["lines"]),
    ({"lines": [7]}, ["lines", 0]),
    ({"lines": [{}, {"quantity": 1.5}]}, ["lines", 1, "quantity"]),
    ({"lines": [{"quantity": -1}]}, ["lines", 0, "quantity"]),
    ({"lines": [{"quantity": 2**31}]}, ["lines", 0, "quantity"]),
    ({"lines": [{"unit_price": None}]}, ["lines", 0, "unit_price"]),
    ({"lines": [{"sku": 7}]}, ["lines", 0, "sku"]),
    ({"lines": [{"name": "n" * 2001}]}, ["lines", 0, "name"]),
]


@pytest.mark.parametrize(("properties", "loc"), BAD_ORDERS)
def test_bad_properties_of_an_order(editor: httpx.Client, properties: dict[str, Any], loc: list[Any]) -> None:
    answer = editor.post(EVENTS, json=order(**properties))
    assert answer.status_code == 422, answer.text
    assert [item["loc"] for item in answer.json()["detail"]] == [["body", "properties", *loc]]


@pytest.mark.parametrize("body", [[], [1, 2], ["x"], 7, None, "x", True])
def test_what_is_no_event(editor: httpx.Client, body: Any) -> None:
    answer = editor.post(EVENTS, json=body)
    if isinstance(body, list) and body:
        assert answer.status_code == 202 and answer.json()["rejected"] == len(body)
    else:
        assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body"]


def test_a_thousand_events_are_taken_and_no_more(editor: httpx.Client) -> None:
    contact_id = make_contact(editor)
    batch = [{"type": "webinar", "contact_id": contact_id}] * 1000
    assert told(editor, batch)["accepted"] == 1000
    assert editor.post(EVENTS, json=[*batch, batch[0]]).status_code == 422
    listed = editor.get(EVENTS, params={"contact_id": contact_id, "type": "webinar"})
    assert listed.headers["X-Total-Count"] == "1000"


def test_five_mebibytes_are_the_limit(editor: httpx.Client) -> None:
    filler = "x" * 200_000
    events = [view(properties={"filler": filler}) for _ in range(20)]
    assert told(editor, events)["accepted"] == 20
    assert editor.post(EVENTS, json=[view(properties={"filler": filler}) for _ in range(27)]).status_code == 413


@pytest.mark.parametrize("body", [
    b'{"type": "page_viewed", "email": "a\\u0000@shop.example"}', b'{"type": "x", "properties": {"a": "\\ud800"}}',
    b'{"type": "x", "properties": {"a": NaN}}', b'{"type": "x", "properties": {"a": 1e999}}',
    b'[{"type": "x"}', b'{"type": "x", "type": "y"}', b"\xff", b"",
    b'{"type": "x", "properties": ' + b'{"a":' * 40 + b"1" + b"}" * 41, b'{"type":"x","properties":{"n":' + b"9" * 400
    + b"}}",
])  # fmt: skip
def test_a_malformed_body_is_422(editor: httpx.Client, body: bytes) -> None:
    answer = editor.post(EVENTS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text


def test_unknown_addresses_become_contacts_that_are_not_subscribed(service: LiveService, editor: httpx.Client) -> None:
    email = address()
    batch = told(editor, [view(email=email), view(email=email.upper()), view(email=f" {email}")])
    ids = {result["contact_id"] for result in batch["results"]}
    assert batch["accepted"] == 3 and len(ids) == 1
    contact = editor.get(f"/api/v1/contacts/{ids.pop()}").json()
    assert (contact["email"], contact["subscribed"], contact["consent_status"]) == (email, False, "unknown")
    timeline = editor.get(f"/api/v1/contacts/{contact['id']}/events").json()
    assert sorted(event["type"] for event in timeline) == ["contact_created"] + ["page_viewed"] * 3
    with service.engine.begin() as tx:
        facts = tx.scalars(
            text("select data from outbox where event_name = 'contact.created' and data #>> '{contact,id}' = :id"),
            {"id": contact["id"]},
        ).all()
        source = tx.scalar(text("select source from contacts where contact_id = :id"), {"id": contact["id"]})
    assert [fact["contact"]["email"] for fact in facts] == [email]
    assert source == "event"


def test_one_address_in_parallel_batches_is_one_contact(service: LiveService) -> None:
    emails = [address() for _ in range(30)]
    with service.client("editor") as client, ThreadPoolExecutor(20) as pool:
        batches = [[view(email=email) for email in (emails if n % 2 else reversed(emails))] for n in range(20)]
        answers = list(pool.map(lambda batch: told(client, batch), batches))
    assert all(answer["accepted"] == 30 for answer in answers)
    with service.engine.begin() as tx:
        binds = {"emails": emails}
        made = tx.scalars(text("select contact_id from contacts where email = any(:emails)"), binds).all()
        counts = tx.execute(
            text("select event_type, count(*) from events where contact_id = any(:ids) group by 1"), {"ids": made}
        )
        assert {row.event_type: row.count for row in counts} == {"contact_created": 30, "page_viewed": 600}
    assert len(made) == 30


def test_contact_and_address_must_agree(editor: httpx.Client) -> None:
    email = address()
    contact_id = make_contact(editor, email)
    assert told(editor, view(contact_id=contact_id, email=email.upper()))["accepted"] == 1
    other = editor.post(EVENTS, json=view(contact_id=contact_id))
    assert (other.status_code, other.json()["code"]) == (422, "contact_mismatch")


def test_what_a_deleted_contact_did_stays_and_a_repetition_is_still_known(editor: httpx.Client) -> None:
    contact_id = make_contact(editor)
    body = {"type": "webinar", "contact_id": contact_id, "external_id": unique()}
    event_id = told(editor, body)["results"][0]["event_id"]
    assert editor.delete(f"/api/v1/contacts/{contact_id}").status_code == 204
    assert editor.get(f"{EVENTS}{event_id}").json()["contact_id"] == contact_id
    again = told(editor, body)["results"][0]
    assert (again["status"], again["event_id"], again["contact_id"]) == ("duplicate", event_id, contact_id)
    assert editor.get(f"/api/v1/contacts/{contact_id}/events").status_code == 404
    assert editor.get(EVENTS, params={"contact_id": contact_id}).status_code == 422


def test_an_idempotency_key_gives_the_same_answer(editor: httpx.Client) -> None:
    body = view()
    headers = {"Idempotency-Key": unique()}
    first = editor.post(EVENTS, json=body, headers=headers)
    again = editor.post(EVENTS, json=body, headers=headers)
    assert (first.status_code, again.status_code, first.content) == (202, 202, again.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert editor.post(EVENTS, json=view(), headers=headers).json()["code"] == "idempotency_mismatch"


def test_nothing_is_written_to_the_audit_log(service: LiveService, editor: httpx.Client, viewer: httpx.Client) -> None:
    count = text("select count(*) from audit_log where action = 'event.ingest' or action like '%/events/%'")
    told(editor, view())
    assert editor.post(EVENTS, json={}).status_code == 422
    assert viewer.post(EVENTS, json=view()).status_code == 403
    body = order()
    told(editor, body)
    body["properties"]["total"] = "1"
    key = {"Idempotency-Key": unique()}
    assert editor.post(EVENTS, json=body, headers=key).status_code == 409
    with service.engine.begin() as tx:
        assert tx.scalar(count) == 0


def test_nobody_and_viewers_tell_nothing(nobody: httpx.Client, viewer: httpx.Client) -> None:
    assert nobody.post(EVENTS, json=view()).status_code == 401
    assert viewer.post(EVENTS, json=view()).status_code == 403
    assert viewer.get(EVENTS).status_code == 200


def test_clocks_may_differ_by_five_minutes(editor: httpx.Client) -> None:
    def at(seconds: float) -> str:
        return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()

    assert told(editor, view(occurred_at=at(290)))["accepted"] == 1
    assert editor.post(EVENTS, json=view(occurred_at=at(310))).status_code == 422


def test_late_events_land_and_wait_to_take_effect(service: LiveService, editor: httpx.Client) -> None:
    event = stored(editor, view(occurred_at="1987-06-05T04:03:02z"))
    assert event["occurred_at"] == "1987-06-05T04:03:02Z"
    with service.engine.begin() as tx:
        query = text("select * from event_pending where :id = any(event_ids)")
        waiting = tx.execute(query, {"id": int(event["id"])}).one()
    assert waiting.bucket == int(event["contact_id"]) % 64
    assert waiting.occurred_at == datetime(1987, 6, 5, 4, 3, 2, tzinfo=UTC)


def test_events_are_filtered_and_newest_first(editor: httpx.Client, viewer: httpx.Client) -> None:
    contact_id, source = make_contact(editor), unique()
    days = ["2026-03-01", "2024-02-29", "2026-04-01", "2019-12-31"]
    batch = [{"type": "page_visited" if n % 2 else "webinar", "source": source, "contact_id": contact_id,
              "occurred_at": f"{day}T12:00:00Z"} for n, day in enumerate(days)]  # fmt: skip
    told(editor, batch)

    def found(path: str = EVENTS, **filters: str) -> list[str]:
        answer = viewer.get(path, params=filters)
        assert answer.status_code == 200, answer.text
        return [event["occurred_at"][:10] for event in answer.json()]

    assert found(source=source) == ["2026-04-01", "2026-03-01", "2024-02-29", "2019-12-31"]
    assert found(contact_id=contact_id, type="page_visited") == ["2024-02-29", "2019-12-31"]
    assert found(source=source, type="page_viewed", since="2020-01-01T00:00:00Z") == ["2024-02-29"]
    assert found(source=source, since="2024-02-29T12:00:00Z", until="2026-04-01T12:00:00Z") == [
        "2026-03-01", "2024-02-29"]  # fmt: skip
    assert found(source=source, type="never_heard_of") == []
    timeline = f"/api/v1/contacts/{contact_id}/events"
    assert found(timeline, type="webinar") == ["2026-04-01", "2026-03-01"]
    assert found(timeline, until="2020-01-01T00:00:00Z") == ["2019-12-31"]
    for bad in ({"contact_id": "999999999"}, {"contact_id": "x"}, {"campaign_id": "999999999"}, {"since": "2026-01-01"},
                {"type": "x" * 51}, {"since": "2026-01-01T00:00:00"}):  # fmt: skip
        assert viewer.get(EVENTS, params=bad).status_code == 422, bad
    for missing in ("999999999", "x"):
        answer = viewer.get(f"/api/v1/contacts/{missing}/events")
        assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")


def test_paging_neither_repeats_nor_skips(editor: httpx.Client) -> None:
    source = unique()
    contact_id = make_contact(editor)
    batch = [{"type": "webinar", "source": source, "contact_id": contact_id,
              "occurred_at": f"202{n % 5}-01-01T00:00:00Z"} for n in range(23)]  # fmt: skip
    told(editor, batch)
    whole = [event["id"] for event in editor.get(EVENTS, params={"source": source}).json()]
    page = editor.get(EVENTS, params={"source": source, "limit": 5})
    seen = [event["id"] for event in page.json()]
    while "X-Next-Cursor" in page.headers:
        assert page.headers["X-Total-Count"] == "23"
        page = editor.get(httpx.URL(page.headers["Link"].split(">")[0][1:]))
        seen += [event["id"] for event in page.json()]
    assert seen == whole and len(set(seen)) == 23
    assert [event["id"] for event in editor.get(EVENTS, params={"source": source, "skip": 20}).json()] == whole[20:]
    stolen = editor.get(EVENTS, params={"limit": 5, "cursor": "x" * 40, "source": source})
    assert stolen.json()["code"] == "invalid_cursor"


@pytest.mark.parametrize("event_id", ["999999999999", "x", "0", "-1", "99999999999999999999", "01"])
def test_an_unknown_event_is_404(viewer: httpx.Client, event_id: str) -> None:
    answer = viewer.get(f"{EVENTS}{event_id}")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Event not found")
