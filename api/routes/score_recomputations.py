"""Recomputations of scores: ask for past days, and look how far they are."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import Response
from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from api.calls import Outcome
from api.routing import PREFIX, CurrentCall, Router, allow, problems
from api.values import INT_MAX, Answer, Day, Id, Model, Moment, Shown, path_id
from mautolib.auth.roles import Role
from mautolib.scoring import recomputations
from mautolib.scoring.recomputations import RecomputationStatus

router = Router("Scoring")
MISSING = "Recomputation not found"


class RecomputationBody(Model):
    """Past days to score again, each as of its midnight UTC."""

    model_config = ConfigDict(
        title="ScoreRecomputationCreate",
        json_schema_extra={"example": {"from": "2026-01-01", "to": "2026-01-31", "known_at": "2026-02-01T00:00:00Z"}},
    )

    from_: Annotated[Day, Field(alias="from", description="The first day.")]
    to: Annotated[Day, Field(description="The last day; at most 366 days, none in the future.")]
    rule_version: int | None = Field(default=None, ge=1, le=INT_MAX, description="Default: the newest rules.")
    known_at: Moment | None = Field(default=None, description=(
        "Ignore what arrived later. Default: now. A day has one snapshot for each version of the rules: the first one "
        "stays, also where another `known_at` would give another score; `snapshots` then counts 0."))  # fmt: skip


class RecomputationQueued(Answer):
    """The recomputation waits for the DAG `score_recalculation`."""

    recomputation_id: Id
    status_url: str = Field(examples=["/api/v1/scoring/recomputations/42"])


class ShownRecomputation(Answer):
    """How far a recomputation is."""

    model_config = ConfigDict(title="ScoreRecomputation")

    id: Id
    status: RecomputationStatus
    from_: date = Field(serialization_alias="from", validation_alias="from_")
    to: date
    rule_version: int | None
    known_at: Shown | None
    done_through: date | None = Field(description="The last day that is done.")
    contacts: int = Field(description="Scored on that day.")
    snapshots: int = Field(description="Added so far; a day that was recomputed before by the same rules adds none.")
    grade_matrix: dict[str, dict[str, int]] = Field(
        description="Stored grade -> grade on the last day done -> contacts. `none`: no score is stored.",
        examples=[{"B": {"B": 40, "C": 2}, "none": {"F": 3}}],
    )
    error: str | None = Field(description="Why the last try of a day went wrong.", examples=[None])
    created_at: Shown
    finished_at: Shown | None


@router.post(
    "/scoring/recomputations", status_code=202, response_model=RecomputationQueued, responses=problems(401, 403, 422)
)
@allow(Role.ADMIN, action="score.recompute")
async def request_score_recomputation(call: CurrentCall, body: RecomputationBody) -> Response:
    """Score past days again.

    Adds snapshots with source `recomputed` and leaves current scores alone; the same days by the same rules again add
    nothing. The DAG `score_recalculation` does a day at a time and goes on where it was interrupted.
    """

    def effect(tx: Connection) -> Outcome:
        queued = recomputations.request(
            tx, from_day=body.from_, to_day=body.to, rule_version=body.rule_version, known_at=body.known_at,
            actor=str(call.actor), now=call.now,
        )  # fmt: skip
        number = str(queued.recomputation_id)
        answer = RecomputationQueued(recomputation_id=number, status_url=f"{PREFIX}/scoring/recomputations/{number}")
        changes = {"from": str(body.from_), "to": str(body.to), "rule_version": queued.rule_version}
        return Outcome(status=202, body=answer, resource_id=number, changes=changes)

    return await call.commit(effect)


@router.get(
    "/scoring/recomputations/{id}", response_model=ShownRecomputation, response_model_by_alias=True,
    responses=problems(401, s404=MISSING),
)  # fmt: skip
@allow(Role.VIEWER)
def get_score_recomputation(call: CurrentCall, id: str) -> ShownRecomputation:
    """Show a recomputation.

    `rule_version` is the one it works with, for all its days.
    """
    with call.engine.begin() as tx:
        found = recomputations.get(tx, path_id(id, MISSING))
    return ShownRecomputation(
        id=str(found.recomputation_id), status=found.status, from_=found.from_day, to=found.to_day,
        rule_version=found.rule_version, known_at=found.known_at, done_through=found.done_through,
        contacts=found.contacts, snapshots=found.snapshots,
        grade_matrix={old: dict(new) for old, new in found.grade_matrix.items()}, error=found.error,
        created_at=found.created_at, finished_at=found.finished_at,
    )  # fmt: skip
