"""A/B tests: write one, arm it, look at what it shows, choose the winner."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import BeforeValidator, ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routes.campaigns import Tag
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import (
    Answer,
    BodyPart,
    Id,
    Int32,
    Line100,
    Line200,
    Line500,
    Model,
    Name100,
    Name300,
    OptionalId,
    Shown,
    ShownDec,
    parse_id,
    path_id,
)
from mautolib.auth.roles import Role
from mautolib.campaigns import experiment_control, experiments
from mautolib.campaigns.deciding import Decision, Metric, Results, TestName
from mautolib.campaigns.experiment_model import (
    AbStatus,
    AbTest,
    AbTestType,
    AbVariant,
    NewAbTest,
    NewVariant,
    NoWinnerAction,
)
from mautolib.campaigns.experiment_results import VariantFigures, figures_of, last_counted, results
from mautolib.errors import InvalidInput

router = Router("A/B tests")
MISSING = experiments.MISSING
NO_CAMPAIGN = "Campaign not found"
_NO_START = "Cannot start test in '<status>' status, or: Need at least 2 variants to start a test"
_EXAMPLE: dict[str, JsonValue] = {
    "campaign_id": "42", "name": "Short or long subject",
    "variants": [{"name": "Variant A", "subject": "Spring is here"},
                 {"name": "Variant B", "subject": "Spring is here: 20 % off everything until Sunday"}],
}  # fmt: skip


def _metric(value: object) -> object:
    return Metric.CONVERSION_RATE.value if value == "conversion" else value


WinnerMetric = Annotated[
    Metric, Field(strict=False, description="`conversion` reads as conversion_rate."), BeforeValidator(_metric)
]
AnyAction = Annotated[NoWinnerAction, Field(strict=False)]


class VariantLocale(Model):
    """What a variant says in one language; what it leaves out is the campaign's."""

    subject: Line500 = ""
    preheader: Line200 = ""
    html_body: BodyPart = ""
    text_body: BodyPart = ""


class VariantBody(Model):
    """One variant; the first one is the control."""

    model_config = ConfigDict(title="VariantCreate")

    name: Name100 = "Variant A"
    subject: Line500 | None = Field(default=None, description="In the place of the campaign's.")
    html_body: BodyPart | None = Field(default=None, description="In the place of the campaign's.")
    locales: dict[Tag, VariantLocale] = Field(default={}, max_length=100, description="By language tag (BCP 47).")
    send_delay_minutes: Annotated[int, Field(ge=0, le=10080)] = Field(
        default=0, description="In a test of send times: how much later than the campaign."
    )

    def given(self, position: int) -> NewVariant:
        """The variant as the library takes it."""
        seen: set[str] = set()
        for tag in self.locales:
            if tag.lower() in seen:
                raise InvalidInput(f"'{tag}' is there twice", path=("body", "variants", position, "locales", tag))
            seen.add(tag.lower())
        return NewVariant(**self.model_dump(exclude={"locales"}), locales={
            tag: content.model_dump(exclude_unset=True) for tag, content in self.locales.items()
        })  # fmt: skip


class AbTestBody(Model):
    """What may be given for a test, and changed while it is a draft."""

    name: Name300
    winner_metric: WinnerMetric = Metric.OPEN_RATE
    auto_select_winner: bool = True
    test_percentage: Annotated[float, Field(ge=5, le=50, description="Of the audience.")] = 20
    wait_hours: Annotated[int, Field(ge=1, le=72, description="From the last hand-over to the decision.")] = 4
    holdout_percentage: Annotated[float, Field(ge=0, le=50, description="Of the audience: gets no mail.")] = 0
    no_winner_action: AnyAction = NoWinnerAction.CONTROL


class NewAbTestBody(AbTestBody):
    """A new test; it begins as a draft."""

    model_config = ConfigDict(title="AbTestCreate", json_schema_extra={"example": _EXAMPLE})

    campaign_id: Id
    test_type: Annotated[AbTestType, Field(strict=False)] = AbTestType.SUBJECT
    variants: list[VariantBody] = Field(min_length=2, max_length=5)


class AbTestPatch(AbTestBody):
    """The fields to change."""

    model_config = ConfigDict(title="AbTestPatch", json_schema_extra={"example": {"wait_hours": 6}})

    name: Name300 = ""


