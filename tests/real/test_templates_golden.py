"""Every published template converts, renders, keeps its links and becomes a mail (golden/templates.csv)."""

from __future__ import annotations

import csv
import os
import re
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from mautolib.campaigns.building import Blueprint
from mautolib.events.links import LinkSigner
from mautolib.ledger.model import NewContent
from mautolib.settings import Settings
from mautolib.templates.compile import compile_template
from mautolib.templates.convert import convert
from mautolib.templates.links import Link, find_links
from tests.security.test_e_messages import claimed
from tests.unit.test_message_assembly import SETTINGS, WHEN

FOLDER = Path(os.environ.get("MAUTO_REAL_DATA", ".")) / "templates"
FILES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.html"))
ROWS = [{"description": f"Thing {n}", "amount": f"{n}.00"} for n in (1, 2)]
FILE = {"attachment_name": "plan.pdf", "attachment_size": "2 MB", "attachment_type": "PDF"}
LISTS: dict[str, Any] = {"receipt_details": ROWS, "invoice_details": ROWS, "attachment_details": [FILE]}


def values_for(source: str) -> dict[str, Any]:
    """A value for every name: addresses for links, words for the rest, lists for blocks."""
    names = set(re.findall(r"\{\{\s*([a-z_]+)\s*\}\}", source))
    words = {
        name: f"https://shop.example/{name}?a=1&b=2" if name.endswith("_url") else f"<{name}>" for name in names
    }
    return {**words, **LISTS}


@pytest.fixture(scope="module")
def golden(data: Path) -> dict[str, dict[str, str]]:
    with (data / "golden" / "templates.csv").open(encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def counted(links: tuple[Link, ...]) -> dict[str, int]:
    schemes = [link.url.split(":")[0].lower() if ":" in link.url else "" for link in links]
    return {
        "anchors": len(links),
        "http_anchors": sum(
            scheme in ("http", "https") and not link.dynamic for scheme, link in zip(schemes, links, strict=True)
        ),
        "placeholder_anchors": sum(link.dynamic for link in links),
        "mailto_tel": sum(scheme in ("mailto", "tel") for scheme in schemes),
    }


def test_there_are_39(golden: dict[str, dict[str, str]]) -> None:
    assert len(FILES) == 39 and set(FILES) == set(golden)


@pytest.mark.parametrize("file", FILES)
def test_a_template_converts_renders_and_keeps_its_links(file: str, golden: dict[str, dict[str, str]]) -> None:
    source = (FOLDER / file).read_text(encoding="utf-8")
    expected = {name: int(golden[file][name]) for name in counted(())}
    made = convert(source)
    assert made.warnings == ()
    links = [link for link in find_links(made.template) if link.tag == "a"]
    found = counted(tuple(links))
    assert found == expected, file
    values = values_for(source)
    compiled = compile_template("Subject", made.template, variables=list(values))
    assert compiled.problems == ()
    rendered = compiled.render(values)
    # One of them explains the placeholders, and shows one.
    shows_one = r"\{{" in source
    for text in (rendered.html, rendered.text):
        assert text.count("{{") == (1 if shows_one else 0) and "{%" not in text
    after = [link for link in find_links(rendered.html) if link.tag == "a"]
    assert len(after) == expected["anchors"]
    whole = sum(link.dynamic and link.url.startswith("{{") for link in links)
    assert counted(tuple(after))["http_anchors"] == expected["http_anchors"] + whole
    for name in set(re.findall(r"\{\{\s*([a-z_]+)\s*\}\}", source)) - set(ROWS[0]) - set(FILE) - {"value"}:
        assert values[name] in unescape(rendered.html), name
    if "#each" in source:
        wanted = "plan.pdf" if "attachment_details" in source else "Thing 2"
        assert wanted in rendered.html and wanted in rendered.text


@pytest.mark.parametrize("file", FILES)
def test_a_template_becomes_a_mail(file: str, golden: dict[str, dict[str, str]]) -> None:
    source = (FOLDER / file).read_text(encoding="utf-8")
    content = NewContent(subject="Subject", html_body=convert(source).template, campaign_id=3)
    settings: Settings = SETTINGS
    blueprint = Blueprint(content, settings=settings, signer=LinkSigner.from_settings(settings))
    data = blueprint.write(claimed()._replace(context=values_for(source)), WHEN).data
    message = message_from_bytes(data, policy=default)
    assert isinstance(message, EmailMessage) and not message.defects
    html, text = message.get_body(("html",)), message.get_body(("plain",))
    assert html is not None and text is not None
    assert html.get_content().count("/api/v1/track/click/") == int(golden[file]["http_anchors"])
    assert "Example Shop, 1 High Street, Berlin" in html.get_content() and len(text.get_content()) > 100
    folder = os.environ.get("KEEP_RENDERED")
    if folder:
        (Path(folder) / (file.replace("/", "--"))).write_text(html.get_content(), encoding="utf-8")


@pytest.mark.parametrize("file", sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("content.txt")))
def test_a_plain_text_converts(file: str) -> None:
    source = (FOLDER / file).read_text(encoding="utf-8")
    values = values_for(source)
    compiled = compile_template("s", "<p>h</p>", convert(source).template, variables=list(values))
    assert compiled.problems == ()
    assert compiled.render(values).text.count("{{") == (1 if r"\{{" in source else 0)
