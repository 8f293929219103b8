"""Workflows on a real database: saving, entering, moving, and that every step takes effect once."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import workflows
from mautolib.campaigns.building import Blueprint
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.links import LinkSigner
from mautolib.ledger import content
from mautolib.ledger.model import Claimed, Kind
from mautolib.settings import Settings
from mautolib.templates import catalogue
from mautolib.templates.model import NewTemplate, TemplateChange
from mautolib.workflows import NewWorkflow
from tests.builders import make_contact, make_event, make_suppression, make_tag

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MAIL = {"action": "send_email", "subject": "Hello {{ contact.first_name }}", "body": "<p>Hi</p>"}


def welcome_series(first: int, second: int, *, delay_hours: float = 72) -> NewWorkflow:
    """A mail at sign-up, a pause, a second mail, a tag; once per person."""
    return NewWorkflow(
        name="Welcome series", trigger_type="signup", active=True, re_entry={"policy": "once"},
        steps=(
            {"type": "action", "action": "send_email", "template_id": str(first), "name": "Welcome"},
            {"type": "delay", "hours": delay_hours},
            {"type": "action", "action": "send_email", "template_id": str(second), "name": "Follow-up"},
            {"type": "action", "action": "tag", "tag_name": "welcomed"},
        ),
    )  # fmt: skip


def add_template(tx: Connection, name: str = "Welcome", subject: str = "Welcome!") -> int:
    html = '<p>Hello {{ contact.first_name }}</p><a href="https://shop.example/a">A</a>'
    return catalogue.create(tx, NewTemplate(name=name, subject=subject, html_body=html), now=NOON).template_id


def add_workflow(tx: Connection, steps: Sequence[Any], *, active: bool = True, **fields: Any) -> int:
    new = NewWorkflow(name="Test", steps=steps, active=active, **fields)
    return workflows.create(tx, new, actor="user:1", now=NOON).workflow_id


def enter(tx: Connection, workflow_id: int, contact_id: int, *, at: datetime = NOON, version: int = 1) -> int:
    values = {"workflow_id": workflow_id, "contact_id": contact_id, "at": at, "key": f"test:{contact_id}",
              "version": version}  # fmt: skip
    return tx.execute(
        text("insert into enrollments (workflow_id, version, contact_id, entry_key, resume_at, caused_at, entered_at)"
             " values (:workflow_id, :version, :contact_id, :key, :at, :at, :at) returning enrollment_id"),
        values,
    ).scalar_one()  # fmt: skip


def rows(tx: Connection, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in tx.execute(text(sql), values)]


def logs(tx: Connection) -> list[tuple[Any, ...]]:
    return rows(tx, "select contact_id, step_path, status from workflow_logs order by contact_id, log_id")


# --- saving -----------------------------------------------------------------------------------------------------


def test_a_new_workflow_is_checked_and_keeps_its_first_version(tx: Connection) -> None:
    template_id = add_template(tx)
    made = workflows.create(tx, welcome_series(template_id, template_id), actor="user:7", now=NOON)
    assert made == workflows.get(tx, made.workflow_id)
    assert (made.version, made.active, made.trigger_type, made.created_at) == (1, True, "signup", NOON)
    kept = rows(tx, "select version, trigger_type, jsonb_array_length(steps), created_by from workflow_versions")
    assert kept == [(1, "signup", 4, "user:7")]


def test_only_a_change_of_trigger_or_steps_makes_a_version(tx: Connection) -> None:
    workflow_id = add_workflow(tx, [MAIL])
    named = workflows.update(tx, workflow_id, {"name": "Other", "re_entry": {"policy": "once"}}, actor="u", now=NOON)
    assert (named.version, named.name, named.updated_at) == (1, "Other", NOON)
    changed = workflows.update(tx, workflow_id, {"steps": [MAIL, {"type": "exit"}]}, actor="user:9", now=NOON + HOUR)
    assert changed.version == 2
    same = workflows.update(tx, workflow_id, {"steps": [MAIL, {"type": "exit"}]}, actor="u", now=NOON + 2 * HOUR)
    assert (same.version, same.updated_at) == (2, NOON + HOUR)
    off = workflows.deactivate(tx, workflow_id, actor="u", now=NOON)
    assert (off.version, off.active) == (2, False)
    kept = rows(tx, "select version, jsonb_array_length(steps), created_by from workflow_versions order by version")
    assert kept == [(1, 1, "user:1"), (2, 2, "user:9")]


def test_an_unknown_workflow_is_not_found(tx: Connection) -> None:
    for call in (workflows.activate, workflows.deactivate):
        with pytest.raises(NotFound, match="Workflow not found"):
            call(tx, 999, actor="u", now=NOON)


def test_search_shows_the_newest_first_and_filters(tx: Connection) -> None:
    first = add_workflow(tx, [], active=False)
    second = add_workflow(tx, [MAIL])
    assert [found.workflow_id for found in workflows.search(tx)] == [second, first]
    assert [found.workflow_id for found in workflows.search(tx, active=False)] == [first]
    assert [found.workflow_id for found in workflows.search(tx, skip=1, limit=1)] == [first]


@pytest.mark.parametrize("value", ["", "  ", "a\nb", "x" * 301, 5])
def test_a_name_is_one_line(tx: Connection, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        workflows.create(tx, NewWorkflow(name=value), actor="u", now=NOON)
    assert caught.value.path == ("body", "name")


def test_an_unknown_field_is_refused(tx: Connection) -> None:
    workflow_id = add_workflow(tx, [])
    with pytest.raises(InvalidInput, match="no field 'version'"):
        workflows.update(tx, workflow_id, {"version": 5}, actor="u", now=NOON)


def test_a_template_that_does_not_exist_is_named(tx: Connection) -> None:
    steps = [MAIL, {"action": "send_email", "template_id": "4711"}]
    with pytest.raises(InvalidInput, match="Template not found") as caught:
        add_workflow(tx, steps, active=False)
    assert caught.value.path == ("body", "steps", 1, "template_id")


def test_a_faulty_template_is_accepted_in_a_draft_and_refused_on_activation(tx: Connection) -> None:
    template = catalogue.create(tx, NewTemplate(name="Bad", subject="x", html_body="{% if %}"), now=NOON)
    workflow_id = add_workflow(tx, [{"action": "send_email", "template_id": str(template.template_id)}], active=False)
    with pytest.raises(InvalidInput, match="The template is faulty") as caught:
        workflows.activate(tx, workflow_id, actor="u", now=NOON)
    assert caught.value.path == ("body", "steps", 0, "template_id")
    assert workflows.get(tx, workflow_id).active is False
    catalogue.revise(tx, template.template_id, TemplateChange(html_body="<p>Good</p>"), now=NOON)
    assert workflows.activate(tx, workflow_id, actor="u", now=NOON).active is True


def test_a_faulty_text_of_its_own_is_refused_at_once(tx: Connection) -> None:
    with pytest.raises(InvalidInput) as caught:
        add_workflow(tx, [{**MAIL, "body": "{{ x"}], active=False)
    assert caught.value.path == ("body", "steps", 0)


def test_an_event_trigger_needs_its_event_to_be_active(tx: Connection) -> None:
    workflow_id = add_workflow(tx, [], active=False, trigger_type="event")
    with pytest.raises(InvalidInput) as caught:
        workflows.activate(tx, workflow_id, actor="u", now=NOON)
    assert caught.value.path == ("body", "trigger_config", "event_type")


def test_a_workflow_can_be_switched_off_when_its_template_is_gone(tx: Connection) -> None:
    template_id = add_template(tx)
    workflow_id = add_workflow(tx, [{"action": "send_email", "template_id": str(template_id)}])
    tx.execute(text("delete from templates where template_id = :id"), {"id": template_id})
    assert workflows.deactivate(tx, workflow_id, actor="u", now=NOON).active is False


# --- entering by events -----------------------------------------------------------------------------------------


def take(tx: Connection, *events: tuple[int, datetime], now: datetime = NOON) -> workflows.EntryResult:
    return workflows.take_events(tx, [event for event, _ in events], [at for _, at in events], now=now)


def entries(tx: Connection) -> list[tuple[Any, ...]]:
    return rows(tx, "select workflow_id, contact_id, entry_key, status from enrollments order by enrollment_id")


def test_an_event_enrols_whoever_it_matches(tx: Connection) -> None:
    wanted = add_workflow(tx, [MAIL], trigger_type="event",
                          trigger_config={"event_type": "order_placed", "where": {"currency": "EUR", "total": 10}})
    add_workflow(tx, [MAIL], trigger_type="event", trigger_config={"event_type": "page_viewed"})
    add_workflow(tx, [MAIL], trigger_type="event", trigger_config={"event_type": "order_placed"}, active=False)
    add_workflow(tx, [MAIL], trigger_type="manual")
    one, other = make_contact(tx), make_contact(tx)
    right = {"currency": "EUR", "total": 10.0, "order_id": "A"}
    event = make_event(tx, one, "order_placed", NOON, properties=right)
    foreign = make_event(tx, other, "order_placed", NOON, properties={**right, "currency": "USD"})
    nobody = make_event(tx, 0, "order_placed", NOON, properties=right)
    assert take(tx, (event, NOON), (foreign, NOON), (nobody, NOON)).entered == 1
    assert entries(tx) == [(wanted, one, f"event:{event}", "running")]
    row = tx.execute(text("select context, entered_at, caused_at, resume_at, version from enrollments")).one()
    assert (row.context, row.entered_at, row.caused_at, row.resume_at, row.version) == (right, NOON, NOON, NOON, 1)
    told = rows(tx, "select event_name, data ->> 'workflow_id', data ->> 'contact_id' from outbox")
    assert told == [("workflow.triggered", str(wanted), str(one))]
    assert take(tx, (event, NOON)).entered == 0


def test_a_synonym_of_an_event_type_matches(tx: Connection) -> None:
    add_workflow(tx, [], trigger_type="event", trigger_config={"event_type": "page_visited"})
    event = make_event(tx, make_contact(tx), "page_viewed", NOON)
    assert take(tx, (event, NOON)).entered == 1


def test_signup_enrols_new_contacts_of_its_source_only(tx: Connection) -> None:
    shop = add_workflow(tx, [MAIL], trigger_type="signup", trigger_config={"source": "shop"})
    anyone = add_workflow(tx, [MAIL], trigger_type="signup")
    long_ago = NOON - timedelta(days=7, seconds=1)
    by_shop, by_api, known = make_contact(tx, source="shop"), make_contact(tx, source="api"), make_contact(tx)
    events = [(make_event(tx, by_shop, "contact_created", NOON, source="mauto"), NOON),
              (make_event(tx, by_api, "contact_created", NOON, source="mauto"), NOON),
              (make_event(tx, known, "contact_created", long_ago, source="mauto"), long_ago)]  # fmt: skip
    assert take(tx, *events).entered == 3
    found = {(workflow, contact) for workflow, contact, _, _ in entries(tx)}
    assert found == {(shop, by_shop), (anyone, by_shop), (anyone, by_api)}


@pytest.mark.parametrize(
    ("re_entry", "finished", "later", "entered"),
    [
        ({"policy": "always"}, False, HOUR, True),
        ({"policy": "once"}, True, HOUR, False),
        ({"policy": "after_exit"}, False, HOUR, False),
        ({"policy": "after_exit"}, True, HOUR, True),
        ({"policy": "cooldown", "cooldown_hours": 2}, True, HOUR, False),
        ({"policy": "cooldown", "cooldown_hours": 2}, False, 2 * HOUR, True),
        ({}, False, HOUR, False),
    ],
)
def test_re_entry(tx: Connection, re_entry: dict[str, Any], finished: bool, later: timedelta, entered: bool) -> None:
    add_workflow(tx, [MAIL], trigger_type="event", trigger_config={"event_type": "x"}, re_entry=re_entry)
    contact = make_contact(tx)
    take(tx, (make_event(tx, contact, "x", NOON), NOON))
    if finished:
        tx.execute(text("update enrollments set status = 'completed', finished_at = :at"), {"at": NOON})
    at = NOON + later
    result = take(tx, (make_event(tx, contact, "x", at), at), now=at)
    assert result.entered == int(entered)


@pytest.mark.parametrize(("policy", "count"), [("always", 3), ("once", 1), ("after_exit", 1)])
def test_re_entry_within_one_batch(tx: Connection, policy: str, count: int) -> None:
    add_workflow(tx, [], trigger_type="event", trigger_config={"event_type": "x"}, re_entry={"policy": policy})
    contact = make_contact(tx)
    moments = [NOON - HOUR, NOON - 3 * HOUR, NOON - 2 * HOUR]
    events = [(make_event(tx, contact, "x", at), at) for at in moments]
    assert take(tx, *events).entered == count
    assert (NOON - 3 * HOUR,) in rows(tx, "select caused_at from enrollments")


def test_exit_on_ends_what_began_before(tx: Connection) -> None:
    add_workflow(tx, [MAIL], trigger_type="event", trigger_config={"event_type": "checkout_started"},
                 exit_on=["order_placed", "opened"])
    buyer, browser, earlier = (make_contact(tx) for _ in range(3))
    begun = [(make_event(tx, who, "checkout_started", NOON), NOON) for who in (buyer, browser, earlier)]
    bought = NOON + timedelta(seconds=3)
    before = NOON - HOUR
    orders = [(make_event(tx, buyer, "order_placed", bought), bought),
              (make_event(tx, earlier, "order_placed", before), before)]  # fmt: skip
    result = take(tx, *begun, *orders, now=NOON + timedelta(seconds=5))
    assert (result.entered, result.exited) == (3, 1)
    found = rows(tx, "select contact_id, status, exit_reason, finished_at is null from enrollments order by contact_id")
    assert found == [(buyer, "exited", "order_placed", False), (browser, "running", None, True),
                     (earlier, "running", None, True)]  # fmt: skip
    opened = (make_event(tx, browser, "email_opened", bought, source="mauto"), bought)
    assert take(tx, opened, now=NOON + HOUR).exited == 1


# --- moving -----------------------------------------------------------------------------------------------------


def commit_contacts(engine: Engine, count: int, **fields: Any) -> list[int]:
    with engine.begin() as tx:
        return [make_contact(tx, **fields) for _ in range(count)]


def enrolled(engine: Engine, steps: Sequence[Any], contacts: Sequence[int], **fields: Any) -> int:
    with engine.begin() as tx:
        workflow_id = add_workflow(tx, steps, **fields)
        for contact in contacts:
            enter(tx, workflow_id, contact)
    return workflow_id


def test_the_welcome_series_from_sign_up_to_its_end(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        welcome, second = add_template(tx), add_template(tx, "Second", "Still there?")
        series = welcome_series(welcome, second, delay_hours=72)
        workflow_id = workflows.create(tx, series, actor="u", now=NOON).workflow_id
        contact = make_contact(tx, email="ann@shop.example", created_at=NOON)
        event = make_event(tx, contact, "contact_created", NOON, source="mauto")
        assert take(tx, (event, NOON)).entered == 1
        assert workflows.next_due(tx) == NOON
    first = workflows.advance(fresh_engine, settings, now=NOON)
    assert (first.moved, first.messages, first.waiting, first.completed) == (1, 1, 1, 0)
    with fresh_engine.begin() as tx:
        assert workflows.next_due(tx) == NOON + 72 * HOUR
        message = tx.execute(text("select * from messages")).one()
        enrollment = tx.execute(text("select * from enrollments")).one()
        assert (enrollment.status, enrollment.step_path) == ("waiting", "1")
        result = tx.scalar(text("select result from workflow_logs where step_path = '1'"))
    assert result == {"step": 1, "type": "delay", "path": "1", "hours": 72, "noted": True,
                      "resume_at": "2026-11-25T12:00:00Z"}  # fmt: skip
    assert (message.kind, message.status, message.contact_id) == ("workflow", "queued", contact)
    assert message.dedupe_key == f"enrollment:{enrollment.enrollment_id}:step:0:visit:1"
    assert (message.workflow_id, message.enrollment_id) == (workflow_id, enrollment.enrollment_id)
    assert (message.due_at, message.give_up_at) == (NOON, NOON + timedelta(hours=72))
    assert workflows.advance(fresh_engine, settings, now=NOON + 72 * HOUR - timedelta(seconds=1)).moved == 0
    last = workflows.advance(fresh_engine, settings, now=NOON + 72 * HOUR)
    assert (last.moved, last.messages, last.waiting, last.completed) == (1, 1, 0, 1)
    with fresh_engine.begin() as tx:
        assert workflows.next_due(tx) is None
        assert logs(tx) == [(contact, path, "completed") for path in "0123"]
        subjects = rows(tx, "select subject from messages inner join message_contents using (content_id)"
                            " order by message_id")
        assert subjects == [("Welcome!",), ("Still there?",)]
        assert rows(tx, "select name from contact_tags inner join tags using (tag_id)") == [("welcomed",)]
        finished = tx.execute(text("select status, finished_at, resume_at from enrollments")).one()
        assert tuple(finished) == ("completed", NOON + 72 * HOUR, None)
        told = rows(tx, "select event_name from outbox where event_name like 'workflow.%' order by outbox_id")
        assert told == [("workflow.triggered",), ("workflow.completed",)]
        shown = tx.scalar(text("select result from workflow_logs where step_path = '0'"))
    assert shown == {"step": 0, "type": "action", "path": "0", "action": "send_email", "success": True,
                     "template_id": str(welcome), "to": "ann@shop.example", "queued": True,
                     "message_id": str(message.message_id)}  # fmt: skip


def test_people_who_may_not_be_mailed_pass_with_the_reason(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        fine = make_contact(tx)
        gone = make_contact(tx, subscribed=False)
        pending = make_contact(tx, consent_status="pending")
        bounced = make_contact(tx, email="bounced@shop.example")
        make_suppression(tx, "bounced@shop.example")
        long = make_contact(tx, email="a@" + "b" * 260 + ".example")
    people = [fine, gone, pending, bounced, long, 987654]
    enrolled(fresh_engine, [MAIL, {"action": "tag", "tag_name": "seen"}], people)
    result = workflows.advance(fresh_engine, settings, now=NOON)
    assert (result.moved, result.messages, result.failed_steps, result.completed) == (6, 1, 6, 6)
    with fresh_engine.begin() as tx:
        errors = dict(rows(tx, "select contact_id, result ->> 'error' from workflow_logs where step_path = '0'"))
        assert errors == {fine: None, gone: "unsubscribed", pending: "no_consent", bounced: "suppressed",
                          long: "invalid_address", 987654: "Unknown action or no contact"}  # fmt: skip
        assert rows(tx, "select contact_id from messages") == [(fine,)]
        tagged = rows(tx, "select contact_id from contact_tags order by contact_id")
        assert tagged == [(contact,) for contact in sorted(people[:-1])]


def test_where_consent_is_required_unknown_is_not_enough(fresh_engine: Engine, settings: Settings) -> None:
    granted = commit_contacts(fresh_engine, 1, consent_status="granted")
    unknown = commit_contacts(fresh_engine, 1)
    enrolled(fresh_engine, [MAIL], granted + unknown)
    workflows.advance(fresh_engine, dataclasses.replace(settings, require_consent=True), now=NOON)
    with fresh_engine.begin() as tx:
        assert rows(tx, "select contact_id from messages") == [(granted[0],)]
        assert rows(tx, "select result ->> 'error' from workflow_logs where status = 'failed'") == [("no_consent",)]


def test_content_is_the_templates_version_at_entry_and_shared(fresh_engine: Engine, settings: Settings) -> None:
    early, late = commit_contacts(fresh_engine, 3), commit_contacts(fresh_engine, 2)
    with fresh_engine.begin() as tx:
        template_id = add_template(tx, subject="Old")
        step = {"action": "send_email", "template_id": str(template_id)}
        workflow_id = add_workflow(tx, [{"type": "delay", "hours": 2}, step])
        for contact in early:
            enter(tx, workflow_id, contact, at=NOON)
        catalogue.revise(tx, template_id, TemplateChange(subject="New"), now=NOON + HOUR)
        for contact in late:
            enter(tx, workflow_id, contact, at=NOON + HOUR)
    workflows.advance(fresh_engine, settings, now=NOON + HOUR)
    assert workflows.advance(fresh_engine, settings, now=NOON + 4 * HOUR, batch_size=2).messages == 5
    with fresh_engine.begin() as tx:
        found = rows(tx, "select subject, template_version, count(*) from messages"
                         " inner join message_contents using (content_id) group by 1, 2 order by 2")
        assert found == [("Old", 1, 3), ("New", 2, 2)]
        assert rows(tx, "select count(*) from message_contents") == [(2,)]
        assert rows(tx, "select distinct position, url from message_links") == [(0, "https://shop.example/a")]


def test_a_workflow_mail_shows_contact_and_event(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        html = '<p>{{ contact.first_name }}, {{ event.total }} {{ event.currency }}</p><a href="https://shop.example">S</a>'
        steps = [{"action": "send_email", "subject": "Order {{ event.order_id }}", "body": html}]
        add_workflow(tx, steps, trigger_type="event", trigger_config={"event_type": "order_placed"})
        contact = make_contact(tx, email="ann@shop.example", first_name="Ann")
        order = {"order_id": "A-7", "total": 12.5, "currency": "EUR"}
        take(tx, (make_event(tx, contact, "order_placed", NOON, properties=order), NOON))
    workflows.advance(fresh_engine, settings, now=NOON)
    with fresh_engine.begin() as tx:
        message = tx.execute(text("select * from messages")).one()
        frozen = content.load(tx, message.content_id)
    assert (frozen.from_email, frozen.links) == ("news@shop.example", ("https://shop.example",))
    claimed = Claimed(
        message_id=message.message_id, contact_id=contact, attempt_id=1, attempt_no=1, kind=Kind.WORKFLOW,
        campaign_id=None, workflow_id=message.workflow_id, content_id=message.content_id,
        to_email="ann@shop.example", rfc_message_id="x@shop.example", context=message.context,
        contact={"first_name": "Ann"},
    )  # fmt: skip
    blueprint = Blueprint(frozen, settings=settings, signer=LinkSigner.from_settings(settings))
    mail = message_from_bytes(blueprint.write(claimed, NOON).data, policy=policy.default)
    body = mail.get_body(("html",)).get_content()
    assert mail["Subject"] == "Order A-7"
    assert "Ann, 12.5 EUR" in body
    assert "/track/click/" in body
    assert "https://shop.example\"" not in body
    assert "/track/unsubscribe/" in mail["List-Unsubscribe"]


@pytest.mark.parametrize("name", ["confirm_url", "campaign.name"])
def test_a_name_a_workflow_does_not_give_is_refused(tx: Connection, name: str) -> None:
    html = f"<p>{{{{ {name} }}}}</p>"
    with pytest.raises(InvalidInput, match=f"Undefined variable: {name}"):
        add_workflow(tx, [{**MAIL, "body": html}], active=False)
    template = catalogue.create(tx, NewTemplate(name="T", subject="x", html_body=html), now=NOON)
    steps = [{"action": "send_email", "template_id": str(template.template_id)}]
    with pytest.raises(InvalidInput, match=f"Undefined variable: {name}"):
        add_workflow(tx, steps, active=True)


def test_a_template_that_turned_faulty_mails_nobody(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        template_id = add_template(tx)
        workflow_id = add_workflow(tx, [{"action": "send_email", "template_id": str(template_id)}])
        catalogue.revise(tx, template_id, TemplateChange(html_body="{% if %}"), now=NOON)
        enter(tx, workflow_id, make_contact(tx), at=NOON + HOUR)
    result = workflows.advance(fresh_engine, settings, now=NOON + HOUR)
    assert (result.messages, result.failed_steps, result.completed) == (0, 1, 1)
    with fresh_engine.begin() as tx:
        assert "syntax" in rows(tx, "select result ->> 'error' from workflow_logs")[0][0]


def test_enrollments_stay_on_their_version(fresh_engine: Engine, settings: Settings) -> None:
    before, after = commit_contacts(fresh_engine, 1), commit_contacts(fresh_engine, 1)
    workflow_id = enrolled(fresh_engine, [{"action": "tag", "tag_name": "one"}], before)
    with fresh_engine.begin() as tx:
        workflows.update(tx, workflow_id, {"steps": [{"action": "tag", "tag_name": "two"}]}, actor="u", now=NOON)
        enter(tx, workflow_id, after[0], version=2)
        workflows.deactivate(tx, workflow_id, actor="u", now=NOON)
    assert workflows.advance(fresh_engine, settings, now=NOON).completed == 2
    with fresh_engine.begin() as tx:
        found = rows(tx, "select contact_id, name from contact_tags inner join tags using (tag_id) order by 2")
    assert found == [(before[0], "one"), (after[0], "two")]


def test_a_condition_splits_the_group(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        german = make_contact(tx, country="DE", custom_fields={"size": "XL"})
        french = make_contact(tx, country="FR", custom_fields={"size": 44})
        blank = make_contact(tx)
        make_tag(tx, "VIP", [french])
    steps = [
        {"type": "condition", "field": "country", "operator": "in", "value": ["de", "at"],
         "then": [{"action": "tag", "tag_name": "dach"}], "else": [{"action": "tag", "tag_name": "other"}]},
        {"type": "condition", "field": "tags", "value": "vip", "then": [{"action": "tag", "tag_name": "vip2"}]},
        {"type": "condition", "field": "custom_fields.size", "operator": "gt", "value": 40},
        {"action": "tag", "tag_name": "big"},
        {"type": "exit"},
    ]  # fmt: skip
    enrolled(fresh_engine, steps, [german, french, blank])
    result = workflows.advance(fresh_engine, settings, now=NOON)
    assert (result.exited, result.completed) == (3, 0)
    with fresh_engine.begin() as tx:
        tags = rows(tx, "select contact_id, array_agg(name order by name) from contact_tags inner join tags"
                        " using (tag_id) group by 1 order by 1")
        assert tags == [(german, ["dach"]), (french, ["VIP", "big", "other", "vip2"]), (blank, ["other"])]
        assert logs(tx)[:5] == [(german, path, status) for path, status in [
            ("0", "completed"), ("0.then.0", "completed"), ("1", "completed"), ("2", "completed"),
            ("3", "skipped")]]  # fmt: skip
        assert (german, "4", "skipped") in logs(tx)
        reasons = rows(tx, "select contact_id, status, exit_reason from enrollments order by contact_id")
        assert reasons == [(german, "exited", "condition not met"), (french, "exited", "exit step"),
                           (blank, "exited", "condition not met")]  # fmt: skip


def test_a_workflow_without_steps_is_over_at_once(fresh_engine: Engine, settings: Settings) -> None:
    enrolled(fresh_engine, [], commit_contacts(fresh_engine, 1))
    assert workflows.advance(fresh_engine, settings, now=NOON).completed == 1


def test_a_dry_run_says_who_would_move_and_writes_nothing(fresh_engine: Engine, settings: Settings) -> None:
    workflow_id = enrolled(fresh_engine, [MAIL], commit_contacts(fresh_engine, 3))
    enrolled(fresh_engine, [MAIL], commit_contacts(fresh_engine, 2))
    dry = workflows.advance(fresh_engine, settings, now=NOON, workflow_id=workflow_id, dry_run=True)
    assert (dry.moved, dry.messages) == (3, 0)
    assert [(due.workflow_id, due.version, due.step_path, due.count) for due in dry.due] == [(workflow_id, 1, "0", 3)]
    with fresh_engine.begin() as tx:
        assert logs(tx) == []
        assert rows(tx, "select count(*) from enrollments where status = 'running'") == [(5,)]
    assert workflows.advance(fresh_engine, settings, now=NOON, workflow_id=workflow_id).moved == 3
    assert workflows.advance(fresh_engine, settings, now=NOON).moved == 2


def test_paused_enrollments_and_later_ones_stay(fresh_engine: Engine, settings: Settings) -> None:
    enrolled(fresh_engine, [MAIL], commit_contacts(fresh_engine, 2))
    with fresh_engine.begin() as tx:
        tx.execute(text("update enrollments set status = 'paused' where enrollment_id = 1"))
        tx.execute(text("update enrollments set resume_at = :at where enrollment_id = 2"), {"at": NOON + HOUR})
    assert workflows.advance(fresh_engine, settings, now=NOON).moved == 0


def test_a_failure_undoes_the_batch_and_loses_nothing(fresh_engine: Engine, settings: Settings) -> None:
    people = commit_contacts(fresh_engine, 5)
    enrolled(fresh_engine, [{"action": "tag", "tag_name": "a"}, MAIL], people)
    with fresh_engine.begin() as tx:
        tx.execute(text("alter table messages add constraint broken check (contact_id <> :id)".replace(
            ":id", str(people[3]))))  # fmt: skip
    with pytest.raises(Exception, match="broken"):
        workflows.advance(fresh_engine, settings, now=NOON, batch_size=2)
    with fresh_engine.begin() as tx:
        half = rows(tx, "select count(*) from messages")[0][0]
        assert half == 2
        assert rows(tx, "select count(*) from contact_tags") == [(2,)]
        assert rows(tx, "select count(*) from enrollments where status = 'running'") == [(3,)]
        tx.execute(text("alter table messages drop constraint broken"))
    assert workflows.advance(fresh_engine, settings, now=NOON).moved == 3
    with fresh_engine.begin() as tx:
        assert rows(tx, "select contact_id, count(*) from messages group by 1 order by 1") == [(p, 1) for p in people]
        assert rows(tx, "select count(*) from workflow_logs") == [(10,)]


def test_workers_in_parallel_move_everybody_once(fresh_engine: Engine, settings: Settings) -> None:
    people = commit_contacts(fresh_engine, 120)
    enrolled(fresh_engine, [MAIL, {"action": "tag", "tag_name": "seen"}, {"type": "delay", "minutes": 5}], people)
    results: list[workflows.AdvanceResult] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(workflows.advance(fresh_engine, settings, now=NOON, batch_size=10))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.moved for result in results) == 120
    with fresh_engine.begin() as tx:
        assert rows(tx, "select count(*), count(distinct contact_id) from messages") == [(120, 120)]
        assert rows(tx, "select step_path, count(*) from workflow_logs group by 1 order by 1") == [
            ("0", 120), ("1", 120), ("2", 120)]  # fmt: skip
        assert rows(tx, "select count(*) from tags") == [(1,)]
        assert rows(tx, "select count(*) from message_contents") == [(1,)]


# --- by hand ----------------------------------------------------------------------------------------------------


def test_trigger_runs_up_to_the_first_wait_and_tells_the_results(tx: Connection, settings: Settings) -> None:
    steps = [
        {"type": "condition", "field": "coupon", "value": "X1", "then": [{"action": "tag", "tag_name": "coupon"}]},
        {"type": "delay", "hours": 1}, {"type": "exit"},
    ]  # fmt: skip
    workflow_id = add_workflow(tx, steps, active=False, re_entry={"policy": "once"})
    contact = make_contact(tx)
    for _ in range(2):
        done = workflows.trigger(tx, settings, workflow_id, contact_id=contact, context={"coupon": "x1"}, now=NOON)
    assert done.enrollment.status == "waiting"
    assert done.enrollment.resume_at == NOON + HOUR
    assert [(result["path"], result["step"]) for result in done.results] == [("0", 0), ("0.then.0", 0), ("1", 1)]
    assert done.results[0]["passed"] is True
    assert rows(tx, "select count(*) from enrollments") == [(2,)]
    told = rows(tx, "select count(*) from outbox where event_name = 'workflow.triggered'")
    assert told == [(2,)]


def test_trigger_without_a_contact_fails_only_what_needs_one(tx: Connection, settings: Settings) -> None:
    workflow_id = add_workflow(tx, [MAIL, {"action": "tag", "tag_name": "x"}, {"type": "exit", "reason": "done"}])
    done = workflows.trigger(tx, settings, workflow_id, contact_id=None, now=NOON)
    assert [result.get("error") for result in done.results] == ["Unknown action or no contact"] * 2 + [None]
    assert (done.enrollment.status, done.enrollment.exit_reason) == ("exited", "done")


def test_trigger_needs_workflow_and_contact_to_exist(tx: Connection, settings: Settings) -> None:
    workflow_id = add_workflow(tx, [])
    with pytest.raises(NotFound, match="Contact not found"):
        workflows.trigger(tx, settings, workflow_id, contact_id=99999, now=NOON)
    with pytest.raises(NotFound, match="Workflow not found"):
        workflows.trigger(tx, settings, 99999, contact_id=None, now=NOON)
    assert rows(tx, "select count(*) from enrollments") == [(0,)]