class ObservationBody(Model):
    """A result seen elsewhere."""

    model_config = ConfigDict(
        title="AbTestObservation", json_schema_extra={"example": {"variant_id": "7", "event_type": "opened"}}
    )

    variant_id: Id
    event_type: Line100 = Field(description="sent, opened, clicked or bounced.")
    contact_id: OptionalId = Field(default=None, description="Counts once per variant and type.")


class ShownVariant(Answer):
    """A variant with what its test mail brought."""

    model_config = ConfigDict(title="Variant")

    id: Id
    name: str
    subject: str | None
    html_body: str | None
    locales: dict[str, Any]
    send_delay_minutes: Int32
    is_control: bool
    total_sent: int
    total_opened: int = Field(description="People who opened.")
    total_clicked: int = Field(description="People who clicked.")
    total_bounced: int
    total_conversions: int = Field(description="People who ordered.")
    revenue: ShownDec = Field(description="Net, in the reporting currency.")
    open_rate: float = Field(description="Percent of total_sent.", examples=[24.31])
    click_rate: float = Field(description="Percent of total_sent.", examples=[3.2])
    is_winner: bool


class ShownAbTest(Answer):
    """An A/B test."""

    model_config = ConfigDict(title="AbTest")

    id: Id
    campaign_id: Id
    name: str
    test_type: AbTestType
    status: AbStatus
    winner_variant_id: OptionalId
    winner_metric: Metric
    auto_select_winner: bool
    test_percentage: float
    wait_hours: Int32
    holdout_percentage: float
    no_winner_action: NoWinnerAction
    decision: Decision | None = Field(description="What the figures said when the test was decided.")
    variants: list[ShownVariant] = Field(description="The control first.")
    started_at: Shown | None
    completed_at: Shown | None
    created_at: Shown


class Started(Answer):
    """The test is armed."""

    model_config = ConfigDict(title="AbTestStarted")

    message: Literal["A/B test started"] = "A/B test started"
    test_id: Id
    variants: int


class Recorded(Answer):
    """The result was added."""

    model_config = ConfigDict(title="AbTestRecorded")

    message: Literal["Event recorded"] = "Event recorded"
    variant: str = Field(description="The name of the variant.")


class Winner(Answer):
    """The variant that won."""

    model_config = ConfigDict(title="AbTestWinner")

    id: Id
    name: str
    open_rate: float
    click_rate: float


class Selected(Answer):
    """The test is completed."""

    model_config = ConfigDict(title="AbTestSelected")

    message: Literal["Winner selected"] = "Winner selected"
    winner: Winner


class Minimums(Answer):
    """Below these nothing is decided."""

    recipients_per_variant: int
    successes_in_total: int


class ShownSampleRatio(Answer):
    """Whether the variants reached equal parts of the recipients."""

    model_config = ConfigDict(title="SampleRatio")

    expected: list[float]
    observed: list[int]
    chi2: float
    p_value: float
    detected: bool


class ResultVariant(Answer):
    """A variant's figures; rates in percent of sent, null if nothing was sent."""

    model_config = ConfigDict(title="AbTestVariantResult")

    variant_id: Id
    name: str
    assigned: int
    attempted: int
    sent: int
    delivered: int
    unique_opens: int
    unique_clicks: int
    conversions: int
    revenue: ShownDec
    open_rate: float | None
    click_rate: float | None
    conversion_rate: float | None
    revenue_per_recipient: ShownDec | None
    ci_low: float | None = Field(description="95 % interval of the winner_metric.")
    ci_high: float | None


class ShownComparison(Answer):
    """One variant less another in the winner_metric: percentage points, or money per recipient."""

    model_config = ConfigDict(title="AbTestComparison")

    variant_id: Id
    other_variant_id: Id
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    test: TestName
    p_value: float | None
    p_adjusted: float | None = Field(description="By Holm's method.")
    sequential_low: float | None = Field(description="Valid at any number of looks.")
    sequential_high: float | None


class ShownHoldOut(Answer):
    """Those kept back, and the lift in percent of everybody mailed over them."""

    model_config = ConfigDict(title="AbTestHoldOut")

    recipients: int
    conversions: int
    revenue: ShownDec
    lift: float | None
    lift_low: float | None
    lift_high: float | None


