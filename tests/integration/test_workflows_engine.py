"""The engine of workflows: waits, goals, local times, and entries by the clock - what counts, when, and once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib import dispatch, workflows
from mautolib.campaigns import sending
from mautolib.channels.null import Null
from mautolib.events.append import NewEvent, append
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow
from mautolib.workflows.steps.step import Outcome, Visit
from mautolib.workflows.steps.tag import Tag
from tests.builders import make_contact

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
LONG_AGO = NOON - timedelta(days=400)


def tag(name: str) -> dict[str, Any]:
    return {"action": "tag", "tag_name": name}


def wait(**fields: Any) -> dict[str, Any]:
    return {"type": "wait_for_event", "event_type": "order_placed", **fields}


def add_workflow(engine: Engine, steps: Sequence[Any], *, now: datetime = LONG_AGO, **fields: Any) -> int:
    new = NewWorkflow(name="Test", steps=steps, active=True, **fields)
    with engine.begin() as tx:
        return workflows.create(tx, new, actor="user:1", now=now).workflow_id


def add_contact(engine: Engine, **fields: Any) -> int:
    with engine.begin() as tx:
        return make_contact(tx, created_at=LONG_AGO, **fields)


def enter(engine: Engine, settings: Settings, workflow_id: int, contact: int, *, now: datetime = NOON) -> int:
    with engine.begin() as tx:
        done = workflows.trigger(tx, settings, workflow_id, contact_id=contact, now=now)
        return done.enrollment.enrollment_id


def happen(engine: Engine, contact: int, kind: str, at: datetime, source: str = "api", **properties: Any) -> None:
    event = NewEvent(event_type=kind, occurred_at=at, contact_id=contact, properties=properties, source=source)
    with engine.begin() as tx:
        append(tx, [event], now=at)


def turn(engine: Engine, settings: Settings, now: datetime) -> workflows.AdvanceResult:
    """One run of the DAG."""
    dispatch.run(engine, settings, now=now)
    workflows.arrive(engine, settings, now=now)
    return workflows.advance(engine, settings, now=now)


def rows(engine: Engine, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    with engine.begin() as tx:
        return [tuple(row) for row in tx.execute(text(sql), values)]


def tags(engine: Engine, contact: int) -> list[str]:
    query = "select name from contact_tags inner join tags using (tag_id) where contact_id = :c order by 1"
    found = rows(engine, query, c=contact)
    return [name for (name,) in found]


def results(engine: Engine, path: str) -> list[Any]:
    return [result for (result,) in rows(
        engine, "select result from workflow_logs where step_path = :path order by contact_id", path=path)]


def stands(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(engine, "select status, step_path, resume_at, waiting_for from enrollments order by enrollment_id")


# --- waiting for an event ---------------------------------------------------------------------------------------


WAITING = [wait(timeout_hours=48, then=[tag("bought")], **{"else": [tag("silent")]}), tag("end")]


def test_who_it_happens_to_goes_the_one_way_and_who_not_the_other(fresh_engine: Engine, settings: Settings) -> None:
    workflow_id = add_workflow(fresh_engine, WAITING)
    buyer, silent = add_contact(fresh_engine), add_contact(fresh_engine)
    for contact in (buyer, silent):
        enter(fresh_engine, settings, workflow_id, contact)
    assert stands(fresh_engine) == [("waiting", "0", NOON + 48 * HOUR, "order_placed")] * 2
    assert results(fresh_engine, "0") == []
    happen(fresh_engine, buyer, "order_placed", NOON + HOUR)
    assert turn(fresh_engine, settings, NOON + HOUR).moved == 1
    assert tags(fresh_engine, buyer) == ["bought", "end"]
    assert turn(fresh_engine, settings, NOON + 47 * HOUR).moved == 0
    assert turn(fresh_engine, settings, NOON + 48 * HOUR).moved == 1
    assert tags(fresh_engine, silent) == ["end", "silent"]
    assert [result["matched"] for result in results(fresh_engine, "0")] == [True, False]
    assert {status for status, *_ in stands(fresh_engine)} == {"completed"}


def test_only_events_with_the_properties_count_and_others_do_not_end_the_wait(
    fresh_engine: Engine, settings: Settings
) -> None:
    workflow_id = add_workflow(fresh_engine, [wait(where={"currency": "EUR"}), tag("end")])
    contact = add_contact(fresh_engine)
    enter(fresh_engine, settings, workflow_id, contact)
    happen(fresh_engine, contact, "order_placed", NOON + HOUR, currency="USD")
    assert turn(fresh_engine, settings, NOON + HOUR).waiting == 1
    assert stands(fresh_engine) == [("waiting", "0", NOON + 72 * HOUR, "order_placed")]
    assert results(fresh_engine, "0") == []
    happen(fresh_engine, contact, "order_placed", NOON + 2 * HOUR, currency="EUR")
    assert turn(fresh_engine, settings, NOON + 2 * HOUR).completed == 1
    assert results(fresh_engine, "0")[0]["matched"] is True


def test_without_branches_a_timeout_goes_on_or_leaves(fresh_engine: Engine, settings: Settings) -> None:
    for kind in ("continue", "exit"):
        workflow_id = add_workflow(fresh_engine, [wait(timeout_hours=1, on_timeout=kind), tag("end")])
        enter(fresh_engine, settings, workflow_id, add_contact(fresh_engine))
    turn(fresh_engine, settings, NOON + HOUR)
    found = rows(fresh_engine, "select status, exit_reason from enrollments order by enrollment_id")
    assert found == [("completed", None), ("exited", "timeout")]


@pytest.mark.parametrize(
    ("at", "matched"),
    [
        (-1 * MINUTE, False),  # before it came to the step
        (61 * MINUTE, True),  # after its delay was over, before anybody looked
        (60 * MINUTE, False),  # at the very moment: not later
    ],
)
def test_what_happened_between_the_step_before_and_now_counts_once(
    fresh_engine: Engine, settings: Settings, at: timedelta, matched: bool
) -> None:
    steps = [{"type": "delay", "hours": 1}, wait(timeout_hours=5), wait(timeout_hours=5)]
    workflow_id = add_workflow(fresh_engine, steps)
    contact = add_contact(fresh_engine)
    enter(fresh_engine, settings, workflow_id, contact)
    happen(fresh_engine, contact, "order_placed", NOON + at)
    # It is dispatched while the enrollment still stands at its delay.
    dispatch.run(fresh_engine, settings, now=NOON + 2 * HOUR)
    workflows.advance(fresh_engine, settings, now=NOON + 2 * HOUR)
    assert [result["matched"] for result in results(fresh_engine, "1")] == [True] * matched
    assert [path for _, path, *_ in stands(fresh_engine)] == ["2" if matched else "1"]
    turn(fresh_engine, settings, NOON + 7 * HOUR)
    turn(fresh_engine, settings, NOON + 12 * HOUR)
    assert [result["matched"] for result in results(fresh_engine, "2")] == [False]


def test_what_came_after_the_timeout_is_too_late_whenever_it_is_looked_at(
    fresh_engine: Engine, settings: Settings
) -> None:
    workflow_id = add_workflow(fresh_engine, [wait(timeout_hours=1), tag("end")])
    late, timely = add_contact(fresh_engine), add_contact(fresh_engine)
    for contact, at in ((late, NOON + 61 * MINUTE), (timely, NOON + HOUR)):
        enter(fresh_engine, settings, workflow_id, contact)
        happen(fresh_engine, contact, "order_placed", at)
    # Nothing was dispatched: the wait looks for itself.
    workflows.advance(fresh_engine, settings, now=NOON + 3 * HOUR)
    assert [result["matched"] for result in results(fresh_engine, "0")] == [False, True]


# --- goals ------------------------------------------------------------------------------------------------------


GOAL = [
    {"type": "condition", "field": "country", "operator": "is_null", "then": [{"type": "delay", "hours": 100}]},
    tag("reminded"),
    {"type": "goal", "event_type": "order_placed", "where": {"currency": "EUR"}},
    tag("after"),
]


def test_a_goal_reached_while_waiting_jumps_behind_it(fresh_engine: Engine, settings: Settings) -> None:
    workflow_id = add_workflow(fresh_engine, GOAL)
    buyer, other = add_contact(fresh_engine), add_contact(fresh_engine)
    for contact in (buyer, other):
        enter(fresh_engine, settings, workflow_id, contact)
    happen(fresh_engine, buyer, "order_placed", NOON + HOUR, currency="EUR")
    happen(fresh_engine, other, "order_placed", NOON + HOUR, currency="USD")
    turn(fresh_engine, settings, NOON + HOUR)
    assert tags(fresh_engine, buyer) == ["after"]
    assert stands(fresh_engine)[1] == ("waiting", "0.then.0", NOON + 100 * HOUR, None)
    turn(fresh_engine, settings, NOON + 100 * HOUR)
    assert tags(fresh_engine, other) == ["after", "reminded"]
    assert [result["goal_reached"] for result in results(fresh_engine, "2")] == [True, False]


def test_a_goal_by_segment_is_reached_by_joining_it(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        segment = tx.scalar(text("insert into segments (name) values ('Buyers') returning segment_id"))
    steps = [{"type": "delay", "hours": 100}, {"type": "goal", "segment_id": str(segment)}, tag("after")]
    workflow_id = add_workflow(fresh_engine, steps)
    member, other = add_contact(fresh_engine), add_contact(fresh_engine)
    for contact in (member, other):
        enter(fresh_engine, settings, workflow_id, contact)
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into segment_memberships (segment_id, contact_id, valid_from) values (:s, :c, :at)"),
                   {"s": segment, "c": member, "at": NOON})  # fmt: skip
    for contact in (member, other):
        happen(fresh_engine, contact, "segment_entered", NOON + HOUR, source="mauto", segment_id=str(segment))
    turn(fresh_engine, settings, NOON + HOUR)
    assert (tags(fresh_engine, member), tags(fresh_engine, other)) == (["after"], [])


def test_who_alone_reaches_a_goal_does_not_go_the_other_way_as_well(fresh_engine: Engine, settings: Settings) -> None:
    steps = [{"type": "delay", "hours": 1}, tag("not"), {"type": "goal", "event_type": "order_placed"}, tag("after")]
    workflow_id = add_workflow(fresh_engine, steps)
    contact = add_contact(fresh_engine)
    enter(fresh_engine, settings, workflow_id, contact)
    happen(fresh_engine, contact, "order_placed", NOON + MINUTE)
    turn(fresh_engine, settings, NOON + 2 * HOUR)
    assert tags(fresh_engine, contact) == ["after"]


# --- delays until a local time ----------------------------------------------------------------------------------


def resumes(fresh_engine: Engine, settings: Settings, until: dict[str, Any], zone: str, now: datetime) -> datetime:
    workflow_id = add_workflow(fresh_engine, [{"type": "delay", "until": until}])
    enter(fresh_engine, settings, workflow_id, add_contact(fresh_engine, timezone=zone), now=now)
    moment = stands(fresh_engine)[-1][2]
    assert isinstance(moment, datetime)
    return moment


@pytest.mark.parametrize(
    ("until", "zone", "now", "expected"),
    [
        ({"time": "09:00"}, "Europe/Berlin", "2026-11-22T07:59", "2026-11-22T08:00"),
        ({"time": "09:00"}, "Europe/Berlin", "2026-11-22T08:00", "2026-11-23T08:00"),
        ({"time": "09:00"}, "", "2026-11-22T08:00", "2026-11-22T09:00"),
        ({"time": "09:00", "weekdays": [1]}, "America/New_York", "2026-11-23T15:00", "2026-11-30T14:00"),
        ({"time": "09:00", "timezone": "Asia/Tokyo"}, "Europe/Berlin", "2026-11-22T12:00", "2026-11-23T00:00"),
        # The clocks skip 02:30 on 29 March 2026 in Berlin: the end of the gap is 01:00 UTC.
        ({"time": "02:30"}, "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00"),
        # They show 02:30 twice on 25 October: the first is 00:30 UTC, and after it the next day's is next.
        ({"time": "02:30"}, "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T00:30"),
        ({"time": "02:30"}, "Europe/Berlin", "2026-10-25T00:45", "2026-10-26T01:30"),
    ],
)
def test_until_a_local_time(
    fresh_engine: Engine, settings: Settings, until: dict[str, Any], zone: str, now: str, expected: str
) -> None:
    at = datetime.fromisoformat(now + "+00:00")
    assert resumes(fresh_engine, settings, until, zone, at) == datetime.fromisoformat(expected + "+00:00")
    shown = results(fresh_engine, "0")[0]
    assert (shown["noted"], shown["until"]["time"]) == (True, until["time"])


def test_people_of_one_batch_wait_by_their_own_clocks(fresh_engine: Engine, settings: Settings) -> None:
    zones = ["Europe/Berlin", "Asia/Tokyo", "Europe/Berlin", "Nowhere/Land", ""]
    people = [add_contact(fresh_engine, timezone=zone) for zone in zones]
    add_workflow(fresh_engine, [{"type": "delay", "until": {"time": "18:00"}}], trigger_type="event",
                 trigger_config={"event_type": "x"})  # fmt: skip
    for contact in people:
        happen(fresh_engine, contact, "x", NOON)
    turn(fresh_engine, settings, NOON)
    found = rows(fresh_engine, "select resume_at - :noon from enrollments order by contact_id", noon=NOON)
    assert found == [(5 * HOUR,), (21 * HOUR,), (5 * HOUR,), (6 * HOUR,), (6 * HOUR,)]


# --- entering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger_type", "config", "kind", "properties", "enters"),
    [
        ("tag_added", {"tag_name": "VIP"}, "tag_added", {"tag_name": "vip"}, True),
        ("tag_added", {"tag_name": "VIP"}, "tag_added", {"tag_name": "vip2"}, False),
        ("tag_added", {}, "tag_added", {"tag_name": "any"}, True),
    ],
)
def test_triggers_by_event(
    fresh_engine: Engine, settings: Settings, trigger_type: str, config: Any, kind: str, properties: Any, enters: bool
) -> None:
    add_workflow(fresh_engine, [], trigger_type=trigger_type, trigger_config=config)
    happen(fresh_engine, add_contact(fresh_engine), kind, NOON, source="mauto", **properties)
    assert dispatch.run(fresh_engine, settings, now=NOON).enrolled == int(enters)


@pytest.mark.parametrize(
    ("wanted", "source", "enters"),
    [
        ("7", "inbound:7", True), (7, "inbound:7", True), ("7", "inbound:8", False), ("7", "inbound:77", False),
        (None, "inbound:8", True), (None, "mauto", False), (None, "api", False),
    ],
)  # fmt: skip
def test_an_event_of_an_inbound_source_enters(
    fresh_engine: Engine, settings: Settings, wanted: Any, source: str, enters: bool
) -> None:
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into inbound_sources (source_id, name, token_hash, secret_encrypted)"
                        " overriding system value values (7, 'shop', 'x', 'y')"))  # fmt: skip
    config = {} if wanted is None else {"source_id": wanted}
    workflow = add_workflow(fresh_engine, [], trigger_type="webhook", trigger_config=config)
    # What a body says of a source counts nothing.
    happen(fresh_engine, add_contact(fresh_engine), "anything", NOON, source=source, source_id="7")
    assert workflows.rehearse(fresh_engine, settings, workflow, now=NOON + HOUR).would_enter == int(enters)
    assert dispatch.run(fresh_engine, settings, now=NOON).enrolled == int(enters)


def test_entering_a_segment_enters(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        segment = tx.scalar(text("insert into segments (name) values ('Buyers') returning segment_id"))
    add_workflow(fresh_engine, [], trigger_type="segment_entered", trigger_config={"segment_id": segment})
    for number in (segment, segment + 1):
        happen(fresh_engine, add_contact(fresh_engine), "segment_entered", NOON, source="mauto", segment_id=str(number))
    assert dispatch.run(fresh_engine, settings, now=NOON).enrolled == 1


def test_in_one_batch_things_happen_in_their_order(fresh_engine: Engine, settings: Settings) -> None:
    add_workflow(fresh_engine, [{"type": "delay", "hours": 1}], trigger_type="event",
                 trigger_config={"event_type": "cart"}, exit_on=["bought"])  # fmt: skip
    contact, other = add_contact(fresh_engine), add_contact(fresh_engine)
    for number, kind in enumerate(["cart", "cart", "bought", "cart", "bought", "cart", "cart"]):
        happen(fresh_engine, contact, kind, NOON + number * MINUTE)
    happen(fresh_engine, other, "cart", NOON)
    done = dispatch.run(fresh_engine, settings, now=NOON + HOUR)
    assert (done.enrolled, done.exited) == (4, 2)
    found = rows(fresh_engine, "select status, caused_at - :noon from enrollments where contact_id = :c order by 2",
                 noon=NOON, c=contact)  # fmt: skip
    assert found == [("exited", 0 * MINUTE), ("exited", 3 * MINUTE), ("running", 5 * MINUTE)]


def test_a_workflow_that_mails_whoever_was_mailed_stops(fresh_engine: Engine, settings: Settings) -> None:
    mail = {"action": "send_email", "subject": "Again", "body": "<p>x</p>"}
    workflow = add_workflow(
        fresh_engine, [{"type": "delay", "minutes": 5}, mail], trigger_type="event",
        trigger_config={"event_type": "email_sent"}, re_entry={"policy": "always"},
    )  # fmt: skip
    enter(fresh_engine, settings, workflow, add_contact(fresh_engine))
    for number in range(1, 20):
        now = NOON + 5 * number * MINUTE
        workflows.advance(fresh_engine, settings, now=now)
        sending.pump(fresh_engine, settings, now=now, open_way=lambda _: Null(), group_size=10)
        dispatch.run(fresh_engine, settings, now=now)
    found = rows(fresh_engine, "select status, depth from messages order by message_id")
    assert found == [("sent", depth) for depth in range(1, 6)]


def test_one_value_that_cannot_be_holds_up_nobody_else(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_workflow(fresh_engine, [tag("a"), tag("b")], trigger_type="event", trigger_config={"event_type": "ping"})
    people = [add_contact(fresh_engine) for _ in range(9)]
    for person in people:
        happen(fresh_engine, person, "ping", NOON)
    dispatch.run(fresh_engine, settings, now=NOON)
    run, odd = Tag.run, people[6]

    def fragile(step: Tag, visit: Visit) -> list[Outcome]:
        if step.tag_name == "a" and odd in visit.members.contact_ids:
            visit.tx.execute(text("select 1 / 0"))
        return run(step, visit)

    monkeypatch.setattr(Tag, "run", fragile)
    done = workflows.advance(fresh_engine, settings, now=NOON)
    assert (done.completed, done.steps, done.failed_steps) == (9, 18, 1)
    failed = "select contact_id, step_path, result ->> 'error' from workflow_logs where status = 'failed'"
    assert rows(fresh_engine, failed) == [(odd, "0", "The database refused a value (22012)")]
    tags = "select name, count(*) from contact_tags join tags using (tag_id) group by name order by name"
    assert rows(fresh_engine, tags) == [("a", 8), ("b", 9)]


def test_what_is_five_links_deep_starts_nothing(fresh_engine: Engine, settings: Settings) -> None:
    for number in range(8):
        add_workflow(fresh_engine, [tag(f"t{number + 1}")], trigger_type="tag_added",
                     trigger_config={"tag_name": f"t{number}"})  # fmt: skip
    contact = add_contact(fresh_engine)
    happen(fresh_engine, contact, "tag_added", NOON, source="mauto", tag_name="t0")
    for number in range(10):
        turn(fresh_engine, settings, NOON + number * MINUTE)
    assert tags(fresh_engine, contact) == ["t1", "t2", "t3", "t4", "t5"]


# --- abandoned carts --------------------------------------------------------------------------------------------


def cart(engine: Engine, contact: int, at: datetime, number: str = "C1", price: float = 20.0, **more: Any) -> None:
    lines = [{"sku": "A", "quantity": 2, "unit_price": price}]
    happen(engine, contact, "cart_updated", at, source="shop", cart_id=number, currency="EUR",
           **{"lines": lines, **more})  # fmt: skip


def test_a_cart_is_abandoned_an_hour_after_its_last_change_once(fresh_engine: Engine, settings: Settings) -> None:
    add_workflow(fresh_engine, [{"type": "delay", "hours": 24}, tag("reminded")], trigger_type="cart_abandoned")
    contact = add_contact(fresh_engine)
    cart(fresh_engine, contact, NOON)
    cart(fresh_engine, contact, NOON + 30 * MINUTE)
    turn(fresh_engine, settings, NOON + 60 * MINUTE)
    assert stands(fresh_engine) == []
    assert rows(fresh_engine, "select min(due_at) from cart_timers") == [(NOON + 90 * MINUTE,)]
    turn(fresh_engine, settings, NOON + 90 * MINUTE)
    assert [path for _, path, *_ in stands(fresh_engine)] == ["0"]
    entry = rows(fresh_engine, "select entry_key, caused_at, context ->> 'cart_id' from enrollments")
    assert entry == [(f"cart:{contact}:C1", NOON + 30 * MINUTE, "C1")]
    cart(fresh_engine, contact, NOON + 2 * HOUR)
    turn(fresh_engine, settings, NOON + 30 * HOUR)
    turn(fresh_engine, settings, NOON + 60 * HOUR)
    assert (len(stands(fresh_engine)), tags(fresh_engine, contact)) == (1, ["reminded"])


def test_an_ordered_cart_is_not_abandoned_and_ends_the_enrollment(fresh_engine: Engine, settings: Settings) -> None:
    add_workflow(fresh_engine, [{"type": "delay", "hours": 24}, tag("reminded")], trigger_type="cart_abandoned")
    quick, late, other = (add_contact(fresh_engine) for _ in range(3))
    for contact in (quick, late, other):
        cart(fresh_engine, contact, NOON, number=f"C{contact}")
    happen(fresh_engine, quick, "order_placed", NOON + MINUTE, source="shop", cart_id=f"C{quick}")
    turn(fresh_engine, settings, NOON + HOUR)
    assert len(stands(fresh_engine)) == 2
    happen(fresh_engine, late, "order_placed", NOON + 2 * HOUR, source="shop", cart_id=f"C{late}")
    happen(fresh_engine, other, "order_placed", NOON + 2 * HOUR, source="shop", cart_id="another")
    turn(fresh_engine, settings, NOON + 2 * HOUR)
    found = rows(fresh_engine, "select contact_id, status, exit_reason from enrollments order by 1")
    assert found == [(late, "exited", "order_placed"), (other, "waiting", None)]


def test_small_emptied_and_foreign_carts_let_nobody_in(fresh_engine: Engine, settings: Settings) -> None:
    add_workflow(fresh_engine, [], trigger_type="cart_abandoned", trigger_config={"min_total": "40.00"})
    worth, small, emptied, odd = (add_contact(fresh_engine) for _ in range(4))
    cart(fresh_engine, worth, NOON)
    cart(fresh_engine, small, NOON, total="39.99")
    cart(fresh_engine, emptied, NOON)
    cart(fresh_engine, emptied, NOON + MINUTE, lines=[])
    cart(fresh_engine, odd, NOON, lines=[{"unit_price": "much"}], total={"no": "number"})
    cart(fresh_engine, 0, NOON)
    turn(fresh_engine, settings, NOON + 2 * HOUR)
    assert rows(fresh_engine, "select contact_id from enrollments") == [(worth,)]
    assert rows(fresh_engine, "select count(*) from cart_timers") == [(0,)]


# --- days -------------------------------------------------------------------------------------------------------


def test_a_day_lets_everybody_in_once(fresh_engine: Engine, settings: Settings) -> None:
    add_workflow(fresh_engine, [tag("greeted")], trigger_type="date", now=NOON,
                 trigger_config={"on": "2026-12-24", "at": "08:30"}, re_entry={"policy": "always"})  # fmt: skip
    people = [add_contact(fresh_engine) for _ in range(3)]
    moment = datetime(2026, 12, 24, 8, 30, tzinfo=UTC)
    turn(fresh_engine, settings, NOON)
    assert rows(fresh_engine, "select next_at from workflow_clocks") == [(moment,)]
    turn(fresh_engine, settings, moment - MINUTE)
    assert stands(fresh_engine) == []
    for later in (0, 1, 60):
        turn(fresh_engine, settings, moment + later * MINUTE)
    assert [tags(fresh_engine, contact) for contact in people] == [["greeted"]] * 3
    assert len(stands(fresh_engine)) == 3
    assert rows(fresh_engine, "select next_at from workflow_clocks") == [(None,)]


def test_a_day_before_the_workflow_was_made_lets_nobody_in(fresh_engine: Engine, settings: Settings) -> None:
    add_workflow(fresh_engine, [], trigger_type="date", trigger_config={"on": "2026-11-22", "at": "11:59"}, now=NOON)
    add_contact(fresh_engine)
    turn(fresh_engine, settings, NOON + MINUTE)
    assert stands(fresh_engine) == []


@pytest.mark.parametrize(
    ("born", "zone", "expected"),
    [
        ("1990-03-01", "Europe/Berlin", "2027-03-01T08:00"),
        ("1990-03-01", "America/New_York", "2027-03-01T14:00"),
        ("1990-03-01", "", "2027-03-01T09:00"),
        ("1992-02-29", "Europe/Berlin", "2027-02-28T08:00"),
        ("1992-02-28", "Europe/Berlin", "2027-02-28T08:00"),
        ("2027-03-01", "Europe/Berlin", None),  # that day itself is none
        ("soon", "Europe/Berlin", None),
        ("1990-13-45", "Europe/Berlin", None),
    ],
)
def test_anniversaries_come_by_the_contacts_clock(
    fresh_engine: Engine, settings: Settings, born: str, zone: str, expected: str | None
) -> None:
    begun = datetime(2027, 2, 27, tzinfo=UTC)
    add_workflow(fresh_engine, [], trigger_type="anniversary", trigger_config={"field": "custom_fields.birthday"},
                 now=begun)  # fmt: skip
    add_contact(fresh_engine, timezone=zone, custom_fields={"birthday": born})
    if expected is None:
        workflows.arrive(fresh_engine, settings, now=begun + timedelta(days=4))
        assert stands(fresh_engine) == []
        return
    moment = datetime.fromisoformat(expected + "+00:00")
    workflows.arrive(fresh_engine, settings, now=moment - MINUTE)
    assert stands(fresh_engine) == []
    assert rows(fresh_engine, "select next_at <= :at from workflow_clocks", at=moment) == [(True,)]
    workflows.arrive(fresh_engine, settings, now=moment)
    assert rows(fresh_engine, "select caused_at from enrollments") == [(moment,)]


@pytest.mark.parametrize(("year", "day"), [(2028, 29), (2027, 28)])
def test_29_february_is_kept_in_leap_years(fresh_engine: Engine, settings: Settings, year: int, day: int) -> None:
    add_workflow(fresh_engine, [], trigger_type="anniversary", now=datetime(year, 2, 27, tzinfo=UTC),
                 trigger_config={"field": "custom_fields.birthday", "local_time": False})  # fmt: skip
    add_contact(fresh_engine, custom_fields={"birthday": "1992-02-29"})
    for when in (28, 29, 30):
        workflows.arrive(fresh_engine, settings, now=datetime(year, 2, 27, 9, tzinfo=UTC) + timedelta(days=when - 27))
    found = rows(fresh_engine, "select caused_at, context from enrollments")
    assert found == [(datetime(year, 2, day, 9, tzinfo=UTC), {"date": f"{year}-02-{day}", "years": year - 1992})]


def test_an_offset_moves_the_day_and_missed_days_of_a_week_are_made_up(
    fresh_engine: Engine, settings: Settings
) -> None:
    begun = datetime(2026, 12, 20, tzinfo=UTC)
    add_workflow(fresh_engine, [], trigger_type="anniversary", now=begun,
                 trigger_config={"field": "custom_fields.birthday", "offset_days": -7})  # fmt: skip
    soon = add_contact(fresh_engine, custom_fields={"birthday": "1990-01-01"})
    over = add_contact(fresh_engine, custom_fields={"birthday": "1990-12-28"})
    workflows.arrive(fresh_engine, settings, now=begun + timedelta(hours=1))
    # Nobody looked for nine days: a day that was eight ago is over, one that was five ago is not.
    workflows.arrive(fresh_engine, settings, now=begun + timedelta(days=9, hours=12))
    found = rows(fresh_engine, "select contact_id, caused_at from enrollments")
    assert found == [(soon, datetime(2026, 12, 25, 9, tzinfo=UTC))]
    assert over != soon


# --- what else may come -----------------------------------------------------------------------------------------


def test_a_definition_that_cannot_be_read_fails_its_enrollments_and_no_others(
    fresh_engine: Engine, settings: Settings
) -> None:
    bad, good = add_workflow(fresh_engine, [tag("a")]), add_workflow(fresh_engine, [tag("b")])
    contact = add_contact(fresh_engine)
    with fresh_engine.begin() as tx:
        tx.execute(text("update workflow_versions set steps = '[{\"type\": \"gone\"}]' where workflow_id = :id"),
                   {"id": bad})  # fmt: skip
        for workflow_id in (bad, good):
            tx.execute(
                text("insert into enrollments (workflow_id, version, contact_id, entry_key, resume_at, caused_at,"
                     " entered_at) values (:w, 1, :c, 'k', :at, :at, :at)"),
                {"w": workflow_id, "c": contact, "at": NOON},
            )  # fmt: skip
    done = workflows.advance(fresh_engine, settings, now=NOON)
    assert (done.failed, done.completed, tags(fresh_engine, contact)) == (1, 1, ["b"])
    assert rows(fresh_engine, "select event_name from outbox where event_name like 'workflow.%' order by 1") == [
        ("workflow.completed",), ("workflow.failed",)]  # fmt: skip


def test_rehearsals_say_what_would_happen_and_write_nothing(fresh_engine: Engine, settings: Settings) -> None:
    steps = [{"type": "condition", "field": "country", "value": "DE", "then": [wait()], "else": [tag("x")]}]
    workflow_id = add_workflow(fresh_engine, steps, trigger_type="event", trigger_config={"event_type": "x"})
    add_workflow(fresh_engine, [], trigger_type="cart_abandoned")
    people = [add_contact(fresh_engine, country=country) for country in ("DE", "DE", "FR")]
    for contact in people:
        happen(fresh_engine, contact, "x", NOON)
    before = everything(fresh_engine)
    would = dispatch.rehearse(fresh_engine, settings, now=NOON)
    assert (would.events, would.enrolled, dict(would.entering)) == (3, 3, {workflow_id: 3})
    assert everything(fresh_engine) == before
    cart(fresh_engine, people[0], NOON)
    dispatch.run(fresh_engine, settings, now=NOON)
    before = everything(fresh_engine)
    assert workflows.arrive(fresh_engine, settings, now=NOON + HOUR, dry_run=True).carts == 1
    moving = workflows.advance(fresh_engine, settings, now=NOON, dry_run=True)
    assert [(way.step_path, way.to, way.count) for way in moving.ways] == [("0", "0.then.0", 2), ("0", "completed", 1)]
    assert (moving.moved, moving.due[0].count) == (3, 3)
    assert everything(fresh_engine) == before


def everything(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    names = ("enrollments", "workflow_logs", "event_pending", "outbox", "contact_tags", "cart_timers", "events",
             "workflow_clocks")  # fmt: skip
    return {name: sorted(rows(engine, f"select to_jsonb({name})::text from {name}")) for name in names}


def test_a_contact_erased_on_the_way_is_gone_from_it(fresh_engine: Engine, settings: Settings) -> None:
    from mautolib import contacts

    workflow_id = add_workflow(fresh_engine, [{"type": "delay", "hours": 1}, tag("x")])
    gone, stays = add_contact(fresh_engine), add_contact(fresh_engine)
    for contact in (gone, stays):
        enter(fresh_engine, settings, workflow_id, contact)
    with fresh_engine.begin() as tx:
        contacts.delete(tx, gone, actor="user:1", now=NOON)
    done = turn(fresh_engine, settings, NOON + HOUR)
    assert (done.moved, done.completed) == (1, 1)
    assert rows(fresh_engine, "select contact_id from enrollments") == [(stays,)]


def test_a_clock_that_jumps_back_holds_nobody_twice(fresh_engine: Engine, settings: Settings) -> None:
    workflow_id = add_workflow(fresh_engine, [{"type": "delay", "hours": 1}, tag("x"), {"type": "delay", "hours": 1}])
    enter(fresh_engine, settings, workflow_id, add_contact(fresh_engine))
    assert turn(fresh_engine, settings, NOON + HOUR).moved == 1
    assert turn(fresh_engine, settings, NOON - 5 * HOUR).moved == 0
    assert turn(fresh_engine, settings, NOON + 500 * HOUR).completed == 1
    assert len(rows(fresh_engine, "select from workflow_logs")) == 3
