"""Threats of group D: what a template, or the data it is filled with, may try.

Elsewhere: D10 (a mail with script shown in a page) in `tests/browser/test_mail_sink.py`, and as an answer of the API in
`tests/api/test_campaign_life.py`; D12 at launch and D13 (edited while sending) in `tests/integration/test_campaigns.py`
and `test_campaign_locales.py`. D16 does not apply: nothing that was uploaded is ever served.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

import mautolib
from mautolib.errors import InvalidInput
from mautolib.templates import render as rendering
from mautolib.templates.compile import CompiledTemplate, compile_template
from mautolib.templates.data import MAX_ITEMS, plain
from mautolib.templates.render import render_limited

CONTACT: dict[str, Any] = {"first_name": "Ada", "custom_fields": {"list": [1, 2], "text": "{0.__class__}"}}

ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''['__cla' ~ 'ss__'] }}",
    "{{ contact['__class__']['__mro__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ contact|attr('keys') }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{a.__class__}'.format_map(contact) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(1) }}",
    "{{ contact.custom_fields.text.format(contact) }}",
    "{{ [contact.custom_fields.text]|map('format', contact)|list }}",
    "{{ ['a']|map(attribute='__class__')|list }}",
    "{{ [contact]|map(attribute='first_name.__class__')|list }}",
    "{{ ['a']|sort(attribute='__class__') }}",
    "{{ ['a']|selectattr('__class__')|list }}",
    "{{ [{'a': 1}]|sum(attribute='__class__') }}",
    "{{ ['a']|join(attribute='__class__') }}",
    "{{ ['a']|unique(attribute='__class__')|list }}",
    "{{ contact|dictsort|first|first|attr('__class__') }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ range.__self__ }}",
    "{{ dict.__bases__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ loop.__class__ }}",
    "{% for x in [1] %}{{ loop._iterator }}{{ loop['__class__'] }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func }}{{ m.name }}{{ m['__globals__'] }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{{ contact.items().__class__ }}",
    "{{ contact.get.__self__ }}",
    "{{ contact.update({'x': 1}) }}",
    "{{ contact.custom_fields.list.append(3) }}",
    "{{ contact.pop('first_name') }}",
    "{% set contact.first_name = 'x' %}",
    "{% set _ = contact.__setitem__('a', 1) %}",
    "{{ ''.join.__self__ }}",
    "{{ 'x'.encode }}",
    "{{ (1).__class__ }}{{ 1.5.real.__class__ }}{{ true.__class__ }}",
    "{{ none.__class__ }}",
    "{{ nothing.__class__ }}{{ nothing._undefined_obj }}",
    "{{ ('a'|e).unescape() }}",
    "{{ ('a'|e).__html__() }}",
    "{{ environment }}{{ context }}{{ resolve }}{{ undefined }}{{ concat }}",
    "{% filter attr('__class__') %}x{% endfilter %}",
    "{{ 'x'|map('__class__')|list }}",
    "{{ ['x']|map('_word', 'a')|list }}{{ 'x'|_counted }}",
    "{{ [1]|select('callable')|list }}",
]


@pytest.fixture(autouse=True, scope="module")
def worker_ends() -> Iterator[None]:
    yield
    rendering._worker.stop()


def outcome(compiled: CompiledTemplate, **names: Any) -> str:
    """What a rendering shows, or `refused`."""
    try:
        return compiled.render({"contact": CONTACT, **names}).html
    except InvalidInput as error:
        assert str(error).startswith(("Template error", "Template syntax error"))
        return "refused"


@pytest.mark.parametrize("source", ESCAPES)
def test_d1_nothing_reaches_out_of_the_sandbox(source: str) -> None:
    before = repr(CONTACT)
    shown = outcome(compile_template("s", source, "t"))
    assert shown == "refused" or not re.search(r"class|function|method|object|globals|module|0x|<|type", shown), shown
    assert repr(CONTACT) == before


def test_d1_stored_format_strings_stay_text() -> None:
    stored = "{contact.__class__} %(x)s {0.__init__}"
    compiled = compile_template("{{ contact.a }}", "{{ contact.a }}", "{{ contact.a|upper }}")
    rendered = compiled.render({"contact": {"a": stored}})
    assert (rendered.subject, rendered.html, rendered.text) == (stored, stored, stored.upper())


class Record:
    """Something of the program that must never get into a template."""

    touched = False

    def delete(self) -> str:
        Record.touched = True
        return "deleted"


def test_d2_only_plain_copies_reach_a_template() -> None:
    compiled = compile_template("s", "{{ contact.delete() }}", "t")
    assert compiled.problems[0].message == "'delete' cannot be called here"
    for value in (Record(), Record, Record().delete, len, {1, 2}, b"x", iter([])):
        with pytest.raises(InvalidInput, match="cannot be used in a template"):
            compile_template("s", "{{ contact }}", "t").render({"contact": value})
    assert not Record.touched
    given = {"a": {"b": [1, {"c": "x"}]}}
    copied = plain(given)
    assert copied == given and copied["a"]["b"][1] is not given["a"]["b"][1]


def test_d2_markup_in_data_is_escaped_like_text() -> None:
    rendered = compile_template("s", "{{ contact.first_name }}", "t").render(
        {"contact": {"first_name": Markup("<b>")}}
    )
    assert rendered.html == "&lt;b&gt;"


@pytest.mark.parametrize(
    "source",
    [
        "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{% from 'x' import y %}", "{% extends 'base' %}",
        "{% include 'x' ignore missing %}", "{{ env }}", "{{ config }}", "{{ settings.secret_keys }}",
        "{{ os.environ }}",
        "{{ request.headers }}", "{{ g }}", "{% do contact.clear() %}", "{% block x %}{% endblock %}",
    ],
)  # fmt: skip
def test_d3_there_is_no_loader_and_nothing_global(source: str) -> None:
    assert outcome(compile_template("s", source, "t")) in ("refused", "")


def bombs() -> list[str]:
    twice = "{% set a = 'xxxxxxxxxx' %}"
    return [
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [1] * 10**9 }}",
        "{{ 'a'|center(10**9) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a'.zfill(10**9) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ 9**9**9 }}",
        "{% set a = 99999999 %}" + "{% set a = a * a %}" * 60 + "{{ a }}",
        "{{ contact.created_at|date('%1000000000Y') }}",
        "{{ range(10**9)|list }}",
        "{{ range(10**9)|join }}",
        "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}" + "{% endfor %}" * 3,
        "{% for a in range(1000) if a in range(1000) %}" + "{% for b in range(1000) %}x{% endfor %}{% endfor %}",
        "{{ lipsum(n=10**6) }}",
        "{{ 'a\n'|indent(10000) }}",
        "{{ 'a b'|wordwrap(1, true, 'x') }}",
        "{{ 'a'|replace('', 'b' ~ 'c') }}{{ ('a' ~ range(1000)|join)|replace('1', range(1000)|join) * 9 }}",
        twice + "{% set a = a ~ a %}" * 40 + "{{ a }}",
        twice + "{% set a = a + a %}" * 40 + "{{ a }}",
        twice + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
        twice + "{% set a = [a, a]|join %}" * 40 + "{{ a }}",
        "{% set a = [1] %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
        "{% set a = [1, 1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a|string }}",
        "{% set a = [1, 1] %}{% set b = [1, 1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40 + "{{ a == b }}",
        "{% set a = {'a': 1} %}" + "{% set a = {'a': a, 'b': a} %}" * 40 + "{{ a|string }}",
        "{% macro m0() %}x{% endmacro %}"
        + "".join(f"{{% macro m{i + 1}() %}}{{{{ m{i}() }}}}{{{{ m{i}() }}}}{{% endmacro %}}" for i in range(40))
        + "{{ m40() }}",
        "{% macro w() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        + "{% call w() %}" * 30
        + "x"
        + "{% endcall %}" * 30,
        "{{ [1]|batch(10**9, 'x')|list }}",
        "{{ 1|round(10**9) }}",
    ]


@pytest.fixture
def no_collection() -> Iterator[None]:
    """No garbage collection while CPU is counted: in the large process of a whole run one takes a second."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("source", bombs())
