"""The vocabulary of bounces: why a mail came back, and what follows from each reason.

Promise: a full mailbox, a block of the sender or of the mail never counts as hard. Pure data; used by whoever reads
or applies bounces.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["ABOUT_SENDER", "HARD", "BounceClass", "Reason", "bounce_class"]


class Reason(StrEnum):
    """What happened to a mail."""

    USER_UNKNOWN = "user_unknown"
    HOST_UNKNOWN = "host_unknown"
    NOT_ACCEPTING = "not_accepting"
    MOVED = "moved"
    MAILBOX_FULL = "mailbox_full"
    SUSPENDED = "suspended"
    FILTERED = "filtered"
    TOO_LARGE = "too_large"
    EXPIRED = "expired"
    NETWORK = "network"
    BUSY = "busy"
    SYSTEM = "system"
    BLOCKED = "blocked"
    SPAM = "spam"
    POLICY = "policy"
    AUTHENTICATION = "authentication"
    VIRUS = "virus"
    RELAYING = "relaying"
    SENDER_REFUSED = "sender_refused"
    UNDEFINED = "undefined"
    DELIVERED = "delivered"
    COMPLAINT = "complaint"
    AUTO_REPLY = "auto_reply"


class BounceClass(StrEnum):
    """What follows from a reason."""

    #: Nobody will ever read mail at this address.
    HARD = "hard"
    #: It may work again.
    SOFT = "soft"
    #: The mail or we are not wanted; says nothing about the address.
    BLOCKED = "blocked"
    COMPLAINT = "complaint"
    DELIVERED = "delivered"
    AUTO_REPLY = "auto_reply"


HARD: Final = frozenset({Reason.USER_UNKNOWN, Reason.HOST_UNKNOWN, Reason.NOT_ACCEPTING, Reason.MOVED})
ABOUT_SENDER: Final = frozenset({
    Reason.BLOCKED, Reason.SPAM, Reason.POLICY, Reason.AUTHENTICATION, Reason.VIRUS, Reason.RELAYING,
    Reason.SENDER_REFUSED, Reason.TOO_LARGE, Reason.BUSY,
})  # fmt: skip


def bounce_class(reason: Reason) -> BounceClass:
    """What follows from a reason."""
    if reason in HARD:
        return BounceClass.HARD
    if reason in ABOUT_SENDER:
        return BounceClass.BLOCKED
    return {
        Reason.COMPLAINT: BounceClass.COMPLAINT, Reason.DELIVERED: BounceClass.DELIVERED,
        Reason.AUTO_REPLY: BounceClass.AUTO_REPLY,
    }.get(reason, BounceClass.SOFT)  # fmt: skip
