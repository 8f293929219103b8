"""Group G, the other way round: who may tell events without signing in, and what they cannot do with it."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mautolib.errors import InvalidInput, NotAllowed
from mautolib.ingestion import check
from mautolib.webhooks import proving
from mautolib.webhooks.proving import SourceKind, check_signature
from mautolib.webhooks.shops import shopify_events, woocommerce_events
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

DOOR = "/api/v1/webhooks/inbound/"
NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
BODY = b'{"type": "visit", "email": "ana@shop.example"}'
Headers = dict[str, str]
SIGNED: dict[SourceKind, Callable[[bytes], Headers]] = {
    SourceKind.GENERIC: sign_generic,
    SourceKind.STANDARD_WEBHOOKS: lambda body: sign_standard(body, "msg_1", at=NOW),
    SourceKind.SHOPIFY: lambda body: sign_shopify(body, "orders/create"),
    SourceKind.WOOCOMMERCE: lambda body: sign_woocommerce(body, "order.created"),
}
kinds = pytest.mark.parametrize("kind", SourceKind)


def is_believed(
    kind: SourceKind, headers: Headers, body: bytes = BODY, *, secret: str = SECRET, now: datetime = NOW
) -> bool:
    try:
        check_signature(kind, secret, {name.lower(): [value] for name, value in headers.items()}, body, now=now)
    except NotAllowed as refused:
        assert refused.code == "bad_signature" and str(refused) == "The signature does not fit"
        return False
    return True


def a_source(service: LiveService, kind: str = "generic") -> dict[str, Any]:
    with service.client("admin") as admin:
        answer = admin.post("/api/v1/inbound-sources/", json={"name": uuid4().hex, "kind": kind, "secret": SECRET})
    found: dict[str, Any] = answer.json()
    return found


def stored(service: LiveService, source: dict[str, Any]) -> int:
    with service.engine.connect() as connection:
        query = text("select count(*) from events where source = :source")
        return int(connection.scalar(query, {"source": f"inbound:{source['id']}"}) or 0)


# ---- forging


@kinds
def test_only_the_secret_and_the_very_body_are_believed(kind: SourceKind) -> None:
    headers = SIGNED[kind](BODY)
    assert is_believed(kind, headers)
    assert not is_believed(kind, headers, secret=SECRET + "x")
    for other in (BODY + b" ", BODY[:-1], BODY.replace(b"ana", b"bob"), b""):
        assert not is_believed(kind, headers, other)
    name = next(one for one in headers if one.lower() == proving.HEADERS[kind])
    right = headers[name]
    for forged in ("", " ", right[:-1], right[::-1], right + "=", "sha256=", "v1,", "é", "\xff" * 64, f"v2,{right}",
                   "v1a," + right.removeprefix("v1,"), right.upper() if kind is not SourceKind.GENERIC else right[7:],
                   "A" * 100_000):  # fmt: skip
        assert not is_believed(kind, {**headers, name: forged}), forged[:80]
    assert not is_believed(kind, {key: value for key, value in headers.items() if key != name})


@kinds
def test_a_signature_of_another_kind_is_not_believed(kind: SourceKind) -> None:
    for other, sign in SIGNED.items():
        assert is_believed(kind, sign(BODY)) is (kind is other)


@kinds
def test_a_header_given_twice_proves_nothing(kind: SourceKind) -> None:
    headers = {name.lower(): [value] for name, value in SIGNED[kind](BODY).items()}
    headers[proving.HEADERS[kind]] *= 2
    with pytest.raises(NotAllowed):
        check_signature(kind, SECRET, headers, BODY, now=NOW)


def test_standard_webhooks_sign_id_and_time(service: LiveService) -> None:
    kind, headers = SourceKind.STANDARD_WEBHOOKS, sign_standard(BODY, "msg_1", at=NOW)
    for seconds, expected in ((0, True), (300, True), (-300, True), (301, False), (-301, False), (86400, False)):
        assert is_believed(kind, headers, now=NOW + timedelta(seconds=seconds)) is expected, seconds
    stamp = headers["webhook-timestamp"]
    for changed in ({"webhook-id": "msg_2"}, {"webhook-id": ""}, {"webhook-timestamp": str(int(stamp) + 1)},
                    {"webhook-timestamp": f"{stamp}.0"}, {"webhook-timestamp": f" {stamp}"}, {"webhook-timestamp": ""},
                    {"webhook-timestamp": "9" * 5000}, {"webhook-timestamp": "١٢"}, {"webhook-id": "m" * 201}):
        assert not is_believed(kind, {**headers, **changed}), changed
    both = f"v1,{base64.b64encode(b'x' * 32).decode()} {headers['webhook-signature']}"
    assert is_believed(kind, {**headers, "webhook-signature": both})
    many = " ".join(["v1,AAAA"] * 20 + [headers["webhook-signature"]])
    assert not is_believed(kind, {**headers, "webhook-signature": many})


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200), st.binary(max_size=200)
)
def test_secrets_of_any_characters_sign_bodies_of_any_bytes(secret: str, body: bytes) -> None:
    assert is_believed(SourceKind.GENERIC, sign_generic(body, secret), body, secret=secret)
    assert is_believed(SourceKind.SHOPIFY, sign_shopify(body, "x/y", secret), body, secret=secret)
    assert is_believed(SourceKind.WOOCOMMERCE, sign_woocommerce(body, "x.y", secret), body, secret=secret)
    if not secret.startswith("whsec_"):
        headers = sign_standard(body, "m", key=secret.encode(), at=NOW)
        assert is_believed(SourceKind.STANDARD_WEBHOOKS, headers, body, secret=secret)
    wrong = sign_generic(body, secret + "x")
    assert not is_believed(SourceKind.GENERIC, wrong, body, secret=secret)


def test_the_secret_of_standard_webhooks_is_decoded() -> None:
    key = bytes(range(24))
    headers = sign_standard(BODY, "m", key=key, at=NOW)
    assert is_believed(SourceKind.STANDARD_WEBHOOKS, headers, secret="whsec_" + base64.b64encode(key).decode())
    # What only looks like one is its bytes; never the empty key.
    for odd in ("whsec_!!!", "whsec_"):
        assert is_believed(
            SourceKind.STANDARD_WEBHOOKS, sign_standard(BODY, "m", key=odd.encode(), at=NOW), secret=odd
        )
        assert not is_believed(SourceKind.STANDARD_WEBHOOKS, sign_standard(BODY, "m", key=b"", at=NOW), secret=odd)


@kinds
def test_signatures_are_compared_in_constant_time(kind: SourceKind, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(wanted: bytes, given: bytes) -> bool:
        compared.append(given)
        return False

    monkeypatch.setattr("mautolib.webhooks.proving.hmac.compare_digest", compare)
    # Nothing else decides: with that answer even the right signature is refused.
    headers = SIGNED[kind](BODY)
    assert not is_believed(kind, headers) and len(compared) == 1
    name = next(one for one in headers if one.lower() == proving.HEADERS[kind])
    assert headers[name].endswith(compared[0].decode())


# ---- the door


def test_nothing_is_read_or_kept_without_a_signature(service: LiveService, nobody: httpx.Client) -> None:
    source = a_source(service)
    for body in (BODY, b"{", b"\xff", b"[" * 100_000, b"", b'{"a": 1, "a": 2}'):
        answer = nobody.post(f"{DOOR}{source['token']}", content=body, headers={"X-Signature-256": "sha256=00"})
        assert (answer.status_code, answer.json()["code"]) == (403, "bad_signature"), body[:20]
        assert answer.json()["detail"] == "The signature does not fit"
    assert stored(service, source) == 0
    with service.client("viewer") as viewer:
        assert viewer.get(f"/api/v1/inbound-sources/{source['id']}").json()["last_received_at"] is None


def test_what_was_recorded_and_sent_again_takes_effect_once(service: LiveService, nobody: httpx.Client) -> None:
    for body in (BODY, as_sent([{"type": "visit", "email": "ana@shop.example", "external_id": "1"}])):
        source = a_source(service)
        answers = [
            nobody.post(f"{DOOR}{source['token']}", content=body, headers=sign_generic(body)).json() for _ in range(5)
        ]
        assert answers == [{"accepted": 1, "duplicates": 0}] + [{"accepted": 0, "duplicates": 1}] * 4
        assert stored(service, source) == 1


def test_tokens_are_not_to_be_guessed(service: LiveService, nobody: httpx.Client) -> None:
    source = a_source(service)
    token = source["token"]
    assert len(base64.urlsafe_b64decode(token + "=")) == 32
    for guess in (token[:-1], token + "A", token.swapcase(), source["id"], "%00", "x" * 5000, "é" * 20, "%ff"):
        answer = nobody.post(f"{DOOR}{guess}", content=BODY, headers=sign_generic(BODY))
        assert answer.status_code in (404, 405, 414, 431), (guess[:20], answer.status_code)
    with service.engine.connect() as connection:
        dump = str(connection.execute(text("select * from inbound_sources")).all())
    assert token not in dump and SECRET not in dump


def test_huge_bodies_are_refused_before_they_are_read(service: LiveService) -> None:
    source, parts = a_source(service), urlsplit(service.url)
    head = (f"POST {DOOR}{source['token']} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            "Connection: close\r\n")  # fmt: skip
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {1024 * 1024 + 1}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
    with service.client() as client:
        body = b'{"a":"' + b"x" * (1024 * 1024) + b'"}'
        parts_of_it = (body[n : n + 65536] for n in range(0, len(body), 65536))
        answer = client.post(f"{DOOR}{source['token']}", content=parts_of_it, headers=sign_generic(body))
        assert answer.status_code == 413
    assert stored(service, source) == 0


@pytest.mark.parametrize(
    "body",
    [b"{", b"[1,", b"\xff\xfe", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\u0000"}', b'{"a": "\\ud800"}',
     b'{"a": 1, "a": 1}', b'{"a":' * 40 + b"1" + b"}" * 40, b"[" * 200_000, b"", b"null", b'{"type": "visit"} x'],
)  # fmt: skip
def test_signed_nonsense_is_422(service: LiveService, nobody: httpx.Client, body: bytes) -> None:
    for kind, sign in (("generic", sign_generic), ("shopify", lambda body: sign_shopify(body, "orders/create"))):
        headers = {"Content-Type": "application/json", **sign(body)}
        answer = nobody.post(f"{DOOR}{a_source(service, kind)['token']}", content=body, headers=headers)
        assert answer.status_code == 422, (kind, answer.text)


def test_a_source_speaks_for_itself_alone(service: LiveService, nobody: httpx.Client) -> None:
    source = a_source(service)
    claims = {"source": "api", "type": "visit", "email": "ana@shop.example", "external_id": uuid4().hex}
    body = as_sent(claims)
    assert nobody.post(f"{DOOR}{source['token']}", content=body, headers=sign_generic(body)).status_code == 202
    assert stored(service, source) == 1
    with service.client("editor") as editor:
        answer = editor.post("/api/v1/events/", json={**claims, "source": f"inbound:{source['id']}"})
    assert (answer.status_code, answer.json()["code"]) == (422, "reserved_source")
    reserved = as_sent({"type": "email_opened", "email": "ana@shop.example"})
    answer = nobody.post(f"{DOOR}{source['token']}", content=reserved, headers=sign_generic(reserved))
    assert (answer.status_code, answer.json()["code"]) == (422, "reserved_type")


def test_a_signature_is_no_sign_in(service: LiveService, nobody: httpx.Client) -> None:
    source = a_source(service)
    for credential in (source["token"], source["secret"]):
        for headers in ({"Authorization": f"Bearer {credential}"}, {"X-API-Key": credential}):
            assert nobody.get("/api/v1/events/", headers=headers).status_code == 401


# ---- platforms


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8,
)  # fmt: skip
_SHOPIFY = {**shopify_order(1, "a@b.example"), **shopify_refund(2, 1, "1.00")}
_WOO = woo_order(1, "a@b.example", refunds=[{"id": 3, "total": "-1.00"}], status="cancelled", date_paid_gmt=None)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.data())
@pytest.mark.thorough
def test_no_shape_of_an_order_breaks_a_preset(data: st.DataObject) -> None:
    for read, topics, whole in (
        (shopify_events, ("orders/updated", "refunds/create"), _SHOPIFY),
        (woocommerce_events, ("order.updated",), _WOO),
    ):
        body = dict(whole)
        for name in data.draw(st.lists(st.sampled_from(sorted(body)), max_size=5)):
            body[name] = data.draw(_JSON)
        if data.draw(st.booleans()):
            body["line_items"] = [data.draw(st.dictionaries(st.sampled_from(
                ["sku", "name", "quantity", "price", "subtotal", "total", "discount_allocations"]), _JSON))]
        for event in read(data.draw(st.sampled_from(topics)), json.loads(json.dumps(body))):
            try:
                check({**event, "contact_id": "1"}, now=NOW, source="inbound:1")
            except InvalidInput:
                continue
