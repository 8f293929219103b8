"""The nouns of segments: one as stored, a new one, and the figures that are counted from one.

Frozen data only. What the rules may say is in `rules`, the database in `store` and `membership`.
`EvaluationStatus` is mirrored by a CHECK of the same meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row

from mautolib.segments.rules import Definition, MatchType


class EvaluationStatus(StrEnum):
    """Whether the members are those of the present definition."""

    READY = "ready"
    PENDING = "pending"


@dataclass(frozen=True, kw_only=True)
class NewSegment:
    """What a caller gives for a new segment; checked by `segments.create`."""

    name: str
    definition: Definition
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment as stored.

    Args:
        contact_count: members of the last evaluation and all changes by hand since.
        static_count: contacts added by hand.
        version: counts changes of what a caller gives.
    """

    segment_id: int
    name: str
    description: str
    definition: Definition
    contact_count: int
    static_count: int
    evaluation_status: EvaluationStatus
    evaluated_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How many contacts a definition has now.

    Args:
        count: members.
        static_count: added by hand.
        rule_count: matched by the rules, kept out or not.
        excluded: how many of those matched or added each reason keeps out; one contact may have several reasons.
        mailable: members to whom marketing mail may go.
    """

    count: int
    static_count: int
    rule_count: int
    excluded: Mapping[str, int]
    mailable: int


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Two segments side by side: contacts in each, in both, in either."""

    size_a: int
    size_b: int
    overlap: int
    union: int

    @property
    def jaccard_index(self) -> float:
        """Shared part of all, 0 to 1 with 4 decimals (Jaccard 1901); 0 for two empty segments."""
        return round(self.overlap / self.union, 4) if self.union else 0.0


def definition_of(row: Row[Any]) -> Definition:
    """The definition in a row of `segments`."""
    return Definition(
        rules=tuple(row.rules),
        match_type=MatchType(row.match_type),
        exclude_unsubscribed=row.exclude_unsubscribed,
        exclude_suppressed=row.exclude_suppressed,
        exclude_bounced=row.exclude_bounced,
        exclude_campaign_ids=tuple(row.exclude_campaign_ids),
    )


def changes_by_itself(definition: Definition) -> bool:
    """Whether members may come and go without anybody changing the segment."""
    return bool(
        definition.rules or definition.exclude_unsubscribed or definition.exclude_suppressed
        or definition.exclude_bounced or definition.exclude_campaign_ids
    )  # fmt: skip
