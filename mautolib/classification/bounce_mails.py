"""Reading a mail that came back: delivery reports (RFC 3464), complaints (RFC 5965), and everything that is neither.

Promise: any bytes give an answer, never an exception: whom it is about, what was said of each, and what of the original
mail was returned. It believes nothing: who may act on it is decided by whoever finds a signed address in it. Pure;
called by feedback. Reasons are named by `bounces`.
"""

from __future__ import annotations

import email
import email.header
import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.message import Message
from enum import StrEnum
from typing import Any, Final

from mautolib.classification.bounces import HARD, Reason, is_after_data, reason_of

__all__ = ["BounceMail", "MailKind", "Told", "read"]

MAX_BYTES: Final = 1024 * 1024
MAX_TEXT: Final = 2000
_MOST_PARTS, _MOST_RECIPIENTS, _MOST_TEXT = 100, 100, 40_000


class MailKind(StrEnum):
    """What a mail in the bounce mailbox is."""

    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    AUTO_REPLY = "auto_reply"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is said of one recipient; `address` is empty where none is named. `action` as in RFC 3464."""

    address: str
    reason: Reason
    action: str = "failed"
    status: str = ""
    diagnostic: str = ""


@dataclass(frozen=True, kw_only=True)
class BounceMail:
    """What was read.

    Args:
        came_to: addresses this mail was delivered to, outermost first: where a signed return path is found.
        returned: headers of the original mail, as far as they came back.
    """

    kind: MailKind
    recipients: tuple[Told, ...] = ()
    came_to: tuple[str, ...] = ()
    returned: str = ""
    message_ids: tuple[str, ...] = ()
    feedback_type: str = ""
    notice: dict[str, Any] | None = field(default=None)


_CAME_TO: Final = (
    "Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "X-RCPT-To", "To", "Resent-To", "Cc",
)  # fmt: skip
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_MESSAGE_ID = re.compile(r"^Message-I[Dd]:\s*<([^<>\s]{3,250})>", re.MULTILINE | re.IGNORECASE)
#: Where the original mail begins in a report that is one text.
_RETURNED = re.compile(
    r"^[ >|]*(?:-{2,} ?(?:this is a copy|below this line|the (?:header|body)|original message|unsent|undelivered"
    r"|returned|message (?:header|text|follows)|forwarded|copy of|start of|your message|header|include|included)[^\n]*"
    r"|={3,}[^\n]*(?:original|returned|header)[^\n]*"
    r"|(?:the )?(?:original message|text of the message|message header|headers? of the (?:original )?message|"
    r"message text|unsent message|body of message|included is|returned message|the header of the)\b[^\n]{0,60}[:-]?"
    r"|(?:received|return-path|message-id|mime-version|dkim-signature|x-mailer): [^\n]*)\s*$",
    re.MULTILINE | re.IGNORECASE,
)
_AUTO_SUBJECT = re.compile(
    r"(?:out of (?:the )?office|auto(?:matic)?[ -]?(?:reply|response|respond|antwort)|autoreply|vacation|away from|"
    r"abwesen|absence|r[eé]ponse automatique|respuesta autom|risposta automatica|resposta autom|on (?:leave|holiday)|"
    r"^auto:)", re.IGNORECASE,
)  # fmt: skip
#: Lines and phrases whose addresses are nobody's who was written to.
_NO_RECIPIENT = re.compile(
    r"(?im)^[ >|]*(?:message-id|received|references|in-reply-to|subject|from|reply-to|sender|return-path)\s*:.*$"
    r"|(?:please contact|contact|mail from:?|e-?mail to|write to)\s{0,5}<?\S{1,100}@\S{1,255}"
)
_COMPLAINT_SUBJECT = re.compile(r"\b(?:complaint|abuse report|spam report|email feedback report|feedback loop)\b", re.I)
_DAEMON = re.compile(r"mailer-daemon|post_?master|mail ?delivery|mdaemon|bounce|mail administrator|<>|^$", re.I)
_BOUNCE_SUBJECT = re.compile(
    r"deliver|return|fail|undeliver|bounce|unzustellbar|non remis|rejected|warning|status|notification|error|problem|"
    r"unknown|nondeliver|not sent|could ?n.t|unable", re.IGNORECASE,
)  # fmt: skip


def read(raw: bytes) -> BounceMail:
    """What a mail says, at most `MAX_BYTES` of it."""
    mail = email.message_from_bytes(raw[:MAX_BYTES])
    parts = _parts(mail)
    came_to = tuple(address for name in _CAME_TO for value in mail.get_all(name, ()) for address in [_text(value)])
    returned = _returned(mail, parts)
    message_ids = tuple(dict.fromkeys(_MESSAGE_ID.findall(returned)))[:10]
    known: dict[str, Any] = {"came_to": came_to[:20], "returned": returned[:20_000], "message_ids": message_ids}
    notice = _notice(parts)
    if notice is not None:
        return BounceMail(kind=MailKind.OTHER, notice=notice, **known)
    report = _feedback_report(parts)
    if report is not None or _COMPLAINT_SUBJECT.search(_subject(mail)):
        return _complaint(report or {}, known)
    forwarded = _forwarded(parts)
    if forwarded is not None:
        parts = [*parts, *_parts(forwarded)]
    words = _words(parts)
    blocks = list(_delivery_blocks(parts)) or list(_blocks_of(words))
    if blocks:
        told = tuple(_of_block(block, words, alone=len(blocks) == 1) for block in blocks[:_MOST_RECIPIENTS])
        return BounceMail(kind=MailKind.BOUNCE, recipients=told, **known)
    if _is_auto_reply(mail):
        return BounceMail(kind=MailKind.AUTO_REPLY, recipients=_auto(mail), **known)
    is_daemon = bool(_DAEMON.search(_text(mail.get("From", "")))) or _is_empty_path(mail)
    if is_daemon or returned or _BOUNCE_SUBJECT.search(_subject(mail)):
        return BounceMail(kind=MailKind.BOUNCE, recipients=_of_words(mail, words), **known)
    return BounceMail(kind=MailKind.OTHER, **known)


def _parts(mail: Message) -> list[Message]:
    """All parts, outermost first, without going into the returned mail."""
    found: list[Message] = []
    waiting = [mail]
    while waiting and len(found) < _MOST_PARTS:
        part = waiting.pop(0)
        found.append(part)
        kind = part.get_content_type()
        content = part.get_payload()
        if isinstance(content, list) and kind not in ("message/rfc822", "message/delivery-status"):
            waiting[:0] = [one for one in content if isinstance(one, Message)]
    return found


def _forwarded(parts: Sequence[Message]) -> Message | None:
    """A report that somebody passed on as a whole."""
    if any(part.get_content_type() == "message/delivery-status" for part in parts):
        return None
    for part in parts:
        content: Any = part.get_payload()
        is_mail = part.get_content_type() == "message/rfc822" and isinstance(content, list) and content
        inner: Any = content[0] if is_mail else None
        if isinstance(inner, Message) and inner.get_content_type() == "multipart/report":
            return inner
    return None


def _decoded(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        content = part.get_payload()
        inner = content if isinstance(content, list) else ()
        text = "\n\n".join(one.as_string() for one in inner if isinstance(one, Message)) or str(content)
        payload = text.encode("utf-8", "replace")
    guess = "iso-2022-jp" if b"\x1b$B" in payload else "utf-8"
    for charset in (part.get_content_charset() or guess, guess, "latin-1"):
        try:
            return payload.decode(charset, "strict" if charset != "latin-1" else "replace")
        except (LookupError, UnicodeError):
            continue
    return payload.decode("latin-1")


def _text(value: Any) -> str:
    """A header's value as one printable line."""
    try:
        shown = str(email.header.make_header(email.header.decode_header(str(value))))
    except (LookupError, UnicodeError, ValueError, email.errors.MessageError):
        shown = str(value)
    return plain(shown, 1000)


