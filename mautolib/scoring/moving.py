"""Moving contacts to a stage of the lifecycle because a rule says so, whatever their score.

Promise: the move stands with its time, actor and reason in `stage_transitions`, and what follows from it (a stage
reached for the first time) is told once, in the same transaction. Who is there already is left alone. Called by
automation rules; the evaluations of the night may move people on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.scoring import following
from mautolib.scoring.model import Stage
from mautolib.scoring.turns import take_turn

_LOG = logging.getLogger(__name__)


def move(
    tx: Tx, contact_ids: Sequence[int], stage: Stage, *, reason: str, actor: str, now: datetime
) -> dict[int, Stage]:
    """Move contacts to a stage.

    Returns: by contact that exists the stage it was in before.
    """
    wanted = sorted(set(contact_ids))
    moment = take_turn(tx, wanted, now) if wanted else None
    if moment is None:
        return {}
    binds = {"contact_ids": wanted, "stage": str(stage), "moment": moment, "reason": reason, "actor": actor}
    before = {
        row.contact_id: Stage(row.previous_stage)
        for row in tx.execute(statement("lifecycle.move_by_hand"), binds)
    }
    moved = [person for person, previous in before.items() if previous is not stage]
    if moved:
        following.tell(tx, as_of=moment, contact_ids=moved)
        _LOG.info("%s contacts moved to stage %s by %s", len(moved), stage, actor)
    return before
