"""What is folded from night to night equals the direct computation: whatever comes late, and whatever rules become."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from mautolib import dispatch, scoring
from mautolib.contacts import delete
from mautolib.db import statements
from mautolib.events.append import NewEvent, append, append_many
from mautolib.scoring import NewRule, recalculate_within, recalculation, state
from mautolib.scoring.rules import change_rule, create_rule, current_version, remove_rule
from mautolib.settings import Settings
from tests.builders import NOW, ago, make_contact, make_event

TYPES = ["page_viewed", "page_viewed", "email_sent", "webinar_attended"]
VALUES = st.sampled_from([None, 1, 1.0, "1", True, [1], {"a": 1}])
PROPERTIES = st.dictionaries(st.sampled_from(["x", "y"]), VALUES, max_size=2)
RULES = st.builds(
    NewRule, name=st.just("rule"), event_type=st.sampled_from(TYPES),
    condition=st.one_of(st.just({}), st.just({}), PROPERTIES), points=st.sampled_from([-50, -3, 1, 7, 40, 60]),
    max_per_contact=st.integers(0, 3), decay_days=st.sampled_from([0, 0, 1, 7, 30]),
    active=st.sampled_from([True, True, True, True, False]),
)  # fmt: skip
#: Whose, what, when between the night before and this one, how many days too late (mostly none), and properties.
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from(TYPES), st.sampled_from([0.01, 0.3, 0.5, 1, 1.2]),
        st.sampled_from([0, 0, 0, 0, 0, 1, 30]), PROPERTIES | st.just({}),
    ),
    max_size=8,
)  # fmt: skip
EDITS = st.one_of(
    st.none(),
    st.tuples(st.just("add"), st.integers(0, 9), RULES),
    st.tuples(st.just("change"), st.integers(0, 9), RULES),
    st.tuples(st.just("remove"), st.integers(0, 9), st.none()),
)
#: A night: what was told before it (in time or late), what became of the rules, and how much later it is.
NIGHTS = st.lists(
    st.tuples(EVENTS, EDITS | st.none(), st.sampled_from([0.3, 1, 1, 9, 500]), st.sampled_from([1, 1, 2, 3]),
              st.sampled_from([True, True, False])),
    min_size=2, max_size=4,
)
SCORES = """
select contact_id, engagement_score, recency_score, total_score, last_activity_at, grade
from score_history where source = :source and as_of = :as_of order by contact_id
"""


def tell(tx: Connection, contact: int, kind: str, at: datetime, properties: Any = None, **options: Any) -> None:
    """An event that goes its usual way: appended, and queued for dispatch."""
    append(tx, [NewEvent(event_type=kind, contact_id=contact, occurred_at=at, properties=properties or {})],
           now=options.pop("now", NOW), **options)  # fmt: skip


def edit(tx: Connection, ids: list[int], change: Any) -> None:
    """Add, change or remove a rule."""
    if change is None:
        return
    what, which, new = change
    if what == "add":
        ids.append(create_rule(tx, new, actor="test", now=NOW).rule_id)
    elif ids and what == "change":
        fields = {name: getattr(new, name) for name in NewRule.__dataclass_fields__}
        change_rule(tx, ids[which % len(ids)], fields, actor="test", now=NOW)
    elif ids:
        remove_rule(tx, ids.pop(which % len(ids)), actor="test", now=NOW)


def night(tx: Connection, as_of: datetime, *, buckets: int = 1) -> None:
    """A night inside the test's transaction: every bucket aims and folds."""
    for bucket in range(buckets):
        slices = list(range(bucket, state.SLICES, buckets))
        tx.execute(text("update score_slices set fold_target = greatest(fold_target, :as_of) where slice = any(:s)"),
                   {"as_of": as_of, "s": slices})  # fmt: skip
        recalculate_within(tx, as_of=as_of, bucket=bucket, buckets=buckets)


def folded(tx: Connection) -> set[datetime | None]:
    return set(tx.scalars(text("select folded_until from score_slices")))


