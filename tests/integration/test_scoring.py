"""The score of the contract, worked by hand: rules, caps, decay, floor, profile, recency, grade, as of any moment."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.exc import DBAPIError

from mautolib import scoring
from mautolib.db import tables
from mautolib.errors import InvalidInput, NotFound
from mautolib.scoring import NewRule, SnapshotSource, recalculate_within
from mautolib.scoring.rules import DEFAULT_RULES, create_rule, current_version
from tests.builders import NOW, ago, make_contact, make_event


def add_rule(tx: Connection, event_type: str, points: int, **fields: object) -> int:
    new = NewRule(name=f"{event_type} {points}", event_type=event_type, points=points, **fields)  # type: ignore[arg-type]
    return create_rule(tx, new, actor="test", now=NOW).rule_id


def award(tx: Connection, contact_id: int, points: float, occurred_at: datetime = NOW, **fields: object) -> None:
    row = {"contact_id": contact_id, "event_type": "manual", "points": points, "occurred_at": occurred_at,
           "created_at": occurred_at, **fields}  # fmt: skip
    tx.execute(tables.score_awards.insert().values(row))


def score(tx: Connection, contact_id: int, as_of: datetime = NOW, **options: object) -> object:
    """The snapshot that evaluating `as_of` leaves."""
    recalculate_within(tx, as_of=as_of, **options)  # type: ignore[arg-type]
    history = tables.score_history
    return tx.execute(
        select(history).where(history.c.contact_id == contact_id, history.c.as_of == as_of)
        .order_by(history.c.recorded_at.desc(), history.c.rule_version.desc())
    ).first()  # fmt: skip


def test_points_decay_by_half_lives(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "page_viewed", 10, decay_days=30)
    add_rule(tx, "form_submitted", 7)
    make_event(tx, contact, "page_viewed", ago(days=30))
    make_event(tx, contact, "page_viewed", ago(days=45))
    make_event(tx, contact, "form_submitted", ago(days=45))
    row = score(tx, contact)
    expected = 10 * 0.5 + 10 * 0.5**1.5 + 7
    assert row.engagement_score == pytest.approx(expected, abs=1e-9)
    assert row.recency_score == pytest.approx(20 * math.exp(-0.03 * 30), abs=1e-9)
    assert row.profile_score == 4
    assert row.total_score == round(expected + 4 + 20 * math.exp(-0.9), 2) == 27.67
    assert (row.grade, row.rule_version) == ("D", current_version(tx))


def test_age_is_fractional_and_very_old_points_vanish(tx: Connection) -> None:
    contact = make_contact(tx, created_at=ago(days=4000))
    add_rule(tx, "page_viewed", 100, decay_days=1)
    make_event(tx, contact, "page_viewed", ago(hours=12))
    make_event(tx, contact, "page_viewed", ago(days=3999))
    assert score(tx, contact).engagement_score == pytest.approx(100 * 0.5**0.5, abs=1e-9)


def test_a_cap_counts_the_first_events_by_time_then_id(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "cart_updated", 8, max_per_contact=2, decay_days=10)
    make_event(tx, contact, "cart_updated", ago(days=1))
    make_event(tx, contact, "cart_updated", ago(days=20))
    make_event(tx, contact, "cart_updated", ago(days=10))
    row = score(tx, contact)
    assert row.engagement_score == pytest.approx(8 * 0.25 + 8 * 0.5, abs=1e-9)
    assert row.last_activity_at == ago(days=1), "what is over the cap is engagement all the same"


def test_a_condition_means_equality_of_every_property(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "form_submitted", 1, condition={"form": "demo", "seats": 3, "extra": {"a": 1}})
    add_rule(tx, "form_submitted", 100, condition={"missing": None})
    same = {"form": "demo", "seats": 3.0, "extra": {"a": 1}, "more": True}
    for properties in (
        same,
        {**same, "seats": "3"},
        {**same, "extra": {"a": 1, "b": 2}},
        {**same, "form": ["demo"]},
        {"seats": 3, "extra": {"a": 1}},
    ):
        make_event(tx, contact, "form_submitted", ago(days=1), properties=properties)
    assert score(tx, contact).engagement_score == 1
    make_event(tx, contact, "form_submitted", ago(days=2), properties={"missing": None})
    assert score(tx, contact, NOW + timedelta(seconds=1)).engagement_score == 101


def test_the_floor_is_applied_once_to_the_sum(tx: Connection) -> None:
    add_rule(tx, "form_submitted", 30)
    add_rule(tx, "unsubscribed", -50)
    below, above = make_contact(tx), make_contact(tx)
    for contact in (below, above):
        make_event(tx, contact, "form_submitted", ago(days=200))
        make_event(tx, contact, "unsubscribed", ago(days=100))
    award(tx, above, 25.5, ago(days=95))
    assert score(tx, below).engagement_score == 0
    assert score(tx, above, NOW + timedelta(seconds=1)).engagement_score == pytest.approx(5.5)


def test_minus_50_alone_does_not_make_a_lead(tx: Connection) -> None:
    contact = make_contact(tx, first_name="A", last_name="B", phone="+49 30 1", country="DE")
    add_rule(tx, "page_viewed", -50)
    make_event(tx, contact, "page_viewed", ago(hours=1))
    row = score(tx, contact)
    assert (row.engagement_score, row.profile_score, row.recency_score) == (0, 17, 0)
    assert row.last_activity_at is None
    assert row.lifecycle_stage == "dormant", "signed up a year ago and never did anything friendly"
    assert tx.scalar(text("select lifecycle_stage from contact_stages")) == "dormant"
    fresh = make_contact(tx, created_at=ago(days=1), first_name="A", last_name="B", phone="1", country="DE")
    make_event(tx, fresh, "page_viewed", ago(hours=1))
    assert score(tx, fresh, NOW + timedelta(seconds=1)).lifecycle_stage == "subscriber"


def test_an_event_is_positive_unless_its_matched_rules_sum_below_zero(tx: Connection) -> None:
    add_rule(tx, "page_viewed", 5)
    add_rule(tx, "page_viewed", -6, condition={"url": "/careers"})
    add_rule(tx, "cart_updated", -3, condition={"lines": []})
    careers, both = make_contact(tx), make_contact(tx)
    make_event(tx, careers, "page_viewed", ago(days=3), properties={"url": "/careers"})
    make_event(tx, both, "page_viewed", ago(days=9), properties={"url": "/"})
    make_event(tx, both, "page_viewed", ago(days=3), properties={"url": "/careers"})
    make_event(tx, both, "cart_updated", ago(days=5), properties={"lines": [{"sku": "a"}]})
    make_event(tx, both, "cart_updated", ago(days=4), properties={"lines": []})
    assert score(tx, careers).last_activity_at is None
    row = score(tx, both, NOW + timedelta(seconds=1))
    assert row.last_activity_at == ago(days=5), "a type with a penalty, but no rule matched this one"
    assert row.engagement_score == 1


def test_only_the_contacts_own_doing_is_engagement(tx: Connection) -> None:
    contact, custom, hand = make_contact(tx), make_contact(tx), make_contact(tx)
    for event_type in (
        "email_sent", "email_delivered", "email_bounced", "email_complained", "unsubscribed", "order_refunded",
        "tag_added", "contact_updated", "segment_entered", "score_changed",
    ):  # fmt: skip
        make_event(tx, contact, event_type, ago(days=1))
    make_event(tx, custom, "webinar_attended", ago(days=2))
    award(tx, hand, -5, ago(days=1))
    award(tx, hand, 0.5, ago(days=6))
    recalculate_within(tx, as_of=NOW)
    seen = dict(tx.execute(text("select contact_id, last_activity_at from contact_scores")).all())  # type: ignore[arg-type]
    assert seen == {contact: None, custom: ago(days=2), hand: ago(days=6)}


@pytest.mark.parametrize(
    ("days", "points"),
    [(0, 20.0), (1, 20 * math.exp(-0.03)), (89.999, 20 * math.exp(-0.03 * 89.999)), (90, 0.0), (400, 0.0)],
)
def test_recency_fades_and_ends_at_day_90(tx: Connection, days: float, points: float) -> None:
    contact = make_contact(tx)
    make_event(tx, contact, "order_placed", ago(days=days))
    assert score(tx, contact).recency_score == pytest.approx(points, abs=1e-9)


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        ({}, 4),
        ({"first_name": "Ada", "last_name": " ", "phone": "\t "}, 8),
        ({"first_name": "Ada", "last_name": "L", "phone": "1", "country": "GB"}, 17),
        ({"custom_fields": {"a": 1, "b": "x"}}, 7),
        ({"custom_fields": {"a": 1, "b": " ", "c": None, "d": [], "e": {}}}, 4),
        ({"custom_fields": {"a": 0, "b": False}, "first_name": "Ada", "last_name": "L", "phone": "1", "country": "GB"},
         20),
    ],
)  # fmt: skip
def test_blanks_do_not_count_for_the_profile(tx: Connection, fields: dict[str, object], points: int) -> None:
    assert score(tx, make_contact(tx, **fields)).profile_score == points


@pytest.mark.parametrize(
    ("total", "grade"),
    [(24.99, "F"), (25, "D"), (44.99, "D"), (45, "C"), (60, "B"), (69.99, "B"), (70, "B+"), (80, "A"), (89.99, "A"),
     (90, "A+"), (1500, "A+")],
)  # fmt: skip
def test_grades(tx: Connection, total: float, grade: str) -> None:
    contact = make_contact(tx)
    award(tx, contact, total - 4, ago(days=100))
    row = score(tx, contact)
    assert (row.total_score, row.grade) == (pytest.approx(total), grade)


def test_the_total_is_rounded_half_up(tx: Connection) -> None:
    contact = make_contact(tx)
    award(tx, contact, 0.125, ago(days=100))
    assert score(tx, contact).total_score == 4.13


def test_attributes_are_those_of_the_moment(tx: Connection) -> None:
    contact = make_contact(tx, first_name="Ada")
    change = update(tables.contacts).where(tables.contacts.c.contact_id == contact)
    tx.execute(change.values(last_name="Byron", version=2, updated_at=ago(days=20)))
    tx.execute(change.values(first_name="", version=3, updated_at=ago(days=10)))
    assert [score(tx, contact, ago(days=days)).profile_score for days in (30, 20, 15, 10, 1)] == [8, 11, 11, 7, 7]
    assert score(tx, contact, ago(days=366)) is None, "there was no such contact yet"


def test_known_at_ignores_what_arrived_later(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "form_submitted", 10)
    make_event(tx, contact, "form_submitted", ago(days=100))
    make_event(tx, contact, "form_submitted", ago(days=99), received_at=ago(days=1))
    award(tx, contact, 3, ago(days=98), created_at=ago(days=2))
    then = ago(days=50)
    assert score(tx, contact, then, known_at=then, source="recomputed").engagement_score == 10
    assert tx.scalar(text("select count(*) from contact_scores")) == 0, "a look back writes snapshots only"
    assert score(tx, contact).engagement_score == 23


def test_a_moment_before_the_last_full_run_leaves_the_present_alone(tx: Connection) -> None:
    contact = make_contact(tx)
    make_event(tx, contact, "page_viewed", ago(days=12))
    assert recalculate_within(tx, as_of=NOW).is_current
    before = tx.execute(text("select * from contact_scores")).all()
    result = recalculate_within(tx, as_of=ago(days=3))
    assert (result.is_current, result.changed, result.moved, result.snapshots) == (False, 0, 0, 1)
    assert tx.execute(text("select * from contact_scores")).all() == before
    assert tx.scalar(text("select count(*) from stage_transitions")) == 1


def test_evaluating_again_adds_nothing(tx: Connection) -> None:
    contact, idle = make_contact(tx), make_contact(tx, created_at=ago(days=1))
    add_rule(tx, "page_viewed", 10, decay_days=3)
    make_event(tx, contact, "page_viewed", ago(days=1))
    first = recalculate_within(tx, as_of=NOW)
    assert (first.scored, first.changed, first.moved, first.snapshots) == (2, 2, 2, 2)
    again = recalculate_within(tx, as_of=NOW)
    assert (again.scored, again.changed, again.moved, again.snapshots) == (2, 0, 0, 0)
    next_day = recalculate_within(tx, as_of=NOW + timedelta(days=1))
    assert (next_day.scored, next_day.changed, next_day.snapshots) == (2, 1, 2), "nothing decays for the idle one"
    stored = dict(tx.execute(text("select contact_id, as_of from contact_scores")).all())  # type: ignore[arg-type]
    assert stored == {contact: NOW + timedelta(days=1), idle: NOW}


def test_a_rule_change_applies_from_the_next_evaluation_and_history_keeps_its_version(tx: Connection) -> None:
    contact = make_contact(tx)
    make_event(tx, contact, "page_viewed", ago(days=100))
    add_rule(tx, "page_viewed", 10)
    old = score(tx, contact)
    add_rule(tx, "page_viewed", 5)
    new = score(tx, contact)
    assert (old.engagement_score, new.engagement_score) == (10, 15)
    assert new.rule_version == old.rule_version + 1
    replay = score(tx, contact, ago(days=1), rule_version=old.rule_version)
    assert replay.engagement_score == 10
    with pytest.raises(InvalidInput, match="no rule version 99"):
        recalculate_within(tx, as_of=NOW, rule_version=99)


def test_a_dry_run_writes_nothing_and_shows_the_grades(tx: Connection) -> None:
    contact = make_contact(tx)
    recalculate_within(tx, as_of=ago(days=1))
    add_rule(tx, "form_submitted", 60)
    make_event(tx, contact, "form_submitted", ago(days=200))
    make_contact(tx)
    result = recalculate_within(tx, as_of=NOW, dry_run=True)
    assert result.grades == {"F": {"B": 1}, None: {"F": 1}}
    assert (result.scored, result.changed, result.snapshots) == (2, 2, 0)
    counts = tx.execute(text("select (select count(*) from contact_scores), (select count(*) from score_history), "
                             "(select count(*) from score_runs)")).one()  # fmt: skip
    assert tuple(counts) == (1, 1, 1)


def test_one_contact_gets_the_number_of_the_night(tx: Connection) -> None:
    contact, other = make_contact(tx, first_name="Ada"), make_contact(tx)
    add_rule(tx, "page_viewed", 10, decay_days=3, max_per_contact=2)
    add_rule(tx, "email_clicked", 4, decay_days=9)
    for days in (1, 2, 3):
        make_event(tx, contact, "page_viewed", ago(days=days))
        make_event(tx, other, "email_clicked", ago(days=days))
    single = scoring.recalculate_contact(tx, contact, NOW)
    recalculate_within(tx, as_of=NOW)
    history = tables.score_history
    rows = tx.execute(
        select(history.c.source, history.c.total_score, history.c.engagement_score, history.c.lifecycle_stage)
        .where(history.c.contact_id == contact).order_by(history.c.source)
    ).all()  # fmt: skip
    assert [row.source for row in rows] == [SnapshotSource.NIGHTLY, SnapshotSource.RECALCULATED]
    assert rows[0][1:] == rows[1][1:] == (single.total_score, single.engagement_score, "lead")
    assert (single.grade, single.as_of, single.last_activity_at) == ("D", NOW, ago(days=1))
    with pytest.raises(NotFound, match="Contact 999999999 not found"):
        scoring.recalculate_contact(tx, 999999999, NOW)


def test_a_contact_recalculated_after_midnight_is_not_set_back_by_the_night(tx: Connection) -> None:
    contact = make_contact(tx)
    make_event(tx, contact, "page_viewed", NOW + timedelta(minutes=5))
    later = scoring.recalculate_contact(tx, contact, NOW + timedelta(minutes=10))
    result = recalculate_within(tx, as_of=NOW)
    assert (result.scored, result.changed, result.moved, result.snapshots) == (1, 0, 0, 1)
    row = tx.execute(select(tables.contact_scores)).one()
    assert (row.total_score, row.as_of) == (later.total_score, later.as_of)


def test_buckets_share_the_contacts(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        contacts = [make_contact(tx) for _ in range(7)]
        for contact in contacts[:3]:
            make_event(tx, contact, "form_submitted", ago(days=2))
    one = scoring.recalculate(fresh_engine, as_of=NOW, bucket=1, buckets=3)
    assert one.scored == sum(contact % 3 == 1 for contact in contacts)
    rest = scoring.recalculate(fresh_engine, as_of=NOW, buckets=3)
    assert (rest.scored, rest.changed, rest.snapshots) == (7, 7 - one.scored, 7 - one.scored)
    assert sum(sum(counts.values()) for counts in rest.grades.values()) == 7
    with pytest.raises(InvalidInput):
        scoring.recalculate(fresh_engine, as_of=NOW, bucket=3, buckets=3)
    with pytest.raises(InvalidInput):
        scoring.recalculate(fresh_engine, as_of=NOW, source="daily")


def test_an_empty_database_has_nothing_to_score(tx: Connection) -> None:
    result = recalculate_within(tx, as_of=NOW)
    assert (result.scored, result.changed, result.snapshots, result.grades) == (0, 0, 0, {})


def test_a_clock_change_is_no_change_of_age(tx: Connection) -> None:
    contact = make_contact(tx, created_at=datetime(2025, 1, 1, tzinfo=UTC))
    add_rule(tx, "page_viewed", 16, decay_days=1)
    make_event(tx, contact, "page_viewed", datetime(2025, 3, 29, 12, tzinfo=UTC))
    tx.execute(text("set local timezone = 'Europe/Berlin'"))
    assert score(tx, contact, datetime(2025, 3, 30, 12, tzinfo=UTC)).engagement_score == 8


def test_the_rights_of_worker_and_api_suffice(tx: Connection) -> None:
    contact = make_contact(tx)
    make_event(tx, contact, "page_viewed", ago(days=1))
    tx.execute(text("set local role mauto_api"))
    assert len(scoring.install_default_rules(tx, NOW)) == len(DEFAULT_RULES)
    assert scoring.recalculate_contact(tx, contact, NOW).engagement_score > 0
    tx.execute(text("set local role mauto_worker"))
    assert recalculate_within(tx, as_of=NOW).snapshots == 1
    with pytest.raises(DBAPIError, match="permission denied"), tx.begin_nested():
        tx.execute(text("update score_history set total_score = 100"))
