"""Templates that are kept: names, versions, verdicts, starters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, select

from mautolib.db import tables
from mautolib.errors import Conflict, InvalidInput, NotFound
from mautolib.templates import catalogue
from mautolib.templates.compile import Problem
from mautolib.templates.model import NewTemplate, Template, TemplateChange
from mautolib.templates.starters import STARTERS, install_starters, starter

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def make(tx: Connection, **fields: object) -> Template:
    values: dict[str, object] = {"name": "Sale", "subject": "Hi", "html_body": "<p>x</p>", **fields}
    return catalogue.create(tx, NewTemplate(**values), now=NOW, actor="user:1")  # type: ignore[arg-type]


def versions(tx: Connection, template_id: int) -> list[tuple[int, str, str]]:
    table = tables.template_versions
    query = select(table.c.version, table.c.subject, table.c.created_by).where(table.c.template_id == template_id)
    return [tuple(row) for row in tx.execute(query.order_by(table.c.version))]


def test_a_template_is_made_and_found(tx: Connection) -> None:
    made = make(tx, variables=("code",), category="sale", text_body="t", strict=True)
    assert catalogue.get(tx, made.template_id) == made == catalogue.get_by_name(tx, "Sale")
    assert made.valid and made.version == 1 and made.created_at == NOW and made.variables == ("code",)
    assert versions(tx, made.template_id) == [(1, "Hi", "user:1")]
    assert catalogue.get_by_name(tx, "sale") is None
    with pytest.raises(NotFound, match=r"^Template not found$"):
        catalogue.get(tx, made.template_id + 1)


def test_a_name_is_taken_once(tx: Connection) -> None:
    make(tx)
    other = make(tx, name="Other")
    with pytest.raises(Conflict, match=r"^Template with this name already exists$") as caught:
        make(tx)
    assert caught.value.code == "duplicate"
    with pytest.raises(Conflict):
        catalogue.revise(tx, other.template_id, TemplateChange(name="Sale"), now=LATER)
    assert catalogue.get(tx, other.template_id) == other, "the transaction can go on"


def test_a_faulty_template_is_kept_with_its_problems(tx: Connection) -> None:
    made = make(tx, html_body="<p>\n{{ x|nothing }}")
    assert not made.valid
    assert made.problems == (Problem(part="html_body", line=2, message="unknown filter 'nothing'"),)
    table = tables.templates
    row = tx.execute(select(table.c.valid, table.c.problems).where(table.c.template_id == made.template_id)).one()
    assert row.valid is False
    assert row.problems == [{"part": "html_body", "line": 2, "message": "unknown filter 'nothing'"}]
    mended = catalogue.revise(tx, made.template_id, TemplateChange(html_body="<p>"), now=LATER)
    assert mended.valid and mended.version == 2


def test_a_strict_template_names_the_unknown_variable(tx: Connection) -> None:
    made = make(tx, html_body="{{ code }}", strict=True)
    assert [problem.message for problem in made.problems] == ["Undefined variable: code"]
    assert catalogue.revise(tx, made.template_id, TemplateChange(variables=("code",)), now=LATER).valid
    assert catalogue.compiled(catalogue.get(tx, made.template_id)).render({"code": "<X>"}).html == "&lt;X&gt;"


def test_content_makes_versions_and_other_fields_do_not(tx: Connection) -> None:
    made = make(tx)
    key = made.template_id
    renamed = catalogue.revise(tx, key, TemplateChange(name="Sale 2", category="c"), now=LATER, actor="user:2")
    assert (renamed.version, renamed.updated_at, renamed.name) == (1, LATER, "Sale 2")
    assert catalogue.revise(tx, key, TemplateChange(subject="Hi"), now=LATER + timedelta(hours=1)) == renamed
    changed = catalogue.revise(tx, key, TemplateChange(subject="Hello"), now=LATER, actor="user:2")
    assert changed.version == 2
    assert versions(tx, key) == [(1, "Hi", "user:1"), (2, "Hello", "user:2")]
    with pytest.raises(NotFound):
        catalogue.revise(tx, key + 1, TemplateChange(subject="x"), now=LATER)


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "n" * 301), ("subject", " "), ("subject", "s" * 501), ("category", "c" * 101),
     ("html_body", "h" * (1024 * 1024 + 1)), ("text_body", "a\x00b")],
)  # fmt: skip
def test_fields_have_limits(tx: Connection, field: str, value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(tx, **{field: value})
    assert caught.value.path == ("body", field)


def test_templates_are_listed_by_name(tx: Connection) -> None:
    for name, category in (("b", "x"), ("a", "y"), ("c", "x")):
        make(tx, name=name, category=category)
    assert [template.name for template in catalogue.list_templates(tx)] == ["a", "b", "c"]
    assert [template.name for template in catalogue.list_templates(tx, category="x")] == ["b", "c"]
    assert [template.name for template in catalogue.list_templates(tx, skip=1, limit=1)] == ["b"]


def test_starters_are_installed_once_and_changes_survive(tx: Connection) -> None:
    assert install_starters(tx, NOW) == len(STARTERS) == 4
    welcome = catalogue.get_by_name(tx, starter("welcome").name)
    assert welcome is not None and welcome.valid
    catalogue.revise(tx, welcome.template_id, TemplateChange(subject="Mine"), now=LATER)
    assert install_starters(tx, LATER) == 0
    assert catalogue.get(tx, welcome.template_id).subject == "Mine"
    assert {template.valid for template in catalogue.list_templates(tx)} == {True}
