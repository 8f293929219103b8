"""A campaign in several languages: each person reads theirs, and every language is checked before launch."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.campaigns import launch, planning, readiness, store
from mautolib.campaigns.model import Status
from mautolib.channels.null import Null
from mautolib.errors import InvalidInput
from mautolib.settings import Settings
from mautolib.templates import catalogue
from mautolib.templates.language import choose
from mautolib.templates.model import NewTemplate, TemplateChange
from tests.integration.mailing import NOW, add_campaign, add_contacts, rows, run_pump

LANGUAGES = ["de", "DE-at", "de_CH", "pt-BR", "pt_br", "pt", "ar", "ar-EG", "en", "", " fr ", "zh-Hant-TW", "x-y", None]
MONTHS = (
    "janeiro", "fevereiro", "março", "abril", "maio", "junho", "julho", "agosto", "setembro", "outubro", "novembro",
    "dezembro",
)  # fmt: skip
LOCALES = {
    "de": {"subject": "Guten Tag {{ contact.first_name }}", "html_body": "<p>{{ '1234.5'|money('EUR') }}</p>"},
    "pt-BR": {"subject": "Bom dia", "html_body": "<html><body><p>{{ contact.created_at|date('%B') }}</p></body></html>",
              "preheader": "Dez coisas"},
    "ar": {"subject": "مرحبا", "html_body": "<p>أهلا {{ contact.first_name }} "
           "<a href='https://shop.example/ar'>هنا</a></p>", "text_body": "أهلا {{ contact.first_name }}"},
}  # fmt: skip


def people(tx: Connection) -> dict[int, str | None]:
    found = {}
    for number, language in enumerate(LANGUAGES):
        query = text(
            "insert into contacts (email, email_key, first_name, language) values (:e, :e, :n, :l) returning contact_id"
        )
        values = {"e": f"p{number}@mail.example", "n": f"Ann{number}", "l": language or ""}
        found[tx.execute(query, values).scalar_one()] = language
    return found


def test_everybody_gets_their_language_and_its_conventions(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        contacts = people(tx)
        campaign = add_campaign(tx, preheader="Ten things", locales=LOCALES)
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    (plan,) = planning.plan_due(fresh_engine, settings, NOW)
    assert (plan.queued, plan.skipped) == (len(LANGUAGES), 0)
    assert planning.plan_due(fresh_engine, settings, NOW) == []
    found = rows(
        fresh_engine,
        "select messages.contact_id, message_contents.locale from messages "
        "inner join message_contents using (content_id) where messages.campaign_id = :id",
        id=campaign.campaign_id,
    )
    assert {row.contact_id: row.locale for row in found} == {
        contact_id: choose(language, LOCALES) or "" for contact_id, language in contacts.items()
    }
    assert sorted(row.locale for row in found).count("de") == 3
    channel = Null()
    assert run_pump(fresh_engine, settings, channel, group_size=100).counts == {"sent": len(LANGUAGES)}
    sent = {message.recipient: message_from_bytes(message.data, policy=default) for message in channel.accepted}
    german, brazilian, arabic, plain = (sent[f"p{number}@mail.example"] for number in (1, 3, 7, 8))
    assert german["Subject"] == "Guten Tag Ann1" and "1.234,50\xa0€" in body(german)
    assert "Abmelden" in body(german) and '<div lang="de" dir="ltr">' in body(german)
    assert "Ten things" not in body(german)
    assert '<html lang="pt-br" dir="ltr">' in body(brazilian) and "Dez coisas" in body(brazilian)
    assert any(month in body(brazilian) for month in MONTHS)
    assert '<div lang="ar" dir="rtl">' in body(arabic) and "إلغاء الاشتراك" in body(arabic)
    assert "أهلا Ann7" in body(arabic)
    assert body(arabic, "plain").startswith("أهلا Ann7") and "إلغاء الاشتراك: http" in body(arabic, "plain")
    assert plain["Subject"] == "Hello Ann8" and "Unsubscribe" in body(plain) and "lang=" not in body(plain)
    for message in sent.values():
        assert message["List-Unsubscribe"] and message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def body(message: EmailMessage, kind: str = "html") -> str:
    part = message.get_body((kind,))
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content


def test_links_of_every_language_are_kept(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        people(tx)
        campaign = add_campaign(tx, locales=LOCALES)
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    planning.plan_due(fresh_engine, settings, NOW)
    found = rows(fresh_engine, "select locale, position, url from message_contents inner join message_links "
                 "using (content_id) order by 1, 2")  # fmt: skip
    assert [(row.locale, row.url) for row in found] == [
        ("", "https://shop.example/sale?a=1&b=2"), ("", "https://shop.example/new"), ("ar", "https://shop.example/ar"),
    ]  # fmt: skip


def test_every_language_is_checked_before_launch(tx: Connection, settings: Settings) -> None:
    faulty = {
        "de": {"subject": " ", "html_body": "<p>{{ contact.nick }}</p>"},
        "fr": {"subject": "s", "html_body": "<p>{% if %}</p>"},
        "it": {"subject": "s", "html_body": " "},
        "not a tag": {"subject": "s", "html_body": "<p>x</p>"},
        "FR": {"subject": "s", "html_body": "<p>x</p>", "text_body": "{{ open"},
    }
    campaign = add_campaign(tx, locales=faulty)
    found = [(problem.path, problem.message) for problem in readiness.problems(tx, settings, campaign)]
    assert {path for path, _ in found} == {
        ("locales", "de", "subject"), ("locales", "de", "html_body"), ("locales", "fr", "html_body", 1),
        ("locales", "it", "html_body"), ("locales", "not a tag"), ("locales", "fr"), ("locales", "FR", "text_body", 1),
    }  # fmt: skip
    assert any("(locales.fr.html_body, line 1)" in message for _, message in found)
    with pytest.raises(InvalidInput, match="no language tag"):
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    mended = replace(store.get(tx, campaign.campaign_id), locales=LOCALES)
    assert readiness.problems(tx, settings, mended) == []


def test_a_language_needs_its_own_words_and_a_strict_template_binds_it(tx: Connection, settings: Settings) -> None:
    new = NewTemplate(name="Strict", subject="Hi", html_body="<p>Hi {{ contact.first_name }}</p>", strict=True)
    template = catalogue.create(tx, new, actor="test", now=NOW)
    words = {"de": {"subject": "Hallo", "html_body": "<p>{{ nobody }}</p>"}, "fr": {"subject": "Salut"}}
    campaign = add_campaign(tx, template_id=template.template_id, html_body="", subject="", locales=words)
    assert readiness.text_of(tx, campaign).html_body == "<p>Hi {{ contact.first_name }}</p>"
    assert readiness.text_of(tx, campaign, "de").strict
    assert {problem.path for problem in readiness.problems(tx, settings, campaign)} == {
        ("locales", "de", "html_body"), ("locales", "fr", "html_body"),
    }  # fmt: skip


def test_what_a_strict_template_declares_and_nobody_gives_stops_the_launch(
    tx: Connection, settings: Settings
) -> None:
    """Declared names are what a shop gives with a transactional mail; a campaign has nothing to fill them with."""
    html = "<p>Hi {{ contact.first_name }}</p>\n<p>{{ voucher }}</p>"
    new = NewTemplate(name="Voucher", subject="Hi", html_body=html, strict=True, variables=("voucher",))
    template = catalogue.create(tx, new, actor="test", now=NOW)
    assert template.valid, "it is good for mail that gives the name"
    words = {"de": {"subject": "Hallo {{ rabatt }}", "html_body": "<p>Hallo</p>"}}
    campaign = add_campaign(tx, template_id=template.template_id, html_body="", subject="", locales=words)
    assert [(problem.path, problem.message) for problem in readiness.problems(tx, settings, campaign)] == [
        (("html_body",), "Undefined variable: voucher; a campaign does not give it "
         "(template 'Voucher', default content, html_body line 2)"),
        (("locales", "de", "subject"), "Undefined variable: rabatt; a campaign does not give it "
         "(template 'Voucher', locale de, subject line 1)"),
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match=r"voucher.*template 'Voucher'.*rabatt.*locale de") as caught:
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    assert caught.value.code == "not_sendable"


def test_a_scheduled_campaign_whose_template_becomes_strict_fails_instead_of_mailing_half(
    fresh_engine: Engine, settings: Settings
) -> None:
    new = NewTemplate(name="Voucher", subject="Hi", html_body="<p>{{ voucher }}</p>", variables=("voucher",))
    with fresh_engine.begin() as tx:
        add_contacts(tx, 2)
        template = catalogue.create(tx, new, actor="test", now=NOW)
        campaign = add_campaign(tx, template_id=template.template_id, html_body="", subject="")
        assert readiness.problems(tx, settings, campaign) == [], "a lenient one stays empty there"
        (said,) = readiness.warnings_of(readiness.text_of(tx, campaign))
        assert said == "Undefined variable: voucher; a campaign does not give it"
        launch.schedule(tx, settings, campaign.campaign_id, at=NOW + timedelta(hours=1), now=NOW)
        catalogue.revise(tx, template.template_id, TemplateChange(strict=True), actor="test", now=NOW)
    (plan,) = planning.plan_due(fresh_engine, settings, NOW + timedelta(hours=1))
    assert plan.problem is not None and "template 'Voucher'" in plan.problem and plan.queued == 0
    with fresh_engine.begin() as tx:
        failed = store.get(tx, campaign.campaign_id)
        assert failed.status is Status.FAILED and "voucher" in (failed.status_reason or "")


def test_what_gmail_cuts_off_is_a_warning_not_a_problem(tx: Connection, settings: Settings) -> None:
    long = f"<p>{'x' * 103_000}</p>"
    campaign = add_campaign(tx, html_body=long, locales={"de": {"subject": "s", "html_body": long}})
    assert readiness.problems(tx, settings, campaign) == []
    said = [warning for item in readiness.texts_of(tx, campaign) for warning in readiness.warnings_of(item)]
    assert len(said) == 2 and "102 KB" in said[0] and said[1].startswith("locales.de: ")


def test_tracked_links_count_for_what_gmail_cuts_off(tx: Connection) -> None:
    links = "".join(f"<a href='https://shop.example/{n}'>{n}</a>" for n in range(60))
    campaign = add_campaign(tx, html_body=f"<p>{'x' * 93_000}</p>{links}")
    (said,) = readiness.warnings_of(readiness.text_of(tx, campaign))
    assert said.startswith("With tracked links") and "102 KB" in said
    assert readiness.warnings_of(readiness.text_of(tx, add_campaign(tx, html_body=f"<p>{'x' * 93_000}</p>"))) == []
