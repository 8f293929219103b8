"""Signatures and waits of webhooks: published vectors, and that both libraries' readings agree."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from mautolib.webhooks.signing import key_of, signature_of_body, standard_signature
from mautolib.webhooks.waits import MOST_ATTEMPTS, WAITS, retry_after, wait_after

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
#: Of the specification's own tests (standard-webhooks, MIT); a published secret, no credential.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_published_vector() -> None:
    body = b'{"test": 2432232314}'
    found = standard_signature((SECRET,), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_key_of_a_secret() -> None:
    assert key_of("whsec_aGVsbG8=") == key_of("whsec_aGVsbG8") == b"hello"
    assert key_of("hello") == b"hello"
    # What does not decode, or to nothing, is a secret like any other.
    assert key_of("whsec_hello!") == b"whsec_hello!"
    assert key_of("whsec_") == b"whsec_"
    assert key_of("geheim-ß🦊") == "geheim-ß🦊".encode()


@given(st.text(min_size=1, max_size=200).filter(lambda text: "\0" not in text), st.binary(max_size=300))
def test_any_secret_signs_any_body(secret: str, body: bytes) -> None:
    secret = secret.encode("utf-8", "replace").decode()
    assert signature_of_body(secret, body) == "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()
    signed = b"msg_1.1614265330." + body
    expected = base64.b64encode(hmac.new(key_of(secret), signed, "sha256").digest()).decode()
    assert standard_signature((secret,), "msg_1", 1614265330, body) == f"v1,{expected}"


@pytest.mark.parametrize(
    "data", [{}, {"a": "plain"}, {"a": "Zoë 🦊"}, {"a": "x" * 20_000}], ids=["empty", "ascii", "emoji", "20 KB"]
)
@pytest.mark.parametrize("secret", [SECRET, "x", "geheim-ß🦊", "k" * 200], ids=["whsec", "short", "utf-8", "long"])
def test_g13_the_library_of_the_standard_accepts_it(data: object, secret: str) -> None:
    body, now = json.dumps(data, ensure_ascii=False).encode(), int(datetime.now(UTC).timestamp())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now),
               "webhook-signature": standard_signature((secret,), "msg_1", now, body)}  # fmt: skip
    library = Webhook(secret if secret.startswith("whsec_") else secret.encode())
    assert library.verify(body, headers) == data
    for changed in (
        (body + b" ", headers), (body, {**headers, "webhook-id": "msg_2"}),
        (body, {**headers, "webhook-timestamp": str(now - 301)}),
        (body, {**headers, "webhook-timestamp": str(now + 301)}),
    ):  # fmt: skip
        with pytest.raises(WebhookVerificationError):
            library.verify(*changed)


def test_g15_both_secrets_sign_after_a_rotation() -> None:
    body, now = b"{}", int(datetime.now(UTC).timestamp())
    both = standard_signature((SECRET, "old"), "msg_1", now, body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": both}
    assert len(both.split(" ")) == 2
    assert Webhook(SECRET).verify(body, headers) == Webhook(b"old").verify(body, headers) == {}


@pytest.mark.parametrize(
    ("changed", "seconds"),
    [({}, 301), ({}, -301), ({"webhook-id": "whm_2"}, 0), ({"webhook-timestamp": "1"}, 0),
     ({"webhook-signature": "v1,AAAA"}, 0), ({"body": b'{"a": 2}'}, 0)],
)  # fmt: skip
def test_g14_a_receiver_refuses_what_was_changed_or_is_old(changed: dict[str, object], seconds: int) -> None:
    at, body = int(datetime.now(UTC).timestamp()) + seconds, b'{"a": 1}'
    headers = {"webhook-id": "whm_1", "webhook-timestamp": str(at),
               "webhook-signature": standard_signature((SECRET,), "whm_1", at, body)}  # fmt: skip
    if not seconds:
        Webhook(SECRET).verify(body, headers)
    headers |= {name: str(value) for name, value in changed.items() if name != "body"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(changed.get("body", body), headers)


def test_the_schedule_is_the_published_one_spread_by_a_fifth() -> None:
    hours = [1 / 60, 5 / 60, 30 / 60, 2, 5, 10, 14, 20, 24]
    assert [wait.total_seconds() / 3600 for wait in WAITS] == pytest.approx(hours)
    assert MOST_ATTEMPTS == 10
    for number, expected in enumerate(hours, start=1):
        waits = [wait_after(number, f"msg_{n}") for n in range(400)]
        shares = [wait.total_seconds() / 3600 / expected for wait in waits if wait is not None]
        assert len(shares) == 400 and min(shares) >= 0.8 and max(shares) <= 1.2
        assert min(shares) < 0.82 and max(shares) > 1.18 and abs(sum(shares) / 400 - 1) < 0.02
    assert wait_after(10, "msg_1") is None and wait_after(11, "msg_1", retry_after_seconds=60) is None
    assert wait_after(3, "msg_1") == wait_after(3, "msg_1")


def test_retry_after_is_honoured_up_to_a_day() -> None:
    assert wait_after(1, "msg_1", retry_after_seconds=600) == timedelta(seconds=600)
    assert wait_after(1, "msg_1", retry_after_seconds=10**9) == timedelta(hours=24)
    # Sooner than planned is not asked for: the schedule stays.
    assert wait_after(1, "msg_1", retry_after_seconds=1) == wait_after(1, "msg_1")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), (" 7 ", 7), ("1000000000", 86400), ("9" * 4000, 86400), ("Mon, 23 Nov 2026 12:10:00 GMT", 600),
     ("Mon, 23 Nov 2026 11:00:00 GMT", 0), ("Mon, 23 Nov 2099 12:10:00 GMT", 86400),
     ("Mon, 23 Nov 2026 14:10:00 +0200", 600), ("Mon, 23 Nov 2026 12:10:00", 600),
     (None, None), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("²", None),
     ("Mon, 99 Nov 2026 12:10:00 GMT", None), ("Mon, 23 Nov 99999999999 12:10:00 GMT", None)],
)  # fmt: skip
def test_what_a_receiver_asks_for(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOON) == seconds
