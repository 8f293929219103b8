"""The nouns of campaigns, and every arrow between their states. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from mautolib.errors import InvalidTransition


class Status(StrEnum):
    """The state of a campaign."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    SENDING = "sending"
    PAUSED = "paused"
    SENT = "sent"
    CANCELLED = "cancelled"
    FAILED = "failed"


#: `sent` goes back only when a doubt about one of its messages was settled as not sent. A recurring campaign goes from
#: `sending` to `scheduled` between its runs, and from there to `sent` when its last run was missed.
TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    Status.DRAFT: frozenset({Status.SCHEDULED, Status.SENDING}),
    Status.SCHEDULED: frozenset(
        {Status.DRAFT, Status.SENDING, Status.PAUSED, Status.CANCELLED, Status.FAILED, Status.SENT}
    ),
    Status.SENDING: frozenset({Status.SENT, Status.SCHEDULED, Status.PAUSED, Status.CANCELLED, Status.FAILED}),
    Status.PAUSED: frozenset({Status.SENDING, Status.SCHEDULED, Status.DRAFT, Status.CANCELLED}),
    Status.SENT: frozenset({Status.SENDING}),
    Status.CANCELLED: frozenset(),
    Status.FAILED: frozenset(),
}
#: States in which everything may be edited.
EDITABLE: Final = frozenset({Status.DRAFT, Status.SCHEDULED})
#: What may be edited while mail goes out: when and how fast.
PACE_FIELDS: Final = frozenset({"max_per_hour", "max_per_day", "domain_limits", "send_window"})
PACE_EDITABLE: Final = frozenset({Status.SENDING, Status.PAUSED})


def check_transition(current: Status, target: Status, verb: str) -> None:
    """Refuse an arrow that does not exist.

    Raises:
        InvalidTransition: `Cannot <verb> campaign in '<status>' status`.
    """
    if target not in TRANSITIONS[current]:
        raise InvalidTransition(f"Cannot {verb} campaign in '{current.value}' status")


@dataclass(frozen=True, kw_only=True)
class NewCampaign:
    """What an editor gives; checked for length and characters by the face."""

    name: str
    subject: str
    preheader: str = ""
    from_name: str = ""
    from_email: str = ""
    reply_to: str = ""
    html_body: str = ""
    text_body: str = ""
    template_id: int | None = None
    segment_id: int | None = None
    locales: Mapping[str, Any] = field(default_factory=dict)
    track_opens: bool = True
    track_clicks: bool = True
    utm: Mapping[str, str] = field(default_factory=dict)
    send_window: Mapping[str, Any] = field(default_factory=dict)
    max_per_hour: int = 0
    max_per_day: int = 0
    domain_limits: Mapping[str, int] = field(default_factory=dict)
    expires_after_hours: int = 24
    scheduled_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A campaign as it is kept."""

    campaign_id: int
    name: str
    subject: str
    preheader: str
    from_name: str
    from_email: str
    reply_to: str
    html_body: str
    text_body: str
    template_id: int | None
    segment_id: int | None
    locales: Mapping[str, Any]
    track_opens: bool
    track_clicks: bool
    utm: Mapping[str, str]
    send_window: Mapping[str, Any]
    max_per_hour: int
    max_per_day: int
    domain_limits: Mapping[str, int]
    expires_after_hours: int
    status: Status
    status_reason: str | None
    occurrence: int
    scheduled_at: datetime | None
    schedule_id: int | None
    requested_at: datetime | None
    planned_at: datetime | None
    started_at: datetime | None
    sent_at: datetime | None
    settled_at: datetime | None
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime | None
    plan_at: datetime | None = None
    is_paced: bool = False


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Figures of a campaign, all counted from the ledger, hits and events; see docs of `campaign_totals`."""

    recipients: int = 0
    skipped: int = 0
    in_flight: int = 0
    attempted: int = 0
    sent: int = 0
    delivered: int = 0
    bounced: int = 0
    failed: int = 0
    unknown: int = 0
    complained: int = 0
    unsubscribed: int = 0
    raw_opens: int = 0
    human_opens: int = 0
    unique_opens: int = 0
    raw_clicks: int = 0
    human_clicks: int = 0
    unique_clicks: int = 0
    refreshed_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that keeps a campaign from being sent: where it stands, and what to do about it."""

    path: tuple[str | int, ...]
    message: str
