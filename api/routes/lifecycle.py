"""The lifecycle of contacts: a report, evaluations on request, engagement, and whom to win back."""

from __future__ import annotations

import math
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Query, Response
from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from api.calls import Outcome
from api.routing import CurrentCall, Router, allow, problems
from api.values import Answer, Id, Model, Shown, parse_id
from mautolib import scoring
from mautolib.auth.roles import Role
from mautolib.scoring import Stage, StageFigures, Transition
from mautolib.scoring.reengagement import Priority

router = Router("Lifecycle")
#: Stands for an id nothing can have; ids begin at 1.
_NO_ROW = 0


class EvaluationBody(Model):
    """What to suppose of a contact; its orders, checkouts, consent and activity are the real ones."""

    model_config = ConfigDict(
        title="LifecycleEvaluation",
        json_schema_extra={"example": {"contact_id": "42", "current_stage": "lead", "score": 57.5}},
    )

    contact_id: Id
    current_stage: Annotated[Stage, Field(strict=False)] = Stage.NEW
    score: float = 0


class ShownTransition(Answer):
    """What an evaluation does to a stage."""

    model_config = ConfigDict(title="Transition")

    contact_id: Id
    previous_stage: Stage
    new_stage: Stage
    transitioned: bool
    rule_description: str = Field(examples=["The score sets the step of the ladder"])
    reason: str = Field(examples=["score 57.5"])


class StageReport(Answer):
    """One stage."""

    count: int
    pct: float = Field(description="Of all scored contacts.")
    avg_score: float
    avg_engagement: float


class Health(Answer):
    """Shares of the scored contacts in percent; they add up to 100."""

    model_config = ConfigDict(title="LifecycleHealth")

    active_rate: float = Field(description="Neither dormant nor churned.")
    dormant_rate: float
    churn_rate: float


class Report(Answer):
    """Where the scored contacts stand; figures have 1 decimal."""

    model_config = ConfigDict(title="LifecycleReport")

    total_contacts: int
    stages: dict[Stage, StageReport]
    health: Health


class Processed(Answer):
    """Contacts that were evaluated, and those whose stage changed."""

    model_config = ConfigDict(title="LifecycleProcessed")

    processed: int
    transitioned: int
    transitions: list[ShownTransition]


class Engagement(Answer):
    """What a contact did: counts within the days asked for, the last moments of all time."""

    model_config = ConfigDict(title="ContactEngagement")

    total_opens: int
    total_clicks: int
    total_bounces: int
    total_unsubscribes: int
    last_open_at: Shown | None
    last_click_at: Shown | None
    last_activity_at: Shown | None
    days_since_last_activity: int | None
    engagement_velocity: float = Field(description="Positive engagements a week.")


class ShownQuiet(Answer):
    """A contact who was engaged and has gone quiet."""

    model_config = ConfigDict(title="ReengagementCandidate")

    contact_id: Id
    email: str
    name: str = Field(description="First name.")
    lifecycle_stage: Stage
    total_score: float
    engagement_score: float
    days_inactive: int
    reengagement_priority: Priority


@router.get("/lifecycle/report", response_model=Report, responses=problems(401))
@allow(Role.VIEWER)
def get_lifecycle_report(call: CurrentCall) -> Report:
    """Report on lifecycle stages.

    Scored contacts, as stored.
    """
    with call.engine.begin() as tx:
        figures = scoring.stage_figures(tx)
    total = sum(stage.count for stage in figures.values())
    dormant, churned = figures[Stage.DORMANT].count, figures[Stage.CHURNED].count
    health = Health(
        active_rate=_percent(total - dormant - churned, total), dormant_rate=_percent(dormant, total),
        churn_rate=_percent(churned, total),
    )  # fmt: skip
    stages = {stage: _stage(one, total) for stage, one in figures.items()}
    return Report(total_contacts=total, stages=stages, health=health)


