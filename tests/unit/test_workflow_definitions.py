"""Reading definitions: what is accepted knows its way, what cannot run is refused at its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mautolib.errors import InvalidInput
from mautolib.workflows import definition
from mautolib.workflows.recipes import welcome_series
from mautolib.workflows.steps import ACTIONS, STEPS
from mautolib.workflows.steps.condition import OPERATORS, holds

MAIL = {"action": "send_email", "subject": "Hello", "body": "<p>Hello</p>"}


def refusal(steps: Any) -> tuple[tuple[str | int, ...], str]:
    with pytest.raises(InvalidInput) as caught:
        definition.read(steps)
    return caught.value.path, str(caught.value)


def test_branches_lead_back_to_what_follows_the_condition() -> None:
    steps = [
        {"type": "condition", "field": "country", "value": "DE", "then": [MAIL, {"type": "delay", "hours": 1}],
         "else": [{"type": "condition", "field": "score", "operator": "gt", "value": 5, "then": [MAIL]}]},
        {"type": "exit"},
    ]  # fmt: skip
    read = definition.read(steps)
    assert list(read.nodes) == ["0", "0.then.0", "0.then.1", "0.else.0", "0.else.0.then.0", "1"]
    ways = {path: (node.after, dict(node.branches), node.index) for path, node in read.nodes.items()}
    assert ways["0"] == ("1", {"then": "0.then.0", "else": "0.else.0"}, 0)
    assert ways["0.then.0"] == ("0.then.1", {}, 0)
    assert ways["0.then.1"] == ("1", {}, 0)
    assert ways["0.else.0"] == ("1", {"then": "0.else.0.then.0"}, 0)
    assert ways["0.else.0.then.0"] == ("1", {}, 0)
    assert ways["1"] == (None, {}, 1)
    assert read.following(read.nodes["0"], "else") == "0.else.0"
    assert read.following(read.nodes["0"], None) == "1"
    assert [node.path for node in read.rest(read.nodes["0.then.0"])] == ["0.then.1", "1"]


def test_an_empty_branch_goes_on_behind_the_condition() -> None:
    read = definition.read([{"type": "condition", "field": "x", "value": 1, "then": []}, MAIL])
    assert read.following(read.nodes["0"], "then") == "1"


@pytest.mark.parametrize(
    ("steps", "path", "message"),
    [
        ("delay", (), "must be a list"),
        ([5], (0,), "must be an object"),
        ([{"type": "teleport"}], (0, "type"), "one of condition, delay, exit, action"),
        ([{"type": "wait_for_event", "event_type": "x"}], (0, "type"), "one of"),
        ([{"type": ["delay"]}], (0, "type"), "one of"),
        ([{"action": "webhook", "url": "https://x.example"}], (0, "action"), "one of send_email, tag"),
        ([{}], (0, "action"), "'action' is required"),
        ([{"type": "delay"}], (0,), "exactly one of 'hours' and 'minutes'"),
        ([{"type": "delay", "hours": 1, "minutes": 1}], (0,), "exactly one"),
        ([{"type": "delay", "hours": 8761}], (0, "hours"), "at most 8760"),
        ([{"type": "delay", "hours": 0}], (0, "hours"), "more than 0"),
        ([{"type": "delay", "hours": True}], (0, "hours"), "must be a number"),
        ([{"type": "delay", "hours": float("nan")}], (0, "hours"), "must be a number"),
        ([{"type": "delay", "hours": "2"}], (0, "hours"), "must be a number"),
        ([{"type": "delay", "minutes": 525601}], (0, "minutes"), "at most 525600"),
        ([{"type": "delay", "hours": 2, "hour": 3}], (0, "hour"), "Unknown key"),
        ([MAIL, {"action": "tag"}], (1, "tag_name"), "required"),
        ([{"action": "tag", "tag_name": " "}], (0, "tag_name"), "not be empty"),
        ([{"action": "tag", "tag_name": "a" * 101}], (0, "tag_name"), "more than 100"),
        ([{"action": "tag", "tag_name": "a\nb"}], (0, "tag_name"), "one line"),
        ([{"action": "send_email"}], (0,), "'template_id', or 'subject' and 'body'"),
        ([{"action": "send_email", "subject": "Hi"}], (0, "body"), "required"),
        ([{"action": "send_email", "template_id": "x"}], (0, "template_id"), "must be an id"),
        ([{"action": "send_email", "template_id": "9" * 30}], (0, "template_id"), "must be an id"),
        ([{"action": "send_email", "template_id": True}], (0, "template_id"), "must be an id"),
        ([{"action": "send_email", "template_id": "1", "subject": "x"}], (0, "subject"), "Unknown key"),
        ([{"type": "exit", "meta": []}], (0, "meta"), "must be an object"),
        ([{"type": "condition", "value": 1}], (0, "field"), "required"),
        ([{"type": "condition", "field": "x", "operator": "like", "value": 1}], (0, "operator"), "one of eq"),
        ([{"type": "condition", "field": "x"}], (0, "value"), "needs one text"),
        ([{"type": "condition", "field": "x", "operator": "in", "value": "DE"}], (0, "value"), "list of 1 to 1000"),
        ([{"type": "condition", "field": "x", "operator": "gt", "value": "ten"}], (0, "value"), "needs a number"),
        ([MAIL, {"type": "condition", "field": "x", "value": 1, "then": [{"type": "delay"}]}],
         (1, "then", 0), "exactly one"),
        ([{"type": "condition", "field": "x", "value": 1, "else": {}}], (0, "else"), "must be a list"),
        ([MAIL] * 201, (200,), "at most 200 steps"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_its_place(steps: Any, path: tuple[str | int, ...], message: str) -> None:
    found, text = refusal(steps)
    assert found == ("body", "steps", *path)
    assert message in text


def test_nesting_ends_at_ten() -> None:
    steps: list[Any] = [MAIL]
    for _ in range(9):
        steps = [{"type": "condition", "field": "x", "value": 1, "then": steps}]
    definition.read(steps)
    path, message = refusal([{"type": "condition", "field": "x", "value": 1, "then": steps}])
    assert message == "Steps are nested more than 10 deep"
    assert path == ("body", "steps", *(0, "then") * 10)


def test_notes_on_a_step_are_kept_without_effect() -> None:
    definition.read([{"type": "exit", "id": "a", "name": "Bye", "description": "...", "meta": {"x": 1}}])


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=20) | st.sampled_from(list(STEPS)),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
                        st.sampled_from(["type", "action", "hours", "minutes", "field", "operator", "value", "then",
                                         "else", "tag_name", "template_id", "subject", "body", "reason", "meta"]),
                        inner, max_size=6), max_leaves=25))  # fmt: skip
def test_any_json_is_read_or_refused_with_a_place(steps: Any) -> None:
    try:
        read = definition.read(steps)
    except InvalidInput as error:
        assert error.path[:2] == ("body", "steps")
        assert str(error)
        return
    for node in read.nodes.values():
        assert node.after is None or node.after in read.nodes
        assert set(node.branches.values()) <= set(read.nodes)


@pytest.mark.parametrize(
    ("trigger_type", "config", "active", "path"),
    [
        ("cart_abandoned", {}, False, ("trigger_type",)),
        ("tag_added", {}, False, ("trigger_type",)),
        (None, {}, False, ("trigger_type",)),
        ("event", {}, True, ("trigger_config", "event_type")),
        ("event", {"event_type": "x" * 51}, False, ("trigger_config", "event_type")),
        ("event", {"event_type": "order_placed", "where": {"lines": [1]}}, False, ("trigger_config", "where", "lines")),
        ("event", {"event_type": "order_placed", "where": "x"}, False, ("trigger_config", "where")),
        ("signup", {"source": 5}, False, ("trigger_config", "source")),
        ("signup", [], False, ("trigger_config",)),
    ],
)
def test_a_trigger_that_cannot_fire_is_refused(
    trigger_type: object, config: object, active: bool, path: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        definition.check_trigger(trigger_type, config, active=active)
    assert caught.value.path == ("body", *path)


def test_a_draft_may_lack_its_event_and_keep_other_keys() -> None:
    definition.check_trigger("event", {"note": {"a": [1]}}, active=False)
    definition.check_trigger("signup", {"source": "import"}, active=True)
    definition.check_trigger("manual", {}, active=True)


@pytest.mark.parametrize(
    ("re_entry", "exit_on", "path"),
    [
        ({"policy": "never"}, [], ("re_entry", "policy")),
        ({"policy": "cooldown"}, [], ("re_entry", "cooldown_hours")),
        ({"policy": "cooldown", "cooldown_hours": -1}, [], ("re_entry", "cooldown_hours")),
        ({"policy": "once", "until": 1}, [], ("re_entry", "until")),
        ("once", [], ("re_entry",)),
        ({}, "order_placed", ("exit_on",)),
        ({}, ["order_placed", ""], ("exit_on", 1)),
    ],
)  # fmt: skip
def test_an_unsound_entry_is_refused(re_entry: object, exit_on: object, path: tuple[str | int, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        definition.check_entry(re_entry, exit_on)
    assert caught.value.path == ("body", *path)


def test_the_welcome_series_is_a_sound_definition() -> None:
    new = welcome_series(3, 4, delay_hours=48, source="shop")
    read = definition.read(new.steps)
    definition.check_trigger(new.trigger_type, new.trigger_config, active=True)
    definition.check_entry(new.re_entry, new.exit_on)
    assert [type(node.step) for node in read.nodes.values()] == [
        ACTIONS["send_email"], STEPS["delay"], ACTIONS["send_email"], ACTIONS["tag"]]  # fmt: skip
    assert new.trigger_config == {"source": "shop"}


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
    ],
)
def test_operators(operator: str, actual: Any, value: Any, expected: bool) -> None:
    assert holds(operator, actual, value) is expected


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_a_missing_value_passes_only_is_null(operator: str) -> None:
    assert holds(operator, None, ["x"] if "in" in operator else 1) is (operator == "is_null")
