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

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, tuple_, update
from sqlalchemy import delete as remove
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import Conflict, InvalidInput, NotFound
from mautolib.templates.checks import MAX_SOURCE
from mautolib.templates.compile import CompiledTemplate, Problem, compile_template
from mautolib.templates.model import NewTemplate, Template, TemplateChange, TemplateVersion

_LOG = logging.getLogger(__name__)
_TABLE, _VERSIONS = tables.templates, tables.template_versions
_LIMITS = {"name": 300, "subject": 500, "category": 100, "html_body": MAX_SOURCE, "text_body": MAX_SOURCE}
_NAMED_USERS = 3
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
    query = upsert(_TABLE).values(**values)
    row = tx.execute(query.on_conflict_do_nothing(index_elements=["name"]).returning(_TABLE)).one_or_none()
    if row is None:
        return None
    template = _template(row)
    _keep_version(tx, template, now=now, actor=actor)
    _LOG.info("template %d made, %d problems", template.template_id, len(template.problems))
    return template


def get(tx: Connection, template_id: int, *, lock: bool = False) -> Template:
    """The template.

    Args:
        lock: keep others from changing it until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    query = select(_TABLE).where(_TABLE.c.template_id == template_id)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound("Template not found")
    return _template(row)


def get_by_name(tx: Connection, name: str) -> Template | None:
    """The template of that name, if there is one."""
    row = tx.execute(select(_TABLE).where(_TABLE.c.name == name)).one_or_none()
    return None if row is None else _template(row)


def list_templates(
    tx: Connection, *, category: str | None = None, skip: int = 0, limit: int = 50,
    after: tuple[str, int] | None = None,
) -> list[Template]:  # fmt: skip
    """Templates by name, of one category or of all; `after` is (name, id) of the last one of the page before."""
    query = select(_TABLE).where(*_of_category(category)).order_by(_TABLE.c.name, _TABLE.c.template_id)
    if after is not None:
        query = query.where(tuple_(_TABLE.c.name, _TABLE.c.template_id) > after)
    return [_template(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count(tx: Connection, *, category: str | None = None, at_most: int | None = None) -> int:
    """How many templates there are; with `at_most` counting stops there."""
    query = select(_TABLE.c.template_id).where(*_of_category(category)).limit(at_most)
    return int(tx.scalar(select(func.count()).select_from(query.subquery())) or 0)


def _of_category(category: str | None) -> list[ColumnElement[bool]]:
    return [] if category is None else [_TABLE.c.category == category]


def versions(
    tx: Connection, template_id: int, *, skip: int = 0, limit: int = 50, before: int | None = None
) -> list[TemplateVersion]:
    """The versions of a template, newest first; `before` is the number of the last one of the page before."""
    query = select(_VERSIONS).where(_VERSIONS.c.template_id == template_id).order_by(_VERSIONS.c.version.desc())
    if before is not None:
        query = query.where(_VERSIONS.c.version < before)
    return [_version(row) for row in tx.execute(query.offset(skip).limit(limit))]


def version_of(
    tx: Connection, template_id: int, version: int, *, path: tuple[str, ...] = ("body", "version")
) -> TemplateVersion:
    """One version of a template.

    Raises:
        InvalidInput: the template has no such version.
    """
    query = select(_VERSIONS).where(_VERSIONS.c.template_id == template_id, _VERSIONS.c.version == version)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise InvalidInput(f"The template has no version {version}", path=path)
    return _version(row)


def delete(tx: Connection, template_id: int) -> None:
    """Remove a template with its versions; finished campaigns keep what they sent.

    Raises:
        NotFound: there is no such template.
        Conflict: `in_use`: an unfinished campaign or an active workflow names it.
    """
    # Locked first: a campaign that takes this template meanwhile waits, and then finds it gone.
    get(tx, template_id, lock=True)
    users = tx.execute(statement("templates.users_of"), {"template_id": template_id}).all()
    if users:
        named = ", ".join(f"{row.kind} {row.name!r}" for row in users[:_NAMED_USERS])
        more = f" and {len(users) - _NAMED_USERS} more" if len(users) > _NAMED_USERS else ""
        raise Conflict(f"The template is used by {named}{more}", code="in_use")
    tx.execute(remove(_TABLE).where(_TABLE.c.template_id == template_id))
    _LOG.info("template %d deleted", template_id)


def revise(
    tx: Connection, template_id: int, change: TemplateChange, *, now: datetime, actor: str = "system"
) -> Template:
    """Change a template; another subject, body or list of variables makes a new version.

    Raises:
        NotFound: there is no such template.
        InvalidInput: a field is empty or too long.
        Conflict: the new name is taken.
    """
    before = get(tx, template_id, lock=True)
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
    query = update(_TABLE).where(_TABLE.c.template_id == template_id).values(**values).returning(_TABLE)
    try:
        with tx.begin_nested():
            after = _template(tx.execute(query).one())
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


def _version(row: Row[Any]) -> TemplateVersion:
    return TemplateVersion(**dict(row._mapping) | {"variables": tuple(row.variables)})
