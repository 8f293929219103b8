"""Facts for webhooks: each of the events, made by the verb that makes the fact, told once to who listens to it."""

from __future__ import annotations

import json
import select
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import contacts, dispatch, workflows
from mautolib.campaigns import experiment_control, experiment_steps, experiments, finishing, planning
from mautolib.campaigns import launch as launching
from mautolib.campaigns.experiment_model import NewAbTest, NewVariant
from mautolib.contacts import NewContact, consent, many
from mautolib.events.append import NewEvent, append
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.outbox import FactName
from mautolib.settings import Settings
from mautolib.webhooks import delivery, desk, retention
from mautolib.workflows import NewWorkflow
from tests.integration.mailing import NOW, add_campaign, launched, null, run_pump
from tests.integration.webhook_making import NOON, add_endpoint, rows, tell, value
from tests.receivers import receive

BOUNCED = Result(verdict=Verdict.BOUNCED, stage=Stage.RCPT, code=550, enhanced="5.1.1", reply="5.1.1 no such user")
Act = Callable[[Engine, Settings], Any]


def person(engine: Engine, **fields: Any) -> int:
    with engine.begin() as tx:
        new = NewContact(**{"email": "ann@shop.example", "first_name": "Ann", **fields})
        return contacts.create(tx, new, actor="test", now=NOW).contact_id


def update(engine: Engine, settings: Settings) -> None:
    with engine.begin() as tx:
        contact_id = tx.scalar(text("select contact_id from contacts"))
        contacts.update(tx, contact_id, {"first_name": "Anna"}, actor="test", now=NOW)


def delete(engine: Engine, settings: Settings) -> None:
    with engine.begin() as tx:
        contacts.delete(tx, tx.scalar(text("select contact_id from contacts")), actor="test", now=NOW)


def subscribe(engine: Engine, on: bool) -> None:
    with engine.begin() as tx:
        contact_id = tx.scalar(text("select contact_id from contacts"))
        consent.set_subscribed(tx, contact_id, on, source="form", actor="test", now=NOW)


@pytest.mark.parametrize("on", [True, False])
def test_a_change_for_many_tells_what_a_single_one_does(fresh_engine: Engine, on: bool) -> None:
    told = []
    for source in ("single", "many"):
        with fresh_engine.begin() as tx:
            new = NewContact(email=f"{source}@shop.example", first_name="Ann", subscribed=not on)
            contact_id = contacts.create(tx, new, actor="test", now=NOW).contact_id
            if source == "single":
                consent.set_subscribed(tx, contact_id, on, source="form", actor="test", now=NOW)
            else:
                many.set_subscribed(tx, [contact_id], on, source="form", actor="test", now=NOW)
            name = "contact.subscribed" if on else "contact.unsubscribed"
            data = tx.scalar(text("select data from outbox where event_name = :name order by outbox_id desc limit 1"),
                             {"name": name})  # fmt: skip
        assert data["contact"].pop("email") == f"{source}@shop.example" and data["contact"]["subscribed"] is on
        told.append({**data, "contact": {**data["contact"], "id": ""}})
    assert told[0] == told[1]


def draft(engine: Engine, settings: Settings) -> None:
    with engine.begin() as tx:
        add_campaign(tx)


def launch(engine: Engine, settings: Settings) -> None:
    launched(engine, settings, 2)


def send(engine: Engine, settings: Settings) -> None:
    launch(engine, settings)
    run_pump(engine, settings)


def complete(engine: Engine, settings: Settings) -> None:
    send(engine, settings)
    assert len(finishing.finish(engine, NOW)) == 1


def bounce(engine: Engine, settings: Settings) -> None:
    launch(engine, settings)
    run_pump(engine, settings, null({1: BOUNCED}))


def hit(event_type: str) -> Act:
    def act(engine: Engine, settings: Settings) -> None:
        with engine.begin() as tx:
            contact_id = tx.scalar(text("select contact_id from contacts"))
            properties = {"url": "https://shop.example/a"} if event_type == "email_clicked" else {}
            append(tx, [NewEvent(event_type=event_type, contact_id=contact_id, occurred_at=NOW, campaign_id=5,
                                 message_id=9, properties=properties)], now=NOW)  # fmt: skip
        dispatch.run(engine, settings, now=NOW)

    return act


def leave_by_mail(engine: Engine, settings: Settings) -> None:
    with engine.begin() as tx:
        contact_id = tx.scalar(text("select contact_id from contacts"))
        consent.unsubscribe(tx, contact_id, source="link", actor="public", now=NOW, campaign_id=5, message_id=9)


