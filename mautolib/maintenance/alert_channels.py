"""Where alerts go: a mail to MAUTO_ALERT_EMAIL, a signed webhook to MAUTO_ALERT_WEBHOOK_URL, or both.

Promise: a note names findings, ids and numbers, never people or secrets; the webhook goes through the same guard as all
others and is signed the same way. Called by `alerts`; it neither repeats nor remembers.
"""

from __future__ import annotations

import json
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Final

from mautolib.errors import ProviderUnavailable
from mautolib.settings import Settings, refuse_weak
from mautolib.webhooks.guard import Fetcher
from mautolib.webhooks.signing import signature_of_body, standard_signature

MAIL: Final = "mail"
WEBHOOK: Final = "webhook"
_SECONDS: Final = 20
_WORDS: Final = {"opened": "", "resolved": "resolved: ", "told": "", "test": "test: "}


@dataclass(frozen=True, kw_only=True)
class Note:
    """One piece of news. `kind`: opened, resolved, told (nothing stays open) or test; `note_id` 0: stored nowhere."""

    kind: str
    finding: str
    summary: str
    advice: str
    created_at: datetime
    note_id: int = 0


def channels(settings: Settings) -> list[str]:
    """Those that are configured."""
    given = ((MAIL, settings.alert_email), (WEBHOOK, settings.alert_webhook_url))
    return [name for name, target in given if target]


def send(settings: Settings, channel: str, notes: Sequence[Note], *, now: datetime) -> None:
    """Hand notes over: all in one mail, or one call each.

    Raises:
        MautoError, OSError, smtplib.SMTPException: the channel did not take them.
    """
    if channel == MAIL:
        _mail(settings, notes)
        return
    for note in notes:
        _call(settings, note, now)


def _mail(settings: Settings, notes: Sequence[Note]) -> None:
    message = EmailMessage()
    more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
    message["Subject"] = f"[mauto] {_title(notes[0])}{more}"
    message["To"] = settings.alert_email
    message["From"] = settings.default_from_email or settings.alert_email
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n\n".join(
        f"{_title(note)}\n{note.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {note.finding}\n{note.advice}"
        for note in notes
    ))  # fmt: skip
    tls = ssl.create_default_context()
    if settings.smtp_security == "tls":
        client: smtplib.SMTP = smtplib.SMTP_SSL(settings.smtp_host, settings.smtp_port, timeout=_SECONDS, context=tls)
    else:
        client = smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=_SECONDS)
    with client:
        if settings.smtp_security == "starttls":
            client.starttls(context=tls)
        if settings.smtp_username:
            client.login(settings.smtp_username, settings.smtp_password)
        client.send_message(message)


def _call(settings: Settings, note: Note, now: datetime) -> None:
    refuse_weak("MAUTO_ALERT_WEBHOOK_SECRET", settings.alert_webhook_secret)
    identity = f"alert_{note.note_id or int(now.timestamp() * 1e6)}"
    body = json.dumps({
        "id": identity, "event": f"alert.{note.kind}", "timestamp": now.astimezone(UTC).isoformat(),
        # Chat systems show this key.
        "text": f"[mauto] {_title(note)} - {note.advice}",
        "data": {"finding": note.finding, "summary": note.summary, "advice": note.advice,
                 "since": note.created_at.astimezone(UTC).isoformat()},
    }).encode()  # fmt: skip
    stamp, secret = int(now.timestamp()), settings.alert_webhook_secret
    answer = Fetcher.of(settings).fetch(
        settings.alert_webhook_url, method="POST", body=body, total_seconds=_SECONDS, max_bytes=1024, headers={
            "Content-Type": "application/json", "User-Agent": "mauto-webhooks", "webhook-id": identity,
            "X-Webhook-Event": f"alert.{note.kind}", "webhook-timestamp": str(stamp),
            "X-Webhook-Signature-256": signature_of_body(secret, body),
            "webhook-signature": standard_signature([secret], identity, stamp, body),
        },
    )  # fmt: skip
    if not 200 <= answer.status < 300:
        raise ProviderUnavailable(f"the address for alerts answered {answer.status}")


def _title(note: Note) -> str:
    return _WORDS[note.kind] + note.summary
