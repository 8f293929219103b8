"""A test delivery: one attempt at once, so that somebody who sets an endpoint up sees what comes of it.

Promise: signed, guarded and logged as every delivery, never repeated by itself; so many failed ones in a row disable
the endpoint. The attempt happens outside of any transaction. Called by the API.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError

from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound
from mautolib.settings import Settings
from mautolib.webhooks.desk import receivers
from mautolib.webhooks.model import InHand, Outcome, Receiver, Reply, TestResult, Verdict
from mautolib.webhooks.recording import record

if TYPE_CHECKING:
    from mautolib.webhooks.connecting import Reach

_EVENT_TYPE: Final = re.compile(r"[A-Za-z0-9._:/-]{1,100}")


def send_test(
    engine: Engine, settings: Settings, endpoint_id: int, *, event_type: str, payload: Mapping[str, Any], now: datetime,
    reach: Reach | None = None,
) -> TestResult:  # fmt: skip
    """Attempt one delivery of `payload` as data of an event, also to an endpoint that is not active.

    Must not be called on a running event loop.

    Args:
        event_type: 1 to 100 letters, digits, `.`, `_`, `-`, `:` and `/`.
        payload: JSON-ready values.
        reach: whom it may reach; None: as the settings say.
    Raises:
        NotFound: no such endpoint.
        InvalidInput: an event type that cannot stand in a header.
    """
    if _EVENT_TYPE.fullmatch(event_type) is None:
        raise InvalidInput("An event type is 1 to 100 letters, digits and . _ - : /", path=("event_type",))
    # Only who tests or delivers needs the library for requests.
    from mautolib.webhooks.attempting import TOTAL_SECONDS
    from mautolib.webhooks.connecting import Reach

    begun = time.monotonic()
    message_id = f"msg_{uuid.uuid4().hex}"
    envelope = {
        "id": message_id, "event": event_type, "data": dict(payload),
        "timestamp": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }  # fmt: skip
    lease_until = now + timedelta(seconds=2 * TOTAL_SECONDS)
    with engine.begin() as tx:
        delivery, receiver = _begin(tx, settings, endpoint_id, envelope, now, lease_until)
    reply = asyncio.run(_attempt(reach or Reach.of(settings), receiver, delivery, now))
    at = now + timedelta(seconds=time.monotonic() - begun)
    verdict = Verdict.SUCCEEDED if reply.is_success else Verdict.DEAD
    with engine.begin() as tx:
        record(tx, [Outcome(delivery, verdict, at, reply)], now=at)
    return TestResult(success=reply.is_success, response_status=reply.response_status, duration_ms=reply.duration_ms)


def _begin(
    tx: Connection, settings: Settings, endpoint_id: int, envelope: Mapping[str, Any], now: datetime, until: datetime
) -> tuple[InHand, Receiver]:
    """The delivery, held, and its receiver."""
    values = {
        "endpoint_id": endpoint_id, "event_type": envelope["event"], "message_id": envelope["id"], "now": now,
        "payload": json.dumps(envelope, allow_nan=False), "attempt_id": tx.scalar(statement("webhooks.new_attempt")),
        "lease_until": until,
    }  # fmt: skip
    try:
        row = tx.execute(statement("webhooks.add_test"), values).one_or_none()
    except DataError:
        raise InvalidInput("The payload holds what the database cannot keep", path=("payload",)) from None
    if row is None:
        raise NotFound("Webhook not found")
    return InHand(*row), receivers(tx, settings, {endpoint_id}, now=now)[endpoint_id]


async def _attempt(reach: Reach, receiver: Receiver, delivery: InHand, now: datetime) -> Reply:
    from mautolib.webhooks.attempting import attempt
    from mautolib.webhooks.connecting import Gate, open_session

    gate = Gate(reach)
    async with open_session(gate) as session:
        return await attempt(session, gate, receiver, delivery, now)