def plain(text: str, most: int) -> str:
    """One line without control characters, cut."""
    shown = text.encode("utf-8", "replace").decode("utf-8")[: most * 4]
    return " ".join("".join(sign if sign.isprintable() else " " for sign in shown).split())[:most]


def _subject(mail: Message) -> str:
    return _text(mail.get("Subject", ""))


def _is_empty_path(mail: Message) -> bool:
    return str(mail.get("Return-Path", "x")).strip() in ("<>", "")


def _is_auto_reply(mail: Message) -> bool:
    said = str(mail.get("Auto-Submitted", "")).lower()
    if _AUTO_SUBJECT.search(_subject(mail)) or mail.get("X-Autoreply") or mail.get("X-Autorespond"):
        return True
    # Mail servers mark their reports so as well.
    return said.startswith(("auto-replied", "auto-notified")) and not _DAEMON.search(_text(mail.get("From", "")))


def _auto(mail: Message) -> tuple[Told, ...]:
    found = _ADDRESS.search(_text(mail.get("From", "")))
    return (Told(address=found[0] if found else "", reason=Reason.AUTO_REPLY, action="relayed"),)


def _returned(mail: Message, parts: Sequence[Message]) -> str:
    """The returned mail or its headers; where they are only part of a text, from there on."""
    for part in parts:
        kind = part.get_content_type()
        if kind in ("message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "message/partial"):
            return _decoded(part)
    for part in parts:
        text = _decoded(part)[:_MOST_TEXT] if part.get_content_maintype() == "text" else ""
        if found := _RETURNED.search(text):
            return text[found.start() :]
    return ""


def _words(parts: Sequence[Message]) -> str:
    """What was written for people, without the returned mail."""
    found = []
    for part in parts:
        kind = part.get_content_type()
        # A report whose boundary is wrong is one text with everything in it.
        is_broken = kind.startswith("multipart/") and isinstance(part.get_payload(), str)
        if is_broken or (kind in ("text/plain", "text/html") and part.get_content_disposition() != "attachment"):
            text = _decoded(part).replace("\r", "")[:_MOST_TEXT]
            if kind == "text/html":
                text = _without_tags(text)
            found.append(_RETURNED.split(text)[0] or text)
            if found[-1].strip():
                break
    return "\n".join(found)


def _without_tags(text: str) -> str:
    shown = re.sub(r"(?is)<(style|script).{0,5000}?</\1>|<br[^>]{0,200}>", "\n", text)
    return html.unescape(re.sub(r"<[^>]{0,500}>", " ", shown))


def _notice(parts: Sequence[Message]) -> dict[str, Any] | None:
    """A notice of SES that came by mail: JSON in the text."""
    for part in parts:
        if part.get_content_type() == "text/plain":
            text = _decoded(part).strip()
            if text.startswith("{") and "otificationType" in text:
                try:
                    given, _ = json.JSONDecoder(strict=False).raw_decode(text)
                except (ValueError, RecursionError):
                    return None
                return given if isinstance(given, dict) else None
    return None


def _feedback_report(parts: Sequence[Message]) -> dict[str, list[str]] | None:
    for part in parts:
        if part.get_content_type() == "message/feedback-report":
            fields: dict[str, list[str]] = {}
            for line in re.sub(r"\n[ \t]+", " ", _decoded(part).replace("\r", "")).splitlines():
                name, _, value = line.partition(":")
                if value:
                    fields.setdefault(name.strip().lower(), []).append(plain(value, 500))
            return fields
    return None


def _complaint(report: dict[str, list[str]], known: dict[str, Any]) -> BounceMail:
    feedback_type = (report.get("feedback-type") or ["abuse"])[0].lower()
    reason = Reason.DELIVERED if feedback_type == "not-spam" else Reason.COMPLAINT
    given = report.get("original-rcpt-to", []) + report.get("removal-recipient", [])
    found = [match[0] for value in given if (match := _ADDRESS.search(value))]
    told = tuple(Told(address=address, reason=reason, action="relayed") for address in dict.fromkeys(found)) or (
        Told(address="", reason=reason, action="relayed"),
    )
    return BounceMail(kind=MailKind.COMPLAINT, recipients=told, feedback_type=feedback_type[:50], **known)


def _delivery_blocks(parts: Sequence[Message]) -> Iterator[dict[str, str]]:
    """The per-recipient fields of all delivery reports, names in lower case."""
    for part in parts:
        if part.get_content_type() not in ("message/delivery-status", "message/x-delivery-status"):
            continue
        yield from _blocks_of(_decoded(part))


def _blocks_of(given: str) -> Iterator[dict[str, str]]:
    """Paragraphs with the fields of a recipient; also where a report lost its form on the way."""
    text = re.sub(r"\n[ \t]+", " ", given.replace("\r", ""))
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        for line in paragraph.splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip():
                fields.setdefault(name.strip(" >|\t").lower(), plain(value, MAX_TEXT))
        if {"final-recipient", "original-recipient", "x-actual-recipient"} & fields.keys():
            yield fields


def _of_block(block: dict[str, str], words: str, *, alone: bool) -> Told:
    named = [block.get(name, "") for name in ("original-recipient", "final-recipient", "x-actual-recipient")]
    found = [match[0] for value in named if (match := _ADDRESS.search(value.partition(";")[2] or value))]
    address = found[0] if found else ""
    action = (block.get("action", "failed").split() or ["failed"])[0].lower()
    status = block.get("status", "").split()[0] if block.get("status") else ""
    diagnostic = block.get("diagnostic-code", "").partition(";")[2].strip() or block.get("diagnostic-code", "")
    if action in ("delivered", "relayed", "expanded", "deliverable"):
        reason = Reason.DELIVERED
    else:
        about = plain(words if alone else _near(words, found, ()), MAX_TEXT * 5)
        reason = _explained(diagnostic, about, status)
    return Told(address=address, reason=reason, action=action, status=status, diagnostic=plain(diagnostic, MAX_TEXT))


def _explained(diagnostic: str, about: str, status: str) -> Reason:
    """The reason in the diagnostic; where that says little, in what was written about it for people."""
    reason = reason_of(diagnostic, status) if diagnostic else Reason.UNDEFINED
    if reason is Reason.USER_UNKNOWN and ".1." not in f"{status} {diagnostic}" and is_after_data(about):
        return Reason.FILTERED
    if reason in HARD and (reason_of(about) is Reason.MAILBOX_FULL or (status.startswith("4") and not diagnostic)):
        return Reason.MAILBOX_FULL
    if reason in (Reason.UNDEFINED, Reason.SYSTEM, Reason.NETWORK):
        better = reason_of(about, status)
        if better in HARD and status.startswith("4"):
            better = Reason.NETWORK
        return reason if better is Reason.UNDEFINED else better
    return reason


def _near(words: str, addresses: Sequence[str], others: Sequence[str]) -> str:
    """The lines about an address: from where it is named to where another one is."""
    lines = words.splitlines()
    own = [address.lower() for address in addresses]
    foreign = [address.lower() for address in others if address.lower() not in own]
    for number, line in enumerate(lines):
        if any(address in line.lower() for address in own):
            ends = (n for n in range(number + 1, len(lines)) if any(one in lines[n].lower() for one in foreign))
            return "\n".join(lines[number : next(ends, len(lines))])
    return ""


def _of_words(mail: Message, words: str) -> tuple[Told, ...]:
    """What a report for people says, recipient by recipient."""
    said = mail.get_all("X-Failed-Recipients", ())
    failed = [match[0] for value in said for match in _ADDRESS.finditer(_text(value))]
    own = {
        match[0].lower() for name in ("From", "To", "Return-Path", "Reply-To", "Sender")
        for value in mail.get_all(name, ()) for match in _ADDRESS.finditer(_text(value))
    }  # fmt: skip
    telling = _NO_RECIPIENT.sub("", words)
    found = failed or [match[0].strip("'") for match in _ADDRESS.finditer(telling) if match[0].lower() not in own]
    named = list(dict.fromkeys(found))[:_MOST_RECIPIENTS]
    if len(named) <= 1:
        text = plain(words, MAX_TEXT * 5)
        return (Told(address=named[0] if named else "", reason=reason_of(text), diagnostic=text[:MAX_TEXT]),)
    told = []
    for address in named:
        text = plain(_near(words, [address], named), MAX_TEXT)
        told.append(Told(address=address, reason=reason_of(text), diagnostic=text))
    return tuple(told)
