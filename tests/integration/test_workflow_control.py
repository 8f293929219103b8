"""Enrollments by the hand against the engine itself: paused ones stay, and what a deleted workflow left goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import maintenance, workflows
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow, control, reading, store
from tests.builders import make_contact, make_event

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DELAY = {"type": "delay", "hours": 24}


def begin(tx: Connection, settings: Settings, *steps: dict[str, Any], **fields: Any) -> tuple[int, int, int]:
    """A workflow with somebody inside: its id, the enrollment and the contact."""
    new = NewWorkflow(name="Test", steps=steps, **fields)
    workflow_id = workflows.create(tx, new, actor="test", now=NOON).workflow_id
    contact = make_contact(tx)
    done = workflows.trigger(tx, settings, workflow_id, contact_id=contact, now=NOON)
    return workflow_id, done.enrollment.enrollment_id, contact


def test_a_paused_enrollment_is_not_moved_and_one_that_was_due_moves_when_it_is_resumed(
    fresh_engine: Engine, settings: Settings
) -> None:
    with fresh_engine.begin() as tx:
        ids = begin(tx, settings, DELAY, {"type": "exit", "reason": "through"})[:2]
        control.pause(tx, *ids)
    assert workflows.advance(fresh_engine, settings, now=NOON + 30 * HOUR).moved == 0
    with fresh_engine.begin() as tx:
        assert workflows.next_due(tx) is None
        control.resume(tx, *ids, now=NOON + 30 * HOUR)
    assert workflows.advance(fresh_engine, settings, now=NOON + 30 * HOUR).exited == 1
    with fresh_engine.begin() as tx:
        assert reading.enrollment(tx, *ids).exit_reason == "through"


def test_a_delay_that_was_paused_and_resumed_ends_when_it_would_have(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        ids = begin(tx, settings, DELAY, {"type": "exit"})[:2]
        control.pause(tx, *ids)
        control.resume(tx, *ids, now=NOON + HOUR)
    workflows.advance(fresh_engine, settings, now=NOON + HOUR)
    with fresh_engine.begin() as tx:
        found = reading.enrollment(tx, *ids)
        assert (found.status, found.resume_at) == ("waiting", NOON + 24 * HOUR)
        assert len(reading.results(tx, ids[1])) == 1
    workflows.advance(fresh_engine, settings, now=NOON + 24 * HOUR)
    with fresh_engine.begin() as tx:
        assert reading.enrollment(tx, *ids).status == "exited"


@pytest.mark.parametrize("event_type", ["ordered", "other"])
def test_what_happened_while_it_was_paused_counts(fresh_engine: Engine, settings: Settings, event_type: str) -> None:
    wait = {"type": "wait_for_event", "event_type": "ordered", "timeout_hours": 48,
            "then": [{"type": "exit", "reason": "ordered"}]}  # fmt: skip
    with fresh_engine.begin() as tx:
        *ids, contact = begin(tx, settings, wait)
        control.pause(tx, *ids)
        make_event(tx, contact, event_type, NOON + HOUR)
        control.resume(tx, *ids, now=NOON + 2 * HOUR)
    workflows.advance(fresh_engine, settings, now=NOON + 2 * HOUR)
    with fresh_engine.begin() as tx:
        found = reading.enrollment(tx, *ids)
    if event_type == "ordered":
        assert (found.status, found.exit_reason) == ("exited", "ordered")
    else:
        assert (found.status, found.resume_at, found.waiting_for) == ("waiting", NOON + 48 * HOUR, "ordered")


def test_an_event_of_exit_on_ends_a_paused_enrollment(tx: Connection, settings: Settings) -> None:
    *ids, contact = begin(tx, settings, DELAY, exit_on=["unsubscribed"])
    control.pause(tx, *ids)
    event = make_event(tx, contact, "unsubscribed", NOON + HOUR)
    assert workflows.take_events(tx, [event], [NOON + HOUR], now=NOON + HOUR).exited == 1
    found = reading.enrollment(tx, *ids)
    assert (found.status, found.exit_reason) == ("exited", "unsubscribed")


def test_logs_that_do_not_go_at_once_are_not_shown_and_go_with_maintenance(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOGS_AT_ONCE", 2)
    with fresh_engine.begin() as tx:
        kept = begin(tx, settings, DELAY)[0]
        gone = begin(tx, settings, DELAY)[0]
        for _ in range(6):
            workflows.trigger(tx, settings, gone, contact_id=None, now=NOON)
        begin(tx, settings, DELAY)
        workflows.remove(tx, gone, now=NOON)
        left = tx.scalar(text("select count(*) from workflow_logs where workflow_id = :id"), {"id": gone})
        assert (left, reading.count_logs(tx, gone, at_most=100), reading.logs(tx, gone)) == (5, 0, [])
    assert maintenance.run(fresh_engine, settings, now=NOON, task="retention")["workflow_logs"] == 5
    assert maintenance.run(fresh_engine, settings, now=NOON, task="retention")["workflow_logs"] == 0
    with fresh_engine.begin() as tx:
        assert reading.count_logs(tx, kept, at_most=100) == 1
        assert tx.scalar(text("select count(*) from workflow_logs")) == 2
