"""Users: list, create, show, change, delete. For administrators with a session; no API key gets here."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Depends, Query, Response
from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routes.auth import HASHING
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Line100, Line320, Model, Shown, path_id
from mautolib.auth import accounts, passwords, users
from mautolib.auth.roles import Role
from mautolib.auth.users import User
from mautolib.contacts import address
from mautolib.errors import InvalidInput

router = Router("Users")
MISSING = "User not found"
_RoleName = Annotated[Role, Field(strict=False)]
_Password = Annotated[
    str,
    Field(
        min_length=passwords.MINIMUM_CHARACTERS, max_length=passwords.MAXIMUM_CHARACTERS,
        json_schema_extra={"format": "password"},
    ),
]  # fmt: skip


class ShownUser(Answer):
    """Somebody who may sign in while active. `is_superuser` says the role is admin."""

    model_config = ConfigDict(title="User")

    id: Id
    email: str
    name: str
    role: Role
    is_superuser: bool
    is_active: bool
    last_login_at: Shown | None
    created_at: Shown
    updated_at: Shown


class NewUserBody(Model):
    """A new user."""

    model_config = ConfigDict(
        title="UserCreate",
        json_schema_extra={
            "example": {
                "email": "kim@shop.example", "password": "correct horse battery", "name": "Kim", "role": "editor"
            }
        },
    )  # fmt: skip

    email: Line320
    password: _Password
    name: Line100 = ""
    role: _RoleName = Role.VIEWER


class UserPatch(Model):
    """The fields to change; others stay."""

    model_config = ConfigDict(title="UserPatch", json_schema_extra={"example": {"role": "editor"}})

    name: Line100 = ""
    role: _RoleName = Role.VIEWER
    is_active: bool = True
    password: _Password = ""


def shown(user: User) -> ShownUser:
    """A user as the API shows one."""
    return ShownUser(
        id=str(user.user_id), email=user.email, name=user.name, role=user.role, is_superuser=user.role is Role.ADMIN,
        is_active=user.is_active, last_login_at=user.last_login_at, created_at=user.created_at,
        updated_at=user.updated_at or user.created_at,
    )  # fmt: skip


def _filters(
    role: Annotated[Role | None, Query(description="Exactly this role.")] = None,
    is_active: Annotated[bool | None, Query(description="Only those who may (not) sign in.")] = None,
    q: Annotated[str | None, Query(max_length=320, description="Part of e-mail or name.")] = None,
) -> accounts.UserFilter:
    return accounts.UserFilter(role=role, is_active=is_active, q=q)


@router.get("/users/", response_model=list[ShownUser], responses=listed(problems(401, 403, 422)))
@allow(Role.ADMIN)
def list_users(
    call: CurrentCall, page: paging.SkipLimit, filters: Annotated[accounts.UserFilter, Depends(_filters)]
) -> Response:
    """List users.

    By e-mail address. Filters combine with AND.
    """
    after = paging.position_text(page)
    with call.engine.begin() as tx:
        rows = accounts.search(tx, filters, skip=page.skip, limit=page.limit + 1, after=after)
        total = accounts.count(tx, filters, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].key, kept[-1].user_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post(
    "/users/", status_code=201, response_model=ShownUser,
    responses=problems(401, 403, 422, s409="User with this email already exists"),
)  # fmt: skip
@allow(Role.ADMIN, action="user.create")
async def create_user(call: CurrentCall, body: NewUserBody) -> Response:
    """Create a user.

    A password has 10 to 128 characters. Addresses that differ in case only are one user.
    """
    email = _address(body.email)
    password_hash = await run_sync(passwords.hash_new, body.password, limiter=HASHING)
    new = users.NewUser(email=email, password=body.password, name=body.name, role=body.role)

    def effect(tx: Connection) -> Outcome:
        made = users.create(tx, new, now=call.now, password_hash=password_hash)
        log = {"role": str(made.role)}
        return Outcome(status=201, body=shown(made), resource_id=made.user_id, changes=log)

    return await call.commit(effect)


@router.get("/users/{id}", response_model=ShownUser, responses=problems(401, 403, s404=MISSING))
@allow(Role.ADMIN)
def get_user(call: CurrentCall, id: str) -> ShownUser:
    """Show a user."""
    with call.engine.begin() as tx:
        return shown(accounts.get(tx, path_id(id, MISSING)))


@router.patch(
    "/users/{id}", response_model=ShownUser,
    responses=problems(401, 422, s403="Nobody changes their own role", s404=MISSING,
                       s409="This is the last active administrator"),
)  # fmt: skip
@allow(Role.ADMIN, action="user.update")
async def update_user(call: CurrentCall, id: str, body: UserPatch) -> Response:
    """Change a user.

    Only the fields sent. Another role, a new password and `is_active: false` end the user's sessions at once; the API
    keys a disabled user made are refused until the user is active again.
    """
    user_id = path_id(id, MISSING)
    given = body.model_dump(exclude_unset=True)
    password = given.pop("password", None)
    password_hash = None
    if password is not None:
        password_hash = await run_sync(passwords.hash_new, password, limiter=HASHING)
    if "name" in given:
        given["name"] = given["name"].strip()
    wanted = accounts.UserChange(**given, password_hash=password_hash)
    log = {"fields": sorted(body.model_fields_set), **{k: v for k, v in given.items() if k in ("role", "is_active")}}

    def effect(tx: Connection) -> Outcome:
        changed = accounts.change(tx, user_id, wanted, by=call.signed_in.user.user_id, now=call.now)
        return Outcome(body=shown(changed), resource_id=user_id, changes=log)

    return await call.commit(effect)


@router.delete(
    "/users/{id}", status_code=204, response_class=Response,
    responses=problems(401, 403, s404=MISSING, s409="This is the last active administrator"),
)  # fmt: skip
@allow(Role.ADMIN, action="user.delete")
async def delete_user(call: CurrentCall, id: str) -> Response:
    """Delete a user.

    The user's sessions end, and the API keys the user made are revoked for good. What the audit log says stays.
    """
    user_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        accounts.delete(tx, user_id, now=call.now)
        return Outcome(status=204, resource_id=user_id)

    return await call.commit(effect)


def _address(given: str) -> str:
    try:
        return address.parse(given).email
    except InvalidInput as error:
        raise InvalidInput(str(error), path=("body", "email")) from None