@router.post("/lifecycle/evaluate", response_model=ShownTransition, responses=problems(401, 403, 422))
@allow(Role.VIEWER, action="lifecycle.evaluate")
async def evaluate_lifecycle(call: CurrentCall, body: EvaluationBody) -> Response:
    """Try a lifecycle evaluation.

    What the night would make of this stage and score, with the facts of the contact; an unknown one has none. Nothing
    is saved.
    """
    contact_id = parse_id(body.contact_id) or _NO_ROW

    def look() -> ShownTransition:
        with call.engine.begin() as tx:
            found = scoring.suppose(tx, contact_id, body.current_stage, body.score, now=call.now)
        return _transition(found, body.contact_id)

    answer = await run_sync(look)
    return await call.commit(lambda tx: Outcome(body=answer, resource_id=contact_id or None))


@router.post("/lifecycle/process", response_model=Processed, responses=problems(401, 403, 422))
@allow(Role.EDITOR, action="lifecycle.process")
async def process_lifecycle(
    call: CurrentCall, limit: Annotated[int, Query(ge=1, le=1000, description="At most so many contacts.")] = 100
) -> Response:
    """Evaluate scores and stages of some contacts now.

    Those whose last evaluation is the longest ago. `transitions` has the contacts whose stage changed.
    """
    # It takes no body; one that cannot be read is a mistake all the same.
    if await call.request.body():
        await call.request.json()

    def effect(tx: Connection) -> Outcome:
        done = scoring.process(tx, limit=limit, now=call.now)
        moved = [_transition(one, str(one.contact_id)) for one in done.transitions]
        answer = Processed(processed=done.processed, transitioned=len(moved), transitions=moved)
        return Outcome(body=answer, changes={"processed": done.processed, "transitioned": len(moved)})

    return await call.commit(effect)


@router.get("/lifecycle/contacts/{id}/engagement", response_model=Engagement, responses=problems(401, 422))
@allow(Role.VIEWER)
def get_contact_engagement(
    call: CurrentCall, id: str, days: Annotated[int, Query(ge=1, le=365, description="Count the last so many.")] = 90
) -> Engagement:
    """Show what a contact did lately.

    Opens and clicks are those of people, not of mail scanners. Zeros for an unknown contact.
    """
    with call.engine.begin() as tx:
        return Engagement.model_validate(
            scoring.engagement_of(tx, parse_id(id) or _NO_ROW, days=days, now=call.now)
        )


@router.get("/lifecycle/reengagement", response_model=list[ShownQuiet], responses=problems(401, 422))
@allow(Role.VIEWER)
def list_reengagement(
    call: CurrentCall,
    min_inactive_days: Annotated[int, Query(ge=7, le=365, description="Quiet for at least so long.")] = 30,
    max_inactive_days: Annotated[int, Query(ge=1, le=365, description="And for at most so long.")] = 90,
    limit: Annotated[int, Query(ge=1, le=500, description="At most so many contacts.")] = 100,
) -> list[ShownQuiet]:
    """List contacts to win back.

    Subscribed, last active that long ago, with an engagement above 5; the most engaged first, as stored. The priority
    is high above 30.
    """
    with call.engine.begin() as tx:
        rows = scoring.reengagement(
            tx, min_days=min_inactive_days, max_days=max_inactive_days, limit=limit, now=call.now
        )
    return [
        ShownQuiet(
            contact_id=str(row.contact_id), email=row.email, name=row.name, lifecycle_stage=row.lifecycle_stage,
            total_score=row.total_score, engagement_score=row.engagement_score, days_inactive=row.days_inactive,
            reengagement_priority=row.priority,
        )
        for row in rows
    ]  # fmt: skip


def _transition(found: Transition, contact_id: str) -> ShownTransition:
    return ShownTransition(
        contact_id=contact_id, previous_stage=found.previous_stage, new_stage=found.new_stage,
        transitioned=found.transitioned, rule_description=found.rule_description, reason=found.reason,
    )  # fmt: skip


def _stage(figures: StageFigures, total: int) -> StageReport:
    return StageReport(
        count=figures.count, pct=_percent(figures.count, total), avg_score=_rounded(figures.average_score),
        avg_engagement=_rounded(figures.average_engagement),
    )  # fmt: skip


def _rounded(value: float) -> float:
    return math.floor(value * 10 + 0.5) / 10


def _percent(part: int, whole: int) -> float:
    # Half up: halves of a tenth are exact in whole numbers.
    return (part * 2000 + whole) // (2 * whole) / 10 if whole else 0.0
