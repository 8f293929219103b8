"""Lifecycle evaluations on request: what would become of a supposed score and stage, and of those who wait the longest.

Guards that both are decided by the text that decides at night (`scoring.stages`): churned, dormant, then the ladder.
Called by the API. Everybody's nightly evaluation is `recalculation`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mautolib.db.engine import Tx
from mautolib.db.prepared import execute_prepared
from mautolib.db.statements import statement
from mautolib.scoring import rules
from mautolib.scoring.evaluating import binds, reason_of
from mautolib.scoring.model import SnapshotSource, Stage
from mautolib.scoring.recalculation import recalculate_contacts

_LOG = logging.getLogger(__name__)
#: Which rule leads to a stage, in words; stages that are missing here are steps of the ladder.
_RULES: Final[Mapping[Stage, str]] = {
    Stage.CHURNED: "Opted out or suppressed: left only by new consent",
    Stage.DORMANT: "No positive engagement for longer than the stage allows",
    Stage.OPPORTUNITY: "A checkout of the last 14 days without an order since",
    Stage.CUSTOMER: "A score of 70, or an order that was not fully refunded; kept from then on",
    Stage.EVANGELIST: "A score of 90; kept from then on",
}
_LADDER: Final = "The score sets the step of the ladder"


@dataclass(frozen=True, kw_only=True)
class Transition:
    """What an evaluation did to a stage, or left as it is."""

    contact_id: int
    previous_stage: Stage
    new_stage: Stage
    reason: str

    @property
    def transitioned(self) -> bool:
        """Whether the stage is another one."""
        return self.previous_stage is not self.new_stage

    @property
    def rule_description(self) -> str:
        """The rule that decided, in words."""
        return _RULES.get(self.new_stage, _LADDER)


@dataclass(frozen=True, kw_only=True)
class Processed:
    """How many contacts were evaluated, and who moved."""

    processed: int = 0
    transitions: Sequence[Transition] = ()


def suppose(tx: Tx, contact_id: int, stage: Stage, score: float, *, now: datetime) -> Transition:
    """What a lifecycle evaluation would make of this stage and score, with the contact's facts as of now.

    Args:
        contact_id: who does not exist has no facts: no order, no checkout, nothing against mailing.
    """
    wanted = binds(contact_id, as_of=now, rule_version=rules.current_version(tx))
    supposed = {**wanted, "contact_id": contact_id, "stage": str(stage), "score": score}
    row = execute_prepared(tx, "lifecycle.suppose", supposed).one()
    return Transition(
        contact_id=contact_id, previous_stage=stage, new_stage=Stage(row.next_stage), reason=reason_of(row)
    )


def process(tx: Tx, *, limit: int, now: datetime) -> Processed:
    """Evaluate those contacts whose last evaluation is the longest ago, and keep their scores and stages.

    Args:
        limit: at most so many; whom somebody else evaluates at this moment is left to them.
    """
    waiting = tx.scalars(statement("lifecycle.longest_unevaluated"), {"limit": limit}).all()
    held = tx.scalars(statement("lifecycle.hold_unheld"), {"contact_ids": list(waiting)}).all()
    as_of = None
    if held:
        as_of = recalculate_contacts(tx, held, now, source=SnapshotSource.RECALCULATED, is_lifecycle=True)
    if as_of is None:
        return Processed()
    evaluated = {"contact_ids": list(held), "as_of": as_of}
    tx.execute(statement("lifecycle.mark_evaluated"), evaluated)
    moves = [
        Transition(
            contact_id=row.contact_id, previous_stage=Stage(row.previous_stage), new_stage=Stage(row.new_stage),
            reason=row.reason,
        )
        for row in tx.execute(statement("lifecycle.moves"), evaluated)
    ]  # fmt: skip
    _LOG.info("lifecycle: %s contacts evaluated, %s moved", len(held), len(moves))
    return Processed(processed=len(held), transitions=moves)
