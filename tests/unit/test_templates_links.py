"""Links, pixel and footer in a template's source."""

from __future__ import annotations

import html as html_text

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mautolib.templates.links import add_pixel, add_preheader, ensure_footer, find_links, rewrite_links
from mautolib.templates.text import text_from_html

UNSUBSCRIBE = "{{ unsubscribe_url }}"


def numbered(html: str) -> tuple[str, list[str]]:
    seen: list[str] = []

    def replace(url: str, index: int) -> str:
        assert index == len(seen)
        seen.append(url)
        return f"{{{{ links[{index}] }}}}"

    return rewrite_links(html, replace), seen


@pytest.mark.parametrize(
    ("html", "expected", "urls"),
    [
        ('<a href="https://x/?a=1&amp;b=2">', '<a href="{{ links[0] }}">', ["https://x/?a=1&b=2"]),
        ("<a class=c href='http://x' id=d>", "<a class=c href='{{ links[0] }}' id=d>", ["http://x"]),
        ("<a href=https://x/y>", '<a href="{{ links[0] }}">', ["https://x/y"]),
        ('<A\n HREF = " HTTPS://X " >', '<A\n HREF = "{{ links[0] }}" >', ["HTTPS://X"]),
        (
            '<a href="https://x/1">a</a><area href="https://x/2">',
            '<a href="{{ links[0] }}">a</a><area href="{{ links[1] }}">',
            ["https://x/1", "https://x/2"],
        ),
        ('<v:roundrect href="https://x">', '<v:roundrect href="{{ links[0] }}">', ["https://x"]),
        ('<a href="https://x/?q={{ q }}">', None, []),
        ('<a href="{{ url }}">', None, []),
        ('<a href="mailto:a@x"><a href="tel:1"><a href="#a"><a href="/a"><a href="">', None, []),
        ('<img src="https://x"><link href="https://x">', None, []),
        ('<a href="#" href="https://x">', None, []),
        ("<!-- <a href='https://x'> --><script><a href='https://x'></script>", None, []),
        ('{{ "<a href=https://x>" }}', None, []),
    ],
)
def test_static_web_links_are_replaced(html: str, expected: str | None, urls: list[str]) -> None:
    assert numbered(html) == (html if expected is None else expected, urls)


def test_a_new_address_is_escaped_and_its_marks_are_not() -> None:
    html = rewrite_links("<a href='https://x'>", lambda url, index: 'https://t/?u=1&v="\'{{ a["b"] }}')
    assert html == "<a href='https://t/?u=1&amp;v=&quot;&#x27;{{ a[\"b\"] }}'>"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(['"', "'"]),
            st.text(alphabet="abc/?&=;#%.:é ", max_size=20).map(lambda tail: "https://x.example/" + tail.strip()),
        ),
        max_size=8,
    )
)
def test_what_a_browser_reads_is_what_is_given_and_only_that_changes(links: list[tuple[str, str]]) -> None:
    html = "".join(f"<p>t</p><a href={quote}{html_text.escape(url)}{quote}>x</a>" for quote, url in links)
    rewritten, seen = numbered(html)
    assert seen == [url for _, url in links]
    back = rewrite_links(html, lambda url, index: url)
    assert [link.url for link in find_links(back)] == [url for _, url in links]
    assert rewritten.count("<p>t</p>") == len(links)


def test_dynamic_links_are_marked() -> None:
    assert [(link.url, link.dynamic) for link in find_links('<a href="{{ u }}"><a href="https://x">')] == [
        ("{{ u }}", True),
        ("https://x", False),
    ]


def test_the_pixel_is_the_last_thing_of_the_body() -> None:
    html = add_pixel("<body><p>x</p></BODY ></html>", "https://t/?a=1&b=2")
    assert html.startswith('<body><p>x</p><img src="https://t/?a=1&amp;b=2" width="1"')
    assert html.endswith("></BODY ></html>")
    assert add_pixel("x", "{{ p }}").startswith('x<img src="{{ p }}"')


def test_the_preheader_comes_first_and_is_hidden_from_the_text() -> None:
    html = add_preheader("<html><body class=a><p>x</p></body>", "50% <off> {{ name }}")
    assert html.index("<body class=a>") < html.index("50% &lt;off&gt; {{ name }}") < html.index("<p>x")
    assert text_from_html(html) == "x\n"
    assert add_preheader("<p>x</p>", " ") == "<p>x</p>"


def test_a_footer_is_added_once_where_it_is_missing() -> None:
    html, text = ensure_footer("<body><p>x</p></body>", "Hello", UNSUBSCRIBE, "Shop & Co\n1 Street", "en")
    assert html.count(UNSUBSCRIBE) == 1 and "Shop &amp; Co 1 Street" in html and html.endswith("</body>")
    assert text == "Hello\n\n-- \nUnsubscribe: {{ unsubscribe_url }}\nShop & Co 1 Street\n"
    assert ensure_footer(html, text, UNSUBSCRIBE, "Shop & Co\n1 Street", "en") == (html, text)


def test_a_body_with_its_own_link_gets_the_address_only() -> None:
    html, text = ensure_footer('<a href="{{unsubscribe_url}}">bye</a>', "", UNSUBSCRIBE, "1 Street")
    assert html.count("unsubscribe_url") == 1 and "1 Street" in html
    assert text == ""
    same = '<a href="{{ unsubscribe_url }}">bye</a> 1 Street'
    assert ensure_footer(same, "", UNSUBSCRIBE, "1 Street")[0] == same


def test_the_word_alone_is_no_link() -> None:
    html, _ = ensure_footer("<p>the unsubscribe_url</p>", "", UNSUBSCRIBE, "")
    assert '<a class="mauto-footer" href="{{ unsubscribe_url }}"' in html


@pytest.mark.parametrize(
    ("language", "label", "direction"),
    [("de", "Abmelden", "ltr"), ("pt-BR", "Cancelar inscrição", "ltr"), ("he_IL", "להסרה מרשימת התפוצה", "rtl"),
     ("ar", "إلغاء الاشتراك", "rtl"), ("xx", "Unsubscribe", "ltr"), ("", "Unsubscribe", "ltr")],
)  # fmt: skip
def test_the_footer_speaks_the_language(language: str, label: str, direction: str) -> None:
    html, _ = ensure_footer("<p>x</p>", "", UNSUBSCRIBE, "1 Street", language)
    assert f">{label}</a>" in html and f'dir="{direction}"' in html
    assert '<span class="mauto-footer" dir="auto">1 Street</span>' in html


def test_an_address_cannot_be_a_template() -> None:
    html, text = ensure_footer("<p>x</p>", "x", UNSUBSCRIBE, "{{ 7*7 }} <b>")
    assert "{{ '{' }}{ 7*7 }} &lt;b&gt;" in html
    assert "{{ '{' }}{ 7*7 }} <b>" in text
