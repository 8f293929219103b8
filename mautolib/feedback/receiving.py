"""Taking notices in: believed or refused, stored raw, answered at once; `processing` applies them.

Promise: one stored row per SNS message however often and in parallel it arrives; of a refused one nothing is kept but
a count. A certificate is fetched once, through the URL guard, and kept; no transaction is open while it is fetched.
Called by the route that SNS posts to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import ProviderUnavailable
from mautolib.feedback import sns
from mautolib.settings import Settings
from mautolib.webhooks.guard import Fetcher, Refusal

__all__ = ["Received", "keep_notice", "receive_sns"]

_LOG = logging.getLogger(__name__)
#: Of certificates and confirmations, by one process: somebody inventing addresses must not make us a nuisance.
MOST_FETCHES_A_MINUTE: Final = 30
_FETCHED: deque[float] = deque()
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Received:
    """What became of a message: `stored`, `duplicate`, `confirmed` or `ignored`."""

    status: str


def receive_sns(
    engine: Engine, settings: Settings, given: Mapping[str, Any], *, now: datetime, fetcher: Fetcher | None = None
) -> Received:
    """Check a message of SNS and store or confirm it.

    Args:
        given: the JSON object that was posted.
        fetcher: fetches certificates and confirmations; None: under the policy of the settings.
    Raises:
        NotAllowed: `bad_signature`: topic, certificate address or signature is not accepted.
        ProviderUnavailable: the certificate or the confirmation cannot be fetched now; SNS tries again.
    """
    fetcher = fetcher or Fetcher.of(settings)
    try:
        message = sns.read(given, topic_arns=settings.sns_topic_arns, least_version=settings.sns_signature_version)
        sns.verify(message, _certificate(engine, message.certificate_url, fetcher, now))
    except sns.Refused as refused:
        _LOG.warning("a notice was refused: %s", refused)
        with engine.begin() as tx:
            tx.execute(statement("feedback.count_refusal"), {"day": now.date(), "reason": refused.reason})
        raise
    if message.kind is sns.Kind.SUBSCRIPTION:
        _fetched(fetcher, message.subscribe_url)
        _LOG.info("subscribed to %s", message.topic_arn)
        return Received(status="confirmed")
    if message.kind is sns.Kind.UNSUBSCRIPTION:
        _LOG.warning("the subscription to %s was ended; its notices stop", message.topic_arn)
        return Received(status="ignored")
    with engine.begin() as tx:
        is_new = keep_notice(tx, "ses", message.message_id, message.text, now=now)
    return Received(status="stored" if is_new else "duplicate")


def keep_notice(tx: Connection, source: str, external_id: str, body: str, *, now: datetime) -> bool:
    """Store a notice as it came; False if it is known."""
    values = {"source": source, "external_id": external_id, "body": body, "received_at": now, "next_look_at": now}
    table = tables.provider_notices
    return bool(tx.execute(insert(table).values(**values).on_conflict_do_nothing()).rowcount)


def _certificate(engine: Engine, url: str, fetcher: Fetcher, now: datetime) -> str:
    """The certificate of a pinned address: the one kept, else fetched, checked and kept."""
    table = tables.signing_certificates
    with engine.begin() as tx:
        kept = tx.scalar(select(table.c.pem).where(table.c.url == url))
    if kept is not None:
        return str(kept)
    try:
        pem = _fetched(fetcher, url).decode("ascii")
    except UnicodeDecodeError:
        raise sns.Refused("The certificate cannot be read", "certificate") from None
    sns.check_certificate(pem, now=now)
    with engine.begin() as tx:
        tx.execute(insert(table).values(url=url, pem=pem, fetched_at=now).on_conflict_do_nothing())
    return pem


def _fetched(fetcher: Fetcher, url: str) -> bytes:
    with _LOCK:
        since = time.monotonic() - 60
        while _FETCHED and _FETCHED[0] < since:
            _FETCHED.popleft()
        if len(_FETCHED) >= MOST_FETCHES_A_MINUTE:
            raise ProviderUnavailable("Too many certificates and confirmations were fetched in a minute")
        _FETCHED.append(time.monotonic())
    try:
        answer = fetcher.fetch(url, total_seconds=10)
    except Refusal as refusal:
        raise sns.Refused(f"The address is not accepted: {refusal}", "address") from None
    if answer.status >= 500 or answer.status == 429:
        raise ProviderUnavailable(f"SNS answered {answer.status}")
    if answer.status != 200 or not answer.is_whole:
        raise sns.Refused("What was fetched is not acceptable", "fetched")
    return answer.body
