"""Double opt-in: the question, its mail, and which answers count."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import contacts
from mautolib.auth import users
from mautolib.campaigns import sending
from mautolib.campaigns.building import Blueprint
from mautolib.contacts import confirmation, consent, listing, preferences
from mautolib.contacts.confirmation import Answer
from mautolib.contacts.model import NewContact, SuppressionReason
from mautolib.contacts.preferences import Standing
from mautolib.errors import Conflict, InvalidInput, NotFound
from mautolib.events.links import LinkSigner, Owner, Purpose
from mautolib.ledger.model import Claimed, Kind, NewContent
from mautolib.pages.words import WORDS as PAGE_WORDS
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from mautolib.templates import catalogue
from mautolib.templates.confirmation import WORDS, confirmation_mail
from mautolib.templates.model import NewTemplate
from tests.live_service import as_role, serve

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MAIL = NewContent(subject="Please confirm", html_body='<a href="{{ confirm_url }}">yes</a>', track_clicks=False)
NETWORK = "192.0.2.0/24"


def make(tx: Connection, email: str = "anna@shop.example", **fields: Any) -> int:
    return contacts.create(tx, NewContact(email=email, **fields), actor="test", now=NOW).contact_id


def ask(tx: Connection, contact_id: int, *, at: datetime = NOW, mail: NewContent = MAIL, **more: Any) -> int:
    return confirmation.ask(tx, contact_id, mail, actor="editor", now=at, **more).message_id


def confirm(tx: Connection, contact_id: int, message_id: int, *, at: datetime = NOW + MINUTE) -> Answer:
    return confirmation.confirm(tx, contact_id, message_id, now=at, network=NETWORK)


def lines(tx: Connection, contact_id: int) -> list[tuple[str, str, str | None]]:
    return [(line.status, line.source, line.wording_version) for line in listing.consents(tx, contact_id)]


def state(tx: Connection, contact_id: int) -> tuple[bool, str]:
    one = contacts.get(tx, contact_id)
    return one.subscribed, str(one.consent_status)


def mailable(tx: Connection, contact_id: int) -> bool:
    query = text("select count(*) from mailable_contacts where contact_id = :id")
    return bool(tx.scalar(query, {"id": contact_id}))


def test_asking_makes_consent_pending_and_queues_one_mail(tx: Connection) -> None:
    one = make(tx)
    message_id = ask(tx, one, wording_version="form 3", note="built-in text (en)")
    assert state(tx, one) == (True, "pending")
    assert not mailable(tx, one)
    line = listing.consents(tx, one)[0]
    assert (line.status, line.source, line.wording_version, line.actor, line.note) == (
        "pending", "double_opt_in", "form 3", "editor", "built-in text (en)")  # fmt: skip
    row = tx.execute(text("select * from messages")).one()
    assert (row.message_id, row.kind, row.status, row.campaign_id) == (message_id, "confirmation", "queued", None)
    assert row.dedupe_key == f"confirm:{one}:{line.consent_id}"
    assert row.give_up_at - row.due_at == timedelta(hours=72)


def test_confirming_grants_and_subscribes_once(tx: Connection) -> None:
    one = make(tx, subscribed=False)
    message_id = ask(tx, one, wording_version="form 3")
    assert [confirm(tx, one, message_id) for _ in range(3)] == [Answer.CONFIRMED] * 3
    assert (state(tx, one), mailable(tx, one)) == ((True, "granted"), True)
    assert lines(tx, one) == [("granted", "double_opt_in", "form 3"), ("pending", "double_opt_in", "form 3")]
    line = listing.consents(tx, one)[0]
    assert (line.ip, line.actor, line.note) == (NETWORK, "recipient", f"confirmed by message {message_id}")
    facts = tx.scalars(text("select event_name from outbox where event_name like 'contact.%' order by outbox_id")).all()
    assert list(facts) == ["contact.created", "contact.subscribed"]


def test_the_same_question_is_one_mail_for_a_minute_and_while_it_waits(tx: Connection) -> None:
    one = make(tx)
    first = ask(tx, one)
    assert ask(tx, one, at=NOW + 30 * MINUTE) == first, "it still waits to be handed over"
    tx.execute(text("update messages set status = 'sent', sent_at = now()"))
    assert ask(tx, one, at=NOW + MINUTE / 2) == first
    assert len(lines(tx, one)) == 1
    second = ask(tx, one, at=NOW + MINUTE)
    assert second != first
    assert ask(tx, one, at=NOW + MINUTE, wording_version="other") not in (first, second)
    assert ask(tx, one, at=NOW + MINUTE, mail=replace(MAIL, subject="Other")) not in (first, second)
    assert [line[0] for line in lines(tx, one)] == ["pending"] * 4
    assert confirm(tx, one, first) is Answer.CONFIRMED, "every question since the last no still stands"


def test_who_agreed_or_may_not_be_written_to_is_not_asked(tx: Connection) -> None:
    granted = make(tx, consent_status="granted", consent_source="shop")
    with pytest.raises(Conflict, match="granted already") as error:
        ask(tx, granted)
    assert error.value.code == "invalid_state"
    for reason in SuppressionReason:
        other = make(tx, f"{reason}@shop.example")
        consent.suppress(tx, f"{reason}@shop.example", reason, actor="test", now=NOW)
        with pytest.raises(Conflict) as error:
            ask(tx, other)
        assert error.value.code == "suppressed"
    with pytest.raises(NotFound, match=r"^Contact not found$"):
        ask(tx, 10**15)
    assert tx.scalar(text("select count(*) from messages")) == 0


def test_a_no_after_the_question_makes_its_link_void(tx: Connection) -> None:
    one = make(tx)
    first = ask(tx, one)
    contacts.update(tx, one, {"subscribed": False}, actor="test", now=NOW)
    assert confirm(tx, one, first) is Answer.OVER
    assert state(tx, one) == (False, "withdrawn")
    second = ask(tx, one)
    assert second != first, "a void question does not ask any more"
    assert confirm(tx, one, first) is Answer.OVER, "pending again, but not by this question"
    assert state(tx, one) == (False, "pending")
    assert confirm(tx, one, second) is Answer.CONFIRMED
    assert confirm(tx, one, first) is Answer.CONFIRMED, "granted stays granted"
    assert [line[0] for line in lines(tx, one)] == ["granted", "pending", "withdrawn", "pending"]


@pytest.mark.parametrize(("reason", "answer"), [
    ("unsubscribe", Answer.OVER), ("complaint", Answer.BLOCKED), ("compliance", Answer.BLOCKED),
])  # fmt: skip
@pytest.mark.parametrize("subscribed", [True, False])
def test_the_persons_own_word_against_it_stands(
    tx: Connection, reason: str, answer: Answer, subscribed: bool
) -> None:
    one = make(tx, subscribed=subscribed)
    message_id = ask(tx, one)
    consent.suppress(tx, "anna@shop.example", SuppressionReason(reason), actor="test", now=NOW)
    before = lines(tx, one)
    assert confirm(tx, one, message_id) is answer
    assert (state(tx, one)[0], lines(tx, one)) == (False, before)


@pytest.mark.parametrize("status", ["unknown", "withdrawn"])
def test_a_question_that_was_taken_back_is_void(tx: Connection, status: str) -> None:
    one = make(tx)
    message_id = ask(tx, one)
    contacts.update(tx, one, {"consent_status": status}, actor="test", now=NOW)
    assert confirm(tx, one, message_id) is Answer.OVER
    assert state(tx, one) == (True, status)


def test_only_a_question_to_this_very_person_counts(tx: Connection) -> None:
    one, other = make(tx), make(tx, "ben@shop.example")
    message_id, theirs = ask(tx, one), ask(tx, other)
    other_kind = tx.scalar(text(
        "insert into messages (contact_id, kind, content_id, dedupe_key, due_at, next_try_at, give_up_at) "
        "select contact_id, 'workflow', content_id, dedupe_key, due_at, due_at, give_up_at from messages "
        "where message_id = :id returning message_id"), {"id": message_id})  # fmt: skip
    assert other_kind is not None
    assert [confirm(tx, one, wrong) for wrong in (theirs, other_kind, 10**15)] == [Answer.UNKNOWN] * 3
    assert confirm(tx, 10**15, message_id) is Answer.UNKNOWN
    contacts.delete(tx, one, actor="test", now=NOW)
    assert confirm(tx, one, message_id) is Answer.UNKNOWN
    assert state(tx, other) == (True, "pending")


def test_parallel_questions_and_answers_are_one(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        one = make(tx)
    asked: list[int] = []
    answers: list[Answer] = []

    def question() -> None:
        with fresh_engine.begin() as own:
            asked.append(ask(own, one))

    def answer() -> None:
        with fresh_engine.begin() as own:
            answers.append(confirm(own, one, asked[0]))

    for work in (question, answer):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(asked), len(set(asked)), answers) == (8, 1, [Answer.CONFIRMED] * 8)
    with fresh_engine.begin() as tx:
        assert [line[0] for line in lines(tx, one)] == ["granted", "pending"]


def written(content: NewContent, settings: Settings, kind: Kind = Kind.CONFIRMATION, **contact: Any) -> EmailMessage:
    claimed = Claimed(
        message_id=5, contact_id=9, attempt_id=1, attempt_no=1, kind=kind, campaign_id=None, workflow_id=None,
        content_id=1, to_email="anna@shop.example", rfc_message_id="x@shop.example", context=None, contact=contact,
    )  # fmt: skip
    blueprint = Blueprint(content, settings=settings, signer=LinkSigner.from_settings(settings), is_marketing=False)
    mail = message_from_bytes(blueprint.write(claimed, NOW).data, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def body(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    content: str = part.get_content()
    return content


@pytest.mark.parametrize("language", PAGE_WORDS)
def test_the_built_in_text_speaks_the_languages_of_the_pages(
    tx: Connection, settings: Settings, language: str
) -> None:
    content, note = confirmation_mail(tx, settings, language=f"{language}-XX")
    assert (set(WORDS[language]), note) == (set(WORDS["en"]), f"built-in text ({language})")
    assert language == "en" or not set(WORDS[language].values()) & set(WORDS["en"].values())
    mail = written(content, settings, first_name="BUY NOW http://evil.example")
    html, plain = body(mail, "html"), body(mail, "plain")
    link = re.search(r'href="([^"]+)"', html)
    assert link is not None and "/api/v1/track/confirm/u" in link[1]
    assert unescape(link[1]) in plain
    assert mail["Subject"] == WORDS[language]["subject"]
    document = re.search(r"<html [^>]+>", html)
    assert document is not None and f'lang="{language}"' in document[0]
    assert ('dir="rtl"' in document[0]) == (language == "ar")
    assert "1 High Street" in html and "1 High Street" in plain
    assert "evil" not in mail.as_string(), "who signs somebody up does not write to them"
    assert "List-Unsubscribe" not in mail
    assert "/track/open/" not in html and "/track/click/" not in html


def test_another_language_is_asked_in_english_and_settings_are_text(tx: Connection, settings: Settings) -> None:
    odd = replace(settings, default_from_name="{{ 7 * 7 }} & <b>Co</b>", postal_address="{% if %}")
    content, note = confirmation_mail(tx, odd, language="tlh")
    mail = written(replace(content, from_name="Shop"), odd)
    assert note == "built-in text (en)"
    assert "{{ 7 * 7 }} & <b>Co</b>" in body(mail, "plain") and "{% if %}" in body(mail, "plain")
    assert "{{ 7 * 7 }} &amp; &lt;b&gt;Co&lt;/b&gt;" in body(mail, "html")


def test_a_template_of_ones_own_is_used(tx: Connection, settings: Settings) -> None:
    made = catalogue.create(tx, NewTemplate(
        name="Ask", subject="Hello {{ contact.first_name }}",
        html_body='<p><a href="{{ confirm_url }}">Yes</a> <a href="https://shop.example/terms">Terms</a></p>',
    ), now=NOW)  # fmt: skip
    content, note = confirmation_mail(tx, settings, language="de", template_id=made.template_id)
    assert (content.template_version, note) == (1, f"template {made.template_id} version 1")
    mail = written(content, settings, first_name="Anna")
    assert mail["Subject"] == "Hello Anna"
    assert "/track/confirm/" in body(mail, "html") and 'href="https://shop.example/terms"' in body(mail, "html")
    assert "/track/confirm/" not in body(written(content, settings, Kind.TRANSACTIONAL), "html")


@pytest.mark.parametrize("owner", [{"campaign_id": 7}, {"workflow_id": 7}, {}])
def test_the_preference_link_of_any_mail_is_genuine(settings: Settings, owner: dict[str, int]) -> None:
    content = NewContent(
        subject="News", html_body='<a href="{{ preferences_url }}">Choose</a>', text_body="{{ preferences_url }}",
        **owner,  # type: ignore[arg-type]
    )  # fmt: skip
    mail = written(content, settings, Kind.CAMPAIGN)
    found = re.search(r'href="([^"]+/track/preferences/[^"]+)"', body(mail, "html"))
    assert found is not None and unescape(found[1]) in body(mail, "plain")
    cid, uid, s = re.split(r"/|\?s=", unescape(found[1]))[-3:]
    token = LinkSigner.from_settings(settings).verify(Purpose.PREFERENCES, cid, uid, s)
    assert token is not None
    assert (token.contact_id, token.message_id, token.owner) == (9, 5, Owner.of(**owner))


@pytest.mark.parametrize(("changes", "said"), [
    ({"html_body": "<p>Hello</p>"}, "html_body does not contain the link"),
    ({"html_body": "<p>confirm_url {# confirm_url #}</p>"}, "html_body does not contain the link"),
    ({"text_body": "no link here"}, "text_body does not contain the link"),
    ({"html_body": "{{ confirm_url }} {{ campaign.name }}"}, "Undefined variable: campaign.name"),
    ({"html_body": "{{ confirm_url }} {{ event.total }}"}, "Undefined variable: event.total"),
    ({"html_body": "{{ confirm_url }} {{ nonsense }}"}, "Undefined variable: nonsense"),
    ({"html_body": "{{ confirm_url }} {% if %}"}, "Template syntax error"),
    ({"html_body": " "}, "no HTML body"),
])  # fmt: skip
def test_a_template_that_cannot_ask_is_refused(
    tx: Connection, settings: Settings, changes: dict[str, str], said: str
) -> None:
    new = replace(NewTemplate(name="Ask", subject="Yes?", html_body="{{ confirm_url }}"), **changes)
    made = catalogue.create(tx, new, now=NOW)
    with pytest.raises(InvalidInput, match=said) as error:
        confirmation_mail(tx, settings, language="en", template_id=made.template_id)
    assert error.value.path == ("body", "template_id")
    with pytest.raises(InvalidInput, match=r"^Template not found$"):
        confirmation_mail(tx, settings, language="en", template_id=10**15)


def test_the_preference_page_knows_where_a_person_stands(tx: Connection) -> None:
    one = make(tx, language="pt", timezone="Europe/Lisbon")

    def standing(**more: bool) -> Standing:
        found = preferences.look(tx, one, **more)
        assert found is not None and (found.language, found.timezone) == ("pt", "Europe/Lisbon")
        return found.standing

    assert (standing(), standing(require_consent=True)) == (Standing.SUBSCRIBED, Standing.PENDING)
    ask(tx, one)
    assert standing() is Standing.PENDING
    contacts.update(tx, one, {"subscribed": False}, actor="test", now=NOW)
    assert standing() is Standing.UNSUBSCRIBED
    assert preferences.resubscribe(tx, one, now=NOW, network=NETWORK)
    assert (standing(), standing(require_consent=True)) == (Standing.SUBSCRIBED, Standing.SUBSCRIBED)
    consent.unsubscribe(tx, one, source="link", actor="recipient", now=NOW)
    assert standing() is Standing.UNSUBSCRIBED
    assert preferences.resubscribe(tx, one, now=NOW) and standing() is Standing.SUBSCRIBED
    consent.suppress(tx, "anna@shop.example", SuppressionReason.COMPLIANCE, actor="test", now=NOW)
    assert standing() is Standing.BLOCKED
    assert not preferences.resubscribe(tx, one, now=NOW)
    assert (preferences.look(tx, 10**15), preferences.resubscribe(tx, 10**15, now=NOW)) == (None, False)


def test_from_sign_up_to_the_first_newsletter(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    """The whole way, over HTTP and SMTP: asked, looked at by a scanner, confirmed, mailable."""
    with fresh_engine.begin() as tx:
        users.ensure_admin(tx, settings, datetime.now(UTC))
    with as_role(fresh_engine, "mauto_api") as api_url, MailSink(tmp_path / "sink") as sink:
        url, stop = serve(replace(settings, api_database_url=api_url, require_consent=True))
        try:
            contact_id = sign_up(url, settings)
            sender = replace(settings, smtp_port=sink.smtp_port, public_base_url=url, require_consent=True)
            assert sending.pump(fresh_engine, sender).counts == {"sent": 1}
            link = link_in(sink)
            with httpx.Client(timeout=20, trust_env=False) as reader:
                assert [reader.get(link).status_code, reader.head(link).status_code] == [200, 200]
                with fresh_engine.begin() as tx:
                    assert state(tx, contact_id) == (False, "pending"), "looking changes nothing"
                assert reader.post(link).status_code == 200
        finally:
            stop()
    with fresh_engine.begin() as tx:
        assert (state(tx, contact_id), mailable(tx, contact_id)) == ((True, "granted"), True)
        assert [line.ip for line in listing.consents(tx, contact_id)] == ["127.0.0.0/24", None]
        assert tx.execute(text("select status, kind from messages")).all() == [("sent", "confirmation")]


def sign_up(url: str, settings: Settings) -> int:
    """A shop's form: a contact that waits, and the mail that asks."""
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as shop:
        body = {"email": settings.admin_email, "password": settings.admin_password}
        token = shop.post("/api/v1/auth/login", json=body).json()["access_token"]
        shop.headers["Authorization"] = f"Bearer {token}"
        new = {"email": "anna@shop.example", "subscribed": False, "language": "de-AT"}
        contact_id: str = shop.post("/api/v1/contacts/", json=new).json()["id"]
        assert shop.post(f"/api/v1/contacts/{contact_id}/confirmation").status_code == 202
    return int(contact_id)


def link_in(sink: MailSink) -> str:
    (mail,) = sink.wait_for(1)
    assert (mail.recipients, mail.subject) == (("anna@shop.example",), "Bitte bestätigen Sie Ihre Anmeldung")
    found = re.search(r'href="([^"]+/track/confirm/[^"]+)"', mail.html)
    assert found is not None
    return unescape(found[1])
