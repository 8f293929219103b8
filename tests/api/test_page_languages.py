"""Every page behind a link, in every language: the person's, whatever the browser asks for, and marked as such."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime

import pytest

from api import tracking_forms
from mautolib.contacts import confirmation, consent
from mautolib.contacts.model import SuppressionReason
from mautolib.ledger.model import NewContent
from mautolib.pages.words import WORDS
from tests.tracked import Gate, Tracking, path_of, running_tracking, tracked, tracking

__all__ = ["running_tracking", "tracking"]

LANGUAGES = ["en", "de", "fr", "es", "it", "pt", "ja", "zh", "ar", "nl"]


def _is_spoken(page: str, language: str, *names: str) -> None:
    """The page says which language it is, and its words are that language's."""
    direction = "rtl" if language == "ar" else "ltr"
    assert f'<html lang="{language}" dir="{direction}">' in page
    told = html.unescape(page)
    for name in names:
        assert WORDS[language][name] in told, name
    assert "<script" not in page
    assert len(re.findall("<h1>", page)) == 1
    for control in re.findall(r"<select id=\"([a-z]+)\"", page):
        assert f'<label for="{control}">' in page


def _other(language: str) -> dict[str, str]:
    """A browser that asks for another language; for English one that asks for none of ours."""
    return {"Accept-Language": "pl" if language == "en" else "es" if language == "de" else "de"}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The language is waited for on a machine however busy; else it would be the browser's after a moment."""
    monkeypatch.setattr(tracking_forms, "_LANGUAGE_SECONDS", 30.0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_leaving_is_asked_and_told_in_the_persons_language(tracking: Tracking, language: str) -> None:
    path = path_of(tracking.links(tracking.contact(language=language)).unsubscribe())
    page = tracking.client.get(path, headers=_other(language)).text
    _is_spoken(page, language, "confirm_title", "confirm_text", "confirm_button")
    odd = tracking.client.post(path, data={"a": "b"}, headers=_other(language)).text
    _is_spoken(odd, language, "confirm_text")
    done = tracking.client.post(path, data={"List-Unsubscribe": "One-Click"}, headers=_other(language)).text
    _is_spoken(done, language, "done_title", "done_text")
    assert tracking.rows("select subscribed from contacts") == [(False,)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_confirming_is_asked_and_told_in_the_persons_language(tracking: Tracking, language: str) -> None:
    contact_id = tracking.contact(language=language)
    with tracking.engine.begin() as tx:
        mail = NewContent(subject="?", html_body="{{ confirm_url }}")
        asked = confirmation.ask(tx, contact_id, mail, actor="test", now=datetime.now(UTC))
    path = path_of(tracking.links(contact_id, campaign_id=None, message_id=asked.message_id).confirm())
    _is_spoken(tracking.client.get(path, headers=_other(language)).text, language,
               "optin_title", "optin_text", "optin_button")  # fmt: skip
    _is_spoken(tracking.client.post(path, headers=_other(language)).text, language, "opted_title", "opted_text")
    tracking.client.post(path_of(tracking.links(contact_id).unsubscribe()), data={"List-Unsubscribe": "One-Click"})
    _is_spoken(tracking.client.post(path, headers=_other(language)).text, language,
               "over_title", "over_text", "over_button")  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_preferences_speak_the_persons_language(tracking: Tracking, language: str) -> None:
    contact_id = tracking.contact(language=language, email="anna@shop.example")
    path, headers = path_of(tracking.links(contact_id).preferences()), _other(language)
    fields = ("preferences_title", "preferences_language", "preferences_timezone", "preferences_unset",
              "preferences_save")  # fmt: skip
    _is_spoken(tracking.client.get(path, headers=headers).text, language, *fields, "preferences_subscribed",
               "preferences_leave")  # fmt: skip
    for values, *names in (
        ({"action": "unsubscribe"}, "preferences_left", "preferences_join"),
        ({"action": "resubscribe"}, "preferences_back", "preferences_leave"),
        ({"action": "update", "timezone": "Europe/Rome"}, "preferences_saved"),
        ({"action": "update", "timezone": "Mars/Phobos"}, "preferences_bad"),
    ):
        _is_spoken(tracking.client.post(path, data=values, headers=headers).text, language, *fields[:3], *names)
    with tracking.engine.begin() as tx:
        consent.suppress(tx, "anna@shop.example", SuppressionReason.COMPLAINT, actor="test", now=datetime.now(UTC))
    _is_spoken(tracking.client.get(path, headers=headers).text, language, *fields[:3], "blocked_title")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_stranger_is_spoken_to_in_the_browsers_language(tracking: Tracking, language: str) -> None:
    headers = {"Accept-Language": f"{language}-XX, pl;q=0.9"}
    for path in ("unsubscribe/7/1", "preferences/7/1?s=wrong", "confirm/1"):
        _is_spoken(tracking.client.get(f"/api/v1/track/{path}", headers=headers).text, language,
                   "invalid_title", "invalid_text")  # fmt: skip
    away = tracking.client.get("/api/v1/track/click/7/1?url=https://x.example/", headers=headers).text
    _is_spoken(away, language, "leaving_title", "leaving_text", "leaving_button")
    assert '<p class="host" dir="ltr">x.example</p>' in away


def test_a_choice_of_language_is_answered_in_it(tracking: Tracking) -> None:
    path = path_of(tracking.links(tracking.contact(language="de")).preferences())
    page = tracking.client.post(path, data={"action": "update", "language": "ar"}).text
    _is_spoken(page, "ar", "preferences_saved")


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_the_database_the_browsers_language_is_used(tracking: Tracking, language: str) -> None:
    contact_id = tracking.contact(language="de")
    links = tracking.links(contact_id)
    gate = Gate(tracking.settings.database_url)
    gate.shut()
    headers = {"Accept-Language": language}
    with tracked(gate.through(tracking.settings)) as client:
        _is_spoken(client.get(path_of(links.unsubscribe()), headers=headers).text, language, "confirm_text")
        away = client.get(path_of(links.preferences()), headers=headers)
        assert away.status_code == 503
        _is_spoken(away.text, language, "away_title", "away_text")
    gate.close()
