"""Workflows: draw one up, let it start by itself or by hand, see where everybody stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import Body, Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import JSON, Call, Outcome, json_bytes
from api.concurrency import check_if_match, etag
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Int32, Line200, Model, Name300, OptionalId, Shown, parse_id, path_id
from mautolib import workflows
from mautolib.auth.roles import Role
from mautolib.webhooks.addresses import Policy
from mautolib.workflows import Enrollment, NewWorkflow, Workflow, control, reading
from mautolib.workflows.model import EnrollmentStatus, Log, LogStatus, TriggerType, Version
from mautolib.workflows.reading import EnrollmentFilter

router = Router("Workflows")
MISSING = "Workflow not found"
NO_ENROLLMENT = "Enrollment not found"
NO_CONTACT = "Contact not found"
EITHER_MISSING = "Workflow not found, or Enrollment not found"
_STEPS: list[JsonValue] = [
    {"type": "action", "action": "send_email", "template_id": "3", "name": "Welcome"},
    {"type": "delay", "hours": 72},
    {
        "type": "condition", "field": "country", "operator": "in", "value": ["PT", "ES"],
        "then": [{"type": "action", "action": "tag", "tag_name": "Iberia"}],
        "else": [{"type": "exit", "reason": "other markets"}],
    },
]  # fmt: skip
_EXAMPLE: dict[str, JsonValue] = {
    "name": "Welcome", "trigger_type": "signup", "trigger_config": {"source": "api"}, "steps": _STEPS,
    "active": True, "re_entry": {"policy": "once"}, "exit_on": ["unsubscribed"],
}  # fmt: skip
_LOG_RESULT: dict[str, JsonValue] = {"step": 1, "type": "delay", "path": "1", "hours": 72, "noted": True,
                                     "resume_at": "2026-05-04T09:00:00Z"}  # fmt: skip


def _default_re_entry() -> dict[str, Any]:
    return dict(NewWorkflow(name="").re_entry)


class WorkflowPatch(Model):
    """The fields to change; `steps` replaces the whole list."""

    model_config = ConfigDict(title="WorkflowPatch", json_schema_extra={"example": {"exit_on": ["unsubscribed"]}})

    name: Name300 = ""
    trigger_type: Annotated[TriggerType, Field(strict=False)] = TriggerType.MANUAL
    trigger_config: dict[str, Any] = Field(
        default={}, description="What the trigger needs; keys no trigger knows are kept without effect."
    )
    steps: list[Any] = Field(default=[], description="At most 200, 10 deep; checked here, with the place of a fault.")
    active: bool = Field(default=False, description="Whether it starts by itself.")
    re_entry: dict[str, Any] = Field(
        default_factory=_default_re_entry,
        description="`policy`: always, once, after_exit (not while inside), cooldown (with `cooldown_hours`).",
    )
    exit_on: list[Any] = Field(default=[], description="Types of events that end an enrollment wherever it stands.")

    def given(self) -> dict[str, Any]:
        """The fields that were sent."""
        return self.model_dump(include=self.model_fields_set)


class NewWorkflowBody(WorkflowPatch):
    """A new workflow."""

    model_config = ConfigDict(title="WorkflowCreate", json_schema_extra={"example": _EXAMPLE})

    name: Name300


class TriggerBody(Model):
    """Whom to let in; nobody in particular without `contact_id`."""

    model_config = ConfigDict(
        title="WorkflowTrigger", json_schema_extra={"example": {"contact_id": "7", "context": {"voucher": "SPRING"}}}
    )

    contact_id: OptionalId = None
    context: dict[str, Any] = Field(default={}, description="What conditions and mails may look at.")


class ReasonBody(Model):
    """Why."""

    model_config = ConfigDict(title="WorkflowReason", json_schema_extra={"example": {"reason": "asked on the phone"}})

    reason: Line200 | None = None


class ShownWorkflow(Answer):
    """A workflow. `version` counts changes of trigger and steps."""

    model_config = ConfigDict(title="Workflow", json_schema_extra={
        "example": {"id": "2", **_EXAMPLE, "version": 1, "created_at": "2026-05-01T09:00:00Z",
                    "updated_at": "2026-05-01T09:00:00Z"}
    })  # fmt: skip

    id: Id
    name: str
    trigger_type: TriggerType
    trigger_config: dict[str, Any]
    steps: list[Any]
    active: bool
    re_entry: dict[str, Any]
    exit_on: list[str]
    version: int
    created_at: Shown
    updated_at: Shown | None


class Triggered(Answer):
    """What ran at once: the steps up to the first wait."""

    model_config = ConfigDict(title="WorkflowTriggered")

    workflow_id: Id
    contact_id: OptionalId
    steps_executed: int
    results: list[dict[str, Any]] = Field(examples=[[_LOG_RESULT]])
    enrollment_id: Id
    status: EnrollmentStatus


class ShownLog(Answer):
    """One visit of a step."""

    model_config = ConfigDict(title="WorkflowLog")

    id: Id
    workflow_id: Id
    contact_id: OptionalId
    step_index: int = Field(description="The step of the topmost list; `step_path` also names branches.")
    status: LogStatus
    result: dict[str, Any] = Field(examples=[_LOG_RESULT])
    created_at: Shown
    enrollment_id: Id
    step_path: str = Field(examples=["2.then.0"])


class ShownVersion(Answer):
    """One version; whoever entered with it stays on it."""

    model_config = ConfigDict(title="WorkflowVersion")

    version: int
    trigger_type: TriggerType
    trigger_config: dict[str, Any]
    steps: list[Any]
    active_enrollments: int = Field(description="Enrollments on it that have not ended.")
    created_by: str
    created_at: Shown


class ShownEnrollment(Answer):
    """Somebody's way through one version of a workflow."""

    model_config = ConfigDict(title="Enrollment")

    id: Id
    workflow_id: Id
    version: int
    contact_id: OptionalId
    status: EnrollmentStatus
    step_path: str | None = Field(description="Where they stand, or stood when it ended; null at the end of the steps.",
                                  examples=["1"])  # fmt: skip
    resume_at: Shown | None = Field(description="When it goes on by itself.")
    waiting_for: str | None = Field(description="The type of event that is waited for.", examples=["order_placed"])
    context: dict[str, Any] = Field(description="What let them in: the properties of the event.")
    exit_reason: str | None
    entered_at: Shown
    finished_at: Shown | None


