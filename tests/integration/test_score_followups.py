"""What evaluations tell: score_changed and milestone_reached, once each, and nothing for time that passes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, text

from mautolib import dispatch, scoring, workflows
from mautolib.db import tables
from mautolib.scoring import NewRule, following, recalculate_contact, recalculate_within, state
from mautolib.scoring.awards import NewAward, award
from mautolib.scoring.rules import change_rule, create_rule
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow
from tests.builders import NOW, ago, make_contact, make_event, make_order

DAY = timedelta(days=1)
JUST_AFTER = timedelta(microseconds=1)


def add_rule(tx: Connection, event_type: str, points: int, **fields: Any) -> int:
    new = NewRule(name=f"{event_type} {points}", event_type=event_type, points=points, **fields)
    return create_rule(tx, new, actor="test", now=NOW).rule_id


def night(tx: Connection, as_of: datetime, **options: Any) -> None:
    """A night that folds, as the DAG does; `direct=True` reads all events instead."""
    if not options.pop("direct", False):
        tx.execute(text("update score_slices set fold_target = greatest(fold_target, :as_of)"), {"as_of": as_of})
    recalculate_within(tx, as_of=as_of, **options)


def told(tx: Connection, contact_id: int, event_type: str = "score_changed") -> list[dict[str, Any]]:
    """Properties of the events told of a contact, oldest first."""
    events = tables.events.c
    query = select(events.properties).where(events.contact_id == contact_id, events.event_type == event_type)
    return list(tx.scalars(query.order_by(events.event_id)))


def milestones(tx: Connection, contact_id: int) -> list[str]:
    return [each["milestone"] for each in told(tx, contact_id, "milestone_reached")]


def everything_told(tx: Connection) -> int:
    return int(tx.scalar(text("select count(*) from events where event_type in ('score_changed', 'milestone_reached')"))
               or 0)  # fmt: skip


@pytest.fixture(params=[False, True], ids=["folded", "direct"])
def direct(request: pytest.FixtureRequest) -> bool:
    """Both ways in which a night is computed."""
    return bool(request.param)


def test_an_event_that_counts_is_told_with_the_scores_before_and_after(tx: Connection, direct: bool) -> None:
    add_rule(tx, "form_submitted", 40, decay_days=30)
    one = make_contact(tx, created_at=ago(days=5))
    night(tx, NOW - DAY, direct=direct)
    make_event(tx, one, "form_submitted", NOW)
    night(tx, NOW, direct=direct)
    assert told(tx, one) == [{"grade": "B", "previous_grade": "F", "total_score": 64.0, "engagement_score": 40.0,
                              "previous_engagement_score": 0.0, "rule_version": 2}]  # fmt: skip
    event = tx.execute(text("select * from events where event_type = 'score_changed'")).one()
    assert (event.occurred_at, event.source) == (NOW + JUST_AFTER, "mauto")
    queued = set(tx.scalars(text("select unnest(event_ids) from event_pending")))
    assert event.event_id in queued, "workflows and rules see it"


def test_fading_alone_is_no_news_but_a_new_grade_is(tx: Connection, direct: bool) -> None:
    add_rule(tx, "page_viewed", 30, decay_days=30)
    add_rule(tx, "cart_updated", -5, decay_days=10)
    one, other = make_contact(tx, created_at=ago(days=5)), make_contact(tx, created_at=ago(days=5))
    make_event(tx, one, "page_viewed", ago(hours=1))
    make_event(tx, other, "page_viewed", ago(hours=1))
    make_event(tx, other, "cart_updated", ago(hours=2))
    night(tx, NOW, direct=direct)
    grades = [tx.scalar(text("select grade from contact_scores where contact_id = :id"), {"id": one})]
    for number in range(1, 40):
        night(tx, NOW + number * DAY, direct=direct)
        grades.append(tx.scalar(text("select grade from contact_scores where contact_id = :id"), {"id": one}))
    changes = [(before, after) for before, after in itertools.pairwise(grades) if before != after]
    assert changes == [("C", "D"), ("D", "F")]
    assert [(each["previous_grade"], each["grade"]) for each in told(tx, one)] == changes
    assert [(each["previous_grade"], each["grade"]) for each in told(tx, other)] == changes, (
        "a penalty that fades lifts the engagement, and is no news either"
    )


def test_many_changes_are_told_in_parts_from_one_look(
    tx: Connection, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_AT_ONCE", 2)
    looks: list[str] = []
    known = following.statement
    monkeypatch.setattr(following, "statement", lambda name: (looks.append(name), known(name))[1])
    add_rule(tx, "form_submitted", 40)
    people = [make_contact(tx, created_at=ago(days=5)) for _ in range(5)]
    night(tx, NOW - DAY, direct=direct)
    for contact in people:
        make_event(tx, contact, "form_submitted", NOW)
    night(tx, NOW, direct=direct)
    assert [len(told(tx, contact)) for contact in people] == [1] * 5
    assert (looks.count("score_followups.untold"), looks.count("score_followups.keep_told")) == (2, 3), (
        "one look a night: each would walk over what was told before"
    )
    night(tx, NOW, direct=direct)
    assert [len(told(tx, contact)) for contact in people] == [1] * 5


def test_what_does_not_count_is_not_told(tx: Connection, direct: bool) -> None:
    add_rule(tx, "form_submitted", 3, max_per_contact=1)
    add_rule(tx, "page_viewed", 5, condition={"url": "/prices"})
    add_rule(tx, "unsubscribed", -50)
    one = make_contact(tx, created_at=ago(days=5))
    make_event(tx, one, "form_submitted", ago(days=3))
    night(tx, NOW, direct=direct)
    make_event(tx, one, "form_submitted", NOW + timedelta(hours=1))
    make_event(tx, one, "page_viewed", NOW + timedelta(hours=2), properties={"url": "/"})
    make_event(tx, one, "webinar_attended", NOW + timedelta(hours=2))
    night(tx, NOW + DAY, direct=direct)
    assert told(tx, one) == [], "over the cap, another page, no rule: recency alone"
    make_event(tx, one, "unsubscribed", NOW + DAY + timedelta(hours=1))
    night(tx, NOW + 2 * DAY, direct=direct)
    assert [each["engagement_score"] for each in told(tx, one)] == [0]
    make_event(tx, one, "unsubscribed", NOW + 2 * DAY + timedelta(hours=1))
    night(tx, NOW + 3 * DAY, direct=direct)
    assert len(told(tx, one)) == 1, "below the floor nothing changes"
    make_event(tx, one, "page_viewed", NOW + 3 * DAY + timedelta(hours=1), properties={"url": "/prices"})
    night(tx, NOW + 4 * DAY, direct=direct)
    assert len(told(tx, one)) == 1
    award(tx, NewAward(contact_id=one, event_type="manual", points=99.5), now=NOW + 4 * DAY + timedelta(hours=1))
    assert [each["engagement_score"] for each in told(tx, one)] == [0, 7.5]


def test_a_first_evaluation_a_look_back_and_a_dry_run_tell_nothing(tx: Connection) -> None:
    add_rule(tx, "form_submitted", 95)
    people = [make_contact(tx, created_at=ago(days=30)) for _ in range(3)]
    for one in people:
        make_event(tx, one, "form_submitted", ago(days=2))
        make_order(tx, one, ago(days=2))
    night(tx, NOW)
    assert everything_told(tx) == 0
    for one in people:
        make_event(tx, one, "form_submitted", NOW + timedelta(hours=1))
    night(tx, NOW + DAY, dry_run=True)
    night(tx, NOW - DAY, known_at=NOW - DAY, source="recomputed")
    night(tx, NOW + 2 * DAY, known_at=NOW + 2 * DAY, source="recomputed")
    assert everything_told(tx) == 0
    night(tx, NOW + DAY)
    assert [len(told(tx, one)) for one in people] == [1, 1, 1]


def test_the_same_night_again_and_single_recalculations_tell_once(tx: Connection) -> None:
    add_rule(tx, "form_submitted", 30)
    one = make_contact(tx, created_at=ago(days=30))
    night(tx, NOW)
    make_event(tx, one, "form_submitted", NOW + timedelta(hours=1))
    recalculate_contact(tx, one, NOW + timedelta(hours=2))
    assert len(told(tx, one)) == 1
    recalculate_contact(tx, one, NOW + timedelta(hours=3))
    night(tx, NOW + DAY)
    night(tx, NOW + DAY)
    night(tx, NOW + 2 * DAY, direct=True)
    night(tx, NOW + 3 * DAY, bucket=one % 3, buckets=3)
    assert len(told(tx, one)) == 1
    late = make_event(tx, one, "form_submitted", NOW - DAY)
    state.mark_late(tx, [late], [NOW - DAY])
    night(tx, NOW + 4 * DAY)
    assert [each["engagement_score"] for each in told(tx, one)] == [30, 60], "a late event is told by the next night"


def test_other_rules_are_no_news_of_a_contact(tx: Connection, direct: bool) -> None:
    rule = add_rule(tx, "form_submitted", 10)
    one = make_contact(tx, created_at=ago(days=30))
    make_event(tx, one, "form_submitted", ago(days=1))
    night(tx, NOW, direct=direct)
    change_rule(tx, rule, {"points": 9}, actor="test", now=NOW)
    night(tx, NOW + DAY, direct=direct)
    assert told(tx, one) == []
    change_rule(tx, rule, {"points": 70}, actor="test", now=NOW)
    night(tx, NOW + 2 * DAY, direct=direct)
    assert [(each["previous_grade"], each["grade"]) for each in told(tx, one)] == [("D", "A+")], "a grade is a grade"
    make_event(tx, one, "form_submitted", NOW + 2 * DAY + timedelta(hours=1))
    night(tx, NOW + 3 * DAY, direct=direct)
    assert len(told(tx, one)) == 2


def test_a_rule_that_counts_what_is_told_does_not_run_for_ever(tx: Connection, direct: bool) -> None:
    add_rule(tx, "form_submitted", 10)
    add_rule(tx, "score_changed", 7)
    add_rule(tx, "milestone_reached", 1, max_per_contact=2)
    one = make_contact(tx, created_at=ago(days=30))
    night(tx, NOW, direct=direct)
    make_event(tx, one, "form_submitted", NOW + timedelta(hours=1))
    for number in range(1, 6):
        night(tx, NOW + number * DAY, direct=direct)
    engagement = tx.scalar(text("select engagement_score from contact_scores"))
    changes, grades = told(tx, one), told(tx, one, "milestone_reached")
    assert engagement == 10 + 7 * len(changes) + min(2, len(grades))
    assert len(changes) <= 3
    night(tx, NOW + 6 * DAY, direct=direct)
    assert len(told(tx, one)) == len(changes)


def test_grades_are_reached_once_and_only_by_rising(tx: Connection) -> None:
    add_rule(tx, "page_viewed", 1)
    one = make_contact(tx, created_at=ago(days=5))
    night(tx, NOW)
    for number, points in enumerate([30, -30, 30, 12, 60, -120, 28, 102, -60, 60], start=1):
        tx.execute(insert(tables.score_awards).values(
            contact_id=one, event_type="manual", points=points, occurred_at=NOW + number * DAY,
            created_at=NOW + number * DAY))  # fmt: skip
        night(tx, NOW + number * DAY)
    grades = [each["grade"] for each in told(tx, one)]
    assert grades == ["C", "F", "C", "B", "A+", "F", "D", "A+", "B+", "A+"], "each change of the grade is told"
    reached = [(each["milestone"], each["previous_grade"]) for each in told(tx, one, "milestone_reached")
               if each["kind"] == "grade"]  # fmt: skip
    assert reached == [("C", "F"), ("B", "C"), ("A+", "B")], "D was never held, but better ones were"


def test_a_grade_held_before_anything_was_told_is_not_reached_again(tx: Connection) -> None:
    one = make_contact(tx, created_at=ago(days=5))
    tx.execute(insert(tables.score_awards).values(
        contact_id=one, event_type="manual", points=80, occurred_at=ago(days=1), created_at=ago(days=1)))
    night(tx, NOW)
    for number, points in enumerate([-60, 60, 30], start=1):
        tx.execute(insert(tables.score_awards).values(
            contact_id=one, event_type="manual", points=points, occurred_at=NOW + number * DAY,
            created_at=NOW + number * DAY))  # fmt: skip
        night(tx, NOW + number * DAY)
    assert [each["grade"] for each in told(tx, one)][:2] == ["D", "A+"]
    assert [each for each in told(tx, one, "milestone_reached") if each["kind"] == "grade"] == []


@pytest.mark.thorough
def test_stages_are_reached_once_by_rising_or_by_falling_out(tx: Connection) -> None:
    add_rule(tx, "form_submitted", 12, decay_days=2)
    one = make_contact(tx, created_at=ago(days=1))
    night(tx, NOW)
    for day in (1, 2, 3, 4, 5, 100, 101, 102, 103, 104, 105):
        make_event(tx, one, "form_submitted", NOW + day * DAY - timedelta(hours=1))
        make_event(tx, one, "form_submitted", NOW + day * DAY - timedelta(hours=1))
        night(tx, NOW + day * DAY)
        if day == 5:
            for later in range(6, 100):
                night(tx, NOW + later * DAY)
    moves = tx.scalars(text("select new_stage from stage_transitions order by transition_id")).all()
    assert moves[:4] == ["subscriber", "mql", "sql", "customer"]
    assert milestones(tx, one).count("mql") == 1
    stages = [each for each in told(tx, one, "milestone_reached") if each["kind"] == "stage"]
    assert [(each["milestone"], each["previous_stage"]) for each in stages][:3] == [
        ("mql", "subscriber"), ("sql", "mql"), ("customer", "sql")]  # fmt: skip


@pytest.mark.thorough
def test_dormant_is_reached_once_and_the_way_back_is_not_a_first_time(tx: Connection) -> None:
    add_rule(tx, "form_submitted", 12, decay_days=20)
    one = make_contact(tx, created_at=ago(days=1))
    night(tx, NOW)
    for begin in (0, 100, 200):
        make_event(tx, one, "form_submitted", NOW + (begin + 1) * DAY - timedelta(hours=1))
        for day in range(begin + 1, begin + 100, 3):
            night(tx, NOW + day * DAY)
    moves = tx.scalars(text("select new_stage from stage_transitions order by transition_id")).all()
    assert moves.count("lead") == moves.count("dormant") == 3
    stages = [each["milestone"] for each in told(tx, one, "milestone_reached") if each["kind"] == "stage"]
    assert stages == ["lead", "dormant"]


def test_a_stage_held_before_anything_was_told_is_not_reached_again(tx: Connection) -> None:
    one = make_contact(tx, created_at=ago(days=5))
    for number, points in enumerate([35, -35, 35, 12]):
        tx.execute(insert(tables.score_awards).values(
            contact_id=one, event_type="manual", points=points, occurred_at=NOW + number * DAY,
            created_at=NOW + number * DAY))  # fmt: skip
        night(tx, NOW + number * DAY)
    moves = tx.scalars(text("select new_stage from stage_transitions order by transition_id")).all()
    assert moves == ["sql", "lead", "sql", "customer"]
    stages = [each["milestone"] for each in told(tx, one, "milestone_reached") if each["kind"] == "stage"]
    assert stages == ["customer"], "sql was held at first, and lead was fallen to"


def test_newcomers_are_told_and_imported_ones_are_not(tx: Connection) -> None:
    add_rule(tx, "form_submitted", 30)
    night(tx, NOW)
    came, brought = NOW + timedelta(hours=5), NOW + timedelta(hours=6)
    buyer = make_contact(tx, created_at=came)
    quiet = make_contact(tx, created_at=came)
    imported = make_contact(tx, created_at=came, source="import")
    old = make_contact(tx, created_at=NOW - DAY)
    for one in (buyer, imported, old):
        make_order(tx, one, brought)
        make_event(tx, one, "form_submitted", brought)
    night(tx, NOW + DAY)
    assert sorted(milestones(tx, buyer)) == ["C", "customer"]
    assert [milestones(tx, one) for one in (quiet, imported, old)] == [[], [], []]
    assert everything_told(tx) == 2
    night(tx, NOW + DAY)
    assert everything_told(tx) == 2


def test_a_workflow_begins_with_what_is_told(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_rule(tx, "form_submitted", 30)
        one = make_contact(tx, created_at=ago(days=5))
        trigger = {"event_type": "milestone_reached", "where": {"milestone": "C"}}
        wanted = NewWorkflow(name="Good leads", trigger_type="event", trigger_config=trigger, active=True,
                             steps=[{"type": "action", "action": "tag", "tag_name": "good"}])  # fmt: skip
        workflows.create(tx, wanted, actor="test", now=NOW)
    scoring.recalculate(fresh_engine, as_of=NOW)
    with fresh_engine.begin() as tx:
        make_event(tx, one, "form_submitted", NOW + timedelta(hours=23))
    scoring.recalculate(fresh_engine, as_of=NOW + DAY)
    dispatch.run(fresh_engine, settings, now=NOW + DAY)
    dispatch.run(fresh_engine, settings, now=NOW + DAY)
    with fresh_engine.begin() as tx:
        assert tx.scalars(text("select contact_id from enrollments")).all() == [one]


def parallel(engine: Engine, works: list[Any]) -> Iterator[Any]:
    ready = Barrier(len(works))

    def run(work: Any) -> Any:
        ready.wait(20)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        yield from pool.map(run, works)


def test_parallel_evaluations_of_a_contact_tell_once(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        add_rule(tx, "form_submitted", 30)
        people = [make_contact(tx, created_at=ago(days=5)) for _ in range(4)]
    scoring.recalculate(fresh_engine, as_of=NOW)
    for turn in range(1, 5):
        with fresh_engine.begin() as tx:
            for one in people:
                make_event(tx, one, "form_submitted", NOW + turn * DAY - timedelta(hours=2))

        def single(one: int, moment: datetime) -> None:
            with fresh_engine.begin() as tx:
                recalculate_contact(tx, one, moment)

        moment = NOW + turn * DAY
        works = [lambda one=one, moment=moment: single(one, moment) for one in people for _ in range(2)]
        works += [lambda moment=moment: scoring.recalculate(fresh_engine, as_of=moment)] * 2
        list(parallel(fresh_engine, works))
    with fresh_engine.begin() as tx:
        assert [len(told(tx, one)) for one in people] == [4] * 4
        # 30 + 4 + recency: C, then B+, A+, A+.
        assert [[name for name in milestones(tx, one) if name.isupper() or "+" in name] for one in people] == [
            ["C", "A", "A+"]] * 4  # fmt: skip
