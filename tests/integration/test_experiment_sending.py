"""A/B tests on their way out: who gets what at once, who waits, and what the decision does."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis
import pytest
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, text

from mautolib import privacy
from mautolib.campaigns import control, experiment_control, experiment_release, experiments, finishing, planning
from mautolib.campaigns.experiment_assignment import DRAWS, draw, part_of, variant_of
from mautolib.campaigns.experiment_contents import slices
from mautolib.campaigns.experiment_model import AbStatus, AbTest, AbTestType, NewVariant
from mautolib.campaigns.experiment_release import release
from mautolib.campaigns.experiment_steps import Steps
from mautolib.contacts import consent
from mautolib.db.statements import statement
from mautolib.ledger.check import check
from mautolib.ledger.model import AbPart
from mautolib.settings import Settings
from tests.integration.experimenting import again, observe, parts, planned, step
from tests.integration.mailing import NOW, rows, run_pump


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(test_id=st.integers(1, 2**63 - 1), contact_id=st.integers(1, 2**63 - 1), number=st.integers(0, 1))
def test_the_draws_of_sql_and_python_are_one(tx: Connection, test_id: int, contact_id: int, number: int) -> None:
    drawn = tx.scalar(text("select ab_draw(:test, :contact, :draw)"),
                      {"test": test_id, "contact": contact_id, "draw": number})  # fmt: skip
    assert drawn == draw(test_id, contact_id, number)
    assert 0 <= drawn < DRAWS


def test_draws_are_uniform_and_independent() -> None:
    people = range(1, 20_001)
    for test_id in (1, 2):
        for number in (0, 1):
            tenths = Counter(draw(test_id, person, number) * 10 // DRAWS for person in people)
            assert sum((tenths[tenth] - 2000) ** 2 / 2000 for tenth in range(10)) < 27.9, "chi-square, p = 0.001"
    pairs = [((1, 0), (1, 1)), ((1, 0), (2, 0)), ((1, 1), (2, 1))]
    for one, other in pairs:
        both = Counter(
            (draw(one[0], person, one[1]) % 2, draw(other[0], person, other[1]) * 2 // DRAWS) for person in people
        )
        assert sum((both[cell] - 5000) ** 2 / 5000 for cell in both) < 16.3, (one, other)


def test_a_test_divides_its_audience(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into contacts (email, email_key, subscribed) values ('no@mail.example', "
                        "'no@mail.example', false)"))  # fmt: skip
    test = planned(fresh_engine, settings, 300, test_percentage=40, holdout_percentage=10)
    assert (test.planned_at, test.planned_occurrence) == (NOW, 1)
    found = rows(fresh_engine, "select contact_id, message_id, variant_id, ab_part, status, reason, held_for,"
                 " next_try_at, content_id from messages order by message_id")  # fmt: skip
    assert len(found) == 301
    how = slices(test)
    expected: Counter[str] = Counter()
    for row in found:
        if row.reason == "unsubscribed":
            assert (row.ab_part, row.variant_id, row.status) == (None, None, "skipped")
            continue
        part = part_of(how, row.contact_id)
        expected[part] += 1
        assert row.ab_part == part
        if part is AbPart.TEST:
            assert (row.variant_id, row.status, row.next_try_at) == (variant_of(how, row.contact_id), "queued", NOW)
        elif part is AbPart.REST:
            assert (row.variant_id, row.status, row.held_for) == (None, "queued", "ab_test")
        else:
            assert (row.variant_id, row.status, row.reason) == (None, "skipped", "holdout")
    assert min(expected.values()) > 10
    order = [row.variant_id for row in found if row.ab_part == "test"]
    assert max(Counter(order[:40]).values()) < 30, "both variants go from the beginning"
    run_pump(fresh_engine, settings)
    after = Counter((row.ab_part, row.status) for row in rows(fresh_engine, "select ab_part, status from messages"))
    assert after == {
        ("test", "sent"): expected[AbPart.TEST], ("rest", "queued"): expected[AbPart.REST],
        ("holdout", "skipped"): expected[AbPart.HOLDOUT], (None, "skipped"): 1,
    }  # fmt: skip
    assert finishing.finish(fresh_engine, NOW) == [], "people wait: the campaign is not sent"


DEADLINE = timedelta(hours=4)
#: The last hand-over is a moment after NOW.
LATER = DEADLINE + timedelta(minutes=1)


def sent_by(engine: Engine, test: AbTest) -> Counter[tuple[str, str]]:
    """Who was sent what: part and subject of every message handed over."""
    query = """
        select ab_part, subject from messages inner join message_contents using (content_id)
        where messages.campaign_id = :id and sent_at is not null
    """
    return Counter((row.ab_part, row.subject) for row in rows(engine, query, id=test.campaign_id))


def is_clean(engine: Engine) -> bool:
    with engine.connect() as tx:
        return check(tx) == []


def handed_over(engine: Engine, settings: Settings, count: int, **changes: Any) -> AbTest:
    """A test whose test mail is through."""
    test = planned(engine, settings, count, **changes)
    run_pump(engine, settings)
    assert step(engine, settings) == Steps()
    return again(engine, test)


def test_the_winner_goes_to_those_who_waited(fresh_engine: Engine, settings: Settings) -> None:
    test = handed_over(fresh_engine, settings, 900, test_percentage=50, holdout_percentage=5)
    assert (test.last_handover_at, test.deadline_at) == (sent_at := last_sent(fresh_engine), sent_at + DEADLINE)
    before = parts(fresh_engine, test)
    loud, plain = before["test sent Loud"], before["test sent Plain"]
    observe(fresh_engine, test, 1, opened=120)
    assert step(fresh_engine, settings, later=DEADLINE - timedelta(minutes=1)) == Steps(), "before the deadline"
    waiting = before["rest queued"]
    assert step(fresh_engine, settings, later=LATER) == Steps(decided=1, released=waiting)
    test = again(fresh_engine, test)
    assert (test.status, test.decision, test.winner_variant_id) == ("completed", "winner", test.variants[1].variant_id)
    assert test.released_at is not None
    assert step(fresh_engine, settings, later=LATER) == Steps(), "done"
    run_pump(fresh_engine, settings, later=DEADLINE + timedelta(minutes=2))
    says = "Hello {{ contact.first_name }}", "SALE {{ contact.first_name }}"
    found = sent_by(fresh_engine, test)
    assert found == {("test", says[0]): plain, ("test", says[1]): loud, ("rest", says[1]): waiting}
    assert parts(fresh_engine, test) == {
        "test sent Loud": loud, "test sent Plain": plain, "rest sent Loud": waiting,
        "holdout skipped holdout": 900 - loud - plain - waiting,
    }  # fmt: skip
    assert finishing.finish(fresh_engine, NOW + DEADLINE) == [test.campaign_id]
    assert is_clean(fresh_engine)
    facts = rows(fresh_engine, "select event_name, data from outbox where event_name like 'ab_test.%' order by 1")
    assert [(row.event_name, row.data["variant_id"]) for row in facts] == [
        (name, str(test.winner_variant_id)) for name in ("ab_test.completed", "ab_test.winner_selected")
    ]


@pytest.mark.parametrize("action", ["control", "hold"])
def test_without_a_winner_the_rest_gets_the_control_or_waits(
    fresh_engine: Engine, settings: Settings, action: str
) -> None:
    test = handed_over(fresh_engine, settings, 60, no_winner_action=action)
    waiting = parts(fresh_engine, test)["rest queued"]
    done = step(fresh_engine, settings, later=2 * DEADLINE)
    test = again(fresh_engine, test)
    if action == "control":
        assert done == Steps(decided=1, released=waiting)
        assert (test.status, test.decision, test.winner_variant_id) == ("completed", "not_enough_data", None)
        assert parts(fresh_engine, test)["rest queued Plain"] == waiting
        return
    assert done == Steps()
    assert (test.status, test.decision) == ("running", "not_enough_data")
    assert step(fresh_engine, settings, later=9 * DEADLINE) == Steps(), "it is not decided again by itself"
    assert (next_due(fresh_engine) or NOW).year == 9999, "no clock wakes it"
    with fresh_engine.begin() as tx:
        chosen = test.variants[1].variant_id
        experiment_control.select_winner(tx, test.test_id, chosen, now=NOW + 10 * DEADLINE)
    assert next_due(fresh_engine) == NOW + 10 * DEADLINE, "the sender is woken"
    assert step(fresh_engine, settings, later=10 * DEADLINE) == Steps(released=waiting)
    run_pump(fresh_engine, settings, later=10 * DEADLINE)
    assert parts(fresh_engine, test)["rest sent Loud"] == waiting


def test_a_sample_ratio_mismatch_is_held(fresh_engine: Engine, settings: Settings) -> None:
    test = planned(fresh_engine, settings, 600, test_percentage=50)
    with fresh_engine.begin() as tx:
        # Something refuses nearly all of one variant.
        tx.execute(text("update messages set status = 'skipped', reason = 'suppressed' where variant_id = :id and "
                        "contact_id % 4 > 0"), {"id": test.variants[1].variant_id})  # fmt: skip
    run_pump(fresh_engine, settings)
    step(fresh_engine, settings)
    assert step(fresh_engine, settings, later=2 * DEADLINE) == Steps()
    test = again(fresh_engine, test)
    assert (test.status, test.decision, test.no_winner_action) == ("running", "srm_detected", "control")


def test_a_test_by_hand_waits_for_its_editor(fresh_engine: Engine, settings: Settings) -> None:
    test = handed_over(fresh_engine, settings, 60, auto_select_winner=False)
    assert test.deadline_at is not None
    assert step(fresh_engine, settings, later=20 * DEADLINE) == Steps()
    assert again(fresh_engine, test).status is AbStatus.RUNNING


def test_whoever_waits_gets_the_control_of_a_cancelled_test(fresh_engine: Engine, settings: Settings) -> None:
    test = planned(fresh_engine, settings, 60)
    waiting = parts(fresh_engine, test)["rest queued"]
    with fresh_engine.begin() as tx:
        experiment_control.cancel(tx, test.test_id, now=NOW)
    assert step(fresh_engine, settings) == Steps(released=waiting)
    run_pump(fresh_engine, settings)
    found = parts(fresh_engine, test)
    assert found["rest sent Plain"] == waiting
    assert "test sent Loud" in found, "the test mail was on its way"
    assert finishing.finish(fresh_engine, NOW) == [test.campaign_id]


def test_a_cancelled_campaign_skips_those_who_wait_and_ends_its_test(fresh_engine: Engine, settings: Settings) -> None:
    test = handed_over(fresh_engine, settings, 60)
    waiting = parts(fresh_engine, test)["rest queued"]
    with fresh_engine.begin() as tx:
        control.cancel(tx, test.campaign_id, now=NOW)
    assert parts(fresh_engine, test)["rest skipped cancelled"] == waiting
    assert again(fresh_engine, test).status is AbStatus.CANCELLED
    assert step(fresh_engine, settings) == Steps()
    assert again(fresh_engine, test).released_at == NOW
    assert next_due(fresh_engine) is None


def test_a_paused_campaign_sends_nobody_anything_but_is_decided(fresh_engine: Engine, settings: Settings) -> None:
    test = handed_over(fresh_engine, settings, 60)
    with fresh_engine.begin() as tx:
        control.pause(tx, test.campaign_id, now=NOW)
    assert step(fresh_engine, settings, later=LATER).decided == 1
    assert run_pump(fresh_engine, settings, later=LATER).counts == {}
    with fresh_engine.begin() as tx:
        control.resume(tx, test.campaign_id, now=NOW + LATER)
    waiting = parts(fresh_engine, test)["rest queued Plain"]
    assert run_pump(fresh_engine, settings, later=LATER).counts == {"sent": waiting}


def test_an_opt_out_while_waiting_is_heard(fresh_engine: Engine, settings: Settings) -> None:
    test = handed_over(fresh_engine, settings, 60)
    people = [row.contact_id for row in rows(fresh_engine, "select contact_id from messages where ab_part = 'rest'")]
    with fresh_engine.begin() as tx:
        consent.unsubscribe(tx, people[0], source="test", actor="test", now=NOW)
        tx.execute(text("update contacts set subscribed = false where contact_id = :id"), {"id": people[1]})
    assert step(fresh_engine, settings, later=LATER).released == len(people) - 1
    run_pump(fresh_engine, settings, later=LATER)
    found = parts(fresh_engine, test)
    assert found["rest skipped unsubscribed"] + found["rest skipped unsubscribed Plain"] == 2
    assert found["rest sent Plain"] == len(people) - 2


def test_an_erased_person_who_waits_gets_nothing(fresh_engine: Engine, settings: Settings) -> None:
    test = handed_over(fresh_engine, settings, 60)
    people = [row.contact_id for row in rows(fresh_engine, "select contact_id from messages where ab_part = 'rest'")]
    with fresh_engine.begin() as tx:
        privacy.erase(tx, people[0], actor="test", now=NOW, settings=settings)
    assert step(fresh_engine, settings, later=LATER).released == len(people) - 1
    run_pump(fresh_engine, settings, later=LATER)
    found = parts(fresh_engine, test)
    assert (found["rest skipped erased"], found["rest sent Plain"]) == (1, len(people) - 1)


def test_the_worker_may_do_all_of_it(fresh_engine: Engine, settings: Settings) -> None:
    @event.listens_for(fresh_engine, "begin")
    def as_worker(connection: Connection) -> None:
        connection.exec_driver_sql("set local role mauto_worker")

    test = handed_over(fresh_engine, settings, 60, holdout_percentage=5)
    assert step(fresh_engine, settings, later=LATER).decided == 1
    run_pump(fresh_engine, settings, later=LATER)
    assert finishing.finish(fresh_engine, NOW + LATER) == [test.campaign_id]


def test_the_deadline_wakes_the_sender(fresh_engine: Engine, settings: Settings) -> None:
    test = planned(fresh_engine, settings, 60)
    assert next_due(fresh_engine) == NOW, "test mail"
    run_pump(fresh_engine, settings)
    assert next_due(fresh_engine) == NOW, "the deadline is to be reckoned"
    step(fresh_engine, settings)
    assert next_due(fresh_engine) == again(fresh_engine, test).deadline_at
    step(fresh_engine, settings, later=LATER)
    assert next_due(fresh_engine) == NOW + LATER, "the rest"


def last_sent(engine: Engine) -> datetime:
    return max(row.sent_at for row in rows(engine, "select sent_at from messages where sent_at is not null"))


def next_due(engine: Engine) -> datetime | None:
    with engine.connect() as tx:
        found = tx.scalar(statement("queues.messages_due"))
    assert found is None or isinstance(found, datetime)
    return found


@hypothesis.settings(max_examples=12, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    tested=st.floats(5, 50), held_out=st.floats(0, 50), variants=st.integers(2, 5), hand=st.integers(-1, 4),
    kill=st.integers(0, 3),
)  # fmt: skip
def test_nobody_gets_two_mails_or_two_variants(
    fresh_engine: Engine, settings: Settings, tested: float, held_out: float, variants: int, hand: int, kill: int
) -> None:
    """Whatever the percentages, however it is decided, and wherever it is killed and begun again."""
    with fresh_engine.begin() as tx:
        tx.execute(text("truncate campaigns, contacts, messages, message_keys, message_attempts, events cascade"))
    test = planned(
        fresh_engine, settings, 70, test_percentage=tested, holdout_percentage=held_out,
        variants=tuple(NewVariant(name=f"V{n}", subject=f"Subject {n}") for n in range(variants)),
    )
    how = slices(test)
    run_pump(fresh_engine, settings)
    step(fresh_engine, settings)
    if 0 <= hand < variants:
        with fresh_engine.begin() as tx:
            experiment_control.select_winner(tx, test.test_id, test.variants[hand].variant_id, now=NOW)
    with pytest.MonkeyPatch.context() as patch:
        given = []

        def dies(*arguments: Any, **more: Any) -> int:
            given.append(release(*arguments, **more))
            if len(given) == kill:
                raise KeyboardInterrupt
            return given[-1]

        patch.setattr(experiment_release, "release", dies)
        with contextlib.suppress(KeyboardInterrupt):
            step(fresh_engine, settings, later=LATER, batch=7)
        step(fresh_engine, settings, later=LATER, batch=7)
    run_pump(fresh_engine, settings, later=LATER)
    step(fresh_engine, settings, later=LATER)
    test = again(fresh_engine, test)
    decided = test.variants[hand if 0 <= hand < variants else 0].variant_id
    expected: dict[AbPart, Callable[[int], int | None]] = {
        AbPart.HOLDOUT: lambda _: None, AbPart.TEST: lambda one: variant_of(how, one), AbPart.REST: lambda _: decided,
    }
    query = """
        select contact_id, ab_part, status, messages.variant_id, message_contents.variant_id as said, attempt_no
        from messages inner join message_contents using (content_id)
    """
    found = rows(fresh_engine, query)
    assert len({row.contact_id for row in found}) == len(found) == 70
    for row in found:
        part = part_of(how, row.contact_id)
        assert (row.ab_part, row.variant_id) == (part, expected[part](row.contact_id))
        if part is AbPart.HOLDOUT:
            assert (row.status, row.attempt_no) == ("skipped", 0)
        else:
            assert (row.status, row.said, row.attempt_no) == ("sent", row.variant_id, 1)
    assert finishing.finish(fresh_engine, NOW + LATER) == [test.campaign_id]
    assert is_clean(fresh_engine)


def test_two_deciders_at_once_decide_once(fresh_engine: Engine, settings: Settings) -> None:
    test = handed_over(fresh_engine, settings, 60)
    waiting = parts(fresh_engine, test)["rest queued"]
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: step(fresh_engine, settings, later=LATER, batch=10), range(4)))
    assert (sum(each.decided for each in done), sum(each.released for each in done)) == (1, waiting)
    facts = rows(fresh_engine, "select count(*) as n from outbox where event_name = 'ab_test.completed'")
    assert facts[0].n == 1


def test_a_choice_by_hand_beats_the_clock(fresh_engine: Engine, settings: Settings) -> None:
    test = handed_over(fresh_engine, settings, 60)
    waiting = parts(fresh_engine, test)["rest queued"]
    with fresh_engine.begin() as tx:
        experiment_control.select_winner(tx, test.test_id, test.variants[1].variant_id, now=NOW)
        assert step(fresh_engine, settings, later=LATER) == Steps(), "it passes over what an editor is at"
    assert step(fresh_engine, settings, later=LATER) == Steps(released=waiting)
    assert again(fresh_engine, test).winner_variant_id == test.variants[1].variant_id


def test_a_decision_that_comes_second_changes_nothing(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is due and the decision an editor chooses."""
    test = handed_over(fresh_engine, settings, 60)
    waiting = parts(fresh_engine, test)["rest queued"]
    lock = experiments.lock

    def late(tx: Connection, test_id: int) -> AbTest:
        monkeypatch.setattr(experiments, "lock", lock)
        with fresh_engine.begin() as other:
            experiment_control.select_winner(other, test_id, test.variants[1].variant_id, now=NOW)
        return lock(tx, test_id)

    monkeypatch.setattr(experiments, "lock", late)
    assert step(fresh_engine, settings, later=LATER) == Steps(released=waiting)
    assert again(fresh_engine, test).winner_variant_id == test.variants[1].variant_id
    assert parts(fresh_engine, test)["rest queued Loud"] == waiting


