"""A campaign's life before the first byte: kept, refused with every problem, planned once, written correctly."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import segments
from mautolib.campaigns import control, finishing, launch, planning, store
from mautolib.campaigns.model import TRANSITIONS, Campaign, Status, check_transition
from mautolib.campaigns.readiness import problems
from mautolib.campaigns.totals import refresh_totals, totals_of
from mautolib.channels.null import Null
from mautolib.errors import Conflict, InvalidInput, InvalidTransition, NotFound
from mautolib.events.links import LinkSigner, Purpose
from mautolib.segments import NewSegment
from mautolib.segments.rules import Definition
from mautolib.settings import Settings
from mautolib.templates import catalogue
from mautolib.templates.model import NewTemplate
from tests.integration.mailing import NOW, add_campaign, add_contacts, launched, rows, run_pump, states


def paths(tx: Connection, settings: Settings, campaign: Campaign) -> set[str]:
    return {str(problem.path[0] if problem.path[0] != "settings" else problem.path[1])
            for problem in problems(tx, settings, campaign)}  # fmt: skip


# --- keeping ---


def test_a_campaign_is_kept_changed_and_listed(tx: Connection) -> None:
    first, second = add_campaign(tx), add_campaign(tx, name="Second", utm={"source": "news"})
    assert store.get(tx, second.campaign_id) == second and second.utm == {"source": "news"}
    assert (first.status, first.version, first.created_by) == (Status.DRAFT, 1, "test")
    changed = store.change(tx, first.campaign_id, {"subject": "New", "name": "First"}, now=NOW)
    assert (changed.subject, changed.version, changed.updated_at) == ("New", 2, NOW)
    assert store.change(tx, first.campaign_id, {"subject": "New"}, now=NOW).version == 2, "the same is no change"
    found = store.list_campaigns(tx, limit=2)
    assert [c.campaign_id for c in found] == [second.campaign_id, first.campaign_id]
    assert [c.campaign_id for c in store.list_campaigns(tx, before=second.campaign_id, limit=1)] == [first.campaign_id]
    assert store.count(tx, status=Status.DRAFT) >= 2 and store.list_campaigns(tx, status=Status.FAILED) == []
    store.remove(tx, first.campaign_id)
    with pytest.raises(NotFound, match="Campaign not found"):
        store.get(tx, first.campaign_id)


def test_what_a_campaign_refers_to_exists(tx: Connection) -> None:
    with pytest.raises(InvalidInput, match="Template not found"):
        add_campaign(tx, template_id=10**12)
    with pytest.raises(InvalidInput, match="Segment not found"):
        store.change(tx, add_campaign(tx).campaign_id, {"segment_id": 10**12}, now=NOW)


def test_a_campaign_under_way_keeps_its_text(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 1)
    with fresh_engine.begin() as tx:
        assert store.change(tx, campaign_id, {"name": "Renamed"}, now=NOW).name == "Renamed"
        with pytest.raises(Conflict) as caught:
            store.change(tx, campaign_id, {"subject": "Other"}, now=NOW)
        assert caught.value.code == "not_editable"
        with pytest.raises(Conflict, match="Cannot delete a campaign that is currently sending"):
            store.remove(tx, campaign_id)
        control.pause(tx, campaign_id, now=NOW)
        with pytest.raises(Conflict):
            store.remove(tx, campaign_id)


# --- states ---

VERBS = {
    "send": lambda tx, settings, c: launch.request_send(tx, settings, c, now=NOW),
    "schedule": lambda tx, settings, c: launch.schedule(tx, settings, c, at=NOW + timedelta(hours=1), now=NOW),
    "pause": lambda tx, settings, c: control.pause(tx, c, now=NOW),
    "resume": lambda tx, settings, c: control.resume(tx, c, now=NOW),
    "cancel": lambda tx, settings, c: control.cancel(tx, c, now=NOW),
}
ALLOWED = {
    ("draft", "send"): "sending", ("draft", "schedule"): "scheduled", ("scheduled", "send"): "sending",
    ("scheduled", "pause"): "paused", ("scheduled", "cancel"): "cancelled",
    ("sending", "pause"): "paused", ("sending", "cancel"): "cancelled", ("paused", "resume"): "sending",
    ("paused", "cancel"): "cancelled",
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", list(Status))
def test_every_verb_in_every_state(tx: Connection, settings: Settings, status: Status, verb: str) -> None:
    campaign = add_campaign(tx)
    tx.execute(
        text("""update campaigns set status = :status, requested_at = :now, planned_at = :planned,
             sent_at = case when :status = 'sent' then cast(:now as timestamptz) end, status_reason = 'x'
             where campaign_id = :id"""),
        {"status": status.value, "now": NOW, "id": campaign.campaign_id,
         "planned": None if status in (Status.DRAFT, Status.SCHEDULED) else NOW},
    )  # fmt: skip
    wanted = ALLOWED.get((status.value, verb))
    if wanted is None:
        with pytest.raises(InvalidTransition, match=f"Cannot {verb} campaign in '{status.value}' status"):
            VERBS[verb](tx, settings, campaign.campaign_id)
    else:
        assert VERBS[verb](tx, settings, campaign.campaign_id).status.value == wanted


def test_a_scheduled_campaign_that_was_paused_waits_again(tx: Connection, settings: Settings) -> None:
    campaign = add_campaign(tx)
    launch.schedule(tx, settings, campaign.campaign_id, at=NOW + timedelta(hours=1), now=NOW)
    control.pause(tx, campaign.campaign_id, now=NOW)
    assert control.resume(tx, campaign.campaign_id, now=NOW).status is Status.SCHEDULED


def test_a_campaign_is_scheduled_ahead_only(tx: Connection, settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="future"):
        launch.schedule(tx, settings, add_campaign(tx).campaign_id, at=NOW, now=NOW)


def test_the_arrows_are_those_of_the_table() -> None:
    for current in Status:
        for target in Status:
            if target in TRANSITIONS[current]:
                check_transition(current, target, "move")
            else:
                with pytest.raises(InvalidTransition):
                    check_transition(current, target, "move")


# --- readiness ---


def test_every_problem_is_listed_at_once(tx: Connection, settings: Settings) -> None:
    broken = replace(settings, postal_address="", default_from_email="", public_base_url="http://shop.example")
    campaign = add_campaign(
        tx, subject=" ", html_body="<p>{{ contact.frist_name }} {{ nobody }}{% if %}</p>", reply_to="not an address",
        max_per_hour=100, send_window={"start": "09:00", "end": "09:00"}, locales={"de": {}},
    )  # fmt: skip
    assert paths(tx, broken, campaign) == {
        "subject", "html_body", "reply_to", "from_email", "postal_address", "public_base_url", "send_window",
        "locales",
    }  # fmt: skip
    with pytest.raises(InvalidInput) as caught:
        launch.request_send(tx, broken, campaign.campaign_id, now=NOW)
    assert caught.value.code == "not_sendable" and len(caught.value.problems) == 9
    for word in ("MAUTO_POSTAL_ADDRESS", "MAUTO_DEFAULT_FROM_EMAIL", "MAUTO_PUBLIC_BASE_URL", "no subject"):
        assert word in str(caught.value)
    assert store.get(tx, campaign.campaign_id).status is Status.DRAFT


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"html_body": ""}, "no HTML body"),
        ({"html_body": "<p>{{ contact.frist_name }}</p>"}, "Undefined variable: contact.frist_name"),
        ({"html_body": "<p>{{ confirm_url }}</p>"}, "Undefined variable: confirm_url"),
        ({"html_body": "<p>{{ event.cart }}</p>"}, "Undefined variable: event.cart"),
        ({"subject": "{{ contact.nick }}"}, "Undefined variable: contact.nick"),
        ({"html_body": "<p>{{ contact.first_name | nofilter }}</p>"}, "nofilter"),
        ({"html_body": "<p>{% if contact.first_name %}</p>"}, "Template syntax error"),
        ({"preheader": "{{ broken"}, "Template syntax error"),
        ({"from_email": "news@"}, "from_email is not an address"),
        ({"from_email": "a@b.example\r\nBcc: x@y.example"}, "from_email is not an address"),
        ({"send_window": {"start": "09:00", "end": "09:00"}}, "The window never opens"),
        ({"send_window": {"weekdays": []}}, "The window never opens"),
        ({"send_window": {"start": "10:00", "end": "12:00", "quiet_start": "09:00", "quiet_end": "12:00"}},
         "never opens"),
        ({"send_window": {"quiet_start": "22:00"}}, "Quiet hours have a start and an end"),
        ({"send_window": {"quiet_start": "22:00", "quiet_end": "22:00"}}, "begin and end at the same time"),
    ],
)  # fmt: skip
def test_each_fault_is_found_before_launch(
    tx: Connection, settings: Settings, changes: dict[str, Any], said: str
) -> None:
    found = problems(tx, settings, add_campaign(tx, **changes))
    assert len(found) == 1 and said in found[0].message


@pytest.mark.parametrize(
    ("environment", "url", "is_good"),
    [
        ("production", "https://mail.shop.example", True), ("production", "http://mail.shop.example", False),
        ("production", "http://127.0.0.1:8000", False), ("development", "http://127.0.0.1:8000", True),
        ("development", "http://localhost:8000", True), ("development", "http://[::1]:8000", True),
        ("development", "http://mail.shop.example", False), ("development", "https://x.example", True),
        ("development", "http://127.0.0.1.evil.example", False),
        ("development", "http://127.0.0.1@evil.example", False),
        ("production", "", False), ("production", "ftp://x.example", False),
    ],
)  # fmt: skip
def test_links_are_https_except_on_this_machine(
    tx: Connection, settings: Settings, environment: str, url: str, is_good: bool
) -> None:
    changed = replace(settings, environment=environment, public_base_url=url)
    assert paths(tx, changed, add_campaign(tx)) == (set() if is_good else {"public_base_url"})


def test_a_segment_that_is_gone_is_found_before_launch(tx: Connection, settings: Settings) -> None:
    segment = segments.create(tx, settings, NewSegment(name="s", definition=Definition()), now=NOW)
    campaign = add_campaign(tx, segment_id=segment.segment_id)
    assert paths(tx, settings, campaign) == set()
    tx.execute(text("delete from segments"))
    assert paths(tx, settings, campaign) == {"segment_id"}


def test_a_campaign_goes_to_exactly_the_members_of_its_segment_at_launch(
    fresh_engine: Engine, settings: Settings
) -> None:
    rule = {"field": "country", "operator": "eq", "value": "PT"}
    definition = Definition(rules=(rule,), exclude_suppressed=True)
    with fresh_engine.begin() as tx:
        inside, moved_in, moved_out, added, kept_out, suppressed, opted_out, _ = add_contacts(tx, 8)
        tx.execute(
            text("update contacts set country = 'PT' where contact_id = any(:ids)"),
            {"ids": [inside, moved_out, kept_out, suppressed, opted_out]},
        )
        segment = segments.create(tx, settings, NewSegment(name="s", definition=definition), now=NOW).segment_id
        segments.add_contact(tx, settings, segment, added, now=NOW)
        segments.remove_contact(tx, settings, segment, kept_out, exclude=True, now=NOW)
        campaign = add_campaign(tx, segment_id=segment)
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
        # All this is after the last evaluation.
        for change, contact in (
            ("update contacts set country = 'PT' where contact_id = :id", moved_in),
            ("update contacts set country = 'ES' where contact_id = :id", moved_out),
            ("update contacts set subscribed = false where contact_id = :id", opted_out),
            ("insert into suppressions (email_key, reason) select email_key, 'manual' from contacts "
             "where contact_id = :id", suppressed),
        ):  # fmt: skip
            tx.execute(text(change), {"id": contact})
    (would,) = planning.count_due(fresh_engine, settings, NOW)
    assert (would.candidates, would.mailable) == (4, 3)
    (plan,) = planning.plan_due(fresh_engine, settings, NOW)
    assert (plan.queued, plan.skipped, plan.problem) == (3, 1, None)
    found = rows(fresh_engine, "select contact_id, status, reason from messages order by contact_id")
    assert {(row.contact_id, row.status, row.reason) for row in found} == {
        (inside, "queued", None), (moved_in, "queued", None), (added, "queued", None),
        (opted_out, "skipped", "unsubscribed"),
    }  # fmt: skip
    run_pump(fresh_engine, settings)
    sent = rows(fresh_engine, "select contact_id from messages where status = 'sent'")
    assert {row.contact_id for row in sent} == {inside, moved_in, added}


def test_a_segment_without_members_is_a_campaign_to_nobody(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 2)
        segment = segments.create(tx, settings, NewSegment(name="s", definition=Definition()), now=NOW).segment_id
        launch.request_send(tx, settings, add_campaign(tx, segment_id=segment).campaign_id, now=NOW)
    (plan,) = planning.plan_due(fresh_engine, settings, NOW)
    assert (plan.queued, plan.skipped, plan.problem) == (0, 0, None)


# --- planning ---


def test_who_may_not_be_mailed_is_a_skipped_row(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 6)
        for change in (
            "update contacts set subscribed = false where first_name = 'Ann1'",
            "update contacts set consent_status = 'pending' where first_name = 'Ann2'",
            "insert into suppressions (email_key, reason) values ('person3@mail.example', 'complaint')",
            "update contacts set email = repeat('x', 300) || '@mail.example' where first_name = 'Ann4'",
            "insert into suppressions (email_key, reason) values ('person5@mail.example', 'unsubscribe')",
        ):
            tx.execute(text(change))
        campaign = add_campaign(tx)
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    (would,) = planning.count_due(fresh_engine, settings, NOW)
    assert (would.candidates, would.mailable) == (6, 1)
    (plan,) = planning.plan_due(fresh_engine, settings, NOW)
    assert (plan.queued, plan.skipped) == (1, 5)
    assert states(fresh_engine, campaign.campaign_id) == {
        "queued": 1, "skipped unsubscribed": 2, "skipped no_consent": 1, "skipped suppressed": 1,
        "skipped invalid_address": 1,
    }  # fmt: skip
    with fresh_engine.connect() as tx:
        totals = totals_of(tx, [campaign.campaign_id])[campaign.campaign_id]
    assert (totals.recipients, totals.skipped) == (6, 5)


def test_consent_may_be_required(fresh_engine: Engine, settings: Settings) -> None:
    strict = replace(settings, require_consent=True)
    with fresh_engine.begin() as tx:
        add_contacts(tx, 3)
        tx.execute(text("update contacts set consent_status = 'granted' where first_name <> 'Ann1'"))
    campaign_id = launched(fresh_engine, strict, 0)
    assert states(fresh_engine, campaign_id) == {"queued": 2, "skipped no_consent": 1}
    with fresh_engine.begin() as tx:
        tx.execute(text("update contacts set consent_status = 'unknown' where first_name = 'Ann2'"))
    run_pump(fresh_engine, strict)
    assert states(fresh_engine, campaign_id) == {"sent": 1, "skipped no_consent": 2}


def test_planning_twice_changes_nothing(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    assert planning.plan_due(fresh_engine, settings, NOW) == []
    with fresh_engine.begin() as tx:
        campaign = store.get(tx, campaign_id)
    assert (campaign.occurrence, campaign.planned_at, campaign.started_at) == (1, NOW, NOW)
    keys = [row.dedupe_key for row in rows(fresh_engine, "select dedupe_key from message_keys order by message_id")]
    contacts = [row.contact_id for row in rows(fresh_engine, "select contact_id from contacts order by 1")]
    assert keys == [f"campaign:{campaign_id}:occ:1:contact:{contact}" for contact in contacts]


def test_a_scheduled_campaign_starts_when_it_is_due(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 1)
        campaign = add_campaign(tx)
        launch.schedule(tx, settings, campaign.campaign_id, at=NOW + timedelta(hours=1), now=NOW)
    assert planning.plan_due(fresh_engine, settings, NOW + timedelta(minutes=59)) == []
    (plan,) = planning.plan_due(fresh_engine, settings, NOW + timedelta(minutes=61))
    assert plan.queued == 1
    (row,) = rows(fresh_engine, "select due_at, give_up_at from messages")
    assert (row.due_at, row.give_up_at) == (NOW + timedelta(hours=1), NOW + timedelta(hours=25))


def test_a_scheduled_campaign_that_became_impossible_says_why(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        campaign = add_campaign(tx)
        launch.schedule(tx, settings, campaign.campaign_id, at=NOW + timedelta(hours=1), now=NOW)
    (plan,) = planning.plan_due(fresh_engine, replace(settings, postal_address=""), NOW + timedelta(hours=2))
    assert plan.problem is not None and "MAUTO_POSTAL_ADDRESS" in plan.problem
    with fresh_engine.connect() as tx:
        failed = store.get(tx, campaign.campaign_id)
    assert failed.status is Status.FAILED and "MAUTO_POSTAL_ADDRESS" in (failed.status_reason or "")


def test_a_campaign_to_nobody_is_sent_at_once(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 0)
    assert finishing.finish(fresh_engine, NOW) == [campaign_id]


def test_a_campaign_of_its_own_time_only_is_planned(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        first, second = add_campaign(tx), add_campaign(tx)
        for campaign in (first, second):
            launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    (plan,) = planning.plan_due(fresh_engine, settings, NOW, campaign_id=second.campaign_id)
    assert plan.campaign_id == second.campaign_id


def test_a_doubt_settled_as_not_sent_reopens_its_campaign(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 1)
    run_pump(fresh_engine, settings)
    finishing.finish(fresh_engine, NOW)
    with fresh_engine.begin() as tx:
        tx.execute(text("update messages set status = 'queued', sent_at = null"))
    assert finishing.finish(fresh_engine, NOW) == []
    with fresh_engine.connect() as tx:
        assert store.get(tx, campaign_id).status is Status.SENDING


def test_totals_are_counted_not_added(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 4)
    run_pump(fresh_engine, settings)
    with fresh_engine.begin() as tx:
        tx.execute(text("update campaign_totals set sent = 999, skipped = 999"))
        for _ in range(2):
            refresh_totals(tx, campaign_id, NOW + timedelta(minutes=1))
        totals = totals_of(tx, [campaign_id])[campaign_id]
    assert (totals.recipients, totals.sent, totals.skipped, totals.in_flight) == (4, 4, 0, 0)


# --- writing ---


def received(engine: Engine, settings: Settings, count: int = 1, **changes: Any) -> list[EmailMessage]:
    launched(engine, settings, count, **changes)
    channel = Null()
    run_pump(engine, settings, channel)
    found = []
    for outgoing in channel.accepted:
        message = message_from_bytes(outgoing.data, policy=default)
        assert isinstance(message, EmailMessage) and not message.defects
        assert all(len(line) <= 998 for line in outgoing.data.split(b"\r\n"))
        found.append(message)
    return found


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None and not part.defects
    return str(part.get_content()).replace("\r\n", "\n")


def test_a_message_says_what_it_should(fresh_engine: Engine, settings: Settings) -> None:
    (message,) = received(
        fresh_engine, settings, subject="Grüße, {{ contact.first_name }} 🎉", reply_to="help@shop.example",
        preheader="Only today", from_name="Süd & Co",
    )  # fmt: skip
    assert sorted(message.keys()) == sorted([
        "From", "Reply-To", "To", "Subject", "Date", "Message-ID", "X-Mauto-Attempt", "List-Unsubscribe",
        "List-Unsubscribe-Post", "MIME-Version", "Content-Type",
    ])  # fmt: skip
    assert message["Subject"] == "Grüße, Ann1 🎉"
    assert message["From"].addresses[0].display_name == "Süd & Co"
    assert message["From"].addresses[0].addr_spec == "news@shop.example"
    assert message["To"] == "person1@mail.example" and message["Reply-To"] == "help@shop.example"
    assert message["Date"].datetime == NOW
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    html, plain = body(message, "html"), body(message, "plain")
    assert "Only today" in html and "Hello Ann1" in html and "Hello Ann1" in plain
    for part in (html, plain):
        assert "Example Shop, 1 High Street, Berlin" in part and "/track/unsubscribe/" in part
    (row,) = rows(fresh_engine, "select rfc_message_id, attempt_id from messages")
    assert message["Message-ID"] == f"<{row.rfc_message_id}>" and message["X-Mauto-Attempt"] == str(row.attempt_id)


def test_every_link_is_signed_and_leads_where_it_should(fresh_engine: Engine, settings: Settings) -> None:
    (message,) = received(fresh_engine, settings, utm={"source": "news", "campaign": "Herbst & mehr"})
    signer = LinkSigner.from_settings(settings)
    (row,) = rows(fresh_engine, "select message_id, contact_id, campaign_id from messages")
    html = body(message, "html")
    targets = {}
    for raw in re.findall(r"http://127[^\"']+", html.replace("&amp;", "&")):
        path, query = urlsplit(raw).path.split("/"), parse_qs(urlsplit(raw).query)
        purpose, cid, uid = Purpose(path[-3]), path[-2], path[-1]
        token = signer.verify(purpose, cid, uid, query["s"][0], url=query.get("url", [""])[0])
        assert token is not None, raw
        assert (token.message_id, token.contact_id, token.campaign_id) == tuple(row)
        targets[purpose, token.position] = query.get("url", [""])[0]
    assert targets == {
        (Purpose.CLICK, 0): "https://shop.example/sale?a=1&b=2&utm_source=news&utm_campaign=Herbst%20%26%20mehr",
        (Purpose.CLICK, 1): "https://shop.example/new?utm_source=news&utm_campaign=Herbst%20%26%20mehr",
        (Purpose.OPEN, 0): "",
        (Purpose.UNSUBSCRIBE, 0): "",
    }
    header = str(message["List-Unsubscribe"]).strip("<>")
    assert header.startswith(settings.public_base_url)
    kept = rows(fresh_engine, "select position, url from message_links order by position")
    assert [tuple(link) for link in kept] == [
        (0, "https://shop.example/sale?a=1&b=2"), (1, "https://shop.example/new"),
    ]  # fmt: skip


def test_tracking_can_be_off(fresh_engine: Engine, settings: Settings) -> None:
    (message,) = received(fresh_engine, settings, track_opens=False, track_clicks=False)
    html = body(message, "html")
    assert "/track/open/" not in html and "/track/click/" not in html and "/track/unsubscribe/" in html
    assert "https://shop.example/sale?a=1&amp;b=2" in html


def test_what_a_person_is_called_stays_text(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        tx.execute(
            text("insert into contacts (email, email_key, first_name) values (:email, :email, :name)"),
            {"email": "evil@mail.example", "name": "<b>{{ 7*7 }}</b>\r\nBcc: x@y.example"},
        )
    (message,) = received(fresh_engine, settings, 0)
    assert message["Bcc"] is None and message["Subject"] == "Hello <b>{{ 7*7 }}</b> Bcc: x@y.example"
    assert "&lt;b&gt;{{ 7*7 }}&lt;/b&gt;" in body(message, "html") and "<b>{{ 7*7 }}</b>" in body(message, "plain")


def test_a_template_gives_what_a_campaign_does_not_say(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        template = catalogue.create(
            tx, NewTemplate(name="T", subject="From template", html_body="<p>Body of template</p>"), now=NOW
        )
    (message,) = received(fresh_engine, settings, template_id=template.template_id, html_body="", subject="Own")
    assert message["Subject"] == "Own" and "Body of template" in body(message, "html")
    (row,) = rows(fresh_engine, "select template_id, template_version from message_contents")
    assert tuple(row) == (template.template_id, 1)


def test_content_is_frozen_at_launch(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        template = catalogue.create(
            tx, NewTemplate(name="T", subject="s", html_body="<p>Before</p>"), now=NOW
        )
    launched(fresh_engine, settings, 1, template_id=template.template_id, html_body="")
    with fresh_engine.begin() as tx:
        tx.execute(text("update templates set html_body = '<p>After</p>'"))
        tx.execute(text("update campaigns set html_body = '<p>After</p>', subject = 'After'"))
    channel = Null()
    run_pump(fresh_engine, settings, channel)
    assert b"Before" in channel.accepted[0].data and b"After" not in channel.accepted[0].data


def test_addresses_of_the_whole_world(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        for address in ("info@bücher.example", "用户@mail.example", "o'neil+tag@mail.example"):
            tx.execute(
                text("insert into contacts (email, email_key) values (:a, :a)"), {"a": address}
            )
    messages = received(fresh_engine, settings, 0)
    assert sorted(m["To"] for m in messages) == sorted(
        ["info@xn--bcher-kva.example", "用户@mail.example", "o'neil+tag@mail.example"]
    )
