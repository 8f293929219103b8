"""Lifecycle stages: the ladder, facts that override it, dormancy, churn, and who may move whom."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, text, update

from mautolib.db import tables
from mautolib.scoring import (
    NewRule,
    Stage,
    leaderboard,
    move,
    process,
    recalculate_contact,
    recalculate_within,
    reengagement,
    stage_figures,
)
from mautolib.scoring.rules import create_rule
from tests.builders import NOW, ago, make_contact, make_event, make_order, make_suppression

DAY = timedelta(days=1)


def award(tx: Connection, contact_id: int, points: float, occurred_at: datetime) -> None:
    row = {"contact_id": contact_id, "event_type": "manual", "points": points, "occurred_at": occurred_at,
           "created_at": occurred_at}  # fmt: skip
    tx.execute(insert(tables.score_awards).values(row))


def hold(tx: Connection, contact_id: int, stage: str, since: datetime) -> None:
    """Put a contact into a stage, as an earlier evaluation would have."""
    values = {"contact_id": contact_id, "lifecycle_stage": stage, "since": since, "evaluated_at": since}
    tx.execute(insert(tables.contact_stages).values(values))
    move = {"contact_id": contact_id, "previous_stage": "new", "new_stage": stage, "occurred_at": since}
    tx.execute(insert(tables.stage_transitions).values(move))


def stage(tx: Connection, contact_id: int) -> str:
    stages = tables.contact_stages
    found: str = tx.execute(select(stages.c.lifecycle_stage).where(stages.c.contact_id == contact_id)).scalar_one()
    return found


def moves(tx: Connection, contact_id: int) -> list[tuple[str, str, str, datetime]]:
    table = tables.stage_transitions
    rows = tx.execute(
        select(table.c.previous_stage, table.c.new_stage, table.c.reason, table.c.occurred_at)
        .where(table.c.contact_id == contact_id).order_by(table.c.transition_id)
    )  # fmt: skip
    return [tuple(row) for row in rows]  # type: ignore[misc]


def fresh(tx: Connection, total: float, **fields: Any) -> int:
    """A contact that signed up yesterday and has a total score of `total` without any activity.

    Its address brings 4 points, a mail sent to it 1000 (one rule for all), and a negative award takes off the rest.
    """
    rules = tables.scoring_rules
    if tx.execute(select(rules.c.rule_id)).first() is None:
        create_rule(tx, NewRule(name="Sent", event_type="email_sent", points=1000), actor="test", now=NOW)
    contact = make_contact(tx, created_at=NOW - DAY, **fields)
    make_event(tx, contact, "email_sent", NOW - DAY)
    award(tx, contact, total - 1004, NOW - DAY)
    return contact


@pytest.mark.parametrize(
    ("total", "expected"),
    [(4, "subscriber"), (19.99, "subscriber"), (20, "lead"), (39.99, "lead"), (40, "mql"), (55, "sql"),
     (69.99, "sql"), (70, "customer"), (89.99, "customer"), (90, "evangelist")],
)  # fmt: skip
def test_the_score_sets_the_ladder(tx: Connection, total: float, expected: str) -> None:
    contact = fresh(tx, total)
    recalculate_within(tx, as_of=NOW)
    assert stage(tx, contact) == expected
    assert moves(tx, contact) == [("new", expected, f"score {total}", NOW)]


def test_the_ladder_goes_both_ways_but_not_down_from_customer(tx: Connection) -> None:
    lead, customer, evangelist = (fresh(tx, 25) for _ in range(3))
    hold(tx, lead, "sql", ago(days=2))
    hold(tx, customer, "customer", ago(days=2))
    hold(tx, evangelist, "evangelist", ago(days=2))
    for contact in (lead, customer, evangelist):
        award(tx, contact, 1, ago(days=1))
    recalculate_within(tx, as_of=NOW)
    assert [stage(tx, contact) for contact in (lead, customer, evangelist)] == ["mql", "customer", "evangelist"]


def test_a_customer_becomes_an_evangelist(tx: Connection) -> None:
    contact = fresh(tx, 95)
    hold(tx, contact, "customer", ago(days=2))
    assert recalculate_contact(tx, contact, NOW).lifecycle_stage is Stage.EVANGELIST
    assert moves(tx, contact)[-1] == ("customer", "evangelist", "score 95", NOW)


def test_one_order_that_was_not_fully_refunded_makes_a_customer(tx: Connection) -> None:
    kept, partly, back, free, later = (fresh(tx, 5) for _ in range(5))
    make_order(tx, kept, ago(days=1))
    make_order(tx, partly, ago(days=1), total="100", refunded_total="99.99")
    make_order(tx, back, ago(days=1), total="100", refunded_total="100")
    make_order(tx, free, ago(days=1), total="0")
    make_order(tx, later, NOW + DAY)
    recalculate_within(tx, as_of=NOW)
    assert [stage(tx, contact) for contact in (kept, partly, back, free, later)] == [
        "customer", "customer", "subscriber", "customer", "subscriber"]  # fmt: skip
    assert moves(tx, kept)[0][2] == "order"


def test_a_checkout_without_an_order_is_an_opportunity_for_14_days(tx: Connection) -> None:
    open_, old, ordered, high = fresh(tx, 5), fresh(tx, 5), fresh(tx, 5), fresh(tx, 5)
    make_event(tx, open_, "checkout_started", ago(days=14))
    make_event(tx, old, "checkout_started", ago(days=14, seconds=1))
    make_event(tx, ordered, "checkout_started", ago(days=3))
    make_order(tx, ordered, ago(days=2), total="10", refunded_total="10")
    award(tx, high, 80, ago(days=1))
    make_event(tx, high, "checkout_started", ago(days=1))
    recalculate_within(tx, as_of=NOW)
    assert [stage(tx, contact) for contact in (open_, old, ordered, high)] == [
        "opportunity", "subscriber", "lead", "evangelist"]  # fmt: skip
    recalculate_within(tx, as_of=NOW + DAY)
    assert moves(tx, open_)[-1][:2] == ("opportunity", "subscriber")


@pytest.mark.parametrize(
    ("held", "days"), [("subscriber", 60), ("lead", 45), ("mql", 30), ("sql", 21), ("opportunity", 90), ("new", 90)]
)
def test_silence_makes_dormant_after_the_days_of_the_stage(tx: Connection, held: str, days: int) -> None:
    quiet, speaking, never = (make_contact(tx, created_at=ago(days=days)) for _ in range(3))
    make_event(tx, quiet, "email_clicked", ago(days=days))
    make_event(tx, speaking, "email_clicked", ago(days=days) + timedelta(seconds=1))
    if held != "new":
        for contact in (quiet, speaking, never):
            hold(tx, contact, held, ago(days=days))
    recalculate_within(tx, as_of=NOW)
    assert [stage(tx, contact) for contact in (quiet, speaking, never)] == [
        "dormant", "subscriber", "dormant"]  # fmt: skip
    assert moves(tx, quiet)[-1][2] == f"no engagement for {days} days"


def test_a_later_engagement_brings_a_dormant_contact_back(tx: Connection) -> None:
    asleep, awake, late = (make_contact(tx) for _ in range(3))
    for contact in (asleep, awake, late):
        hold(tx, contact, "dormant", ago(days=10))
    make_event(tx, asleep, "email_sent", ago(days=1))
    make_event(tx, awake, "email_opened", ago(days=1))
    make_event(tx, late, "email_opened", ago(days=11), received_at=ago(days=2))
    recalculate_within(tx, as_of=NOW)
    assert [stage(tx, contact) for contact in (asleep, awake, late)] == ["dormant", "lead", "dormant"]


def test_activity_that_becomes_known_later_undoes_the_dormancy_it_contradicts(tx: Connection) -> None:
    contradicted, older, overtaken, unknown = (make_contact(tx, created_at=ago(days=400)) for _ in range(4))
    for contact in (contradicted, older, overtaken):
        make_event(tx, contact, "email_opened", ago(days=100))
    for contact in (contradicted, older, unknown):
        hold(tx, contact, "subscriber", ago(days=90))
    hold(tx, overtaken, "subscriber", ago(days=90))
    recalculate_within(tx, as_of=ago(days=30))
    assert {stage(tx, contact) for contact in (contradicted, older, overtaken, unknown)} == {"dormant"}

    # Sixty days of silence made them dormant 30 days ago; these are of before, heard of today.
    make_event(tx, contradicted, "email_opened", ago(days=59), received_at=ago(days=1))
    make_event(tx, older, "email_opened", ago(days=90), received_at=ago(days=1))
    # Had it been known, somebody active 60 days ago would have become dormant by now all the same.
    make_event(tx, overtaken, "email_opened", ago(days=60), received_at=ago(days=1))
    make_event(tx, unknown, "email_opened", ago(days=31), received_at=ago(days=1))
    for _ in range(2):
        recalculate_within(tx, as_of=NOW)
        told = [stage(tx, contact) for contact in (contradicted, older, overtaken, unknown)]
        assert told == ["subscriber", "dormant", "dormant", "subscriber"]
        assert [move[:2] for move in moves(tx, contradicted)][-2:] == [
            ("subscriber", "dormant"), ("dormant", "subscriber")]  # fmt: skip
        assert len(moves(tx, older)) == 2


def test_a_stage_keeps_the_silence_that_made_it_dormant_and_loses_it_when_it_is_left(tx: Connection) -> None:
    contact = make_contact(tx, created_at=ago(days=400))
    hold(tx, contact, "lead", ago(days=100))
    kept = select(tables.contact_stages.c.idle_limit_days).where(tables.contact_stages.c.contact_id == contact)
    recalculate_within(tx, as_of=ago(days=30))
    assert tx.scalar(kept) == 45
    check_copies(tx)
    make_event(tx, contact, "email_opened", ago(days=2))
    recalculate_within(tx, as_of=NOW)
    assert tx.scalar(kept) is None
    check_copies(tx)
    moved = select(tables.stage_transitions.c.idle_limit_days).order_by(tables.stage_transitions.c.transition_id)
    assert tx.scalars(moved.where(tables.stage_transitions.c.contact_id == contact)).all() == [None, 45, None]


def test_whom_somebody_made_dormant_is_left_there_by_what_happened_before(tx: Connection) -> None:
    contact = make_contact(tx, created_at=ago(days=400))
    hold(tx, contact, "dormant", ago(days=10))
    make_event(tx, contact, "email_opened", ago(days=11), received_at=ago(days=1))
    recalculate_within(tx, as_of=NOW)
    assert stage(tx, contact) == "dormant"


def test_who_was_moved_before_the_first_score_is_judged_by_that_stage(tx: Connection) -> None:
    """Without a score there is no copy of the stage beside it; a stage held later is not that of the moment."""
    asleep, quiet, later = (make_contact(tx, created_at=ago(days=400)) for _ in range(3))
    hold(tx, asleep, "dormant", ago(days=10))
    hold(tx, quiet, "mql", ago(days=300))
    hold(tx, later, "mql", ago(days=300))
    tx.execute(insert(tables.stage_transitions).values(
        contact_id=later, previous_stage="mql", new_stage="customer", occurred_at=NOW + DAY))  # fmt: skip
    stages = tables.contact_stages
    tx.execute(update(stages).where(stages.c.contact_id == later).values(lifecycle_stage="customer", since=NOW + DAY))
    for contact in (quiet, later):
        make_event(tx, contact, "email_clicked", ago(days=29))
    make_event(tx, asleep, "email_clicked", ago(days=11))
    recalculate_within(tx, as_of=NOW)
    then = text("select contact_id, lifecycle_stage from score_history where as_of = :as_of")
    assert dict(tx.execute(then, {"as_of": NOW}).all()) == {  # type: ignore[arg-type]
        asleep: "dormant", quiet: "subscriber", later: "subscriber"}  # fmt: skip
    assert [stage(tx, contact) for contact in (asleep, quiet, later)] == ["dormant", "subscriber", "customer"]
    check_copies(tx)


def test_customers_are_never_moved_by_silence_or_by_leaving(tx: Connection) -> None:
    for held in ("customer", "evangelist"):
        contact = make_contact(tx, subscribed=False)
        hold(tx, contact, held, ago(days=300))
        recalculate_within(tx, as_of=NOW)
        assert stage(tx, contact) == held


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("unsubscribe", "churned"), ("complaint", "churned"), ("bounce", "churned"), ("manual", "lead"),
     ("compliance", "lead")],
)  # fmt: skip
def test_some_suppressions_mean_churned(tx: Connection, reason: str, expected: str) -> None:
    contact = fresh(tx, 30, email="who@shop.example")
    make_suppression(tx, "who@shop.example", reason=reason)
    recalculate_within(tx, as_of=NOW)
    assert stage(tx, contact) == expected
    assert moves(tx, contact)[0][2] == ("suppressed" if expected == "churned" else "score 30")


def test_churned_is_left_only_by_new_consent(tx: Connection) -> None:
    contact = fresh(tx, 30, subscribed=False)
    recalculate_within(tx, as_of=ago(hours=10))
    assert moves(tx, contact) == [("new", "churned", "unsubscribed", ago(hours=10))]
    consents, contacts = tables.consents, tables.contacts
    consent = {"contact_id": contact, "source": "api", "actor": "user:1"}
    tx.execute(insert(consents).values(**consent, status="granted", recorded_at=ago(hours=11)))
    back = update(contacts).where(contacts.c.contact_id == contact)
    tx.execute(back.values(subscribed=True, updated_at=ago(hours=9)))
    recalculate_within(tx, as_of=ago(hours=8))
    assert stage(tx, contact) == "churned", "that consent is older than the leaving"
    tx.execute(insert(consents).values(**consent, status="granted", recorded_at=ago(hours=7)))
    recalculate_contact(tx, contact, ago(hours=6))
    assert stage(tx, contact) == "churned", "a score evaluation never moves out of churned"
    recalculate_within(tx, as_of=ago(hours=5))
    assert moves(tx, contact)[-1] == ("churned", "lead", "score 30", ago(hours=5))


def test_a_score_evaluation_moves_neither_into_churned_nor_into_dormant(tx: Connection) -> None:
    gone, quiet, asleep = make_contact(tx, subscribed=False), make_contact(tx), make_contact(tx)
    hold(tx, asleep, "dormant", ago(days=10))
    make_event(tx, asleep, "page_viewed", ago(days=1))
    found = [recalculate_contact(tx, contact, NOW).lifecycle_stage for contact in (gone, quiet, asleep)]
    assert found == ["subscriber", "subscriber", "lead"]


def test_evaluating_a_moment_again_decides_the_same(tx: Connection) -> None:
    # 25 days of silence: still an mql, whose score says sql, who would be dormant after 21 days.
    contact = make_contact(tx)
    award(tx, contact, 55, ago(days=25))
    hold(tx, contact, "mql", ago(days=40))
    recalculate_within(tx, as_of=NOW)
    assert stage(tx, contact) == "sql"
    assert recalculate_within(tx, as_of=NOW).moved == 0
    assert stage(tx, contact) == "sql"
    recalculate_within(tx, as_of=NOW + DAY)
    assert stage(tx, contact) == "dormant"


def test_a_backfill_names_the_stage_of_that_day_and_moves_nobody(tx: Connection) -> None:
    contact = make_contact(tx, created_at=ago(days=80))
    create_rule(tx, NewRule(name="Form", event_type="form_submitted", points=40), actor="test", now=NOW)
    make_event(tx, contact, "form_submitted", ago(days=50))
    recalculate_within(tx, as_of=NOW)
    for days in (70, 45, 10):
        recalculate_within(tx, as_of=ago(days=days), known_at=ago(days=days), source="recomputed")
    rows = tx.execute(text("select lifecycle_stage from score_history where source = 'recomputed' order by as_of"))
    assert rows.scalars().all() == ["subscriber", "sql", "mql"]
    assert len(moves(tx, contact)) == 1


def test_the_stages_are_those_of_the_table(tx: Connection) -> None:
    rows = tx.execute(text("select stage from lifecycle_stages order by stage_order")).scalars().all()
    assert rows == [str(member) for member in Stage]


def check_copies(tx: Connection) -> None:
    """Beside each score stands what stands in the stage."""
    columns = "lifecycle_stage, {}since, {}idle_limit_days from {} where contact_id in (select contact_id from {})"
    kept = columns.format("", "", "contact_stages", "contact_scores")
    copy = columns.format("stage_", "stage_", "contact_scores", "contact_stages")
    found = tx.execute(text(f"select contact_id, {kept} order by 1")).all()
    assert found and tx.execute(text(f"select contact_id, {copy} order by 1")).all() == found


def copied(tx: Connection, contact: int) -> str | None:
    scores = tables.contact_scores
    found: str | None = tx.scalar(select(scores.c.lifecycle_stage).where(scores.c.contact_id == contact))
    return found


def test_the_copy_of_the_stage_beside_the_score_follows_whoever_writes_it(tx: Connection) -> None:
    held, fresh_one = make_contact(tx, created_at=ago(days=400)), make_contact(tx, created_at=ago(days=1))
    hold(tx, held, "customer", ago(days=300))
    later = make_contact(tx)
    hold(tx, later, "mql", NOW + DAY)
    recalculate_within(tx, as_of=NOW)
    assert [copied(tx, contact) for contact in (held, fresh_one, later)] == ["customer", "subscriber", "mql"]
    check_copies(tx)
    stages = tables.contact_stages
    tx.execute(update(stages).where(stages.c.contact_id == held).values(lifecycle_stage="evangelist"))
    assert copied(tx, held) == "evangelist"
    make_event(tx, fresh_one, "email_opened", NOW)
    recalculate_contact(tx, fresh_one, NOW + DAY)
    assert copied(tx, fresh_one) == stage(tx, fresh_one) == "lead"
    check_copies(tx)
    lists = {one: [leader.contact_id for leader in leaderboard(tx, stage=one)] for one in Stage}
    found = {Stage.EVANGELIST: [held], Stage.MQL: [later], Stage.LEAD: [fresh_one]}
    assert lists == {one: found.get(one, []) for one in Stage}
    assert {one: figures.count for one, figures in stage_figures(tx).items() if figures.count} == {
        Stage.EVANGELIST: 1, Stage.MQL: 1, Stage.LEAD: 1}  # fmt: skip


def test_who_has_no_stage_is_processed_before_who_waits_the_longest(tx: Connection) -> None:
    old, older = make_contact(tx, created_at=ago(days=9)), make_contact(tx, created_at=ago(days=9))
    assert process(tx, limit=1, now=NOW - 3 * DAY).processed == 1, "before there was any night"
    recalculate_within(tx, as_of=NOW - 2 * DAY)
    new = make_contact(tx, created_at=NOW - 2 * DAY)
    for contact, moment in ((old, ago(days=2)), (older, ago(days=8))):
        table = tables.contact_stages
        tx.execute(update(table).where(table.c.contact_id == contact).values(evaluated_at=moment))
    # Scores of somebody gone must not keep others waiting.
    hold(tx, 10**9, "lead", ago(days=90))
    order = []
    for number in range(4):
        before = dict(evaluated(tx))
        assert process(tx, limit=1, now=NOW + timedelta(minutes=number)).processed == 1
        order += [contact for contact, moment in evaluated(tx) if before.get(contact) != moment]
    assert order == [new, older, old, new]


def evaluated(tx: Connection) -> list[tuple[int, datetime]]:
    table = tables.contact_stages
    return [tuple(row) for row in tx.execute(select(table.c.contact_id, table.c.evaluated_at))]  # type: ignore[misc]


def test_everybody_is_looked_at_where_the_most_engaged_do_not_want_mail(tx: Connection) -> None:
    create_rule(tx, NewRule(name="Form", event_type="form_submitted", points=10), actor="test", now=NOW)
    people = [make_contact(tx, created_at=ago(days=90), subscribed=number >= 9) for number in range(11)]
    for number, contact in enumerate(people):
        for again in range(12 - number):
            make_event(tx, contact, "form_submitted", ago(days=40 + again))
    recalculate_within(tx, as_of=NOW)
    wanted: dict[str, Any] = {"min_days": 30, "max_days": 60, "now": NOW}
    assert [one.contact_id for one in reengagement(tx, **wanted, limit=1)] == [people[9]], "beyond the first four"
    assert [one.contact_id for one in reengagement(tx, **wanted, limit=2)] == people[9:]
    assert [one.contact_id for one in reengagement(tx, **wanted, limit=100)] == people[9:]


@pytest.mark.parametrize("mover", ["evaluation", "hand"])
def test_whoever_moves_a_contact_locks_the_score_before_the_stage(fresh_engine: Engine, mover: str) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx, created_at=ago(days=400))
        recalculate_within(tx, as_of=NOW)
        tx.execute(update(tables.contacts).where(tables.contacts.c.contact_id == contact).values(subscribed=False))

    def go() -> None:
        with fresh_engine.begin() as tx:
            if mover == "evaluation":
                recalculate_within(tx, as_of=NOW + DAY)
            else:
                move(tx, [contact], Stage.CHURNED, reason="gone", actor="ann", now=NOW + DAY)

    with ThreadPoolExecutor(1) as pool:
        with fresh_engine.begin() as tx:
            # Locks nothing but the score, and then wants the stage.
            tx.execute(text("select 1 from contact_scores where contact_id = :id for no key update"), {"id": contact})
            moving = pool.submit(go)
            waiting = text("select count(*) from pg_locks where not granted")
            while not tx.scalar(waiting):
                assert not moving.done()
            stage_row = text("select 1 from contact_stages where contact_id = :id for no key update nowait")
            tx.execute(stage_row, {"id": contact})
        moving.result()
    with fresh_engine.begin() as tx:
        assert copied(tx, contact) == stage(tx, contact) == "churned"
