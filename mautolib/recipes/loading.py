"""Making what a recipe describes: templates, segments, workflows and rules, in one transaction with its audit entries.

Promise: everything goes through the verbs the API uses, so it is checked as there; what has the name of a part is that
part and is left as it is, so that loading again makes nothing twice and undoes no change. Called by the command and the
demo. It sends nothing: workflows act by `workflow_advance`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, func, select

from mautolib import automations, segments, workflows
from mautolib.auth import audit
from mautolib.db import tables
from mautolib.recipes.book import Recipe, resolved
from mautolib.segments.rules import Definition
from mautolib.settings import Settings
from mautolib.templates import catalogue
from mautolib.templates.starters import starter

ACTOR: Final = audit.Actor(type=audit.ActorType.SYSTEM, label="recipes")
_LOCK: Final = "mautolib.recipes"
_MADE, _OK = 201, 200


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that a recipe needs.

    Args:
        kind: template, segment, workflow or automation rule.
        done: `made`, `switched on`, or `there already`.
        active: None where there is nothing to switch on.
    """

    kind: str
    number: int
    name: str
    done: str
    active: bool | None = None


def load(tx: Connection, settings: Settings, recipe: Recipe, *, activate: bool = False, now: datetime) -> list[Part]:
    """Make what is missing of a recipe; returns all its parts, in the order they depend on each other.

    Args:
        activate: let its workflows and rules act; those that are there already are switched on too.
    Raises:
        InvalidInput: a part cannot run, such as a workflow whose template was changed and is faulty now.
    """
    # Two loaders at once: the second finds what the first has made.
    tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(_LOCK, 0))))
    ids: dict[tuple[str, str], int] = {}
    parts = list(_templates(tx, recipe, ids, now))
    parts += _segments(tx, settings, recipe, ids, now)
    for given in recipe.workflows:
        parts.append(_workflow(tx, resolved(dict(given), ids), activate, now))
    for given in recipe.rules:
        parts.append(_rule(tx, resolved(dict(given), ids), activate, now))
    return parts


def _templates(
    tx: Connection, recipe: Recipe, ids: dict[tuple[str, str], int], now: datetime
) -> Iterator[Part]:
    for key in recipe.templates:
        new = starter(key)
        made = catalogue.ensure(tx, new, now=now, actor=str(ACTOR))
        found = catalogue.get_by_name(tx, new.name)
        assert found is not None
        ids["template", key] = found.template_id
        yield _part(tx, "template", found.template_id, new.name, "made" if made else "")


def _segments(
    tx: Connection, settings: Settings, recipe: Recipe, ids: dict[tuple[str, str], int], now: datetime
) -> Iterator[Part]:
    for given in recipe.segments:
        about = {name: value for name, value in given.items() if name not in ("key", "name", "description")}
        number = _find(tx, tables.segments, "segment_id", given["name"])
        made = number is None
        if number is None:
            definition = Definition(**{**about, "rules": tuple(about["rules"])})
            new = segments.NewSegment(name=given["name"], description=given["description"], definition=definition)
            number = segments.create(tx, settings, new, now=now).segment_id
        ids["segment", given["key"]] = number
        yield _part(tx, "segment", number, given["name"], "made" if made else "")


def _workflow(tx: Connection, given: Mapping[str, Any], activate: bool, now: datetime) -> Part:
    number, actor = _find(tx, tables.workflows, "workflow_id", given["name"]), str(ACTOR)
    if number is None:
        made = workflows.create(tx, workflows.NewWorkflow(**given, active=activate), actor=actor, now=now)
        return _part(tx, "workflow", made.workflow_id, made.name, "made", made.active)
    found = workflows.get(tx, number, lock=True)
    if not activate or found.active:
        return _part(tx, "workflow", number, found.name, "", found.active)
    workflows.activate(tx, number, actor=actor, now=now)
    return _part(tx, "workflow", number, found.name, "switched on", True)


def _rule(tx: Connection, given: Mapping[str, Any], activate: bool, now: datetime) -> Part:
    number, actor = _find(tx, tables.automation_rules, "rule_id", given["name"]), str(ACTOR)
    if number is None:
        made = automations.create(tx, automations.NewRule(**given, active=activate), actor=actor, now=now)
        return _part(tx, "automation rule", made.rule_id, made.name, "made", made.active)
    found = automations.get(tx, number)
    if not activate or found.active:
        return _part(tx, "automation rule", number, found.name, "", found.active)
    automations.update(tx, number, {"active": True}, actor=actor)
    return _part(tx, "automation rule", number, found.name, "switched on", True)


def _find(tx: Connection, table: Table, key: str, name: str) -> int | None:
    """The oldest of that name."""
    number = tx.scalar(select(table.c[key]).where(table.c.name == name).order_by(table.c[key]).limit(1))
    return None if number is None else int(number)


def _part(tx: Connection, kind: str, number: int, name: str, done: str, active: bool | None = None) -> Part:
    """The part, and the audit entry of what was done to it."""
    if done:
        resource = kind.replace(" ", "_")
        action = "create" if done == "made" else "activate" if kind == "workflow" else "update"
        changes = {"name": name} if active is None else {"name": name, "active": active}
        audit.write(tx, audit.Entry(
            actor=ACTOR, action=f"{resource}.{action}", resource_type=resource, resource_id=str(number),
            status=_MADE if done == "made" else _OK, changes=changes,
        ))  # fmt: skip
    return Part(kind=kind, number=number, name=name, done=done or "there already", active=active)
