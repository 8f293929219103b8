"""Automation rules: what triggers them, when they run, what they do, how often - by events and by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import automations, dispatch, segments, workflows
from mautolib.automations import NewRule, RunStatus
from mautolib.campaigns import recording, sending
from mautolib.channels.null import Null
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.append import NewEvent, append
from mautolib.ledger import record
from mautolib.segments import NewSegment
from mautolib.segments.rules import Definition
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow
from tests.builders import make_contact, make_tag

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TAG = {"type": "add_tag", "config": {"tag_name": "ran"}}


def add_rule(tx: Connection, trigger_type: str = "ping", **fields: Any) -> int:
    usual: dict[str, Any] = {"name": f"On {trigger_type}", "actions": [TAG]}
    new = NewRule(trigger_type=trigger_type, **{**usual, **fields})
    return automations.create(tx, new, actor="test", now=NOON).rule_id


def fire(
    tx: Connection, settings: Settings, contact: int = 0, data: Mapping[str, Any] | None = None, *,
    trigger: str = "ping", now: datetime = NOON,
) -> list[str]:  # fmt: skip
    done = automations.fire(tx, settings, trigger, contact_id=contact, data=data or {}, now=now)
    return [str(one.status) for one in done]


def tell(tx: Connection, *events: tuple[int, str] | tuple[int, str, Mapping[str, Any]]) -> None:
    append(tx, [
        NewEvent(event_type=kind, contact_id=person, occurred_at=NOON + timedelta(seconds=number), source="shop",
                 properties=more[0] if more else {})
        for number, (person, kind, *more) in enumerate(events)
    ], now=NOON)  # fmt: skip


def tags_of(tx: Connection, contact: int) -> list[str]:
    return list(tx.scalars(
        text("select name from contact_tags inner join tags using (tag_id) where contact_id = :id order by name"),
        {"id": contact},
    ))  # fmt: skip


def logged(tx: Connection, rule_id: int) -> list[automations.Log]:
    return automations.logs(tx, rule_id, limit=200)


def dispatched(engine: Engine, settings: Settings, *, now: datetime = NOON) -> dispatch.DispatchResult:
    return dispatch.run(engine, settings, now=now)


@pytest.mark.parametrize(
    ("operator", "value", "actual", "holds"),
    [
        ("eq", "DE", "DE", True), ("eq", "DE", "de", False), ("eq", 5, 5.0, True), ("eq", 5, "5", False),
        ("eq", True, 1, False), ("eq", "x", None, False), ("eq", [1, 2], [1, 2], True),
        ("eq", {"a": 1}, {"a": 2}, False),
        ("neq", "DE", "AT", True), ("neq", "DE", "DE", False), ("neq", "DE", None, True), ("neq", 1, "1", True),
        ("gt", 10, 11, True), ("gt", 10, 10, False), ("gt", 10, "10.5", True), ("gt", 10, "abc", False),
        ("gt", 10, True, False), ("gt", 10, None, False), ("gt", "a", "b", True), ("gt", "9", "10", True),
        ("gt", 10, [11], False), ("gt", "abc", 5, False), ("gte", 10, 10, True), ("gte", 10.5, 10, False),
        ("lt", 10, 9.99, True), ("lt", 10, 10, False), ("lt", "2026-01-01", "2025-12-31", True),
        ("lte", 10, "10.00", True), ("lte", 10, 11, False), ("lte", 10, {"a": 1}, False),
        ("contains", "hop", "shop", True), ("contains", "HOP", "shop", False),
        ("contains", "vip", ["lead", "vip"], True),
        ("contains", "vi", ["vip"], False), ("contains", 5, "5", False), ("contains", 5, [4, 5], True),
        ("contains", "x", 5, False), ("contains", "%", "10 %", True), ("contains", "x", None, False),
        ("in", ["DE", "AT"], "AT", True), ("in", ["DE"], "FR", False), ("in", [1, 2], 2.0, True),
        ("in", [1, 2], "2", False), ("in", ["a"], ["a"], False), ("in", ["a"], None, False),
        ("is_set", None, "x", True), ("is_set", None, False, True), ("is_set", None, 0, True),
        ("is_set", None, None, False), ("is_set", None, "", False), ("is_set", None, [], False),
        ("not_set", None, None, True), ("not_set", None, "", True), ("not_set", None, 0, False),
    ],
)  # fmt: skip
def test_an_operator(
    tx: Connection, settings: Settings, operator: str, value: object, actual: object, holds: bool
) -> None:
    condition = {"field": "seen", "operator": operator, "value": value}
    add_rule(tx, conditions=[condition], actions=[])
    assert fire(tx, settings, data={"seen": actual}) == ["success" if holds else "skipped"]
    if actual is None:
        assert fire(tx, settings) == ["success" if holds else "skipped"], "null and missing are one"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "anna@shop.example"), ("first_name", "Anna"), ("country", "DE"), ("subscribed", True),
        ("consent_status", "granted"), ("source", "import"), ("custom_fields.size", 42),
        ("custom_fields.shoe.width", "wide"), ("custom_fields.a.b", 1), ("tags", ["ran", "vip"]), ("score", 12.5),
        ("grade", "B"), ("lifecycle_stage", "lead"),
    ],
)  # fmt: skip
def test_a_condition_reads_the_contact_where_the_data_is_silent(
    tx: Connection, settings: Settings, field: str, value: object
) -> None:
    contact = make_contact(
        tx, email="anna@shop.example", first_name="Anna", country="DE", consent_status="granted", source="import",
        custom_fields={"size": 42, "shoe": {"width": "wide"}, "a.b": 1}, consent_source="form", consent_at=NOON,
    )  # fmt: skip
    make_tag(tx, "vip", [contact])
    make_tag(tx, "ran", [contact])
    tx.execute(text("insert into contact_scores (contact_id, total_score, engagement_score, profile_score,"
                    " recency_score, grade, as_of, rule_version) values (:id, 12.5, 0, 0, 0, 'B', now(), 1)"),
               {"id": contact})  # fmt: skip
    tx.execute(text("insert into contact_stages values (:id, 'lead', now(), now())"), {"id": contact})
    add_rule(tx, conditions=[{"field": field, "value": value}], actions=[])
    assert fire(tx, settings, contact) == ["success"]
    assert fire(tx, settings, contact, {field: "other"}) == ["skipped"], "the data comes first"
    assert fire(tx, settings, contact, {field: None}) == ["skipped"]
    assert fire(tx, settings) == ["skipped"], "nobody has nothing"
    assert fire(tx, settings, 987654) == ["skipped"]


@pytest.mark.parametrize(
    ("config", "data", "matches"),
    [
        ({}, {"a": 1}, True), ({"tag_name": "vip"}, {"tag_name": "vip", "tag_id": "3"}, True),
        ({"tag_name": "vip"}, {"tag_name": "VIP"}, False), ({"tag_name": "vip"}, {}, False), ({"a": None}, {}, False),
        ({"a": [1]}, {"a": [1, 2]}, False), ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, False),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, True), ({"a": 1, "b": 2}, {"a": 1, "b": 3}, False),
        ({"a": 1}, {"a": "1"}, False),
    ],
)  # fmt: skip
def test_trigger_config_keys_equal_the_data(
    tx: Connection, settings: Settings, config: Mapping[str, Any], data: Mapping[str, Any], matches: bool
) -> None:
    rule = add_rule(tx, trigger_config=config, actions=[])
    assert fire(tx, settings, data=data) == (["success"] if matches else [])
    assert automations.stats(tx, rule).total == int(matches), "what does not match is not counted"


def test_every_action_acts(tx: Connection, settings: Settings) -> None:
    contact = make_contact(tx, country="DE", custom_fields={"kept": 1}, language="en")
    make_tag(tx, "old", [contact])
    segment = segments.create(tx, settings, NewSegment(name="Kept", definition=Definition()), now=NOON).segment_id
    tx.execute(text("insert into users (email, email_key, role, password_hash) values"
                    " ('Boss@shop.example', 'boss@shop.example', 'admin', ''),"
                    " ('e@shop.example', 'e@shop.example', 'editor', '')"))  # fmt: skip
    tx.execute(text("update users set is_active = false where email_key <> 'boss@shop.example' and role = 'admin'"))
    actions = [
        ("add_tag", {"tag_name": "new"}), ("remove_tag", {"tag_name": "OLD"}),
        ("update_field", {"field": "language", "value": "de"}),
        ("update_field", {"field": "custom_fields.size", "value": 42}), ("unsubscribe", {}), ("subscribe", {}),
        ("send_email", {"subject": "Hi {{ event.n }}", "body": "<p>{{ contact.email }}</p>"}),
        ("update_score", {"points": 10.5, "reason": "well done"}), ("add_to_segment", {"segment_id": str(segment)}),
        ("move_lifecycle", {"stage": "evangelist"}), ("notify_admin", {"message": "See\n<this>"}),
    ]  # fmt: skip
    rule = add_rule(tx, actions=[{"type": kind, "config": config} for kind, config in actions])
    assert fire(tx, settings, contact, {"n": 7}) == ["success"]
    log = logged(tx, rule)[0]
    assert (log.status, log.error, log.contact_id) == ("success", None, contact)
    assert [one["type"] for one in log.actions] == [kind for kind, _ in actions]
    assert all(one["success"] and "action" not in one for one in log.actions)
    assert tags_of(tx, contact) == ["new"]
    row = tx.execute(text("select * from contacts where contact_id = :id"), {"id": contact}).one()
    assert (row.language, row.custom_fields, row.subscribed, row.consent_status) == (
        "de", {"kept": 1, "size": 42}, True, "granted")  # fmt: skip
    assert row.version == 5, "four changes"
    lines = tx.execute(text("select status, source, actor from consents where contact_id = :id order by consent_id"),
                       {"id": contact}).all()  # fmt: skip
    assert [tuple(line) for line in lines] == [
        ("withdrawn", f"automation_rule:{rule}", f"system:automation_rule:{rule}"),
        ("granted", f"automation_rule:{rule}", f"system:automation_rule:{rule}")]  # fmt: skip
    award = tx.execute(text("select points, reason, event_type from score_awards where contact_id = :id"),
                       {"id": contact}).one()  # fmt: skip
    assert tuple(award) == (10.5, "well done", "update_score")
    assert segments.members_at(tx, segment, NOON + timedelta(minutes=1)) == [contact]
    moved = tx.execute(text("select new_stage, actor, reason from stage_transitions where contact_id = :id"
                            " order by transition_id desc limit 1"), {"id": contact}).one()  # fmt: skip
    assert tuple(moved) == ("evangelist", f"automation_rule:{rule}", f"Moved by automation_rule {rule}")
    mails = tx.execute(text("select kind, contact_id, to_email, context, dedupe_key from messages order by message_id"))
    mail, news = mails.all()
    assert (mail.kind, mail.contact_id, mail.context) == ("automation", contact, {"event": {"n": 7}})
    assert log.actions[6]["to"] == row.email
    assert log.actions[6]["queued"] is True
    assert (news.kind, news.contact_id, news.to_email) == ("internal", 0, "Boss@shop.example")
    assert news.context == {"message": "See\n<this>", "rule_name": "On ping", "rule_id": str(rule),
                            "person": str(contact)}  # fmt: skip
    kinds = tx.scalars(text("select event_type from events where contact_id = :id order by event_id"), {"id": contact})
    assert [kind for kind in kinds if kind != "score_changed" and kind != "milestone_reached"] == [
        "tag_added", "tag_removed", "contact_updated", "contact_updated", "unsubscribed", "contact_updated",
        "segment_entered"]  # fmt: skip
    again = add_rule(tx, "again", actions=[{"type": "remove_from_segment", "config": {"segment_id": str(segment)}}])
    assert fire(tx, settings, contact, trigger="again", now=NOON + timedelta(minutes=2)) == ["success"]
    assert segments.members_at(tx, segment, NOON + timedelta(minutes=3)) == []
    assert logged(tx, again)[0].actions == [
        {"type": "remove_from_segment", "success": True, "segment_id": str(segment)}]  # fmt: skip


@pytest.mark.parametrize("contact", [0, 987654])
def test_without_a_contact_what_needs_one_fails_and_the_rest_runs(
    tx: Connection, settings: Settings, contact: int
) -> None:
    segment = segments.create(tx, settings, NewSegment(name="Kept", definition=Definition()), now=NOON).segment_id
    tx.execute(text("insert into users (email, email_key, role, password_hash) values ('b@x.example', 'b@x.example',"
                    " 'admin', '')"))  # fmt: skip
    needing = [
        ("add_tag", {"tag_name": "new"}), ("remove_tag", {"tag_name": "old"}),
        ("update_field", {"field": "language", "value": "de"}), ("subscribe", {}), ("unsubscribe", {}),
        ("send_email", {"subject": "Hi", "body": "<p>x</p>"}), ("update_score", {"points": 1}),
        ("add_to_segment", {"segment_id": str(segment)}), ("remove_from_segment", {"segment_id": str(segment)}),
        ("move_lifecycle", {"stage": "lead"}),
    ]  # fmt: skip
    actions = [{"type": kind, "config": config} for kind, config in needing]
    rest = [{"type": "webhook", "config": {"url": "https://crm.shop.example/"}},
            {"type": "notify_admin", "config": {"message": "x"}}]  # fmt: skip
    rule = add_rule(tx, actions=[*actions, *rest])
    assert fire(tx, settings, contact) == ["failed"]
    log = logged(tx, rule)[0]
    assert log.error == "Unknown action or no contact"
    assert [one["error"] for one in log.actions[:-2]] == ["Unknown action or no contact"] * len(needing)
    assert [one["success"] for one in log.actions[-2:]] == [True, True]
    assert tx.scalar(text("select payload -> 'data' -> 'contact' from webhook_deliveries")) is None
    assert {*automations.actions.ACTIONS} == {kind for kind, _ in needing} | {"notify_admin", "wait_delay", "webhook"}


def test_what_may_not_be_done_is_told_and_the_rest_runs(tx: Connection, settings: Settings) -> None:
    contact = make_contact(tx, email="gone@shop.example", subscribed=False)
    tx.execute(text("insert into suppressions (email, email_key, reason) values ('gone@shop.example',"
                    " 'gone@shop.example', 'unsubscribe')"))  # fmt: skip
    rule = add_rule(tx, actions=[
        {"type": "subscribe"}, {"type": "send_email", "config": {"template_id": "no-such"}},
        {"type": "send_email", "config": {"subject": "x", "body": "<p>x</p>"}},
        {"type": "send_email", "config": {"template_id": "987654"}}, TAG,
    ])  # fmt: skip
    assert fire(tx, settings, contact) == ["failed"]
    errors = [one.get("error") for one in logged(tx, rule)[0].actions]
    assert errors == [
        "The address is suppressed (unsubscribe) and cannot be subscribed", *["unsubscribed"] * 3, None]  # fmt: skip
    assert tags_of(tx, contact) == ["ran"]
    well = make_contact(tx)
    assert fire(tx, settings, well) == ["failed"]
    assert [one.get("error") for one in logged(tx, rule)[0].actions] == [
        None, "Template not found", None, "Template not found", None]  # fmt: skip


def test_rules_run_by_priority_and_see_what_earlier_ones_did(tx: Connection, settings: Settings) -> None:
    contact = make_contact(tx)
    late = add_rule(tx, priority=-1, conditions=[{"field": "tags", "operator": "contains", "value": "first"}])
    first = add_rule(tx, priority=5, actions=[{"type": "add_tag", "config": {"tag_name": "first"}}])
    found = automations.fire(tx, settings, "ping", contact_id=contact, data={}, now=NOON)
    assert [(one.rule_id, one.status) for one in found] == [(first, "success"), (late, "success")]
    assert tags_of(tx, contact) == ["first", "ran"]


def test_events_run_rules_in_their_order_for_each_contact(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        people = [make_contact(tx) for _ in range(3)]
        # "on" is set and taken off by turns; the conditions of the second see what the first did.
        add_rule(tx, "on", actions=[{"type": "add_tag", "config": {"tag_name": "on"}}])
        add_rule(tx, "off", actions=[{"type": "remove_tag", "config": {"tag_name": "on"}}])
        seen = add_rule(tx, "look", actions=[], conditions=[{"field": "tags", "operator": "contains", "value": "on"}])
        tell(tx, *[(person, kind) for kind in ("look", "on", "look", "off", "look", "on") for person in people])
    result = dispatched(fresh_engine, settings)
    assert result.rules == 3 * 3 + 3
    with fresh_engine.begin() as tx:
        assert [tags_of(tx, person) for person in people] == [["on"]] * 3
        found = sorted((log.contact_id, str(log.status)) for log in logged(tx, seen))
        assert found == sorted((person, status) for person in people for status in ("skipped", "success", "skipped"))
        assert {log.error for log in logged(tx, seen)} == {None, "Conditions not met"}


def test_a_limit_counts_runs_that_failed_and_none_that_were_skipped(tx: Connection, settings: Settings) -> None:
    contact = make_contact(tx)
    rule = add_rule(tx, max_executions=2, conditions=[{"field": "ok", "value": True}])
    assert fire(tx, settings, contact, {"ok": False}) == ["skipped"]
    assert fire(tx, settings, 0, {"ok": True}) == ["failed"]
    assert fire(tx, settings, contact, {"ok": True}) == ["success"]
    assert fire(tx, settings, contact, {"ok": True}) == ["skipped"]
    assert [log.error for log in logged(tx, rule)] == [
        "Execution limit reached", None, "Unknown action or no contact", "Conditions not met"]  # fmt: skip
    assert automations.get(tx, rule).total_executions == 2
    stats = automations.stats(tx, rule)
    assert (stats.total, stats.success, stats.failed, stats.skipped) == (4, 1, 1, 2)
    automations.update(tx, rule, {"max_executions": 3}, actor="test")
    assert fire(tx, settings, contact, {"ok": True}) == ["success"]


def test_a_cooldown_is_of_one_contact_and_ends(tx: Connection, settings: Settings) -> None:
    one, other = make_contact(tx), make_contact(tx)
    rule = add_rule(tx, cooldown_minutes=60)
    assert fire(tx, settings, one) == ["success"]
    assert fire(tx, settings, other) == ["success"]
    assert fire(tx, settings, one, now=NOON + timedelta(minutes=59, seconds=59)) == ["skipped"]
    assert logged(tx, rule)[0].error == "Cooldown active"
    assert fire(tx, settings, one, now=NOON + timedelta(minutes=60)) == ["success"], "a skipped run does not prolong it"


def test_limit_and_cooldown_hold_within_a_batch(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        people = [make_contact(tx) for _ in range(3)]
        limited = add_rule(tx, max_executions=4)
        cooling = add_rule(tx, cooldown_minutes=5)
        tell(tx, *[(person, "ping") for _ in range(3) for person in people])
    dispatched(fresh_engine, settings)
    with fresh_engine.begin() as tx:
        statuses = [str(log.status) for log in logged(tx, limited)]
        assert (statuses.count("success"), statuses.count("skipped")) == (4, 5)
        ran = [log.contact_id for log in logged(tx, cooling) if log.status is RunStatus.SUCCESS]
        assert sorted(ran) == people


def test_actions_behind_a_wait_come_later_and_stay_as_they_were(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx)
        wait = {"type": "wait_delay", "config": {"minutes": 30}}
        last = {"type": "add_tag", "config": {"tag_name": "last"}}
        rule = add_rule(tx, actions=[TAG, wait, {"type": "send_email", "config": {
            "subject": "{{ event.n }}", "body": "<p>x</p>"}}, wait, last, wait])  # fmt: skip
        tell(tx, (contact, "ping", {"n": 5}))
    assert dispatched(fresh_engine, settings).rules == 1
    with fresh_engine.begin() as tx:
        log = logged(tx, rule)[0]
        assert (log.status, [one["type"] for one in log.actions]) == ("waiting", ["add_tag", "wait_delay"])
        assert log.actions[1]["resume_at"] == "2026-11-22T12:30:00Z"
        assert automations.next_due(tx) == NOON + timedelta(minutes=30)
        # Neither a change nor switching off reaches a run under way.
        automations.update(tx, rule, {"actions": [], "active": False}, actor="test")
    assert automations.resume(fresh_engine, settings, now=NOON + timedelta(minutes=29)).executed == 0
    for minutes, status in ((30, "waiting"), (60, "success")):
        now = NOON + timedelta(minutes=minutes)
        assert automations.resume(fresh_engine, settings, now=now).executed == 1
        assert automations.resume(fresh_engine, settings, now=now).executed == 0
        with fresh_engine.begin() as tx:
            assert str(logged(tx, rule)[0].status) == status
    with fresh_engine.begin() as tx:
        log = logged(tx, rule)[0]
        assert [one["type"] for one in log.actions] == [
            "add_tag", "wait_delay", "send_email", "wait_delay", "add_tag", "wait_delay"]  # fmt: skip
        assert tags_of(tx, contact) == ["last", "ran"]
        assert tx.execute(text("select count(*), min(context ->> 'event') from messages")).one() == (1, '{"n": 5}')
        assert automations.next_due(tx) is None
        assert automations.get(tx, rule).total_executions == 1


def test_a_deleted_contact_ends_its_waiting_runs(tx: Connection, settings: Settings) -> None:
    from mautolib import contacts

    contact = make_contact(tx)
    rule = add_rule(tx, actions=[{"type": "wait_delay", "config": {"minutes": 1}}, TAG])
    assert fire(tx, settings, contact) == ["waiting"]
    contacts.delete(tx, contact, actor="test", now=NOON)
    assert automations.next_due(tx) is None
    log = logged(tx, rule)[0]
    assert (log.status, log.error) == ("failed", "Contact deleted")


def test_removing_a_rule_removes_its_logs_and_waits(tx: Connection, settings: Settings) -> None:
    rule = add_rule(tx, actions=[{"type": "wait_delay", "config": {"minutes": 1}}, TAG])
    fire(tx, settings, make_contact(tx))
    automations.remove(tx, rule, actor="test")
    assert automations.next_due(tx) is None
    assert logged(tx, rule) == []
    with pytest.raises(NotFound, match="Rule not found"):
        automations.remove(tx, rule, actor="test")


def test_a_chain_of_rules_and_workflows_stops(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx)
        for number in range(10):
            add_rule(tx, "tag_added" if number else "ping", trigger_config={"tag_name": f"n{number}"} if number else {},
                     actions=[{"type": "add_tag", "config": {"tag_name": f"n{number + 1}"}}])  # fmt: skip
        tell(tx, (contact, "ping"))
    runs = [dispatched(fresh_engine, settings).rules for _ in range(8)]
    assert sum(runs) == 5, "five links, and no sixth"
    with fresh_engine.begin() as tx:
        assert tags_of(tx, contact) == ["n1", "n2", "n3", "n4", "n5"]
        tell(tx, (contact, "pong"))
        assert tx.scalar(text("select max(depth) from event_pending")) == 0, "depth ends with its transaction"


@pytest.mark.parametrize("is_single", [False, True], ids=["as a batch", "one by one"])
def test_mail_on_mail_that_was_sent_stops(
    fresh_engine: Engine, settings: Settings, is_single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that mails whoever was mailed, however the hand-over is recorded."""
    if is_single:
        monkeypatch.setattr(recording, "record_sent", lambda *given, **more: len(record.record(*given, **more)))
    with fresh_engine.begin() as tx:
        contact = make_contact(tx)
        add_rule(tx, "email_sent", actions=[
            {"type": "send_email", "config": {"subject": "Sent again", "body": "<p>x</p>"}}])  # fmt: skip
        add_rule(tx, "ping", actions=[{"type": "send_email", "config": {"subject": "Ping", "body": "<p>x</p>"}}])
        tell(tx, (contact, "ping"))
    runs = []
    for minute in range(10):
        now = NOON + timedelta(minutes=minute)
        runs.append(dispatched(fresh_engine, settings, now=now).rules)
        sending.pump(fresh_engine, settings, now=now, open_way=lambda _: Null(), group_size=10)
    assert runs == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    with fresh_engine.begin() as tx:
        sent = tx.execute(text("select depth, status from messages order by message_id")).all()
        assert sent == [(depth, "sent") for depth in range(1, 6)]
        told = tx.scalar(text("select count(*) from events where event_type = 'email_sent'"))
        assert (told, tx.scalar(text("select count(*) from event_pending"))) == (5, 0)


