"""A hostile mail in the sink runs and loads nothing; the starters fit a phone."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from mautolib.stack.mailsink import MailSink
from mautolib.templates.compile import compile_template
from mautolib.templates.starters import STARTERS, starter

ATTACK = """<script>alert('script')</script><script src="{canary}/s.js"></script>
<img src="{canary}/i.gif" onerror="alert('onerror')"><img src=x onerror="alert('broken')">
<link rel="stylesheet" href="{canary}/c.css"><link rel="prefetch" href="{canary}/p">
<style>@import "{canary}/c2.css"; body {{ background: url({canary}/b.png) }}
@font-face {{ font-family: f; src: url({canary}/f) }}
p {{ font-family: f }}</style>
<p onclick="alert(1)" style="background:url({canary}/s.png)">text</p><iframe src="{canary}/frame"></iframe>
<iframe srcdoc="<script>parent.alert(1)</script>"></iframe><object data="{canary}/o"></object><embed src="{canary}/e">
<video src="{canary}/v" autoplay></video><svg onload="alert('svg')"><image href="{canary}/svg.png"/></svg>
<meta http-equiv="refresh" content="0;url={canary}/refresh"><base href="{canary}/">
<form action="{canary}/form"><input name=a autofocus onfocus="alert('focus')"><button>Send</button></form>
<a id="out" href="{canary}/link" target="_top">go</a><a id="js" href="javascript:alert('js')">js</a>"""


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[MailSink]:
    with MailSink(tmp_path / "mail") as running:
        yield running


def receive(sink: MailSink, html: str, subject: str = "s") -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@shop.example", "b@mail.example", subject
    message.set_content("text")
    message.add_alternative(html, subtype="html")
    with smtplib.SMTP("127.0.0.1", sink.smtp_port) as smtp:
        smtp.send_message(message)


def test_a_hostile_mail_runs_nothing_and_calls_nobody(chromium: Any, sink: MailSink) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.5)
        address = f"http://127.0.0.1:{canary.getsockname()[1]}"
        receive(sink, ATTACK.format(canary=address), subject="<img src=x onerror=alert(1)>")
        page = chromium.new_page()
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        for path in ("/", "/messages/1", "/messages/1?show=links", "/messages/1?show=source", "/messages/1/html"):
            page.goto(sink.url + path)
            page.wait_for_load_state("networkidle")
        page.goto(sink.url + "/messages/1")
        frame = page.frame_locator("iframe")
        assert frame.locator("p").inner_text() == "text"
        for target in ("#out", "#js", "button", "p"):
            frame.locator(target).click()
        page.wait_for_load_state("networkidle")
        assert page.url == sink.url + "/messages/1"
        assert dialogs == []
        with pytest.raises(TimeoutError):
            canary.accept()
        page.close()


def test_the_pages_work_without_a_mouse_or_a_script(chromium: Any, sink: MailSink) -> None:
    receive(sink, "<p>one</p>", "First")
    receive(sink, "<p>two</p>", "Second")
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 360, "height": 700})
    page = context.new_page()
    page.goto(sink.url)
    page.get_by_label("Search mails").fill("first")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="First").click()
    assert page.get_by_role("heading", name="First").is_visible()
    page.get_by_role("link", name="Newer").click()
    assert page.get_by_role("heading", name="Second").is_visible()
    page.get_by_role("link", name="Text", exact=True).click()
    assert page.locator("pre").inner_text() == "text\n"
    page.get_by_text("Delete all").click()
    page.get_by_role("button", name="Yes, delete 2 messages").click()
    assert page.get_by_text("No mail yet").is_visible() and sink.count() == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("key", STARTERS)
def test_a_starter_fits_every_width(chromium: Any, key: str, scheme: str) -> None:
    names = {
        "contact": {"first_name": "Bartholomäus-Maximilian"},
        "event": {"currency": "EUR", "total": "1184.40",
                  "lines": [{"name": "Wool jacket, forest green", "quantity": 1, "unit_price": "1149.50"}]},
    }  # fmt: skip
    html = compile_template(starter(key).subject, starter(key).html_body).render(names).html
    context = chromium.new_context(color_scheme=scheme)
    page = context.new_page()
    page.set_content(html)
    for width in (320, 375, 700, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
        card = page.locator("table.card").first.bounding_box()
        assert card["width"] == min(600, width) or card["width"] == min(600, width - 32)
        assert page.locator("table.card a").last.is_visible()
    context.close()