def test_a_release_is_begun_again_without_harm(fresh_engine: Engine, settings: Settings) -> None:
    test = handed_over(fresh_engine, settings, 60)
    with fresh_engine.begin() as tx:
        experiment_control.select_winner(tx, test.test_id, test.variants[1].variant_id, now=NOW)
    test = again(fresh_engine, test)
    waiting = parts(fresh_engine, test)["rest queued"]
    with fresh_engine.begin() as tx:
        assert release(tx, settings, test, now=NOW, size=7) == 7
    when = "select due_at, next_try_at from messages where ab_part = 'rest' and variant_id is not null order by 1"
    first = rows(fresh_engine, when)
    with fresh_engine.begin() as tx:
        assert release(tx, settings, test, now=NOW + LATER, size=1000) == waiting - 7
        assert release(tx, settings, test, now=NOW + LATER, size=1000) == 0
    assert rows(fresh_engine, when)[:7] == first == [(NOW, NOW)] * 7


def test_a_killed_planner_leaves_nothing(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(planning.totals, "refresh_totals", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            planned(fresh_engine, settings, 40)
    assert rows(fresh_engine, "select from messages") == []
    assert rows(fresh_engine, "select planned_at from ab_tests")[0].planned_at is None
    planning.plan_due(fresh_engine, settings, NOW)
    assert rows(fresh_engine, "select planned_at from ab_tests")[0].planned_at == NOW
    assert len(rows(fresh_engine, "select from messages")) == 40


def test_send_times_shift_the_test_and_the_winner_goes_at_its_hour_the_day_after(
    fresh_engine: Engine, settings: Settings
) -> None:
    delays = (NewVariant(name="Now"), NewVariant(name="Noon", send_delay_minutes=180))
    test = planned(
        fresh_engine, settings, 80, variants=delays, test_type=AbTestType.SEND_TIME, test_percentage=50,
        auto_select_winner=False,
    )  # fmt: skip
    due = rows(fresh_engine, "select distinct variant_id, due_at, next_try_at, give_up_at from messages"
               " where ab_part = 'test' order by due_at")  # fmt: skip
    hours = timedelta(hours=3)
    assert [(row.variant_id, row.due_at, row.next_try_at, row.give_up_at) for row in due] == [
        (test.variants[0].variant_id, NOW, NOW, NOW + timedelta(hours=24)),
        (test.variants[1].variant_id, NOW + hours, NOW + hours, NOW + hours + timedelta(hours=24)),
    ]
    run_pump(fresh_engine, settings)
    step(fresh_engine, settings)
    assert again(fresh_engine, test).deadline_at is None, "one half has not gone"
    run_pump(fresh_engine, settings, later=hours)
    step(fresh_engine, settings, later=hours)
    decided_at = NOW + timedelta(hours=20)
    with fresh_engine.begin() as tx:
        experiment_control.select_winner(tx, test.test_id, test.variants[1].variant_id, now=decided_at)
    step(fresh_engine, settings, later=timedelta(hours=20))
    noon = datetime(2026, 11, 24, 12, 0, tzinfo=NOW.tzinfo)
    found = rows(fresh_engine, "select distinct due_at, next_try_at, give_up_at, held_for from messages"
                 " where ab_part = 'rest'")  # fmt: skip
    assert [tuple(row) for row in found] == [(noon, noon, noon + timedelta(hours=24), None)]


@pytest.mark.parametrize(
    ("now", "zone", "expected"),
    [
        # Summer time begins on 28 March: 02:30 is skipped, the first valid minute is 03:00 CEST.
        ("2027-03-27T10:00+00:00", "Europe/Berlin", "2027-03-28T01:00+00:00"),
        ("2026-10-24T10:00+00:00", "Europe/Berlin", "2026-10-25T00:30+00:00"),
        ("2026-11-22T23:30+00:00", "Europe/Berlin", "2026-11-24T01:30+00:00"),
    ],
)
def test_the_day_after_follows_the_clocks(now: str, zone: str, expected: str) -> None:
    clock = datetime(2026, 1, 1, 2, 30)
    found = experiment_release._tomorrow(clock, datetime.fromisoformat(now), ZoneInfo(zone))
    assert found == datetime.fromisoformat(expected)
