"""The nouns of delivering webhooks: an endpoint as a sender sees it, a delivery in hand, what an attempt came to.

Promise: `DeliveryStatus` is exactly what the database allows; times are aware, durations say their unit. Pure data, no
I/O. Used by expanding, attempting, recording and the API.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple

#: How long both signatures are sent after a rotation.
ROTATION: Final = timedelta(hours=24)
#: The database keeps so much of what a receiver answers.
KEPT_BYTES: Final = 1024


class DeliveryStatus(StrEnum):
    """The state of a delivery; every row is in exactly one."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    DEAD = "dead"


class Verdict(StrEnum):
    """What became of one attempt."""

    SUCCEEDED = "succeeded"
    #: Failed; there will be another.
    FAILED = "failed"
    #: Failed, and was the last one.
    DEAD = "dead"
    #: Never begun; given back as if it had not been claimed.
    RELEASED = "released"


@dataclass(frozen=True, kw_only=True, slots=True)
class Receiver:
    """An endpoint as far as an attempt needs it.

    Args:
        secrets: that sign, newest first; the previous one only as long as it is valid.
        is_signed: False: there is no secret, and nothing is signed.
        is_failing: no success since its last failure.
    """

    endpoint_id: int
    url: str
    secrets: tuple[str, ...]
    is_failing: bool = False
    is_signed: bool = True


class InHand(NamedTuple):
    """A delivery under a lease; `attempt` counts the attempts made before this one."""

    delivery_id: int
    endpoint_id: int
    message_id: str
    event_type: str
    attempt: int
    #: Of these, those made since it was replayed, or all.
    scheduled_attempt: int
    attempt_id: int
    body: str


class Reply(NamedTuple):
    """What a receiver made of one request.

    Args:
        response_status: 0 without an answer.
        retry_after_seconds: the receiver asked to be left alone for so long.
    """

    response_status: int
    duration_ms: int
    error: str | None = None
    response_body: str | None = None
    retry_after_seconds: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver took it."""
        return 200 <= self.response_status < 300 and self.error is None


class Outcome(NamedTuple):
    """What is written down of one attempt; `next_attempt_at` where there will be another."""

    delivery: InHand
    verdict: Verdict
    at: datetime
    reply: Reply
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """What came of a test; `response_status` is 0 without an answer."""

    #: Not a class of tests, whatever pytest thinks of its name.
    __test__: ClassVar[bool] = False

    success: bool
    response_status: int
    duration_ms: int
