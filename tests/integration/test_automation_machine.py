"""The rule engine against a plain model of it: any rules, events, edits and waits, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, Engine, text

from mautolib import automations
from mautolib.automations import NewRule
from mautolib.automations.waiting import go_on
from mautolib.events.append import NewEvent, append
from mautolib.settings import Settings
from tests.builders import make_contact

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
TAGS, COUNTRIES, KINDS = ("a", "b"), ("DE", "AT"), ("ping", "pong")


@dataclass
class Person:
    """What rules may change of a contact."""

    country: str = "DE"
    tags: set[str] = field(default_factory=set)
    points: int = 0


@dataclass
class ModelRule:
    """A rule, and whom it ran for when."""

    kind: str
    config: dict[str, Any]
    conditions: list[dict[str, Any]]
    actions: list[dict[str, Any]]
    priority: int
    most: int
    cooldown: int
    active: bool = True
    executions: int = 0
    ran_at: dict[int, datetime] = field(default_factory=dict)
    logs: list[tuple[int, str, str | None]] = field(default_factory=list)


@dataclass
class Waiting:
    """A run that goes on later."""

    rule_id: int
    contact: int
    log: int
    rest: list[dict[str, Any]]
    due: datetime


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(lambda op, value: {"field": "country", "operator": op, "value": value},
                  st.sampled_from(["eq", "neq"]), st.sampled_from(COUNTRIES)),
        st.builds(lambda tag: {"field": "tags", "operator": "contains", "value": tag}, st.sampled_from(TAGS)),
        st.builds(lambda op: {"field": "tags", "operator": op}, st.sampled_from(["is_set", "not_set"])),
        st.builds(lambda op, value: {"field": "n", "operator": op, "value": value},
                  st.sampled_from(["eq", "neq", "gt", "gte", "lt", "lte"]), st.integers(0, 3)),
        st.builds(lambda values: {"field": "n", "operator": "in", "value": values},
                  st.lists(st.integers(0, 3), min_size=1, max_size=2)),
    )  # fmt: skip


def actions() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(lambda kind, tag: {"type": kind, "config": {"tag_name": tag}},
                  st.sampled_from(["add_tag", "remove_tag"]), st.sampled_from(TAGS)),
        st.builds(lambda value: {"type": "update_field", "config": {"field": "country", "value": value}},
                  st.sampled_from(COUNTRIES)),
        st.builds(lambda points: {"type": "update_score", "config": {"points": points}}, st.integers(1, 3)),
        st.builds(lambda minutes: {"type": "wait_delay", "config": {"minutes": minutes}}, st.sampled_from([5, 30])),
    )  # fmt: skip


def holds(condition: dict[str, Any], data: dict[str, Any], person: Person | None) -> bool:
    """One condition, as the contract words it."""
    known: dict[str, Any] = {} if person is None else {"country": person.country, "tags": sorted(person.tags)}
    actual = data.get(condition["field"], known.get(condition["field"]))
    operator, value = condition["operator"], condition.get("value")
    if operator in ("is_set", "not_set"):
        return (actual not in (None, "", [])) == (operator == "is_set")
    if operator in ("eq", "neq"):
        return bool(actual == value) == (operator == "eq")
    if actual is None:
        return False
    return bool({
        "gt": lambda: actual > value, "gte": lambda: actual >= value, "lt": lambda: actual < value,
        "lte": lambda: actual <= value, "contains": lambda: value in actual, "in": lambda: actual in value,
    }[operator]())  # fmt: skip


class Machine(RuleBasedStateMachine):
    """Rules and two people in one transaction that is rolled back."""

    engine: Engine
    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self.connection: Connection = self.engine.connect()
        self.outer = self.connection.begin()
        self.now = START
        self.people: dict[int, Person] = {make_contact(self.connection, country="DE"): Person() for _ in range(2)}
        self.drawn: dict[int, ModelRule] = {}
        self.waits: list[Waiting] = []
        #: Runs that began, in their order.
        self.begun: list[tuple[int, int]] = []
        #: What the actions before a wait came to.
        self.before: dict[tuple[int, int], str] = {}

    def teardown(self) -> None:
        """Leave nothing."""
        self.outer.rollback()
        self.connection.close()

    @initialize(data=st.data())
    def some_rules(self, data: st.DataObject) -> None:
        for _ in range(data.draw(st.integers(1, 4))):
            made = ModelRule(
                kind=data.draw(st.sampled_from(KINDS)), config=data.draw(st.sampled_from([{}, {}, {"n": 1}])),
                conditions=data.draw(st.lists(conditions(), max_size=2)),
                actions=data.draw(st.lists(actions(), max_size=3)), priority=data.draw(st.integers(-1, 1)),
                most=data.draw(st.sampled_from([0, 0, 2, 5])), cooldown=data.draw(st.sampled_from([0, 0, 10])),
            )  # fmt: skip
            new = NewRule(
                name="r", trigger_type=made.kind, trigger_config=made.config, conditions=made.conditions,
                actions=made.actions, priority=made.priority, max_executions=made.most, cooldown_minutes=made.cooldown,
            )  # fmt: skip
            self.drawn[automations.create(self.connection, new, actor="test", now=START).rule_id] = made

    @rule(minutes=st.sampled_from([1, 5, 10, 30]))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(data=st.data())
    def a_rule_is_edited(self, data: st.DataObject) -> None:
        rule_id = data.draw(st.sampled_from(sorted(self.drawn)))
        edited = self.drawn[rule_id]
        edited.active, edited.most = data.draw(st.booleans()), data.draw(st.sampled_from([0, 3]))
        edited.actions = data.draw(st.lists(actions(), max_size=3))
        changes = {"active": edited.active, "max_executions": edited.most, "actions": edited.actions}
        automations.update(self.connection, rule_id, changes, actor="test")

    @rule(who=st.integers(0, 1), told=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), min_size=1,
                                               max_size=4))  # fmt: skip
    def events_happen(self, who: int, told: list[tuple[str, int]]) -> None:
        contact = sorted(self.people)[who]
        moments = [self.now - timedelta(seconds=len(told) - place) for place in range(len(told))]
        events = [
            NewEvent(event_type=kind, contact_id=contact, occurred_at=moment, source="shop", properties={"n": n})
            for (kind, n), moment in zip(told, moments, strict=True)
        ]
        stored = append(self.connection, events, now=self.now, effects=False).entries
        ids = [one.event_id for one in stored]
        automations.take_events(self.connection, self.settings, ids, moments, [0] * len(ids), now=self.now)
        for kind, n in told:
            self._happens(kind, contact, {"n": n})

    @rule(who=st.integers(0, 2), kind=st.sampled_from(KINDS), data=st.sampled_from([{}, {"n": 1}, {"country": "AT"}]))
    def somebody_fires(self, who: int, kind: str, data: dict[str, Any]) -> None:
        contact = [*sorted(self.people), 0][who]
        done = automations.fire(self.connection, self.settings, kind, contact_id=contact, data=data, now=self.now)
        assert [(one.rule_id, str(one.status)) for one in done] == self._happens(kind, contact, data)

    @rule()
    def waits_end(self) -> None:
        go_on(self.connection, self.settings, now=self.now, size=1000)
        due = [wait for wait in self.waits if wait.due <= self.now]
        self.waits = [wait for wait in self.waits if wait.due > self.now]
        for wait in sorted(due, key=lambda wait: (wait.due, self.begun.index((wait.rule_id, wait.log)))):
            self._act(wait.rule_id, wait.contact, wait.rest, wait.log)

    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        for rule_id, made in self.drawn.items():
            logs = automations.logs(self.connection, rule_id, limit=1000)
            reasons = {"Conditions not met", "Execution limit reached", "Cooldown active"}
            found = [(one.contact_id, str(one.status), one.error if one.error in reasons else None) for one in logs]
            assert sorted(found, key=str) == sorted(made.logs, key=str)
            assert automations.get(self.connection, rule_id).total_executions == made.executions

    def _happens(self, kind: str, contact: int, data: dict[str, Any]) -> list[tuple[int, str]]:
        done = []
        for rule_id, made in sorted(self.drawn.items(), key=lambda item: (-item[1].priority, item[0])):
            matches = all(data.get(key) == value for key, value in made.config.items())
            if not made.active or made.kind != kind or not matches:
                continue
            last = made.ran_at.get(contact)
            if not all(holds(one, data, self.people.get(contact)) for one in made.conditions):
                made.logs.append((contact, "skipped", "Conditions not met"))
            elif made.most and made.executions >= made.most:
                made.logs.append((contact, "skipped", "Execution limit reached"))
            elif made.cooldown and contact and last is not None and self.now < last + timedelta(minutes=made.cooldown):
                made.logs.append((contact, "skipped", "Cooldown active"))
            else:
                made.executions += 1
                made.ran_at[contact] = self.now
                made.logs.append((contact, "success", None))
                self.begun.append((rule_id, len(made.logs) - 1))
                self._act(rule_id, contact, made.actions, len(made.logs) - 1)
            done.append((rule_id, made.logs[-1][1]))
        return done

    def _act(self, rule_id: int, contact: int, todo: list[dict[str, Any]], log: int) -> None:
        logs, person, status = self.drawn[rule_id].logs, self.people.get(contact), "success"
        if logs[log][1] == "waiting":
            status = self.before[rule_id, log]
        for place, action in enumerate(todo):
            config = action["config"]
            if action["type"] == "wait_delay":
                if todo[place + 1 :]:
                    due = self.now + timedelta(minutes=config["minutes"])
                    self.waits.append(Waiting(rule_id, contact, log, todo[place + 1 :], due))
                    self.before[rule_id, log] = status
                    status = "waiting"
                    break
            elif person is None:
                status = "failed"
            elif action["type"] == "add_tag":
                person.tags.add(config["tag_name"])
            elif action["type"] == "remove_tag":
                person.tags.discard(config["tag_name"])
            elif action["type"] == "update_field":
                person.country = config["value"]
            else:
                person.points += config["points"]
        logs[log] = (contact, status, None)

    @invariant()
    def the_people_are_as_in_the_model(self) -> None:
        rows = self.connection.execute(text(
            "select contact_id, country, array(select name from contact_tags inner join tags using (tag_id)"
            " where contact_tags.contact_id = contacts.contact_id order by name) as tags,"
            " coalesce((select sum(points) from score_awards where contact_id = contacts.contact_id), 0) as points"
            " from contacts where contact_id = any(:ids)"), {"ids": sorted(self.people)})  # fmt: skip
        for row in rows:
            person = self.people[row.contact_id]
            assert (row.country, list(row.tags), row.points) == (person.country, sorted(person.tags), person.points)


def run(engine: Engine, given: Settings, examples: int, steps: int) -> None:
    made = type("Bound", (Machine,), {"engine": engine, "settings": given})
    run_state_machine_as_test(made, settings=hypothesis_settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    ))  # fmt: skip


def test_rules_do_what_the_model_does(engine: Engine, settings: Settings) -> None:
    run(engine, settings, 10, 12)


@pytest.mark.slow
def test_rules_do_what_the_model_does_for_long(engine: Engine, settings: Settings) -> None:
    run(engine, settings, 500, 50)
