"""Scores and stages by day: figures counted by hand, and sums that must agree with what they are made of."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import analytics
from mautolib.analytics.score_days import refresh_within
from mautolib.errors import InvalidInput
from mautolib.scoring import NewRule, recalculate, recalculate_within
from mautolib.scoring.rules import create_rule
from tests.builders import make_contact, make_event, make_order

DAY = timedelta(days=1)
FIRST = datetime(2026, 3, 1, tzinfo=UTC)


def distribution(tx: Connection, day: date) -> list[tuple[object, ...]]:
    rows = tx.execute(
        text("select grade, bucket_from, bucket_to, contacts, avg_engagement, avg_profile, avg_recency "
             "from analytics.score_distribution where as_of = :day order by bucket_from, grade"), {"day": day},
    )  # fmt: skip
    return [(*row[:4], *map(float, row[4:])) for row in rows]


def funnel(tx: Connection, day: date) -> dict[str, tuple[object, ...]]:
    """contacts, share, entered, departed, median days, mean score of the stages where there is anything."""
    rows = tx.execute(
        text("select stage, contacts, contact_share, entered, departed, median_days_in_stage, avg_score "
             "from analytics.lifecycle_funnel where as_of = :day order by stage_order"), {"day": day},
    )  # fmt: skip
    plain = {row[0]: tuple(None if each is None else float(each) for each in row[1:]) for row in rows}
    assert len(plain) == 10, "every stage has its row"
    return {stage: values for stage, values in plain.items() if values[0] or values[2] or values[3]}


def points(tx: Connection, event_type: str, points: int) -> None:
    create_rule(tx, NewRule(name=event_type, event_type=event_type, points=points), actor="test", now=FIRST)


def world(tx: Connection) -> list[int]:
    """Three contacts, rules without decay: 90 points for a form too long ago, two of the address alone."""
    points(tx, "form_submitted", 90)
    points(tx, "order_placed", 30)
    people = [make_contact(tx, created_at=FIRST - 10 * DAY) for _ in range(3)]
    make_event(tx, people[0], "form_submitted", FIRST - 95 * DAY)
    return people


def test_a_day_by_hand(tx: Connection) -> None:
    people = world(tx)
    recalculate_within(tx, as_of=FIRST)
    assert refresh_within(tx, as_of=FIRST) == 1
    assert distribution(tx, FIRST.date()) == [("F", 0, 10, 2, 0.0, 4.0, 0.0), ("A+", 90, 100, 1, 90.0, 4.0, 0.0)]
    assert funnel(tx, FIRST.date()) == {
        "new": (0, 0, 0, 3, None, None),
        "subscriber": (2, 66.6667, 2, 0, 0, 4), "dormant": (1, 33.3333, 1, 0, 0, 94),
    }  # fmt: skip
    make_event(tx, people[1], "order_placed", FIRST + timedelta(hours=12))
    make_order(tx, people[1], FIRST + timedelta(hours=12))
    make_event(tx, people[0], "form_submitted", FIRST + timedelta(hours=6))
    recalculate_within(tx, as_of=FIRST + DAY)
    assert refresh_within(tx, as_of=FIRST + DAY) == 2
    recent = 19.7022  # 20 * exp(-0.03 / 2)
    assert distribution(tx, (FIRST + DAY).date()) == [
        ("F", 0, 10, 1, 0.0, 4.0, 0.0), ("C", 50, 60, 1, 30.0, 4.0, pytest.approx(recent, abs=0.01)),
        ("A+", 100, None, 1, 180.0, 4.0, pytest.approx(19.55, abs=0.01)),
    ]  # fmt: skip
    assert funnel(tx, (FIRST + DAY).date()) == {
        "subscriber": (1, 33.3333, 0, 1, 1, 4), "customer": (1, 33.3333, 1, 0, 0, pytest.approx(34 + recent, abs=0.01)),
        "evangelist": (1, 33.3333, 1, 0, 0, pytest.approx(203.55, abs=0.01)), "dormant": (0, 0, 0, 1, None, None),
    }  # fmt: skip
    assert distribution(tx, FIRST.date())[0] == ("F", 0, 10, 2, 0.0, 4.0, 0.0), "the day before stays as it was"


def test_the_median_looks_at_the_stage_held_then(tx: Connection) -> None:
    """A later move must not make the past stay shorter."""
    people = world(tx)
    recalculate_within(tx, as_of=FIRST)
    recalculate_within(tx, as_of=FIRST + 4 * DAY)
    make_event(tx, people[2], "form_submitted", FIRST + 4 * DAY)
    make_event(tx, people[1], "form_submitted", FIRST + 4 * DAY)
    recalculate_within(tx, as_of=FIRST + 5 * DAY)
    refresh_within(tx, as_of=FIRST + 5 * DAY)
    assert funnel(tx, (FIRST + 4 * DAY).date())["subscriber"][4] == 4
    assert funnel(tx, (FIRST + 5 * DAY).date())["evangelist"] == (
        2, pytest.approx(66.6667), 2, 0, 0, pytest.approx(113.41))


def test_the_last_scoring_of_a_day_counts_and_a_look_back_does_not(tx: Connection) -> None:
    people = world(tx)
    recalculate_within(tx, as_of=FIRST)
    make_event(tx, people[1], "form_submitted", FIRST + timedelta(hours=1))
    recalculate_within(tx, as_of=FIRST + timedelta(hours=15))
    recalculate_within(tx, as_of=FIRST + timedelta(hours=2), known_at=FIRST, source="recomputed")
    recalculate_within(tx, as_of=FIRST - 2 * DAY, source="recomputed")
    recalculate_within(tx, as_of=FIRST + DAY)
    refresh_within(tx, as_of=FIRST + DAY)
    assert [row[3] for row in distribution(tx, FIRST.date())] == [1, 1, 1]
    assert sum(row[3] for row in distribution(tx, (FIRST - 2 * DAY).date())) == 3, "a day only looked back at"
    assert funnel(tx, FIRST.date())["evangelist"][:3] == (1, pytest.approx(33.3333), 1)
    assert funnel(tx, (FIRST + DAY).date())["evangelist"][2:4] == (0, 0), "since the scoring before"


def test_a_half_finished_night_is_no_day(tx: Connection) -> None:
    world(tx)
    recalculate_within(tx, as_of=FIRST, bucket=0, buckets=2)
    assert refresh_within(tx, as_of=FIRST) == 0
    recalculate_within(tx, as_of=FIRST, bucket=1, buckets=2)
    assert refresh_within(tx, as_of=FIRST - DAY) == 0
    assert refresh_within(tx, as_of=FIRST) == 1
    assert sum(row[3] for row in distribution(tx, FIRST.date())) == 3


def test_sums_agree_with_snapshots_and_moves(tx: Connection) -> None:
    points(tx, "page_viewed", 7)
    points(tx, "unsubscribed", -50)
    points(tx, "checkout_started", 12)
    people = [make_contact(tx, created_at=FIRST - n * DAY, first_name="A" * (n % 2)) for n in range(30)]
    for n, person in enumerate(people):
        for place in range(n % 9):
            make_event(tx, person, ["page_viewed", "checkout_started"][place % 2], FIRST + (place * 2 + n % 3) * DAY)
        if n % 7 == 0:
            make_order(tx, person, FIRST + n * DAY / 3)
    days = [FIRST + n * DAY for n in (0, 1, 2, 5, 6, 40, 80, 95)]
    for moment in days:
        recalculate_within(tx, as_of=moment)
    assert refresh_within(tx, as_of=days[-1]) == len(days)
    scored = dict(tx.execute(text("select cast(as_of as date), scored_count from score_runs")).all())  # type: ignore[arg-type]
    sums = "select as_of, sum(contacts) from analytics.{} group by 1"
    assert dict(tx.execute(text(sums.format("score_distribution"))).all()) == scored  # type: ignore[arg-type]
    assert dict(tx.execute(text(sums.format("lifecycle_funnel"))).all()) == scored  # type: ignore[arg-type]
    balance = tx.execute(text(
        "select as_of, stage, contacts, sum(entered - departed) over (partition by stage order by as_of) as balance "
        "from analytics.lifecycle_funnel where stage <> 'new'")).all()  # fmt: skip
    assert all(row.contacts == row.balance for row in balance)
    moves = tx.scalar(text("select count(*) from stage_transitions"))
    entered, departed = tx.execute(text("select sum(entered), sum(departed) from analytics.lifecycle_funnel")).one()
    assert entered == departed == moves > 40
    shares = tx.scalars(text("select sum(contact_share) from analytics.lifecycle_funnel group by as_of"))
    assert all(abs(share - 100) < 0.001 for share in shares)
    grades = {"A+": (90, None), "A": (80, 90), "B+": (70, 80), "B": (60, 70), "C": (45, 60), "D": (25, 45),
              "F": (0, 25)}  # fmt: skip
    for grade, low in tx.execute(text("select grade, bucket_from from analytics.score_distribution")).all():
        least, above = grades[grade]
        assert low + 10 > least and (above is None or low < above)


def test_restating_gives_the_same_and_a_range_only_its_days(tx: Connection) -> None:
    people = world(tx)
    for n in range(4):
        recalculate_within(tx, as_of=FIRST + n * DAY)
    everything = "select * from analytics.{} order by 1, 2, 3, 4"
    refresh_within(tx, as_of=FIRST + 3 * DAY)
    before = [tx.execute(text(everything.format(name))).all() for name in ("score_distribution", "lifecycle_funnel")]
    assert refresh_within(tx, as_of=FIRST + 9 * DAY, rebuild=True) == 4
    after = [tx.execute(text(everything.format(name))).all() for name in ("score_distribution", "lifecycle_funnel")]
    assert before == after
    tx.execute(text("update analytics.lifecycle_funnel set contacts = 99"))
    day = (FIRST + DAY).date()
    assert refresh_within(tx, as_of=FIRST + 9 * DAY, from_=day, to=day) == 1
    wrong = set(tx.scalars(text("select as_of from analytics.lifecycle_funnel where contacts = 99")))
    assert wrong == {(FIRST + n * DAY).date() for n in (0, 2, 3)}
    with pytest.raises(InvalidInput, match="before it begins"):
        refresh_within(tx, as_of=FIRST, from_=day, to=day - DAY)
    assert len(people) == 3


def test_an_hour_without_a_scoring_restates_nothing(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        make_contact(tx, created_at=FIRST - DAY)
    recalculate(fresh_engine, as_of=FIRST)
    assert analytics.score_days.refresh(fresh_engine, as_of=FIRST) == 1
    with fresh_engine.begin() as tx:
        tx.execute(text("update score_runs set finished_at = finished_at - interval '2 hours'"))
    assert analytics.score_days.refresh(fresh_engine, as_of=FIRST + DAY) == 0
    recalculate(fresh_engine, as_of=FIRST + DAY)
    assert analytics.score_days.refresh(fresh_engine, as_of=FIRST + DAY) == 1
