"""Scores: rules and their versions, the score of a contact and why, who leads, points by hand and for an event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import (
    INT_MAX,
    Answer,
    Id,
    Line50,
    Line500,
    Model,
    Moment,
    Name200,
    OptionalId,
    Shown,
    Text2000,
    parse_id,
    path_id,
)
from mautolib import contacts, scoring
from mautolib.auth.roles import Role
from mautolib.errors import InvalidInput, NotFound
from mautolib.scoring import ContactScore, Grade, NewAward, NewRule, Rule, ScoreEvent, SnapshotSource, Stage

router = Router("Scoring")
MISSING, NO_SCORE, NO_CONTACT = "Scoring rule not found", "No score found for this contact", "Contact not found"
#: Stands for an id nothing can have; ids begin at 1.
_NO_ROW = 0
RulePage = Annotated[paging.Page, Depends(paging.pages(limit=1000, most=1000))]
_EventType = Annotated[Line50, Field(min_length=1, examples=["form_submitted"], description="Any type; synonyms are "
    "resolved.")]  # fmt: skip
_AsOf = Annotated[Moment | None, Query(description="Evaluate as of this moment, which is not in the future.")]
_RULE: dict[str, JsonValue] = {
    "name": "Asked for a demo", "event_type": "form_submitted", "condition": {"form": "demo"}, "points": 25,
    "max_per_contact": 1, "decay_days": 60,
}  # fmt: skip


class NewRuleBody(Model):
    """A new rule: what an event of a type is worth."""

    model_config = ConfigDict(title="ScoringRuleCreate", json_schema_extra={"example": _RULE})

    name: Name200
    event_type: _EventType
    description: Text2000 = ""
    condition: dict[str, Any] = Field(
        default={}, description="Properties an event must have, each equal to this value; at most 16 KiB as JSON."
    )
    points: int = Field(default=1, ge=-1000, le=1000)
    max_per_contact: int = Field(default=0, ge=0, le=INT_MAX, description="Only the first so many count; 0: all.")
    decay_days: int = Field(default=0, ge=0, le=INT_MAX, description="Half-life of the points; 0: they stay.")
    active: bool = True


class RulePatch(NewRuleBody):
    """The fields to change."""

    model_config = ConfigDict(title="ScoringRulePatch", json_schema_extra={"example": {"points": 30}})

    name: Name200 = ""
    event_type: _EventType = ""


class AwardBody(Model):
    """Points given by hand. They do not decay."""

    model_config = ConfigDict(
        title="ScoreEventCreate",
        json_schema_extra={
            "example": {"contact_id": "42", "event_type": "fair_visit", "points": 15, "reason": "Came to our stand"}
        },
    )

    contact_id: Id
    event_type: _EventType
    points: float = Field(ge=-scoring.MOST_POINTS, le=scoring.MOST_POINTS)
    reason: Line500 = ""
    metadata: dict[str, Any] = Field(default={}, description="At most 256 KiB as JSON.")


class ProcessBody(Model):
    """An event that happens now."""

    model_config = ConfigDict(
        title="ScoreEventProcess",
        json_schema_extra={
            "example": {"contact_id": "42", "event_type": "form_submitted", "metadata": {"form": "demo"}}
        },
    )

    contact_id: Id
    event_type: _EventType
    metadata: dict[str, Any] = Field(default={}, description="Its properties; at most 256 KiB as JSON.")


class ShownRule(Answer):
    """What an event of a type is worth."""

    model_config = ConfigDict(title="ScoringRule")

    id: Id
    name: str
    description: str
    event_type: str
    condition: dict[str, Any]
    points: int
    max_per_contact: int
    decay_days: int
    active: bool
    created_at: Shown


class ShownVersion(Answer):
    """All rules as they stood after a change."""

    model_config = ConfigDict(title="ScoringRuleVersion")

    version: int
    rules: list[ShownRule]
    created_by: str
    created_at: Shown


class ShownScore(Answer):
    """A score: engagement, profile and recency add up to the total."""

    model_config = ConfigDict(title="Score")

    contact_id: Id
    total_score: float
    engagement_score: float
    profile_score: float
    recency_score: float
    grade: Grade
    lifecycle_stage: Stage
    last_activity_at: Shown | None
    score_updated_at: Shown | None = Field(description="When it was stored; null for one evaluated on request.")
    as_of: Shown
    rule_version: int


class ShownSnapshot(ShownScore):
    """A score as an evaluation gave it."""

    model_config = ConfigDict(title="ScoreSnapshot")

    source: SnapshotSource


class ShownScoreEvent(Answer):
    """Points given, by hand or by a rule."""

    model_config = ConfigDict(title="ScoreEvent")

    id: Id
    contact_id: Id
    rule_id: OptionalId = Field(description="The rule that gave them; null if somebody did.")
    event_type: str
    points: float
    reason: str
    created_at: Shown
    occurred_at: Shown
    rule_version: int


class RulePart(Answer):
    """What one active rule contributed."""

    rule_id: Id
    name: str
    matched: int = Field(description="Events that match it.")
    counted: int = Field(description="Those that its `max_per_contact` lets count.")
    points: float = Field(description="What they give as of the moment.")


class RecencyPart(Answer):
    """Points for a recent activity."""

    last_activity_at: Shown | None
    points: float


class StagePart(Answer):
    """The stage a lifecycle evaluation of the moment gives, and why."""

    stage: Stage
    reason: str


class ShownExplanation(Answer):
    """A score taken apart: max(0, rules + manual) + profile + recency is the total."""

    model_config = ConfigDict(title="ScoreExplanation")

    as_of: Shown
    rule_version: int
    rules: list[RulePart]
    manual: float
    profile: dict[str, float]
    recency: RecencyPart
    stage: StagePart


class ShownLeader(Answer):
    """A contact with its score."""

    model_config = ConfigDict(title="Leader")

    contact_id: Id
    email: str
    name: str
    total_score: float
    engagement_score: float
    profile_score: float
    recency_score: float
    grade: Grade
    lifecycle_stage: Stage
    last_activity_at: Shown | None


class ProcessedEvent(Answer):
    """What one rule gave."""

    id: Id
    points: float


class ProcessedEvents(Answer):
    """What the rules gave for an event."""

    processed: int = Field(description="How many rules counted it.")
    events: list[ProcessedEvent]


def shown_rule(rule: Rule) -> ShownRule:
    """A rule as the API shows it."""
    return ShownRule(
        id=str(rule.rule_id), name=rule.name, description=rule.description, event_type=rule.event_type,
        condition=dict(rule.condition), points=rule.points, max_per_contact=rule.max_per_contact,
        decay_days=rule.decay_days, active=rule.active, created_at=rule.created_at,
    )  # fmt: skip


def _score(score: ContactScore) -> dict[str, Any]:
    return {name: getattr(score, name) for name in ShownScore.model_fields if name != "contact_id"} | {
        "contact_id": str(score.contact_id)
    }


@contextmanager
def _of_the_body() -> Iterator[None]:
    """Say of a value that is refused that it stands in the body."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(str(error), path=("body", *error.path)) from None


