"""Queueing: intentions become rows, once each.

Promise: of one dedupe key there is one message ever; planning twice, in parallel or after a crash inserts nothing
new. Always one statement, whatever the number. Callers: campaign planning, workflow steps, automation rules,
transactional mail. It does not wake anybody: a trigger on the table does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    CTE,
    Column,
    Connection,
    FromClause,
    Select,
    TableValuedAlias,
    Text,
    case,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.types import NullType

from mautolib.db import tables
from mautolib.ledger.model import HELD_FOR_DECISION, HELD_UNTIL, AbPart, Kind, NewMessage, Status

_MESSAGES, _KEYS = tables.messages, tables.message_keys
_GIVEN: Final = (
    "kind", "contact_id", "to_email", "to_key", "campaign_id", "workflow_id", "enrollment_id", "occurrence",
    "variant_id", "content_id", "dedupe_key", "context", "reason", "due_at", "give_up_at",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Queued:
    """How many intentions were new: those waiting now, and those born skipped by reason."""

    queued: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All new rows."""
        return self.queued + sum(self.skipped.values())


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When messages to people in one time zone are due, tried first and given up.

    Args:
        held_for: why they are tried later than they are due.
    """

    timezone: str
    due_at: datetime
    next_try_at: datetime
    give_up_at: datetime
    held_for: str | None = None


def queue(tx: Connection, messages: Iterable[NewMessage]) -> int:
    """Queue `messages` in one statement; returns how many were new."""
    rows = [
        {
            "kind": message.kind, "contact_id": message.contact_id, "to_email": message.to_email,
            "to_key": message.to_key, "campaign_id": message.campaign_id, "workflow_id": message.workflow_id,
            "enrollment_id": message.enrollment_id, "occurrence": message.occurrence,
            "variant_id": message.variant_id, "content_id": message.content_id, "dedupe_key": message.dedupe_key,
            "context": None if message.context is None else dict(message.context), "reason": message.skip,
            "due_at": message.due_at.isoformat(), "give_up_at": message.give_up_at.isoformat(),
        }
        for message in messages
    ]  # fmt: skip
    if not rows:
        return 0
    columns = [Column(name, _MESSAGES.c[name].type) for name in _GIVEN]
    function = func.jsonb_to_recordset(cast(rows, tables.messages.c.context.type))
    given = function.table_valued(*columns, name="given").render_derived(name="given", with_types=True)
    return _store(tx, select(*(given.c[name] for name in _GIVEN))).total


def queue_step(
    tx: Connection,
    members: Mapping[str, str],
    *,
    workflow_id: int,
    step: str,
    content_id: int,
    due_at: datetime,
    give_up_at: datetime,
) -> int:
    """Queue one message for each enrollment at a step of a workflow, in one statement; returns how many were new.

    Args:
        members: the array literals `enrollment_ids` and `contact_ids`.
        step: what the dedupe keys say behind `enrollment:<id>`.
    """
    numbers = _MESSAGES.c.contact_id.type
    # Literals without a type of their own: the planner then knows how many there are.
    arrays = (cast(literal(members[name], NullType()), ARRAY(numbers)) for name in ("enrollment_ids", "contact_ids"))
    given = (
        func.unnest(*arrays)
        .table_valued(Column("enrollment_id", numbers), Column("contact_id", numbers), name="given")
        .render_derived(name="given")
    )
    entered = tables.enrollments
    is_theirs = (entered.c.contact_id == given.c.contact_id) & (entered.c.enrollment_id == given.c.enrollment_id)
    values: dict[str, Any] = {
        "kind": literal(Kind.WORKFLOW.value),
        "contact_id": given.c.contact_id,
        "workflow_id": literal(workflow_id, numbers),
        "enrollment_id": given.c.enrollment_id,
        "content_id": literal(content_id, numbers),
        "dedupe_key": literal("enrollment:") + cast(given.c.enrollment_id, Text) + literal(step),
        "context": select(func.jsonb_build_object("event", entered.c.context)).where(is_theirs).scalar_subquery(),
        "reason": cast(None, Text),
        "due_at": literal(due_at, _MESSAGES.c.due_at.type),
        "give_up_at": literal(give_up_at, _MESSAGES.c.give_up_at.type),
    }
    wanted = select(*(value.label(name) for name, value in values.items())).select_from(given)
    return _store(tx, wanted).total


def queue_audience(
    tx: Connection,
    audience: Select[Any],
    *,
    campaign_id: int,
    occurrence: int,
    due_at: datetime,
    give_up_at: datetime,
    by_zone: Sequence[Timing] = (),
) -> Queued:
    """Queue one message of a campaign run for everybody in `audience`, in one statement.

    Args:
        audience: a query with the columns contact_id, content_id, variant_id, timezone and reason (why somebody is
            not written to, or null); in an A/B test also ab_part and delay (how much later than others, an interval).
        by_zone: the times of people by their time zone, where that matters; "" are those of all other people.
    """
    people = audience.subquery("audience")
    prefix = f"campaign:{campaign_id}:occ:{occurrence}:contact:"
    values: dict[str, Any] = {
        "kind": literal(Kind.CAMPAIGN.value),
        "contact_id": people.c.contact_id,
        "campaign_id": literal(campaign_id, _MESSAGES.c.campaign_id.type),
        "occurrence": literal(occurrence),
        "variant_id": people.c.variant_id,
        "content_id": people.c.content_id,
        "dedupe_key": literal(prefix) + cast(people.c.contact_id, Text),
        "reason": people.c.reason,
        "due_at": literal(due_at, _MESSAGES.c.due_at.type),
        "give_up_at": literal(give_up_at, _MESSAGES.c.give_up_at.type),
    }
    source: FromClause = people
    if by_zone:
        zones = _zones(by_zone)
        names = [timing.timezone for timing in by_zone]
        known = case((people.c.timezone.in_(names), people.c.timezone), else_="")
        source = people.join(zones, zones.c.timezone == known)
        values |= {name: zones.c[name] for name in ("due_at", "give_up_at", "next_try_at", "held_for")}
    if "ab_part" in people.c:
        values = _by_part(people, values)
    wanted = select(*(value.label(name) for name, value in values.items())).select_from(source)
    return _store(tx, wanted.order_by(people.c.contact_id))


def _by_part(people: FromClause, values: dict[str, Any]) -> dict[str, Any]:
    """The values of an audience in an A/B test: the rest is held, out of reach of every clock, until the decision."""
    is_held = people.c.ab_part == literal(AbPart.REST.value)
    due_at, kind = values["due_at"] + people.c.delay, _MESSAGES.c.due_at.type
    next_try_at = func.greatest(values.get("next_try_at", due_at), due_at, type_=kind)
    held = literal(HELD_UNTIL, kind)
    return {
        **values,
        "ab_part": people.c.ab_part,
        "due_at": due_at,
        "next_try_at": case((is_held, held), else_=next_try_at),
        "give_up_at": case((is_held, held), else_=values["give_up_at"] + people.c.delay),
        "held_for": case((is_held, HELD_FOR_DECISION), else_=values.get("held_for", cast(None, Text))),
    }


def _zones(by_zone: Sequence[Timing]) -> TableValuedAlias:
    names = ("due_at", "next_try_at", "give_up_at", "held_for")
    rows = [
        {"timezone": timing.timezone, "due_at": timing.due_at.isoformat(),
         "next_try_at": timing.next_try_at.isoformat(), "give_up_at": timing.give_up_at.isoformat(),
         "held_for": timing.held_for}
        for timing in by_zone
    ]  # fmt: skip
    columns = [Column("timezone", Text), *(Column(name, _MESSAGES.c[name].type) for name in names)]
    function = func.jsonb_to_recordset(cast(rows, _MESSAGES.c.context.type))
    return function.table_valued(*columns, name="zones").render_derived(name="zones", with_types=True)


def _store(tx: Connection, wanted_rows: Select[Any]) -> Queued:
    """Register the keys, insert a message for each new one, and count."""
    rows = wanted_rows.subquery("rows")
    given = list(rows.c)
    if "next_try_at" not in rows.c:
        given.append(rows.c.due_at.label("next_try_at"))
    wanted: CTE = select(*given, func.nextval("message_ids").label("message_id")).cte("wanted")
    key_columns = ["dedupe_key", "contact_id", "message_id"]
    fresh = (
        insert(_KEYS)
        # In the order of the index: neighbours share its pages, and two planners cannot wait for each other.
        .from_select(key_columns, select(*(wanted.c[name] for name in key_columns)).order_by(wanted.c.dedupe_key))
        .on_conflict_do_nothing()
        .returning(_KEYS.c.message_id)
        .cte("fresh")
    )
    status = case((wanted.c.reason.is_(None), Status.QUEUED.value), else_=Status.SKIPPED.value)
    new = select(*wanted.c, status).join(fresh, fresh.c.message_id == wanted.c.message_id)
    stored = (
        insert(_MESSAGES)
        .from_select([*(column.name for column in wanted.c), "status"], new)
        .returning(_MESSAGES.c.reason)
        .cte("stored")
    )
    counts = {
        row.reason: row.message_count
        for row in tx.execute(select(stored.c.reason, func.count().label("message_count")).group_by(stored.c.reason))
    }
    return Queued(queued=counts.pop(None, 0), skipped=counts)
