"""The nouns of the ledger: kinds, states, what an attempt may end in, and what travels to and from a channel.

Promise: `Kind` and `Status` are exactly what the database allows, `TRANSITIONS` is the whole diagram. Pure data, no
database. Used by everybody who queues, hands over or reads messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple


class Kind(StrEnum):
    """What a message is for; decides who may be written to and whether a doubt may be repeated."""

    CAMPAIGN = "campaign"
    WORKFLOW = "workflow"
    AUTOMATION = "automation"
    TRANSACTIONAL = "transactional"
    TEST = "test"
    CONFIRMATION = "confirmation"
    INTERNAL = "internal"


#: Needs consent, carries List-Unsubscribe, is sent at most once.
MARKETING: Final = frozenset({Kind.CAMPAIGN, Kind.WORKFLOW, Kind.AUTOMATION})
#: A doubt is resolved by sending again: twice is better than never.
AT_LEAST_ONCE: Final = frozenset({Kind.TRANSACTIONAL, Kind.CONFIRMATION, Kind.TEST, Kind.INTERNAL})


class Status(StrEnum):
    """The state of a message; every row is in exactly one."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNKNOWN = "unknown"


#: Every arrow of the diagram. `failed` and `unknown` go back to the queue only by an editor's retry or by evidence.
TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    Status.QUEUED: frozenset({Status.SENDING, Status.SKIPPED}),
    Status.SENDING: frozenset(
        {Status.SENT, Status.QUEUED, Status.SKIPPED, Status.BOUNCED, Status.FAILED, Status.UNKNOWN}
    ),
    Status.UNKNOWN: frozenset({Status.SENT, Status.QUEUED, Status.BOUNCED, Status.FAILED, Status.SKIPPED}),
    Status.SENT: frozenset({Status.DELIVERED, Status.BOUNCED, Status.COMPLAINED}),
    Status.DELIVERED: frozenset({Status.BOUNCED, Status.COMPLAINED}),
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.BOUNCED: frozenset({Status.COMPLAINED}),
    Status.COMPLAINED: frozenset(),
    Status.SKIPPED: frozenset(),
}


class Skip(StrEnum):
    """Why a message is not sent."""

    UNSUBSCRIBED = "unsubscribed"
    NO_CONSENT = "no_consent"
    SUPPRESSED = "suppressed"
    INVALID_ADDRESS = "invalid_address"
    ERASED = "erased"
    FREQUENCY_CAP = "frequency_cap"
    HOLDOUT = "holdout"
    #: Kept from all marketing mail, not by one A/B test.
    GLOBAL_HOLDOUT = "global_holdout"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class AbPart(StrEnum):
    """The part of an A/B test's audience a message belongs to."""

    #: Mailed at once, with one of the variants.
    TEST = "test"
    #: Waits for the decision.
    REST = "rest"
    #: Skipped on purpose, to be compared with those who are mailed.
    HOLDOUT = "holdout"


#: Why the rest of an A/B test waits, and until when the queue sees it: a decision takes it out, no clock does.
HELD_FOR_DECISION: Final = "ab_test"
HELD_UNTIL: Final = datetime(9999, 1, 1, tzinfo=UTC)


class Verdict(StrEnum):
    """What became of one attempt."""

    SENT = "sent"
    #: Surely not accepted; tried again later and counted as an attempt.
    DEFERRED = "deferred"
    #: Surely not begun; given back as if it had not been claimed.
    RELEASED = "released"
    BOUNCED = "bounced"
    FAILED = "failed"
    #: The receiving side may or may not have it.
    UNKNOWN = "unknown"
    #: Found at the last moment to be unwanted.
    SKIPPED = "skipped"


class Stage(StrEnum):
    """How far an attempt came before it was decided."""

    BUILD = "build"
    ADDRESS = "address"
    CONNECT = "connect"
    GREETING = "greeting"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"


class Result(NamedTuple):
    """What became of one message in one attempt, as a channel or the sender itself found.

    A tuple, as is everything made once a message: a million of them are.

    Args:
        code: the reply code where the receiving side spoke, else None.
        reply: its words, one printable line of at most 500 characters.
        provider_id: the queue id or message id the receiving side gave.
        retry_after_seconds: when to try again; None: the ledger's own back-off.
    """

    verdict: Verdict
    stage: Stage
    code: int | None = None
    enhanced: str = ""
    reply: str = ""
    provider_id: str = ""
    reason: str | None = None
    retry_after_seconds: float | None = None


class Outcome(NamedTuple):
    """A result with the attempt it belongs to; only that attempt may still write it.

    Args:
        to_email: the address it was for, where it is still known: the contact may have another one by now.
    """

    contact_id: int
    message_id: int
    attempt_id: int
    result: Result
    to_email: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewContent:
    """What is to be frozen; exactly one of campaign and others may own it.

    Args:
        strict: a name without a value fails the message instead of rendering empty.
        links: the targets of the HTML part by position, as `templates.links` counts them.
    """

    subject: str
    html_body: str
    text_body: str = ""
    preheader: str = ""
    from_name: str = ""
    from_email: str = ""
    reply_to: str = ""
    campaign_id: int | None = None
    workflow_id: int | None = None
    template_id: int | None = None
    template_version: int | None = None
    occurrence: int = 1
    variant_id: int | None = None
    locale: str = ""
    track_opens: bool = True
    track_clicks: bool = True
    utm: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    links: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NewMessage:
    """One intention. `dedupe_key` is what makes it one: the same key is never queued twice.

    Args:
        contact_id: whom; 0 for an address without a contact, then `to_email` and its address key `to_key` are needed.
        context: further values for the template (plain JSON).
        skip: born skipped for this reason, so that it is counted and explained.
    """

    kind: Kind
    content_id: int
    dedupe_key: str
    due_at: datetime
    give_up_at: datetime
    contact_id: int = 0
    to_email: str | None = None
    to_key: str | None = None
    campaign_id: int | None = None
    workflow_id: int | None = None
    enrollment_id: int | None = None
    occurrence: int = 1
    variant_id: int | None = None
    context: Mapping[str, Any] | None = None
    skip: Skip | None = None


class Claimed(NamedTuple):
    """A message in our hands until its lease is over, with all that is needed to write and address it."""

    message_id: int
    contact_id: int
    attempt_id: int
    attempt_no: int
    kind: Kind
    campaign_id: int | None
    workflow_id: int | None
    content_id: int
    to_email: str
    rfc_message_id: str
    context: Mapping[str, Any] | None
    contact: Mapping[str, Any]
