"""Notices in one form: what a notice of SES or a mail in the bounce mailbox says about which message.

Promise: unknown fields and types, nulls and odd values give a notice without effect, never an error; texts are cut and
free of control characters. Reasons decide hard or soft, also of what SES calls permanent. Pure; called by `applying`.
Source: docs.aws.amazon.com/ses, "Amazon SNS notification contents" and "Event publishing contents".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parseaddr
from enum import IntEnum
from typing import Any, Final

from mautolib.classification.bounce_mails import BounceMail, MailKind, plain
from mautolib.classification.bounces import HARD, BounceClass, Reason, bounce_class, reason_of
from mautolib.contacts.address import address_key
from mautolib.ledger.identity import MESSAGE_TAG

__all__ = ["Effect", "Notice", "Told", "from_mail", "from_ses", "of_body"]

_MOST_TEXT: Final = 500
_MOST_RECIPIENTS: Final = 100


class Effect(IntEnum):
    """What a notice does to a message; of several the greatest stays, in whatever order they come."""

    NONE = 0
    SENT = 1
    DELIVERED = 2
    BOUNCED = 3
    COMPLAINED = 4


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is said of one recipient. `key` is the address key; empty where nobody is named."""

    key: str
    bounce: BounceClass | None = None
    reason: str = ""
    diagnostic: str = ""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One notice.

    Args:
        told: by recipient; only the one who is the message's own counts.
        paths: texts that may hold a signed return path.
        is_proven: told by a provider whose signature was checked; a mail proves itself by its return path only.
    """

    kind: str
    effect: Effect = Effect.NONE
    occurred_at: datetime | None = None
    told: tuple[Told, ...] = ()
    provider_id: str = ""
    message_id: int | None = None
    paths: tuple[str, ...] = ()
    rfc_message_ids: tuple[str, ...] = ()
    is_proven: bool = False
    source: str = "ses"


#: Both spellings of what SES tells, by its name in lower case: our name, effect, the object with the details.
_KINDS: Final[Mapping[str, tuple[str, Effect, str]]] = {
    "bounce": ("bounce", Effect.BOUNCED, "bounce"), "complaint": ("complaint", Effect.COMPLAINED, "complaint"),
    "delivery": ("delivery", Effect.DELIVERED, "delivery"), "send": ("send", Effect.SENT, "send"),
    "reject": ("reject", Effect.BOUNCED, "reject"),
    "rendering failure": ("rendering_failure", Effect.BOUNCED, "failure"),
    "deliverydelay": ("delivery_delay", Effect.SENT, "deliveryDelay"), "open": ("open", Effect.SENT, "open"),
    "click": ("click", Effect.SENT, "click"), "subscription": ("subscription", Effect.NONE, "subscription"),
}  # fmt: skip
_ALWAYS_HARD: Final = frozenset({"noemail", "suppressed", "onaccountsuppressionlist"})


def of_body(source: str, body: str) -> Notice:
    """The notice in a stored row."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return Notice(kind="other", source=source)
    return from_ses(given) if source == "ses" else _from_kept(given)


def from_ses(given: Mapping[str, Any]) -> Notice:
    """What SES says, in the notificationType or the eventType form."""
    word = _text(given.get("eventType") or given.get("notificationType")).lower()
    kind, effect, name = _KINDS.get(word, ("other", Effect.NONE, ""))
    detail, mail = _dict(given.get(name)), _dict(given.get("mail"))
    told: tuple[Told, ...]
    if kind == "bounce":
        told = tuple(_bounced(one, detail) for one in _list(detail.get("bouncedRecipients")))
        if told and all(one.bounce is BounceClass.AUTO_REPLY for one in told):
            effect = Effect.SENT
    elif kind == "complaint":
        named = [_dict(one).get("emailAddress") for one in _list(detail.get("complainedRecipients"))]
        told = tuple(Told(key=_key(one)) for one in named)
        if _text(detail.get("complaintFeedbackType")).lower() == "not-spam":
            effect = Effect.DELIVERED
    else:
        own = detail.get("recipients") if kind == "delivery" else None
        refused = BounceClass.BLOCKED if effect is Effect.BOUNCED else None
        why = _text(detail.get("reason") or detail.get("errorMessage"))
        told = tuple(
            Told(key=_key(one), bounce=refused, reason=kind if refused else "", diagnostic=why)
            for one in _list(own or mail.get("destination"))
        )
    return Notice(
        kind=kind, effect=effect, occurred_at=_moment(detail.get("timestamp")) or _moment(mail.get("timestamp")),
        told=tuple(one for one in told if one.key), provider_id=_text(mail.get("messageId")), message_id=_tagged(mail),
        paths=(_text(mail.get("source")),), rfc_message_ids=_message_ids(mail), is_proven=True,
    )  # fmt: skip


