"""Automation rules as stored: create, read, change, remove; and the logs of their runs.

Promise: what is stored was checked and can run, except that a template may be missing: that action fails when it is
run. Removing a rule ends its waiting runs and removes its logs. Called by the API; nothing here runs a rule.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, tuple_
from sqlalchemy import update as change

from mautolib.automations import definition
from mautolib.automations.model import Log, NewRule, Rule, RunStatus, Stats
from mautolib.contacts.validation import single_line_problem
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.db.values import is_same
from mautolib.errors import InvalidInput, NotFound
from mautolib.webhooks.addresses import PUBLIC, Policy

_LOG = logging.getLogger(__name__)
_TABLE, _TOTALS, _LOGS = tables.automation_rules, tables.automation_totals, tables.automation_logs
_CHANGEABLE: Final = tuple(item.name for item in dataclasses.fields(NewRule))
_INT32: Final = 2**31 - 1
_BOUNDS: Final[Mapping[str, int]] = {"priority": -_INT32 - 1, "max_executions": 0, "cooldown_minutes": 0}
_LINES: Final = {"name": 300, "trigger_type": 50}
_LONGEST_DESCRIPTION: Final = 2000
#: Each run looks at it.
_MOST_CONFIG_BYTES: Final = 16 * 1024
MISSING: Final = "Rule not found"


def create(tx: Connection, new: NewRule, *, actor: str, now: datetime, policy: Policy = PUBLIC) -> Rule:
    """Store a new rule.

    Args:
        policy: whom its actions may call.
    Raises:
        InvalidInput: it cannot run; the path names the key.
    """
    values = _checked(tx, {name: getattr(new, name) for name in _CHANGEABLE}, policy)
    rule_id = tx.execute(insert(_TABLE).values(**values, created_at=now).returning(_TABLE.c.rule_id)).scalar_one()
    tx.execute(insert(_TOTALS).values(rule_id=rule_id, executions=0))
    _LOG.info("automation rule %s created by %s", rule_id, actor)
    return get(tx, rule_id)


def get(tx: Connection, rule_id: int) -> Rule:
    """The rule.

    Raises:
        NotFound: no such rule.
    """
    row = tx.execute(_query().where(_TABLE.c.rule_id == rule_id)).one_or_none()
    if row is None:
        raise NotFound(MISSING)
    return _rule(row)


def search(
    tx: Connection, *, active: bool | None = None, trigger_type: str | None = None, offset: int = 0, limit: int = 50,
    after: tuple[int, int] | None = None,
) -> list[Rule]:  # fmt: skip
    """Rules by priority, the highest first; of one priority the oldest first.

    Args:
        after: (priority, rule_id) of the last row of the page before.
    """
    query = _filtered(_query(), active, trigger_type)
    if after is not None:
        query = query.where(tuple_(-_TABLE.c.priority, _TABLE.c.rule_id) > tuple_(-after[0], after[1]))
    query = query.order_by(_TABLE.c.priority.desc(), _TABLE.c.rule_id).offset(offset).limit(limit)
    return [_rule(row) for row in tx.execute(query)]


def count(tx: Connection, *, active: bool | None = None, trigger_type: str | None = None) -> int:
    """How many rules there are."""
    query = _filtered(select(func.count()).select_from(_TABLE), active, trigger_type)
    return int(tx.scalar(query) or 0)


def update(
    tx: Connection, rule_id: int, changes: Mapping[str, Any], *, actor: str, policy: Policy = PUBLIC
) -> Rule:
    """Change fields of a rule (those of `NewRule` by name); runs under way stay on the actions they began with.

    Args:
        policy: whom its actions may call.
    Raises:
        NotFound: no such rule.
        InvalidInput: the result cannot run; the path names the key.
    """
    before = tx.execute(select(_TABLE).where(_TABLE.c.rule_id == rule_id).with_for_update()).one_or_none()
    if before is None:
        raise NotFound(MISSING)
    wanted = {name: changes.get(name, getattr(before, name)) for name in _CHANGEABLE}
    # Switching off must work even when something the actions refer to has gone.
    is_looked_up = "actions" in changes or changes.get("active") is True
    values = _checked(tx, wanted, policy if is_looked_up else None)
    if not all(is_same(getattr(before, name), value) for name, value in values.items()):
        tx.execute(change(_TABLE).where(_TABLE.c.rule_id == rule_id).values(**values))
        _LOG.info("automation rule %s changed by %s", rule_id, actor)
    return get(tx, rule_id)


def remove(tx: Connection, rule_id: int, *, actor: str) -> None:
    """Delete a rule with its logs; runs that wait end.

    Raises:
        NotFound: no such rule.
    """
    if not tx.execute(delete(_TABLE).where(_TABLE.c.rule_id == rule_id)).rowcount:
        raise NotFound(MISSING)
    for table in (tables.automation_waits, _LOGS):
        tx.execute(delete(table).where(table.c.rule_id == rule_id))
    _LOG.info("automation rule %s deleted by %s", rule_id, actor)


def logs(
    tx: Connection, rule_id: int, *, offset: int = 0, limit: int = 50, before: int | None = None
) -> list[Log]:
    """What became of a rule when it was triggered, newest first; empty for a rule that is not there.

    Args:
        before: log_id of the last row of the page before.
    """
    query = select(_LOGS).where(_LOGS.c.rule_id == rule_id).order_by(_LOGS.c.log_id.desc())
    if before is not None:
        query = query.where(_LOGS.c.log_id < before)
    names = [item.name for item in dataclasses.fields(Log)]
    return [
        Log(**{**{name: getattr(row, name) for name in names}, "status": RunStatus(row.status)})
        for row in tx.execute(query.offset(offset).limit(limit))
    ]


def count_logs(tx: Connection, rule_id: int) -> int:
    """How many logs a rule has."""
    return int(tx.scalar(select(func.count()).select_from(_LOGS).where(_LOGS.c.rule_id == rule_id)) or 0)


def stats(tx: Connection, rule_id: int) -> Stats:
    """How often a rule was triggered, and what came of it.

    Raises:
        NotFound: no such rule.
    """
    get(tx, rule_id)
    rows = tx.execute(statement("automations.stats"), {"rule_id": rule_id})
    counts = {row.status: row.log_count for row in rows}
    return Stats(
        total=sum(counts.values()), success=counts.get(RunStatus.SUCCESS, 0),
        failed=counts.get(RunStatus.FAILED, 0), skipped=counts.get(RunStatus.SKIPPED, 0),
    )  # fmt: skip


def _query() -> Select[Any]:
    executions = func.coalesce(_TOTALS.c.executions, 0).label("total_executions")
    return select(_TABLE, executions).outerjoin(_TOTALS, _TOTALS.c.rule_id == _TABLE.c.rule_id)


def _filtered(query: Select[Any], active: bool | None, trigger_type: str | None) -> Select[Any]:
    if active is not None:
        query = query.where(_TABLE.c.active == active)
    return query if trigger_type is None else query.where(_TABLE.c.trigger_type == trigger_type)


def _checked(tx: Connection, values: Mapping[str, Any], policy: Policy | None) -> dict[str, Any]:
    """The values to store; without a policy what the actions refer to is not looked up."""
    tidy = {**values, **{name: _line(name, values[name]) for name in _LINES}}
    description = values["description"]
    if not isinstance(description, str) or len(description) > _LONGEST_DESCRIPTION or "\0" in description:
        raise _problem("description", f"'description' is text of at most {_LONGEST_DESCRIPTION} characters")
    if not isinstance(values["active"], bool):
        raise _problem("active", "'active' must be true or false")
    for name, least in _BOUNDS.items():
        number = values[name]
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= _INT32:
            raise _problem(name, f"'{name}' is a whole number from {least} to {_INT32}")
    config = values["trigger_config"]
    if not isinstance(config, Mapping) or len(json.dumps(dict(config))) > _MOST_CONFIG_BYTES:
        raise _problem("trigger_config", f"'trigger_config' is an object of at most {_MOST_CONFIG_BYTES} bytes")
    actions = definition.read(values["conditions"], values["actions"])
    if policy is not None:
        definition.check_references(tx, actions, policy)
    return {**tidy, "trigger_config": dict(config), "conditions": list(values["conditions"]),
            "actions": list(values["actions"])}  # fmt: skip


def _line(name: str, value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    problem = "is not empty" if not text else single_line_problem(text, _LINES[name])
    if problem:
        raise _problem(name, f"{name} {problem}")
    return text


def _problem(name: str, message: str) -> InvalidInput:
    return InvalidInput(message, path=("body", name))


def _rule(row: Row[Any]) -> Rule:
    return Rule(**{item.name: getattr(row, item.name) for item in dataclasses.fields(Rule)})
