"""Workflows as stored: create, read, change, activate. Every change of trigger or steps makes a version.

Promise: what is stored was checked, and an active workflow can start: its trigger is complete and everything its
steps refer to exists and can be used. Enrollments stay on the version they entered. Nothing here enrols or moves
anybody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select
from sqlalchemy import update as change

from mautolib.db import tables
from mautolib.errors import InvalidInput, NotFound
from mautolib.workflows import definition
from mautolib.workflows.model import NewWorkflow, Workflow

_TABLE = tables.workflows
_CHANGEABLE: Final = frozenset(item.name for item in dataclasses.fields(NewWorkflow))
_VERSIONED: Final = ("trigger_type", "trigger_config", "steps")
_LONGEST_NAME: Final = 300


def create(tx: Connection, new: NewWorkflow, *, actor: str, now: datetime) -> Workflow:
    """Store a new workflow with its first version.

    Raises:
        InvalidInput: the definition cannot run; the path names step and key.
    """
    values = _checked(tx, dataclasses.asdict(new), references=True)
    row = tx.execute(insert(_TABLE).values(**values, created_at=now).returning(_TABLE)).one()
    _keep_version(tx, row, actor, now)
    return _workflow(row)


def get(tx: Connection, workflow_id: int) -> Workflow:
    """The workflow.

    Raises:
        NotFound: no such workflow.
    """
    return _workflow(_row(tx, workflow_id))


def search(tx: Connection, *, active: bool | None = None, skip: int = 0, limit: int = 50) -> list[Workflow]:
    """Workflows, newest first; only active or inactive ones if asked."""
    query = select(_TABLE).order_by(_TABLE.c.created_at.desc(), _TABLE.c.workflow_id.desc())
    if active is not None:
        query = query.where(_TABLE.c.active == active)
    return [_workflow(row) for row in tx.execute(query.offset(skip).limit(limit))]


def update(tx: Connection, workflow_id: int, changes: Mapping[str, Any], *, actor: str, now: datetime) -> Workflow:
    """Change the fields given; a change of trigger or steps makes a new version.

    Args:
        changes: fields of `NewWorkflow` by name.
    Raises:
        NotFound: no such workflow.
        InvalidInput: a field is unknown or the result cannot run.
    """
    unknown = sorted(set(changes) - _CHANGEABLE)
    if unknown:
        raise InvalidInput(f"A workflow has no field {unknown[0]!r}", path=("body", unknown[0]))
    before = _row(tx, workflow_id, lock=True)
    current = {name: getattr(before, name) for name in _CHANGEABLE}
    wanted = {**current, **changes}
    # Switching off must work even when something the steps refer to has gone.
    values = _checked(tx, wanted, references=wanted["active"] is True or "steps" in changes)
    if values == current:
        return _workflow(before)
    is_new_version = any(values[name] != current[name] for name in _VERSIONED)
    version = before.version + 1 if is_new_version else before.version
    statement = change(_TABLE).where(_TABLE.c.workflow_id == workflow_id)
    row = tx.execute(statement.values(**values, version=version, updated_at=now).returning(_TABLE)).one()
    if is_new_version:
        _keep_version(tx, row, actor, now)
    return _workflow(row)


def activate(tx: Connection, workflow_id: int, *, actor: str, now: datetime) -> Workflow:
    """Let the workflow start by itself.

    Raises:
        NotFound: no such workflow.
        InvalidInput: its trigger is incomplete, or something it refers to is missing or faulty.
    """
    return update(tx, workflow_id, {"active": True}, actor=actor, now=now)


def deactivate(tx: Connection, workflow_id: int, *, actor: str, now: datetime) -> Workflow:
    """Stop new entries; who is in the workflow goes on.

    Raises:
        NotFound: no such workflow.
    """
    return update(tx, workflow_id, {"active": False}, actor=actor, now=now)


def load_definition(tx: Connection, workflow_id: int, version: int) -> definition.Definition | None:
    """The definition of one version; None if the workflow is gone."""
    table = tables.workflow_versions
    steps = tx.scalar(select(table.c.steps).where(table.c.workflow_id == workflow_id, table.c.version == version))
    return None if steps is None else definition.read(steps)


def _checked(tx: Connection, values: dict[str, Any], *, references: bool) -> dict[str, Any]:
    """The values to store; with `references`, what the steps refer to is looked up."""
    name = values["name"]
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"A name is one line of 1 to {_LONGEST_NAME} characters", path=("body", "name"))
    active = values["active"]
    if not isinstance(active, bool):
        raise InvalidInput("'active' must be true or false", path=("body", "active"))
    definition.check_trigger(values["trigger_type"], values["trigger_config"], active=active)
    definition.check_entry(values["re_entry"], values["exit_on"])
    steps = definition.read(values["steps"])
    if references:
        steps.check(tx, starting=active)
    return {
        "name": name.strip(),
        "trigger_type": str(values["trigger_type"]),
        "trigger_config": dict(values["trigger_config"]),
        "steps": list(values["steps"]),
        "active": active,
        "re_entry": dict(values["re_entry"]),
        "exit_on": list(values["exit_on"]),
    }


def _row(tx: Connection, workflow_id: int, *, lock: bool = False) -> Row[Any]:
    query = select(_TABLE).where(_TABLE.c.workflow_id == workflow_id)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound("Workflow not found")
    return row


def _keep_version(tx: Connection, row: Row[Any], actor: str, now: datetime) -> None:
    values = {name: getattr(row, name) for name in ("workflow_id", "version", *_VERSIONED)}
    tx.execute(insert(tables.workflow_versions).values(**values, created_by=actor, created_at=now))


def _workflow(row: Row[Any]) -> Workflow:
    names = [item.name for item in dataclasses.fields(Workflow)]
    return Workflow(**{name: getattr(row, name) for name in names})
