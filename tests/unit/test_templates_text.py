"""The plain part made from HTML: what a reader without HTML gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mautolib.templates.text import text_from_html


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two  words</p>", "One\n\nTwo words\n"),
        ("a<br>b", "a\nb\n"),
        ('<a href="https://x.example/a?b=1&amp;c=2">Here</a>.', "Here (https://x.example/a?b=1&c=2).\n"),
        ('<a href="https://x.example/">https://x.example/</a>', "https://x.example/\n"),
        ('<a href="https://x.example/">x.example/</a>', "https://x.example/\n"),
        (
            '<a href="mailto:a@x.example">Write</a> or <a href="tel:+49301">call</a>',
            "Write (a@x.example) or call (+49301)\n",
        ),
        ('<a href="#top">Up</a> <a>no link</a>', "Up no link\n"),
        ('<a href="https://x.example"><img src="i.png" alt="Our shop"></a>', "Our shop (https://x.example)\n"),
        ("<ul><li>a</li><li>b<ol><li>c</li><li>d</li></ol></li></ul>", "- a\n- b\n  1. c\n  2. d\n"),
        ("<h1>Big</h1><p>x</p><h2>Less</h2>", "Big\n===\n\nx\n\nLess\n----\n"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc\n"),
        ("<head><title>t</title></head><style>p{}</style><p>x</p>", "x\n"),
        ('<div style="display:none">pre<br>header</div><p aria-hidden="true">W</p><p hidden>h</p>x', "x\n"),
        ("<!--[if mso]><p>Outlook</p><![endif]--><p>all</p>", "all\n"),
        ("a&nbsp;&amp;&zwnj;&lt;b", "a &<b\n"),
        ("<p>a <b>b</b><i>c</i> , d</p>", "a bc , d\n"),
        ("", ""),
        ("<p> </p>", ""),
    ],
)
def test_html_as_text(html: str, text: str) -> None:
    assert text_from_html(html) == text


def test_marks_survive_where_they_stand() -> None:
    html = (
        "<h1>Hi {{ name|default('you') }}</h1>{% for x in xs %}<p>{{ x.a < 3 }}</p>{% endfor %}"
        '<a href="{{ url }}">go</a>{# note #}'
    )
    assert text_from_html(html) == (
        "Hi {{ name|default('you') }}\n===========\n\n{% for x in xs %}\n{{ x.a < 3 }}\n\n{% endfor %}go ({{ url }})\n"
    )


def test_a_hidden_statement_still_counts_and_marks_can_be_left_out() -> None:
    html = '<div style="display:none">{% set a = 1 %}{{ b }}</div><p>{{ a }}x</p>'
    assert text_from_html(html) == "{% set a = 1 %}\n{{ a }}x\n"
    assert text_from_html(html, keep_marks=False) == "x\n"


@given(st.text(alphabet="<>/ab\"'= {}%#!-&;\n", max_size=200))
def test_any_source_gives_text(html: str) -> None:
    text = text_from_html(html)
    assert text == "" or text.endswith("\n")
    assert "\n\n\n" not in text