def check(tx: Connection, as_of: datetime) -> None:
    """The scores of the night are those of all events read anew."""
    recalculate_within(tx, as_of=as_of, known_at=as_of + timedelta(days=9999), source="recomputed")
    direct = tx.execute(text(SCORES), {"source": "recomputed", "as_of": as_of}).all()
    kept = tx.execute(text(SCORES), {"source": "nightly", "as_of": as_of}).all()
    assert len(kept) == len(direct)
    for ours, theirs in zip(kept, direct, strict=True):
        assert ours.engagement_score == pytest.approx(theirs.engagement_score, rel=1e-9, abs=2e-9)
        assert ours.last_activity_at == theirs.last_activity_at
        assert ours.recency_score == theirs.recency_score
        assert ours.total_score == pytest.approx(theirs.total_score, abs=0.0101)
    with tx.begin_nested() as savepoint:
        for row in kept:
            one = scoring.recalculate_contact(tx, row.contact_id, as_of)
            assert one.engagement_score == pytest.approx(row.engagement_score, rel=1e-9, abs=2e-9)
            assert (one.last_activity_at, one.recency_score) == (row.last_activity_at, row.recency_score)
        savepoint.rollback()


def dispatched(tx: Connection) -> None:
    """What dispatch does, without its effects: events leave the queue and late ones leave a mark."""
    rows = tx.execute(text("select unnest(event_ids) as event_id, occurred_at from event_pending")).all()
    tx.execute(text("delete from event_pending"))
    scoring.mark_late(tx, [row.event_id for row in rows], [row.occurred_at for row in rows])


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.lists(RULES, min_size=1, max_size=4), nights=NIGHTS)
@pytest.mark.thorough
def test_nights_equal_the_direct_computation(tx: Connection, rules: list[NewRule], nights: Sequence[Any]) -> None:
    with tx.begin_nested() as savepoint:
        people = [make_contact(tx) for _ in range(2)]
        ids = [create_rule(tx, rule, actor="test", now=NOW).rule_id for rule in rules]
        before, as_of = ago(days=9), NOW
        for events, change, days, buckets, dispatches in nights:
            for person, kind, share, late, properties in events:
                at = before + (as_of - before) * share - timedelta(days=late)
                tell(tx, people[person], kind, at, properties)
            if dispatches:
                dispatched(tx)
            edit(tx, ids, change)
            night(tx, as_of, buckets=buckets)
            assert folded(tx) == {as_of}, "the scores really came from what was folded"
            check(tx, as_of)
            before, as_of = as_of, as_of + timedelta(days=days)
        savepoint.rollback()


def add_rule(tx: Connection, event_type: str, points: int, **fields: Any) -> int:
    new = NewRule(name=event_type, event_type=event_type, points=points, **fields)
    return create_rule(tx, new, actor="test", now=NOW).rule_id


def engagement(tx: Connection, contact: int) -> float:
    found = tx.scalar(text("select engagement_score from contact_scores where contact_id = :id"), {"id": contact})
    assert found is not None
    return float(found)


def test_an_event_is_folded_once(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "form_submitted", 10, decay_days=2)
    make_event(tx, contact, "form_submitted", ago(days=2))
    for day in range(3):
        night(tx, NOW + timedelta(days=day))
        assert engagement(tx, contact) == pytest.approx(10 * 0.5 ** ((2 + day) / 2))
    # What is folded is really read: a fold forgotten by hand is not noticed by the next night.
    tx.execute(text("update score_states set weights = array[0::float8]"))
    night(tx, NOW + timedelta(days=3))
    assert engagement(tx, contact) == 0


