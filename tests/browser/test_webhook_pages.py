"""The pages of webhooks in a browser: with the keyboard, without script, on a phone, in light and dark."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.builders import NOW, make_delivery
from tests.live_service import EDITOR, PASSWORD, LiveService

_LONG = "https://hooks.shop.example/a/rather/long/path/" + "x" * 120
#: A folder to look at the pages in, when somebody wants to.
_PICTURES = os.environ.get("MAUTO_TEST_PICTURES")


@pytest.fixture
def delivery(service: LiveService, admin: httpx.Client) -> str:
    body = {"url": _LONG, "events": ["ab_test.winner_selected"], "description": "CRM"}
    endpoint = int(admin.post("/api/v1/webhooks/", json=body).json()["id"])
    with service.engine.begin() as tx:
        for status in ("succeeded", "pending", "succeeded"):
            make_delivery(tx, endpoint, status=status, event_type="email.clicked")
        payload = {
            "id": "msg_0b6ce1d2", "event": "contact.created", "timestamp": "2026-05-01T09:00:00Z",
            "data": {"contact": {"id": "42", "email": "ana@shop.example", "note": "y" * 400}, "changed": {}},
        }  # fmt: skip
        error = "HTTP 503 Service Unavailable"
        return str(make_delivery(
            tx, endpoint, attempt=10, payload=payload, error=error, response_status=503, created_at=NOW
        ))  # fmt: skip


def _fits(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def _picture(page: Any, name: str) -> None:
    if _PICTURES:
        page.screenshot(path=Path(_PICTURES) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_dead_delivery_is_found_and_sent_again_by_keyboard_on_a_phone(
    chromium: Any, service: LiveService, delivery: str, scheme: str
) -> None:
    context = chromium.new_context(
        base_url=service.url, java_script_enabled=False, color_scheme=scheme, viewport={"width": 1100, "height": 800}
    )
    page = context.new_page()
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if not request.url.startswith(
        (service.url, "data:")) else None)  # fmt: skip
    page.goto("/dashboard/sign-in")
    page.get_by_label("E-mail address").fill(EDITOR)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Webhooks").click()
    page.get_by_role("heading", name="Deliveries").wait_for()
    assert _fits(page)
    _picture(page, f"webhooks-wide-{scheme}")
    page.set_viewport_size({"width": 360, "height": 740})
    assert _fits(page), "the list scrolls sideways on a phone"
    _picture(page, f"webhooks-phone-{scheme}")
    page.get_by_role("link", name="Dead", exact=True).click()
    page.locator(f'a[href="/dashboard/webhooks/{delivery}"]').focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="contact.created").wait_for()
    assert _fits(page), "a delivery scrolls sideways on a phone"
    _picture(page, f"delivery-phone-{scheme}")
    assert "ana@shop.example" in page.get_by_label("Payload").inner_text()
    page.set_viewport_size({"width": 1100, "height": 800})
    _picture(page, f"delivery-wide-{scheme}")
    button = page.get_by_role("button", name="Deliver again")
    button.focus()
    assert page.locator("button.main:focus-visible").count() == 1
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("It waits to be delivered again.").wait_for()
    assert page.get_by_role("button", name="Deliver again").count() == 0
    assert elsewhere == []
    context.close()