class WholeEnrollment(ShownEnrollment):
    """An enrollment with the results of the steps it has visited."""

    model_config = ConfigDict(title="EnrollmentWithResults")

    results: list[dict[str, Any]] = Field(description="In the order they came about.", examples=[[_LOG_RESULT]])


def shown(workflow: Workflow) -> ShownWorkflow:
    """A workflow as the API shows it."""
    return ShownWorkflow(
        id=str(workflow.workflow_id), name=workflow.name, trigger_type=TriggerType(workflow.trigger_type),
        trigger_config=dict(workflow.trigger_config), steps=list(workflow.steps), active=workflow.active,
        re_entry=dict(workflow.re_entry), exit_on=list(workflow.exit_on), version=workflow.version,
        created_at=workflow.created_at, updated_at=workflow.updated_at,
    )  # fmt: skip


def _person(contact_id: int) -> str | None:
    return str(contact_id) if contact_id else None


def _enrollment(found: Enrollment) -> ShownEnrollment:
    is_through = found.status is EnrollmentStatus.COMPLETED
    return ShownEnrollment(
        id=str(found.enrollment_id), workflow_id=str(found.workflow_id), version=found.version,
        contact_id=_person(found.contact_id), status=found.status, step_path=None if is_through else found.step_path,
        resume_at=found.resume_at, waiting_for=found.waiting_for, context=dict(found.context),
        exit_reason=found.exit_reason, entered_at=found.entered_at, finished_at=found.finished_at,
    )  # fmt: skip


def _log(log: Log) -> ShownLog:
    return ShownLog(
        id=str(log.log_id), workflow_id=str(log.workflow_id), contact_id=_person(log.contact_id),
        step_index=log.step_index, status=log.status, result=dict(log.result), created_at=log.created_at,
        enrollment_id=str(log.enrollment_id), step_path=log.step_path,
    )  # fmt: skip


def _version(version: Version) -> ShownVersion:
    return ShownVersion(
        version=version.version, trigger_type=TriggerType(version.trigger_type),
        trigger_config=dict(version.trigger_config), steps=list(version.steps),
        active_enrollments=version.active_enrollments, created_by=version.created_by, created_at=version.created_at,
    )  # fmt: skip