def test_two_rules_that_wake_each_other_stop_also_across_waits(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx)
        wait = {"type": "wait_delay", "config": {"minutes": 1}}
        add_rule(tx, "tag_added", actions=[wait, {"type": "remove_tag", "config": {"tag_name": "x"}}])
        add_rule(tx, "tag_removed", actions=[wait, {"type": "add_tag", "config": {"tag_name": "x"}}])
        make_tag(tx, "x", [contact])
        tell(tx)
        append(tx, [NewEvent(event_type="tag_added", contact_id=contact, occurred_at=NOON)], now=NOON)
    runs = 0
    for minute in range(1, 12):
        now = NOON + timedelta(minutes=minute)
        dispatched(fresh_engine, settings, now=now)
        runs += automations.resume(fresh_engine, settings, now=now + timedelta(minutes=1)).executed
    assert runs == 5


def test_a_workflow_is_a_link_of_the_chain_too(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx)
        workflows.create(tx, NewWorkflow(
            name="Back", trigger_type="tag_added", trigger_config={"tag_name": "go"}, active=True,
            re_entry={"policy": "always"},
            steps=[{"type": "action", "action": "remove_tag", "tag_name": "go"}],
        ), actor="test", now=NOON)  # fmt: skip
        rule = add_rule(tx, "tag_removed", actions=[{"type": "add_tag", "config": {"tag_name": "go"}}])
        append(tx, [NewEvent(event_type="tag_removed", contact_id=contact, occurred_at=NOON)], now=NOON)
    for minute in range(1, 12):
        now = NOON + timedelta(minutes=minute)
        dispatched(fresh_engine, settings, now=now)
        workflows.advance(fresh_engine, settings, now=now)
    with fresh_engine.begin() as tx:
        assert len(logged(tx, rule)) == 3
        assert tx.scalar(text("select count(*) from enrollments")) == 2