def trigger(engine: Engine, settings: Settings) -> None:
    with engine.begin() as tx:
        new = NewWorkflow(name="Hello", trigger_type="manual", active=True,
                          steps=[{"action": "tag", "tag_name": "met"}])  # fmt: skip
        workflow_id = workflows.create(tx, new, actor="test", now=NOW).workflow_id
        contact_id = tx.scalar(text("select contact_id from contacts"))
        workflows.trigger(tx, settings, workflow_id, contact_id=contact_id, now=NOW)


def begun(engine: Engine, trigger_type: str, config: dict[str, Any], *, at: datetime) -> None:
    new = NewWorkflow(name="Set", trigger_type=trigger_type, trigger_config=config, active=True,
                      steps=[{"action": "tag", "tag_name": "met"}])  # fmt: skip
    with engine.begin() as tx:
        workflows.create(tx, new, actor="test", now=at)


def happen(engine: Engine, event_type: str, at: datetime, **properties: Any) -> None:
    with engine.begin() as tx:
        contact_id = tx.scalar(text("select contact_id from contacts"))
        append(tx, [NewEvent(event_type=event_type, contact_id=contact_id, occurred_at=at, properties=properties)],
               now=at)  # fmt: skip


def by_event(engine: Engine, settings: Settings) -> None:
    begun(engine, "event", {"event_type": "ping"}, at=NOW)
    happen(engine, "ping", NOW)
    for _ in range(2):
        dispatch.run(engine, settings, now=NOW)
        workflows.advance(engine, settings, now=NOW)


def by_cart(engine: Engine, settings: Settings) -> None:
    begun(engine, "cart_abandoned", {"after_minutes": 60}, at=NOW - timedelta(days=1))
    happen(engine, "cart_updated", NOW - timedelta(hours=2), cart_id="c1", total="9.90")
    dispatch.run(engine, settings, now=NOW)
    for _ in range(2):
        workflows.arrive(engine, settings, now=NOW)
        workflows.advance(engine, settings, now=NOW)


def by_day(engine: Engine, settings: Settings) -> None:
    local = NOW.astimezone(ZoneInfo(settings.default_timezone))
    begun(engine, "date", {"on": f"{local:%Y-%m-%d}", "at": f"{local:%H:%M}"}, at=NOW - timedelta(days=2))
    for _ in range(2):
        workflows.arrive(engine, settings, now=NOW)
        workflows.advance(engine, settings, now=NOW)


def fail(engine: Engine, settings: Settings) -> None:
    """As a release finds it that no longer knows a step."""
    with engine.begin() as tx:
        new = NewWorkflow(name="Old", steps=[{"type": "delay", "minutes": 1}, {"action": "tag", "tag_name": "met"}])
        made = workflows.create(tx, new, actor="test", now=NOW)
        contact_id = tx.scalar(text("select contact_id from contacts"))
        then = NOW - timedelta(minutes=2)
        workflows.trigger(tx, settings, made.workflow_id, contact_id=contact_id, now=then)
        tx.execute(text("update workflow_versions set steps = '[{\"type\": \"telex\"}]'"))
    assert workflows.advance(engine, settings, now=NOW).failed == 1
    assert workflows.advance(engine, settings, now=NOW).moved == 0
    [row] = rows(engine, "select status, exit_reason, finished_at from enrollments")
    assert (row.status, row.finished_at) == ("failed", NOW)
    assert row.exit_reason.startswith("definition cannot be read: ")


def arm(engine: Engine, settings: Settings) -> int:
    variants = (NewVariant(subject="A"), NewVariant(subject="B"))
    with engine.begin() as tx:
        new = NewAbTest(campaign_id=add_campaign(tx).campaign_id, name="Which", variants=variants)
        test_id = experiments.create(tx, settings, new, actor="test", now=NOW).test_id
        experiment_control.start(tx, settings, test_id, now=NOW)
        return test_id


def choose(engine: Engine, settings: Settings) -> None:
    test_id = arm(engine, settings)
    with engine.begin() as tx:
        chosen = experiments.get(tx, test_id).variants[1].variant_id
        experiment_control.select_winner(tx, test_id, chosen, now=NOW)


