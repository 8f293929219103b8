"""Signing in and out, and who one is."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import anyio
from anyio.to_thread import run_sync
from fastapi import Body, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from sqlalchemy import Connection

from api.calls import JSON, Outcome, json_bytes
from api.routing import CurrentCall, Router, allow, problems
from api.strict_json import parse
from api.values import Answer, Line320, Model, Shown
from mautolib.auth import passwords, sessions
from mautolib.auth.api_keys import KeyHolder
from mautolib.auth.roles import Role

router = Router("Sign-in")
FORM = "application/x-www-form-urlencoded"
#: Hashing has threads of its own: a storm of sign-ins must not hold up everything else.
HASHING = anyio.CapacityLimiter(passwords.CONCURRENT_HASHES)

#: The form is for *Authorize* alone and stands in words: client generators stumble over two kinds of bodies.
_LOGIN_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Login"}}}}
}


class Login(Model):
    """E-mail address and password."""

    email: Line320 = Field(examples=["admin@shop.example"])
    password: str = Field(min_length=1, max_length=1024, json_schema_extra={"format": "password"})


class TokenPair(Answer):
    """An access token, and the refresh token that gets the next pair (once)."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a scheme
    expires_in: int = Field(description="Seconds.", examples=[86400])
    refresh_token: str
    refresh_expires_in: int = Field(description="Seconds.", examples=[2592000])


class Refresh(Model):
    """The refresh token of the last answer."""

    refresh_token: str = Field(min_length=1, max_length=1024)


class Logout(Model):
    """What to end."""

    all_sessions: bool = False


class PasswordChange(Model):
    """Old and new password."""

    current_password: str = Field(min_length=1, max_length=1024)
    new_password: str = Field(min_length=1, max_length=1024)


class Me(Answer):
    """The caller: a user, or an API key with its id, name and scopes and an empty address."""

    id: str
    email: str
    is_superuser: bool
    name: str
    role: Role
    scopes: list[str] | None = Field(description="Of an API key; null for a user.")
    auth: Literal["jwt", "api_key"]
    last_login_at: Shown | None


@router.post(
    "/auth/login", response_model=TokenPair, openapi_extra=_LOGIN_BODY,
    responses=problems(422, 429, s401="Invalid email or password", s403="Account is disabled"),
)  # fmt: skip
@allow(None, action="auth.login", media_types=(JSON, FORM))
async def login(call: CurrentCall, request: Request) -> Response:
    """Sign in with e-mail and password.

    Takes JSON, or the form of the OAuth2 password flow (`username` is the e-mail address), which *Authorize* on this
    page uses. After 10 failures of one account from one address, or 100 from one address, within 15 minutes: 429.
    """
    credentials = await _credentials(request)

    def sign_in() -> sessions.Session:
        return sessions.sign_in(
            call.engine, call.settings, email=credentials.email, password=credentials.password, origin=call.origin,
            now=call.now,
        )  # fmt: skip

    call.audited = True  # `sign_in` writes its own entry, whatever comes of it
    return _pair(await run_sync(sign_in, limiter=HASHING))


@router.post("/auth/refresh", response_model=TokenPair, responses=problems(422, s401="Invalid or expired token"))
@allow(None, action="auth.refresh")
def refresh(call: CurrentCall, body: Refresh) -> Response:
    """Trade a refresh token for a new pair.

    A token used a second time was stolen by somebody: it ends its whole session.
    """
    call.audited = True  # `refresh` writes its own entry, whatever comes of it
    session = sessions.refresh(
        call.engine, call.settings, token=body.refresh_token, origin=call.origin, now=call.now
    )
    return _pair(session)


@router.post(
    "/auth/logout", status_code=204, response_class=Response,
    responses=problems(401, 422, s409="An API key has no session"),
)  # fmt: skip
@allow(Role.VIEWER, action="auth.logout")
async def logout(call: CurrentCall, body: Annotated[Logout | None, Body()] = None) -> Response:
    """Sign out.

    The session's access tokens and refresh tokens are dead at once; with `all_sessions` those of every session.
    An API key has no session to end (409): revoke it with `DELETE /api-keys/{id}`.
    """
    all_sessions = body.all_sessions if body else False

    def effect(tx: Connection) -> Outcome:
        sessions.sign_out(tx, call.signed_in, all_sessions=all_sessions, now=call.now)
        return Outcome(status=204, changes={"all_sessions": all_sessions})

    return await call.commit(effect)


@router.get("/auth/me", response_model=Me, responses=problems(401))
@allow(Role.VIEWER)
async def me(call: CurrentCall) -> Me:
    """Show who the token or key stands for.

    `role` is what it may do now: a key has the role of the user who made it where that is lower than its own.
    """
    caller, is_admin = call.caller, call.role is Role.ADMIN
    if isinstance(caller, KeyHolder):
        key = caller.key
        return Me(
            id=str(key.api_key_id), email="", is_superuser=is_admin, name=key.name, role=call.role,
            scopes=list(key.scopes), auth="api_key", last_login_at=None,
        )  # fmt: skip
    user = caller.user
    return Me(
        id=str(user.user_id), email=user.email, is_superuser=is_admin, name=user.name, role=call.role, scopes=None,
        auth="jwt", last_login_at=user.last_login_at,
    )  # fmt: skip


@router.post(
    "/auth/password", status_code=204, response_class=Response,
    responses=problems(401, 422, 429, s403="The current password is wrong"),
)  # fmt: skip
@allow(Role.VIEWER, action="auth.password")
async def change_password(call: CurrentCall, body: PasswordChange) -> Response:
    """Change one's own password.

    A password has 10 to 128 characters. One's other sessions end; the one in hand goes on.
    """

    def check() -> str:
        return sessions.change_password(
            call.engine, call.settings, call.signed_in, current=body.current_password, new=body.new_password,
            origin=call.origin, now=call.now,
        )  # fmt: skip

    new_hash = await run_sync(check, limiter=HASHING)

    def effect(tx: Connection) -> Outcome:
        sessions.replace_password(tx, call.signed_in, new_hash=new_hash, now=call.now)
        return Outcome(status=204, resource_id=call.signed_in.user.user_id)

    return await call.commit(effect)


async def _credentials(request: Request) -> Login:
    """JSON or form, checked alike."""
    body = await request.body()
    if request.headers.get("content-type", "").split(";")[0].strip().lower() == FORM:
        pairs = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        given: Any = {"email": pairs.get("username"), "password": pairs.get("password")}
        given = {name: value for name, value in given.items() if value is not None}
    else:
        given = parse(body)
    try:
        return Login.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in found]) from None


def _pair(session: sessions.Session) -> Response:
    pair = TokenPair(
        access_token=session.access_token, expires_in=session.expires_in, refresh_token=session.refresh_token,
        refresh_expires_in=session.refresh_expires_in,
    )  # fmt: skip
    return Response(json_bytes(pair), media_type=JSON)
