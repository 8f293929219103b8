"""What every step type keeps: it refuses what it does not know, needs no contact to survive, and acts once.

A new step type is tested here as soon as it is registered; it needs one example of itself in EXAMPLES.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from mautolib import workflows
from mautolib.errors import InvalidInput
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow, advancement, definition
from mautolib.workflows.model import LogStatus
from mautolib.workflows.steps import ACTION, ACTIONS, STEPS
from mautolib.workflows.steps.step import Members, Visit
from tests.builders import make_contact

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EXAMPLES: dict[str, dict[str, Any]] = {
    "condition": {"type": "condition", "field": "country", "value": "DE", "then": []},
    "delay": {"type": "delay", "minutes": 30},
    "goal": {"type": "goal", "event_type": "order_placed"},
    "wait_for_event": {"type": "wait_for_event", "event_type": "order_placed"},
    "exit": {"type": "exit", "reason": "enough"},
    "send_email": {"type": "action", "action": "send_email", "subject": "Hello", "body": "<p>Hello</p>"},
    "tag": {"type": "action", "action": "tag", "tag_name": "seen"},
    "remove_tag": {"type": "action", "action": "remove_tag", "tag_name": "lead"},
    "update_field": {"type": "action", "action": "update_field", "field": "language", "value": "de"},
    "subscribe": {"type": "action", "action": "subscribe"},
    "unsubscribe": {"type": "action", "action": "unsubscribe"},
    "update_score": {"type": "action", "action": "update_score", "points": 10, "reason": "Came back"},
    "add_to_segment": {"type": "action", "action": "add_to_segment", "segment_id": "987654321"},
    "remove_from_segment": {"type": "action", "action": "remove_from_segment", "segment_id": "987654321"},
    "webhook": {"type": "action", "action": "webhook", "url": "https://crm.shop.example/hook", "payload": {"n": 1}},
}
NAMES = [*STEPS, *ACTIONS]


@pytest.fixture(autouse=True)
def segment(request: pytest.FixtureRequest) -> None:
    """The segment that examples name."""
    if "tx" in request.fixturenames:
        request.getfixturevalue("tx").execute(
            text("insert into segments (segment_id, name) overriding system value values (987654321, 'Named')")
        )


def node_of(name: str, /, **more: Any) -> definition.Node:
    return definition.read([{**EXAMPLES[name], **more}]).nodes["0"]


def visit(tx: Connection, settings: Settings, *contacts: int) -> Visit:
    """A visit of people who stand at the first step of a workflow; they need not exist."""
    new = NewWorkflow(name="Visited", steps=[EXAMPLES["tag"]])
    workflow = workflows.create(tx, new, actor="test", now=NOON)
    numbers = [
        tx.execute(
            text("insert into enrollments (workflow_id, version, contact_id, entry_key, resume_at, caused_at,"
                 " entered_at) values (:workflow, 1, :contact, :key, :at, :at, :at) returning enrollment_id"),
            {"workflow": workflow.workflow_id, "contact": contact, "key": f"test:{number}", "at": NOON},
        ).scalar_one()
        for number, contact in enumerate(contacts)
    ]  # fmt: skip
    return Visit(tx=tx, settings=settings, now=NOON, workflow_id=workflow.workflow_id, version=1, path="0",
                 members=Members(numbers, contacts))  # fmt: skip


def begin(tx: Connection, settings: Settings, name: str) -> tuple[int, int]:
    """A contact at the step and a tag behind it; returns enrollment and contact."""
    new = NewWorkflow(name=name, steps=[EXAMPLES[name], EXAMPLES["tag"]])
    workflow = workflows.create(tx, new, actor="test", now=NOON)
    contact = make_contact(tx)
    done = workflows.trigger(tx, settings, workflow.workflow_id, contact_id=contact, now=NOON)
    return done.enrollment.enrollment_id, contact


def test_every_registered_step_has_an_example() -> None:
    assert sorted(EXAMPLES) == sorted(NAMES)
    assert ACTION not in STEPS
    assert not set(STEPS) & set(ACTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_its_own_example(name: str) -> None:
    node = node_of(name, name="A name", meta={})
    assert type(node.step) is {**STEPS, **ACTIONS}[name]
    assert set(node.branches) <= set(node.step.branches)


@pytest.mark.parametrize("name", NAMES)
def test_it_refuses_a_key_it_does_not_know(name: str) -> None:
    with pytest.raises(InvalidInput, match="surprise") as caught:
        node_of(name, surprise=1)
    assert caught.value.path == ("body", "steps", 0, "surprise")


@pytest.mark.parametrize("name", NAMES)
def test_it_refuses_values_of_a_wrong_kind(name: str) -> None:
    # A payload is any object.
    keys = [key for key in EXAMPLES[name] if key not in ("type", "action", "value", "payload")]
    for key in keys:
        with pytest.raises(InvalidInput) as caught:
            node_of(name, **{key: {"no": ["such", "thing"]}})
        assert caught.value.path[:3] == ("body", "steps", 0)


@pytest.mark.parametrize("name", NAMES)
def test_its_example_can_start(tx: Connection, name: str) -> None:
    node = node_of(name)
    node.step.check(tx, node.fields, starting=True)


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_for_every_member_once(tx: Connection, settings: Settings, name: str) -> None:
    seen = visit(tx, settings, make_contact(tx), 0, make_contact(tx), 987654)
    outcomes = node_of(name).step.run(seen)
    answered = {number: outcome for outcome in outcomes for number in outcome.members.enrollment_ids}
    assert sum(len(outcome.members) for outcome in outcomes) == len(answered)
    assert sorted(answered) == sorted(seen.members.enrollment_ids)
    people = dict(zip(seen.members.enrollment_ids, seen.members.contact_ids, strict=True))
    for outcome in outcomes:
        json.dumps(dict(outcome.result))
        assert list(outcome.members.contact_ids) == [people[number] for number in outcome.members.enrollment_ids]
        assert outcome.results is None or len(outcome.results) == len(outcome.members)
        assert (outcome.status is LogStatus.FAILED) == ("error" in outcome.result)
    needs_contact = name in ACTIONS
    failed = [answered[number].status is LogStatus.FAILED for number in seen.members.enrollment_ids]
    assert failed == ([False, True, False, True] if needs_contact else [False] * 4)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_for_nobody(tx: Connection, settings: Settings, name: str) -> None:
    assert not any(len(outcome.members) for outcome in node_of(name).step.run(visit(tx, settings)))


@pytest.mark.parametrize("name", NAMES)
def test_a_visit_is_logged_once_with_its_place(tx: Connection, settings: Settings, name: str) -> None:
    enrollment_id, contact = begin(tx, settings, name)
    logs = tx.execute(text("select * from workflow_logs where step_path = '0'")).all()
    if name == "wait_for_event":
        assert not logs, "it is not over yet"
        return
    assert len(logs) == 1
    log = logs[0]
    assert (log.enrollment_id, log.contact_id, log.step_index, log.visit) == (enrollment_id, contact, 0, 1)
    expected = {"step": 0, "path": "0", "type": EXAMPLES[name]["type"]}
    assert expected.items() <= log.result.items()


# Points are given as often as the action runs: once a visit is what the transaction of a batch promises.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "update_score"])
def test_moving_the_same_visit_again_adds_nothing(tx: Connection, settings: Settings, name: str) -> None:
    enrollment_id, contact = begin(tx, settings, name)
    before = state(tx)
    tx.execute(
        text("update enrollments set status = 'running', step_path = '0', resume_at = :at, finished_at = null"),
        {"at": NOON},
    )
    advancement.begin(tx, settings, enrollment_id, contact, now=NOON)
    assert state(tx) == before


def state(tx: Connection) -> Mapping[str, Any]:
    sql = {
        "logs": "select enrollment_id, step_path, visit, status from workflow_logs order by log_id",
        "deliveries": "select dedupe_key, status from webhook_deliveries order by delivery_id",
        "messages": "select dedupe_key, status from messages order by message_id",
        "contents": "select count(*) from message_contents",
        "tags": "select contact_id, tag_id from contact_tags order by 1, 2",
        "events": "select event_type, contact_id from events order by event_id",
    }
    return {name: [tuple(row) for row in tx.execute(text(query))] for name, query in sql.items()}
