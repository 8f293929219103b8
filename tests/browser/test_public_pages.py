"""The recipient's pages in a browser: without script, on a small screen, by keyboard, in their own style."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mautolib.contacts import confirmation
from mautolib.ledger.model import NewContent
from mautolib.pages.words import WORDS
from tests.tracked import Tracking, path_of, running_tracking, tracking

__all__ = ["running_tracking", "tracking"]


@pytest.fixture(params=["light", "dark"])
def page(chromium: Any, tracking: Tracking, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A small screen without script; complaints of the browser fail the test."""
    context = chromium.new_context(
        base_url=str(tracking.client.base_url), java_script_enabled=False, locale="de-DE",
        color_scheme=request.param, viewport={"width": 320, "height": 560},
    )  # fmt: skip
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    # A page that says what is wrong comes with status 422, which the browser notes.
    assert [text for text in complaints if "favicon" not in text and "422" not in text] == []


def _looks_right(page: Any, button: Any, language: str = "de") -> None:
    assert page.locator("html").get_attribute("lang") == language
    box, card = button.bounding_box(), page.locator("main").bounding_box()
    assert box["height"] >= 44
    assert (card["x"] >= 0, card["x"] + card["width"] <= 320) == (True, True)
    # The style sheet is allowed by its hash; without it a button would have the browser's own corners.
    assert button.evaluate("element => getComputedStyle(element).borderTopLeftRadius") == "8px"
    assert _contrast(page, button) >= 4.5
    assert _contrast(page, page.locator("h1")) >= 7


def _contrast(page: Any, element: Any) -> float:
    """The contrast of an element's text with what is behind it (WCAG 2)."""
    fore = element.evaluate("element => getComputedStyle(element).color")
    back = element.evaluate(
        "element => { for (; element; element = element.parentElement) {"
        " const color = getComputedStyle(element).backgroundColor;"
        " if (color !== 'rgba(0, 0, 0, 0)') return color } }"
    )
    light, dark = sorted((_luminance(fore), _luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    channels = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_unsubscribing_by_keyboard(page: Any, tracking: Tracking) -> None:
    page.goto(path_of(tracking.links(tracking.contact()).unsubscribe()))
    _looks_right(page, page.get_by_role("button", name="Abmelden"))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Sie sind abgemeldet").wait_for()
    assert tracking.rows("select subscribed from contacts") == [(False,)]


def test_confirming_by_keyboard(page: Any, tracking: Tracking) -> None:
    contact_id = tracking.contact(subscribed=False)
    with tracking.engine.begin() as tx:
        mail = NewContent(subject="?", html_body="{{ confirm_url }}")
        asked = confirmation.ask(tx, contact_id, mail, actor="test", now=datetime.now(UTC))
    page.goto(path_of(tracking.links(contact_id, campaign_id=None, message_id=asked.message_id).confirm()))
    _looks_right(page, page.get_by_role("button", name="Anmeldung bestätigen"))
    assert tracking.rows("select consent_status from contacts") == [("pending",)]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Sie sind angemeldet").wait_for()
    assert tracking.rows("select subscribed, consent_status from contacts") == [(True, "granted")]


def test_choosing_by_label_and_leaving_and_coming_back(page: Any, tracking: Tracking) -> None:
    page.goto(path_of(tracking.links(tracking.contact(language="en")).preferences()))
    _looks_right(page, page.get_by_role("button", name="Abmelden"))
    page.get_by_label("Sprache").select_option(label="Français")
    page.get_by_label("Zeitzone").select_option(label="Paris")
    page.get_by_role("button", name="Speichern").click()
    # From here on the page speaks the language that was chosen.
    assert page.get_by_role("status").inner_text() == "Votre choix a été enregistré."
    assert tracking.rows("select language, timezone from contacts") == [("fr", "Europe/Paris")]
    assert page.get_by_label("Fuseau horaire").input_value() == "Europe/Paris"
    _fits(page)
    for button, notice, subscribed in (
        ("Me désabonner", "Vous êtes désabonné.", False), ("M’abonner", "Vous êtes abonné.", True),
    ):  # fmt: skip
        page.get_by_role("button", name=button).click()
        assert page.get_by_role("status").inner_text() == notice
        assert tracking.rows("select subscribed from contacts") == [(subscribed,)]
        _looks_right(page, page.get_by_role("button", name="Enregistrer"), language="fr")


@pytest.mark.parametrize("language", ["ar", "ja"])
def test_pages_run_the_way_their_language_does(page: Any, tracking: Tracking, language: str) -> None:
    contact_id = tracking.contact(language=language)
    words, links = WORDS[language], tracking.links(contact_id)
    page.goto(path_of(links.preferences()))
    _looks_right(page, page.get_by_role("button", name=words["preferences_save"]), language=language)
    _fits(page)
    save, card = page.locator("button[value=update]").bounding_box(), page.locator("main").bounding_box()
    is_at_the_left = save["x"] - card["x"] < card["x"] + card["width"] - save["x"] - save["width"]
    field = page.get_by_label(words["preferences_language"])
    assert (field.evaluate("element => getComputedStyle(element).direction"), is_at_the_left) == (
        ("rtl", False) if language == "ar" else ("ltr", True))  # fmt: skip
    page.goto(path_of(links.unsubscribe()))
    page.keyboard.press("Tab")
    button = page.get_by_role("button", name=words["confirm_button"])
    assert button.evaluate("element => getComputedStyle(element).outlineWidth") == "3px"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=words["done_title"]).wait_for()


def test_a_choice_there_is_not_is_said_aloud(page: Any, tracking: Tracking) -> None:
    page.goto(path_of(tracking.links(tracking.contact(timezone="Mars/Phobos")).preferences()))
    page.get_by_role("button", name="Speichern").click()
    assert "nicht möglich" in page.get_by_role("alert").inner_text()
    field = page.get_by_label("Zeitzone")
    assert (field.get_attribute("aria-invalid"), field.get_attribute("aria-describedby")) == ("true", "bad")
    assert page.locator("#bad").count() == 1
    _fits(page)


def _fits(page: Any) -> None:
    """Nothing is wider than the screen, and every field is large enough for a finger."""
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    for field in page.locator("select").all():
        assert field.bounding_box()["height"] >= 44
        assert _contrast(page, field) >= 7


def test_the_warning_names_where_a_link_leads(page: Any, tracking: Tracking) -> None:
    page.goto("/api/v1/track/click/1/1?url=https%3A%2F%2Fshop.example%40evil.example%2F" + "long" * 60)
    assert page.locator(".host").inner_text() == "evil.example"
    _looks_right(page, page.get_by_role("link", name="Weiter"))
