"""A test delivery: one attempt at once, so that somebody who sets an endpoint up sees what comes of it.

Promise: signed, guarded and logged as every delivery, never repeated by itself; so many failed ones in a row disable
the endpoint. The attempt happens outside of any transaction. Called by the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from mautolib.settings import Settings
from mautolib.webhooks.model import TestResult


def send_test(
    engine: Engine, settings: Settings, endpoint_id: int, *, event_type: str, payload: Mapping[str, Any], now: datetime
) -> TestResult:
    """Attempt one delivery of `payload` as data of an event, also to an endpoint that is not active.

    Must not be called on a running event loop.

    Args:
        event_type: 1 to 100 letters, digits, `.`, `_`, `-`, `:` and `/`.
        payload: JSON-ready values.
    Raises:
        NotFound: no such endpoint.
        InvalidInput: an event type that cannot stand in a header.
    """
    raise NotImplementedError