def test_d4_d5_a_small_source_makes_no_big_work(source: str) -> None:
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shown = outcome(compile_template("s", source, "t"))
    assert shown == "refused" or len(shown) < 10_000
    assert time.process_time() - begun < 1.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024


@pytest.mark.parametrize("source", [bombs()[0], bombs()[14], bombs()[20], "{{ '('*2 }}", "{{ 1/0 }}"])
def test_d4_d5_a_preview_says_what_is_wrong_within_a_second(source: str) -> None:
    render_limited("s", "warm", "t", {})
    begun = time.monotonic()
    with pytest.raises(InvalidInput, match=r"^Template error: ") as caught:
        render_limited("s", source, "t", {})
    assert caught.value.code == "template_error" and time.monotonic() - begun < 2
    assert render_limited("s", "ok", "t", {}).rendered.html == "ok"


def in_worker(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` under the limits of a preview."""
    program = f"from mautolib.templates.worker import *\nconfine()\nallow(RENDER_SECONDS)\n{code}"
    root = str(Path(mautolib.__file__).resolve().parents[1])
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_d4_the_kernel_ends_what_uses_too_much_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert in_worker("while True: pass").returncode == -signal.SIGPROF
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2
    assert in_worker("import re; re.match('(a+)+$', 'a' * 60 + 'b')").returncode == -signal.SIGPROF


def test_d4_memory_is_bounded() -> None:
    assert "MemoryError" in in_worker("x = bytearray(80 * 1024 * 1024)").stderr
    assert in_worker("x = bytearray(40 * 1024 * 1024); print(len(x))").stdout == "41943040\n"


@pytest.mark.parametrize(
    ("expression", "message"),
    [("while True: pass", "takes more than 250 ms"), ("return {'x': 'x' * 10**9}", "needs more than 64 MB"),
     ("raise RuntimeError('fault')", "cannot be rendered")],
)  # fmt: skip
def test_d4_the_answer_says_which_limit_ended_it(expression: str, message: str) -> None:
    code = f"""
import mautolib.templates.worker as worker
def answer(request):
    worker.allow(0.25)
    {expression}
worker.answer = answer
print(worker.in_child({{}})["error"])
"""
    root = str(Path(mautolib.__file__).resolve().parents[1])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.stdout.startswith("Template error: ") and message in ran.stdout


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "source",
    [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% macro m(f) %}{{ f(f) }}{% endmacro %}{{ m(m) }}",
        "{% macro a() %}{% endmacro %}{% macro b(a) %}{{ a(a) }}{% endmacro %}{{ b(b) }}",
        "{% macro m() %}{{ varargs[0](varargs[0]) }}{% endmacro %}{{ m(m) }}",
        "{% macro m() %}x{% endmacro %}{% macro n() %}{{ m() }}{% endmacro %}{% set m = n %}{{ n() }}",
        "{% for x in [[]] recursive %}{{ loop(x) }}{% endfor %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "[" * 5000 + "]" * 5000 + " }}",
        "{{ " + "-" * 5000 + "1 }}",
        "{{ " + "not " * 5000 + "1 }}",
        "{{ 1" + "|abs" * 5000 + " }}",
        "{{ 1" + "+1" * 5000 + " }}",
        "{{ a" + ".a" * 5000 + " }}",
        "{{ a" + " if a else a" * 5000 + " }}",
        "{% if a %}" * 500 + "{% endif %}" * 500,
        "{% for a in b %}" * 30 + "{% endfor %}" * 30,
        "{% if a %}" + "{% elif a %}" * 1900 + "{% endif %}",
        "{{ a }}" * 5000,
    ],
)
def test_d6_recursion_and_depth_are_refused_when_saved(source: str) -> None:
    begun = time.process_time()
    compiled = compile_template("s", source, "t")
    assert not compiled.valid or outcome(compiled) == ""
    assert time.process_time() - begun < 2
    assert render_limited("s", "alive", "t", {}).rendered.html == "alive"


def test_d7_output_images_and_source_have_limits() -> None:
    compiled = compile_template("s", "<img src=x>" * 101, "t")
    assert compiled.problems[0].message == "more than 100 images"
    assert compile_template("s", "<img src=x>" * 100, "t").valid
    with pytest.raises(InvalidInput, match=r"^Template error: output exceeds 1000000 characters"):
        render_limited("s", "{{ a }}" * 11, "t", {"a": "x" * 100_000})
    too_long = compile_template("s", "x" * (1024 * 1024 + 1), "")
    assert [problem.message for problem in too_long.problems] == ["longer than 1024 KiB"]


HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)",
           "javascript:alert(1)",
           "JaVaScRiPt:alert(1)",
           " \x01javascript:alert(1)", "java\tscript:alert(1)", "data:text/html,<script>x</script>",
           "x;background:url(javascript:alert(1))", "}</style><script>x</script>", "expression(alert(1))", "{{7*7}}",
           "</title><script>x</script>", "--><script>x</script>", "`onload=alert(1)", "a onclick=alert(1)"]  # fmt: skip
PLACES = """<title>{{ v }}</title><style>p{color:{{ v }}}</style>
<p title="{{ v }}" title2='{{ v }}' title3={{ v }} {{ v }} style="color:{{ v }}" onclick="{{ v }}">{{ v }}</p>
<a href="{{ v }}">a</a><a href='{{ v }}'>b</a><a href={{ v }}>c</a><a href=" {% if v %}{{ v }}{% endif %}">d</a>
<a href="https://x/?q={{ v }}">e</a><img src="{{ v }}" alt="{{ v }}"><!-- {{ v }} --><script>var a = "{{ v }}"</script>
<iframe srcdoc="{{ v }}"></iframe>"""


class Reader:
    """What a browser would make of the HTML: its tags and attributes."""

    def __init__(self, html: str) -> None:
        from html.parser import HTMLParser

        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: dict[str, list[str]] = {}
        reader = self

        class Parser(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                reader.tags.append((tag, tuple(sorted(name for name, _ in attrs))))
                for name, value in attrs:
                    reader.values.setdefault(name, []).append(value or "")

        parser = Parser()
        parser.feed(html)
        parser.close()


@pytest.mark.parametrize("value", HOSTILE)
def test_d8_a_value_changes_no_tag_wherever_it_stands(value: str) -> None:
    compiled = compile_template("s", PLACES, "{{ v }}", variables=["v"])
    assert compiled.problems == ()
    harmless, rendered = compiled.render({"v": "x"}), compiled.render({"v": value})
    expected, found = Reader(harmless.html), Reader(rendered.html)
    word = re.sub(r"[^\w.-]", "", value).lower()
    assert found.tags == [
        (tag, tuple(sorted(name if name != "x" else word for name in names if name != "x" or word)))
        for tag, names in expected.tags
    ]
    for link in found.values["href"] + found.values["src"]:
        cleaned = re.sub(r"[\x00-\x20]", "", link).lower()
        assert not cleaned.startswith(("javascript:", "data:", "vbscript:")), link
    for unsafe in found.values["onclick"] + found.values["srcdoc"]:
        assert re.fullmatch(r"[\w.-]*", unsafe)
    for style in found.values["style"]:
        assert not re.search(r"[;()\"'<>\\]", style.removeprefix("color:"))
    assert rendered.text == value, "plain text is not escaped"


def test_d9_values_are_not_rendered_a_second_time() -> None:
    name = "{{7*7}}{% for x in y %}{# c #}"
    compiled = compile_template("{{ contact.first_name }}", "<p>{{ contact.first_name }}</p>", "")
    rendered = compiled.render({"contact": {"first_name": name}})
    assert rendered.subject == name and rendered.html == f"<p>{name}</p>" and rendered.text == f"{name}\n"
    limited = render_limited("{{ n }}", "{{ n }}", "{{ n }}", {"n": name}).rendered
    assert (limited.subject, limited.html, limited.text) == (name, name, name)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x00"])
def test_d11_a_subject_is_one_line(end: str) -> None:
    assert render_limited("Hi {{ n }}", "h", "t", {"n": f"A{end}Bcc: x@evil.example"}).rendered.subject == (
        "Hi A Bcc: x@evil.example"
    )
    if end != "\x00":
        assert not compile_template(f"Hi{end}Bcc: x", "h", "t").valid


def test_d12_faults_are_found_when_saved_and_by_the_preview() -> None:
    compiled = compile_template("{{ contact.fist_name }}", "{{ x|datum }}", "", strict=True)
    assert [(problem.part, problem.message) for problem in compiled.problems] == [
        ("html_body", "unknown filter 'datum'"),
        ("subject", "Undefined variable: contact.fist_name"),
    ]
    with pytest.raises(InvalidInput):
        compiled.render({"contact": {"fist_name": "x"}})
    with pytest.raises(InvalidInput, match=r"^Template syntax error: .* \(html_body, line 2\)$"):
        render_limited("s", "a\n{{ b", "t", {})
    with pytest.raises(InvalidInput, match=r"^Undefined variable: order\.total$"):
        render_limited("s", "{{ order.total }}", "t", {"order": {}}, strict=True)
    preview = render_limited("s", "[{{ order.total }}]", "t", {"order": {}})
    assert preview.rendered.html == "[]" and preview.warnings == ("Undefined variable: order.total",)


def test_d15_lists_are_cut_when_they_are_loaded() -> None:
    compiled = compile_template("s", "{% for x in contact.xs %}.{% endfor %}", "t")
    assert len(compiled.render({"contact": {"xs": list(range(1_000_000))}}).html) == MAX_ITEMS


def test_the_worker_knows_no_secrets_and_is_replaced_when_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAUTO_SECRET_KEYS", "canary")
    rendering._worker.stop()
    assert render_limited("s", "a", "t", {}).rendered.html == "a"
    process = rendering._worker._process
    assert process is not None
    assert b"canary" not in Path(f"/proc/{process.pid}/environ").read_bytes()
    process.kill()
    process.wait()
    assert render_limited("s", "b", "t", {}).rendered.html == "b"


def test_a_forked_process_gets_a_worker_of_its_own() -> None:
    assert render_limited("s", "a", "t", {}).rendered.html == "a"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, render_limited("s", "child", "t", {}).rendered.html.encode())
            rendering._worker.stop()
        finally:
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 100) == b"child"
    os.close(reading)
    os.waitpid(child, 0)
    assert render_limited("s", "parent", "t", {}).rendered.html == "parent"


def test_previews_from_many_threads_get_their_own_answers() -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = render_limited("s", "{{ n }}", "t", {"n": number}).rendered.html

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: str(number) for number in range(12)}


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidInput, match="surrogate"):
        render_limited("s", "{{ a }}", "t", {"a": "\ud800"})
