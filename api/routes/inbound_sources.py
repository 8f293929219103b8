"""Inbound sources, and the door behind each: what a shop posts there becomes events."""

from __future__ import annotations

import re
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import JSON, MIB, Outcome, json_bytes
from api.errors import Refused
from api.routing import PREFIX, CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Model, Name100, Shown, path_id
from mautolib.auth.roles import Role
from mautolib.settings import Settings
from mautolib.webhooks import arriving, sources
from mautolib.webhooks.arriving import Arrived
from mautolib.webhooks.proving import SourceKind
from mautolib.webhooks.secrets import LONGEST_SECRET
from mautolib.webhooks.sources import MISSING, MadeSource, NewSource, Source

router = Router("Inbound sources")
_FORM = "application/x-www-form-urlencoded"
#: WooCommerce greets a new webhook so, unsigned, and wants 200.
_GREETING = re.compile(rb"webhook_id=[0-9]{1,19}")
_MAPPING: dict[str, JsonValue] = {
    "type": "lead_created", "external_id": "$.lead.id", "email": "$.lead.mail", "occurred_at": "$.created",
    "properties": {"form": "$.lead.form", "page": "$.context['page url']"},
}  # fmt: skip
_EVENT: dict[str, JsonValue] = {
    "type": "form_submitted", "external_id": "lead-5001", "email": "ana@shop.example",
    "occurred_at": "2026-05-01T09:00:00Z", "properties": {"form": "newsletter"},
}  # fmt: skip
_OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": True}
_SCHEMA = {
    "anyOf": [_OBJECT, {"type": "array", "items": _OBJECT}],
    "description": "Whatever the source's kind sends, and its mapping or preset reads.",
}
_MEDIA = {"schema": _SCHEMA, "example": _EVENT}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {JSON: _MEDIA}}}
_Kind = Annotated[SourceKind, Field(strict=False, description="Whose signature it checks, and whose bodies it reads.")]
_Secret = Annotated[str, Field(min_length=1, max_length=LONGEST_SECRET)]
_Mapping = Annotated[
    dict[str, Any],
    Field(
        description="JSON paths (`$.a.b[0]['c d']`) to type, external_id, contact_id, email, occurred_at and "
        "properties (a path, or an object of paths); text without `$` stands for itself. Empty: the preset of the kind."
    ),
]


class ShownSource(Answer):
    """A door for webhooks of somebody else."""

    model_config = ConfigDict(title="InboundSource")

    id: Id
    name: str
    kind: SourceKind
    active: bool
    mapping: dict[str, Any]
    last_received_at: Shown | None = Field(description="Kept to the minute.")
    created_at: Shown


class MadeSourceBody(ShownSource):
    """A new source with what cannot be shown again."""

    model_config = ConfigDict(title="InboundSourceCreated")

    token: str
    url: str = Field(description="Where to post to: the token is its last part.")
    secret: str = Field(description="What the sender signs with.")


class NewSourceBody(Model):
    """A new inbound source."""

    model_config = ConfigDict(
        title="InboundSourceCreate",
        json_schema_extra={"example": {"name": "lead forms", "kind": "generic", "mapping": _MAPPING, "active": True}},
    )

    name: Name100
    kind: _Kind = SourceKind.GENERIC
    secret: _Secret | None = Field(default=None, description="The platform's; without one a secret is made.")
    mapping: _Mapping = Field(default={})
    active: bool = True


class SourcePatch(Model):
    """The fields to change."""

    model_config = ConfigDict(title="InboundSourcePatch", json_schema_extra={"example": {"active": False}})

    name: Name100 = ""
    active: bool = True
    mapping: _Mapping = Field(default={})
    secret: _Secret | None = Field(default=None, description="Takes the place of the old one at once.")


class ShownTaken(Answer):
    """How many events a body brought; `duplicates` were known."""

    model_config = ConfigDict(title="InboundReceipt", json_schema_extra={"example": {"accepted": 1, "duplicates": 0}})

    accepted: int
    duplicates: int


def shown(source: Source) -> ShownSource:
    """A source as listed."""
    return ShownSource(**_values(source))


