"""Why a score is what it is: each rule, the points given by hand, profile, recency, and the stage with its reason.

Promises that the parts add up to the total: engagement is their floored sum, and every part comes out of the texts
the score itself is made of. Called by the API; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mautolib.db.engine import Tx
from mautolib.db.prepared import execute_prepared
from mautolib.errors import NotFound
from mautolib.scoring import rules
from mautolib.scoring.evaluating import binds, reason_of, stage_row
from mautolib.scoring.model import Stage

#: Parts of the profile, in the order they are told.
PARTS: Final = ("email", "first_name", "last_name", "phone", "country", "custom_fields")


@dataclass(frozen=True, kw_only=True)
class RulePart:
    """What one active rule contributed: events that match it, those its cap lets count, their points as of now."""

    rule_id: int
    name: str
    matched: int
    counted: int
    points: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A score taken apart. `manual` are points given by hand; the sum of both has its floor at zero."""

    as_of: datetime
    rule_version: int
    rules: Sequence[RulePart]
    manual: float
    profile: Mapping[str, float]
    last_activity_at: datetime | None
    recency: float
    stage: Stage
    reason: str


def explain(tx: Tx, contact_id: int, as_of: datetime) -> Explanation:
    """Take the score of a contact as of a moment apart, by the newest rules.

    Raises:
        NotFound: there was no such contact then.
    """
    version = rules.get_version(tx, rules.current_version(tx))
    wanted = binds(contact_id, as_of=as_of, rule_version=version.version)
    row = stage_row(tx, wanted)
    if row is None:
        raise NotFound("Contact not found")
    found = {part.rule_id: part for part in execute_prepared(tx, "scoring_lists.explain_rules", wanted)}
    profile = execute_prepared(tx, "scoring_lists.explain_profile", {**wanted, "parts": list(PARTS)})
    points = {part.part: part.points for part in profile}
    parts = []
    for rule in version.rules:
        if rule.active:
            part = found.get(rule.rule_id)
            matched, counted, given = (part.matched_count, part.counted_count, part.points) if part else (0, 0, 0.0)
            parts.append(
                RulePart(rule_id=rule.rule_id, name=rule.name, matched=matched, counted=counted, points=given)
            )
    return Explanation(
        as_of=as_of, rule_version=version.version, rules=parts,
        manual=execute_prepared(tx, "scoring_lists.explain_manual", wanted).scalar_one(),
        profile={name: points[name] for name in PARTS}, last_activity_at=row.last_activity_at,
        recency=row.recency_score, stage=Stage(row.next_stage), reason=reason_of(row),
    )  # fmt: skip
