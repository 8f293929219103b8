"""Where things stand in a template's source, whatever quotes, comments and expressions are between."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mautolib.templates.markup import Kind, find_marks, mask, scan


def values(source: str) -> list[tuple[str, str, str]]:
    return [(found.tag, found.name, source[found.start : found.end]) for found in scan(source).attributes]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('<a href="x" title=y>', [("a", "href", "x"), ("a", "title", "y")]),
        ("<A HREF = 'x&amp;y'>", [("a", "href", "x&amp;y")]),
        ('<a {% if a > 1 %}href="{{ "}}>" }}"{% endif %} id=b>', [("a", "href", '{{ "}}>" }}'), ("a", "id", "b")]),
        ("<a href='{{ a[\"b\"] }}'>", [("a", "href", '{{ a["b"] }}')]),
        ("<a href={{ url }} b=c>", [("a", "href", "{{ url }}"), ("a", "b", "c")]),
        ("<!-- <a href=x> --><i id=y>", [("i", "id", "y")]),
        ('<!--[if mso]><v:rect href="x"><![endif]--><p id=y>', [("v:rect", "href", "x"), ("p", "id", "y")]),
        ('<!--[if !mso]><!--><a href="x"><!--<![endif]-->', [("a", "href", "x")]),
        ("<script>'<a href=x>'</script><a href=y>", [("a", "href", "y")]),
        ("<style>a[href=x]{}</STYLE ><a href=y>", [("a", "href", "y")]),
        ('{% raw %}<a href="{{ x">{% endraw %}', [("a", "href", "{{ x")]),
        ("{{ {'a': {'b': 1}} }}<a href=y>", [("a", "href", "y")]),
        ("{# <a href=x> #}<a href=y>", [("a", "href", "y")]),
        ("1 < 2 <a href=y></a href=z>", [("a", "href", "y")]),
        ('<a href="unclosed', []),
    ],
)
def test_attributes_are_found(source: str, expected: list[tuple[str, str, str]]) -> None:
    assert values(source) == expected


def test_regions_say_what_a_place_is() -> None:
    source = '<style>{{ a }}</style><p {{ b }} title="{{ c }}">{{ d }}<!-- {{ e }} --><script>{{ f }}</script>'
    markup = scan(source)
    kinds = [
        region.kind if region else Kind.TEXT for region in map(markup.region_at, (m.start for m in markup.marks))
    ]
    assert kinds == [Kind.VERBATIM, Kind.TAG, Kind.VALUE, Kind.TEXT, Kind.COMMENT, Kind.VERBATIM]


@given(st.text(alphabet="{}%#<>/a=\"' \n-!rawend|[]if", max_size=200))
def test_any_text_is_scanned_with_offsets_inside_it(source: str) -> None:
    markup = scan(source)
    assert len(markup.masked) == len(source)
    position = 0
    for region in markup.regions:
        assert position <= region.start <= region.end <= len(source)
        position = region.end
    assert mask(source, find_marks(source)) == markup.masked


@pytest.mark.parametrize(
    "piece", ["{{", '{{ "\\"', "<a ", '<a href="', "<!--", "<a x=", "<style>", "<!--[if", "{{ ' }}", "{% raw %}"]
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    small, large = piece * (20_000 // len(piece)), piece * (200_000 // len(piece))

    def seconds(source: str) -> float:
        # Of this thread alone, and the best of three: other tests' servers live in this process.
        begun = [time.thread_time()]
        for _ in range(3):
            scan(source)
            begun.append(time.thread_time())
        return min(after - before for before, after in pairwise(begun))

    assert seconds(large) < 60 * max(seconds(small), 0.002)
