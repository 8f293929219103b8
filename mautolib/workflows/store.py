"""Workflows as stored: create, read, change, activate, delete. Every change of trigger or steps makes a version.

Promise: what is stored was checked, and an active workflow can start: its trigger is complete and everything its
steps refer to exists and can be used. Enrollments stay on the version they entered. Two changes at once happen one
after the other, each on what the other left. Nothing here enrols or moves anybody.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select
from sqlalchemy import update as change

from mautolib.contacts.validation import single_line_problem
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.db.values import is_same
from mautolib.errors import InvalidInput, NotFound
from mautolib.webhooks.addresses import PUBLIC, Policy
from mautolib.workflows import definition
from mautolib.workflows.model import NewWorkflow, Workflow

_LOG = logging.getLogger(__name__)
_TABLE = tables.workflows
_C = tables.workflows.c
_CHANGEABLE: Final = frozenset(item.name for item in dataclasses.fields(NewWorkflow))
_TRIGGER: Final = ("trigger_type", "trigger_config")
_VERSIONED: Final = (*_TRIGGER, "steps")
_LONGEST_NAME: Final = 300
#: So many logs go with their workflow at once; `maintenance` removes what is left.
LOGS_AT_ONCE: Final = 50_000
DELETED: Final = "workflow deleted"
_PATIENCE: Final = "120s"


def create(tx: Connection, new: NewWorkflow, *, actor: str, now: datetime, policy: Policy = PUBLIC) -> Workflow:
    """Store a new workflow with its first version.

    Args:
        policy: whom its steps may call.
    Raises:
        InvalidInput: the definition cannot run; the path names step and key.
    """
    values = _checked(tx, dataclasses.asdict(new), frozenset(_VERSIONED), policy)
    row = tx.execute(insert(_TABLE).values(**values, created_at=now).returning(_TABLE)).one()
    _keep_version(tx, row, actor, now)
    _LOG.info("workflow %s created, active: %s", row.workflow_id, row.active)
    return _workflow(row)


def get(tx: Connection, workflow_id: int, *, lock: bool = False) -> Workflow:
    """The workflow.

    Args:
        lock: keep others from changing or deleting it until the transaction ends.
    Raises:
        NotFound: no such workflow.
    """
    return _workflow(_row(tx, workflow_id, lock=lock))


def hold(tx: Connection, workflow_id: int) -> Workflow:
    """The workflow; nobody deletes it before the transaction ends, but it may be changed.

    Raises:
        NotFound: no such workflow.
    """
    query = select(_TABLE).where(_C.workflow_id == workflow_id).with_for_update(read=True, key_share=True)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound("Workflow not found")
    return _workflow(row)


def search(
    tx: Connection, *, active: bool | None = None, skip: int = 0, limit: int = 50, before: int | None = None
) -> list[Workflow]:
    """Workflows, newest first; only active or inactive ones if asked.

    Args:
        before: only those older than this id.
    """
    query = select(_TABLE).order_by(_C.workflow_id.desc())
    if active is not None:
        query = query.where(_C.active == active)
    if before is not None:
        query = query.where(_C.workflow_id < before)
    return [_workflow(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count(tx: Connection, *, active: bool | None = None) -> int:
    """How many workflows there are; only active or inactive ones if asked."""
    query = select(func.count()).select_from(_TABLE)
    return int(tx.scalar(query if active is None else query.where(_C.active == active)) or 0)


def update(
    tx: Connection, workflow_id: int, changes: Mapping[str, Any], *, actor: str, now: datetime, policy: Policy = PUBLIC
) -> Workflow:
    """Change the fields given; a change of trigger or steps makes a new version.

    Args:
        changes: fields of `NewWorkflow` by name.
        policy: whom its steps may call.
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
    # What was looked up before is not looked up again: switching off and renaming must work even when something the
    # steps refer to has gone or turned faulty since.
    is_starting = wanted["active"] is True and not before.active
    renewed = frozenset(name for name in _VERSIONED if is_starting or not is_same(current[name], wanted[name]))
    values = _checked(tx, wanted, renewed, policy)
    if all(is_same(current[name], values[name]) for name in values):
        return _workflow(before)
    is_new_version = any(not is_same(current[name], values[name]) for name in _VERSIONED)
    version = before.version + 1 if is_new_version else before.version
    query = change(_TABLE).where(_C.workflow_id == workflow_id).returning(_TABLE)
    row = tx.execute(query.values(**values, version=version, revision=before.revision + 1, updated_at=now)).one()
    if is_new_version:
        _keep_version(tx, row, actor, now)
    changed = ", ".join(sorted(name for name in values if not is_same(current[name], values[name])))
    _LOG.info("workflow %s changed: %s; version %s", workflow_id, changed, version)
    return _workflow(row)


