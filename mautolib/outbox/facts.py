"""The vocabulary of webhook events and the one way to record them.

`FactName` is mirrored by a CHECK on table outbox; a test proves both equal. Callers are the verbs that change
something: contacts, campaigns, dispatch, workflows. Delivery, payload envelope and signing are not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert

from mautolib.db import tables


class FactName(StrEnum):
    """Every event a webhook can subscribe to."""

    CONTACT_CREATED = "contact.created"
    CONTACT_UPDATED = "contact.updated"
    CONTACT_DELETED = "contact.deleted"
    CONTACT_SUBSCRIBED = "contact.subscribed"
    CONTACT_UNSUBSCRIBED = "contact.unsubscribed"
    CAMPAIGN_CREATED = "campaign.created"
    CAMPAIGN_SENT = "campaign.sent"
    CAMPAIGN_COMPLETED = "campaign.completed"
    EMAIL_SENT = "email.sent"
    EMAIL_OPENED = "email.opened"
    EMAIL_CLICKED = "email.clicked"
    EMAIL_BOUNCED = "email.bounced"
    EMAIL_UNSUBSCRIBED = "email.unsubscribed"
    WORKFLOW_TRIGGERED = "workflow.triggered"
    WORKFLOW_COMPLETED = "workflow.completed"
    WORKFLOW_FAILED = "workflow.failed"
    AB_TEST_STARTED = "ab_test.started"
    AB_TEST_COMPLETED = "ab_test.completed"
    AB_TEST_WINNER_SELECTED = "ab_test.winner_selected"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that happened and may be told to the outside: name, moment, JSON-ready data."""

    name: FactName
    data: Mapping[str, Any]
    occurred_at: datetime


def record(tx: Connection, event_name: FactName | str, data: Mapping[str, Any], *, occurred_at: datetime) -> None:
    """Record one fact in the caller's transaction.

    Args:
        data: JSON-ready values; ids as text, as the API shows them.
    Raises:
        ValueError: `event_name` is not in `FactName`.
    """
    record_many(tx, [Fact(name=FactName(event_name), data=data, occurred_at=occurred_at)])


def record_many(tx: Connection, facts: Iterable[Fact]) -> int:
    """Record facts in the caller's transaction, in a few statements; returns how many."""
    rows = [{"event_name": str(fact.name), "occurred_at": fact.occurred_at, "data": dict(fact.data)} for fact in facts]
    if rows:
        tx.execute(insert(tables.outbox), rows)
    return len(rows)
