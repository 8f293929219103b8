"""Events: take them in from shops, list them, show one, and the timeline of a contact."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import Depends, Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import MIB, Outcome
from api.errors import Refused, invalid
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Line50, Line200, Line320, Model, Moment, OptionalId, Shown, parse_id, path_id
from mautolib import contacts, ingestion
from mautolib.auth.roles import Role
from mautolib.errors import Conflict, InvalidInput
from mautolib.events import reading
from mautolib.events.reading import Event, EventFilter
from mautolib.ingestion import Incoming, Rejected, Result

router = Router("Events")
MISSING = "Event not found"
MOST = 1000
#: Stands for an id nothing can have; ids begin at 1.
_NO_ROW = 0

_EXAMPLE: dict[str, JsonValue] = {
    "type": "order_placed", "source": "shop", "external_id": "evt-1001", "email": "ana@shop.example",
    "occurred_at": "2026-05-01T09:00:00Z",
    "properties": {
        "order_id": "1001", "currency": "EUR", "total": "59.90", "tax": "9.56",
        "lines": [{"sku": "TEA-SENCHA", "name": "Sencha, 100 g", "quantity": 2, "unit_price": "29.95"}],
    },
}  # fmt: skip
_EVENT = {"$ref": "#/components/schemas/EventBody"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"anyOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1, "maxItems": MOST}]},
                "example": _EXAMPLE,
            }
        },
    }
}


class EventBody(Model):
    """One event. `contact_id` or `email` says whose it is; given both they must agree."""

    model_config = ConfigDict(title="EventCreate", json_schema_extra={"example": _EXAMPLE})

    type: Annotated[Line50, Field(min_length=1)]
    source: Annotated[Line50, Field(min_length=1)] = "api"
    external_id: Annotated[Line200, Field(min_length=1)] | None = Field(
        default=None, description="Your number of the fact; with `source` it makes a repetition harmless."
    )
    contact_id: str | int | None = Field(default=None, examples=["42"])
    email: Line320 | None = Field(default=None, description="Who has no contact yet gets one, not subscribed.")
    occurred_at: Moment | None = Field(default=None, description="Default: now. At most 5 minutes ahead.")
    properties: dict[str, Any] = Field(default={}, description="At most 256 KiB as JSON.")


class ShownEvent(Answer):
    """Something that happened."""

    model_config = ConfigDict(title="Event")

    id: Id
    type: str
    source: str
    external_id: str | None
    contact_id: OptionalId
    occurred_at: Shown
    received_at: Shown
    properties: dict[str, Any]
    campaign_id: OptionalId
    message_id: OptionalId
    order_id: OptionalId = Field(description="Id of the order it tells of.")


class EventResult(Answer):
    """What became of one event; a duplicate names the event that was stored first."""

    index: int
    status: Literal["accepted", "duplicate", "rejected"]
    event_id: Id | None = None
    contact_id: Id | None = None
    code: str | None = Field(default=None, examples=[None])
    detail: str | None = Field(default=None, examples=[None])


class Ingested(Answer):
    """What became of the events given, in their order."""

    accepted: int
    duplicates: int
    rejected: int
    results: list[EventResult]


def shown(event: Event) -> ShownEvent:
    """An event as the API shows it."""
    return ShownEvent(
        id=str(event.event_id), type=event.event_type, source=event.source, external_id=event.external_id,
        contact_id=_text(event.contact_id), occurred_at=event.occurred_at, received_at=event.received_at,
        properties=dict(event.properties), campaign_id=_text(event.campaign_id), message_id=_text(event.message_id),
        order_id=_text(event.order_key),
    )  # fmt: skip


def _times(
    since: Annotated[Moment | None, Query(description="From this moment on.")] = None,
    until: Annotated[Moment | None, Query(description="Before this moment.")] = None,
) -> EventFilter:
    return EventFilter(since=since, until=until)


def _filters(
    times: Annotated[EventFilter, Depends(_times)],
    contact_id: Annotated[str | None, Query(max_length=20, description="Events of this contact.")] = None,
    type: Annotated[str | None, Query(max_length=50, description="Exact type; synonyms are resolved.")] = None,
    source: Annotated[str | None, Query(max_length=50, description="Exact source; `mauto` is this service.")] = None,
    campaign_id: Annotated[str | None, Query(max_length=20, description="Events of this campaign's mails.")] = None,
) -> EventFilter:
    return EventFilter(
        contact_id=_reference(contact_id), event_type=type, source=source, campaign_id=_reference(campaign_id),
        since=times.since, until=times.until,
    )  # fmt: skip


@router.post(
    "/events/", status_code=202, response_model=Ingested, openapi_extra=_BODY,
    responses=problems(401, 403, 413, 415, 422, s409="The order is known with other content (`order_conflict`)"),
)  # fmt: skip
@allow(Role.EDITOR, action="event.ingest", body_limit=5 * MIB, audited=False)
async def ingest_events(call: CurrentCall) -> Response:
    """Take in an event, or an array of up to 1000.

    Each is stored once, by (`source`, `external_id`), an order also by (`source`, `order_id`): a repetition is a
    `duplicate`, an order with other content an `order_conflict`. A bad event in an array is rejected alone, with its
    code; a bad single event is 422. A refund may come before its order.
    An event is no consent: a contact made from an unknown `email` is not subscribed.
    """
    given = await call.request.json()
    if not isinstance(given, list):
        item = _checked(given, call)

        def one(tx: Connection) -> Outcome:
            return _answer([_accepted(ingestion.ingest(tx, [item], call.settings, now=call.now)[0])])

        return await call.commit(one)
    if not 1 <= len(given) <= MOST:
        raise Refused(422, invalid(["body"], f"An array has 1 to {MOST} events"))
    read = await run_sync(_read_all, given, call)
    good = [item for item in read if isinstance(item, Incoming)]

    def many(tx: Connection) -> Outcome:
        stored = iter(ingestion.ingest(tx, good, call.settings, now=call.now))
        return _answer([next(stored) if isinstance(item, Incoming) else item for item in read])

    return await call.commit(many)


@router.get("/events/", response_model=list[ShownEvent], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_events(
    call: CurrentCall, page: paging.SkipLimit, filters: Annotated[EventFilter, Depends(_filters)]
) -> Response:
    """List events.

    Newest `occurred_at` first. Filters combine with AND.
    """
    return _list(call, page, filters)


@router.get("/events/{id}", response_model=ShownEvent, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_event(call: CurrentCall, id: str) -> ShownEvent:
    """Show an event."""
    with call.engine.begin() as tx:
        return shown(reading.get_event(tx, path_id(id, MISSING)))


@router.get(
    "/contacts/{id}/events", response_model=list[ShownEvent],
    responses=listed(problems(401, 422, s404="Contact not found")),
)  # fmt: skip
@allow(Role.VIEWER)
def list_contact_events(
    call: CurrentCall,
    id: str,
    page: paging.SkipLimit,
    times: Annotated[EventFilter, Depends(_times)],
    type: Annotated[str | None, Query(max_length=50, description="Exact type; synonyms are resolved.")] = None,
) -> Response:
    """List the events of a contact: its timeline of shop and mail.

    Newest `occurred_at` first. Opens and clicks are those of people, not of mail scanners.
    """
    contact_id = path_id(id, "Contact not found")
    with call.engine.begin() as tx:
        contacts.get(tx, contact_id)
    return _list(call, page, EventFilter(contact_id=contact_id, event_type=type, since=times.since, until=times.until))


def _list(call: CurrentCall, page: paging.Page, filters: EventFilter) -> Response:
    after = paging.position(page)
    with call.engine.begin() as tx:
        rows = reading.search_events(tx, filters, skip=page.skip, limit=page.limit + 1, after=after)
        total = reading.count_events(tx, filters, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].occurred_at.isoformat(), kept[-1].event_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


def _checked(given: object, call: CurrentCall) -> Incoming:
    try:
        return ingestion.check(given, now=call.now)
    except InvalidInput as error:
        raise InvalidInput(str(error), code=error.code, path=("body", *error.path)) from None


def _read_all(given: list[Any], call: CurrentCall) -> list[Incoming | Result]:
    read: list[Incoming | Result] = []
    for item in given:
        try:
            read.append(ingestion.check(item, now=call.now))
        except InvalidInput as error:
            why = Rejected(code=error.code, detail=str(error), path=error.path)
            read.append(Result(status=ingestion.Status.REJECTED, rejected=why))
    return read


def _accepted(result: Result) -> Result:
    """The result of a single event; one that was not taken is an error answer."""
    if result.rejected is None:
        return result
    code, detail = result.rejected.code, result.rejected.detail
    if code == "order_conflict":
        raise Conflict(detail, code=code)
    raise InvalidInput(detail, code=code, path=("body", *result.rejected.path))


def _answer(results: list[Result]) -> Outcome:
    rows, counts = [], dict.fromkeys(ingestion.Status, 0)
    for index, result in enumerate(results):
        counts[result.status] += 1
        rows.append({
            "index": index, "status": str(result.status), "event_id": _text(result.event_id),
            "contact_id": _text(result.contact_id),
            "code": result.rejected.code if result.rejected else None,
            "detail": result.rejected.detail if result.rejected else None,
        })  # fmt: skip
    accepted, duplicates, rejected = (counts[status] for status in ingestion.Status)
    body = {"accepted": accepted, "duplicates": duplicates, "rejected": rejected, "results": rows}
    return Outcome(status=202, body=body)


def _reference(given: str | None) -> int | None:
    return None if given is None else parse_id(given) or _NO_ROW


def _text(number: int | None) -> str | None:
    # 0 is nobody.
    return str(number) if number else None
