"""Trying a workflow: who would enter by each trigger, the way of one of them, and that nothing is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import workflows
from mautolib.errors import NotFound
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow
from mautolib.workflows.rehearsal import Rehearsal, rehearse
from tests.builders import make_contact, make_event

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
CART = {"cart_id": "c1", "currency": "EUR", "lines": [{"sku": "A", "quantity": 2, "unit_price": "30.00"}]}


def add(engine: Engine, trigger_type: str, config: dict[str, Any], *steps: dict[str, Any], **fields: Any) -> int:
    new = NewWorkflow(name="Test", trigger_type=trigger_type, trigger_config=config, steps=steps, **fields)
    with engine.begin() as tx:
        return workflows.create(tx, new, actor="test", now=NOON).workflow_id


def entering(engine: Engine, settings: Settings, trigger_type: str, config: dict[str, Any]) -> Rehearsal:
    return rehearse(engine, settings, add(engine, trigger_type, config), now=NOON)


def state(tx: Connection) -> list[tuple[Any, ...]]:
    tables = ("enrollments", "workflow_logs", "messages", "message_contents", "contact_tags", "tags", "events",
              "outbox", "event_pending")  # fmt: skip
    return [(name, tx.scalar(text(f"select count(*) from {name}"))) for name in tables]


def test_the_way_of_one_contact_through_all_waits_and_nothing_is_written(
    fresh_engine: Engine, settings: Settings
) -> None:
    number = add(
        fresh_engine, "manual", {},
        {"action": "send_email", "subject": "Hello", "body": "<p>Hi</p>"},
        {"type": "delay", "hours": 24},
        {"type": "wait_for_event", "event_type": "order_placed", "timeout_hours": 48,
         "else": [{"action": "tag", "tag_name": "never bought"}]},
        {"type": "condition", "field": "country", "value": "PT", "else": [{"type": "exit", "reason": "abroad"}]},
        {"type": "exit", "reason": "at home"},
    )  # fmt: skip
    with fresh_engine.begin() as tx:
        contact = make_contact(tx, country="DE")
        before = state(tx)
    found = rehearse(fresh_engine, settings, number, contact_id=contact, now=NOON)
    assert [(step.path, str(step.status), step.at - NOON) for step in found.steps] == [
        ("0", "completed", 0 * HOUR), ("1", "completed", 0 * HOUR), ("2", "completed", 72 * HOUR),
        ("2.else.0", "completed", 72 * HOUR), ("3", "completed", 72 * HOUR), ("3.else.0", "completed", 72 * HOUR),
    ]  # fmt: skip
    assert found.steps[0].result["queued"] is True and found.steps[2].result["matched"] is False
    assert (found.status, found.exit_reason, found.would_enter) == ("exited", "abroad", 0)
    with fresh_engine.begin() as tx:
        assert state(tx) == before
    with pytest.raises(NotFound, match="Contact not found"):
        rehearse(fresh_engine, settings, number, contact_id=987654, now=NOON)
    with pytest.raises(NotFound, match="Workflow not found"):
        rehearse(fresh_engine, settings, 987654, now=NOON)


def test_who_would_enter_by_events(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        one, two, three = (make_contact(tx, source=source, created_at=NOON - DAY) for source in ("api", "csv", "api"))
        for contact, at, properties in (
            (one, NOON - 3 * DAY, {"size": "M"}), (one, NOON - DAY, {"size": "L"}),
            (two, NOON - 2 * DAY, {"size": "M"}), (three, NOON - 31 * DAY, {"size": "M"}),
            (three, NOON + HOUR, {"size": "M"}),
        ):  # fmt: skip
            make_event(tx, contact, "own_event", at, properties=properties)
        for contact in (one, two, three):
            make_event(tx, contact, "contact_created", NOON - DAY)
        make_event(tx, three, "contact_created", NOON - 8 * DAY)
        make_event(tx, two, "tag_added", NOON - DAY, properties={"tag_name": "VIP", "tag_id": "1"})
        make_event(tx, one, "tag_added", NOON - DAY, properties={"tag_name": "new", "tag_id": "2"})

    def people(trigger_type: str, **config: Any) -> tuple[int, int | None]:
        found = entering(fresh_engine, settings, trigger_type, config)
        return found.would_enter, found.contact_id

    assert people("event", event_type="own_event") == (2, one)
    assert people("event", event_type="own_event", where={"size": "M"}) == (2, two)
    assert people("event", event_type="nothing") == (0, None)
    assert people("event") == (0, None)
    assert people("signup")[0] == 3
    assert people("signup", source="csv") == (1, two)
    assert people("tag_added")[0] == 2
    assert people("tag_added", tag_name="vip") == (1, two)


def test_whom_re_entry_keeps_out_is_not_counted(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        one, two = make_contact(tx), make_contact(tx)
        for contact in (one, two):
            make_event(tx, contact, "own_event", NOON - DAY, properties={"n": contact})
    config = {"event_type": "own_event"}
    for policy, expected in (("after_exit", 1), ("once", 1), ("always", 2)):
        number = add(fresh_engine, "event", config, {"type": "delay", "hours": 1}, re_entry={"policy": policy})
        with fresh_engine.begin() as tx:
            workflows.trigger(tx, settings, number, contact_id=two, now=NOON)
        assert rehearse(fresh_engine, settings, number, now=NOON).would_enter == expected, policy


def test_a_sample_goes_its_way_with_what_let_it_in(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        make_event(tx, make_contact(tx), "own_event", NOON - DAY, properties={"size": "M"})
    step = {"type": "condition", "field": "size", "value": "m", "then": [{"type": "exit", "reason": "medium"}]}
    number = add(fresh_engine, "event", {"event_type": "own_event"}, step)
    assert rehearse(fresh_engine, settings, number, now=NOON).exit_reason == "medium"
    assert rehearse(fresh_engine, settings, number, context={"size": "L"}, now=NOON).status == "completed"


def test_who_would_enter_by_carts(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        left, ordered, busy, emptied = (make_contact(tx) for _ in range(4))
        make_event(tx, left, "cart_updated", NOON - 2 * HOUR, properties=CART)
        make_event(tx, ordered, "cart_updated", NOON - 2 * HOUR, properties=CART)
        make_event(tx, ordered, "order_placed", NOON - HOUR, properties={"order_id": "1", "cart_id": "c1"})
        make_event(tx, busy, "cart_updated", NOON - HOUR / 2, properties=CART)
        make_event(tx, emptied, "cart_updated", NOON - 3 * HOUR, properties=CART)
        make_event(tx, emptied, "cart_updated", NOON - 2 * HOUR, properties={**CART, "lines": []})
    found = entering(fresh_engine, settings, "cart_abandoned", {})
    assert (found.would_enter, found.contact_id) == (1, left)
    assert entering(fresh_engine, settings, "cart_abandoned", {"after_minutes": 20}).would_enter == 2
    assert entering(fresh_engine, settings, "cart_abandoned", {"min_total": "60.00"}).would_enter == 1
    assert entering(fresh_engine, settings, "cart_abandoned", {"min_total": "60.01"}).would_enter == 0


def test_who_would_enter_by_the_clock(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        for birthday in ("1990-12-01", "2001-12-22", "1980-11-21", "never"):
            make_contact(tx, custom_fields={"birthday": birthday}, created_at=NOON - 400 * DAY)
    field = {"field": "custom_fields.birthday"}
    assert entering(fresh_engine, settings, "anniversary", field).would_enter == 1
    assert entering(fresh_engine, settings, "anniversary", {**field, "offset_days": 1}).would_enter == 2
    assert entering(fresh_engine, settings, "anniversary", {}).would_enter == 0
    assert entering(fresh_engine, settings, "date", {"on": "2026-12-01"}).would_enter == 4
    assert entering(fresh_engine, settings, "date", {"on": "2026-11-21"}).would_enter == 0
    assert entering(fresh_engine, settings, "manual", {}).would_enter == 0
