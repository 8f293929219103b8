"""Recomputations: whole days, whatever is killed; nothing current is touched; twice is once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text

from mautolib.db import tables
from mautolib.db.statements import load
from mautolib.errors import InvalidInput, PermanentError
from mautolib.scoring import NewRule, recalculate, recomputations
from mautolib.scoring.recomputations import LEASE, MOST_TRIES, RecomputationStatus
from mautolib.scoring.rules import change_rule, create_rule
from tests.builders import NOW, ago, make_contact, make_event

FIRST, LAST = NOW.date() - timedelta(days=4), NOW.date() - timedelta(days=1)
Clock = Callable[[], datetime]


def clock_at(moment: datetime) -> Clock:
    return lambda: moment


def ask(engine: Engine, **options: Any) -> int:
    wanted = {"from_day": FIRST, "to_day": LAST, "actor": "user:1", "now": NOW, **options}
    with engine.begin() as tx:
        return recomputations.request(tx, **wanted).recomputation_id


def get(engine: Engine, recomputation_id: int) -> recomputations.Recomputation:
    with engine.begin() as tx:
        return recomputations.get(tx, recomputation_id)


def due_at(engine: Engine) -> datetime | None:
    with engine.begin() as tx:
        found: datetime | None = tx.scalar(text(load("queues")["score_recomputations_due"].sql))
        return found


def history(engine: Engine) -> list[tuple[Any, ...]]:
    table = tables.score_history
    columns = [column for column in table.c if column.name != "recorded_at"]
    with engine.begin() as tx:
        rows = tx.execute(select(*columns).where(table.c.source == "recomputed").order_by(*columns[:2]))
        return [tuple(row) for row in rows]


def current(engine: Engine) -> list[list[tuple[Any, ...]]]:
    kept = (tables.contact_scores, tables.contact_stages, tables.stage_transitions)
    with engine.begin() as tx:
        return [[tuple(row) for row in tx.execute(select(table).order_by(table.c.contact_id))] for table in kept]


@pytest.fixture
def people(fresh_engine: Engine) -> list[int]:
    """Three contacts with a rule and an event a day, scored last night."""
    with fresh_engine.begin() as tx:
        create_rule(tx, NewRule(name="Form", event_type="form_submitted", points=10), actor="test", now=NOW)
        made = [make_contact(tx) for _ in range(3)]
        for contact in made[:2]:
            for days in range(6):
                make_event(tx, contact, "form_submitted", ago(days=days, hours=-6))
    recalculate(fresh_engine, as_of=NOW)
    return made


def test_each_day_is_scored_as_of_its_midnight_and_nothing_current_moves(
    fresh_engine: Engine, people: list[int]
) -> None:
    before = current(fresh_engine)
    asked = ask(fresh_engine)
    assert due_at(fresh_engine) == NOW
    (done,) = recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    assert (done.recomputation_id, done.status, done.done_through) == (asked, RecomputationStatus.COMPLETED, LAST)
    assert (done.contacts, done.snapshots, done.finished_at, done.error) == (3, 12, NOW, None)
    assert done.grade_matrix == {"B+": {"B": 2}, "F": {"F": 1}}
    found = [(row[0], row[1].date(), row[3]) for row in history(fresh_engine) if row[0] == people[0]]
    assert found == [(people[0], FIRST + timedelta(days=day), 10.0 + 10 * day) for day in range(4)]
    assert current(fresh_engine) == before
    assert due_at(fresh_engine) is None
    assert recomputations.run_waiting(fresh_engine, clock=clock_at(NOW)) == []


def test_twice_adds_nothing_and_an_old_version_is_another_thing(fresh_engine: Engine, people: list[int]) -> None:
    ask(fresh_engine)
    recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    rows = history(fresh_engine)
    again = ask(fresh_engine)
    recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    assert history(fresh_engine) == rows and get(fresh_engine, again).snapshots == 0
    with fresh_engine.begin() as tx:
        rule = tx.scalar(select(tables.scoring_rules.c.rule_id))
        change_rule(tx, rule, {"points": 1}, actor="test", now=NOW)
    newer = ask(fresh_engine)
    recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    assert get(fresh_engine, newer).snapshots == 12
    added = [row for row in history(fresh_engine) if row not in rows]
    assert {row[9] for row in added} == {get(fresh_engine, newer).rule_version}


def test_what_arrived_later_is_ignored(fresh_engine: Engine, people: list[int]) -> None:
    with fresh_engine.begin() as tx:
        make_event(tx, people[2], "form_submitted", ago(days=5), received_at=ago(hours=1))
    ask(fresh_engine, known_at=ago(hours=2), to_day=FIRST)
    recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    assert [row[3] for row in history(fresh_engine) if row[0] == people[2]] == [0]


def test_rules_edited_meanwhile_change_no_day(fresh_engine: Engine, people: list[int], monkeypatch: Any) -> None:
    asked = ask(fresh_engine)
    version = get(fresh_engine, asked).rule_version

    def edit(number: int) -> None:
        with fresh_engine.begin() as tx:
            rule = tx.scalar(select(tables.scoring_rules.c.rule_id))
            change_rule(tx, rule, {"points": 100 + number}, actor="test", now=NOW)

    each_day(monkeypatch, edit)
    recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    assert {row[9] for row in history(fresh_engine)} == {version}
    assert max(row[3] for row in history(fresh_engine)) == 40


def each_day(monkeypatch: Any, hook: Callable[[int], None]) -> None:
    """Call `hook` with the number of the day before each evaluation."""
    real, numbers = recomputations.recalculate_within, iter(range(100))

    def wrapped(tx: Connection, **options: Any) -> Any:
        hook(next(numbers))
        return real(tx, **options)

    monkeypatch.setattr(recomputations, "recalculate_within", wrapped)


class Killed(BaseException):
    """What no handler stops."""


def test_a_kill_leaves_whole_days_and_another_goes_on(
    fresh_engine: Engine, people: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(fresh_engine)

    def kill(number: int) -> None:
        if number == 2:
            raise Killed

    with monkeypatch.context() as patched:
        each_day(patched, kill)
        with pytest.raises(Killed):
            recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    left = get(fresh_engine, asked)
    assert (left.status, left.done_through, left.snapshots) == ("running", FIRST + timedelta(days=1), 6)
    assert len(history(fresh_engine)) == 6
    assert due_at(fresh_engine) == NOW + LEASE
    assert recomputations.run_waiting(fresh_engine, clock=clock_at(NOW + LEASE / 2)) == [], "the lease runs"
    (done,) = recomputations.run_waiting(fresh_engine, clock=clock_at(NOW + LEASE))
    assert (done.status, done.snapshots, len(history(fresh_engine))) == ("completed", 12, 12)


def test_a_day_that_goes_wrong_is_tried_again_and_says_why(
    fresh_engine: Engine, people: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, other = ask(fresh_engine), ask(fresh_engine, from_day=LAST)

    def fail(number: int) -> None:
        if number in (1, 2):
            raise PermanentError("the disk is full")

    each_day(monkeypatch, fail)
    worked = recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    assert [(one.recomputation_id, one.status) for one in worked] == [(asked, "running"), (other, "running")]
    left = get(fresh_engine, asked)
    assert (left.done_through, left.error) == (FIRST, "PermanentError: the disk is full")
    later = NOW + timedelta(minutes=5)
    recomputations.run_waiting(fresh_engine, clock=clock_at(later))
    assert [(get(fresh_engine, one).status, get(fresh_engine, one).error) for one in (asked, other)] == [
        ("completed", None), ("completed", None),
    ]  # fmt: skip


def test_what_goes_wrong_again_and_again_is_given_up(
    fresh_engine: Engine, people: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(fresh_engine)

    def fail(_: int) -> None:
        with fresh_engine.begin() as tx:
            tx.execute(text("select 1 / 0"))

    each_day(monkeypatch, fail)
    moment = NOW
    for _ in range(MOST_TRIES):
        assert due_at(fresh_engine) is not None
        recomputations.run_waiting(fresh_engine, clock=clock_at(moment))
        moment += timedelta(minutes=5)
    left = get(fresh_engine, asked)
    assert (left.status, left.error, left.done_through) == ("failed", "DataError", None)
    assert left.finished_at and due_at(fresh_engine) is None and history(fresh_engine) == []


def test_who_has_no_more_time_leaves_the_rest_at_once(fresh_engine: Engine, people: list[int]) -> None:
    asked, minutes = ask(fresh_engine), iter(range(100))

    def ticking() -> datetime:
        return NOW + timedelta(minutes=next(minutes))

    (left,) = recomputations.run_waiting(fresh_engine, clock=ticking, within=timedelta(minutes=6))
    assert (left.status, left.done_through) == ("running", FIRST + timedelta(days=1))
    moment = due_at(fresh_engine)
    assert moment is not None and moment < NOW + timedelta(minutes=10)
    (done,) = recomputations.run_waiting(fresh_engine, clock=clock_at(moment))
    assert (done.recomputation_id, done.status, done.snapshots) == (asked, "completed", 12)


def test_two_workers_share_no_day(fresh_engine: Engine, people: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(fresh_engine)
    late = NOW + LEASE
    found: list[Any] = []

    def second(number: int) -> None:
        if number == 1:
            # The first one holds its day; its lease has run out by this clock.
            worker = threading.Thread(
                target=lambda: found.extend(recomputations.run_waiting(fresh_engine, clock=clock_at(late)))
            )
            worker.start()
            worker.join(20)
            assert not worker.is_alive()

    each_day(monkeypatch, second)
    (done,) = recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    assert found == []
    assert (done.recomputation_id, done.status, done.snapshots) == (asked, "completed", 12)


def test_snapshots_of_past_days_land_in_partitions_of_their_months(fresh_engine: Engine, people: list[int]) -> None:
    with fresh_engine.begin() as tx:
        created = tx.scalar(text("select min(created_at) from contacts"))
    first = created.date() + timedelta(days=1)
    ask(fresh_engine, from_day=first, to_day=LAST)
    (done,) = recomputations.run_waiting(fresh_engine, clock=clock_at(NOW))
    assert (done.status, first.month) != ("completed", LAST.month)
    with fresh_engine.begin() as tx:
        homes = tx.execute(
            text("select tableoid::regclass::text, to_char(as_of, '\"score_history_y\"YYYY\"m\"MM') from score_history "
                 "where source = 'recomputed' group by 1, 2")
        ).all()  # fmt: skip
    assert len(homes) > 1
    assert [home for home, month in homes if home != month] == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"from_day": LAST, "to_day": FIRST}, "from"), ({"from_day": date(2025, 2, 27)}, "to"),
        ({"to_day": NOW.date() + timedelta(days=1)}, "to"), ({"rule_version": 99}, "rule_version"),
    ],
)  # fmt: skip
def test_days_that_cannot_be(fresh_engine: Engine, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(fresh_engine, **options)
    assert caught.value.path == ("body", field)


def test_366_days_and_today_are_fine(fresh_engine: Engine) -> None:
    asked = get(fresh_engine, ask(fresh_engine, from_day=NOW.date() - timedelta(days=365), to_day=NOW.date()))
    assert (asked.to_day - asked.from_day).days == 365
