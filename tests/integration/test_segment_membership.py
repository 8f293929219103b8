"""Who is in a segment, now and in the past; who comes in is told once; what takes long is left to the DAG."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as h_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from mautolib import dispatch, segments, workflows
from mautolib.contacts import ContactFilter, delete, get
from mautolib.contacts import search as search_contacts
from mautolib.db.statements import statement
from mautolib.errors import Conflict, InvalidInput, NotFound
from mautolib.segments import EvaluationStatus, NewSegment, Segment, membership
from mautolib.segments import compile as compiling
from mautolib.segments.explain import explain
from mautolib.segments.rules import Definition, MatchType
from mautolib.settings import Settings
from tests.builders import make_campaign, make_contact, make_message, make_suppression, make_tag

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
PORTUGUESE = {"field": "country", "operator": "eq", "value": "PT"}


def later(**parts: float) -> datetime:
    return NOW + timedelta(**parts)


def create(tx: Connection, settings: Settings, *rules: Any, now: datetime = NOW, **values: Any) -> Segment:
    name, within = values.pop("name", "Segment"), values.pop("within", membership.AT_ONCE)
    new = NewSegment(name=name, definition=Definition(rules=rules, **values))
    return segments.create(tx, settings, new, now=now, within=within)


def now_in(tx: Connection, segment_id: int) -> set[int]:
    """The members, as every place that shows them says; they must agree."""
    rows = tx.scalars(
        text("select contact_id from segment_memberships where segment_id = :id and valid_to = 'infinity'"),
        {"id": segment_id},
    )
    found = set(rows)
    assert {one.contact_id for one in search_contacts(tx, ContactFilter(segment_id=segment_id), limit=200)} == found
    assert segments.get(tx, segment_id).contact_count == len(found)
    return found


def entered(tx: Connection, segment_id: int) -> list[int]:
    """Who was told to have entered, once per time."""
    query = """
        select contact_id from events
        where event_type = 'segment_entered' and properties ->> 'segment_id' = cast(:id as text)
        order by event_id
    """
    return list(tx.scalars(text(query), {"id": str(segment_id)}))


def set_country(tx: Connection, contact_id: int, country: str) -> None:
    tx.execute(text("update contacts set country = :c where contact_id = :id"), {"c": country, "id": contact_id})


# --- evaluation ---


def test_a_new_segment_is_evaluated_with_it_and_everybody_who_joins_is_told(tx: Connection, settings: Settings) -> None:
    inside = [make_contact(tx, country="PT") for _ in range(3)]
    make_contact(tx, country="ES")
    made = create(tx, settings, PORTUGUESE, name="Portuguese")
    assert now_in(tx, made.segment_id) == set(inside)
    assert (made.contact_count, made.static_count, made.evaluation_status) == (3, 0, EvaluationStatus.READY)
    assert (made.evaluated_at, made.version) == (NOW, 1)
    assert sorted(entered(tx, made.segment_id)) == inside
    row = tx.execute(text("select * from events where event_type = 'segment_entered' order by event_id limit 1")).one()
    assert row.properties == {"segment_id": str(made.segment_id), "segment_name": "Portuguese"}
    assert (row.source, row.occurred_at, row.received_at) == ("mauto", NOW, NOW)
    pending = """
        select count(*) from event_pending, events
        where event_id = any(event_ids) and contact_id = any(:ids) and bucket = contact_id % 64"""
    assert tx.scalar(text(pending), {"ids": inside}) == 3


def test_evaluating_again_tells_only_who_is_new_and_lets_go_who_left(tx: Connection, settings: Settings) -> None:
    anna, ben, cleo = (make_contact(tx, country=country) for country in ("PT", "PT", "ES"))
    made = create(tx, settings, PORTUGUESE)
    set_country(tx, ben, "ES")
    set_country(tx, cleo, "PT")
    change = segments.evaluate(tx, settings, made.segment_id, now=later(hours=1))
    assert (change.joined, change.left) == (1, 1)
    assert now_in(tx, made.segment_id) == {anna, cleo}
    assert entered(tx, made.segment_id)[-1] == cleo and len(entered(tx, made.segment_id)) == 3
    nothing = segments.evaluate(tx, settings, made.segment_id, now=later(hours=2))
    assert (nothing.joined, nothing.left) == (0, 0)
    assert segments.get(tx, made.segment_id).evaluated_at == later(hours=2)


def test_the_past_stays_known(tx: Connection, settings: Settings) -> None:
    anna, ben = make_contact(tx, country="PT"), make_contact(tx, country="PT")
    made = create(tx, settings, PORTUGUESE)
    set_country(tx, anna, "ES")
    segments.evaluate(tx, settings, made.segment_id, now=later(days=1))
    set_country(tx, anna, "PT")
    segments.evaluate(tx, settings, made.segment_id, now=later(days=2))
    seen = [segments.members_at(tx, made.segment_id, later(days=day)) for day in (-1, 0, 0.5, 1, 1.5, 2, 3)]
    assert seen == [[], [anna, ben], [anna, ben], [ben], [ben], [anna, ben], [anna, ben]]
    assert entered(tx, made.segment_id).count(anna) == 2, "coming back is entering again"


def test_history_never_overlaps_even_when_a_clock_goes_back(tx: Connection, settings: Settings) -> None:
    anna = make_contact(tx)
    made = create(tx, settings)
    for hours in (3, 3, 1, 0, 2, 3):
        segments.add_contact(tx, settings, made.segment_id, anna, now=later(hours=hours))
        segments.remove_contact(tx, settings, made.segment_id, anna, exclude=False, now=later(hours=hours))
    rows = tx.execute(
        text("select valid_from, valid_to from segment_memberships where segment_id = :id order by valid_from"),
        {"id": made.segment_id},
    ).all()
    assert len(rows) == 6 and all(row.valid_from < row.valid_to for row in rows)
    assert all(one.valid_to <= next_one.valid_from for one, next_one in pairwise(rows))


def test_parallel_evaluations_tell_everybody_once(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contacts = [make_contact(tx, country="ES") for _ in range(200)]
        made = create(tx, settings, PORTUGUESE)
        tx.execute(text("update contacts set country = 'PT'"))
    ready = Barrier(6)

    def work(number: int) -> int:
        with fresh_engine.begin() as tx:
            tx.scalar(text("select 1"))
            ready.wait(10)
            return segments.evaluate(tx, settings, made.segment_id, now=later(seconds=number)).joined

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(work, range(6))) == [0, 0, 0, 0, 0, 200]
    with fresh_engine.begin() as tx:
        assert sorted(entered(tx, made.segment_id)) == contacts
        assert len(now_in(tx, made.segment_id)) == 200
        assert tx.scalar(text("select sum(event_count) from event_pending")) == 200


def test_evaluations_and_changes_by_hand_at_once_leave_the_truth(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contacts = [make_contact(tx, country="PT") for _ in range(20)]
        made = create(tx, settings, PORTUGUESE)

    def work(number: int) -> None:
        with fresh_engine.begin() as tx:
            if number % 2:
                segments.evaluate(tx, settings, made.segment_id, now=later(seconds=number))
            else:
                contact = contacts[number % 20]
                segments.remove_contact(
                    tx, settings, made.segment_id, contact, exclude=True, now=later(seconds=number)
                )

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(20)))
    with fresh_engine.begin() as tx:
        assert now_in(tx, made.segment_id) == set(contacts[1::2])
        assert sorted(entered(tx, made.segment_id)) == contacts


# --- what takes long ---


def test_what_takes_long_is_pending_until_the_worker_has_done_it(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx, country="PT")
    quick = timedelta(milliseconds=100)
    with fresh_engine.begin() as other, fresh_engine.begin() as tx:
        # Nobody gets an event in while this is held: the evaluation takes as long as it may.
        other.execute(text("lock table event_pending in access exclusive mode"))
        made = create(tx, settings, PORTUGUESE, within=quick)
        assert (made.evaluation_status, made.evaluated_at, made.contact_count) == (EvaluationStatus.PENDING, None, 0)
        assert tx.scalar(text("show statement_timeout")) == "0", "the patience ends with the attempt"
    with fresh_engine.connect() as tx:
        due = tx.scalar(text("select evaluation_due_at from segments"))
        assert due == NOW
    assert segments.count_due(fresh_engine, now=NOW) == 1
    result = segments.evaluate_due(fresh_engine, settings, now=later(minutes=1))
    assert (result.evaluated, result.joined, result.failed) == (1, 1, 0)
    with fresh_engine.begin() as tx:
        assert now_in(tx, made.segment_id) == {contact} == set(entered(tx, made.segment_id))
        done = segments.get(tx, made.segment_id)
        assert (done.evaluation_status, done.evaluated_at) == (EvaluationStatus.READY, later(minutes=1))
    assert segments.count_due(fresh_engine, now=later(minutes=1)) == 0


def test_a_change_that_takes_long_keeps_the_old_members_until_then(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        anna, ben = make_contact(tx, country="PT"), make_contact(tx, country="ES")
        made = create(tx, settings, PORTUGUESE)
    with fresh_engine.begin() as other, fresh_engine.begin() as tx:
        other.execute(text("lock table event_pending in access exclusive mode"))
        spanish = ({**PORTUGUESE, "value": "ES"},)
        changed = segments.change(
            tx, settings, made.segment_id, {"rules": spanish}, now=later(hours=1), within=timedelta(milliseconds=100)
        )
        assert (changed.evaluation_status, changed.version) == (EvaluationStatus.PENDING, 2)
        assert now_in(tx, made.segment_id) == {anna}
    segments.evaluate_due(fresh_engine, settings, now=later(hours=1))
    with fresh_engine.begin() as tx:
        assert now_in(tx, made.segment_id) == {ben}


def test_one_that_cannot_be_evaluated_keeps_no_other_from_it(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx, country="PT")
        first = create(tx, settings, PORTUGUESE)
        empty = create(tx, settings, {**PORTUGUESE, "value": "ES"})
        tx.execute(text("delete from segment_memberships"))
        for one in (first, empty):
            segments.request(tx, one.segment_id, now=later(minutes=1))
    with fresh_engine.begin() as other:
        # Somebody is letting the same contact in and does not come to an end.
        query = "insert into segment_memberships (segment_id, contact_id, valid_from) values (:s, :c, :n)"
        other.execute(text(query), {"s": first.segment_id, "c": contact, "n": NOW})
        result = segments.evaluate_due(
            fresh_engine, settings, now=later(minutes=1), longest=timedelta(milliseconds=300)
        )
    assert (result.evaluated, result.failed) == (1, 1)
    with fresh_engine.begin() as tx:
        assert segments.get(tx, first.segment_id).evaluation_status is EvaluationStatus.PENDING
        assert segments.get(tx, empty.segment_id).evaluation_status is EvaluationStatus.READY
        due = tx.scalar(text("select evaluation_due_at from segments where segment_id = :id"), {"id": first.segment_id})
    assert due == later(minutes=1) + membership.EVALUATE_EVERY, "tried again with the next round, not for ever"


def test_a_value_the_database_refuses_keeps_no_other_from_it(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_engine.begin() as tx:
        make_contact(tx, country="PT")
        first, second = create(tx, settings, PORTUGUESE), create(tx, settings, PORTUGUESE)
    right = compiling.members

    def members(definition: Definition, setting: Any, *, segment_id: int | None = None) -> Any:
        found = right(definition, setting, segment_id=segment_id)
        return found.where(text("1 / (random() * 0) > 1")) if segment_id == first.segment_id else found

    monkeypatch.setattr(compiling, "members", members)
    result = segments.evaluate_due(fresh_engine, settings, now=later(hours=1))
    assert (result.evaluated, result.failed) == (1, 1)
    with fresh_engine.begin() as tx:
        assert segments.get(tx, first.segment_id).evaluated_at == NOW
        assert segments.get(tx, second.segment_id).evaluated_at == later(hours=1)


def test_segments_with_rules_are_due_again_and_those_by_hand_are_not(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx, country="ES")
        ruled, by_hand = create(tx, settings, PORTUGUESE), create(tx, settings)
        guarded = create(tx, settings, exclude_suppressed=True)
        set_country(tx, contact, "PT")
    early = NOW + membership.EVALUATE_EVERY - membership.EARLY
    assert segments.count_due(fresh_engine, now=early - timedelta(seconds=1)) == 0
    assert segments.evaluate_due(fresh_engine, settings, now=early).evaluated == 2
    with fresh_engine.begin() as tx:
        assert now_in(tx, ruled.segment_id) == {contact}
        assert segments.get(tx, guarded.segment_id).evaluated_at == early
        assert segments.get(tx, by_hand.segment_id).evaluated_at == NOW


def test_two_workers_share_the_work(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        first, second = create(tx, settings, PORTUGUESE), create(tx, settings, PORTUGUESE)
        for one in (first, second):
            segments.request(tx, one.segment_id, now=NOW)
    with fresh_engine.begin() as other:
        membership.hold(other, first.segment_id)
        assert segments.evaluate_due(fresh_engine, settings, now=NOW).evaluated == 1
    assert segments.evaluate_due(fresh_engine, settings, now=NOW).evaluated == 1


# --- by hand ---


def test_changes_by_hand_act_at_once_and_are_told_once(tx: Connection, settings: Settings) -> None:
    anna, ben = make_contact(tx, country="PT"), make_contact(tx)
    made = create(tx, settings, PORTUGUESE)
    segment_id = made.segment_id
    for _ in range(2):
        assert segments.add_contact(tx, settings, segment_id, ben, now=later(minutes=1))
        assert segments.add_contact(tx, settings, segment_id, anna, now=later(minutes=1))
    assert now_in(tx, segment_id) == {anna, ben}
    assert segments.get(tx, segment_id).static_count == 2
    assert entered(tx, segment_id) == [anna, ben]
    assert [one.name for one in get(tx, ben).segments] == ["Segment"]
    for _ in range(2):
        assert not segments.remove_contact(tx, settings, segment_id, ben, exclude=False, now=later(minutes=2))
        assert segments.remove_contact(tx, settings, segment_id, anna, exclude=False, now=later(minutes=2))
    assert now_in(tx, segment_id) == {anna}, "the rules keep it in"
    assert segments.get(tx, segment_id).static_count == 0
    segments.evaluate(tx, settings, segment_id, now=later(minutes=3))
    assert entered(tx, segment_id) == [anna, ben]


def test_kept_out_by_hand_stays_out_until_added_again(tx: Connection, settings: Settings) -> None:
    anna = make_contact(tx, country="PT")
    segment_id = create(tx, settings, PORTUGUESE).segment_id
    for minute, exclude in ((1, True), (2, True), (3, False)):
        assert not segments.remove_contact(tx, settings, segment_id, anna, exclude=exclude, now=later(minutes=minute))
        segments.evaluate(tx, settings, segment_id, now=later(minutes=minute))
        assert now_in(tx, segment_id) == set()
    assert segments.add_contact(tx, settings, segment_id, anna, now=later(minutes=4))
    assert now_in(tx, segment_id) == {anna}
    assert not segments.remove_contact(tx, settings, segment_id, anna, exclude=True, now=later(minutes=5))
    assert segments.get(tx, segment_id).static_count == 0
    assert entered(tx, segment_id) == [anna, anna]


def test_an_exclusion_beats_the_hand(tx: Connection, settings: Settings) -> None:
    anna = make_contact(tx, email="anna-excluded@shop.example")
    make_suppression(tx, "anna-excluded@shop.example", reason="manual")
    segment_id = create(tx, settings, exclude_suppressed=True).segment_id
    assert not segments.add_contact(tx, settings, segment_id, anna, now=NOW)
    assert (now_in(tx, segment_id), entered(tx, segment_id)) == (set(), [])
    tx.execute(text("delete from suppressions where email_key = 'anna-excluded@shop.example'"))
    segments.evaluate(tx, settings, segment_id, now=later(minutes=15))
    assert now_in(tx, segment_id) == {anna}


def test_who_an_exclusion_keeps_out_is_in_no_segment(tx: Connection, settings: Settings) -> None:
    contact = make_contact(tx, country="PT")
    make_suppression(tx, get(tx, contact).email)
    strict, open_to_all = create(tx, settings, exclude_suppressed=True), create(tx, settings)
    anywhere = {"field": "segments", "operator": "is_set"}
    asking = create(tx, settings, {"any": [PORTUGUESE, anywhere]})
    segments.add_contact(tx, settings, strict.segment_id, contact, now=NOW)

    def seen() -> tuple[bool, Any]:
        setting = segments.load(tx, settings, now=NOW)
        told = explain(tx, setting.segments[asking.segment_id], setting, contact_id=contact,
                       segment_id=asking.segment_id)  # fmt: skip
        return told.nodes[2].matched, told.nodes[2].actual

    assert now_in(tx, asking.segment_id) == {contact}
    assert seen() == (False, []), "neither kept out elsewhere nor in the asking segment itself counts"
    segments.add_contact(tx, settings, open_to_all.segment_id, contact, now=NOW)
    assert seen() == (True, [str(open_to_all.segment_id)])


def test_a_change_by_hand_leaves_all_others_alone(tx: Connection, settings: Settings) -> None:
    anna, ben, cleo = (make_contact(tx, country="PT") for _ in range(3))
    segment_id = create(tx, settings, PORTUGUESE).segment_id
    set_country(tx, ben, "ES")
    segments.remove_contact(tx, settings, segment_id, cleo, exclude=True, now=later(minutes=1))
    assert now_in(tx, segment_id) == {anna, ben}, "the rest is as the last evaluation left it"


def test_unknown_ones_are_not_found(tx: Connection, settings: Settings) -> None:
    anna, made = make_contact(tx), create(tx, settings)
    for segment_id, contact_id, message in ((10**12, anna, "Segment not found"),
                                            (made.segment_id, 10**12, "Contact not found")):  # fmt: skip
        with pytest.raises(NotFound, match=message):
            segments.add_contact(tx, settings, segment_id, contact_id, now=NOW)
        with pytest.raises(NotFound, match=message):
            segments.remove_contact(tx, settings, segment_id, contact_id, exclude=True, now=NOW)


def test_a_deleted_contact_is_gone_from_everything(tx: Connection, settings: Settings) -> None:
    anna, ben = make_contact(tx, country="PT"), make_contact(tx)
    segment_id = create(tx, settings, PORTUGUESE).segment_id
    segments.add_contact(tx, settings, segment_id, ben, now=NOW)
    for contact in (anna, ben):
        delete(tx, contact, actor="test", now=later(minutes=1))
    assert now_in(tx, segment_id) == set()
    assert segments.get(tx, segment_id).static_count == 0
    assert segments.members_at(tx, segment_id, later(minutes=0.5)) == []


# --- keeping ---


def test_what_rules_name_must_exist_and_go_in_no_circle(tx: Connection, settings: Settings) -> None:
    def named(*ids: int) -> dict[str, Any]:
        return {"field": "segments", "operator": "in", "value": [str(one) for one in ids]}

    base = create(tx, settings, PORTUGUESE)
    with pytest.raises(InvalidInput) as caught:
        create(tx, settings, PORTUGUESE, {"any": [PORTUGUESE, named(base.segment_id, 10**12)]})
    assert caught.value.path == ("body", "rules", 1, "any", 1, "value", 1)
    over = create(tx, settings, named(base.segment_id))
    for target in (over.segment_id, base.segment_id):
        with pytest.raises(InvalidInput, match="circle"), tx.begin_nested():
            segments.change(tx, settings, base.segment_id, {"rules": (named(target),)}, now=NOW)
    with pytest.raises(Conflict) as refused:
        segments.remove(tx, base.segment_id, now=NOW)
    assert refused.value.code == "in_use"
    segments.remove(tx, over.segment_id, now=NOW)
    segments.remove(tx, base.segment_id, now=NOW)


def test_a_circle_by_name_is_found_too(tx: Connection, settings: Settings) -> None:
    named = {"field": "segments", "operator": "has", "value": "Later"}
    first = create(tx, settings, named, name="First")
    by_id = {"field": "segments", "operator": "in", "value": [str(first.segment_id)]}
    second = create(tx, settings, by_id, name="Second")
    for changes in ({"name": "LATER"}, {"name": "later"}):
        with pytest.raises(InvalidInput, match="circle"), tx.begin_nested():
            segments.change(tx, settings, second.segment_id, changes, now=NOW)


def test_two_writers_do_not_close_a_circle_between_them(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        pair = [create(tx, settings).segment_id for _ in range(2)]
    ready = Barrier(2)

    def work(one: int) -> str:
        rule = {"field": "segments", "operator": "in", "value": [str(pair[1 - one])]}
        try:
            with fresh_engine.begin() as tx:
                tx.scalar(text("select 1"))
                ready.wait(10)
                segments.change(tx, settings, pair[one], {"rules": (rule,)}, now=NOW)
        except InvalidInput:
            return "refused"
        return "done"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(work, range(2))) == ["done", "refused"]


@pytest.mark.parametrize("status", ["draft", "scheduled", "sending", "paused", "sent", "cancelled", "failed"])
def test_an_unfinished_campaign_keeps_its_segment(tx: Connection, settings: Settings, status: str) -> None:
    segment_id = create(tx, settings).segment_id
    reason = "No sender" if status == "failed" else None
    campaign = make_campaign(tx, status=status, segment_id=segment_id, scheduled_at=NOW, status_reason=reason)
    if status in ("draft", "scheduled", "sending", "paused"):
        with pytest.raises(Conflict) as refused:
            segments.remove(tx, segment_id, now=NOW)
        assert refused.value.code == "in_use"
    else:
        segments.remove(tx, segment_id, now=NOW)
        kept = tx.scalar(text("select segment_id from campaigns where campaign_id = :id"), {"id": campaign})
        assert kept == segment_id, "a finished one does not turn into one to everybody"


@pytest.mark.parametrize(
    ("trigger", "config", "steps"),
    [
        ("segment_entered", {"segment_id": "{id}"}, []),
        ("event", {"event_type": "segment_entered", "where": {"segment_id": "{id}"}}, []),
        ("manual", {}, [{"type": "condition", "then": [{"action": "add_to_segment", "segment_id": "{id}"}]}]),
        ("manual", {}, [{"action": "remove_from_segment", "segment_id": "{id}"}]),
        ("manual", {}, [{"type": "goal", "segment_id": "{id}"}]),
    ],
)
def test_an_active_workflow_keeps_the_segment_it_names(
    tx: Connection, settings: Settings, trigger: str, config: Any, steps: Any
) -> None:
    import json

    segment_id = create(tx, settings).segment_id
    other = create(tx, settings).segment_id

    def filled(value: Any) -> str:
        return json.dumps(value).replace("{id}", str(segment_id))

    query = """
        insert into workflows (name, trigger_type, trigger_config, steps, active)
        values ('w', :trigger, cast(:config as jsonb), cast(:steps as jsonb), true)
    """
    tx.execute(text(query), {"trigger": trigger, "config": filled(config), "steps": filled(steps)})
    with pytest.raises(Conflict, match="workflow"):
        segments.remove(tx, segment_id, now=NOW)
    segments.remove(tx, other, now=NOW)
    tx.execute(text("update workflows set active = false"))
    segments.remove(tx, segment_id, now=NOW)


def test_deleting_ends_the_memberships_and_keeps_the_past(tx: Connection, settings: Settings) -> None:
    anna = make_contact(tx, country="PT")
    segment_id = create(tx, settings, PORTUGUESE).segment_id
    segments.remove(tx, segment_id, now=later(days=1))
    assert get(tx, anna).segments == ()
    assert segments.members_at(tx, segment_id, later(hours=1)) == [anna]
    assert segments.members_at(tx, segment_id, later(days=1)) == []
    with pytest.raises(NotFound):
        segments.remove(tx, segment_id, now=later(days=1))


# --- figures ---


def test_figures_say_who_is_kept_out_and_who_may_be_mailed(tx: Connection, settings: Settings) -> None:
    campaign = make_campaign(tx)
    people = {
        name: make_contact(tx, email=f"{name}@figures.example", country="XF")
        for name in ("plain", "opted_out", "bounced", "complained", "mailed", "kept_out", "pending")
    }
    added = make_contact(tx, email="added@figures.example")
    tx.execute(text("update contacts set subscribed = false where email = 'opted_out@figures.example'"))
    tx.execute(text("update contacts set consent_status = 'pending' where email = 'pending@figures.example'"))
    make_suppression(tx, "bounced@figures.example", reason="bounce")
    make_suppression(tx, "complained@figures.example", reason="complaint")
    make_message(tx, people["mailed"], campaign_id=campaign)
    rule = {"field": "country", "operator": "eq", "value": "XF"}
    made = create(
        tx, settings, rule, exclude_unsubscribed=True, exclude_bounced=True, exclude_campaign_ids=(campaign,)
    )
    segments.add_contact(tx, settings, made.segment_id, added, now=NOW)
    segments.remove_contact(tx, settings, made.segment_id, people["kept_out"], exclude=True, now=NOW)
    setting = segments.load(tx, settings, now=NOW)
    definition = setting.segments[made.segment_id]
    found = segments.figures(tx, definition, setting, require_consent=False, segment_id=made.segment_id)
    assert (found.rule_count, found.static_count, found.count) == (7, 1, 4)
    assert found.excluded == {"static": 1, "unsubscribed": 1, "bounced": 1, "campaign": 1}
    assert found.mailable == 2, "not the one who complained, nor the one whose consent is pending"
    assert now_in(tx, made.segment_id) == {people["plain"], people["complained"], people["pending"], added}
    strict = segments.figures(tx, definition, setting, require_consent=True, segment_id=made.segment_id)
    assert (strict.count, strict.mailable) == (4, 0)


def test_overlap_is_exact(tx: Connection, settings: Settings) -> None:
    a = [make_contact(tx, country="XA") for _ in range(5)]
    tagged = make_tag(tx, "overlapping", [*a[:2], make_contact(tx, country="XB")])
    assert tagged
    one = create(tx, settings, {"field": "country", "operator": "eq", "value": "XA"})
    other = create(tx, settings, {"field": "tags", "operator": "has", "value": "overlapping"})
    setting = segments.load(tx, settings, now=NOW)
    found = segments.overlap(tx, setting, one.segment_id, other.segment_id)
    assert (found.size_a, found.size_b, found.overlap, found.union) == (5, 3, 2, 6)
    assert found.jaccard_index == 0.3333
    assert segments.overlap(tx, setting, one.segment_id, one.segment_id).jaccard_index == 1.0
    empty = create(tx, settings)
    setting = segments.load(tx, settings, now=NOW)
    assert segments.overlap(tx, setting, empty.segment_id, empty.segment_id).jaccard_index == 0.0


# --- what follows ---


def test_entering_starts_a_workflow_that_waits_for_it(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        inside = make_contact(tx, country="PT")
        make_contact(tx, country="ES")
        watched, other = create(tx, settings), create(tx, settings, {**PORTUGUESE, "value": "ES"})
        config = {"event_type": "segment_entered", "where": {"segment_id": str(watched.segment_id)}}
        new = workflows.NewWorkflow(name="Hello", trigger_type="event", trigger_config=config, active=True,
                                    steps=[{"type": "delay", "hours": 1}])  # fmt: skip
        workflows.create(tx, new, actor="test", now=NOW)
        segments.change(tx, settings, watched.segment_id, {"rules": (PORTUGUESE,), "match_type": MatchType.ANY},
                        now=later(minutes=1))  # fmt: skip
        assert other.contact_count == 1
    dispatch.run(fresh_engine, settings, now=later(minutes=2))
    with fresh_engine.connect() as tx:
        assert tx.scalars(text("select contact_id from enrollments")).all() == [inside]


def test_asking_for_an_evaluation_wakes_the_worker(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        made = create(tx, settings)
    due = statement("queues.events_due")
    with fresh_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        assert listener.scalar(due) is None, "made by hand only, and up to date: nothing is due"
        listener.exec_driver_sql("listen mauto_events")
        with fresh_engine.begin() as tx:
            segments.request(tx, made.segment_id, now=later(minutes=1))
        assert listener.scalar(due) == later(minutes=1)
        raw: Any = listener.connection.driver_connection
        assert [(found.channel, found.payload) for found in raw.notifies] == [("mauto_events", "segments")]


# --- any order of things ---

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "exclude", "move in", "move out", "suppress", "clear", "evaluate"]),
        st.integers(0, 2),
        st.integers(-2, 3),
    ),
    min_size=1, max_size=25,
)  # fmt: skip


@h_settings(max_examples=60, deadline=None, derandomize=True)
@given(steps=_STEPS)
@pytest.mark.thorough
def test_whatever_happens_in_whatever_order_members_and_events_agree(engine: Engine, steps: list[Any]) -> None:
    """Against a plain model: who satisfies the rule, who was added, kept out, suppressed; clocks may go back."""
    settings = Settings(environment="development")
    with engine.connect() as tx, tx.begin() as transaction:
        people = [make_contact(tx, email=f"anyorder{number}@shop.example") for number in range(3)]
        segment_id = create(tx, settings, PORTUGUESE, exclude_suppressed=True).segment_id
        ruled, added, kept_out, suppressed, inside = set[int](), set[int](), set[int](), set[int](), set[int]()
        told: list[int] = []
        now = NOW

        def belongs(who: int) -> bool:
            return (who in ruled or who in added) and who not in kept_out | suppressed

        for step, number, minutes in steps:
            who, now = people[number], now + timedelta(minutes=minutes)
            looked_at = [who] if step in ("add", "remove", "exclude") else people if step == "evaluate" else []
            match step:
                case "add":
                    added.add(who)
                    kept_out.discard(who)
                    is_in = segments.add_contact(tx, settings, segment_id, who, now=now)
                    assert is_in == belongs(who)
                case "remove" | "exclude":
                    added.discard(who)
                    kept_out |= {who} if step == "exclude" else set()
                    is_in = segments.remove_contact(
                        tx, settings, segment_id, who, exclude=step == "exclude", now=now
                    )
                    assert is_in == belongs(who)
                case "move in" | "move out":
                    set_country(tx, who, "PT" if step == "move in" else "ES")
                    (ruled.add if step == "move in" else ruled.discard)(who)
                case "suppress" if who not in suppressed:
                    suppressed.add(who)
                    make_suppression(tx, f"anyorder{number}@shop.example", reason="manual")
                case "clear":
                    suppressed.discard(who)
                    key = {"key": f"anyorder{number}@shop.example"}
                    tx.execute(text("delete from suppressions where email_key = :key"), key)
                case "evaluate":
                    segments.evaluate(tx, settings, segment_id, now=now)
            wanted = {one for one in looked_at if belongs(one)}
            told += sorted(wanted - inside)
            inside = (inside - set(looked_at)) | wanted
            assert now_in(tx, segment_id) == inside
        assert sorted(entered(tx, segment_id)) == sorted(told)
        transaction.rollback()
