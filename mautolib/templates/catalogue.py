"""The templates that are kept: made, changed, found; every change of content is a version of its own.

Guards one template per name, and that `valid` and `problems` tell what compiling the present version tells. Called
by the API, the demo and campaign building. What a running campaign sends is its own frozen copy: nothing here
reaches it.
"""

from __future__ import annotations

import dataclasses
import logging
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from mautolib.db import tables
from mautolib.errors import Conflict, InvalidInput, NotFound
from mautolib.templates.checks import MAX_SOURCE
from mautolib.templates.compile import CompiledTemplate, Problem, compile_template
from mautolib.templates.model import NewTemplate, Template, TemplateChange

_LOG = logging.getLogger(__name__)
_TABLE, _VERSIONS = tables.templates, tables.template_versions
_LIMITS = {"name": 300, "subject": 500, "category": 100, "html_body": MAX_SOURCE, "text_body": MAX_SOURCE}
_VERSIONED = ("subject", "html_body", "text_body", "variables")


def create(tx: Connection, new: NewTemplate, *, now: datetime, actor: str = "system") -> Template:
    """Make a template, version 1; one with problems is kept and says so.

    Raises:
        InvalidInput: a field is empty or too long.
        Conflict: the name is taken.
    """
    template = _insert(tx, new, now=now, actor=actor)
    if template is None:
        raise Conflict("Template with this name already exists", code="duplicate")
    return template


def ensure(tx: Connection, new: NewTemplate, *, now: datetime, actor: str = "system") -> bool:
    """Make a template unless one of that name exists; says whether it was made."""
    return _insert(tx, new, now=now, actor=actor) is not None


def _insert(tx: Connection, new: NewTemplate, *, now: datetime, actor: str) -> Template | None:
    fields = dataclasses.asdict(new)
    _check(fields)
    values = {**fields, **_verdict(fields), "variables": list(new.variables), "version": 1, "created_at": now}
    statement = upsert(_TABLE).values(**values)
    row = tx.execute(statement.on_conflict_do_nothing(index_elements=["name"]).returning(_TABLE)).one_or_none()
    if row is None:
        return None
    template = _template(row)
    _keep_version(tx, template, now=now, actor=actor)
    _LOG.info("template %d made, %d problems", template.template_id, len(template.problems))
    return template


def get(tx: Connection, template_id: int) -> Template:
    """The template.

    Raises:
        NotFound: there is none.
    """
    row = tx.execute(select(_TABLE).where(_TABLE.c.template_id == template_id)).one_or_none()
    if row is None:
        raise NotFound("Template not found")
    return _template(row)


def get_by_name(tx: Connection, name: str) -> Template | None:
    """The template of that name, if there is one."""
    row = tx.execute(select(_TABLE).where(_TABLE.c.name == name)).one_or_none()
    return None if row is None else _template(row)


def list_templates(tx: Connection, *, category: str | None = None, skip: int = 0, limit: int = 50) -> list[Template]:
    """Templates by name, of one category or of all."""
    query = select(_TABLE).order_by(_TABLE.c.name).offset(skip).limit(limit)
    if category is not None:
        query = query.where(_TABLE.c.category == category)
    return [_template(row) for row in tx.execute(query)]


def revise(
    tx: Connection, template_id: int, change: TemplateChange, *, now: datetime, actor: str = "system"
) -> Template:
    """Change a template; another subject, body or list of variables makes a new version.

    Raises:
        NotFound: there is no such template.
        InvalidInput: a field is empty or too long.
        Conflict: the new name is taken.
    """
    row = tx.execute(select(_TABLE).where(_TABLE.c.template_id == template_id).with_for_update()).one_or_none()
    if row is None:
        raise NotFound("Template not found")
    before = _template(row)
    given = {name: value for name, value in dataclasses.asdict(change).items() if value is not None}
    changed = {name: value for name, value in given.items() if value != getattr(before, name)}
    if not changed:
        return before
    _check(changed)
    fields = {field.name: getattr(before, field.name) for field in dataclasses.fields(NewTemplate)} | changed
    is_new_version = any(name in changed for name in _VERSIONED)
    values = {**changed, **_verdict(fields), "updated_at": now, "version": before.version + is_new_version}
    if "variables" in values:
        values["variables"] = list(values["variables"])
    statement = update(_TABLE).where(_TABLE.c.template_id == template_id).values(**values).returning(_TABLE)
    try:
        with tx.begin_nested():
            after = _template(tx.execute(statement).one())
    except IntegrityError:
        raise Conflict("Template with this name already exists", code="duplicate") from None
    if is_new_version:
        _keep_version(tx, after, now=now, actor=actor)
    _LOG.info("template %d changed, version %d, %d problems", template_id, after.version, len(after.problems))
    return after


def compiled(template: Template) -> CompiledTemplate:
    """The template compiled, with the names it declares known."""
    return compile_template(
        template.subject,
        template.html_body,
        template.text_body,
        strict=template.strict,
        variables=template.variables,
    )


def _verdict(fields: dict[str, Any]) -> dict[str, Any]:
    found = compile_template(
        fields["subject"],
        fields["html_body"],
        fields["text_body"],
        strict=fields["strict"],
        variables=fields["variables"],
    )
    return {"valid": found.valid, "problems": [dataclasses.asdict(problem) for problem in found.problems]}


def _check(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if not isinstance(value, str):
            continue
        if "\x00" in value:
            raise InvalidInput("A template cannot contain NUL characters", path=("body", name))
        if len(value) > _LIMITS[name]:
            raise InvalidInput(f"Longer than {_LIMITS[name]} characters", path=("body", name))
        if name in ("name", "subject") and not value.strip():
            raise InvalidInput("A template has a name and a subject", path=("body", name))


def _keep_version(tx: Connection, template: Template, *, now: datetime, actor: str) -> None:
    content = {name: getattr(template, name) for name in _VERSIONED} | {"variables": list(template.variables)}
    tx.execute(
        insert(_VERSIONS).values(
            template_id=template.template_id, version=template.version, created_by=actor, created_at=now, **content
        )
    )


def _template(row: Row[Any]) -> Template:
    values = dict(row._mapping)
    problems = tuple(Problem(**problem) for problem in values.pop("problems"))
    values.pop("valid")
    return Template(**values | {"problems": problems, "variables": tuple(values["variables"])})
