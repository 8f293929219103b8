"""Consent that is given, as an event `contact_updated` for which workflows and rules can wait.

Pure; `consent`, `many` and `store` append what is made here in the transaction of the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mautolib.events.append import NewEvent
from mautolib.events.types import EventType


def consent_told(columns: Mapping[str, Any]) -> dict[str, Any]:
    """What the properties of the event tell of the consent in `columns` of a contact."""
    return {"consent_status": str(columns["consent_status"]), "consent_source": columns["consent_source"]}


def granted(contact_id: int, before: Mapping[str, Any], after: Mapping[str, Any], now: datetime) -> NewEvent:
    """The event of who is subscribed now; `before` and `after` are the columns of consent."""
    changed = sorted(name for name in after if after[name] != before[name])
    return NewEvent(
        event_type=EventType.CONTACT_UPDATED, contact_id=contact_id, occurred_at=now,
        properties={"changed": changed, **consent_told(after)},
    )  # fmt: skip