@router.get("/inbound-sources/", response_model=list[ShownSource], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_inbound_sources(call: CurrentCall, page: paging.SkipLimit) -> Response:
    """List inbound sources.

    Newest first. Tokens and secrets are not known any more.
    """
    after = paging.position(page)
    with call.engine.begin() as tx:
        rows = sources.search(tx, skip=page.skip, limit=page.limit + 1, after=after)
        total = sources.count(tx, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].created_at.isoformat(), kept[-1].source_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post("/inbound-sources/", status_code=201, response_model=MadeSourceBody, responses=problems(401, 403, 422))
@allow(Role.ADMIN, action="inbound_source.create")
async def create_inbound_source(call: CurrentCall, body: NewSourceBody) -> Response:
    """Create an inbound source.

    `token`, `url` and `secret` are shown in this answer only. Shopify and WooCommerce choose the secret themselves:
    give theirs here, or later by PATCH. Their orders are read without a mapping.
    """
    new = NewSource(name=body.name, kind=body.kind, secret=body.secret, mapping=body.mapping, active=body.active)

    def effect(tx: Connection) -> Outcome:
        made = sources.create(tx, call.settings, new, now=call.now)
        log = {"kind": str(made.source.kind), "active": made.source.active}
        return Outcome(
            status=201, body=_once(call.settings, made), resource_id=made.source.source_id, changes=log, is_secret=True
        )

    return await call.commit(effect)


@router.get("/inbound-sources/{id}", response_model=ShownSource, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_inbound_source(call: CurrentCall, id: str) -> ShownSource:
    """Show an inbound source.

    With when it last received something its signature proved.
    """
    with call.engine.begin() as tx:
        return shown(sources.get(tx, path_id(id, MISSING)))


@router.patch("/inbound-sources/{id}", response_model=ShownSource, responses=problems(401, 403, 422, s404=MISSING))
@allow(Role.ADMIN, action="inbound_source.update")
async def update_inbound_source(call: CurrentCall, id: str, body: SourcePatch) -> Response:
    """Change an inbound source.

    Only the fields sent. A source that is not active answers 404, as if it were not there. Its kind and its token
    stay: for another address make another source.
    """
    changes = body.model_dump(exclude_unset=True)
    source_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        changed = sources.update(tx, call.settings, source_id, changes)
        return Outcome(body=shown(changed), resource_id=source_id, changes={"fields": sorted(changes)})

    return await call.commit(effect)


@router.delete(
    "/inbound-sources/{id}", status_code=204, response_class=Response,
    responses=problems(401, 403, s404=MISSING, s409="An active workflow is started by its events (`in_use`)"),
)  # fmt: skip
@allow(Role.ADMIN, action="inbound_source.delete")
async def delete_inbound_source(call: CurrentCall, id: str) -> Response:
    """Delete an inbound source.

    Its address is gone at once; the events and orders it brought stay. Refused with `in_use` while an active workflow
    names it in its trigger.
    """
    source_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        sources.remove(tx, source_id)
        return Outcome(status=204, resource_id=source_id)

    return await call.commit(effect)


@router.post(
    "/webhooks/inbound/{token}", status_code=202, response_model=ShownTaken, openapi_extra=_BODY,
    responses={
        200: {"model": ShownTaken, "description": "The greeting of WooCommerce, which brings nothing"},
        **problems(413, 415, 422, s403="The signature does not fit", s404=MISSING, s409="An order is known with other "
                   "content (`order_conflict`)"),
    },
)  # fmt: skip
@allow(None, action="inbound.receive", body_limit=MIB, media_types=(JSON, _FORM), audited=False)
async def receive_inbound(call: CurrentCall, token: str) -> Response:
    """Take in a webhook of a shop.

    The token is the address, the signature over the raw body the proof: `X-Signature-256: sha256=<hex>`, the headers of
    Standard Webhooks (at most 5 minutes old), `X-Shopify-Hmac-Sha256` or `X-WC-Webhook-Signature`. What the body tells
    of becomes events, each once. A body of a generic source is an event or an array of up to 1000, stored all or none.
    """
    request = call.request
    body = await request.body()
    headers = {name.lower(): request.headers.getlist(name) for name in request.headers}
    arrived = Arrived(headers=headers, body=body)
    if arrived.header("content-type").partition(";")[0].strip().lower() == _FORM:
        if not _GREETING.fullmatch(body.strip()):
            raise Refused(415, f"This operation takes {JSON}")
        await run_sync(_greet, call, token)
        return Response(json_bytes(ShownTaken(accepted=0, duplicates=0)), media_type=JSON)
    source = await run_sync(_admit, call, token, arrived)
    parsed = await request.json()

    def effect(tx: Connection) -> Outcome:
        taken = arriving.take(tx, call.settings, source, arrived, parsed, now=call.now)
        return Outcome(status=202, body=ShownTaken(accepted=taken.accepted, duplicates=taken.duplicates))

    return await call.commit(effect)


def _admit(call: CurrentCall, token: str, arrived: Arrived) -> Source:
    with call.engine.begin() as tx:
        return arriving.admit(tx, call.settings, token, arrived, now=call.now)


def _greet(call: CurrentCall, token: str) -> None:
    with call.engine.begin() as tx:
        arriving.greet(tx, call.settings, token)


def _once(settings: Settings, made: MadeSource) -> MadeSourceBody:
    url = f"{settings.public_base_url.rstrip('/')}{PREFIX}/webhooks/inbound/{made.token}"
    return MadeSourceBody(**_values(made.source), token=made.token, url=url, secret=made.secret)


def _values(source: Source) -> dict[str, Any]:
    return {
        "id": str(source.source_id), "name": source.name, "kind": source.kind, "active": source.active,
        "mapping": dict(source.mapping), "last_received_at": source.last_received_at, "created_at": source.created_at,
    }  # fmt: skip
