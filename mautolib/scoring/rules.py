"""Scoring rules: what an event is worth. Each change of any rule makes a new version of all of them.

Guards that versions have no gap and that evaluations read whole versions only (`scoring_rule_versions`), never the
table that is being edited. Called by the API and by the first start. Points are applied by `recalculation`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, text, update

from mautolib.db import tables
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.types import EventType, canonical
from mautolib.scoring.model import Rule

_LOG = logging.getLogger(__name__)
_POINTS, _INT32 = 1000, 2**31 - 1
#: Every version has all conditions again.
_CONDITION_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class NewRule:
    """A rule to be made; see `Rule`."""

    name: str
    event_type: str
    description: str = ""
    condition: Mapping[str, Any] = field(default_factory=dict)
    points: int = 1
    max_per_contact: int = 0
    decay_days: int = 0
    active: bool = True


@dataclass(frozen=True, kw_only=True)
class RuleVersion:
    """All rules as they stood after a change of one of them."""

    version: int
    rules: Sequence[Rule]
    created_by: str
    created_at: datetime


#: Rules of a fresh installation, for a shop that mails a few times a month.
DEFAULT_RULES: tuple[NewRule, ...] = (
    NewRule(name="Opened a mail", event_type=EventType.EMAIL_OPENED, points=1, decay_days=30),
    NewRule(name="Clicked in a mail", event_type=EventType.EMAIL_CLICKED, points=5, decay_days=45),
    NewRule(name="Viewed a page", event_type=EventType.PAGE_VIEWED, points=2, decay_days=14),
    NewRule(name="Sent a form", event_type=EventType.FORM_SUBMITTED, points=10, max_per_contact=5, decay_days=60),
    NewRule(name="Filled the cart", event_type=EventType.CART_UPDATED, points=8, decay_days=14),
    NewRule(name="Started a checkout", event_type=EventType.CHECKOUT_STARTED, points=12, decay_days=21),
    NewRule(name="Placed an order", event_type=EventType.ORDER_PLACED, points=30, decay_days=180),
    NewRule(name="Unsubscribed", event_type=EventType.UNSUBSCRIBED, points=-50, max_per_contact=1),
)


def create_rule(tx: Tx, new: NewRule, *, actor: str, now: datetime) -> Rule:
    """Add a rule and make the next version.

    Raises:
        InvalidInput: a value is out of bounds.
    """
    _lock(tx)
    row = tx.execute(insert(tables.scoring_rules).values(**_checked(asdict(new)), created_at=now)
                     .returning(tables.scoring_rules)).one()  # fmt: skip
    version = _add_version(tx, actor=actor, now=now)
    _LOG.info("scoring rule %s created, rule version %s", row.rule_id, version)
    return _rule(row)


def change_rule(tx: Tx, rule_id: int, changes: Mapping[str, Any], *, actor: str, now: datetime) -> Rule:
    """Change fields of a rule (those of `NewRule`); makes a version only if something differs.

    Raises:
        NotFound: no such rule.
        InvalidInput: an unknown field or a value out of bounds.
    """
    _lock(tx)
    before = get_rule(tx, rule_id)
    values = _checked(changes)
    if all(getattr(before, name) == value for name, value in values.items()):
        return before
    table = tables.scoring_rules
    row = tx.execute(update(table).where(table.c.rule_id == rule_id).values(**values).returning(table)).one()
    version = _add_version(tx, actor=actor, now=now)
    _LOG.info("scoring rule %s changed, rule version %s", rule_id, version)
    return _rule(row)


def remove_rule(tx: Tx, rule_id: int, *, actor: str, now: datetime) -> None:
    """Delete a rule; the versions that had it keep it.

    Raises:
        NotFound: no such rule.
    """
    _lock(tx)
    get_rule(tx, rule_id)
    tx.execute(delete(tables.scoring_rules).where(tables.scoring_rules.c.rule_id == rule_id))
    version = _add_version(tx, actor=actor, now=now)
    _LOG.info("scoring rule %s removed, rule version %s", rule_id, version)


def get_rule(tx: Tx, rule_id: int) -> Rule:
    """One rule.

    Raises:
        NotFound: no such rule.
    """
    row = tx.execute(select(tables.scoring_rules).where(tables.scoring_rules.c.rule_id == rule_id)).one_or_none()
    if row is None:
        raise NotFound("Scoring rule not found")
    return _rule(row)


def list_rules(
    tx: Tx, *, active_only: bool = False, limit: int = 1000, offset: int = 0, before: int | None = None
) -> list[Rule]:
    """Rules, newest first.

    Args:
        before: rule_id of the last row of the page before.
    """
    table = tables.scoring_rules
    query = select(table).order_by(table.c.rule_id.desc()).limit(limit).offset(offset)
    if active_only:
        query = query.where(table.c.active)
    if before is not None:
        query = query.where(table.c.rule_id < before)
    return [_rule(row) for row in tx.execute(query)]


def count_rules(tx: Tx, *, active_only: bool = False) -> int:
    """How many rules there are."""
    query = select(func.count()).select_from(tables.scoring_rules)
    return int(tx.scalar(query.where(tables.scoring_rules.c.active) if active_only else query) or 0)


def list_versions(tx: Tx, *, limit: int = 50, offset: int = 0, before: int | None = None) -> list[RuleVersion]:
    """Versions of the rules, newest first.

    Args:
        before: version of the last row of the page before.
    """
    table = tables.scoring_rule_versions
    query = select(table).order_by(table.c.version.desc()).limit(limit).offset(offset)
    if before is not None:
        query = query.where(table.c.version < before)
    return [_version(row) for row in tx.execute(query)]


def count_versions(tx: Tx) -> int:
    """How many versions there are."""
    return int(tx.scalar(select(func.count()).select_from(tables.scoring_rule_versions)) or 0)


def get_version(tx: Tx, version: int) -> RuleVersion:
    """One version of the rules.

    Raises:
        NotFound: no such version.
    """
    table = tables.scoring_rule_versions
    row = tx.execute(select(table).where(table.c.version == version)).one_or_none()
    if row is None:
        raise NotFound("Rule version not found")
    return _version(row)


def current_version(tx: Tx) -> int:
    """The newest version of the rules."""
    return int(tx.scalar(select(func.max(tables.scoring_rule_versions.c.version))) or 0)


def check_version(tx: Tx, version: int | None) -> int:
    """`version`, or the newest one for None.

    Raises:
        InvalidInput: there is no such version.
    """
    if version is None:
        return current_version(tx)
    versions = tables.scoring_rule_versions
    if tx.scalar(select(versions.c.version).where(versions.c.version == version)) is None:
        raise InvalidInput(f"there is no rule version {version}", path=("rule_version",))
    return version


def install_default_rules(tx: Tx, now: datetime) -> Sequence[Rule]:
    """Add the default rules to an installation that never had any; whoever removed them does not get them back.

    Returns: the rules added now, in the order of `DEFAULT_RULES`; empty the second time.
    """
    _lock(tx)
    if current_version(tx) > 1 or tx.scalar(select(func.count()).select_from(tables.scoring_rules)):
        return []
    rows = [{**_checked(asdict(rule)), "created_at": now} for rule in DEFAULT_RULES]
    table = tables.scoring_rules
    added = tx.execute(insert(table).returning(table, sort_by_parameter_order=True), rows).all()
    _add_version(tx, actor="system", now=now)
    _LOG.info("%s default scoring rules installed", len(added))
    return [_rule(row) for row in added]


def _lock(tx: Tx) -> None:
    # Changes come one after the other, so that versions have no gap; readers are not held up.
    tx.execute(text("lock table scoring_rules in share row exclusive mode"))


def _add_version(tx: Tx, *, actor: str, now: datetime) -> int:
    return int(tx.execute(statement("scoring.add_rule_version"), {"actor": actor, "now": now}).scalar_one())


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` in the form they are stored."""
    checked = dict(values)
    unknown = checked.keys() - NewRule.__dataclass_fields__.keys()
    if unknown:
        raise InvalidInput(f"a scoring rule has no {min(unknown)}", path=(min(unknown),))
    if "name" in checked:
        checked["name"] = checked["name"].strip()
        _require(1 <= len(checked["name"]) <= 200, "name", "has 1 to 200 characters")
    if "description" in checked:
        _require(len(checked["description"]) <= 2000, "description", "has at most 2000 characters")
    if "event_type" in checked:
        checked["event_type"] = str(canonical(checked["event_type"].strip()))
        _require(1 <= len(checked["event_type"]) <= 50, "event_type", "has 1 to 50 characters")
    if "points" in checked:
        _require(-_POINTS <= checked["points"] <= _POINTS, "points", f"is between -{_POINTS} and {_POINTS}")
    for name in ("max_per_contact", "decay_days"):
        if name in checked:
            _require(0 <= checked[name] <= _INT32, name, "is not negative")
    if "condition" in checked:
        _require(isinstance(checked["condition"], Mapping), "condition", "maps properties to the values they must have")
        checked["condition"] = dict(checked["condition"])
        size = len(json.dumps(checked["condition"]))
        _require(size <= _CONDITION_BYTES, "condition", f"takes at most {_CONDITION_BYTES} bytes")
    return checked


def _require(is_met: bool, name: str, rule: str) -> None:
    if not is_met:
        raise InvalidInput(f"{name} {rule}", path=(name,))


def _rule(row: Any) -> Rule:
    return Rule(**row._mapping)


def _version(row: Any) -> RuleVersion:
    kept = [
        Rule(**{**rule, "created_at": datetime.fromisoformat(rule["created_at"])})
        for rule in ({("rule_id" if name == "id" else name): value for name, value in one.items()} for one in row.rules)
    ]
    return RuleVersion(version=row.version, rules=kept, created_by=row.created_by, created_at=row.created_at)