def _award(event: ScoreEvent) -> ShownScoreEvent:
    return ShownScoreEvent(
        id=str(event.award_id), contact_id=str(event.contact_id),
        rule_id=None if event.rule_id is None else str(event.rule_id), event_type=event.event_type,
        points=event.points, reason=event.reason, created_at=event.created_at, occurred_at=event.occurred_at,
        rule_version=event.rule_version,
    )  # fmt: skip


@router.get("/scoring/rules", response_model=list[ShownRule], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_scoring_rules(
    call: CurrentCall, page: RulePage, active_only: Annotated[bool, Query(description="Leave out the others.")] = False
) -> Response:
    """List scoring rules.

    Newest first.
    """
    before = paging.position_id(page)
    with call.engine.begin() as tx:
        rows = scoring.list_rules(
            tx, active_only=active_only, offset=page.skip, limit=page.limit + 1, before=before
        )
        total = scoring.count_rules(tx, active_only=active_only)
    kept = rows[: page.limit]
    last = (kept[-1].rule_id,) if kept else None
    return paging.list_response(
        call, [shown_rule(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post("/scoring/rules", status_code=201, response_model=ShownRule, responses=problems(401, 403, 422))
@allow(Role.EDITOR, action="scoring_rule.create")
async def create_scoring_rule(call: CurrentCall, body: NewRuleBody) -> Response:
    """Create a scoring rule.

    A new version of the rules: it counts all events, past ones too, from the next evaluation on.
    """
    new = NewRule(**body.model_dump())

    def effect(tx: Connection) -> Outcome:
        with _of_the_body():
            rule = scoring.create_rule(tx, new, actor=str(call.actor), now=call.now)
        return Outcome(status=201, body=shown_rule(rule), resource_id=rule.rule_id)

    return await call.commit(effect)


@router.get("/scoring/rules/{id}", response_model=ShownRule, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_scoring_rule(call: CurrentCall, id: str) -> ShownRule:
    """Show a scoring rule."""
    with call.engine.begin() as tx:
        return shown_rule(scoring.get_rule(tx, path_id(id, MISSING)))


@router.patch("/scoring/rules/{id}", response_model=ShownRule, responses=problems(401, 403, 422, s404=MISSING))
@allow(Role.EDITOR, action="scoring_rule.update")
async def update_scoring_rule(call: CurrentCall, id: str, body: RulePatch) -> Response:
    """Change a scoring rule.

    Only the fields sent. What differs makes a new version of the rules; stored scores keep the version they name.
    """
    rule_id, changes = path_id(id, MISSING), body.model_dump(include=body.model_fields_set)

    def effect(tx: Connection) -> Outcome:
        with _of_the_body():
            rule = scoring.change_rule(tx, rule_id, changes, actor=str(call.actor), now=call.now)
        return Outcome(body=shown_rule(rule), resource_id=rule_id, changes={"fields": sorted(changes)})

    return await call.commit(effect)


@router.delete(
    "/scoring/rules/{id}", status_code=204, response_class=Response, responses=problems(401, 403, s404=MISSING)
)
@allow(Role.EDITOR, action="scoring_rule.delete")
async def delete_scoring_rule(call: CurrentCall, id: str) -> Response:
    """Delete a scoring rule.

    A new version of the rules; older versions keep it.
    """
    rule_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        scoring.remove_rule(tx, rule_id, actor=str(call.actor), now=call.now)
        return Outcome(status=204, resource_id=rule_id)

    return await call.commit(effect)


@router.get("/scoring/rules/versions", response_model=list[ShownVersion], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_scoring_rule_versions(call: CurrentCall, page: paging.SkipLimit) -> Response:
    """List the versions of the rules.

    Newest first. Each has all rules as they stood after one change.
    """
    before = paging.position_id(page)
    with call.engine.begin() as tx:
        rows = scoring.list_versions(tx, offset=page.skip, limit=page.limit + 1, before=before)
        total = scoring.count_versions(tx)
    kept = rows[: page.limit]
    answers = [
        ShownVersion(
            version=row.version, rules=[shown_rule(rule) for rule in row.rules], created_by=row.created_by,
            created_at=row.created_at,
        )
        for row in kept
    ]  # fmt: skip
    last = (kept[-1].version,) if kept else None
    return paging.list_response(call, answers, page, total=total, last=last, remain=len(rows) > page.limit)


@router.get("/scoring/contacts/{id}", response_model=ShownScore, responses=problems(401, 422, s404=NO_SCORE))
@allow(Role.VIEWER)
def get_contact_score(call: CurrentCall, id: str, as_of: _AsOf = None) -> ShownScore:
    """Show the score of a contact.

    The stored one, or with `as_of` one evaluated for that moment by the newest rules; that one is not stored.
    """
    contact_id, moment = path_id(id, NO_SCORE), scoring.check_moment(as_of, call.now)
    with call.engine.begin() as tx:
        found = scoring.stored(tx, contact_id) if as_of is None else scoring.evaluate(tx, contact_id, moment)
    if found is None:
        raise NotFound(NO_SCORE)
    return ShownScore(**_score(found))


@router.post(
    "/scoring/contacts/{id}/recalculate", response_model=ShownScore, responses=problems(401, 403, s404=NO_CONTACT)
)
@allow(Role.EDITOR, action="score.recalculate")
async def recalculate_contact_score(call: CurrentCall, id: str) -> Response:
    """Calculate the score of a contact now.

    It is stored, with a snapshot, and may move the contact along the ladder of stages.
    """
    contact_id = path_id(id, f"Contact {id} not found")

    def effect(tx: Connection) -> Outcome:
        found = scoring.recalculate_contact(tx, contact_id, call.now)
        return Outcome(body=ShownScore(**_score(found)), resource_id=contact_id)

    return await call.commit(effect)


@router.get(
    "/scoring/contacts/{id}/history", response_model=list[ShownScoreEvent], responses=listed(problems(401, 422))
)
@allow(Role.VIEWER)
def list_score_events(call: CurrentCall, id: str, page: paging.SkipLimit) -> Response:
    """List the points a contact was given.

    Newest first: by hand, and by rules for events processed on request. Empty for an unknown contact.
    """
    contact_id, before = parse_id(id) or _NO_ROW, paging.position_id(page)
    with call.engine.begin() as tx:
        rows = scoring.search_history(tx, contact_id, skip=page.skip, limit=page.limit + 1, before=before)
        total = scoring.count_history(tx, contact_id)
    kept = rows[: page.limit]
    last = (kept[-1].award_id,) if kept else None
    return paging.list_response(
        call, [_award(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.get(
    "/scoring/contacts/{id}/snapshots", response_model=list[ShownSnapshot],
    responses=listed(problems(401, 422, s404=NO_CONTACT)),
)  # fmt: skip
@allow(Role.VIEWER)
def list_score_snapshots(
    call: CurrentCall,
    id: str,
    page: paging.SkipLimit,
    since: Annotated[Moment | None, Query(description="As of this moment or later.")] = None,
    until: Annotated[Moment | None, Query(description="As of before this moment.")] = None,
) -> Response:
    """List the scores of a contact over time.

    Newest `as_of` first. Snapshots are never changed; each names the version of the rules it was made with.
    """
    contact_id = path_id(id, NO_CONTACT)
    after = paging.position_as(page, datetime.fromisoformat, str, int)
    with call.engine.begin() as tx:
        contacts.get(tx, contact_id)
        rows = scoring.search_snapshots(
            tx, contact_id, since=since, until=until, skip=page.skip, limit=page.limit + 1,
            after=None if after is None else (after[0], after[1], after[2]),
        )  # fmt: skip
        total = scoring.count_snapshots(tx, contact_id, since=since, until=until, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    answers = [ShownSnapshot(**_score(row.score), source=SnapshotSource(row.source)) for row in kept]
    final = kept[-1] if kept else None
    last = (final.score.as_of.isoformat(), final.source, final.score.rule_version) if final else None
    return paging.list_response(call, answers, page, total=total, last=last, remain=len(rows) > page.limit)


@router.get(
    "/scoring/contacts/{id}/explain", response_model=ShownExplanation, responses=problems(401, 422, s404=NO_CONTACT)
)
@allow(Role.VIEWER)
def explain_contact_score(call: CurrentCall, id: str, as_of: _AsOf = None) -> ShownExplanation:
    """Explain the score of a contact.

    As of now, or of `as_of`, by the newest rules. The stage is that of a lifecycle evaluation: it has churn and
    dormancy, which the stored one gets at night.
    """
    contact_id, moment = path_id(id, NO_CONTACT), scoring.check_moment(as_of, call.now)
    with call.engine.begin() as tx:
        found = scoring.explain(tx, contact_id, moment)
    return ShownExplanation(
        as_of=found.as_of, rule_version=found.rule_version,
        rules=[
            RulePart(
                rule_id=str(part.rule_id), name=part.name, matched=part.matched, counted=part.counted,
                points=part.points,
            )
            for part in found.rules
        ],
        manual=found.manual, profile=dict(found.profile),
        recency=RecencyPart(last_activity_at=found.last_activity_at, points=found.recency),
        stage=StagePart(stage=found.stage, reason=found.reason),
    )  # fmt: skip


@router.get("/scoring/leaderboard", response_model=list[ShownLeader], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_leaders(
    call: CurrentCall,
    page: paging.SkipLimit,
    min_score: Annotated[float, Query(allow_inf_nan=False, description="Total scores from here on.")] = 0,
    lifecycle_stage: Annotated[Stage | None, Query(description="Only contacts in this stage.")] = None,
) -> Response:
    """List contacts by score.

    The highest total first, as stored.
    """
    after = paging.position_as(page, float, int)
    with call.engine.begin() as tx:
        rows = scoring.leaderboard(
            tx, min_score=min_score, stage=lifecycle_stage, skip=page.skip, limit=page.limit + 1,
            after=None if after is None else (after[0], after[1]),
        )  # fmt: skip
        total = scoring.count_leaders(
            tx, min_score=min_score, stage=lifecycle_stage, at_most=paging.COUNT_LIMIT + 1
        )
    kept = rows[: page.limit]
    answers = [
        ShownLeader(
            contact_id=str(row.contact_id),
            **{name: getattr(row, name) for name in ShownLeader.model_fields if name != "contact_id"},
        )
        for row in kept
    ]
    last = (kept[-1].total_score, kept[-1].contact_id) if kept else None
    return paging.list_response(call, answers, page, total=total, last=last, remain=len(rows) > page.limit)


@router.get("/scoring/lifecycle", response_model=dict[Stage, int], responses=problems(401))
@allow(Role.VIEWER)
def count_stages(call: CurrentCall) -> dict[Stage, int]:
    """Count scored contacts by lifecycle stage."""
    with call.engine.begin() as tx:
        return {stage: figures.count for stage, figures in scoring.stage_figures(tx).items()}


@router.post(
    "/scoring/events", status_code=201, response_model=ShownScoreEvent,
    responses=problems(401, 403, 422, s404=NO_CONTACT),
)  # fmt: skip
@allow(Role.EDITOR, action="score.award")
async def award_points(call: CurrentCall, body: AwardBody) -> Response:
    """Give a contact points by hand.

    They do not decay, and the score has them at once. More than zero count as an activity of the contact.
    """
    contact_id = path_id(body.contact_id, NO_CONTACT)
    new = NewAward(**{**body.model_dump(), "contact_id": contact_id})

    def effect(tx: Connection) -> Outcome:
        given = scoring.award(tx, new, now=call.now)
        return Outcome(status=201, body=_award(given), resource_id=contact_id, changes={"points": given.points})

    return await call.commit(effect)


@router.post(
    "/scoring/events/process", response_model=ProcessedEvents, responses=problems(401, 403, 422, s404=NO_CONTACT)
)
@allow(Role.EDITOR, action="score.process")
async def process_score_event(call: CurrentCall, body: ProcessBody) -> Response:
    """Tell an event and apply the rules to it now.

    It is stored as your observation: it counts in scores and segments, never in campaign figures, and is no order.
    The answer has what each rule gives for it; the score has it at once.
    """
    contact_id = path_id(body.contact_id, NO_CONTACT)

    def effect(tx: Connection) -> Outcome:
        given = scoring.process_event(tx, contact_id, body.event_type, body.metadata, now=call.now)
        events = [ProcessedEvent(id=str(event.award_id), points=event.points) for event in given]
        answer = ProcessedEvents(processed=len(events), events=events)
        return Outcome(body=answer, resource_id=contact_id, changes={"processed": len(events)})

    return await call.commit(effect)
