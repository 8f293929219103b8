"""The nouns of A/B tests, and every arrow between their states. Pure data.

Promise: the words here are those the database allows (a test compares them). A test belongs to one campaign; its first
variant is the control. Figures and decisions are in `deciding`; who gets what is in `experiment_assignment`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from mautolib.campaigns.deciding import Decision, Metric
from mautolib.errors import InvalidTransition


class AbTestType(StrEnum):
    """What the variants of a test differ in."""

    SUBJECT = "subject"
    CONTENT = "content"
    SEND_TIME = "send_time"


class AbStatus(StrEnum):
    """The state of a test."""

    DRAFT = "draft"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class NoWinnerAction(StrEnum):
    """What is done when the deadline finds no winner."""

    CONTROL = "control"
    HOLD = "hold"


class Observed(StrEnum):
    """What callers may tell that happened elsewhere."""

    SENT = "sent"
    OPENED = "opened"
    CLICKED = "clicked"
    BOUNCED = "bounced"


#: Running is armed: its mail goes when the campaign is sent. A draft may be completed by hand, before it ever ran.
TRANSITIONS: Final[Mapping[AbStatus, frozenset[AbStatus]]] = {
    AbStatus.DRAFT: frozenset({AbStatus.RUNNING, AbStatus.COMPLETED, AbStatus.CANCELLED}),
    AbStatus.RUNNING: frozenset({AbStatus.COMPLETED, AbStatus.CANCELLED}),
    AbStatus.COMPLETED: frozenset(),
    AbStatus.CANCELLED: frozenset(),
}


def require(current: AbStatus, target: AbStatus, doing: str) -> None:
    """Refuse a step the diagram does not have.

    Raises:
        InvalidTransition: `Cannot <doing> in '<status>' status`.
    """
    if target not in TRANSITIONS[current]:
        raise InvalidTransition(f"Cannot {doing} in '{current.value}' status")


@dataclass(frozen=True, kw_only=True)
class NewVariant:
    """What an editor gives for a variant; what is None or missing is the campaign's.

    Args:
        locales: by language tag any of subject, preheader, html_body, text_body.
    """

    name: str = "Variant A"
    subject: str | None = None
    html_body: str | None = None
    locales: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    send_delay_minutes: int = 0


@dataclass(frozen=True, kw_only=True)
class AbVariant(NewVariant):
    """A variant as it is kept; position 0 is the control."""

    variant_id: int
    position: int

    @property
    def is_control(self) -> bool:
        """Whether the others are compared with it, and it is sent when nothing is decided."""
        return self.position == 0


@dataclass(frozen=True, kw_only=True)
class NewAbTest:
    """What an editor gives for a test; lengths and bounds are checked by the face and the database.

    Args:
        test_percentage, holdout_percentage: of the audience, in percent.
    """

    campaign_id: int
    name: str
    test_type: AbTestType = AbTestType.SUBJECT
    winner_metric: Metric = Metric.OPEN_RATE
    auto_select_winner: bool = True
    test_percentage: float = 20.0
    wait_hours: int = 4
    holdout_percentage: float = 0.0
    no_winner_action: NoWinnerAction = NoWinnerAction.CONTROL
    variants: tuple[NewVariant, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AbTest:
    """A test as it is kept.

    Args:
        conversion_days: an order within so many days after the hand-over counts.
        planned_at, planned_occurrence: when the audience it is part of was frozen, and which run of the campaign.
        decision, decision_reason: what the figures said when it was completed.
    """

    test_id: int
    campaign_id: int
    name: str
    test_type: AbTestType
    status: AbStatus
    winner_metric: Metric
    auto_select_winner: bool
    test_percentage: float
    wait_hours: int
    holdout_percentage: float
    no_winner_action: NoWinnerAction
    conversion_days: int
    winner_variant_id: int | None
    decision: Decision | None
    decision_reason: str | None
    started_at: datetime | None
    planned_at: datetime | None
    planned_occurrence: int | None
    last_handover_at: datetime | None
    deadline_at: datetime | None
    completed_at: datetime | None
    released_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime | None
    variants: tuple[AbVariant, ...]

    @property
    def control(self) -> AbVariant:
        """The first variant."""
        return self.variants[0]

    def variant(self, variant_id: int) -> AbVariant | None:
        """The variant of that id; None: it is another test's, or nobody's."""
        return next((each for each in self.variants if each.variant_id == variant_id), None)


#: What may be changed while a test is a draft.
CHANGEABLE: Final = frozenset({
    "name", "winner_metric", "auto_select_winner", "test_percentage", "wait_hours", "holdout_percentage",
    "no_winner_action",
})  # fmt: skip