def test_an_event_that_is_queued_again_runs_nothing_again(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx)
        rule = add_rule(tx, actions=[{"type": "update_score", "config": {"points": 1}}])
        tell(tx, (contact, "ping"), (contact, "ping"))
        tx.execute(text("create table kept as select * from event_pending"))
    assert dispatched(fresh_engine, settings).rules == 2
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into event_pending select * from kept"))
    assert dispatched(fresh_engine, settings).rules == 0
    with fresh_engine.begin() as tx:
        assert len(logged(tx, rule)) == 2
        assert tx.scalar(text("select sum(points) from score_awards")) == 2


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": " "}, ("name",)), ({"trigger_type": "x" * 51}, ("trigger_type",)),
        ({"priority": 2**31}, ("priority",)), ({"max_executions": -1}, ("max_executions",)),
        ({"cooldown_minutes": True}, ("cooldown_minutes",)), ({"trigger_config": []}, ("trigger_config",)),
        ({"trigger_config": {"a": "x" * 17000}}, ("trigger_config",)), ({"conditions": {}}, ("conditions",)),
        ({"conditions": [1]}, ("conditions", 0)), ({"conditions": [{"value": 1}]}, ("conditions", 0, "field")),
        ({"conditions": [{"field": "a", "operator": "like", "value": 1}]}, ("conditions", 0, "operator")),
        ({"conditions": [{"field": "a"}]}, ("conditions", 0, "value")),
        ({"conditions": [{"field": "a", "operator": "in", "value": "a"}]}, ("conditions", 0, "value")),
        ({"conditions": [{"field": "a", "operator": "gt", "value": []}]}, ("conditions", 0, "value")),
        ({"conditions": [{"field": "a", "value": 1, "x": 1}]}, ("conditions", 0, "x")),
        ({"actions": [{"type": "explode"}]}, ("actions", 0, "type")), ({"actions": [{"type": "tag"}]},
         ("actions", 0, "type")),
        ({"actions": [TAG, {"type": "add_tag", "config": {}}]}, ("actions", 1, "config", "tag_name")),
        ({"actions": [{**TAG, "extra": 1}]}, ("actions", 0, "extra")),
        ({"actions": [{"type": "subscribe", "config": {"x": 1}}]}, ("actions", 0, "config", "x")),
        ({"actions": [{"type": "subscribe", "config": 1}]}, ("actions", 0, "config")),
        ({"actions": [{"type": "wait_delay", "config": {"minutes": 0}}]}, ("actions", 0, "config", "minutes")),
        ({"actions": [{"type": "move_lifecycle", "config": {"stage": "x"}}]}, ("actions", 0, "config", "stage")),
        ({"actions": [{"type": "update_field", "config": {"field": "email", "value": "x"}}]},
         ("actions", 0, "config", "field")),
        ({"actions": [{"type": "update_field", "config": {"field": "currency", "value": "x"}}]},
         ("actions", 0, "config", "value")),
        ({"actions": [{"type": "add_to_segment", "config": {"segment_id": "987654"}}]},
         ("actions", 0, "config", "segment_id")),
        ({"actions": [{"type": "send_email", "config": {"subject": "{{", "body": "x"}}]}, ("actions", 0, "config")),
        ({"actions": [{"type": "webhook", "config": {"url": "https://10.0.0.1/"}}]}, ("actions", 0, "config", "url")),
        ({"actions": [{"type": "webhook", "config": {}}]}, ("actions", 0, "config", "url")),
        ({"actions": [{"type": "webhook", "config": {"url": "https://x.example/", "payload": []}}]},
         ("actions", 0, "config", "payload")),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_its_place(
    tx: Connection, fields: Mapping[str, Any], path: Sequence[str | int]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        add_rule(tx, **{"trigger_type": "ping", **fields})
    assert caught.value.path == ("body", *path)
    assert tx.scalar(text("select count(*) from automation_rules")) == 0


def test_listing_is_by_priority(tx: Connection) -> None:
    low, high, middle = (add_rule(tx, priority=number, name=str(number)) for number in (-3, 7, 0))
    off = add_rule(tx, "other", priority=7, active=False)
    assert [rule.rule_id for rule in automations.search(tx)] == [high, off, middle, low]
    assert [rule.rule_id for rule in automations.search(tx, after=(7, high), limit=2)] == [off, middle]
    assert [rule.rule_id for rule in automations.search(tx, active=False)] == [off]
    assert [rule.rule_id for rule in automations.search(tx, trigger_type="other")] == [off]
    assert automations.count(tx, active=True) == 3