class ShownResults(Answer):
    """What a test has shown so far, and what that allows to say."""

    model_config = ConfigDict(title="AbTestResults")

    test_id: Id
    campaign_id: Id
    status: AbStatus
    winner_metric: Metric
    confidence_level: float
    as_of: Shown
    deadline_at: Shown | None = Field(description="Null while test mail waits.")
    decision: Decision
    reason: str
    winner_variant_id: OptionalId
    control_variant_id: Id
    minimums: Minimums
    srm: ShownSampleRatio
    variants: list[ResultVariant]
    comparisons: list[ShownComparison]
    omnibus_p_value: float | None = Field(description="Of: all variants are alike; null for two.")
    holdout: ShownHoldOut | None


def rate(part: int, whole: int) -> float | None:
    """Percent with 2 decimals, half up, 100 at most; None without a whole."""
    if not whole:
        return None
    return float((Decimal(min(part, whole)) * 100 / whole).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _variant(test: AbTest, variant: AbVariant, known: VariantFigures) -> ShownVariant:
    return ShownVariant(
        id=str(variant.variant_id), name=variant.name, subject=variant.subject, html_body=variant.html_body,
        locales={tag: dict(content) for tag, content in variant.locales.items()},
        send_delay_minutes=variant.send_delay_minutes, is_control=variant.is_control, total_sent=known.sent,
        total_opened=known.unique_opens, total_clicked=known.unique_clicks, total_bounced=known.bounced,
        total_conversions=known.conversions, revenue=known.revenue,
        open_rate=rate(known.unique_opens, known.sent) or 0.0, click_rate=rate(known.unique_clicks, known.sent) or 0.0,
        is_winner=variant.variant_id == test.winner_variant_id,
    )  # fmt: skip


def shown(test: AbTest, figures: Mapping[int, VariantFigures]) -> ShownAbTest:
    """A test as the API shows it."""
    same = (
        "name", "test_type", "status", "winner_metric", "auto_select_winner", "test_percentage", "wait_hours",
        "holdout_percentage", "no_winner_action", "decision", "started_at", "completed_at", "created_at",
    )  # fmt: skip
    winner = None if test.winner_variant_id is None else str(test.winner_variant_id)
    return ShownAbTest(
        id=str(test.test_id), campaign_id=str(test.campaign_id), winner_variant_id=winner,
        variants=[_variant(test, each, figures[each.variant_id]) for each in test.variants],
        **{name: getattr(test, name) for name in same},
    )  # fmt: skip


def _outcome(tx: Connection, test: AbTest, *, status: int = 200, changes: Mapping[str, Any] | None = None) -> Outcome:
    body = shown(test, figures_of(tx, [test.test_id]))
    return Outcome(status=status, body=body, resource_id=test.test_id, changes=changes or {})


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def shown_results(test: AbTest, found: Results) -> ShownResults:
    """The results as the API shows them."""
    variants = []
    for each in found.variants:
        known = each.counts
        spent = None if each.revenue_per_recipient is None else _money(known.revenue / known.sent)
        variants.append(ResultVariant(
            variant_id=known.variant_id, name=known.name, assigned=known.assigned, attempted=known.attempted,
            sent=known.sent, delivered=known.delivered, unique_opens=known.unique_opens,
            unique_clicks=known.unique_clicks, conversions=known.conversions, revenue=_money(known.revenue),
            open_rate=rate(known.unique_opens, known.sent), click_rate=rate(known.unique_clicks, known.sent),
            conversion_rate=rate(known.conversions, known.sent), revenue_per_recipient=spent,
            ci_low=_finite(each.ci_low), ci_high=_finite(each.ci_high),
        ))  # fmt: skip
    numbers = ("difference", "ci_low", "ci_high", "p_value", "p_adjusted", "sequential_low", "sequential_high")
    comparisons = [
        ShownComparison(
            variant_id=each.variant_id, other_variant_id=each.other_variant_id, test=each.test,
            **{name: _finite(getattr(each, name)) for name in numbers},
        )
        for each in found.comparisons
    ]  # fmt: skip
    kept = found.holdout
    return ShownResults(
        test_id=str(test.test_id), campaign_id=str(test.campaign_id), status=test.status,
        winner_metric=found.winner_metric, confidence_level=found.confidence_level, as_of=found.as_of,
        deadline_at=found.deadline_at, decision=found.decision, reason=found.reason,
        winner_variant_id=found.winner_variant_id, control_variant_id=found.control_variant_id,
        minimums=Minimums.model_validate(found.minimums), srm=ShownSampleRatio.model_validate(found.srm),
        variants=variants, comparisons=comparisons, omnibus_p_value=_finite(found.omnibus_p_value),
        holdout=None if kept is None else ShownHoldOut(
            recipients=kept.recipients, conversions=kept.conversions, revenue=_money(kept.revenue),
            lift=_finite(kept.lift), lift_low=_finite(kept.lift_low), lift_high=_finite(kept.lift_high),
        ),
    )  # fmt: skip


def _money(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.0001"), ROUND_HALF_UP)


@router.get("/ab-tests/", response_model=list[ShownAbTest], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_ab_tests(
    call: CurrentCall, page: paging.SkipLimit,
    campaign_id: Annotated[str | None, Query(description="Only of this campaign.")] = None,
    status: Annotated[AbStatus | None, Query(description="Only in this state.")] = None,
) -> Response:  # fmt: skip
    """List A/B tests.

    Newest first; an unknown campaign has none. Figures are as old as those of campaigns; one test shows them as they
    are now.
    """
    before = paging.position_id(page)
    wanted: dict[str, Any] = {"status": status}
    if campaign_id is not None:
        # No campaign has this number, so none of its tests is found.
        wanted["campaign_id"] = parse_id(campaign_id) or 0
    with call.engine.begin() as tx:
        rows = experiments.list_tests(tx, **wanted, skip=page.skip, limit=page.limit + 1, before=before)
        total = experiments.count(tx, **wanted)
        kept = rows[: page.limit]
        figures = last_counted(tx, [row.test_id for row in kept])
    last = (kept[-1].test_id,) if kept else None
    answers = [shown(row, figures) for row in kept]
    return paging.list_response(call, answers, page, total=total, last=last, remain=len(rows) > page.limit)


@router.post(
    "/ab-tests/", status_code=201, response_model=ShownAbTest,
    responses=problems(401, 403, 422, s400="Campaign must be in draft or scheduled status", s404=NO_CAMPAIGN),
)  # fmt: skip
@allow(Role.EDITOR, action="ab_test.create")
async def create_ab_test(call: CurrentCall, body: NewAbTestBody) -> Response:
    """Create an A/B test.

    A draft that sending ignores until it is started. What a variant gives takes the place of the campaign's; the
    first variant is the control.
    """
    values = body.model_dump(exclude={"variants", "campaign_id"})
    variants = tuple(each.given(position) for position, each in enumerate(body.variants))

    def effect(tx: Connection) -> Outcome:
        new = NewAbTest(**values, campaign_id=path_id(body.campaign_id, NO_CAMPAIGN), variants=variants)
        made = experiments.create(tx, call.settings, new, actor=str(call.actor), now=call.now)
        return _outcome(tx, made, status=201)

    return await call.commit(effect)


@router.get("/ab-tests/{id}", response_model=ShownAbTest, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_ab_test(call: CurrentCall, id: str) -> ShownAbTest:
    """Show an A/B test.

    With what each variant's test mail brought so far.
    """
    with call.engine.begin() as tx:
        test = experiments.get(tx, path_id(id, MISSING))
        return shown(test, figures_of(tx, [test.test_id]))


@router.patch(
    "/ab-tests/{id}", response_model=ShownAbTest,
    responses=problems(401, 403, 422, s400="Can only update A/B tests in draft status", s404=MISSING),
)  # fmt: skip
@allow(Role.EDITOR, action="ab_test.update")
async def update_ab_test(call: CurrentCall, id: str, body: AbTestPatch) -> Response:
    """Change an A/B test.

    While it is a draft; its variants stay as they are.
    """

    def effect(tx: Connection) -> Outcome:
        changed = experiments.change(tx, path_id(id, MISSING), body.model_dump(exclude_unset=True), now=call.now)
        return _outcome(tx, changed, changes={"fields": sorted(body.model_fields_set)})

    return await call.commit(effect)


@router.delete(
    "/ab-tests/{id}", status_code=204, response_class=Response,
    responses=problems(401, 403, s400="Cannot delete a running test", s404=MISSING),
)  # fmt: skip
@allow(Role.EDITOR, action="ab_test.delete")
async def delete_ab_test(call: CurrentCall, id: str) -> Response:
    """Delete an A/B test.

    Not while it is running, nor while somebody still waits for what it decided.
    """

    def effect(tx: Connection) -> Outcome:
        test_id = path_id(id, MISSING)
        experiments.remove(tx, test_id)
        return Outcome(status=204, resource_id=test_id)

    return await call.commit(effect)


@router.post(
    "/ab-tests/{id}/start", response_model=Started,
    responses=problems(
        401, 403, s400=_NO_START, s404=MISSING, s409="The campaign is sending already, or another test is running",
        s422="`variants_equal`: two variants are equal in what is tested",
    ),
)  # fmt: skip
@allow(Role.EDITOR, action="ab_test.start")
async def start_ab_test(call: CurrentCall, id: str) -> Response:
    """Start an A/B test.

    Arms it: when its campaign is sent, `test_percentage` of the audience gets the variants at once,
    `holdout_percentage` gets nothing, and the rest waits for the decision.
    """

    def effect(tx: Connection) -> Outcome:
        started = experiment_control.start(tx, call.settings, path_id(id, MISSING), now=call.now)
        body = Started(test_id=str(started.test_id), variants=len(started.variants))
        return Outcome(body=body, resource_id=started.test_id)

    return await call.commit(effect)


@router.post(
    "/ab-tests/{id}/cancel", response_model=ShownAbTest,
    responses=problems(401, 403, s404=MISSING, s409="It is completed or cancelled"),
)  # fmt: skip
@allow(Role.EDITOR, action="ab_test.cancel")
async def cancel_ab_test(call: CurrentCall, id: str) -> Response:
    """Cancel an A/B test.

    Who waits for its decision gets the control.
    """

    def effect(tx: Connection) -> Outcome:
        return _outcome(tx, experiment_control.cancel(tx, path_id(id, MISSING), now=call.now))

    return await call.commit(effect)


@router.post(
    "/ab-tests/{id}/events", response_model=Recorded,
    responses=problems(401, 403, 422, s400="Unknown event type: ...", s404=f"{MISSING}, or Variant not found"),
)  # fmt: skip
@allow(Role.EDITOR, action="ab_test.record_event")
async def record_ab_test_event(call: CurrentCall, id: str, body: ObservationBody) -> Response:
    """Add a result seen elsewhere.

    It counts in the totals and the results. With a contact it counts once, without one every time.
    """

    def effect(tx: Connection) -> Outcome:
        test_id = path_id(id, MISSING)
        contact_id = None
        if body.contact_id is not None:
            contact_id = parse_id(body.contact_id) or 0
        variant = experiment_control.observe(
            tx, test_id, parse_id(body.variant_id), body.event_type, contact_id=contact_id, now=call.now
        )
        return Outcome(body=Recorded(variant=variant.name), resource_id=test_id)

    return await call.commit(effect)


@router.post(
    "/ab-tests/{id}/select-winner", response_model=Selected,
    responses=problems(
        401, 403, 422, s400="Test already completed", s404=f"{MISSING}, or Variant not found",
        s409="The figures name no winner (`code` is their decision), or the test was cancelled",
    ),
)  # fmt: skip
@allow(Role.EDITOR, action="ab_test.select_winner")
async def select_ab_test_winner(
    call: CurrentCall, id: str,
    variant_id: Annotated[
        str | None, Query(description="Whatever the figures say; left out: the winner they name.")
    ] = None,
) -> Response:  # fmt: skip
    """Select the winner.

    Completes the test; who waits for its decision gets the winner.
    """

    def effect(tx: Connection) -> Outcome:
        chosen = None if variant_id is None else parse_id(variant_id) or 0
        done = experiment_control.select_winner(tx, path_id(id, MISSING), chosen, now=call.now)
        body = shown(done, figures_of(tx, [done.test_id]))
        winner = next(each for each in body.variants if each.is_winner)
        answer = Winner(id=winner.id, name=winner.name, open_rate=winner.open_rate, click_rate=winner.click_rate)
        return Outcome(
            body=Selected(winner=answer), resource_id=done.test_id, changes={"winner_variant_id": winner.id}
        )

    return await call.commit(effect)


@router.get("/ab-tests/{id}/results", response_model=ShownResults, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def show_ab_test_results(call: CurrentCall, id: str) -> ShownResults:
    """Show the results of an A/B test.

    Counted now, from the test slice alone; of a completed test with the decision it was completed with.
    """
    with call.engine.begin() as tx:
        test = experiments.get(tx, path_id(id, MISSING))
        return shown_results(test, results(tx, test, now=call.now))
