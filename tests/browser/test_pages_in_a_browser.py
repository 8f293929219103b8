"""What only a browser shows: pages that load nothing from elsewhere, forms that work, no script where none may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.live_service import ADMIN, PASSWORD, LiveService


class Visit:
    """A page, and what it asked for and complained about."""

    def __init__(self, page: Any, own: str) -> None:
        self.page = page
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self._asked(request.url, own))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asked(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:", "blob:")):
            self.elsewhere.append(url)


@pytest.fixture
def visit(chromium: Any, service: LiveService) -> Iterator[Visit]:
    """A fresh page of a browser that knows nothing yet."""
    context = chromium.new_context(base_url=service.url)
    yield Visit(context.new_page(), service.url)
    context.close()


def test_swagger_signs_in_and_calls_an_operation(visit: Visit) -> None:
    page = visit.page
    page.goto("/docs")
    page.get_by_text("/api/v1/contacts/count").first.wait_for()
    page.get_by_role("button", name="Authorize").click()
    page.locator("#oauth_username").fill(ADMIN)
    page.locator("#oauth_password").fill(PASSWORD)
    page.locator(".auth-container").filter(has=page.locator("#oauth_username")).get_by_role(
        "button", name="Apply given OAuth2 credentials"
    ).click()
    page.get_by_role("button", name="Remove authorization").first.wait_for()
    page.get_by_role("button", name="Close").last.click()
    operation = page.locator("#operations-Sign-in-me")
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    operation.locator(".live-responses-table").get_by_text(ADMIN).first.wait_for()
    assert visit.elsewhere == []
    assert visit.complaints == []


def test_redoc_renders_from_this_machine_alone(visit: Visit) -> None:
    visit.page.goto("/redoc")
    visit.page.get_by_role("heading", name="Create a contact").wait_for()
    assert visit.elsewhere == []
    assert visit.complaints == []


def test_the_overview_opens_after_signing_in(visit: Visit) -> None:
    page = visit.page
    page.goto("/dashboard")
    page.get_by_label("E-mail address").fill(ADMIN)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "scrolls sideways on a phone"
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "12px"
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    assert visit.elsewhere == []
    assert visit.complaints == []


def test_a_wrong_password_shows_an_error(visit: Visit) -> None:
    page = visit.page
    page.goto("/dashboard/sign-in")
    page.get_by_label("E-mail address").fill(ADMIN)
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").get_by_text("Invalid email or password").wait_for()
    assert page.get_by_label("E-mail address").input_value() == ADMIN
