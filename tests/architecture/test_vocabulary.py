"""A word has one list: each StrEnum of the library holds exactly what its CHECK in the database allows."""

from __future__ import annotations

import importlib
import re

import pytest
from sqlalchemy import Connection, text

from mautolib.settings import example_file
from tests.architecture.source import ROOT

#: (module, StrEnum, table, constraint)
PAIRS = [
    ("mautolib.contacts.model", "ConsentStatus", "contacts", "consent_status_is_known"),
    ("mautolib.contacts.model", "SuppressionReason", "suppressions", "suppression_reason_is_known"),
    ("mautolib.ledger.model", "Status", "messages", "message_status_is_known"),
    ("mautolib.ledger.model", "Kind", "messages", "message_kind_is_known"),
    ("mautolib.campaigns.model", "Status", "campaigns", "campaign_status_is_known"),
    ("mautolib.scoring.model", "Stage", "contact_stages", "lifecycle_stage_is_known"),
    ("mautolib.scoring.model", "SnapshotSource", "score_history", "snapshot_source_is_known"),
    ("mautolib.workflows.model", "EnrollmentStatus", "enrollments", "enrollment_status_is_known"),
    ("mautolib.workflows.model", "LogStatus", "workflow_logs", "log_status_is_known"),
    ("mautolib.events.milestones", "MilestoneKind", "contact_milestones", "milestone_kind_is_known"),
    ("mautolib.campaigns.experiment_model", "AbTestType", "ab_tests", "test_type_is_known"),
    ("mautolib.campaigns.experiment_model", "AbStatus", "ab_tests", "test_status_is_known"),
    ("mautolib.campaigns.experiment_model", "NoWinnerAction", "ab_tests", "no_winner_action_is_known"),
    ("mautolib.campaigns.experiment_model", "Observed", "ab_test_observations", "observed_event_is_known"),
    ("mautolib.campaigns.deciding", "Metric", "ab_tests", "winner_metric_is_known"),
    ("mautolib.campaigns.deciding", "Decision", "ab_tests", "decision_is_known"),
    ("mautolib.ledger.model", "AbPart", "messages", "ab_part_is_known"),
    ("mautolib.outbox.facts", "FactName", "outbox", "webhook_event_is_known"),
]


def allowed(tx: Connection, table: str, constraint: str) -> set[str]:
    definition = tx.scalar(
        text(
            "select pg_get_constraintdef(oid) from pg_constraint "
            "where conrelid = cast(:t as regclass) and conname = :c"
        ),
        {"t": table, "c": constraint},
    )
    return set(re.findall(r"'([^']+)'", definition or ""))


@pytest.mark.parametrize(("module", "name", "table", "constraint"), PAIRS)
def test_enum_and_check_agree(tx: Connection, module: str, name: str, table: str, constraint: str) -> None:
    words = {str(member) for member in getattr(importlib.import_module(module), name)}
    assert words == allowed(tx, table, constraint)


def test_the_example_settings_are_up_to_date() -> None:
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == example_file()
