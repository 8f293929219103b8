"""Tells somebody when a task gave up or a night is late: a log line, and a mail when `MAUTO_ALERT_EMAIL` is set.

Runs in workers (failure) and in the triggerer (deadline). It never raises: an alert must not hide the failure.
"""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Mapping
from typing import Any

from mautolib.errors import MautoError

_LOG = logging.getLogger(__name__)


def report_failure(context: Any) -> None:
    """Called by Airflow when a task has used up its tries."""
    task = context["task_instance"]
    error = context.get("exception")
    _alert(
        f"{task.dag_id}.{task.task_id} failed",
        f"Run {task.run_id}, try {task.try_number}: {type(error).__name__}: {error}\n"
        "Nothing is half done; mend the cause and clear the task, or trigger the DAG again.",
    )


async def report_missed_deadline(dag_id: str, **_: Any) -> None:
    """Called by Airflow's triggerer when a nightly DAG is not done in time."""
    import asyncio

    await asyncio.to_thread(_alert, f"{dag_id} is late", "It was not finished in time; look at its runs in Airflow.")


def report_stuck(rows: Mapping[str, int]) -> None:
    """Called by a task that found something waiting longer than it should, once when it begins."""
    lines = [f"{what}: {count}" for what, count in rows.items()]
    _alert("something is stuck", "\n".join([*lines, "Look at the runs of campaign_send and feedback_processing."]))


def report_disabled(reasons: Mapping[int, str]) -> None:
    """Called by a task that disabled endpoints of webhooks."""
    lines = [f"Webhook {endpoint_id}: {reason}." for endpoint_id, reason in reasons.items()]
    lines.append("What waits for them is kept 30 days and goes out once they are active again.")
    _alert("webhooks were disabled", "\n".join(lines))


def _alert(subject: str, text: str) -> None:
    _LOG.error("%s: %s", subject, text.replace("\n", " "))
    try:
        _mail(subject, text)
    except (OSError, MautoError, smtplib.SMTPException):
        _LOG.exception("the alert mail could not be sent")


def _mail(subject: str, text: str) -> None:
    import ssl
    from email.message import EmailMessage

    from mautolib.settings import Settings

    settings = Settings.from_env()
    if not settings.alert_email:
        return
    message = EmailMessage()
    message["Subject"], message["To"] = f"[mauto] {subject}", settings.alert_email
    message["From"] = settings.default_from_email or settings.alert_email
    message.set_content(text)
    tls = ssl.create_default_context()
    if settings.smtp_security == "tls":
        client: smtplib.SMTP = smtplib.SMTP_SSL(settings.smtp_host, settings.smtp_port, timeout=20, context=tls)
    else:
        client = smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=20)
    with client:
        if settings.smtp_security == "starttls":
            client.starttls(context=tls)
        if settings.smtp_username:
            client.login(settings.smtp_username, settings.smtp_password)
        client.send_message(message)
