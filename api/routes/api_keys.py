"""API keys: list, create, revoke. For administrators with a session; no API key gets here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Response
from pydantic import ConfigDict, Field, StringConstraints
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Model, Moment, Name100, Shown, path_id
from mautolib.auth import api_keys, scopes
from mautolib.auth.api_keys import ApiKey
from mautolib.auth.roles import Role

router = Router("API keys")
MISSING = "API key not found"
_Scope = Annotated[str, StringConstraints(max_length=100)]


class ShownKey(Answer):
    """An API key. The key itself is shown once, when it is made; `prefix` is how it begins."""

    model_config = ConfigDict(title="ApiKey")

    id: Id
    name: str
    prefix: str = Field(examples=["mauto_Zk3v9Q"])
    role: Role
    scopes: list[str]
    expires_at: Shown | None
    last_used_at: Shown | None = Field(description="Kept to the minute.")
    revoked_at: Shown | None
    created_by: str = Field(examples=["user:1"])
    created_at: Shown


class MadeKey(ShownKey):
    """A new API key with its text, which cannot be shown again."""

    model_config = ConfigDict(title="ApiKeyCreated")

    key: str = Field(description="Send as `X-API-Key`, or as `Authorization: Bearer`.")


class NewKeyBody(Model):
    """A new API key."""

    model_config = ConfigDict(
        title="ApiKeyCreate",
        json_schema_extra={
            "example": {"name": "shop", "role": "editor", "scopes": ["events:write", "contacts:*"], "expires_at": None}
        },
    )

    name: Name100
    role: Annotated[Role, Field(strict=False)] = Role.VIEWER
    scopes: list[_Scope] = Field(
        default=[scopes.EVERYTHING], min_length=1, max_length=scopes.MOST_SCOPES,
        description="`<first path segment>:<read|write|admin>`, `<segment>:*`, `*:read` or `*`.",
    )  # fmt: skip
    expires_at: Moment | None = None


def shown(key: ApiKey) -> ShownKey:
    """An API key as listed."""
    return ShownKey(**_values(key))


@router.get("/api-keys/", response_model=list[ShownKey], responses=listed(problems(401, 403, 422)))
@allow(Role.ADMIN)
def list_api_keys(call: CurrentCall, page: paging.SkipLimit) -> Response:
    """List API keys.

    Newest first, with those that expired or were revoked.
    """
    after = paging.position(page)
    with call.engine.begin() as tx:
        rows = api_keys.search(tx, skip=page.skip, limit=page.limit + 1, after=after)
        total = api_keys.count(tx, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].created_at.isoformat(), kept[-1].api_key_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post("/api-keys/", status_code=201, response_model=MadeKey, responses=problems(401, 403, 422))
@allow(Role.ADMIN, action="api_key.create")
async def create_api_key(call: CurrentCall, body: NewKeyBody) -> Response:
    """Create an API key.

    `key` is shown in this answer only. A call needs role and scope: `<segment>:read` for what a viewer may do, `:write`
    for an editor, `:admin` for an admin; one does not include the other. A key works while the user who made it is
    active, and with no higher role than that user has.
    """
    new = api_keys.NewKey(
        name=body.name, role=body.role, scopes=scopes.check(body.scopes), expires_at=body.expires_at
    )

    def effect(tx: Connection) -> Outcome:
        made, text = api_keys.create(
            tx, new, creator_id=call.signed_in.user.user_id, created_by=str(call.actor), now=call.now
        )
        log = {"role": str(made.role), "scopes": list(made.scopes)}
        answer = MadeKey(**_values(made), key=text)
        return Outcome(status=201, body=answer, resource_id=made.api_key_id, changes=log, is_secret=True)

    return await call.commit(effect)


@router.delete(
    "/api-keys/{id}", status_code=204, response_class=Response, responses=problems(401, 403, s404=MISSING)
)
@allow(Role.ADMIN, action="api_key.revoke")
async def revoke_api_key(call: CurrentCall, id: str) -> Response:
    """Revoke an API key.

    At once and for good; it stays listed. A second time: 404.
    """
    api_key_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        api_keys.revoke(tx, api_key_id, now=call.now)
        return Outcome(status=204, resource_id=api_key_id)

    return await call.commit(effect)


def _values(key: ApiKey) -> dict[str, Any]:
    return {
        "id": str(key.api_key_id), "name": key.name, "prefix": key.prefix, "role": key.role,
        "scopes": list(key.scopes), "expires_at": key.expires_at, "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at, "created_by": key.created_by, "created_at": key.created_at,
    }  # fmt: skip