def from_mail(mail: BounceMail) -> dict[str, Any]:
    """What is kept of a mail: enough to apply it, JSON-ready, without the mail itself."""
    if mail.notice is not None:
        # Anybody can write such a mail: SES proves itself over SNS only.
        return {"kind": "other", "told": []}
    effects = {
        MailKind.COMPLAINT: "complaint", MailKind.BOUNCE: "bounce", MailKind.AUTO_REPLY: "auto_reply",
    }  # fmt: skip
    return {
        "kind": effects.get(mail.kind, "other"),
        "told": [
            {"address": plain(one.address, 320), "reason": str(one.reason), "action": plain(one.action, 20),
             "status": plain(one.status, 20), "diagnostic": plain(one.diagnostic, _MOST_TEXT)}
            for one in mail.recipients[:_MOST_RECIPIENTS]
        ],
        "paths": [plain(one, 1000) for one in mail.came_to] + _return_paths(mail.returned),
        "message_ids": [plain(one, 250) for one in mail.message_ids],
    }  # fmt: skip


def _return_paths(returned: str) -> list[str]:
    lines = returned.splitlines()[:200]
    return [plain(line, 1000) for line in lines if line.lower().startswith(("return-path:", "x-envelope-from:"))][:3]


def _from_kept(given: Mapping[str, Any]) -> Notice:
    kind = _text(given.get("kind"))
    told = tuple(_of_mail(_dict(one), kind) for one in _list(given.get("told")))
    actions = {_text(_dict(one).get("action")) for one in _list(given.get("told"))}
    if kind == "complaint":
        is_complaint = any(_dict(one).get("reason") == Reason.COMPLAINT for one in _list(given.get("told")))
        effect = Effect.COMPLAINED if is_complaint else Effect.DELIVERED
    elif kind == "bounce" and any(one.bounce is BounceClass.DELIVERED for one in told):
        effect = Effect.DELIVERED
    elif kind == "bounce":
        effect = Effect.SENT if actions == {"delayed"} else Effect.BOUNCED
    else:
        # Somebody or something at the address answered.
        effect = Effect.SENT if kind == "auto_reply" else Effect.NONE
    return Notice(
        kind="delivery_delay" if actions == {"delayed"} else kind, effect=effect, told=told, source="mail",
        paths=tuple(_text(one, 1000) for one in _list(given.get("paths"))),
        rfc_message_ids=tuple(_text(one) for one in _list(given.get("message_ids"))),
    )  # fmt: skip


def _of_mail(given: Mapping[str, Any], kind: str) -> Told:
    try:
        reason = Reason(_text(given.get("reason")))
    except ValueError:
        reason = Reason.UNDEFINED
    bounce = bounce_class(reason) if kind == "bounce" else None
    return Told(
        key=_key(given.get("address")), bounce=bounce, reason=str(reason), diagnostic=_text(given.get("diagnostic"))
    )


def _bounced(given: Any, bounce: Mapping[str, Any]) -> Told:
    one = _dict(given)
    kind, subtype = _text(bounce.get("bounceType")).lower(), _text(bounce.get("bounceSubType")).lower()
    diagnostic, status = _text(one.get("diagnosticCode")), _text(one.get("status"))
    reason = reason_of(diagnostic, status) if diagnostic or status else Reason.UNDEFINED
    if kind == "transient" and subtype == "general" and not (diagnostic or status or one.get("action")):
        # An answering machine: without a report there was no refusal.
        reason, found = Reason.AUTO_REPLY, BounceClass.AUTO_REPLY
    elif kind == "permanent" and (subtype in _ALWAYS_HARD or reason is Reason.UNDEFINED):
        reason = reason if reason in HARD else Reason.USER_UNKNOWN
        found = BounceClass.HARD
    else:
        if subtype == "mailboxfull":
            reason = Reason.MAILBOX_FULL
        elif subtype in ("messagetoolarge", "contentrejected", "attachmentrejected"):
            reason = Reason.TOO_LARGE if subtype == "messagetoolarge" else Reason.POLICY
        found = bounce_class(reason)
        if (found is BounceClass.HARD and kind == "transient") or found not in _BOUNCES:
            found = BounceClass.SOFT
    return Told(key=_key(one.get("emailAddress")), bounce=found, reason=str(reason), diagnostic=diagnostic)


_BOUNCES: Final = frozenset({BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCKED})


def _tagged(mail: Mapping[str, Any]) -> int | None:
    values = _list(_dict(mail.get("tags")).get(MESSAGE_TAG))
    text = _text(values[0]) if values else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _message_ids(mail: Mapping[str, Any]) -> tuple[str, ...]:
    headers = [
        _text(_dict(one).get("value"))
        for one in _list(mail.get("headers")) if _text(_dict(one).get("name")).lower() == "message-id"
    ]  # fmt: skip
    common = _text(_dict(mail.get("commonHeaders")).get("messageId"))
    return tuple(found for one in (*headers, common) if (found := one.strip("<> ")))


def _key(value: Any) -> str:
    """The address key of what is given as an address, with or without a name."""
    text = _text(value, 1000)
    address = parseaddr(text)[1] or text
    return address_key(address) if "@" in address and len(address) <= 320 else ""


def _moment(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(_text(value))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None and 1970 < found.year < 2200 else None


def _text(value: Any, most: int = _MOST_TEXT) -> str:
    return plain(value, most) if isinstance(value, str) else ""


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    return value[:_MOST_RECIPIENTS] if isinstance(value, list) else ()


def hardest(classes: Iterable[BounceClass | None]) -> BounceClass | None:
    """The gravest of some classes of bounces."""
    order = (BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCKED)
    found = set(classes)
    return next((one for one in order if one in found), None)
