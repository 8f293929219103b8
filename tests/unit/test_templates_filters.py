"""Filters: dates, numbers and amounts as every country reads them, and nothing that grows without bound."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.exceptions import TemplateRuntimeError

from mautolib.templates import filters
from mautolib.templates.compile import compile_template

WHEN = "2026-11-22T23:30:00Z"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ v|date }}", "2026-11-22"),
        ("{{ v|date('%d %B %Y, %H:%M') }}", "22 November 2026, 23:30"),
        ("{{ v|date('%Y-%m-%d %H:%M', 'Europe/Berlin') }}", "2026-11-23 00:30"),
        ("{{ '2026-03-29'|date('%d.%m.') }}", "29.03."),
        ("{{ 0|date }}", "1970-01-01"),
        ("{{ 'soon'|date }}{{ ''|date }}{{ none|date }}", "soon"),
        (
            "{{ 1234567.5|number }} {{ '1234.50'|number }} {{ 1000|number }} {{ 0|number }}",
            "1,234,567.5 1,234.5 1,000 0",
        ),
        ("{{ 1234.505|number(2) }} {{ 2.5|number(0) }} {{ -1234|number(1) }}", "1,234.51 3 -1,234.0"),
        ("{{ 'many'|number }}{{ none|number }}{{ true|number }}", "manyTrue"),
        ("{{ 1234.5|money('EUR') }} {{ '0.005'|money('eur') }}", "1,234.50 EUR 0.01 EUR"),
        ("{{ 1234.5|money('JPY') }} {{ 1|money('KWD') }} {{ 2|money }}", "1,235 JPY 1.000 KWD 2.00"),
        ("{{ 2.5|round }} {{ 1.005|round(2) }} {{ 'x'|round }}", "3 1.01 x"),
        ("{{ '12px'|int(5) }} {{ '12.9'|int }} {{ none|float }}", "5 12 0.0"),
        ("{{ 'a b&c'|urlencode }}", "a%20b%26c"),
        ("{{ 'one two three'|truncate(9) }} {{ 'onetwothree'|truncate(6, true, '') }}", "one... onetwo"),
        ("{{ 'aXbX'|replace('X', '-') }} {{ 'abc'|replace('', '-') }}", "a-b- abc"),
        ("{{ [1, 'b', none]|join('+') }} {{ [{'a': 1}, {'a': 2}]|join('/', attribute='a') }}", "1+b+ 1/2"),
        ("{{ [{'p': '1.10'}, {'p': 2.2}, {'q': 1}]|sum('p') }} {{ [1, 2]|sum }}", "3.3 3"),
        ("{{ [{'n': 'b'}, {'n': 'a'}]|sort(attribute='n')|map(attribute='n')|join }}", "ab"),
        ("{{ ['a', 'b']|map('upper')|join }} {{ [1, 2, 3]|select('odd')|list|length }}", "AB 2"),
        ("{{ 'anna'|title }} {{ 'ANNA'|capitalize }} {{ ' x '|trim }} {{ 5|string ~ 5 }}", "Anna Anna x 55"),
    ],
)
def test_filters(source: str, expected: str) -> None:
    compiled = compile_template("s", "h", source, variables=["v"])
    assert compiled.problems == ()
    assert compiled.render({"v": WHEN}).text == expected


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (filters.date, (WHEN, "%1000000000Y")),
        (filters.date, (WHEN, "%")),
        (filters.date, (WHEN, "%x")),
        (filters.date, (WHEN, "%H", "Europe/Nowhere")),
        (filters.date, (WHEN, "%H", "../../etc/passwd")),
        (filters.number, (1, 10**9)),
        (filters.rounded, (1, 10**9)),
        (filters.truncate, ("x" * 10, -5)),
        (filters.replace, ("a" * 1_000_000, "a", "b" * 1_000_000)),
        (filters.join, (["a"] * 1_000_000, "b" * 1_000_000)),
        (filters.shown, (iter([]),)),
    ],
)
def test_unreasonable_arguments_are_refused(call: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TemplateRuntimeError):
        call(*arguments)


def test_a_batch_has_a_bound() -> None:
    with pytest.raises(TemplateRuntimeError):
        list(filters.batch([1], 10**9))


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://x.example/a:b", True), ("HTTP://x", True), ("mailto:a@x", True), ("tel:+49", True),
        ("/a?b=c:d", True),
        ("", True), ("javascript:alert(1)", False), (" JaVa\tScript:alert(1)", False), ("data:text/html,x", False),
        ("file:///etc/passwd", False), (":x", False), ("\u200bjavascript:x", False), ("vbscript:x", False),
        ("java\x00script:x", False), ("\xa0javascript:x", False), ("x:https://y", False),
    ],
)  # fmt: skip
def test_only_allowed_schemes_pass(address: str, kept: bool) -> None:
    assert filters._url(address) == (address if kept else "#")
