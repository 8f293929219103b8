"""Scores and lifecycle stages: who is close to buying, who went quiet, who left.

The one definition of a score is `sql/queries/scoring.sql`; everything here only calls it, so the nightly batch, a
single recalculation and a look at a past day give the same number. Called by the `score_recalculation` DAG, the API
and dispatch. Rules are kept by version, and every score names the version it was computed with.
"""

from mautolib.scoring.awards import MOST_POINTS, NewAward, award, award_many, process_event
from mautolib.scoring.engagement_figures import EngagementFigures, engagement_of
from mautolib.scoring.evaluating import check_moment, evaluate
from mautolib.scoring.explaining import Explanation, explain
from mautolib.scoring.lifecycle import Transition, process, suppose
from mautolib.scoring.model import ContactScore, Grade, Rule, ScoreEvent, ScoreResult, SnapshotSource, Stage
from mautolib.scoring.moving import move
from mautolib.scoring.reading import (
    StageFigures,
    count_history,
    count_leaders,
    count_snapshots,
    leaderboard,
    search_history,
    search_snapshots,
    stage_figures,
)
from mautolib.scoring.recalculation import recalculate, recalculate_contact, recalculate_within, stored
from mautolib.scoring.reengagement import reengagement
from mautolib.scoring.rules import (
    NewRule,
    change_rule,
    count_rules,
    count_versions,
    create_rule,
    get_rule,
    install_default_rules,
    list_rules,
    list_versions,
    remove_rule,
)
from mautolib.scoring.state import mark_late

__all__ = [
    "MOST_POINTS", "ContactScore", "EngagementFigures", "Explanation", "Grade", "NewAward", "NewRule", "Rule",
    "ScoreEvent", "ScoreResult", "SnapshotSource", "Stage", "StageFigures", "Transition", "award", "award_many",
    "change_rule", "check_moment", "count_history", "count_leaders", "count_rules", "count_snapshots",
    "count_versions", "create_rule", "engagement_of", "evaluate", "explain", "get_rule", "install_default_rules",
    "leaderboard", "list_rules", "list_versions", "mark_late", "move", "process", "process_event", "recalculate",
    "recalculate_contact", "recalculate_within", "reengagement", "remove_rule", "search_history", "search_snapshots",
    "stage_figures", "stored", "suppose",
]  # fmt: skip
