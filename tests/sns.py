"""Messages as Amazon SNS signs them, with a key of our own, and notices as SES writes them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from sqlalchemy import text

from tests.web_server import self_signed

if TYPE_CHECKING:
    from sqlalchemy import Engine

HOST = "sns.eu-central-1.amazonaws.com"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:mail-feedback"
CERTIFICATE_URL = f"https://{HOST}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}


@cache
def key(number: int = 0) -> rsa.RSAPrivateKey:
    """A key; the same for the same number."""
    return rsa.generate_private_key(65537, 2048)


@cache
def certificate(number: int = 0) -> str:
    """The certificate of a key, as SNS would serve it."""
    return self_signed(key(number), "sns.amazonaws.com").decode()


def trust(engine: Engine, url: str = CERTIFICATE_URL) -> None:
    """Have the certificate kept, as if it had been fetched before."""
    with engine.begin() as tx:
        tx.execute(text("insert into signing_certificates (url, pem, fetched_at) values (:url, :pem, now())"
                        " on conflict (url) do update set pem = excluded.pem"),
                   {"url": url, "pem": certificate()})  # fmt: skip


def message(
    words: str, *, message_id: str = "id-1", version: str = "2", kind: str = "Notification", signed_by: int = 0,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """A signed message; `more` overrides or adds fields before signing."""
    fields: dict[str, Any] = {
        "Type": kind, "MessageId": message_id, "TopicArn": TOPIC, "Message": words,
        "Timestamp": "2026-11-22T09:00:00.000Z", "SignatureVersion": version, "SigningCertURL": CERTIFICATE_URL,
        "UnsubscribeURL": f"https://{HOST}/?Action=Unsubscribe", **more,
    }  # fmt: skip
    return signed(fields, signed_by=signed_by)


def subscription(**more: Any) -> dict[str, Any]:
    """A signed request to confirm a subscription."""
    url = f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc123"
    fields = {"SubscribeURL": url, "Token": "abc123", **more}
    return message("You have chosen to subscribe", kind="SubscriptionConfirmation", **fields)


def signed(fields: dict[str, Any], *, signed_by: int = 0) -> dict[str, Any]:
    """The fields with their signature."""
    names = [name for name in _SIGNED[fields["Type"]] if name in fields]
    content = "".join(f"{name}\n{fields[name]}\n" for name in names).encode()
    hashed = hashes.SHA1() if fields["SignatureVersion"] == "1" else hashes.SHA256()
    signature = key(signed_by).sign(content, padding.PKCS1v15(), hashed)
    return {**fields, "Signature": base64.b64encode(signature).decode()}


def ses(kind: str, provider_id: str, email: str, *, form: str = "notificationType", at: datetime | None = None,
        **detail: Any) -> str:  # fmt: skip
    """A notice of SES about one message to one address."""
    moment = (at or datetime(2026, 11, 22, 9, 5, tzinfo=UTC)).isoformat().replace("+00:00", "Z")
    recipients: dict[str, Any] = {
        "Bounce": {"bouncedRecipients": [{"emailAddress": email, "action": "failed", "status": "5.1.1",
                                          "diagnosticCode": "smtp; 550 5.1.1 user unknown"}],
                   "bounceType": "Permanent", "bounceSubType": "General", "feedbackId": "f-1"},
        "Complaint": {"complainedRecipients": [{"emailAddress": email}], "complaintFeedbackType": "abuse"},
        "Delivery": {"recipients": [email], "processingTimeMillis": 800, "smtpResponse": "250 ok"},
    }.get(kind, {})  # fmt: skip
    name = {"DeliveryDelay": "deliveryDelay", "Rendering Failure": "failure"}.get(kind, kind.lower())
    return json.dumps({
        form: kind, name: {"timestamp": moment, **recipients, **detail},
        "mail": {"messageId": provider_id, "timestamp": "2026-11-22T09:00:00.000Z", "source": "news@shop.example",
                 "destination": [email]},
    })  # fmt: skip
