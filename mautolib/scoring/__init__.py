"""Scores and lifecycle stages: who is close to buying, who went quiet, who left.

The one definition of a score is `sql/queries/scoring.sql`; everything here only calls it, so the nightly batch, a
single recalculation and a look at a past day give the same number. Called by the `score_recalculation` DAG, the API
and dispatch. Rules are kept by version, and every score names the version it was computed with.
"""

from mautolib.scoring.model import ContactScore, Grade, Rule, ScoreResult, SnapshotSource, Stage
from mautolib.scoring.recalculation import recalculate, recalculate_contact, recalculate_within
from mautolib.scoring.rules import NewRule, install_default_rules

__all__ = [
    "ContactScore", "Grade", "NewRule", "Rule", "ScoreResult", "SnapshotSource", "Stage", "install_default_rules",
    "recalculate", "recalculate_contact", "recalculate_within",
]  # fmt: skip
