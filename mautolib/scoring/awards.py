"""Giving points: by hand, and by the rules to an event that is told here and now.

Promises that the award, its event and the score that follows from both stand in one transaction, and that no point
counts twice: a score counts events and points given by hand; what rules gave (`score_rule_awards`) is a record.
Called by the API, and with many contacts at once by workflows and automation rules.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, insert, select

from mautolib.db import tables
from mautolib.db.engine import Tx
from mautolib.db.prepared import execute_prepared
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.append import NewEvent, append
from mautolib.events.types import OBSERVATION, canonical
from mautolib.scoring import rules
from mautolib.scoring.evaluating import binds
from mautolib.scoring.model import ScoreEvent, SnapshotSource
from mautolib.scoring.recalculation import recalculate_contact, recalculate_contacts
from mautolib.scoring.turns import take_turn

_LOG = logging.getLogger(__name__)
MISSING: Final = "Contact not found"
#: Sums of points stay exact far below what a float can hold, whoever gives how often.
MOST_POINTS: Final = 1_000_000
MOST_METADATA_BYTES: Final = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class NewAward:
    """Points for a contact; they do not decay, and take effect at once."""

    contact_id: int
    event_type: str
    points: float
    reason: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def award(tx: Tx, new: NewAward, *, now: datetime) -> ScoreEvent:
    """Give points by hand and score the contact again.

    Raises:
        NotFound: no such contact.
        InvalidInput: more than a million points, or metadata over 256 KiB.
    """
    if not -MOST_POINTS <= new.points <= MOST_POINTS:
        raise InvalidInput(f"points is between -{MOST_POINTS} and {MOST_POINTS}", path=("body", "points"))
    _check_metadata(new.metadata)
    moment = _hold(tx, new.contact_id, now)
    table = tables.score_awards
    row = tx.execute(
        insert(table)
        .values(
            contact_id=new.contact_id, event_type=canonical(new.event_type), points=new.points, reason=new.reason,
            metadata=dict(new.metadata), occurred_at=moment, created_at=moment,
            rule_version=rules.current_version(tx),
        )
        .returning(table)
    ).one()  # fmt: skip
    recalculate_contact(tx, new.contact_id, moment, source=SnapshotSource.RUNNING)
    _LOG.info("contact %s was given points by hand", new.contact_id)
    return _told(row, rule_id=None)


def award_many(
    tx: Tx, contact_ids: Sequence[int], *, event_type: str, points: float, reason: str, now: datetime
) -> set[int]:
    """Give the same points to contacts by one rule or step, once for each time a contact is named.

    Returns: those of them that exist.
    Raises:
        InvalidInput: more than a million points.
    """
    if not -MOST_POINTS <= points <= MOST_POINTS:
        raise InvalidInput(f"points is between -{MOST_POINTS} and {MOST_POINTS}", path=("body", "points"))
    people = tables.contacts.c
    wanted = sorted(set(contact_ids))
    moment = take_turn(tx, wanted, now) if wanted else None
    if moment is None:
        return set()
    present = set(tx.scalars(select(people.contact_id).where(people.contact_id == func.any(wanted))))
    common = {"event_type": canonical(event_type), "points": points, "reason": reason, "metadata": {},
              "occurred_at": moment, "created_at": moment, "rule_version": rules.current_version(tx)}  # fmt: skip
    tx.execute(
        insert(tables.score_awards), [{**common, "contact_id": one} for one in contact_ids if one in present]
    )
    recalculate_contacts(tx, sorted(present), moment, source=SnapshotSource.RUNNING)
    _LOG.info("%s contacts were given points by a rule or workflow", len(present))
    return present


def process_event(
    tx: Tx, contact_id: int, event_type: str, metadata: Mapping[str, Any], *, now: datetime
) -> list[ScoreEvent]:
    """Store an event as a caller's observation, apply the rules to it and score the contact again.

    Returns: what each rule that counts the event gave for it, as of now; empty if none does.
    Raises:
        NotFound: no such contact.
        InvalidInput: metadata over 256 KiB.
    """
    _check_metadata(metadata)
    moment = _hold(tx, contact_id, now)
    told = NewEvent(
        event_type=canonical(event_type), occurred_at=moment, contact_id=contact_id, source=OBSERVATION,
        properties=metadata,
    )  # fmt: skip
    (stored,) = append(tx, [told], now=moment).entries
    given = _apply_rules(tx, contact_id, stored.event_id, told.event_type, moment)
    recalculate_contact(tx, contact_id, moment, source=SnapshotSource.RUNNING)
    _LOG.info("an event of contact %s was processed: %s rules count it", contact_id, len(given))
    return given


def _apply_rules(tx: Tx, contact_id: int, event_id: int, event_type: str, moment: datetime) -> list[ScoreEvent]:
    version = rules.current_version(tx)
    wanted = binds(contact_id, as_of=moment, rule_version=version)
    rows = execute_prepared(tx, "scoring_lists.event_awards", {**wanted, "event_id": event_id}).all()
    if not rows:
        return []
    names = {rule.rule_id: rule.name for rule in rules.get_version(tx, version).rules}
    table = tables.score_rule_awards
    common = {"contact_id": contact_id, "event_id": event_id, "event_type": event_type, "rule_version": version,
              "occurred_at": moment, "created_at": moment}  # fmt: skip
    values = [
        {**common, "rule_id": row.rule_id, "points": row.points, "reason": f"Rule: {names[row.rule_id]}"}
        for row in rows
    ]
    added = tx.execute(insert(table).returning(table, sort_by_parameter_order=True), values)
    return [_told(row, rule_id=row.rule_id) for row in added]


def _hold(tx: Tx, contact_id: int, now: datetime) -> datetime:
    """Keep others from scoring the contact; returns the moment this happens at."""
    moment = take_turn(tx, [contact_id], now)
    if moment is None:
        raise NotFound(MISSING)
    return moment


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    if len(json.dumps(dict(metadata))) > MOST_METADATA_BYTES:
        raise InvalidInput(f"metadata takes more than {MOST_METADATA_BYTES} bytes", path=("body", "metadata"))


def _told(row: Any, *, rule_id: int | None) -> ScoreEvent:
    return ScoreEvent(
        award_id=row.award_id, contact_id=row.contact_id, rule_id=rule_id, event_type=row.event_type,
        points=row.points, reason=row.reason, rule_version=row.rule_version, occurred_at=row.occurred_at,
        created_at=row.created_at,
    )  # fmt: skip
