"""The vocabulary of events: what each type needs, who may write it, and whether it is engagement.

Custom types are open: any name of 1 to 50 characters that is not listed here is accepted with any properties.
`SERVICE_ONLY` is mirrored by a CHECK on `events` (a test proves both equal). Called by everything that writes or
counts events; it decides nothing about points.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

#: `source` of the events the service writes itself.
SERVICE = "mauto"
#: `source` of a service type reported by a caller: counts in scores and segments, never in campaign figures.
OBSERVATION = "observation"


class EventType(StrEnum):
    """Every type with a meaning of its own."""

    EMAIL_SENT = "email_sent"
    EMAIL_DELIVERED = "email_delivered"
    EMAIL_OPENED = "email_opened"
    EMAIL_CLICKED = "email_clicked"
    EMAIL_BOUNCED = "email_bounced"
    EMAIL_COMPLAINED = "email_complained"
    UNSUBSCRIBED = "unsubscribed"
    CONTACT_CREATED = "contact_created"
    CONTACT_UPDATED = "contact_updated"
    TAG_ADDED = "tag_added"
    TAG_REMOVED = "tag_removed"
    SEGMENT_ENTERED = "segment_entered"
    SCORE_CHANGED = "score_changed"
    CAMPAIGN_SENT = "campaign_sent"
    MILESTONE_REACHED = "milestone_reached"
    FORM_SUBMITTED = "form_submitted"
    CART_UPDATED = "cart_updated"
    CHECKOUT_STARTED = "checkout_started"
    ORDER_PLACED = "order_placed"
    ORDER_REFUNDED = "order_refunded"
    PAGE_VIEWED = "page_viewed"


#: Properties a type cannot do without. Types that are missing here need none.
REQUIRED_PROPERTIES: Mapping[EventType, tuple[str, ...]] = {
    EventType.FORM_SUBMITTED: ("form",),
    EventType.CART_UPDATED: ("cart_id", "currency", "lines"),
    EventType.CHECKOUT_STARTED: ("cart_id", "currency", "total"),
    EventType.ORDER_PLACED: ("order_id", "currency", "total", "lines"),
    EventType.ORDER_REFUNDED: ("order_id", "currency", "amount"),
}

#: What a shop or site may report; the rest of the named types is written by the service only.
SHOP_TYPES: frozenset[EventType] = frozenset({*REQUIRED_PROPERTIES, EventType.PAGE_VIEWED})
SERVICE_ONLY: frozenset[EventType] = frozenset(EventType) - SHOP_TYPES

#: Other names under which the same thing arrives.
SYNONYMS: Mapping[str, EventType] = {
    "page_visited": EventType.PAGE_VIEWED,
    "opened": EventType.EMAIL_OPENED,
    "clicked": EventType.EMAIL_CLICKED,
    "bounced": EventType.EMAIL_BOUNCED,
}

#: Types that are not the contact's own doing, or not a friendly one. Every other type, custom ones included, is
#: positive engagement and moves `last_activity_at`.
NOT_ENGAGEMENT: frozenset[EventType] = (SERVICE_ONLY - {EventType.EMAIL_OPENED, EventType.EMAIL_CLICKED}) | {
    EventType.ORDER_REFUNDED
}


def canonical(event_type: str) -> str:
    """The name under which a type is stored: synonyms resolved, everything else unchanged."""
    return SYNONYMS.get(event_type, event_type)


def is_positive_engagement(event_type: str) -> bool:
    """Whether an event of this type is something the contact did on their own account."""
    return canonical(event_type) not in NOT_ENGAGEMENT


def is_service_only(event_type: str) -> bool:
    """Whether only the service may write this type (a caller may merely observe it)."""
    return canonical(event_type) in SERVICE_ONLY