def decide(engine: Engine, settings: Settings) -> None:
    """Nobody to mail: completed by itself, without a winner."""
    with engine.begin() as tx:
        tx.execute(text("update contacts set subscribed = false"))
    test_id = arm(engine, settings)
    with engine.begin() as tx:
        launching.request_send(tx, settings, experiments.get(tx, test_id).campaign_id, now=NOW - timedelta(hours=4))
    planning.plan_due(engine, settings, NOW - timedelta(hours=4))
    for _ in range(2):
        experiment_steps.step(engine, settings, NOW)
    row = rows(engine, "select data from outbox where event_name like 'ab_test.%' order by outbox_id")[-1]
    assert row.data == {"test_id": str(test_id), "decision": "not_enough_data", "variant_id": None}


CONTACT = {"contact", "changed"}
MAIL = {"message_id", "campaign_id", "contact_id", "email"}
CAMPAIGN = {"campaign_id", "name", "totals"}
ENROLLMENT = {"workflow_id", "enrollment_id", "contact_id"}
EXPERIMENT = {"test_id", "decision", "variant_id"}
#: Event -> (what makes the fact, how many there are of it, the keys of its data).
TABLE: dict[str, tuple[Act, int, set[str]]] = {
    "contact.created": (lambda engine, settings: None, 1, CONTACT),
    "contact.updated": (update, 1, CONTACT),
    "contact.deleted": (delete, 1, CONTACT),
    "contact.subscribed": (lambda engine, _: [subscribe(engine, False), subscribe(engine, True)], 1, CONTACT),
    "contact.unsubscribed": (lambda engine, _: [subscribe(engine, False), subscribe(engine, False)], 1, CONTACT),
    "campaign.created": (draft, 1, CAMPAIGN),
    "campaign.sent": (launch, 1, CAMPAIGN),
    "campaign.completed": (complete, 1, CAMPAIGN),
    "email.sent": (send, 3, MAIL),
    "email.bounced": (bounce, 1, MAIL | {"reason"}),
    "email.opened": (hit("email_opened"), 1, MAIL),
    "email.clicked": (hit("email_clicked"), 1, MAIL | {"url"}),
    "email.unsubscribed": (leave_by_mail, 1, MAIL | {"url"}),
    "workflow.triggered": (trigger, 1, ENROLLMENT),
    "workflow.completed": (trigger, 1, ENROLLMENT),
    "workflow.failed": (fail, 1, ENROLLMENT),
    "ab_test.started": (arm, 1, EXPERIMENT),
    "ab_test.completed": (choose, 1, EXPERIMENT),
    "ab_test.winner_selected": (choose, 1, EXPERIMENT),
}
#: Other ways to the same facts.
OTHERS = [
    (name, (act, 1, ENROLLMENT))
    for act in (by_event, by_cart, by_day) for name in ("workflow.triggered", "workflow.completed")
] + [("ab_test.completed", (decide, 1, EXPERIMENT))]  # fmt: skip


def test_every_event_has_its_fact() -> None:
    assert TABLE.keys() == {str(name) for name in FactName}


@pytest.mark.parametrize(
    ("name", "case"), [*TABLE.items(), *OTHERS],
    ids=[*TABLE, *(f"{name} {case[0].__name__}" for name, case in OTHERS)],
)  # fmt: skip
def test_a_fact_is_told_once_to_who_listens(
    fresh_engine: Engine, settings: Settings, name: str, case: tuple[Act, int, set[str]]
) -> None:
    act, count, keys = case
    with fresh_engine.begin() as tx:
        listening = add_endpoint(tx, settings, "https://shop.example/x", events=[name])
        other = "workflow.failed" if name.startswith("ab_test.") else "ab_test.started"
        add_endpoint(tx, settings, "https://shop.example/y", events=[other])
    contact_id = person(fresh_engine)
    act(fresh_engine, settings)
    desk.expand(fresh_engine, now=NOON)
    assert desk.expand(fresh_engine, now=NOON) == (0, 0)
    made = rows(fresh_engine, "select * from webhook_deliveries")
    assert [(row.endpoint_id, row.event_type) for row in made] == [(listening, name)] * count
    assert len({row.webhook_message_id for row in made}) == count
    for row in made:
        assert row.payload.keys() == {"id", "event", "timestamp", "data"}
        assert (row.payload["id"], row.payload["event"]) == (row.webhook_message_id, name)
        assert row.payload["data"].keys() == keys
        moment = datetime.fromisoformat(row.payload["timestamp"])
        assert moment.tzinfo is not None and abs(moment - NOW) < timedelta(minutes=1)
        if "contact" in keys:
            shown = row.payload["data"]["contact"]
            assert (shown["id"], shown["email"], shown["first_name"]) == (
                str(contact_id), "ann@shop.example", "Anna" if name == "contact.updated" else "Ann")
        elif "email" in keys:
            assert "@" in row.payload["data"]["email"] and row.payload["data"]["contact_id"].isdecimal()


