"""Conditions judged by the database: every operator on every kind of value, of contacts and of contexts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from mautolib.settings import Settings
from mautolib.workflows.steps.condition import OPERATORS, Condition
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Members, Visit
from tests.builders import make_contact, make_suppression, make_tag

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def judge(
    tx: Connection, settings: Settings, condition: dict[str, Any], contacts: Sequence[int] = (0,), context: Any = None
) -> list[int]:
    """The positions of the enrollments that pass."""
    numbers = [
        tx.execute(
            text("insert into enrollments (workflow_id, version, contact_id, entry_key, resume_at, context, caused_at,"
                 " entered_at) values (1, 1, :contact, :key, :at, :context, :at, :at) returning enrollment_id"),
            {"contact": contact, "key": str(number), "at": NOON, "context": json.dumps(context or {})},
        ).scalar_one()
        for number, contact in enumerate(contacts)
    ]  # fmt: skip
    step = Condition.read(Fields({**condition, "then": [], "else": []}, ("body",)))
    visit = Visit(tx=tx, settings=settings, now=NOON, workflow_id=1, version=1, path="0",
                  members=Members(numbers, list(contacts)))  # fmt: skip
    outcomes = step.run(visit)
    assert sorted(n for outcome in outcomes for n in outcome.members.enrollment_ids) == numbers
    passed = [outcome for outcome in outcomes if outcome.result["passed"]]
    return [numbers.index(n) for outcome in passed for n in outcome.members.enrollment_ids]


@pytest.mark.parametrize(
    ("operator", "actual", "value", "expected"),
    [
        ("eq", "Berlin", "BERLIN", True),
        ("eq", 5, "5", True),
        ("eq", True, "true", True),
        ("eq", ["vip", "new"], "VIP", True),
        ("neq", "a", "b", True),
        ("neq", ["vip"], "vip", False),
        ("contains", "Hello World", "lo w", True),
        ("contains", ["hello"], "hell", False),
        ("not_contains", ["vip"], "new", True),
        ("in", "de", ["DE", "AT"], True),
        ("in", 7, ["7"], True),
        ("not_in", "fr", ["DE"], True),
        ("gt", "10", 9, True),
        ("gt", 9, "10", False),
        ("gte", 10, 10, True),
        ("lt", "abc", 5, False),
        ("gte", "abc", 5, False),
        ("lte", 0.1, "0.1", True),
        ("gt", True, 0, False),
        ("gt", "NaN", 0, False),
        ("is_true", True, None, True),
        ("is_true", "TRUE", None, True),
        ("is_true", False, None, False),
        ("is_false", False, None, True),
        ("is_set", 0, None, True),
        ("is_set", "", None, False),
        ("is_null", "", None, True),
        ("is_null", [], None, True),
        ("is_null", False, None, False),
        ("gt", "1e3", 999, True),
        ("gt", "1e999999", 1, False),
        ("gt", "NaN", 1, False),
        ("gt", " 12 ", 11.5, True),
        ("eq", "ÄRGER", "ärger", True),
        ("eq", 1.0, "1.0", True),
    ],
)
def test_operators(
    tx: Connection, settings: Settings, operator: str, actual: Any, value: Any, expected: bool
) -> None:
    condition = {"field": "fact", "operator": operator, "value": value}
    assert judge(tx, settings, condition, context={"fact": actual}) == ([0] if expected else [])


@pytest.mark.parametrize("operator", sorted(OPERATORS))
@pytest.mark.parametrize("context", [{}, {"fact": None}, {"fact": ""}, {"fact": []}])
def test_a_missing_value_passes_only_is_null(
    tx: Connection, settings: Settings, operator: str, context: dict[str, Any]
) -> None:
    condition = {"field": "fact", "operator": operator, "value": ["x"] if operator in ("in", "not_in") else 1}
    assert judge(tx, settings, condition, context=context) == ([0] if operator == "is_null" else [])


def test_every_field_of_a_contact(tx: Connection, settings: Settings) -> None:
    facts = {"email": "ann@shop.example", "first_name": "Ann", "last_name": "Lee", "phone": "+49 1", "country": "DE",
             "language": "de", "timezone": "Europe/Berlin", "currency": "EUR", "consent_status": "granted",
             "consent_source": "form", "source": "shop"}  # fmt: skip
    ann = make_contact(tx, **facts, subscribed=True, custom_fields={"size": 42, "colours": ["red", "Blue"]})
    bob = make_contact(tx, email="bob@shop.example", subscribed=False)
    tag = make_tag(tx, "VIP")
    tx.execute(text("insert into contact_tags values (:c, :t, now())"), {"c": ann, "t": tag})
    tx.execute(
        text("insert into contact_scores values (:c, 55.5, 0, 0, 0, 'A', null, now(), 1)"), {"c": ann}
    )
    people = [bob, ann, 0, 987654]
    for field, value in facts.items():
        assert judge(tx, settings, {"field": field, "value": value.upper()}, people) == [1], field
        tx.execute(text("delete from enrollments"))
    questions = [
        ({"field": "subscribed", "operator": "is_true"}, [1]),
        ({"field": "subscribed", "operator": "is_false"}, [0]),
        ({"field": "score", "operator": "gte", "value": 55.5}, [1]),
        ({"field": "score", "operator": "is_null"}, [2, 0, 3]),
        ({"field": "tags", "operator": "contains", "value": "vip"}, [1]),
        ({"field": "tags", "operator": "not_contains", "value": "vip"}, []),
        ({"field": "custom_fields.size", "operator": "gt", "value": 41}, [1]),
        ({"field": "custom_fields.colours", "operator": "in", "value": ["BLUE"]}, [1]),
        ({"field": "custom_fields.other", "operator": "is_set"}, []),
    ]
    for question, expected in questions:
        assert judge(tx, settings, question, people) == expected, question
        tx.execute(text("delete from enrollments"))


def test_what_a_contact_is_beside_its_texts(tx: Connection, settings: Settings) -> None:
    ann = make_contact(tx, email="ann@shop.example", consent_at=NOON)
    bob = make_contact(tx, email="bob@shop.example", created_at=NOON)
    make_suppression(tx, "bob@shop.example")
    tx.execute(
        text("insert into contact_stages (contact_id, lifecycle_stage, since, evaluated_at)"
             " values (:c, 'customer', now(), now())"), {"c": ann}
    )  # fmt: skip
    people = [bob, ann, 0, 987654]
    questions = [
        ({"field": "suppressed", "operator": "is_true"}, [0]),
        ({"field": "suppressed", "operator": "is_false"}, [1]),
        ({"field": "lifecycle_stage", "value": "Customer"}, [1]),
        ({"field": "lifecycle_stage", "value": "new"}, [0]),
        ({"field": "consent_at", "operator": "is_null"}, [2, 0, 3]),
        ({"field": "created_at", "operator": "contains", "value": "2026-11-22"}, [0]),
        ({"field": "updated_at", "operator": "is_set"}, []),
    ]
    for question, expected in questions:
        assert judge(tx, settings, question, people) == expected, question
        tx.execute(text("delete from enrollments"))
