"""The engine against a plain model of it, by random histories: entering, waiting, goals, leaving, at whatever pace.

A short profile runs by default; 500 histories of 50 moves belong to the slow tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from mautolib import dispatch, workflows
from mautolib.events.append import NewEvent, append
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow
from tests.builders import make_contact

BEGIN = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
STEPS: list[dict[str, Any]] = [
    {"type": "delay", "hours": 2},
    {"type": "wait_for_event", "event_type": "answer", "timeout_hours": 5, "then": [{"type": "delay", "hours": 1}]},
    {"type": "goal", "event_type": "buy"},
    {"type": "delay", "hours": 3},
]
HOURS = {"0": 2, "1": 5, "1.then.0": 1, "3": 3}
BEHIND = {"0": "1", "1": "2", "1.then.0": "2", "2": "3"}
KINDS = ("join", "leave", "answer", "buy")
POLICIES = ("always", "once", "after_exit")


@dataclass
class One:
    """An enrollment as it should be."""

    contact: int
    caused: datetime
    status: str = "running"
    path: str = "0"
    arrived: datetime = BEGIN
    until: datetime = BEGIN
    logs: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        return self.status in ("running", "waiting")


class Model:
    """What should become of everybody, one after the other and in plain words."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.all: list[One] = []
        self.told: list[tuple[int, str, datetime]] = []
        self.pending: list[tuple[int, str, datetime]] = []

    def happen(self, contact: int, kind: str, at: datetime) -> None:
        self.told.append((contact, kind, at))
        self.pending.append((contact, kind, at))

    def turn(self, now: datetime) -> None:
        pending, self.pending = self.pending, []
        for contact, kind, at in pending:
            theirs = [one for one in self.all if one.contact == contact]
            if kind == "leave":
                for one in theirs:
                    if one.is_open and one.caused < at:
                        one.status = "exited"
            if kind == "join" and self._may_enter(theirs):
                self.all.append(One(contact=contact, caused=at, arrived=at))
        for one in self.all:
            heard = any(contact == one.contact and kind in ("answer", "buy") and at > one.caused
                        for contact, kind, at in pending)  # fmt: skip
            if one.status == "running":
                self._arrive(one, "0", one.caused, now)
            elif one.status == "waiting" and (one.until <= now or heard):
                self._look(one, now)

    def _may_enter(self, theirs: list[One]) -> bool:
        if self.policy == "once":
            return not theirs
        return self.policy == "always" or not any(one.is_open for one in theirs)

    def _first(self, one: One, kind: str, after: datetime, until: datetime | None = None) -> datetime | None:
        found = [at for contact, what, at in self.told
                 if (contact, what) == (one.contact, kind) and after < at and (until is None or at <= until)]
        return min(found, default=None)

    def _jumps(self, one: One, path: str, since: datetime, now: datetime) -> bool:
        bought = self._first(one, "buy", one.caused)
        if path == "3" or bought is None:
            return False
        one.logs.append(("2", True))
        self._arrive(one, "3", max(bought, since), now)
        return True

    def _look(self, one: One, now: datetime) -> None:
        if self._jumps(one, one.path, one.arrived, now):
            return
        if one.path == "1":
            answered = self._first(one, "answer", one.arrived, one.until)
            if answered is not None:
                one.logs.append(("1", True))
                self._arrive(one, "1.then.0", answered, now)
            elif one.until <= now:
                one.logs.append(("1", False))
                self._arrive(one, "2", one.until, now)
        elif one.until <= now:
            self._arrive(one, BEHIND.get(one.path), one.until, now)

    def _arrive(self, one: One, path: str | None, since: datetime, now: datetime) -> None:
        if path is None:
            one.status = "completed"
            return
        if path == "2":
            one.logs.append(("2", self._first(one, "buy", one.caused) is not None))
            path = "3"
        until = now + HOURS[path] * HOUR
        if path == "1":
            answered = self._first(one, "answer", since, until)
            if answered is not None:
                one.logs.append(("1", True))
                self._arrive(one, "1.then.0", answered, now)
                return
        else:
            one.logs.append((path, None))
        if not self._jumps(one, path, since, now):
            one.status, one.path, one.arrived, one.until = "waiting", path, since, until


Moves = list[tuple[str, int, int]]
_MOVES = st.tuples(st.sampled_from((*KINDS, "turn", "turn")), st.integers(0, 1), st.sampled_from((1, 20, 61, 130, 400)))


def play(engine: Engine, given_settings: Settings, policy: str, moves: Moves) -> None:
    """Play a history on both and compare after each turn; the database is as before afterwards."""
    model, now = Model(policy), BEGIN
    with engine.begin() as tx:
        new = NewWorkflow(name="Model", trigger_type="event", trigger_config={"event_type": "join"}, active=True,
                          steps=STEPS, exit_on=["leave"], re_entry={"policy": policy})  # fmt: skip
        workflows.create(tx, new, actor="test", now=BEGIN)
        people = [make_contact(tx), make_contact(tx)]
    try:
        for kind, who, minutes in [*moves, ("turn", 0, 1)]:
            now += timedelta(minutes=minutes)
            if kind != "turn":
                model.happen(people[who], kind, now)
                with engine.begin() as tx:
                    event = NewEvent(event_type=kind, contact_id=people[who], occurred_at=now, source="t")
                    append(tx, [event], now=now)
                continue
            model.turn(now)
            dispatch.run(engine, given_settings, now=now)
            workflows.advance(engine, given_settings, now=now)
            assert list(stored(engine)) == list(expected(model))
    finally:
        with engine.begin() as tx:
            tx.execute(text("truncate workflows, enrollments, workflow_logs, contacts, event_pending, outbox cascade"))
            tx.execute(text("delete from events"))


def expected(model: Model) -> Iterator[tuple[Any, ...]]:
    """Everybody, in an order that both know."""
    for one in sorted(model.all, key=lambda one: (one.contact, one.caused)):
        until = one.until if one.status == "waiting" else None
        yield one.contact, one.caused, one.status, until, sorted(one.logs, key=str)


def stored(engine: Engine) -> Iterator[tuple[Any, ...]]:
    """The same from the database."""
    with engine.begin() as tx:
        logs: dict[int, list[tuple[str, Any]]] = {}
        for row in tx.execute(text("select enrollment_id, step_path, result from workflow_logs")):
            shown = row.result.get("matched", row.result.get("goal_reached"))
            logs.setdefault(row.enrollment_id, []).append((row.step_path, shown))
        rows = tx.execute(text("select * from enrollments order by contact_id, caused_at")).all()
    for row in rows:
        yield (row.contact_id, row.caused_at, row.status, row.resume_at,
               sorted(logs.get(row.enrollment_id, []), key=str))  # fmt: skip


@profile(max_examples=15, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
@given(policy=st.sampled_from(POLICIES), moves=st.lists(_MOVES, min_size=5, max_size=20))
@pytest.mark.thorough
def test_short_histories(fresh_engine: Engine, settings: Settings, policy: str, moves: Moves) -> None:
    play(fresh_engine, settings, policy, moves)


@pytest.mark.slow
@profile(max_examples=500, deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
@given(policy=st.sampled_from(POLICIES), moves=st.lists(_MOVES, min_size=50, max_size=50))
def test_long_histories(fresh_engine: Engine, settings: Settings, policy: str, moves: Moves) -> None:
    play(fresh_engine, settings, policy, moves)
