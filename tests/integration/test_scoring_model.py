"""The SQL of the score equals a plain reading of the contract in Python, over random small worlds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select

from mautolib.db import tables
from mautolib.events.types import is_positive_engagement
from mautolib.scoring import NewRule, recalculate_within
from mautolib.scoring.rules import create_rule
from tests.builders import NOW, make_contact, make_event

TYPES = ["page_viewed", "email_opened", "email_sent", "unsubscribed", "webinar_attended"]
VALUES = st.sampled_from([None, 1, 1.0, 2, "1", True, [1], [1, 2], {"a": 1}, {"a": 1, "b": 2}])
PROPERTIES = st.dictionaries(st.sampled_from(["x", "y"]), VALUES, max_size=2)
MOMENTS = st.integers(-100 * 86400, 5 * 86400).map(lambda seconds: NOW + timedelta(seconds=seconds))


@dataclass(frozen=True)
class Event:
    kind: str
    at: datetime
    received: datetime
    properties: dict[str, Any]


@dataclass(frozen=True)
class World:
    rules: list[NewRule]
    events: list[Event]
    awards: list[tuple[float, datetime, datetime]]
    known_at: datetime | None


RULES = st.builds(
    NewRule,
    name=st.just("rule"),
    event_type=st.sampled_from(TYPES),
    condition=PROPERTIES,
    points=st.integers(-60, 60),
    max_per_contact=st.integers(0, 3),
    decay_days=st.sampled_from([0, 0, 1, 7, 30]),
    active=st.sampled_from([True, True, True, False]),
)
EVENTS = st.builds(Event, st.sampled_from(TYPES), MOMENTS, MOMENTS, PROPERTIES)
AWARDS = st.tuples(st.floats(-50, 50).map(lambda x: round(x, 2)), MOMENTS, MOMENTS)
WORLDS = st.builds(
    World,
    st.lists(RULES, max_size=5),
    st.lists(EVENTS, max_size=12),
    st.lists(AWARDS, max_size=3),
    st.none() | MOMENTS,
)


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: 1 is 1.0 but neither true nor "1"."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    comparable = type(left) is type(right) or {type(left), type(right)} == {int, float}
    return comparable and bool(left == right)


def matches(rule: NewRule, event: Event) -> bool:
    return rule.active and rule.event_type == event.kind and all(
        key in event.properties and same(event.properties[key], value) for key, value in rule.condition.items()
    )  # fmt: skip


def half_up(x: float, decimals: int) -> float:
    return math.floor(x * 10**decimals + 0.5) / 10**decimals


def by_hand(world: World) -> tuple[float, float, float, datetime | None]:
    """Engagement, recency, total and last activity, as the contract says it in prose."""
    def is_known(arrived: datetime) -> bool:
        return world.known_at is None or arrived <= world.known_at

    # The ids grow in the order of insertion, so a stable sort is (occurred_at, id).
    events = sorted((e for e in world.events if e.at <= NOW and is_known(e.received)), key=lambda e: e.at)
    awards = [(points, at) for points, at, made in world.awards if at <= NOW and is_known(made)]
    points = sum(given for given, _ in awards)
    for rule in world.rules:
        counted = [event for event in events if matches(rule, event)]
        for event in counted[: rule.max_per_contact or None]:
            age_days = (NOW - event.at) / timedelta(days=1)
            points += rule.points * (0.5 ** (age_days / rule.decay_days) if rule.decay_days else 1.0)
    active = [at for given, at in awards if given > 0]
    for event in events:
        if is_positive_engagement(event.kind) and sum(r.points for r in world.rules if matches(r, event)) >= 0:
            active.append(event.at)
    last = max(active, default=None)
    engagement = half_up(max(0.0, points), 9)
    idle = math.inf if last is None else (NOW - last) / timedelta(days=1)
    recency = half_up(20 * math.exp(-0.03 * idle), 9) if idle < 90 else 0.0
    return engagement, recency, half_up(engagement + 4 + recency, 2), last


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=WORLDS)
@pytest.mark.thorough
def test_the_statement_is_the_contract(tx: Connection, world: World) -> None:
    with tx.begin_nested() as savepoint:
        contact, other = make_contact(tx), make_contact(tx)
        for rule in world.rules:
            create_rule(tx, rule, actor="test", now=NOW)
        for event in world.events:
            make_event(tx, contact, event.kind, event.at, received_at=event.received, properties=event.properties)
            # A second contact with half the events must not leak into the first.
            if event.at < NOW - timedelta(days=50):
                make_event(tx, other, event.kind, event.at, properties=event.properties)
        for points, at, made in world.awards:
            row = {"contact_id": contact, "event_type": "manual", "points": points, "occurred_at": at,
                   "created_at": made}  # fmt: skip
            tx.execute(insert(tables.score_awards).values(row))
        recalculate_within(tx, as_of=NOW, known_at=world.known_at)
        history = tables.score_history
        row = tx.execute(select(history).where(history.c.contact_id == contact)).one()
        savepoint.rollback()
    engagement, recency, total, last = by_hand(world)
    assert row.engagement_score == pytest.approx(engagement, abs=1e-8)
    assert row.recency_score == pytest.approx(recency, abs=1e-8)
    assert row.last_activity_at == last
    assert row.total_score == pytest.approx(total, abs=1e-9)


def test_json_equality_is_that_of_postgresql(tx: Connection) -> None:
    values = [None, 0, 1, 1.0, True, False, "1", "", [], [1], [1.0], {}, {"a": 1}, {"a": 1.0}, {"a": True}]
    for left in values:
        for right in values:
            equal = tx.exec_driver_sql("select %s::jsonb = %s::jsonb", (json.dumps(left), json.dumps(right))).scalar()
            assert equal is same(left, right), (left, right)