@pytest.mark.parametrize("way", ["waits", "dispatched", "silent", "bulk"])
def test_a_late_event_counts_from_the_next_night(tx: Connection, way: str) -> None:
    contact, other = make_contact(tx), make_contact(tx)
    add_rule(tx, "form_submitted", 10, max_per_contact=1, decay_days=1)
    tell(tx, contact, "form_submitted", ago(days=1))
    tell(tx, other, "form_submitted", ago(days=1))
    night(tx, NOW)
    dispatched(tx)
    tx.execute(text("delete from score_stale"))
    late = NewEvent(event_type="form_submitted", contact_id=contact, occurred_at=ago(days=3))
    if way == "bulk":
        append_many(tx, [late], now=NOW)
    else:
        append(tx, [late], now=NOW, effects=way != "silent")
    if way == "dispatched":
        dispatched(tx)
        assert tx.scalars(text("select contact_id from score_stale")).all() == [contact]
    night(tx, NOW + timedelta(days=1))
    assert engagement(tx, contact) == pytest.approx(10 * 0.5**4), "the first by time counts, and only it"
    assert engagement(tx, other) == pytest.approx(10 * 0.5**2)
    assert tx.scalar(text("select count(*) from score_stale")) == 0


def test_dispatch_marks_only_what_is_older_than_the_fold(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact, other = make_contact(tx), make_contact(tx)
    scoring.recalculate(fresh_engine, as_of=NOW)
    with fresh_engine.begin() as tx:
        tell(tx, contact, "page_viewed", NOW)
        tell(tx, other, "page_viewed", NOW + timedelta(microseconds=1))
        tell(tx, 0, "page_viewed", ago(days=1))
    assert dispatch.run(fresh_engine, settings, now=NOW).events == 3
    with fresh_engine.connect() as tx:
        assert tx.scalars(text("select contact_id from score_stale")).all() == [contact]


def weights(tx: Connection) -> list[Any]:
    return list(tx.execute(text("select weights, counts from score_states order by contact_id")).all())


def test_points_and_names_need_no_weighing(tx: Connection) -> None:
    contact = make_contact(tx)
    rule = add_rule(tx, "form_submitted", 10)
    make_event(tx, contact, "form_submitted", ago(days=100))
    night(tx, NOW)
    tx.execute(text("update score_states set weights = array[7::float8]"))
    change_rule(tx, rule, {"points": 3, "name": "Form"}, actor="test", now=NOW)
    night(tx, NOW + timedelta(days=1))
    assert engagement(tx, contact) == 21, "what was folded is multiplied by the new points"


def test_a_changed_rule_is_weighed_anew_and_no_other(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "form_submitted", 10)
    rule = add_rule(tx, "page_viewed", 1, max_per_contact=1)
    for days in (50, 60, 70):
        make_event(tx, contact, "form_submitted", ago(days=days))
        make_event(tx, contact, "page_viewed", ago(days=days))
    night(tx, NOW)
    tx.execute(text("update score_states set weights[1] = 100"))
    change_rule(tx, rule, {"max_per_contact": 2}, actor="test", now=NOW)
    night(tx, NOW + timedelta(days=1))
    assert engagement(tx, contact) == 100 * 10 + 2
    tx.execute(text("delete from event_pending"))  # what the nights told of the score is dispatched meanwhile
    change_rule(tx, rule, {"active": False}, actor="test", now=NOW)
    night(tx, NOW + timedelta(days=2))
    assert engagement(tx, contact) == 1000
    tx.execute(text("delete from event_pending"))
    change_rule(tx, rule, {"active": True}, actor="test", now=NOW)
    night(tx, NOW + timedelta(days=3))
    assert engagement(tx, contact) == 1002, "back again, with what happened meanwhile"


def test_rules_of_equal_weight_share_it(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "page_viewed", 5, decay_days=3)
    add_rule(tx, "page_viewed", 2, decay_days=3)
    tell(tx, contact, "page_viewed", ago(days=3))
    night(tx, NOW)
    assert engagement(tx, contact) == pytest.approx(3.5)
    assert [len(row.weights) for row in weights(tx)] == [1]


def test_a_penalty_that_comes_or_goes_changes_who_was_active(tx: Connection) -> None:
    contact = make_contact(tx)
    tell(tx, contact, "page_viewed", ago(days=5), {"url": "/careers"})
    tell(tx, contact, "form_submitted", ago(days=9))
    night(tx, NOW)
    last = text("select last_activity_at from contact_scores")
    assert tx.scalar(last) == ago(days=5)
    rule = add_rule(tx, "page_viewed", -1, condition={"url": "/careers"})
    night(tx, NOW + timedelta(days=1))
    assert tx.scalar(last) == ago(days=9)
    change_rule(tx, rule, {"points": 0}, actor="test", now=NOW)
    night(tx, NOW + timedelta(days=2))
    assert tx.scalar(last) == ago(days=5)


@pytest.mark.parametrize("days", [399, 401, 40_000])
def test_weights_never_overflow(tx: Connection, days: int) -> None:
    contact, quiet = make_contact(tx), make_contact(tx)
    add_rule(tx, "page_viewed", 1000, decay_days=1)
    add_rule(tx, "page_viewed", -1000, decay_days=1, max_per_contact=1)
    tell(tx, quiet, "page_viewed", datetime(1970, 1, 1, tzinfo=UTC))
    night(tx, NOW)
    later = NOW + timedelta(days=days)
    tell(tx, contact, "page_viewed", later - timedelta(days=1))
    tell(tx, contact, "page_viewed", later)
    night(tx, later)
    assert engagement(tx, contact) == pytest.approx(1000)
    assert engagement(tx, quiet) == 0
    check(tx, later)


def test_with_very_many_rules_everything_is_computed_directly(tx: Connection) -> None:
    contact = make_contact(tx)
    for number in range(state.MOST_WEIGHTS):
        add_rule(tx, "page_viewed", 1, decay_days=number + 1)
    tell(tx, contact, "page_viewed", NOW)
    night(tx, NOW)
    assert (engagement(tx, contact), folded(tx)) == (32, {NOW})
    rule = add_rule(tx, "page_viewed", 1)
    night(tx, NOW + timedelta(hours=1))
    assert folded(tx) == {NOW}
    check(tx, NOW + timedelta(hours=1))
    remove_rule(tx, rule, actor="test", now=NOW)
    night(tx, NOW + timedelta(hours=2))
    assert folded(tx) == {NOW + timedelta(hours=2)}
    check(tx, NOW + timedelta(hours=2))


def test_the_past_and_what_nobody_announced_are_computed_directly(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "page_viewed", 1)
    tell(tx, contact, "page_viewed", ago(days=2))
    recalculate_within(tx, as_of=NOW)
    assert folded(tx) == {None}
    night(tx, NOW)
    recalculate_within(tx, as_of=ago(days=1))
    recalculate_within(tx, as_of=NOW + timedelta(days=1), dry_run=True)
    recalculate_within(tx, as_of=NOW + timedelta(days=1))
    assert folded(tx) == {NOW}


def test_a_fold_that_fails_leaves_nothing_behind(fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx)
        add_rule(tx, "form_submitted", 10)
        tell(tx, contact, "form_submitted", ago(days=100))
    scoring.recalculate(fresh_engine, as_of=ago(days=1))
    with fresh_engine.begin() as tx:
        tell(tx, contact, "form_submitted", ago(hours=2))

    def killed(*args: object) -> float:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(state, "_worth", killed)
        with pytest.raises(RuntimeError, match="killed"):
            scoring.recalculate(fresh_engine, as_of=NOW)
    with fresh_engine.connect() as tx:
        assert (folded(tx), engagement(tx, contact)) == ({ago(days=1)}, 10), "announced, but not folded"
        assert tx.scalar(text("select min(fold_target) from score_slices")) == NOW
    scoring.recalculate(fresh_engine, as_of=NOW)
    scoring.recalculate(fresh_engine, as_of=NOW)
    with fresh_engine.connect() as tx:
        assert (folded(tx), engagement(tx, contact)) == ({NOW}, 20)


def test_someone_deleted_during_a_night_is_forgotten_by_the_next(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact, other = make_contact(tx), make_contact(tx)
        add_rule(tx, "form_submitted", 10)
        for person in (contact, other):
            tell(tx, person, "form_submitted", ago(days=1))
    count = text("select count(*) from contact_scores join score_states using (contact_id) where contact_id = :id")
    with fresh_engine.begin() as tx:
        # The night is through with the contact, and has not committed.
        tx.execute(text("update score_slices set fold_target = :now"), {"now": NOW})
        recalculate_within(tx, as_of=NOW)
        with fresh_engine.begin() as beside:
            delete(beside, contact, actor="test", now=NOW)
    with fresh_engine.begin() as tx:
        assert tx.scalar(count, {"id": contact}) == 1
    scoring.recalculate(fresh_engine, as_of=NOW + timedelta(days=1))
    with fresh_engine.begin() as tx:
        assert tx.scalar(count, {"id": contact}) == 0
        assert tx.scalar(count, {"id": other}) == 1
        delete(tx, other, actor="test", now=NOW)
        assert tx.scalar(count, {"id": other}) == 0


def test_buckets_may_be_cut_otherwise_every_night(tx: Connection) -> None:
    people = [make_contact(tx) for _ in range(9)]
    add_rule(tx, "page_viewed", 3, decay_days=5)
    for day, buckets in enumerate((3, 1, 2, 5, 64)):
        as_of = NOW + timedelta(days=day)
        for number, person in enumerate(people):
            tell(tx, person, "page_viewed", as_of - timedelta(hours=number * 7))
        if buckets == 2:
            # Half of the contacts were folded by a night that the other half missed.
            night_of_half(tx, as_of - timedelta(hours=1))
        night(tx, as_of, buckets=buckets)
        assert folded(tx) == {as_of}
        check(tx, as_of)


def night_of_half(tx: Connection, as_of: datetime) -> None:
    slices = list(range(1, state.SLICES, 2))
    tx.execute(text("update score_slices set fold_target = :as_of where slice = any(:slices)"),
               {"as_of": as_of, "slices": slices})  # fmt: skip
    recalculate_within(tx, as_of=as_of, bucket=1, buckets=2)


def test_events_told_and_dispatched_while_nights_pass_count_once(fresh_engine: Engine, settings: Settings) -> None:
    """Three tellers, two dispatchers and nights side by side; in the end every event counted exactly once."""
    with fresh_engine.begin() as tx:
        # An event each, so that nobody is put right by another event of theirs.
        people = [make_contact(tx, created_at=ago(days=50)) for _ in range(180)]
        add_rule(tx, "form_submitted", 1)
    stop, failures = threading.Event(), list[Exception]()
    started = NOW

    def guarded(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - shown by the test
                failures.append(error)
                stop.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def teller(seed: int) -> None:
        for number in range(60):
            if stop.is_set():
                return
            # Around the moments of the nights: some in time, some late, some not yet due.
            at = started + timedelta(minutes=(number * 7 + seed * 3) % 90 - 20)
            with fresh_engine.begin() as tx:
                tell(tx, people[number * 3 + seed], "form_submitted", at, effects=number % 9 != 0)
                if number % 3 == 0:
                    tx.execute(text("select pg_sleep(0.02)"))

    def dispatcher() -> None:
        while not stop.is_set():
            dispatch.run(fresh_engine, settings, now=NOW, batch_size=3)

    tellers = [guarded(lambda seed=seed: teller(seed)) for seed in range(3)]
    others = [guarded(dispatcher), guarded(dispatcher)]
    minute = 0
    while any(thread.is_alive() for thread in tellers):
        scoring.recalculate(fresh_engine, as_of=started + timedelta(minutes=minute), buckets=1 + minute % 3)
        minute += 5
    stop.set()
    for thread in (*tellers, *others):
        thread.join()
    assert not failures
    assert minute > 4, "nights really passed meanwhile"
    end = started + timedelta(minutes=max(minute, 100))
    scoring.recalculate(fresh_engine, as_of=end)
    with fresh_engine.begin() as tx:
        assert folded(tx) == {end}
        told = dict(tx.execute(text("select contact_id, count(*) from events "
                                    "where event_type = 'form_submitted' group by 1")).all())  # type: ignore[arg-type]
        scored = dict(tx.execute(text("select contact_id, engagement_score from contact_scores")).all())  # type: ignore[arg-type]
        assert sum(told.values()) == 180
        assert {person: count for person, count in scored.items() if count} == told


def test_a_run_keeps_the_version_it_began_with(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        people = [make_contact(tx) for _ in range(2)]
        rule = add_rule(tx, "page_viewed", 1)
        for person in people:
            tell(tx, person, "page_viewed", ago(days=100))
        version = current_version(tx)
    scoring.recalculate(fresh_engine, as_of=NOW, bucket=0, buckets=2, rule_version=version)
    with fresh_engine.begin() as tx:
        change_rule(tx, rule, {"points": 5, "decay_days": 100}, actor="test", now=NOW)
    scoring.recalculate(fresh_engine, as_of=NOW, bucket=1, buckets=2, rule_version=version)
    with fresh_engine.begin() as tx:
        assert {engagement(tx, person) for person in people} == {1}
        assert tx.scalar(text("select count(distinct rule_version) from score_history")) == 1
    scoring.recalculate(fresh_engine, as_of=NOW + timedelta(days=100))
    with fresh_engine.begin() as tx:
        assert {engagement(tx, person) for person in people} == {1.25}


def test_the_rights_of_the_worker_suffice(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "page_viewed", 1)
    make_event(tx, contact, "page_viewed", ago(days=1))
    tx.execute(text("set local role mauto_worker"))
    night(tx, NOW)
    assert (engagement(tx, contact), folded(tx)) == (1, {NOW})


def test_a_state_that_was_reset_by_hand_begins_anew(tx: Connection) -> None:
    contact = make_contact(tx)
    add_rule(tx, "page_viewed", 2)
    event = make_event(tx, contact, "page_viewed", ago(days=1))
    make_event(tx, contact, "page_viewed", ago(days=2))
    night(tx, NOW)
    tx.execute(text("delete from events where event_id = :id"), {"id": event})
    tx.execute(text("update score_slices set folded_until = null, landmark = null, weighings = '[]'"))
    night(tx, NOW + timedelta(days=1))
    assert (engagement(tx, contact), folded(tx)) == (2, {NOW + timedelta(days=1)})


def plan(tx: Connection, query: str, **binds: Any) -> str:
    return "\n".join(tx.scalars(text(f"explain (verbose) {query}"), binds))


def test_a_night_joins_in_the_order_of_keys_and_looks_suppressions_up_by_hash(tx: Connection) -> None:
    """Whatever the statistics say: a loop, or a hash of everybody, is what a night of a million cannot afford."""
    contact = make_contact(tx)
    night(tx, NOW)
    assert engagement(tx, contact) == 0
    recalculation._set(tx, recalculation._NIGHT_SETTINGS)
    binds = recalculation._binds(
        as_of=NOW, version=current_version(tx), source="nightly", known_at=None, is_lifecycle=True, keep_current=True,
        keep_snapshots=True,
    )  # fmt: skip
    folded = {**binds, "factors": [1.0], "rule_points": [1.0], "keep_profiles": True}
    found = plan(tx, statements.statement("scoring.recalculate_folded").text, **folded)
    assert not re.search(r"Hash (Left |Right |Full |Anti |Semi )?Join|Nested Loop Left Join", found)
    assert re.search(r"email_key = \(hashed SubPlan", found)


def test_weights_without_a_rule_cost_nothing(tx: Connection) -> None:
    for function, column in (("score_points", "weights"), ("score_counts", "counts")):
        found = plan(tx, f"select {function}({column}, cast('{{2,3}}' as float8[])) from score_states")
        assert found.count("COALESCE") == 2
        assert found.count(" + ") == 2, found
