"""Rules that are triggered: by a batch of events, or by hand.

Promise: of each (rule, event) there is one log, whatever is killed or runs in parallel; limits and cooldowns hold
exactly, because the totals of a rule with either are locked before it is looked at. What happened to one person takes
effect in order, of one event by priority; runs of different people are taken together. Conditions are looked at when
it is a rule's turn: an earlier rule may have changed the contact. Called by dispatch (events) and the API (`fire`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select

from mautolib.automations import definition
from mautolib.automations.model import Fired, RuleResult, RunStatus, Skipped
from mautolib.automations.running import ActionRefused, Run, Runner
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.events import chains
from mautolib.events.chains import MOST_LINKS
from mautolib.events.types import SYNONYMS, canonical
from mautolib.settings import Settings

_RULES = tables.automation_rules
#: So few that firing one rule by hand leaves no great gap.
_NUMBERS_AT_ONCE: Final = 100
_SYNONYMS: Final = json.dumps({name: str(kind) for name, kind in SYNONYMS.items()})


@dataclass(kw_only=True, slots=True)
class _Pair:
    """A rule and what triggered it."""

    rule_id: int
    contact_id: int
    passes: bool
    data: Mapping[str, Any] | None
    depth: int = 0
    event_id: int | None = None
    #: Whether an earlier run of the batch may have changed what its conditions say.
    is_open: bool = False
    occurred_at: datetime | None = None
    skipped: Skipped | None = None
    run: Run | None = None

    @property
    def status(self) -> RunStatus:
        return RunStatus.SKIPPED if self.run is None else self.run.status


def take_events(
    tx: Connection,
    settings: Settings,
    event_ids: Sequence[int],
    occurred_ats: Sequence[datetime],
    depths: Sequence[int],
    *,
    now: datetime,
) -> RuleResult:
    """Run the rules that events trigger; parallel sequences name the events and how deep each is in a chain."""
    values = {
        "event_ids": list(event_ids), "occurred_ats": list(occurred_ats), "depths": list(depths),
        "synonyms": _SYNONYMS, "most_links": MOST_LINKS, "contact_fields": sorted(definition.CONTACT_FIELDS),
        "reason": str(Skipped.CONDITIONS), "now": now,
    }  # fmt: skip
    rows = tx.execute(statement("automations.match"), values).all()
    if not rows:
        return RuleResult()
    runner = Runner(tx=tx, settings=settings, now=now, is_careful=False)
    batch = _Batch(tx=tx, settings=settings, now=now, runner=runner)
    batch.load({row.rule_id for row in rows})
    try:
        with tx.begin_nested():
            return _count(batch.work(_pairs(rows), priorities=[row.priority for row in rows]))
    except ActionRefused:
        # Seldom: once more, with every action undone on its own.
        careful = replace(batch, runner=Runner(tx=tx, settings=settings, now=now), touched=set(), ran=set(), runs=[])
        careful.load({row.rule_id for row in rows})
        return _count(careful.work(_pairs(rows), priorities=[row.priority for row in rows]))


def fire(
    tx: Connection, settings: Settings, trigger_type: str, *, contact_id: int, data: Mapping[str, Any], now: datetime
) -> list[Fired]:
    """Run the rules of a trigger type at once, as if its event had happened; by priority.

    Args:
        contact_id: whom it is about; 0: nobody. It need not exist.
        data: what an event would have as properties.
    """
    values = {"trigger_type": canonical(trigger_type), "data": json.dumps(dict(data)), "contact_id": contact_id,
              "synonyms": _SYNONYMS}  # fmt: skip
    rows = tx.execute(statement("automations.match_fired"), values).all()
    pairs = [_Pair(rule_id=row.rule_id, contact_id=contact_id, passes=row.passes, data=data) for row in rows]
    if pairs:
        batch = _Batch(
            tx=tx, settings=settings, now=now, data=data, runner=Runner(tx=tx, settings=settings, now=now)
        )
        batch.load({pair.rule_id for pair in pairs})
        batch.work(pairs, priorities=[row.priority for row in rows])
    return [Fired(rule_id=pair.rule_id, status=pair.status) for pair in pairs]


def _pairs(rows: Sequence[Row[Any]]) -> list[_Pair]:
    return [
        _Pair(rule_id=row.rule_id, contact_id=row.contact_id, passes=row.passes, data=row.data, depth=row.depth,
              event_id=row.event_id, occurred_at=row.occurred_at)
        for row in rows
    ]  # fmt: skip


@dataclass(kw_only=True)
class _Batch:
    """Rules at work in one transaction.

    Args:
        data: what was fired by hand; None: events were.
        asks_contact: rules whose conditions an earlier run may have changed.
        numbers: for the next runs, the least one last.
        touched: contacts that a rule of this batch has acted on.
    """

    tx: Connection
    settings: Settings
    now: datetime
    data: Mapping[str, Any] | None = None
    runner: Runner
    rules: dict[int, Row[Any]] = field(default_factory=dict)
    asks_contact: set[int] = field(default_factory=set)
    numbers: list[int] = field(default_factory=list)
    actions: dict[int, tuple[definition.Action, ...]] = field(default_factory=dict)
    executions: dict[int, int] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    ran: set[tuple[int, int]] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)

    def load(self, rule_ids: set[int]) -> None:
        """Read the rules and hold those with a limit or a cooldown."""
        query = select(_RULES).where(_RULES.c.rule_id.in_(rule_ids))
        self.rules = {row.rule_id: row for row in self.tx.execute(query)}
        self.asks_contact = {one for one, rule in self.rules.items() if definition.asks_contact(rule.conditions)}
        limited = [rule.rule_id for rule in self.rules.values() if rule.max_executions or rule.cooldown_minutes]
        if limited:
            held = self.tx.execute(statement("automations.hold_totals"), {"rule_ids": limited})
            self.executions = {row.rule_id: row.executions for row in held}

    def work(self, pairs: Sequence[_Pair], *, priorities: Sequence[int]) -> Sequence[_Pair]:
        """Take all pairs, given in the order of events and of priority; returns them with what became of each."""
        depth = 0
        with chains.caused(self.tx, 1):
            for turn in self._turns(pairs, priorities):
                if turn[0].depth != depth:
                    depth = turn[0].depth
                    chains.deepen(self.tx, depth + 1)
                self.take(turn)
        self._write(pairs)
        return pairs

    def _turns(self, pairs: Sequence[_Pair], priorities: Sequence[int]) -> Iterator[list[_Pair]]:
        """Pairs that can be taken together: of one rule and depth, everybody's earlier runs before.

        An event moves its contact to the next round only if it may run something: the rest changes nobody.
        """
        turns: dict[tuple[int, int, int, int], list[_Pair]] = {}
        places: dict[int, tuple[int | None, int, bool]] = {}
        for pair, priority in zip(pairs, priorities, strict=True):
            event_id, number, has_run = places.get(pair.contact_id, (pair.event_id, 0, False))
            # What happened to nobody has no order that anybody could tell.
            if event_id != pair.event_id and has_run and pair.contact_id:
                number, has_run = number + 1, False
            may_run = pair.passes or (pair.rule_id in self.asks_contact and (has_run or number > 0))
            pair.is_open = may_run and pair.rule_id in self.asks_contact
            places[pair.contact_id] = (pair.event_id, number, has_run or may_run)
            turns.setdefault((number, -priority, pair.rule_id, pair.depth), []).append(pair)
        for _, turn in sorted(turns.items(), key=lambda item: item[0]):
            yield turn

    def take(self, turn: Sequence[_Pair]) -> None:
        """Run one rule for whom its conditions and limits allow it."""
        rule = self.rules.get(turn[0].rule_id)
        if rule is None:
            return
        if rule.rule_id in self.asks_contact and not self.touched.isdisjoint(pair.contact_id for pair in turn):
            self._look_again(rule, turn)
        wanted = []
        for pair in turn:
            if pair.passes:
                wanted.append(pair)
            else:
                pair.skipped = Skipped.CONDITIONS
        allowed = self._allowed(rule, wanted) if wanted else []
        if allowed:
            self._run(rule, allowed)

    def _write(self, pairs: Sequence[_Pair]) -> None:
        """Log every pair, and put down who waits."""
        skipped = [pair for pair in pairs if pair.skipped is not None]
        if skipped:
            self.tx.execute(statement("automations.write_skipped"), {
                "rule_ids": [pair.rule_id for pair in skipped], "contact_ids": [pair.contact_id for pair in skipped],
                "event_ids": [pair.event_id for pair in skipped], "reasons": [str(pair.skipped) for pair in skipped],
                "now": self.now,
            })  # fmt: skip
        if self.runs:
            self.tx.execute(statement("automations.write_runs"), {"runs": as_json(self.runs), "now": self.now})
        waiting = [run for run in self.runs if run.resume_at is not None]
        if waiting:
            self.tx.execute(insert(tables.automation_waits), [self._wait(run) for run in waiting])

    def _wait(self, run: Run) -> dict[str, Any]:
        return {
            "log_id": run.log_id, "rule_id": run.rule_id, "contact_id": run.contact_id, "resume_at": run.resume_at,
            "next_action": run.next_action, "actions": self.rules[run.rule_id].actions, "data": dict(run.data),
            "depth": run.depth, "begun_at": run.begun_at,
        }  # fmt: skip

    def _look_again(self, rule: Row[Any], turn: Sequence[_Pair]) -> None:
        changed = [pair for pair in turn if pair.is_open and pair.contact_id in self.touched]
        if not changed:
            return
        rows = self.tx.execute(statement("automations.look_again"), {
            "rule_id": rule.rule_id, "contact_ids": [pair.contact_id for pair in changed],
            "event_ids": [pair.event_id for pair in changed],
            "occurred_ats": [pair.occurred_at for pair in changed],
            "data": None if self.data is None else json.dumps(dict(self.data)),
        })  # fmt: skip
        for row in rows:
            pair = changed[row.ordinal - 1]
            pair.passes, pair.data = row.passes, row.data

    def _allowed(self, rule: Row[Any], wanted: Sequence[_Pair]) -> list[_Pair]:
        """Those that neither the limit nor the cooldown stops; the others are marked as skipped."""
        if not rule.max_executions and not rule.cooldown_minutes:
            return list(wanted)
        cooling = self._cooling_down(rule, wanted) if rule.cooldown_minutes else set()
        done = self.executions.get(rule.rule_id, 0)
        allowed = []
        for pair in wanted:
            key = (rule.rule_id, pair.contact_id)
            if rule.max_executions and done >= rule.max_executions:
                pair.skipped = Skipped.LIMIT
            elif rule.cooldown_minutes and pair.contact_id and (pair.contact_id in cooling or key in self.ran):
                pair.skipped = Skipped.COOLDOWN
            else:
                done += 1
                self.ran.add(key)
                allowed.append(pair)
        self.executions[rule.rule_id] = done
        return allowed

    def _cooling_down(self, rule: Row[Any], wanted: Sequence[_Pair]) -> set[int]:
        since = self.now - timedelta(minutes=rule.cooldown_minutes)
        people = [pair.contact_id for pair in wanted]
        values = {"rule_id": rule.rule_id, "contact_ids": people, "since": since}
        return set(self.tx.scalars(statement("automations.cooling_down"), values))

    def _run(self, rule: Row[Any], allowed: Sequence[_Pair]) -> None:
        for pair in allowed:
            pair.run = Run(
                log_id=self._number(), rule_id=rule.rule_id, contact_id=pair.contact_id, event_id=pair.event_id,
                depth=pair.depth + 1, data=pair.data or {}, begun_at=self.now,
            )  # fmt: skip
        runs = [pair.run for pair in allowed if pair.run is not None]
        if rule.rule_id not in self.actions:
            self.actions[rule.rule_id] = definition.read_actions(rule.actions)
        self.runner.act(self.actions[rule.rule_id], runs)
        self.runs += runs
        self.touched.update(run.contact_id for run in runs)

    def _number(self) -> int:
        if not self.numbers:
            self.numbers = list(self.tx.scalars(statement("automations.number_runs"), {"size": _NUMBERS_AT_ONCE}))
            self.numbers.reverse()
        return self.numbers.pop()


def as_json(runs: Sequence[Run]) -> str:
    """Runs as the statements that write them read them."""
    return json.dumps([
        {
            "log_id": run.log_id, "rule_id": run.rule_id, "contact_id": run.contact_id, "event_id": run.event_id,
            "status": run.status, "error": run.error, "duration_ms": run.duration_ms, "actions": run.results,
            "next_action": run.next_action, "resume_at": run.resume_at.isoformat() if run.resume_at else None,
        }
        for run in runs
    ])  # fmt: skip


def _count(pairs: Sequence[_Pair]) -> RuleResult:
    ended = [pair.status for pair in pairs]
    return RuleResult(
        succeeded=ended.count(RunStatus.SUCCESS), failed=ended.count(RunStatus.FAILED),
        waiting=ended.count(RunStatus.WAITING),
    )  # fmt: skip
