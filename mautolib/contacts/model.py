"""The nouns of contacts: a person as known now, what a new one consists of, consent, suppression, tags.

Frozen data only; rules of acceptance are in `validation`, the database in `store`. The two vocabularies are mirrored
by CHECK constraints of the same meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["CONSENT_STOPPERS", "Consent", "ConsentStatus", "Contact", "ContactFilter", "NewContact", "SegmentRef",
           "Suppression", "SuppressionReason", "TagRef"]  # fmt: skip


class ConsentStatus(StrEnum):
    """What a person said about marketing mail."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    GRANTED = "granted"
    WITHDRAWN = "withdrawn"


class SuppressionReason(StrEnum):
    """Why an address must not be mailed, strongest first; a stronger reason replaces a weaker one."""

    COMPLIANCE = "compliance"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    BOUNCE = "bounce"
    MANUAL = "manual"


#: Reasons that are the person's own word: such an address cannot be subscribed again.
CONSENT_STOPPERS = frozenset(
    {SuppressionReason.COMPLIANCE, SuppressionReason.COMPLAINT, SuppressionReason.UNSUBSCRIBE}
)


@dataclass(frozen=True, kw_only=True)
class TagRef:
    """A tag as shown on a contact."""

    tag_id: int
    name: str
    color: str


@dataclass(frozen=True, kw_only=True)
class SegmentRef:
    """A segment of whose last evaluation a contact is a member."""

    segment_id: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Contact:
    """One person as known now. `version` counts changes; `suppressed` says that nothing may be sent there."""

    contact_id: int
    email: str
    email_key: str
    first_name: str
    last_name: str
    phone: str
    country: str
    language: str
    timezone: str
    currency: str
    custom_fields: Mapping[str, Any]
    subscribed: bool
    suppressed: bool
    consent_status: ConsentStatus
    consent_source: str | None
    consent_at: datetime | None
    lifecycle_stage: str | None
    tags: tuple[TagRef, ...]
    segments: tuple[SegmentRef, ...]
    is_disposable: bool
    is_free_provider: bool
    is_role_based: bool
    version: int
    created_at: datetime
    updated_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewContact:
    """What a caller gives for a new person; checked by `contacts.create`."""

    email: str
    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    country: str = ""
    language: str = "en"
    timezone: str = ""
    currency: str = ""
    custom_fields: Mapping[str, Any] = field(default_factory=dict)
    subscribed: bool = True
    tag_ids: Sequence[int] = ()
    consent_status: ConsentStatus | str = ConsentStatus.UNKNOWN
    consent_source: str | None = None
    consent_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ContactFilter:
    """Which contacts to list or count; everything given must hold.

    Args:
        tag: exact name of a tag.
        q: part of e-mail, first or last name, case-blind.
        email: exact address, compared by its key.
        segment_id: members of its last evaluation and hand-added ones.
    """

    subscribed: bool | None = None
    tag: str | None = None
    q: str | None = None
    email: str | None = None
    segment_id: int | None = None
    lifecycle_stage: str | None = None
    updated_since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Consent:
    """One line of a person's consent history."""

    consent_id: int
    contact_id: int
    status: ConsentStatus
    source: str
    wording_version: str | None
    ip: str | None
    actor: str
    note: str | None
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """An address that must not be mailed; `email` is `erased:<hash>` for an erased person."""

    suppression_id: int
    email: str
    reason: SuppressionReason
    source: str
    notes: str
    created_at: datetime