def _outcome(workflow: Workflow, *, status: int = 200, changes: dict[str, Any] | None = None) -> Outcome:
    headers = {"etag": etag(workflow.revision)}
    return Outcome(
        status=status, body=shown(workflow), resource_id=workflow.workflow_id, changes=changes or {}, headers=headers
    )


def _locked(call: Call, tx: Connection, workflow_id: int) -> None:
    """Keep others from changing the workflow, and see that it is the one the caller has read."""
    check_if_match(call.request, workflows.get(tx, workflow_id, lock=True).revision)


@router.get("/workflows/", response_model=list[ShownWorkflow], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_workflows(
    call: CurrentCall, page: paging.SkipLimit,
    active: Annotated[bool | None, Query(description="Only those that start by themselves, or only others.")] = None,
) -> Response:  # fmt: skip
    """List workflows.

    Newest first.
    """
    before = paging.position_id(page)
    with call.engine.begin() as tx:
        rows = workflows.search(tx, active=active, skip=page.skip, limit=page.limit + 1, before=before)
        total = workflows.count(tx, active=active)
    kept = rows[: page.limit]
    last = (kept[-1].workflow_id,) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post("/workflows/", status_code=201, response_model=ShownWorkflow, responses=problems(401, 403, 422))
@allow(Role.EDITOR, action="workflow.create")
async def create_workflow(call: CurrentCall, body: NewWorkflowBody) -> Response:
    """Create a workflow.

    What cannot run is refused with the place of the step and key. An active workflow needs a complete trigger and
    templates without faults; a draft may lack them. Everything its steps refer to must exist.
    """
    new = replace(NewWorkflow(name=body.name), **body.given())

    def effect(tx: Connection) -> Outcome:
        made = workflows.create(tx, new, actor=str(call.actor), now=call.now, policy=Policy.of(call.settings))
        return _outcome(made, status=201)

    return await call.commit(effect)


@router.get("/workflows/{id}", response_model=ShownWorkflow, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_workflow(call: CurrentCall, id: str) -> Response:
    """Show a workflow.

    Its trigger, steps and present version.
    """
    with call.engine.begin() as tx:
        found = workflows.get(tx, path_id(id, MISSING))
    return Response(json_bytes(shown(found)), media_type=JSON, headers={"etag": etag(found.revision)})


@router.patch(
    "/workflows/{id}", response_model=ShownWorkflow, responses=problems(401, 403, 412, 422, s404=MISSING)
)
@allow(Role.EDITOR, action="workflow.update")
async def update_workflow(call: CurrentCall, id: str, body: WorkflowPatch) -> Response:
    """Change a workflow.

    Only the fields sent. Another trigger or other steps are a new version: who is inside stays on the one they
    entered, who enters takes the new one.
    """
    changes = body.given()
    workflow_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        _locked(call, tx, workflow_id)
        changed = workflows.update(
            tx, workflow_id, changes, actor=str(call.actor), now=call.now, policy=Policy.of(call.settings)
        )
        return _outcome(changed, changes={"fields": sorted(changes), "version": changed.version})

    return await call.commit(effect)


@router.delete(
    "/workflows/{id}", status_code=204, response_class=Response, responses=problems(401, 403, 412, s404=MISSING)
)
@allow(Role.EDITOR, action="workflow.delete")
async def delete_workflow(call: CurrentCall, id: str) -> Response:
    """Delete a workflow.

    Whoever is inside leaves, and its logs are removed. Mail that is queued already is sent.
    """
    workflow_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        _locked(call, tx, workflow_id)
        workflows.remove(tx, workflow_id, now=call.now)
        return Outcome(status=204, resource_id=workflow_id)

    return await call.commit(effect)


@router.patch(
    "/workflows/{id}/activate", response_model=ShownWorkflow,
    responses=problems(401, 403, 412, s404=MISSING, s422="Its trigger is incomplete, or a template faulty"),
)  # fmt: skip
@allow(Role.EDITOR, action="workflow.activate")
async def activate_workflow(call: CurrentCall, id: str) -> Response:
    """Activate a workflow.

    From now on it starts by itself. Refused while its trigger is incomplete, or something it refers to is missing or
    faulty.
    """
    return await _switch(call, id, partial(workflows.activate, policy=Policy.of(call.settings)))


@router.patch(
    "/workflows/{id}/deactivate", response_model=ShownWorkflow, responses=problems(401, 403, 412, s404=MISSING)
)
@allow(Role.EDITOR, action="workflow.deactivate")
async def deactivate_workflow(call: CurrentCall, id: str) -> Response:
    """Deactivate a workflow.

    Nobody enters by themselves any more; who is inside goes on.
    """
    return await _switch(call, id, workflows.deactivate)


async def _switch(call: Call, given: str, verb: Callable[..., Workflow]) -> Response:
    workflow_id = path_id(given, MISSING)

    def effect(tx: Connection) -> Outcome:
        _locked(call, tx, workflow_id)
        return _outcome(verb(tx, workflow_id, actor=str(call.actor), now=call.now))

    return await call.commit(effect)


@router.post(
    "/workflows/{id}/trigger", response_model=Triggered,
    responses=problems(401, 403, 412, 422, s404="Workflow not found, or Contact not found"),
)  # fmt: skip
@allow(Role.EDITOR, action="workflow.trigger")
async def trigger_workflow(call: CurrentCall, id: str, body: TriggerBody) -> Response:
    """Trigger a workflow by hand.

    Works on inactive workflows, and whoever was inside before. The steps up to the first delay or wait run at once,
    and their results are the answer; the rest follows within two minutes of its time. Mail is queued, not sent.
    """
    workflow_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        check_if_match(call.request, workflows.get(tx, workflow_id).revision)
        contact_id = None if body.contact_id is None else path_id(body.contact_id, NO_CONTACT)
        done = workflows.trigger(
            tx, call.settings, workflow_id, contact_id=contact_id, context=body.context, now=call.now
        )
        answer = Triggered(
            workflow_id=str(workflow_id), contact_id=body.contact_id, steps_executed=len(done.results),
            results=[dict(result) for result in done.results], enrollment_id=str(done.enrollment.enrollment_id),
            status=done.enrollment.status,
        )  # fmt: skip
        changes = {"enrollment_id": answer.enrollment_id, "contact_id": answer.contact_id}
        return Outcome(body=answer, resource_id=workflow_id, changes=changes)

    return await call.commit(effect)


@router.get("/workflows/{id}/logs", response_model=list[ShownLog], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_workflow_logs(call: CurrentCall, id: str, page: paging.SkipLimit) -> Response:
    """List the logs of a workflow.

    Newest first: every visit of a step, with what came of it. An unknown workflow has none.
    """
    workflow_id, before = parse_id(id) or 0, paging.position_id(page)
    with call.engine.begin() as tx:
        rows = reading.logs(tx, workflow_id, skip=page.skip, limit=page.limit + 1, before=before)
        total = reading.count_logs(tx, workflow_id, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].log_id,) if kept else None
    return paging.list_response(
        call, [_log(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.get(
    "/workflows/{id}/versions", response_model=list[ShownVersion], responses=listed(problems(401, 422, s404=MISSING))
)
@allow(Role.VIEWER)
def list_workflow_versions(call: CurrentCall, id: str, page: paging.SkipLimit) -> Response:
    """List the versions of a workflow.

    Newest first, the present one included, each with the enrollments still on it.
    """
    workflow_id, before = path_id(id, MISSING), paging.position_id(page)
    with call.engine.begin() as tx:
        total = workflows.get(tx, workflow_id).version
        rows = reading.versions(tx, workflow_id, skip=page.skip, limit=page.limit + 1, before=before)
    kept = rows[: page.limit]
    last = (kept[-1].version,) if kept else None
    return paging.list_response(
        call, [_version(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.get(
    "/workflows/{id}/enrollments", response_model=list[ShownEnrollment],
    responses=listed(problems(401, 422, s404=MISSING)),
)  # fmt: skip
@allow(Role.VIEWER)
def list_enrollments(
    call: CurrentCall, id: str, page: paging.SkipLimit,
    status: Annotated[EnrollmentStatus | None, Query(description="Only in this state.")] = None,
    contact_id: Annotated[str | None, Query(description="Only of this contact; an unknown one has none.")] = None,
    version: Annotated[Int32 | None, Query(description="Only on this version.")] = None,
) -> Response:  # fmt: skip
    """List the enrollments of a workflow.

    Newest first: who entered, and where they stand.
    """
    workflow_id, before = path_id(id, MISSING), paging.position_id(page)
    # No contact has the number -1; 0 would be nobody.
    person = None if contact_id is None else parse_id(contact_id) or -1
    wanted = EnrollmentFilter(status=status, contact_id=person, version=version)
    with call.engine.begin() as tx:
        workflows.get(tx, workflow_id)
        rows = reading.enrollments(tx, workflow_id, wanted, skip=page.skip, limit=page.limit + 1, before=before)
        total = reading.count_enrollments(tx, workflow_id, wanted, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].enrollment_id,) if kept else None
    return paging.list_response(
        call, [_enrollment(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.get(
    "/workflows/{id}/enrollments/{enrollment_id}", response_model=WholeEnrollment,
    responses=problems(401, s404=EITHER_MISSING),
)  # fmt: skip
@allow(Role.VIEWER)
def get_enrollment(call: CurrentCall, id: str, enrollment_id: str) -> WholeEnrollment:
    """Show an enrollment.

    Where it stands, and the results of the steps it has visited.
    """
    with call.engine.begin() as tx:
        workflow_id = workflows.get(tx, path_id(id, MISSING)).workflow_id
        found = reading.enrollment(tx, workflow_id, path_id(enrollment_id, NO_ENROLLMENT))
        results = reading.results(tx, found.enrollment_id)
    return WholeEnrollment(**dict(_enrollment(found)), results=results)


@router.post(
    "/workflows/{id}/enrollments/{enrollment_id}/pause", response_model=ShownEnrollment,
    responses=problems(401, 403, 422, s404=EITHER_MISSING, s409="It is paused, or has ended"),
)  # fmt: skip
@allow(Role.EDITOR, action="enrollment.pause")
async def pause_enrollment(
    call: CurrentCall, id: str, enrollment_id: str, body: Annotated[ReasonBody | None, Body()] = None
) -> Response:
    """Pause an enrollment.

    It stays where it stands, with its `resume_at` and `waiting_for`. What it waits for is looked at when it is resumed;
    an event of `exit_on` ends it all the same.
    """
    return await _act(call, id, enrollment_id, body, lambda tx, *ids, reason: control.pause(tx, *ids))


@router.post(
    "/workflows/{id}/enrollments/{enrollment_id}/resume", response_model=ShownEnrollment,
    responses=problems(401, 403, 422, s404=EITHER_MISSING, s409="It is not paused"),
)  # fmt: skip
@allow(Role.EDITOR, action="enrollment.resume")
async def resume_enrollment(
    call: CurrentCall, id: str, enrollment_id: str, body: Annotated[ReasonBody | None, Body()] = None
) -> Response:
    """Resume a paused enrollment.

    It goes on waiting. It moves within two minutes if what it waits for has happened meanwhile, or its time has passed.
    """
    return await _act(call, id, enrollment_id, body,
                      lambda tx, *ids, reason: control.resume(tx, *ids, now=call.now))  # fmt: skip


@router.post(
    "/workflows/{id}/enrollments/{enrollment_id}/exit", response_model=ShownEnrollment,
    responses=problems(401, 403, 422, s404=EITHER_MISSING, s409="It has ended"),
)  # fmt: skip
@allow(Role.EDITOR, action="enrollment.exit")
async def exit_enrollment(
    call: CurrentCall, id: str, enrollment_id: str, body: Annotated[ReasonBody | None, Body()] = None
) -> Response:
    """End an enrollment.

    It takes no further step; `reason` becomes its `exit_reason`. Mail that is queued already is sent.
    """
    return await _act(call, id, enrollment_id, body,
                      lambda tx, *ids, reason: control.leave(tx, *ids, reason=reason, now=call.now))  # fmt: skip


async def _act(
    call: Call, given: str, enrollment: str, body: ReasonBody | None, verb: Callable[..., Enrollment]
) -> Response:
    workflow_id, enrollment_id = path_id(given, MISSING), parse_id(enrollment) or 0
    reason = body.reason if body else None

    def effect(tx: Connection) -> Outcome:
        changed = verb(tx, workflow_id, enrollment_id, reason=reason)
        changes = {"workflow_id": str(workflow_id), **({"reason": reason} if reason else {})}
        return Outcome(body=_enrollment(changed), resource_id=enrollment_id, changes=changes)

    return await call.commit(effect)
