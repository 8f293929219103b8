"""Schedules: have a campaign sent once or again and again, change, stop and give up, see what became of the runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import Call, Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Int32, Line64, Line500, Model, Moment, OptionalId, Shown, parse_id, path_id
from mautolib.auth.roles import Role
from mautolib.campaigns import runs, schedules, scheduling
from mautolib.campaigns.schedules import NewSchedule, RunStatus, Schedule, ScheduleStatus, ScheduleType
from mautolib.errors import InvalidInput

router = Router("Schedules")
MISSING = "Schedule not found"
NO_CAMPAIGN = "Campaign not found"
Limit = Annotated[int, Field(ge=0, le=2**31 - 1, description="0: no limit.")]
_EXAMPLE: dict[str, JsonValue] = {
    "campaign_id": "42", "schedule_type": "recurring", "send_at": "2030-01-07T08:00:00Z",
    "timezone_name": "Europe/Berlin", "recurrence_rule": {"interval": "weekly", "days": [1, 4]},
}  # fmt: skip


class RecurrenceRule(Model):
    """When a recurring schedule runs: an interval, or an RFC 5545 rule."""

    interval: Literal["hourly", "daily", "weekly", "monthly"] | None = Field(default=None, examples=["weekly"])
    every: Annotated[int, Field(ge=1, le=1000)] | None = Field(default=None, description="Every n-th; 1 if left out.")
    days: list[Annotated[int, Field(ge=1, le=7)]] | None = Field(
        default=None, min_length=1, max_length=7, description="Days of the week, 1 is Monday; not with monthly."
    )
    day_of_month: Annotated[int, Field(ge=1, le=31)] | None = Field(
        default=None, description="With monthly; in a shorter month its last day."
    )
    until: Line64 | None = Field(default=None, description="Last day (`2030-12-31`) or moment.")
    rrule: Line500 | None = Field(
        default=None, examples=["FREQ=MONTHLY;BYDAY=1MO"],
        description="FREQ (HOURLY to YEARLY), INTERVAL, BYDAY, BYMONTHDAY, BYHOUR, BYMINUTE, COUNT, UNTIL.",
    )  # fmt: skip


class ScheduleBody(Model):
    """What may be given for a schedule."""

    send_at: Moment
    schedule_type: Annotated[ScheduleType, Field(strict=False)] = ScheduleType.ONE_TIME
    timezone_name: Line64 = Field(
        default="UTC", description="Whose clocks show the time of the runs (IANA).", examples=["Europe/Berlin"]
    )
    recurrence_rule: RecurrenceRule = Field(default=RecurrenceRule())
    max_runs: Annotated[int, Field(ge=0, le=2**31 - 1, description="0: no end.")] = 0
    max_per_hour: Limit = 0
    max_per_day: Limit = 0
    ab_test_id: OptionalId = Field(default=None, description="The A/B test to arm at the first run.")
    auto_pick_winner: bool = False
    winner_wait_hours: Annotated[int, Field(ge=1, le=72)] = 4
    max_late_minutes: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=1440, description="A run that would start later than this is skipped."
    )

    def given(self) -> dict[str, Any]:
        """The fields that were sent, as the library takes them."""
        values = self.model_dump(exclude_unset=True)
        if "recurrence_rule" in values:
            values["recurrence_rule"] = self.recurrence_rule.model_dump(exclude_none=True)
        if values.get("ab_test_id") is not None:
            values["ab_test_id"] = parse_id(values["ab_test_id"])
            if values["ab_test_id"] is None:
                raise InvalidInput("A/B test not found", path=("body", "ab_test_id"))
        return values


class NewScheduleBody(ScheduleBody):
    """A schedule for a draft."""

    model_config = ConfigDict(title="ScheduleCreate", json_schema_extra={"example": _EXAMPLE})

    campaign_id: Id


class SchedulePatch(ScheduleBody):
    """The fields to change."""

    model_config = ConfigDict(title="SchedulePatch", json_schema_extra={"example": {"max_per_hour": 5000}})

    send_at: Moment = datetime.max  # noqa: DTZ901  # never used: only what was sent is


class ShownSchedule(Answer):
    """When a campaign is sent."""

    model_config = ConfigDict(title="Schedule")

    id: Id
    campaign_id: Id
    schedule_type: ScheduleType
    status: ScheduleStatus
    send_at: Shown
    timezone_name: str
    recurrence_rule: dict[str, Any]
    next_run_at: Shown | None = Field(description="The next run; while running the one under way.")
    runs_completed: Int32
    max_runs: Int32
    max_per_hour: Int32
    max_per_day: Int32
    ab_test_id: OptionalId
    auto_pick_winner: bool
    winner_wait_hours: Int32
    max_late_minutes: Int32
    error_message: str
    created_at: Shown
    updated_at: Shown | None


class ShownRun(Answer):
    """One run; each is an occurrence of its campaign."""

    model_config = ConfigDict(title="ScheduleRun")

    occurrence: Int32
    due_at: Shown
    started_at: Shown | None
    finished_at: Shown | None
    status: RunStatus = Field(description="`skipped`: too late, or a later run was due already.")
    total: int
    sent: int


class ShownStats(Answer):
    """The figures of all runs, counted from the ledger."""

    model_config = ConfigDict(title="ScheduleStats")

    schedule_id: Id
    total: int
    sent: int
    failed: int = Field(description="Refused for good, the address or the message.")
    throttled: int = Field(description="Due, and waiting for a limit.")
    success_rate: Annotated[float, Field(description="Sent of total, in percent.")]
    skipped: int
    unknown: int
    runs: list[ShownRun] = Field(description="Newest first.")


def shown(schedule: Schedule) -> ShownSchedule:
    """A schedule as the API shows it."""
    same = {name: getattr(schedule, name) for name in ShownSchedule.model_fields if hasattr(schedule, name)}
    ids = {"id": str(schedule.schedule_id), "campaign_id": str(schedule.campaign_id)}
    test = None if schedule.ab_test_id is None else str(schedule.ab_test_id)
    return ShownSchedule(**{**same, **ids, "recurrence_rule": dict(schedule.recurrence_rule), "ab_test_id": test})


@router.get("/schedules/", response_model=list[ShownSchedule], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_schedules(
    call: CurrentCall, page: paging.SkipLimit,
    campaign_id: Annotated[str | None, Query(description="Only of this campaign.")] = None,
    status: Annotated[ScheduleStatus | None, Query(description="Only in this state.")] = None,
) -> Response:  # fmt: skip
    """List schedules.

    Newest first. An unknown campaign has none.
    """
    before = paging.position_id(page)
    wanted: dict[str, Any] = {"status": status}
    if campaign_id is not None:
        # No campaign has this number, so none of its schedules is found.
        wanted["campaign_id"] = parse_id(campaign_id) or 0
    with call.engine.begin() as tx:
        rows = schedules.list_schedules(tx, **wanted, skip=page.skip, limit=page.limit + 1, before=before)
        total = schedules.count(tx, **wanted)
    kept = rows[: page.limit]
    last = (kept[-1].schedule_id,) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post(
    "/schedules/", status_code=201, response_model=ShownSchedule,
    responses=problems(401, 403, 422, s404=NO_CAMPAIGN, s409="The campaign is no draft, or scheduled already"),
)  # fmt: skip
@allow(Role.EDITOR, action="schedule.create")
async def create_schedule(call: CurrentCall, body: NewScheduleBody) -> Response:
    """Schedule a campaign.

    The draft becomes `scheduled`, and can be edited until it is due. A time the clocks skip is the next valid minute,
    one they show twice the first. Whether it can be sent is looked at when it is due.
    """

    def effect(tx: Connection) -> Outcome:
        values = {**body.given(), "campaign_id": path_id(body.campaign_id, NO_CAMPAIGN)}
        made = scheduling.create(tx, NewSchedule(**values), actor=str(call.actor), now=call.now)
        return Outcome(status=201, body=shown(made), resource_id=made.schedule_id)

    return await call.commit(effect)


@router.get("/schedules/{id}", response_model=ShownSchedule, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_schedule(call: CurrentCall, id: str) -> ShownSchedule:
    """Show a schedule.

    Its rule, limits and next run.
    """
    with call.engine.begin() as tx:
        return shown(schedules.get(tx, path_id(id, MISSING)))


@router.patch(
    "/schedules/{id}", response_model=ShownSchedule,
    responses=problems(401, 403, 422, s404=MISSING, s409="It is running or finished"),
)  # fmt: skip
@allow(Role.EDITOR, action="schedule.update")
async def update_schedule(call: CurrentCall, id: str, body: SchedulePatch) -> Response:
    """Change a schedule.

    While it is pending or paused. A new time or rule gives the next run anew.
    """

    def effect(tx: Connection) -> Outcome:
        changed = scheduling.change(tx, path_id(id, MISSING), body.given(), now=call.now)
        fields = sorted(body.model_fields_set)
        return Outcome(status=200, body=shown(changed), resource_id=changed.schedule_id, changes={"fields": fields})

    return await call.commit(effect)


@router.delete(
    "/schedules/{id}", status_code=204, response_class=Response,
    responses=problems(401, 403, s404=MISSING, s409="It is running or finished"),
)  # fmt: skip
@allow(Role.EDITOR, action="schedule.delete")
async def delete_schedule(call: CurrentCall, id: str) -> Response:
    """Delete a schedule.

    While it is pending or paused; its campaign is a draft again.
    """

    def effect(tx: Connection) -> Outcome:
        schedule_id = path_id(id, MISSING)
        scheduling.remove(tx, schedule_id, now=call.now)
        return Outcome(status=204, resource_id=schedule_id)

    return await call.commit(effect)


@router.post(
    "/schedules/{id}/pause", response_model=ShownSchedule,
    responses=problems(401, 403, s404=MISSING, s409="It is not pending"),
)  # fmt: skip
@allow(Role.EDITOR, action="schedule.pause")
async def pause_schedule(call: CurrentCall, id: str) -> Response:
    """Pause a schedule.

    Its campaign is paused with it: from the answer on no run begins.
    """
    return await _act(call, id, scheduling.pause)


@router.post(
    "/schedules/{id}/resume", response_model=ShownSchedule,
    responses=problems(401, 403, s404=MISSING, s409="It is not paused"),
)  # fmt: skip
@allow(Role.EDITOR, action="schedule.resume")
async def resume_schedule(call: CurrentCall, id: str) -> Response:
    """Resume a paused schedule.

    A run that fell due meanwhile begins at once, unless it is too late.
    """
    return await _act(call, id, scheduling.resume)


@router.post(
    "/schedules/{id}/cancel", response_model=ShownSchedule,
    responses=problems(401, 403, s404=MISSING, s409="It is running or finished"),
)  # fmt: skip
@allow(Role.EDITOR, action="schedule.cancel")
async def cancel_schedule(call: CurrentCall, id: str) -> Response:
    """Cancel a schedule.

    While it is pending or paused; its campaign is a draft again.
    """
    return await _act(call, id, scheduling.cancel)


@router.get("/schedules/{id}/stats", response_model=ShownStats, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def show_schedule_stats(call: CurrentCall, id: str) -> ShownStats:
    """Show the figures of a schedule.

    Over all its runs and for each of them, as the message ledger has them now.
    """
    with call.engine.begin() as tx:
        schedule = schedules.get(tx, path_id(id, MISSING))
        found = runs.stats(tx, schedule, now=call.now)
    return ShownStats(
        schedule_id=str(schedule.schedule_id), total=found.total, sent=found.sent, failed=found.failed,
        throttled=found.throttled, success_rate=_percent(found.sent, found.total), skipped=found.skipped,
        unknown=found.unknown, runs=[ShownRun.model_validate(run) for run in found.runs],
    )  # fmt: skip


async def _act(call: Call, given: str, verb: Callable[..., Schedule]) -> Response:
    def effect(tx: Connection) -> Outcome:
        changed = verb(tx, path_id(given, MISSING), now=call.now)
        return Outcome(status=200, body=shown(changed), resource_id=changed.schedule_id)

    return await call.commit(effect)


def _percent(part: int, whole: int) -> float:
    if not whole:
        return 0.0
    return float((Decimal(part) * 100 / whole).quantize(Decimal("0.01"), ROUND_HALF_UP))
