"""The starters: valid, self-contained, and good with and without data."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mautolib.templates.compile import CompiledTemplate, compile_template
from mautolib.templates.links import ensure_footer, find_links
from mautolib.templates.markup import scan
from mautolib.templates.starters import STARTERS, starter

FULL: dict[str, Any] = {
    "contact": {"first_name": "Zoë <b>"},
    "event": {
        "currency": "JPY", "total": "12300",
        "lines": [{"name": "Cup & saucer", "quantity": 2, "unit_price": "4100"}, {"name": "Pot", "unit_price": 4100}],
    },
    "unsubscribe_url": "https://mail.example/u", "preferences_url": "https://mail.example/p",
    "now": "2026-11-22T10:00:00Z",
}  # fmt: skip


def compiled(key: str) -> CompiledTemplate:
    new = starter(key)
    return compile_template(new.subject, new.html_body, new.text_body, strict=True)


@pytest.mark.parametrize("key", STARTERS)
def test_a_starter_has_no_problem_even_strictly(key: str) -> None:
    found = compiled(key)
    assert (found.problems, found.warnings, found.undeclared) == ((), (), ())
    rendered = found.render(FULL)
    assert rendered.subject and "Zoë &lt;b&gt;" in rendered.html and "Zoë <b>" in rendered.text


@pytest.mark.parametrize("key", STARTERS)
def test_a_starter_reads_well_without_a_name(key: str) -> None:
    found = compile_template(starter(key).subject, starter(key).html_body)
    rendered, warnings = found.preview(
        {"contact": {"first_name": ""}, "event": {}, "unsubscribe_url": "u", "preferences_url": "p"}
    )
    assert warnings == ()
    for text in (rendered.subject, rendered.text):
        assert not re.search(r" ,|,,|\{|\}|None|  ,|^,", text), text
    assert rendered.subject[0].isupper() and len(rendered.subject) <= 60


@pytest.mark.parametrize("key", STARTERS)
def test_a_starter_loads_nothing_and_can_be_left(key: str) -> None:
    html = starter(key).html_body
    markup = scan(html)
    assert not {name for name, _, _ in markup.tags} & {"img", "script", "link", "iframe", "form", "object", "video"}
    assert "url(" not in html and "@import" not in html
    links = find_links(html)
    assert all(link.url.startswith("https://shop.example/") for link in links if not link.dynamic)
    assert "{{ unsubscribe_url }}" in {link.url for link in links}
    assert len([link for link in links if not link.dynamic]) >= 3
    assert ensure_footer(html, "", "{{ unsubscribe_url }}", "", "en") == (html, "")


@pytest.mark.parametrize("key", STARTERS)
def test_a_starter_suits_mail_programs(key: str) -> None:
    html = starter(key).html_body
    assert len(html.encode()) < 20_000
    for needed in ('name="viewport"', "prefers-color-scheme: dark", "max-width: 600px", 'role="presentation"',
                   "<!--[if mso]>", "mso-padding-alt", "display:none;max-height:0", "<title>"):  # fmt: skip
        assert needed in html, needed
    tables = len(re.findall('<table(?![^>]*role="presentation")', html))
    assert tables == 0, "a layout table must not be read out as data"


@pytest.mark.parametrize("key", STARTERS)
def test_a_starter_does_without_a_preference_page(key: str) -> None:
    names = {name: value for name, value in FULL.items() if name != "preferences_url"}
    rendered = compiled(key).render(names)
    assert 'href=""' not in rendered.html and "()" not in rendered.text
    assert "Unsubscribe (https://mail.example/u)" in rendered.text


def test_the_cart_lists_what_is_in_it() -> None:
    text = compiled("cart").render(FULL).text
    assert "Cup & saucer\n\nQuantity 2\n\n4,100 JPY" in text and "Quantity 1" in text
    assert "Total 12,300 JPY" in text
    assert "Everything is still in your cart" not in text
    empty = compile_template("s", starter("cart").html_body).render(FULL | {"event": {}}).text
    assert "Everything is still in your cart" in empty and "Total" not in empty
