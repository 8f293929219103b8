"""Mustache and Handlebars templates say the same here, and what cannot be said is refused by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mautolib.errors import InvalidInput
from mautolib.templates import convert as module
from mautolib.templates.compile import compile_template
from mautolib.templates.convert import convert

VALUES: dict[str, Any] = {
    "name": "Ann <b>", "total": 0, "items": [{"n": "one", "p": 1}, {"n": "two"}], "words": ["x", "y"], "p": "outer",
    "person": {"city": "Bern", "langs": ["de", "fr"]}, "yes": True, "empty": [], "open_rate": 5, "none": None,
}  # fmt: skip


def shown(source: str, **renames: str) -> str:
    made = convert(source, renames)
    compiled = compile_template("s", "<p>h</p>", made.template, variables=list(VALUES))
    assert compiled.problems == (), made.template
    return compiled.render(VALUES).text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Hi {{name}}, {{ name }}{{~ name ~}} !", "Hi Ann <b>, Ann <b>Ann <b>!"),
        ("{{! gone }}{{!-- gone }} too --}}a", "a"),
        ("{{#if yes}}y{{else}}n{{/if}}{{#if empty}}y{{else}}n{{/if}}{{#unless none}}u{{/unless}}", "ynu"),
        ("{{#if none}}a{{else if yes}}b{{else}}c{{/if}}", "b"),
        ("{{#each items}}{{@index}}{{n}}{{#if @last}}.{{else}},{{/if}}{{/each}}", "0one,1two."),
        ("{{#each items}}{{n}}{{p}} {{this.p}} {{../p}};{{/each}}", "one1 1 outer;twoouter  outer;"),
        ("{{#each words}}{{this}}{{.}}{{/each}}{{#each empty}}a{{else}}none{{/each}}", "xxyynone"),
        ("{{#each items as |it|}}{{it.n}}-{{n}} {{/each}}", "one-one two-two "),
        ("{{#with person}}{{city}} {{#each langs}}{{this}}{{/each}} {{name}}{{/with}}", "Bern defr Ann <b>"),
        ("{{#items}}{{n}}{{/items}}{{^items}}no{{/items}}{{#empty}}a{{/empty}}{{^empty}}none{{/empty}}", "onetwonone"),
        ("{{#person}}{{city}}{{/person}}{{#yes}} {{name}}{{/yes}}{{#none}}a{{/none}}{{#total}}b{{/total}}",
         "Bern Ann <b>"),
        ("{{#items}}[{{#each .}}{{n}}{{/each}}]{{/items}}", "[onetwo]"),
        ("{{#each items}}{{#each ../words}}{{this}}{{@root.p}}{{/each}}{{/each}}", "xouteryouterxouteryouter"),
        ("{{person.city}} {{person/city}} {{open-rate}}", "Bern Bern 5"),
        ("{{{name}}}{{& name}}", "Ann <b>Ann <b>"),
        ("@media{#top{color:red}} 100{% of", "@media{#top{color:red}} 100{% of"),
        (r"\{{name}} is written so", "{{name}} is written so"),
        ("a\n{{#if yes}}\nb\n  {{/if}}  \nc\n{{! x }}\nd\n", "a\nb\nc\nd\n"),
    ],
)  # fmt: skip
def test_says_the_same(source: str, expected: str) -> None:
    assert shown(source) == expected


def test_names_can_be_given_ours_and_unsubscribe_links_are() -> None:
    made = convert("{{first_name}} {{#each rows}}{{first_name}}{{/each}} {{{ pm:unsubscribe_url }}}",
                   {"first_name": "contact.first_name"})  # fmt: skip
    assert made.template == (
        "{{ contact.first_name }} {% for item1 in rows %}{{ contact.first_name }}{% endfor %} {{ unsubscribe_url }}"
    )
    assert made.warnings == ()


def test_what_was_not_escaped_is_said() -> None:
    assert convert("\n{{{ body }}} {{a-b}}").warnings == (
        "line 2: body was not escaped there; here it is", "line 2: a-b is called a_b here",
    )  # fmt: skip
    compiled = compile_template("s", convert("<p>{{{ name }}}</p>").template, "t", variables=["name"])
    assert compiled.render({"name": "<b>"}).html == "<p>&lt;b&gt;</p>"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("a\n{{#if x}}b", r"\{\{#if\}\} is not closed \(line 2\)"), ("{{/if}}", "closes no open block"),
        ("{{#if a}}{{/each}}", "closes no open block"), ("{{else}}", "outside a block"), ("{{> part}}", "part 'part'"),
        ("{{=<% %>=}}", "delimiters"), ("{{upper name}}", "neither a name"),
        ("{{#list a b}}{{/list}}", "helper 'list'"),
        ("{{../x}}", "leads out"), ("{{this}}", "outside a block"), ("x {{ y", "not closed"), ("{{a.0[1]}}", "neither"),
        ("{{#each a as |b c|}}{{/each}}", "only one name"), ("{{#each a}}{{else if b}}{{/each}}", "cannot stand"),
        ("{{_x.__class__}}{{a|b}}", "neither"), ("{{}}", "neither"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_with_its_line(source: str, word: str) -> None:
    with pytest.raises(InvalidInput, match=word) as caught:
        convert(source)
    assert caught.value.line is not None and f"(line {caught.value.line})" in str(caught.value)


def test_the_command_converts_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "mail.html", tmp_path / "mail.j2"
    path.write_text("<p>{{name}} {{{x}}}</p>", encoding="utf-8")
    assert module.main([str(path), "-o", str(out), "--rename", "name=contact.first_name"]) == 0
    assert out.read_text(encoding="utf-8") == "<p>{{ contact.first_name }} {{ x }}</p>"
    assert "line 1: x was not escaped" in capsys.readouterr().err
    assert module.main([str(path)]) == 0 and capsys.readouterr().out == "<p>{{ name }} {{ x }}</p>"
    path.write_text("{{#a}}", encoding="utf-8")
    assert module.main([str(path)]) == 1 and "is not closed (line 1)" in capsys.readouterr().err
