"""Messages of Amazon SNS: who really sent them.

Promise: a message passes only if its topic is on our list, its certificate comes from an address of AWS that is pinned
by pattern and belongs to the topic's region, and its signature (version 1, SHA-1, or 2, SHA-256) fits what it says.
Nothing is fetched before topic and address are accepted. Called by `receiving`; no database here.
Source: docs.aws.amazon.com/sns, "Verifying the signatures of Amazon SNS messages".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mautolib.errors import NotAllowed

__all__ = ["Kind", "SnsMessage", "check_certificate", "read", "verify"]

_ARN = re.compile(r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]{3,30}):[0-9]{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?")
_HOST = r"sns\.(?P<region>[a-z0-9-]{3,30})\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE_URL = re.compile(rf"https://{_HOST}/SimpleNotificationService-[0-9A-Za-z]{{16,64}}\.pem")
_SUBSCRIBE_URL = re.compile(rf"https://{_HOST}/\?[A-Za-z0-9%&=:._~-]{{1,2000}}")
_HASHES: Final = {"1": hashes.SHA1, "2": hashes.SHA256}
_MOST: Final = 512 * 1024


class Kind(StrEnum):
    """What SNS sends."""

    NOTIFICATION = "Notification"
    SUBSCRIPTION = "SubscriptionConfirmation"
    UNSUBSCRIPTION = "UnsubscribeConfirmation"


_SIGNED: Final[Mapping[Kind, Sequence[str]]] = {
    Kind.NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    Kind.SUBSCRIPTION: ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    Kind.UNSUBSCRIPTION: ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}


@dataclass(frozen=True, kw_only=True)
class SnsMessage:
    """A message whose topic and addresses are acceptable; only `verify` makes it believable."""

    kind: Kind
    message_id: str
    topic_arn: str
    text: str
    certificate_url: str
    subscribe_url: str
    version: str
    signature: bytes
    signed: bytes


def read(given: Mapping[str, Any], *, topic_arns: Sequence[str], least_version: int = 1) -> SnsMessage:
    """Take a message apart, as far as it may be taken at all.

    Args:
        topic_arns: the topics we listen to.
        least_version: of the signature.
    Raises:
        NotAllowed: `bad_signature`: form, topic, signature version or an address is not accepted.
    """
    fields = {name: value for name, value in given.items() if isinstance(value, str) and len(value) <= _MOST}
    topic = fields.get("TopicArn", "")
    arn = _ARN.fullmatch(topic)
    if arn is None or topic not in topic_arns:
        raise _refused("The topic is not accepted", "topic")
    try:
        kind = Kind(fields.get("Type", ""))
    except ValueError:
        raise _refused("The type of the message is not accepted", "form") from None
    names = [name for name in _SIGNED[kind] if name in fields]
    if not set(_SIGNED[kind]) - {"Subject"} <= set(names) or not 1 <= len(fields["MessageId"]) <= 200:
        raise _refused("The message is not complete", "form")
    version = fields.get("SignatureVersion", "")
    if version not in _HASHES or int(version) < least_version:
        raise _refused("The version of the signature is not accepted", "version")
    url = fields.get("SigningCertURL", "")
    found = _CERTIFICATE_URL.fullmatch(url)
    if found is None or found["region"] != arn["region"]:
        raise _refused("The certificate's address is not accepted", "certificate")
    subscribe_url = fields.get("SubscribeURL", "") if kind is Kind.SUBSCRIPTION else ""
    if subscribe_url:
        _check_subscribe_url(subscribe_url, arn["region"], fields)
    try:
        signature = base64.b64decode(fields.get("Signature", ""), validate=True)
    except (binascii.Error, ValueError):
        raise _refused("The signature is not acceptable", "signature") from None
    signed = "".join(f"{name}\n{fields[name]}\n" for name in names).encode()
    return SnsMessage(
        kind=kind, message_id=fields["MessageId"], topic_arn=topic, text=fields["Message"], certificate_url=url,
        subscribe_url=subscribe_url, version=version, signature=signature, signed=signed,
    )  # fmt: skip


def verify(message: SnsMessage, pem: str) -> None:
    """Hold the signature against a certificate that came from `message.certificate_url`.

    Raises:
        NotAllowed: `bad_signature`.
    """
    key = _key(pem)
    try:
        key.verify(message.signature, message.signed, padding.PKCS1v15(), _HASHES[message.version]())
    except InvalidSignature:
        raise _refused("The signature is not acceptable", "signature") from None


def check_certificate(pem: str, *, now: datetime) -> None:
    """Refuse what is no certificate, or one that is not valid now.

    Raises:
        NotAllowed: `bad_signature`.
    """
    certificate = _certificate(pem)
    _key(pem)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise _refused("The certificate is not valid now", "certificate")


class Refused(NotAllowed):
    """A message that is not believed; `reason` is one word, for counting."""

    code = "bad_signature"

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def _refused(message: str, reason: str) -> Refused:
    return Refused(message, reason)


def _check_subscribe_url(url: str, region: str, fields: Mapping[str, str]) -> None:
    """Only the confirmation of this very topic, at this very service."""
    found = _SUBSCRIBE_URL.fullmatch(url)
    query = parse_qs(urlsplit(url).query, max_num_fields=10) if found else {}
    wanted = {"Action": ["ConfirmSubscription"], "TopicArn": [fields["TopicArn"]], "Token": [fields["Token"]]}
    if found is None or found["region"] != region or query != wanted:
        raise _refused("The address for the confirmation is not accepted", "subscribe")


def _certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise _refused("The certificate cannot be read", "certificate") from None


def _key(pem: str) -> rsa.RSAPublicKey:
    key = _certificate(pem).public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 2048:
        raise _refused("The certificate's key is not acceptable", "certificate")
    return key
