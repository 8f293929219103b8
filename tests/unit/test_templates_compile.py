"""Compiling and rendering: what comes out, what is refused, what is only a warning."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from mautolib.errors import InvalidInput
from mautolib.templates.compile import CompiledTemplate, Problem, compile_template
from mautolib.templates.data import MAX_ITEMS, plain

CONTACT: dict[str, Any] = {"first_name": "Ada", "custom_fields": {"items": "ten", "size": None}}


def html_of(source: str, /, **names: Any) -> str:
    compiled = compile_template("s", source, "t", variables=list(names))
    assert compiled.problems == ()
    return compiled.render({"contact": CONTACT, **names}).html


def text_of(source: str, /, **names: Any) -> str:
    compiled = compile_template("s", "h", source, variables=list(names))
    assert compiled.problems == ()
    return compiled.render({"contact": CONTACT, **names}).text


def problems_of(html: str, *, strict: bool = False, subject: str = "s") -> list[tuple[str, int, str]]:
    found = compile_template(subject, html, "", strict=strict).problems
    return [(problem.part, problem.line, problem.message) for problem in found]


def test_three_parts_are_rendered_and_only_html_is_escaped() -> None:
    compiled = compile_template(
        "Hi {{ contact.first_name }}", "<p>{{ contact.first_name }}</p>", "T {{ contact.first_name }}"
    )
    rendered = compiled.render({"contact": {"first_name": "A & <b>"}})
    assert (rendered.subject, rendered.html, rendered.text) == ("Hi A & <b>", "<p>A &amp; &lt;b&gt;</p>", "T A & <b>")


def test_an_empty_text_is_made_from_the_html_and_is_not_escaped() -> None:
    compiled = compile_template("s", "<p>Hi {{ contact.first_name }}</p><p>{% if x %}\nyes{% endif %}</p><p>end</p>")
    assert compiled.render({"contact": {"first_name": "A & B"}}).text == "Hi A & B\n\nend\n"


def test_a_made_text_without_marks_where_they_cannot_leave_their_tags() -> None:
    compiled = compile_template("s", '<p title="{% if a %}x">{{ a }}y{% endif %}</p>')
    assert compiled.problems == ()
    assert compiled.render({}).text == "y\n"


def test_data_comes_before_methods() -> None:
    assert html_of("{{ contact.custom_fields.items }}") == "ten"
    assert html_of("{{ e.get }} {{ e.values() | list | length }}", e={"get": "got", "b": 1}) == "got 2"


def test_methods_and_calculations_that_are_allowed() -> None:
    assert html_of("{{ contact.first_name.upper() }}") == "ADA"
    assert html_of("{{ a.replace('x', 'y') }} {{ a[0] }} {{ a[1:3] }}", a="xabx") == "yaby x ab"
    assert html_of("{{ 2 * 3.5 }} {{ 7 // 2 }} {{ 2 ** 10 }} {{ 'a' + 'b' }} {{ [1] + [2] }}") == "7.0 3 1024 ab 1, 2"
    assert (
        html_of("{% for x in xs %}{{ loop.index }}{{ x }}{{ loop.cycle('a', 'b') }}{% endfor %}", xs=[5, 6])
        == "15a26b"
    )
    assert html_of("{% macro m(x) %}<i>{{ x }}</i>{% endmacro %}{{ m('<') }}") == "<i>&lt;</i>"
    assert html_of("{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}") == "[in]"
    assert html_of("{% for i in range(3) %}{{ i }}{% endfor %}{% set a = 'x' ~ 1 ~ none %}{{ a }}") == "012x1"
    assert html_of("{% for row in xs|batch(2) %}[{{ row|join('-') }}]{% endfor %}", xs=[1, 2, 3]) == "[1-2][3]"


def test_none_is_empty_everywhere() -> None:
    assert (
        html_of(
            "[{{ contact.custom_fields.size }}{{ none|upper }}{{ none|title }}{{ none|truncate(5) }}{{ none|money }}]"
        )
        == "[]"
    )


def test_a_list_is_shown_with_commas_and_an_object_not_at_all() -> None:
    assert html_of("{{ a }}|{{ b }}|{{ a|upper }}", a=["x<", 2, {"y": 1}], b={"k": "v"}) == "x&lt;, 2||X&lt;, 2"


@pytest.mark.parametrize(
    ("source", "warnings"),
    [
        ("{{ nobody }}", ["nobody"]),
        (
            "{{ contact.nick }} {{ contact.custom_fields.shoe.left }}",
            ["contact.nick", "contact.custom_fields.shoe.left"],
        ),
        ("{{ event.cart.total * 2 + 1 }}{{ 1 - event.x }}", ["event.cart.total", "event.x"]),
        ("{% for x in event.lines %}{% endfor %}", ["event.lines"]),
        ("{% if contact.nick %}a{% endif %}{{ contact.nick|default('x') }}", []),
        ("{% if event.total > 100 %}a{% endif %}", ["event.total"]),
        ("{{ contact.nick|upper }}{{ contact.nick|date }}{{ contact.nick|number }}", ["contact.nick"]),
        ("{{ contact['nick'] }}{{ a[5] }}", ["contact.nick", "a.5"]),
        ("{{ 'x' ~ contact.nick }}", ["contact.nick"]),
        ("{{ contact.first_name.nothing }}", ["nothing"]),
    ],
)
def test_an_undefined_name_is_empty_and_told(source: str, warnings: list[str]) -> None:
    compiled = compile_template("s", source, "t", variables=["a"])
    rendered, told = compiled.preview({"contact": CONTACT, "event": {}, "a": [1]})
    assert "Undefined" not in rendered.html and rendered.html.strip() in ("", "1", "x")
    assert list(told) == [f"Undefined variable: {name}" for name in warnings]


@pytest.mark.parametrize(
    "source",
    [
        "{{ event.x }}",
        "{% if event.x %}{% endif %}",
        "{{ event.x == 1 }}",
        "{{ event.x + 1 }}",
        "{{ event.x|upper }}",
    ],
)
def test_a_strict_template_refuses_an_undefined_name(source: str) -> None:
    compiled = compile_template("s", source, "t", strict=True)
    assert compiled.problems == ()
    with pytest.raises(InvalidInput, match=r"^Undefined variable: event\.x$"):
        compiled.render({"event": {}})
    assert compile_template("s", "{{ event.x|default('y') }}", "t", strict=True).render({"event": {}}).html == "y"


def test_a_strict_template_with_an_unknown_name_has_a_problem() -> None:
    assert problems_of("a\n{{ contact.fist_name }}{{ nobody.x }}{{ contact.custom_fields.any }}", strict=True) == [
        ("html_body", 2, "Undefined variable: contact.fist_name"),
        ("html_body", 2, "Undefined variable: nobody.x"),
    ]
    lenient = compile_template("s", "{{ contact.fist_name }}{{ nobody.x }}", "t")
    assert lenient.valid and lenient.undeclared == ("contact.fist_name", "nobody.x")
    assert compile_template("s", "{{ code }}", "t", strict=True, variables=["code"]).valid


def test_variables_are_listed_as_written() -> None:
    compiled = compile_template(
        "{{ campaign.name }}",
        "{% set x = 1 %}{{ x }}{{ contact.custom_fields['size'] }}"
        "{% for line in event.lines %}{{ line.name }}{% endfor %}"
        "{{ contact.first_name.upper() }}{{ event.rows[0].name }}",
        "t",
    )
    assert compiled.variables == (
        "campaign.name", "contact.custom_fields.size", "contact.first_name", "event.lines", "event.rows",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("a\n\n{{ x", 3, "Template syntax error: unexpected end of template, expected 'end of print statement'."),
        ("{% nosuch %}", 1, "Template syntax error: Encountered unknown tag 'nosuch'."),
        ("{{ x|uper }}", 1, "unknown filter 'uper'; did you mean 'upper'?"),
        ("{{ x|_url }}", 1, "unknown filter '_url'"),
        ("{% if x is weird %}{% endif %}", 1, "unknown test 'weird'"),
        ("\n{% include 'x' %}", 2, "{% include %} is not available in mail templates"),
        ("{% extends 'x' %}", 1, "{% extends %} is not available in mail templates"),
        ("{% import 'x' as y %}", 1, "{% import %} is not available in mail templates"),
        ("{% block a %}{% endblock %}", 1, "{% block %} is not available in mail templates"),
        (
            "{% autoescape false %}{{ x }}{% endautoescape %}",
            1,
            "{% autoescape %} is not available in mail templates",
        ),
        ("{{ x.__class__ }}", 1, "names that begin with an underscore are not available: __class__"),
        ("{{ x['_y'] }}", 1, "names that begin with an underscore are not available: _y"),
        ("{{ x.format(1) }}", 1, "'format' cannot be called here"),
        ("{{ x() }}", 1, "'x' cannot be called here"),
        ("{% set range = 1 %}", 1, "the name 'range' cannot be given another value"),
        ('<a href="javascript:x()">', 1, "link scheme 'javascript' is not allowed; use http, https, mailto, tel"),
        (
            '<a href=" java&#115;cript:x()">',
            1,
            "link scheme 'javascript' is not allowed; use http, https, mailto, tel",
        ),
        ('<img src="file:///x">', 1, "link scheme 'file' is not allowed; use http, https, mailto, tel"),
    ],
)
def test_problems_name_part_line_and_reason(source: str, line: int, message: str) -> None:
    assert problems_of(source) == [("html_body", line, message)]
    with pytest.raises(InvalidInput) as caught:
        compile_template("s", source).render({})
    assert caught.value.line == line and str(caught.value).startswith(("Template error: ", "Template syntax error: "))


def test_all_problems_of_all_parts_are_found_in_one_look() -> None:
    compiled = compile_template("{{ a|x1 }}", "{{ b|x2 }}\n{{ c|x3 }}", "{{ d")
    assert [(problem.part, problem.line) for problem in compiled.problems] == [
        ("subject", 1), ("html_body", 1), ("html_body", 2), ("text_body", 1),
    ]  # fmt: skip
    assert not compiled.valid


def test_images_by_data_and_links_by_phone_are_fine() -> None:
    assert (
        problems_of('<img src="data:image/gif;base64,R0"><a href="tel:+491"><a href="?a=b:c"><a href="HTTPS://x">')
        == []
    )


def test_a_subject_of_two_lines_is_a_problem_and_values_cannot_make_one() -> None:
    assert problems_of("h", subject="a\nb") == [("subject", 2, "the subject must be one line")]
    compiled = compile_template("Hi {{ contact.first_name }} !\n", "h", "t")
    assert compiled.valid
    name = "A\r\nBcc: x@y\x0b\x0c\x1c\x85\u2028\u2029\x00\tZ"
    assert compiled.render({"contact": {"first_name": name}}).subject == "Hi A Bcc: x@y Z !"


def test_warnings_about_size_and_scripts() -> None:
    compiled = compile_template("s", "<script>x</script>" + "x" * 103_000, "t")
    assert compiled.warnings == (
        "The HTML is larger than 102 KB: Gmail cuts it off",
        "Mail programs do not run scripts",
    )


def test_a_runtime_fault_names_part_and_line() -> None:
    compiled = compile_template("s", "a\n\n{{ 1 / event.zero }}", "t")
    with pytest.raises(InvalidInput, match=r"^Template error: division by zero \(html_body, line 3\)$") as caught:
        compiled.render({"event": {"zero": 0}})
    assert caught.value.code == "template_error" and caught.value.line == 3


def test_whitespace_control_and_raw_survive_protection() -> None:
    source = '<a href="{{- contact.u -}}">{% raw %}{{ x }}{% endraw %}</a><p title={{ contact.t }}>'
    compiled = compile_template("s", source, "t")
    rendered = compiled.render({"contact": {"u": "https://x/?a&b", "t": "a b"}})
    assert rendered.html == '<a href="https://x/?a&amp;b">{{ x }}</a><p title=a&#32;b>'


class Size(enum.StrEnum):
    LARGE = "large"


def test_plain_copies_types_and_cuts_lists() -> None:
    moment = dt.datetime(2026, 11, 22, 9, 30, tzinfo=dt.UTC)
    given = {
        "a": moment, "b": dt.date(2026, 11, 22), "c": Decimal("1.50"), "d": uuid.UUID(int=1), "e": Markup("<b>"),
        "f": Size.LARGE, "g": (1, True, None, 2.5), "h": list(range(5000)), "i": {"j": {"k": [{}]}},
    }  # fmt: skip
    copied = plain(given)
    assert copied["a"] == "2026-11-22T09:30:00Z" and copied["b"] == "2026-11-22" and copied["c"] == "1.50"
    assert type(copied["e"]) is str and type(copied["f"]) is str and copied["g"] == [1, True, None, 2.5]
    assert len(copied["h"]) == MAX_ITEMS
    assert copied["i"] == given["i"] and copied["i"]["j"]["k"] is not given["i"]["j"]["k"]
    with pytest.raises(InvalidInput, match="type object"):
        plain({"a": object()})
    nested: Any = "x"
    for _ in range(50):
        nested = {"a": nested}
    with pytest.raises(InvalidInput, match="nested more than"):
        plain(nested)


@given(st.text(alphabet="{}%|.()[]'\"ab1~+*_ \n<>=/-#", max_size=120))
def test_any_source_compiles_or_says_why(source: str) -> None:
    compiled: CompiledTemplate = compile_template(source, source, source)
    assert all(isinstance(problem, Problem) and problem.message for problem in compiled.problems)
    if compiled.valid:
        try:
            rendered = compiled.render({"a": "<x>", "b": [1, 2]})
        except InvalidInput as error:
            assert str(error).startswith("Template error: ")
        else:
            assert "\n" not in rendered.subject


@given(st.text(max_size=40))
def test_values_are_never_rendered_again_and_always_escaped(value: str) -> None:
    compiled = compile_template("{{ v }}", '<p title="{{ v }}">{{ v }}</p>', "{{ v }}", variables=["v"])
    rendered = compiled.render({"v": value})
    assert rendered.text == value
    assert Markup(rendered.html).unescape() == f'<p title="{value}">{value}</p>' or "&" in value
