"""Outbound webhooks: endpoints, what was delivered to them, and delivering again."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from anyio import CapacityLimiter
from fastapi import Depends, Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Line500, Model, Moment, Shown, parse_id, path_id
from mautolib import webhooks
from mautolib.auth.roles import Role
from mautolib.webhooks import DeliveryStatus, TestResult, endpoints, reading
from mautolib.webhooks.endpoints import EVERYTHING, MISSING, Endpoint, NewEndpoint
from mautolib.webhooks.reading import Delivery, DeliveryFilter, WholeDelivery
from mautolib.webhooks.secrets import LONGEST_SECRET, check_secret

router = Router("Webhooks")
NO_DELIVERY = reading.MISSING
EITHER_MISSING = "Webhook not found, or Delivery not found"
BAD_EVENT = "`Invalid event type: x`"
#: A receiver may take 20 seconds; so many tests at once leave threads for everybody else.
TESTING = CapacityLimiter(4)
#: Stands for an id nothing can have; ids begin at 1.
_NO_ROW = 0
_URL = "https://shop.example/hooks/mauto"
_PAYLOAD: dict[str, JsonValue] = {"message": "Test webhook delivery"}
_SENT: dict[str, JsonValue] = {
    "id": "whm_1", "event": "contact.created", "timestamp": "2026-05-01T09:00:00Z", "data": {"contact": {"id": "42"}},
}  # fmt: skip
#: The guard reads it, and events are looked at before it; so the schema only says how long it may be.
_Url = Annotated[
    str, Field(json_schema_extra={"maxLength": 2048, "minLength": 1}, examples=[_URL], description="https, public.")
]
_Events = Annotated[
    list[str], Field(min_length=1, max_length=100, description="Names of `GET /webhooks/events`, or `*` for all.")
]
_Most = Annotated[int, Field(ge=1, le=100, description="Dead deliveries in a row that disable it.")]
_Secret = Annotated[str, Field(min_length=1, max_length=LONGEST_SECRET)]


class ShownWebhook(Answer):
    """An endpoint that events are delivered to."""

    model_config = ConfigDict(title="Webhook")

    id: Id
    url: str
    events: list[str]
    active: bool
    description: str
    consecutive_failures: int
    total_deliveries: int
    total_failures: int
    max_failures: int
    last_success_at: Shown | None
    last_failure_at: Shown | None
    disabled_reason: str | None
    created_at: Shown


class MadeWebhook(ShownWebhook):
    """A new endpoint; with its secret if one was made, which cannot be shown again."""

    model_config = ConfigDict(title="WebhookCreated")

    secret: str | None = Field(default=None, exclude_if=lambda secret: secret is None)


class NewWebhookBody(Model):
    """A new endpoint."""

    model_config = ConfigDict(
        title="WebhookCreate",
        json_schema_extra={
            "example": {"url": _URL, "events": ["contact.created", "email.clicked"], "description": "CRM"}
        },
    )

    url: _Url
    secret: _Secret | None = Field(default=None, description="Write-only; without one a secret is made.")
    events: _Events = Field(default=[EVERYTHING])
    description: Line500 = ""
    max_failures: _Most = 10


class WebhookPatch(Model):
    """The fields to change."""

    model_config = ConfigDict(title="WebhookPatch", json_schema_extra={"example": {"active": True}})

    url: _Url = ""
    secret: _Secret | None = Field(default=None, description="Takes the place of the old one at once.")
    events: _Events = Field(default=[EVERYTHING])
    description: Line500 = ""
    max_failures: _Most = 10
    active: bool = True


class ShownDelivery(Answer):
    """An event on its way to an endpoint; `attempt` counts the attempts made."""

    model_config = ConfigDict(title="WebhookDelivery")

    id: Id
    endpoint_id: Id
    event_type: str
    response_status: int | None = Field(description="Of the last attempt; 0: no connection.")
    success: bool
    duration_ms: int
    attempt: int
    created_at: Shown
    message_id: str = Field(description="`webhook-id`, the same on every attempt.")
    status: DeliveryStatus
    next_attempt_at: Shown | None
    error: str | None


class ShownAttempt(Answer):
    """One attempt; `response_body` is the beginning of the answer."""

    model_config = ConfigDict(title="WebhookAttempt")

    at: Shown
    response_status: int
    duration_ms: int
    error: str | None
    response_body: str | None


class ShownWholeDelivery(ShownDelivery):
    """A delivery with what was sent, and every attempt."""

    model_config = ConfigDict(title="WebhookDeliveryDetail")

    payload: dict[str, Any] = Field(examples=[_SENT])
    attempts: list[ShownAttempt]


class ReplayBody(Model):
    """Which deliveries to send again: those made in a span of time that ended so."""

    model_config = ConfigDict(title="WebhookReplay", json_schema_extra={"example": {"since": "2026-05-01T09:00:00Z"}})

    since: Moment
    until: Moment | None = None
    status: Annotated[DeliveryStatus, Field(strict=False)] = DeliveryStatus.DEAD


class ShownReplay(Answer):
    """How many deliveries wait again."""

    model_config = ConfigDict(title="WebhookReplayed")

    requeued: int


class TestBody(Model):
    """What to send."""

    model_config = ConfigDict(
        title="WebhookTest", json_schema_extra={"example": {"event_type": "test.ping", "payload": _PAYLOAD}}
    )
    #: Not a class of tests, whatever pytest thinks of its name.
    __test__: ClassVar[bool] = False

    event_type: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,100}$", max_length=100)] = "test.ping"
    payload: dict[str, Any] = Field(default=_PAYLOAD)


class ShownTest(Answer):
    """What came of a test; `response_status` 0: no connection."""

    model_config = ConfigDict(title="WebhookTested")

    message: Literal["Test webhook sent"] = "Test webhook sent"
    success: bool
    response_status: int
    duration_ms: int


class RotateBody(Model):
    """The new secret; without one a secret is made."""

    model_config = ConfigDict(
        title="WebhookRotate", json_schema_extra={"example": {"secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}}
    )

    secret: _Secret | None = None


class ShownSecret(Answer):
    """The new secret, shown once; the previous one signs along until then."""

    model_config = ConfigDict(title="WebhookSecret")

    secret: str
    previous_valid_until: Shown


def shown(endpoint: Endpoint) -> ShownWebhook:
    """An endpoint as listed."""
    return ShownWebhook(**_values(endpoint))


def shown_delivery(delivery: Delivery) -> ShownDelivery:
    """A delivery as listed."""
    return ShownDelivery(**_delivery_values(delivery))


def _filters(
    status: Annotated[DeliveryStatus | None, Query(description="Only these.")] = None,
    event_type: Annotated[str | None, Query(max_length=100, description="Exact event type.")] = None,
    since: Annotated[Moment | None, Query(description="Made from this moment on.")] = None,
    until: Annotated[Moment | None, Query(description="Made before this moment.")] = None,
) -> DeliveryFilter:
    return DeliveryFilter(endpoint_id=None, status=status, event_type=event_type, since=since, until=until)


@router.get("/webhooks/events", response_model=list[str], responses=problems(401))
@allow(Role.VIEWER)
def list_webhook_events(call: CurrentCall) -> list[str]:
    """List what a webhook can listen to.

    19 names; each event is told once per fact.
    """
    return list(endpoints.EVENTS)


@router.get("/webhooks/", response_model=list[ShownWebhook], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_webhooks(
    call: CurrentCall,
    page: paging.SkipLimit,
    active: Annotated[bool | None, Query(description="Only active ones, or only disabled ones.")] = None,
) -> Response:
    """List webhooks.

    Newest first. `disabled_reason` says why one was disabled by itself.
    """
    after = paging.position(page)
    with call.engine.begin() as tx:
        rows = endpoints.search(tx, active=active, skip=page.skip, limit=page.limit + 1, after=after)
        total = endpoints.count(tx, active=active, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].created_at.isoformat(), kept[-1].endpoint_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post(
    "/webhooks/", status_code=201, response_model=MadeWebhook, responses=problems(401, 403, 422, s400=BAD_EVENT)
)
@allow(Role.ADMIN, action="webhook.create")
async def create_webhook(call: CurrentCall, body: NewWebhookBody) -> Response:
    """Create a webhook.

    `secret` is in the answer only if none was sent, and only this once. The URL is https and leads to the public
    internet; a name that does not resolve yet is accepted.
    """
    new = NewEndpoint(
        url=body.url, secret=body.secret, events=body.events, description=body.description,
        max_failures=body.max_failures,
    )  # fmt: skip

    def effect(tx: Connection) -> Outcome:
        made, secret = endpoints.create(tx, call.settings, new, now=call.now)
        answer = MadeWebhook(**_values(made), secret=secret)
        log = {"events": list(made.events)}
        return Outcome(status=201, body=answer, resource_id=made.endpoint_id, changes=log, is_secret=True)

    return await call.commit(effect)


@router.get("/webhooks/{id}", response_model=ShownWebhook, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_webhook(call: CurrentCall, id: str) -> ShownWebhook:
    """Show a webhook.

    With what became of its deliveries; its secret is never shown.
    """
    with call.engine.begin() as tx:
        return shown(endpoints.get(tx, path_id(id, MISSING)))


@router.patch(
    "/webhooks/{id}", response_model=ShownWebhook, responses=problems(401, 403, 422, s400=BAD_EVENT, s404=MISSING)
)
@allow(Role.ADMIN, action="webhook.update")
async def update_webhook(call: CurrentCall, id: str, body: WebhookPatch) -> Response:
    """Change a webhook.

    Only the fields sent. `active: true` clears its failures, and what waited for it goes out. A secret changed here
    signs at once and alone; `rotate-secret` leaves the receiver a day.
    """
    changes = body.model_dump(exclude_unset=True)
    endpoint_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        changed = endpoints.update(tx, call.settings, endpoint_id, changes)
        return Outcome(body=shown(changed), resource_id=endpoint_id, changes={"fields": sorted(changes)})

    return await call.commit(effect)


@router.delete(
    "/webhooks/{id}", status_code=204, response_class=Response, responses=problems(401, 403, s404=MISSING)
)
@allow(Role.ADMIN, action="webhook.delete")
async def delete_webhook(call: CurrentCall, id: str) -> Response:
    """Delete a webhook.

    With its deliveries; what waited for it is not sent.
    """
    endpoint_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        endpoints.remove(tx, endpoint_id)
        return Outcome(status=204, resource_id=endpoint_id)

    return await call.commit(effect)


@router.get(
    "/webhooks/{id}/deliveries", response_model=list[ShownDelivery], responses=listed(problems(401, 422))
)
@allow(Role.VIEWER)
def list_webhook_deliveries(
    call: CurrentCall, id: str, page: paging.SkipLimit, filters: Annotated[DeliveryFilter, Depends(_filters)]
) -> Response:
    """List the deliveries of a webhook.

    Newest first, one for each event; tests are among them. Filters combine with AND; an unknown webhook has none.
    """
    wanted = DeliveryFilter(
        endpoint_id=parse_id(id) or _NO_ROW, status=filters.status, event_type=filters.event_type,
        since=filters.since, until=filters.until,
    )  # fmt: skip
    after = paging.position_id(page)
    with call.engine.begin() as tx:
        rows = reading.search(tx, wanted, skip=page.skip, limit=page.limit + 1, after=after)
        total = reading.count(tx, wanted, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].delivery_id,) if kept else None
    return paging.list_response(
        call, [shown_delivery(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.get(
    "/webhooks/{id}/deliveries/{delivery_id}", response_model=ShownWholeDelivery,
    responses=problems(401, s404=NO_DELIVERY),
)  # fmt: skip
@allow(Role.VIEWER)
def get_webhook_delivery(call: CurrentCall, id: str, delivery_id: str) -> ShownWholeDelivery:
    """Show a delivery.

    With what is sent, and every attempt: when, how long, and the first kilobyte of the answer.
    """
    with call.engine.begin() as tx:
        found = reading.get(
            tx, path_id(delivery_id, NO_DELIVERY), endpoint_id=path_id(id, NO_DELIVERY)
        )
    return _shown_whole(found)


@router.post(
    "/webhooks/{id}/deliveries/{delivery_id}/retry", status_code=202, response_model=ShownDelivery,
    responses=problems(401, 403, s404=NO_DELIVERY, s409="The delivery is still pending"),
)  # fmt: skip
@allow(Role.EDITOR, action="webhook.retry")
async def retry_webhook_delivery(call: CurrentCall, id: str, delivery_id: str) -> Response:
    """Deliver again.

    A delivery that succeeded or is dead begins its schedule anew, with the same message id.
    """
    endpoint_id, number = path_id(id, NO_DELIVERY), path_id(delivery_id, NO_DELIVERY)

    def effect(tx: Connection) -> Outcome:
        webhooks.retry_delivery(tx, endpoint_id, number, now=call.now)
        again = reading.get(tx, number, endpoint_id=endpoint_id).delivery
        log = {"delivery_id": str(number)}
        return Outcome(status=202, body=shown_delivery(again), resource_id=endpoint_id, changes=log)

    return await call.commit(effect)


@router.post(
    "/webhooks/{id}/deliveries/retry", status_code=202, response_model=ShownReplay,
    responses=problems(401, 403, 422, s404=MISSING),
)  # fmt: skip
@allow(Role.EDITOR, action="webhook.retry_many")
async def retry_webhook_deliveries(call: CurrentCall, id: str, body: ReplayBody) -> Response:
    """Deliver again what was made in a span of time.

    From `since` to before `until` (default: now), dead deliveries or those of another `status`; pending ones are left
    alone. Each keeps its message id.
    """
    endpoint_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        count = webhooks.retry_many(
            tx, endpoint_id, since=body.since, until=body.until, status=body.status, now=call.now
        )
        return Outcome(
            status=202, body=ShownReplay(requeued=count), resource_id=endpoint_id, changes={"requeued": count}
        )

    return await call.commit(effect)


@router.post(
    "/webhooks/{id}/rotate-secret", response_model=ShownSecret, responses=problems(401, 403, 422, s404=MISSING)
)
@allow(Role.ADMIN, action="webhook.rotate_secret")
async def rotate_webhook_secret(call: CurrentCall, id: str, body: RotateBody | None = None) -> Response:
    """Give a webhook another secret.

    Shown in this answer only. For 24 hours `webhook-signature` carries a signature of each; `X-Webhook-Signature-256`
    uses the new one at once.
    """
    endpoint_id, wanted = path_id(id, MISSING), body.secret if body else None
    if wanted is not None:
        check_secret(wanted)

    def effect(tx: Connection) -> Outcome:
        secret, until = webhooks.rotate_secret(tx, call.settings, endpoint_id, secret=wanted, now=call.now)
        answer = ShownSecret(secret=secret, previous_valid_until=until)
        return Outcome(body=answer, resource_id=endpoint_id, is_secret=True)

    return await call.commit(effect)


@router.post("/webhooks/{id}/test", response_model=ShownTest, responses=problems(401, 403, 422, s404=MISSING))
@allow(Role.EDITOR, action="webhook.test")
async def test_webhook(call: CurrentCall, id: str, body: TestBody | None = None) -> Response:
    """Send a test.

    One attempt, now, signed like every delivery and listed among them; also to a webhook that is not active. It is 200
    also when nobody answered: `success` says. Failed tests count as failures of the webhook.
    """
    endpoint_id, wanted, found = path_id(id, MISSING), body or TestBody(), list[TestResult]()

    def send() -> None:
        found.append(webhooks.send_test(
            call.engine, call.settings, endpoint_id, event_type=wanted.event_type, payload=wanted.payload, now=call.now
        ))  # fmt: skip

    def effect(tx: Connection) -> Outcome:
        result = found[0]
        answer = ShownTest(
            success=result.success, response_status=result.response_status, duration_ms=result.duration_ms
        )
        log = {"event_type": wanted.event_type, "success": result.success}
        return Outcome(body=answer, resource_id=endpoint_id, changes=log)

    return await call.commit(effect, before=send, limiter=TESTING)


def _shown_whole(found: WholeDelivery) -> ShownWholeDelivery:
    attempts = [ShownAttempt.model_validate(one) for one in found.attempts]
    return ShownWholeDelivery(**_delivery_values(found.delivery), payload=dict(found.payload), attempts=attempts)


def _delivery_values(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": str(delivery.delivery_id), "endpoint_id": str(delivery.endpoint_id), "event_type": delivery.event_type,
        "response_status": delivery.response_status, "success": delivery.status is DeliveryStatus.SUCCEEDED,
        "duration_ms": delivery.duration_ms, "attempt": delivery.attempt, "created_at": delivery.created_at,
        "message_id": delivery.message_id, "status": delivery.status, "next_attempt_at": delivery.next_attempt_at,
        "error": delivery.error,
    }  # fmt: skip


def _values(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": str(endpoint.endpoint_id), "url": endpoint.url, "events": list(endpoint.events),
        "active": endpoint.active, "description": endpoint.description,
        "consecutive_failures": endpoint.consecutive_failures, "total_deliveries": endpoint.total_deliveries,
        "total_failures": endpoint.total_failures, "max_failures": endpoint.max_failures,
        "last_success_at": endpoint.last_success_at, "last_failure_at": endpoint.last_failure_at,
        "disabled_reason": endpoint.disabled_reason, "created_at": endpoint.created_at,
    }  # fmt: skip
