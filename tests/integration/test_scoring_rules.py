"""Scoring rules: bounds, versions without gaps, defaults that come once."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, select

from mautolib.db import tables
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.types import NOT_ENGAGEMENT
from mautolib.scoring import NewRule, install_default_rules, rules
from tests.builders import NOW


def versions(tx: Connection) -> list[tuple[int, list[str], str]]:
    table = tables.scoring_rule_versions
    rows = tx.execute(select(table).order_by(table.c.version))
    return [(row.version, [rule["name"] for rule in row.rules], row.created_by) for row in rows]


def test_each_change_makes_a_version_of_all_rules(tx: Connection) -> None:
    first = rules.create_rule(tx, NewRule(name=" Form ", event_type="form_submitted"), actor="user:1", now=NOW)
    second = rules.create_rule(tx, NewRule(name="View", event_type="page_visited", points=2), actor="user:2", now=NOW)
    changed = rules.change_rule(tx, first.rule_id, {"points": 12, "active": False}, actor="user:1", now=NOW)
    rules.change_rule(tx, first.rule_id, {"points": 12}, actor="user:1", now=NOW)
    rules.remove_rule(tx, second.rule_id, actor="user:3", now=NOW)
    assert versions(tx) == [
        (1, [], "system"), (2, ["Form"], "user:1"), (3, ["Form", "View"], "user:2"),
        (4, ["Form", "View"], "user:1"), (5, ["Form"], "user:3"),
    ]  # fmt: skip
    assert rules.current_version(tx) == 5
    assert (changed.points, changed.active, changed.name, changed.event_type) == (12, False, "Form", "form_submitted")
    assert second.event_type == "page_viewed", "events are stored under the canonical name"
    assert rules.list_rules(tx) == [changed]
    assert rules.list_rules(tx, active_only=True) == []
    kept = tx.scalar(select(tables.scoring_rule_versions.c.rules).where(tables.scoring_rule_versions.c.version == 3))
    assert kept[0]["points"] == 1 and kept[0]["id"] == first.rule_id, "an old version keeps what it was"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"name": "  "}, "name"), ({"name": "x" * 201}, "name"), ({"event_type": ""}, "event_type"),
        ({"event_type": "x" * 51}, "event_type"), ({"points": 1001}, "points"), ({"points": -1001}, "points"),
        ({"max_per_contact": -1}, "max_per_contact"), ({"decay_days": -1}, "decay_days"),
        ({"decay_days": 2**31}, "decay_days"), ({"condition": [1]}, "condition"), ({"description": "x" * 2001},
        "description"),
    ],
)  # fmt: skip
def test_absurd_values_are_refused(tx: Connection, values: dict[str, object], name: str) -> None:
    fields = {"name": "Form", "event_type": "form_submitted", **values}
    with pytest.raises(InvalidInput) as caught:
        rules.create_rule(tx, NewRule(**fields), actor="test", now=NOW)  # type: ignore[arg-type]
    assert caught.value.path == (name,)
    assert rules.list_rules(tx) == []


def test_unknown_rules_and_fields(tx: Connection) -> None:
    with pytest.raises(NotFound, match="Scoring rule not found"):
        rules.change_rule(tx, 42, {"points": 1}, actor="test", now=NOW)
    with pytest.raises(NotFound, match="Scoring rule not found"):
        rules.remove_rule(tx, 42, actor="test", now=NOW)
    rule = rules.create_rule(tx, NewRule(name="Form", event_type="form_submitted"), actor="test", now=NOW)
    with pytest.raises(InvalidInput, match="has no rule_id"):
        rules.change_rule(tx, rule.rule_id, {"rule_id": 1}, actor="test", now=NOW)


def test_the_defaults_come_once(tx: Connection) -> None:
    added = install_default_rules(tx, NOW)
    assert [rule.name for rule in added] == [rule.name for rule in rules.DEFAULT_RULES]
    assert rules.current_version(tx) == 2
    assert install_default_rules(tx, NOW) == []
    for rule in added:
        rules.remove_rule(tx, rule.rule_id, actor="user:1", now=NOW)
    assert install_default_rules(tx, NOW) == [], "whoever removed them meant it"


def test_the_defaults_take_points_off_only_for_what_is_no_engagement() -> None:
    assert {rule.event_type for rule in rules.DEFAULT_RULES if rule.points < 0} <= NOT_ENGAGEMENT
    assert all(rule.decay_days > 0 for rule in rules.DEFAULT_RULES if rule.points > 0)
