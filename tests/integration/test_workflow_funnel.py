"""`analytics.workflow_funnel`: who came to each step of a workflow, counted by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
STEPS = [
    {"action": "tag", "tag": "new"},
    {"type": "condition", "field": "country", "operator": "equals", "value": "DE",
     "then": [{"type": "delay", "hours": 1}, {"type": "exit"}], "else": []},
    {"action": "send_email"},
]  # fmt: skip


def workflow(tx: Connection, *, versions: int = 1) -> int:
    made = {"steps": json.dumps(STEPS)}
    workflow_id = int(tx.execute(text(
        "insert into workflows (name, steps) values ('Welcome', cast(:steps as jsonb)) returning workflow_id"
    ), made).scalar_one())  # fmt: skip
    tx.execute(text(
        "insert into workflow_versions (workflow_id, version, trigger_type, trigger_config, steps) "
        "select :id, version, 'manual', '{}', cast(:steps as jsonb) from generate_series(1, :versions) as version"
    ), {"id": workflow_id, "versions": versions, **made})  # fmt: skip
    return workflow_id


def enter(
    tx: Connection, workflow_id: int, status: str, path: str, *visits: tuple[str, str, int], version: int = 1
) -> None:
    """An enrollment that stands at `path`; each visit is a step, what became of it, and minutes after the entry."""
    ended = status in ("completed", "exited", "failed")
    enrollment = tx.execute(text(
        "insert into enrollments (workflow_id, version, entry_key, status, step_path, resume_at, caused_at, entered_at,"
        " finished_at) values (:id, :version, gen_random_uuid(), :status, :path, :resume, :now, :now, :ended)"
        " returning enrollment_id"
    ), {"id": workflow_id, "version": version, "status": status, "path": path, "now": NOW,
        "resume": None if ended else NOW, "ended": NOW if ended else None}).scalar_one()  # fmt: skip
    for step, outcome, minutes in visits:
        tx.execute(text(
            "insert into workflow_logs (workflow_id, enrollment_id, step_path, step_index, status, created_at) "
            "values (:id, :enrollment, :path, 0, :status, :at)"
        ), {"id": workflow_id, "enrollment": enrollment, "path": step, "status": outcome,
            "at": NOW + timedelta(minutes=minutes)})  # fmt: skip


def funnel(tx: Connection, workflow_id: int, version: int = 1) -> dict[str, Any]:
    found = tx.execute(text(
        "select * from analytics.workflow_funnel where workflow_id = :id and version = :version"
    ), {"id": workflow_id, "version": version})  # fmt: skip
    return {row.step_path: row for row in found}


def test_each_step_says_who_came_and_what_became_of_them(tx: Connection) -> None:
    workflow_id = workflow(tx, versions=2)
    enter(tx, workflow_id, "completed", "2", ("0", "completed", 0), ("1", "completed", 0), ("2", "completed", 2))
    enter(tx, workflow_id, "completed", "2", ("0", "failed", 0), ("1", "completed", 0), ("2", "completed", 8))
    enter(tx, workflow_id, "exited", "1.then.1", ("0", "completed", 0), ("1", "completed", 0),
          ("1.then.0", "completed", 60), ("1.then.1", "completed", 61), ("2", "skipped", 61))  # fmt: skip
    enter(tx, workflow_id, "waiting", "1.then.0", ("0", "completed", 0), ("1", "completed", 0))
    enter(tx, workflow_id, "running", "0")
    enter(tx, workflow_id, "completed", "2", ("2", "completed", 99), version=2)
    rows = funnel(tx, workflow_id)
    assert [(row.step_index, row.step_type) for row in rows.values()] == [
        (0, "tag"), (1, "condition"), (1, "delay"), (1, "exit"), (2, "send_email")
    ]  # fmt: skip
    names = ("entered", "completed", "failed", "skipped", "waiting", "exited")
    assert {path: tuple(getattr(row, name) for name in names) for path, row in rows.items()} == {
        "0": (5, 3, 1, 0, 1, 0), "1": (4, 4, 0, 0, 0, 0), "1.then.0": (2, 1, 0, 0, 1, 0),
        "1.then.1": (1, 1, 0, 0, 0, 1), "2": (2, 2, 0, 1, 0, 0),
    }  # fmt: skip
    assert [row.reach_rate for row in rows.values()] == [
        Decimal("100.0000"), Decimal("80.0000"), Decimal("40.0000"), Decimal("20.0000"), Decimal("40.0000")
    ]  # fmt: skip
    assert [row.median_wait_minutes for row in rows.values()] == [0, 0, 60, 1, 5]
    assert funnel(tx, workflow_id, 2)["2"].entered == 1, "each version is its own"
    assert funnel(tx, workflow_id, 2)["0"].reach_rate == 0


def test_a_version_nobody_entered_has_its_steps_and_no_rates(tx: Connection) -> None:
    rows = funnel(tx, workflow(tx))
    assert len(rows) == 5
    assert {(row.entered, row.reach_rate, row.median_wait_minutes) for row in rows.values()} == {(0, None, None)}