def test_a_rolled_back_fact_is_told_to_nobody(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_endpoint(tx, settings, "https://shop.example/x")
    with fresh_engine.connect() as tx:
        tell(tx, 3)
        tx.rollback()
    assert desk.expand(fresh_engine, now=NOON) == (0, 0)


def test_who_listens_to_what(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        everything = add_endpoint(tx, settings, "https://shop.example/1")
        some = add_endpoint(tx, settings, "https://shop.example/2", events=["email.opened", "contact.created"])
        add_endpoint(tx, settings, "https://shop.example/3", events=[])
        add_endpoint(tx, settings, "https://shop.example/4", active=False)
        tell(tx, 2, name="contact.created")
        tell(tx, 3, name="campaign.sent")
    assert desk.expand(fresh_engine, now=NOON, size=4) == (4, 6)
    assert desk.expand(fresh_engine, now=NOON, size=4) == (1, 1)
    counts = rows(fresh_engine, "select endpoint_id, count(*) from webhook_deliveries group by 1 order by 1")
    assert counts == [(everything, 5), (some, 2)]


def test_nothing_is_done_while_nobody_listens(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        tell(tx, 3)
    assert desk.expand(fresh_engine, now=NOON) == (0, 0)
    assert not delivery.is_anything_to_do(fresh_engine, datetime.now(UTC) + timedelta(days=1))
    with fresh_engine.begin() as tx:
        endpoint = add_endpoint(tx, settings, "https://shop.example/1", listens_since=datetime.now(UTC))
    # What happened before somebody listened is looked at and told to nobody.
    assert delivery.is_anything_to_do(fresh_engine, datetime.now(UTC) + timedelta(days=1))
    assert desk.expand(fresh_engine, now=NOON) == (3, 0)
    with fresh_engine.begin() as tx:
        tx.execute(text("update webhook_endpoints set active = false"))
        tell(tx, 2)
    with fresh_engine.begin() as tx:
        tx.execute(text("update webhook_endpoints set active = true"))
    with fresh_engine.begin() as tx:
        tell(tx, 1)
    assert desk.expand(fresh_engine, now=NOON, size=1) == (2, 0)
    assert desk.expand(fresh_engine, now=NOON) == (1, 1)
    assert value(fresh_engine, "select endpoint_id from webhook_deliveries") == endpoint


def test_two_that_expand_at_once_make_each_delivery_once(fresh_engine: Engine, settings: Settings) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with fresh_engine.begin() as tx:
        add_endpoint(tx, settings, "https://shop.example/1")
        tell(tx, 400)

    def work(_: int) -> int:
        made = 0
        while (step := desk.expand(fresh_engine, now=NOON, size=20))[0]:
            made += step[1]
        return made

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(work, range(4))) == 400
    assert value(fresh_engine, "select count(distinct outbox_id) from webhook_deliveries") == 400


@pytest.mark.parametrize("active", [True, False])
def test_a_commit_wakes_the_delivery_if_somebody_listens(
    fresh_engine: Engine, settings: Settings, active: bool
) -> None:
    with fresh_engine.begin() as tx:
        add_endpoint(tx, settings, "https://shop.example/1", active=active)
    raw = fresh_engine.raw_connection()
    connection: Any = raw.driver_connection

    def heard(does: Callable[[Connection], Any]) -> list[str]:
        """What is notified of a commit: all that comes before a last word."""
        with fresh_engine.begin() as tx:
            does(tx)
        with fresh_engine.begin() as tx:
            tx.execute(text("notify mauto_webhooks, 'end'"))
        found: list[str] = []
        while "end" not in found:
            assert select.select([connection], [], [], 10)[0]
            connection.poll()
            found += [one.payload for one in connection.notifies]
            connection.notifies.clear()
        return found[:-1]

    try:
        connection.autocommit = True
        connection.cursor().execute("listen mauto_webhooks")
        assert heard(lambda tx: tell(tx, 5)) == (["outbox"] if active else [])
        turned = heard(lambda tx: tx.execute(text("update webhook_endpoints set active = not active")))
        assert turned == ([] if active else ["webhook_endpoints"])
    finally:
        raw.invalidate()


def test_what_is_told_or_ended_goes_after_a_while(fresh_engine: Engine, settings: Settings) -> None:
    now = datetime.now(UTC)
    with fresh_engine.begin() as tx:
        endpoint = add_endpoint(tx, settings, "https://shop.example/1")
        tell(tx, 6)
    desk.expand(fresh_engine, now=now)
    with fresh_engine.begin() as tx:
        tell(tx, 1)
        tx.execute(text("update outbox set created_at = :old where outbox_id <> 6"), {"old": now - timedelta(days=8)})
    assert retention.forget_facts(fresh_engine, settings, now=now) == 5
    # One is young, one has still to be told.
    assert [row[0] for row in rows(fresh_engine, "select outbox_id from outbox order by 1")] == [6, 7]
    with fresh_engine.begin() as tx:
        tx.execute(text(
            "update webhook_deliveries set created_at = :old, "
            "status = case when outbox_id < 4 then 'dead' else 'pending' end, "
            "next_attempt_at = case when outbox_id >= 4 then :old end, finished_at = case outbox_id when 1 then "
            "cast(:old as timestamptz) when 2 then :old when 3 then :now end"),
            {"old": now - timedelta(days=31), "now": now})  # fmt: skip
        tx.execute(text("insert into webhook_attempts (delivery_id, attempt, at, response_status, duration_ms) "
                        "select delivery_id, 1, created_at, 500, 3 from webhook_deliveries"))  # fmt: skip
    assert retention.give_up_waiting(fresh_engine, now=now) == 0
    # Of the old ones one was replayed lately, three still wait.
    assert retention.forget_deliveries(fresh_engine, settings, now=now) == 2
    assert value(fresh_engine, "select count(*) from webhook_attempts") == 4
    with fresh_engine.begin() as tx:
        tx.execute(text("update webhook_endpoints set active = false where endpoint_id = :id"), {"id": endpoint})
    assert retention.give_up_waiting(fresh_engine, now=now) == 3
    states = rows(fresh_engine, "select status, error, finished_at from webhook_deliveries where outbox_id >= 4")
    assert set(states) == {("dead", "The endpoint stayed disabled", now)}
    # Nobody listens: what nobody was told goes too.
    assert retention.forget_facts(fresh_engine, settings, now=now) == 1


def test_a_person_who_is_erased_is_erased_from_what_waits(fresh_engine: Engine, settings: Settings) -> None:
    from mautolib import privacy

    with fresh_engine.begin() as tx:
        add_endpoint(tx, settings, "https://shop.example/1", events=["contact.created"])
    contact_id = person(fresh_engine)
    desk.expand(fresh_engine, now=NOON)
    with fresh_engine.begin() as tx:
        privacy.erase(tx, contact_id, actor="test", now=NOW, settings=settings)
    assert privacy.carry_out(fresh_engine, settings, now=NOW + timedelta(hours=1)).completed == 1
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            tx.execute(text("update webhook_endpoints set url = :url"), {"url": receiver.url})
        delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
    assert json.loads(receiver.requests[0].body)["data"] == {"contact": {"id": str(contact_id)}}


def test_an_import_tells_of_what_it_touched(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    from mautolib.contacts import imports

    with fresh_engine.begin() as tx:
        add_endpoint(tx, settings, "https://shop.example/1")
    person(fresh_engine, email="old@shop.example")
    path = tmp_path / "people.csv"
    path.write_text("email,first_name\nold@shop.example,Olga\nnew@shop.example,Nora\n", encoding="utf-8")
    with fresh_engine.begin() as tx:
        tx.execute(text("delete from outbox"))
        imports.request_file(tx, str(path), {"update_policy": "overwrite"}, actor="test", now=NOW)
    assert len(list(imports.run_waiting(fresh_engine, settings, clock=lambda: NOW))) == 1
    told = rows(fresh_engine, "select event_name, data #>> '{contact,email}' from outbox order by 1")
    assert told == [("contact.created", "new@shop.example"), ("contact.updated", "old@shop.example")]


def test_what_a_migration_makes_is_granted_at_once(fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grants run again after a migration, though their own text is as before."""
    from mautolib.db import migrate

    new = migrate.SqlFile(name="migrations/9999_more.sql", sql="create table more (id int)", repeatable=False)
    *others, roles = migrate.files()
    monkeypatch.setattr(migrate, "files", lambda: [*others, new, roles])
    assert migrate.migrate(fresh_engine) == [new.name, "roles.sql"]
    assert value(fresh_engine, "select has_table_privilege('mauto_worker', 'more', 'insert')")
    assert migrate.migrate(fresh_engine) == []
