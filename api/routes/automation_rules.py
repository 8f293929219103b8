"""Automation rules: draw one up, fire its trigger by hand, see what became of it."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import (
    INT_MAX,
    Answer,
    Id,
    Int32,
    Line50,
    Model,
    Name300,
    OptionalId,
    Shown,
    Text2000,
    parse_id,
    path_id,
)
from mautolib import automations
from mautolib.auth.roles import Role
from mautolib.automations import Log, NewRule, Rule, RunStatus
from mautolib.webhooks.addresses import Policy

router = Router("Automation rules")
MISSING = "Rule not found"
_CONDITIONS: list[JsonValue] = [{"field": "total", "operator": "gte", "value": 100}]
_ACTIONS: list[JsonValue] = [
    {"type": "add_tag", "config": {"tag_name": "big spender"}},
    {"type": "notify_admin", "config": {"message": "A big order came in."}},
    {"type": "wait_delay", "config": {"minutes": 60}},
    {"type": "send_email", "config": {"template_id": "3"}},
]
_EXAMPLE: dict[str, JsonValue] = {
    "name": "Big order", "trigger_type": "order_placed", "trigger_config": {"currency": "EUR"},
    "conditions": _CONDITIONS, "actions": _ACTIONS, "priority": 10, "cooldown_minutes": 1440,
}  # fmt: skip
_TriggerType = Annotated[Line50, Field(min_length=1, examples=["order_placed"], description="Any type of event.")]
_Limit = Annotated[int, Field(ge=0, le=INT_MAX)]
_Mapping = dict[str, Any]


class RulePatch(Model):
    """The fields to change; `conditions` and `actions` replace the whole list."""

    model_config = ConfigDict(title="AutomationRulePatch", json_schema_extra={"example": {"priority": 20}})

    name: Name300 = ""
    trigger_type: _TriggerType = ""
    description: Text2000 = ""
    active: bool = Field(default=True, description="Whether events run it.")
    trigger_config: _Mapping = Field(default={}, description="Each key has to equal that of the data of the event.")
    conditions: list[Any] = Field(
        default=[], description="`field`, `operator` (eq), `value`; read the data, else the contact. All have to hold."
    )
    actions: list[Any] = Field(default=[], description="`type` and `config`, in their order.")
    priority: int = Field(default=0, ge=-INT_MAX - 1, le=INT_MAX, description="The highest runs first.")
    max_executions: _Limit = Field(default=0, description="Failed runs count; 0: no limit.")
    cooldown_minutes: _Limit = Field(default=0, description="For one contact; 0: none.")

    def given(self) -> dict[str, Any]:
        """The fields that were sent."""
        return self.model_dump(include=self.model_fields_set)


class NewRuleBody(RulePatch):
    """A new rule."""

    model_config = ConfigDict(title="AutomationRuleCreate", json_schema_extra={"example": _EXAMPLE})

    name: Name300
    trigger_type: _TriggerType


class FireBody(Model):
    """What happened, as it were."""

    model_config = ConfigDict(
        title="AutomationFire",
        json_schema_extra={
            "example": {"trigger_type": "order_placed", "contact_id": "7",
                        "data": {"currency": "EUR", "total": "129.00"}}
        },
    )  # fmt: skip

    trigger_type: _TriggerType
    contact_id: OptionalId = Field(default=None, description="Whom it is about; need not exist.")
    data: _Mapping = Field(default={}, description="What an event would have as properties.")


class ShownRule(Answer):
    """What is done when something happened."""

    model_config = ConfigDict(title="AutomationRule", json_schema_extra={
        "example": {"id": "4", **_EXAMPLE, "description": "", "active": True, "max_executions": 0,
                    "total_executions": 17, "created_at": "2026-05-01T09:00:00Z"}
    })  # fmt: skip

    id: Id
    name: str
    description: str
    active: bool
    trigger_type: str
    trigger_config: _Mapping
    conditions: list[Any]
    actions: list[Any]
    priority: Int32
    max_executions: Int32
    total_executions: int = Field(description="Runs that began, failed ones included.")
    cooldown_minutes: Int32
    created_at: Shown


class ShownFired(Answer):
    """What became of one rule."""

    model_config = ConfigDict(title="AutomationFiredRule")

    rule_id: Id
    status: RunStatus


class FiredRules(Answer):
    """Which rules the trigger matched, by priority."""

    model_config = ConfigDict(title="AutomationFired")

    trigger_type: str
    rules_matched: int
    results: list[ShownFired]


class ShownStats(Answer):
    """How often a rule was triggered, and what came of it."""

    model_config = ConfigDict(title="AutomationStats")

    rule_id: Id
    total: int = Field(description="All of them, those that wait included.")
    success: int
    failed: int
    skipped: int
    success_rate: Annotated[float, Field(description="success of total, in percent.")]


class ShownLog(Answer):
    """One run, or why there was none."""

    model_config = ConfigDict(title="AutomationLog", json_schema_extra={
        "example": {
            "id": "9", "contact_id": "7", "trigger_type": "order_placed", "status": "failed", "duration_ms": 4,
            "created_at": "2026-05-01T09:00:00Z", "error": "Template not found",
            "actions": [
                {"type": "add_tag", "success": True, "tag_name": "big spender"},
                {"type": "send_email", "success": False, "template_id": "3", "error": "Template not found"},
            ],
        }
    })  # fmt: skip

    id: Id
    contact_id: OptionalId
    trigger_type: str
    status: RunStatus
    duration_ms: Int32
    created_at: Shown
    error: str | None = Field(description="The first action that failed, or why the rule did not run.")
    actions: list[Any]


def shown(rule: Rule) -> ShownRule:
    """A rule as the API shows it."""
    same = {name: getattr(rule, name) for name in ShownRule.model_fields if name != "id"}
    return ShownRule(**{**same, "id": str(rule.rule_id)})


def shown_log(log: Log) -> ShownLog:
    """A log as the API shows it."""
    same = {name: getattr(log, name) for name in ShownLog.model_fields if hasattr(log, name)}
    contact_id = str(log.contact_id) if log.contact_id else None
    return ShownLog(**{**same, "id": str(log.log_id), "contact_id": contact_id, "actions": list(log.actions)})


@router.get("/automation-rules/", response_model=list[ShownRule], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_automation_rules(
    call: CurrentCall, page: paging.OffsetLimit,
    active: Annotated[bool | None, Query(description="Only those that events run, or only the others.")] = None,
    trigger_type: Annotated[str | None, Query(description="Only of this trigger.")] = None,
) -> Response:  # fmt: skip
    """List automation rules.

    By priority, the highest first; of one priority the oldest first.
    """
    after = paging.position_as(page, int, int)
    wanted: dict[str, Any] = {"active": active, "trigger_type": trigger_type}
    with call.engine.begin() as tx:
        rows = automations.search(
            tx, **wanted, offset=page.skip, limit=page.limit + 1, after=None if after is None else (after[0], after[1])
        )
        total = automations.count(tx, **wanted)
    kept = rows[: page.limit]
    last = (kept[-1].priority, kept[-1].rule_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post("/automation-rules/", status_code=201, response_model=ShownRule, responses=problems(401, 403, 422))
@allow(Role.EDITOR, action="automation_rule.create")
async def create_automation_rule(call: CurrentCall, body: NewRuleBody) -> Response:
    """Create an automation rule.

    Conditions and actions are checked. A template that does not exist is accepted: that action fails when it is run.
    """

    def effect(tx: Connection) -> Outcome:
        made = automations.create(
            tx, NewRule(**body.given()), actor=str(call.actor), now=call.now, policy=Policy.of(call.settings)
        )
        return Outcome(status=201, body=shown(made), resource_id=made.rule_id)

    return await call.commit(effect)


@router.post("/automation-rules/fire", response_model=FiredRules, responses=problems(401, 403, 422))
@allow(Role.EDITOR, action="automation_rule.fire")
async def fire_automation_rules(call: CurrentCall, body: FireBody) -> Response:
    """Fire a trigger by hand.

    The active rules of this trigger type run at once, as if its event had happened with these data; no event is
    stored. Mail is queued, not sent.
    """

    def effect(tx: Connection) -> Outcome:
        contact_id = (parse_id(body.contact_id) or 0) if body.contact_id is not None else 0
        done = automations.fire(
            tx, call.settings, body.trigger_type, contact_id=contact_id, data=body.data, now=call.now
        )
        results = [ShownFired(rule_id=str(one.rule_id), status=one.status) for one in done]
        answer = FiredRules(trigger_type=body.trigger_type, rules_matched=len(done), results=results)
        changes = {"trigger_type": body.trigger_type, "contact_id": body.contact_id, "rules_matched": len(done)}
        return Outcome(body=answer, changes=changes)

    return await call.commit(effect)


@router.get("/automation-rules/{id}", response_model=ShownRule, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_automation_rule(call: CurrentCall, id: str) -> ShownRule:
    """Show an automation rule.

    With how often it ran.
    """
    with call.engine.begin() as tx:
        return shown(automations.get(tx, path_id(id, MISSING)))


@router.patch("/automation-rules/{id}", response_model=ShownRule, responses=problems(401, 403, 422, s404=MISSING))
@allow(Role.EDITOR, action="automation_rule.update")
async def update_automation_rule(call: CurrentCall, id: str, body: RulePatch) -> Response:
    """Change an automation rule.

    Runs that wait go on with the actions they began with.
    """

    def effect(tx: Connection) -> Outcome:
        changed = automations.update(
            tx, path_id(id, MISSING), body.given(), actor=str(call.actor), policy=Policy.of(call.settings)
        )
        fields = sorted(body.model_fields_set)
        return Outcome(body=shown(changed), resource_id=changed.rule_id, changes={"fields": fields})

    return await call.commit(effect)


@router.delete(
    "/automation-rules/{id}", status_code=204, response_class=Response, responses=problems(401, 403, s404=MISSING)
)
@allow(Role.EDITOR, action="automation_rule.delete")
async def delete_automation_rule(call: CurrentCall, id: str) -> Response:
    """Delete an automation rule.

    Its logs go with it, and runs that wait end.
    """

    def effect(tx: Connection) -> Outcome:
        rule_id = path_id(id, MISSING)
        automations.remove(tx, rule_id, actor=str(call.actor))
        return Outcome(status=204, resource_id=rule_id)

    return await call.commit(effect)


@router.get("/automation-rules/{id}/stats", response_model=ShownStats, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def show_automation_rule_stats(call: CurrentCall, id: str) -> ShownStats:
    """Show the figures of an automation rule.

    Counted from its logs.
    """
    with call.engine.begin() as tx:
        rule_id = path_id(id, MISSING)
        found = automations.stats(tx, rule_id)
    return ShownStats(
        rule_id=str(rule_id), total=found.total, success=found.success, failed=found.failed, skipped=found.skipped,
        success_rate=_percent(found.success, found.total),
    )  # fmt: skip


@router.get("/automation-rules/{id}/logs", response_model=list[ShownLog], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_automation_rule_logs(call: CurrentCall, id: str, page: paging.OffsetLimit) -> Response:
    """List the logs of an automation rule.

    Newest first. A rule that is not there has none.
    """
    # No rule has this number, so none of its logs is found.
    rule_id = parse_id(id) or 0
    before = paging.position_id(page)
    with call.engine.begin() as tx:
        rows = automations.logs(tx, rule_id, offset=page.skip, limit=page.limit + 1, before=before)
        total = automations.count_logs(tx, rule_id)
    kept = rows[: page.limit]
    last = (kept[-1].log_id,) if kept else None
    return paging.list_response(
        call, [shown_log(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


def _percent(part: int, whole: int) -> float:
    if not whole:
        return 0.0
    return float((Decimal(part) * 100 / whole).quantize(Decimal("0.01"), ROUND_HALF_UP))