def activate(
    tx: Connection, workflow_id: int, *, actor: str, now: datetime, policy: Policy = PUBLIC
) -> Workflow:
    """Let the workflow start by itself.

    Args:
        policy: whom its steps may call.
    Raises:
        NotFound: no such workflow.
        InvalidInput: its trigger is incomplete, or something it refers to is missing or faulty.
    """
    return update(tx, workflow_id, {"active": True}, actor=actor, now=now, policy=policy)


def deactivate(tx: Connection, workflow_id: int, *, actor: str, now: datetime) -> Workflow:
    """Stop new entries; who is in the workflow goes on.

    Raises:
        NotFound: no such workflow.
    """
    return update(tx, workflow_id, {"active": False}, actor=actor, now=now)


def remove(tx: Connection, workflow_id: int, *, now: datetime) -> None:
    """Delete a workflow with its versions and logs; whoever is in it leaves. Mail queued before is sent.

    Raises:
        NotFound: no such workflow.
    """
    _row(tx, workflow_id, lock=True)
    # Half a million people take about twenty seconds to leave, and nobody may be left inside.
    tx.execute(select(func.set_config("statement_timeout", _PATIENCE, True)))
    values = {"workflow_id": workflow_id, "now": now, "reason": DELETED, "size": LOGS_AT_ONCE}
    ended = tx.execute(statement("workflow_control.end_enrollments"), values).rowcount
    # Only now: whoever was just being moved has been waited for, and their logs are there.
    tx.execute(statement("workflow_control.remove_logs"), values)
    tx.execute(delete(_TABLE).where(_C.workflow_id == workflow_id))
    _LOG.info("workflow %s deleted, %d enrollments ended", workflow_id, ended)


def load_definition(tx: Connection, workflow_id: int, version: int) -> definition.Definition | None:
    """The definition of one version; None if the workflow is gone."""
    table = tables.workflow_versions
    steps = tx.scalar(select(table.c.steps).where(table.c.workflow_id == workflow_id, table.c.version == version))
    return None if steps is None else definition.read(steps)


def _checked(
    tx: Connection, values: dict[str, Any], renewed: frozenset[str], policy: Policy
) -> dict[str, Any]:
    """The values to store; what the fields in `renewed` refer to is looked up."""
    active = values["active"]
    if not isinstance(active, bool):
        raise InvalidInput("'active' must be true or false", path=("body", "active"))
    is_trigger_new = not renewed.isdisjoint(_TRIGGER)
    definition.check_trigger(
        values["trigger_type"], values["trigger_config"], active=active, tx=tx if is_trigger_new else None
    )
    definition.check_entry(values["re_entry"], values["exit_on"])
    steps = definition.read(values["steps"])
    if "steps" in renewed:
        steps.check(tx, starting=active, policy=policy)
    return {
        "name": _name(values["name"]),
        "trigger_type": str(values["trigger_type"]),
        "trigger_config": dict(values["trigger_config"]),
        "steps": list(values["steps"]),
        "active": active,
        "re_entry": dict(values["re_entry"]),
        "exit_on": list(values["exit_on"]),
    }


def _name(value: object) -> str:
    name = value.strip() if isinstance(value, str) else ""
    if not name or single_line_problem(name, _LONGEST_NAME):
        raise InvalidInput(f"A name is one line of 1 to {_LONGEST_NAME} characters", path=("body", "name"))
    return name


def _row(tx: Connection, workflow_id: int, *, lock: bool = False) -> Row[Any]:
    query = select(_TABLE).where(_C.workflow_id == workflow_id)
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
