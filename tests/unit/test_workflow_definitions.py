"""Reading definitions: what is accepted knows its way, what cannot run is refused at its place."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib.errors import InvalidInput
from mautolib.workflows import definition, triggers
from mautolib.workflows.model import TriggerType
from mautolib.workflows.steps import STEPS
from mautolib.workflows.steps.delay import Delay, Until
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.goal import Goal
from mautolib.workflows.steps.wait_for_event import OnTimeout, WaitForEvent

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
        ([{"type": "teleport"}], (0, "type"), "one of condition, delay, exit"),
        ([{"type": ["delay"]}], (0, "type"), "one of"),
        ([{"action": "teleport"}], (0, "action"), "must be one of"),
        ([{}], (0, "action"), "'action' is required"),
        ([{"type": "delay"}], (0,), "exactly one of 'hours', 'minutes' and 'until'"),
        ([{"type": "delay", "hours": 1, "minutes": 1}], (0,), "exactly one"),
        ([{"type": "delay", "hours": 8761}], (0, "hours"), "at most 8760"),
        ([{"type": "delay", "hours": 0}], (0, "hours"), "more than 0"),
        ([{"type": "delay", "hours": True}], (0, "hours"), "must be a number"),
        ([{"type": "delay", "hours": float("nan")}], (0, "hours"), "must be finite"),
        ([{"type": "delay", "hours": 10**400}], (0, "hours"), "at most 8760"),
        ([{"type": "delay", "hours": "2"}], (0, "hours"), "must be a number"),
        ([{"type": "delay", "hours": 1, "until": {"time": "09:00"}}], (0,), "exactly one"),
        ([{"type": "delay", "until": "09:00"}], (0, "until"), "must be an object"),
        ([{"type": "delay", "until": {}}], (0, "until", "time"), "required"),
        ([{"type": "delay", "until": {"time": "24:00"}}], (0, "until", "time"), "00:00 to 23:59"),
        ([{"type": "delay", "until": {"time": "9:00"}}], (0, "until", "time"), "00:00 to 23:59"),
        ([{"type": "delay", "until": {"time": "\u0661\u0661:00"}}], (0, "until", "time"), "00:00 to 23:59"),
        ([{"type": "delay", "until": {"time": "09:00", "weekdays": []}}], (0, "until", "weekdays"), "1 (Monday)"),
        ([{"type": "delay", "until": {"time": "09:00", "weekdays": [0]}}], (0, "until", "weekdays"), "1 (Monday)"),
        ([{"type": "delay", "until": {"time": "09:00", "weekdays": [True]}}], (0, "until", "weekdays"), "1 (Monday)"),
        ([{"type": "delay", "until": {"time": "09:00", "timezone": "Mars"}}], (0, "until", "timezone"), "IANA"),
        ([{"type": "delay", "until": {"time": "09:00", "hour": 1}}], (0, "until", "hour"), "Unknown key"),
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
        ([{"type": "condition", "field": "custom_fields.", "value": 1}], (0, "field"), "followed by a key"),
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


_LEAVES = st.sampled_from([
    MAIL, {"action": "tag", "tag_name": "x"}, {"type": "delay", "minutes": 5}, {"type": "exit"},
    {"type": "goal", "event_type": "order_placed"},
])  # fmt: skip


def _lists(inner: st.SearchStrategy[Any], kind: dict[str, Any]) -> st.SearchStrategy[Any]:
    branch = st.lists(inner, max_size=3)
    return st.fixed_dictionaries({key: st.just(value) for key, value in kind.items()},
                                 optional={"then": branch, "else": branch})  # fmt: skip


_DEFINITIONS = st.lists(
    st.recursive(
        _LEAVES,
        lambda inner: _lists(inner, {"type": "condition", "field": "x", "value": 1})
        | _lists(inner, {"type": "wait_for_event", "event_type": "x"}),
        max_leaves=40,
    ),
    max_size=6,
)


def _written(steps: list[dict[str, Any]]) -> int:
    return sum(1 + sum(_written(step.get(name, [])) for name in ("then", "else")) for step in steps)


def _depth(steps: list[dict[str, Any]]) -> int:
    return 1 + max((_depth(step[name]) for step in steps for name in ("then", "else") if name in step), default=0)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(_DEFINITIONS)
@pytest.mark.thorough
def test_every_way_through_a_definition_ends(steps: list[dict[str, Any]]) -> None:
    try:
        read = definition.read(steps)
    except InvalidInput:
        assert _depth(steps) > 10 or _written(steps) > 200
        return
    assert len(read.nodes) == _written(steps), "every step has a path of its own"
    order = {path: number for number, path in enumerate(read.nodes)}
    for path, node in read.nodes.items():
        assert node.path == path and node.index == int(path.split(".")[0])
        ways = {read.following(node, name) for name in (None, "then", "else")}
        # Every way leads on in the order the steps are written: nobody goes round, and all come to the end.
        assert all(way is None or order[way] > order[path] for way in ways)
        rest = [other.path for other in read.rest(node)]
        assert len(set(rest)) == len(rest) and all(order[other] > order[path] for other in rest)
    reached = {"0"} if steps else set()
    for path, node in read.nodes.items():
        if path in reached:
            reached |= {way for way in (read.following(node, name) for name in (None, "then", "else")) if way}
    assert reached == set(read.nodes), "no step is out of reach"


@pytest.mark.parametrize(
    ("trigger_type", "config", "active", "path"),
    [
        ("teleport", {}, False, ("trigger_type",)),
        (["event"], {}, False, ("trigger_type",)),
        (None, {}, False, ("trigger_type",)),
        ("event", {}, True, ("trigger_config", "event_type")),
        ("event", {"event_type": "x" * 51}, False, ("trigger_config", "event_type")),
        ("event", {"event_type": "order_placed", "where": {"lines": [1]}}, False, ("trigger_config", "where", "lines")),
        ("event", {"event_type": "order_placed", "where": "x"}, False, ("trigger_config", "where")),
        ("signup", {"source": 5}, False, ("trigger_config", "source")),
        ("signup", [], False, ("trigger_config",)),
        ("manual", {"note": {"deep": ["a\0b"]}}, False, ("trigger_config", "note", "deep", 0)),
        ("manual", {"a\0b": 1}, False, ("trigger_config",)),
        ("manual", {"note": "\ud800"}, False, ("trigger_config", "note")),
        ("manual", {"note": float("inf")}, False, ("trigger_config", "note")),
        ("tag_added", {"tag_name": ""}, False, ("trigger_config", "tag_name")),
        ("tag_added", {"tag_name": "a" * 101}, False, ("trigger_config", "tag_name")),
        ("segment_entered", {}, True, ("trigger_config", "segment_id")),
        ("segment_entered", {"segment_id": "x"}, False, ("trigger_config", "segment_id")),
        ("cart_abandoned", {"after_minutes": 0}, False, ("trigger_config", "after_minutes")),
        ("cart_abandoned", {"after_minutes": 43201}, False, ("trigger_config", "after_minutes")),
        ("cart_abandoned", {"after_minutes": 1.5}, False, ("trigger_config", "after_minutes")),
        ("cart_abandoned", {"min_total": "-1"}, False, ("trigger_config", "min_total")),
        ("cart_abandoned", {"min_total": "1.00001"}, False, ("trigger_config", "min_total")),
        ("date", {}, True, ("trigger_config", "on")),
        ("date", {"on": "2027-02-29"}, False, ("trigger_config", "on")),
        ("date", {"on": "2200-01-01"}, False, ("trigger_config", "on")),
        ("date", {"on": "2027-02-28", "at": "25:00"}, False, ("trigger_config", "at")),
        ("anniversary", {}, True, ("trigger_config", "field")),
        ("anniversary", {"field": "email"}, False, ("trigger_config", "field")),
        ("anniversary", {"field": "custom_fields."}, False, ("trigger_config", "field")),
        ("anniversary", {"field": "created_at", "offset_days": 366}, False, ("trigger_config", "offset_days")),
        ("anniversary", {"field": "created_at", "local_time": 1}, False, ("trigger_config", "local_time")),
        ("webhook", {"source_id": "x"}, False, ("trigger_config", "source_id")),
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
    for trigger_type in ("segment_entered", "date", "anniversary"):
        definition.check_trigger(trigger_type, {}, active=False)


def test_triggers_have_the_defaults_of_their_keys() -> None:
    def read(trigger_type: str, **config: Any) -> triggers.Trigger:
        return triggers.read(trigger_type, config, active=True)[0]

    assert read("cart_abandoned") == triggers.CartAbandoned(after_minutes=60, min_total=None)
    assert read("cart_abandoned", min_total=25.5) == triggers.CartAbandoned(min_total=Decimal("25.5"))
    assert read("date", on="2027-02-28") == triggers.Date(on=date(2027, 2, 28), at=time(9))
    found = read("anniversary", field="custom_fields.birthday")
    assert found == triggers.Anniversary(field="custom_fields.birthday", offset_days=0, at=time(9), local_time=True)
    assert read("event", event_type="opened", where={"url": "x"}) == triggers.Event(
        event_type="email_opened", where={"url": "x"})  # fmt: skip
    assert read("segment_entered", segment_id="7") == triggers.SegmentEntered(segment_id=7)
    assert set(triggers.TRIGGERS) == set(TriggerType)


def fields(**raw: Any) -> Fields:
    return Fields(raw, ("body", "steps", 0))


def test_waits_and_goals_know_what_they_wait_for() -> None:
    wait = WaitForEvent.read(fields(event_type="opened"))
    assert wait == WaitForEvent(event_type="email_opened", where={}, timeout_hours=72, on_timeout=OnTimeout.CONTINUE)
    wait = WaitForEvent.read(fields(event_type="x", where={"a": 1}, timeout_hours=1, on_timeout="exit", then=[]))
    assert (wait.where, wait.timeout_hours, wait.on_timeout, wait.given) == ({"a": 1}, 1, "exit", frozenset({"then"}))
    assert Goal.read(fields(event_type="x", where={"a": None})) == Goal(event_type="x", where={"a": None})
    assert Goal.read(fields(segment_id="9")) == Goal(segment_id=9)
    until = Delay.read(fields(until={"time": "09:30", "weekdays": [1, 5], "timezone": "Asia/Tokyo"}))
    expected = Until(time=time(9, 30), weekdays=frozenset({1, 5}), timezone="Asia/Tokyo")
    assert until == Delay(unit="until", until=expected)


@pytest.mark.parametrize(
    ("step", "raw", "path"),
    [
        (WaitForEvent, {}, ("event_type",)),
        (WaitForEvent, {"event_type": "x" * 51}, ("event_type",)),
        (WaitForEvent, {"event_type": "x", "where": {"a": []}}, ("where", "a")),
        (WaitForEvent, {"event_type": "x", "timeout_hours": 0}, ("timeout_hours",)),
        (WaitForEvent, {"event_type": "x", "timeout_hours": 8761}, ("timeout_hours",)),
        (WaitForEvent, {"event_type": "x", "on_timeout": "stop"}, ("on_timeout",)),
        (Goal, {}, ()),
        (Goal, {"event_type": "x", "segment_id": "1"}, ()),
        (Goal, {"segment_id": "0"}, ("segment_id",)),
    ],
)
def test_what_cannot_be_waited_for_is_refused(step: Any, raw: dict[str, Any], path: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        step.read(fields(**raw))
    assert caught.value.path == ("body", "steps", 0, *path)


@pytest.mark.parametrize("value", ["a\0b", "\ud800", float("nan"), {"deep": [{"a\0": 1}]}])
def test_what_the_database_cannot_hold_is_refused_at_its_place(value: Any) -> None:
    path, _ = refusal([MAIL, {"type": "exit", "meta": {"x": value}}])
    assert path[:5] == ("body", "steps", 1, "meta", "x")


def test_nesting_without_end_is_refused() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    path, message = refusal([{"type": "exit", "meta": {"x": deep}}])
    assert message == "This is nested more than 32 deep"
    assert len(path) < 40


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
