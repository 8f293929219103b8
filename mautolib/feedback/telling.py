"""What follows from feedback: events and webhook facts, told once, and addresses that must not be mailed any more.

Promise: an event per message and kind of news, whoever tells it again; a hard bounce and a complaint suppress at once,
transient bounces after five in a row without a delivery; who refuses us or our mail says nothing about the address.
Called by `applying` in its transaction; `contacts.consent` writes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row

from mautolib.contacts import consent
from mautolib.contacts.address import address_key, parse
from mautolib.contacts.model import SuppressionReason
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.events import chains
from mautolib.events.append import NewEvent, append
from mautolib.events.types import EventType
from mautolib.ledger.model import Kind
from mautolib.outbox import Fact, FactName, record_many
from mautolib.settings import Settings

__all__ = ["MOST_SOFT", "Harm", "suppress", "tell"]

_LOG = logging.getLogger(__name__)
#: So many transient bounces in a row are a dead address.
MOST_SOFT: Final = 5
_SILENT: Final = frozenset({Kind.TEST, Kind.INTERNAL})
_NEWS: Final = (
    ("delivered", EventType.EMAIL_DELIVERED), ("bounced", EventType.EMAIL_BOUNCED),
    ("complained", EventType.EMAIL_COMPLAINED),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What a message's feedback says against its address, as far as it is proven."""

    contact_id: int
    message_id: int
    campaign_id: int | None
    address: str
    source: str
    notes: str
    is_complaint: bool
    is_hard: bool
    is_soft: bool


def tell(
    tx: Connection, changed: Sequence[Row[Any]], words: Mapping[int, Mapping[str, str]], *, now: datetime
) -> None:
    """Append the events and facts of what became known just now.

    Args:
        words: properties for the events of bounces, by message.
    """
    told = [row for row in changed if row.kind not in _SILENT]
    for depth in sorted({row.depth for row in told}):
        events = [
            _event(row, news, event_type, words.get(row.message_id, {}))
            for row in told if row.contact_id and row.depth == depth
            for news, event_type in _NEWS if getattr(row, f"is_{news}")
        ]  # fmt: skip
        with chains.caused(tx, depth):
            append(tx, events, now=now)
    record_many(tx, [_fact(row, words.get(row.message_id, {})) for row in told if row.is_bounced])


def _event(row: Row[Any], news: str, event_type: EventType, words: Mapping[str, str]) -> NewEvent:
    properties = {"kind": row.kind}
    if row.workflow_id is not None:
        properties["workflow_id"] = str(row.workflow_id)
    if news == "bounced":
        properties |= words
    return NewEvent(
        event_type=event_type, occurred_at=getattr(row, f"{news}_at"), contact_id=row.contact_id,
        campaign_id=row.campaign_id, message_id=row.message_id, properties=properties,
        external_id=f"{event_type}:{row.message_id}",
    )  # fmt: skip


def _fact(row: Row[Any], words: Mapping[str, str]) -> Fact:
    data = {
        "message_id": str(row.message_id), "campaign_id": str(row.campaign_id) if row.campaign_id else None,
        "contact_id": str(row.contact_id) if row.contact_id else None, "email": row.email or row.to_email,
        "reason": words.get("reason", ""),
    }  # fmt: skip
    return Fact(name=FactName.EMAIL_BOUNCED, data=data, occurred_at=row.bounced_at)


def suppress(tx: Connection, settings: Settings, harms: Sequence[Harm], *, now: datetime) -> int:
    """Suppress the addresses that must not be mailed any more; returns how many addresses."""
    known = [harm for harm in harms if harm.address and _is_address(harm.address)]
    bounced = [(harm, harm.notes) for harm in known if harm.is_hard]
    bounced += [(harm, f"{MOST_SOFT} transient bounces in a row") for harm in _worn_out(tx, known)]
    reasons = {SuppressionReason.BOUNCE: bounced}
    reasons[SuppressionReason.COMPLAINT] = [(harm, harm.notes) for harm in known if harm.is_complaint]
    for reason, found in reasons.items():
        # In order of the address: two batches that meet lock the same people in the same order.
        for harm, notes in sorted(found, key=lambda one: address_key(one[0].address)):
            consent.suppress(
                tx, harm.address, reason, source="ses" if harm.source == "ses" else "bounce mailbox", notes=notes[:500],
                actor="system", now=now, campaign_id=harm.campaign_id, message_id=harm.message_id, settings=settings,
            )  # fmt: skip
    return sum(map(len, reasons.values()))


def _worn_out(tx: Connection, harms: Sequence[Harm]) -> list[Harm]:
    soft = [harm for harm in harms if harm.is_soft]
    if not soft:
        return []
    parameters = {
        "contact_ids": sorted({harm.contact_id for harm in soft if harm.contact_id}),
        "to_keys": sorted({address_key(harm.address) for harm in soft if not harm.contact_id}),
        "most": MOST_SOFT,
    }
    found = {(row.contact_id, row.to_key) for row in tx.execute(statement("feedback.soft_rows"), parameters)}
    worn: dict[tuple[int, str | None], Harm] = {}
    for harm in soft:
        key = (harm.contact_id, None if harm.contact_id else address_key(harm.address))
        if key in found:
            worn.setdefault(key, harm)
    return list(worn.values())


def _is_address(address: str) -> bool:
    try:
        parse(address)
    except InvalidInput:
        return False
    return True
