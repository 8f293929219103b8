"""Administering users: list, change, delete - and never be left without an administrator.

Guards that at least one active administrator remains, whatever is done at the same time, and that a change of role,
password or activity ends the user's sessions at once. Called by the API; making a user and looking one up for
sign-in are in `users`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, or_, select, tuple_
from sqlalchemy import delete as delete_from
from sqlalchemy import update as update_of

from mautolib.auth import api_keys, sessions, users
from mautolib.auth.roles import Role
from mautolib.auth.users import User
from mautolib.db import tables
from mautolib.errors import Conflict, NotAllowed, NotFound

_LOG = logging.getLogger(__name__)
_TABLE, _C = tables.users, tables.users.c


@dataclass(frozen=True, kw_only=True)
class UserFilter:
    """What a list of users may be narrowed to; `q` is part of e-mail or name."""

    role: Role | None = None
    is_active: bool | None = None
    q: str | None = None


@dataclass(frozen=True, kw_only=True)
class UserChange:
    """What to change; None stays. `password_hash` is made by `passwords.hash_new`."""

    name: str | None = None
    role: Role | None = None
    is_active: bool | None = None
    password_hash: str | None = None


def search(
    tx: Connection, filters: UserFilter, *, skip: int = 0, limit: int = 50, after: tuple[str, int] | None = None
) -> list[User]:
    """Users by e-mail; `after` is (`User.key`, id) of the last one of the page before."""
    query = select(_TABLE).where(*_conditions(filters)).order_by(_C.email_key, _C.user_id)
    if after is not None:
        query = query.where(tuple_(_C.email_key, _C.user_id) > after)
    return [users.user_of(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count(tx: Connection, filters: UserFilter, *, at_most: int) -> int:
    """How many users match; counting stops at `at_most`."""
    query = select(_C.user_id).where(*_conditions(filters)).limit(at_most).subquery()
    return int(tx.scalar(select(func.count()).select_from(query)) or 0)


def get(tx: Connection, user_id: int) -> User:
    """The user with this id.

    Raises:
        NotFound: no such user.
    """
    found = users.get(tx, user_id)
    if found is None:
        raise NotFound("User not found")
    return found[0]


def change(tx: Connection, user_id: int, wanted: UserChange, *, by: int, now: datetime) -> User:
    """Change a user; another role, a new password or being disabled ends their sessions.

    Args:
        by: the user who does it.
    Raises:
        NotFound: no such user.
        NotAllowed: one's own role.
        Conflict: `last_admin`.
    """
    user, admins = _locked(tx, user_id)
    role = wanted.role or user.role
    is_active = user.is_active if wanted.is_active is None else wanted.is_active
    if role is not user.role and user_id == by:
        raise NotAllowed("Nobody changes their own role")
    if not (role is Role.ADMIN and is_active):
        _keep_an_admin(user, admins)
    given = {"name": wanted.name, "role": role, "is_active": is_active, "password_hash": wanted.password_hash}
    values = {name: value for name, value in given.items() if value is not None and getattr(user, name, None) != value}
    if not values:
        return user
    tx.execute(update_of(_TABLE).where(_C.user_id == user_id).values({**values, "updated_at": now}))
    if values.keys() & {"role", "password_hash"} or values.get("is_active") is False:
        sessions.end_all(tx, user_id, now=now)
    _LOG.info("user %s changed: %s", user_id, ", ".join(sorted(values)))
    return get(tx, user_id)


def delete(tx: Connection, user_id: int, *, now: datetime) -> None:
    """Delete a user with their sessions; the API keys they made are revoked.

    Raises:
        NotFound: no such user.
        Conflict: `last_admin`.
    """
    user, admins = _locked(tx, user_id)
    _keep_an_admin(user, admins)
    keys = api_keys.revoke_of_user(tx, user_id, now=now)
    tx.execute(delete_from(_TABLE).where(_C.user_id == user_id))
    _LOG.info("user %s deleted, %s keys revoked", user_id, keys)


def _locked(tx: Connection, user_id: int) -> tuple[User, set[int]]:
    """The user and the ids of all active administrators, locked in one order.

    Of two administrators who demote each other the second one waits here, and then sees what the first has done.
    """
    query = select(_C.user_id).where(_C.role == str(Role.ADMIN), _C.is_active).order_by(_C.user_id)
    admins = set(tx.scalars(query.with_for_update(key_share=True)))
    found = users.get(tx, user_id, for_update=True)
    if found is None:
        raise NotFound("User not found")
    return found[0], admins


def _keep_an_admin(user: User, admins: set[int]) -> None:
    if admins == {user.user_id}:
        raise Conflict("This is the last active administrator", code="last_admin")


def _conditions(wanted: UserFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.role is not None:
        found.append(_C.role == str(wanted.role))
    if wanted.is_active is not None:
        found.append(_C.is_active.is_(wanted.is_active))
    if wanted.q:
        found.append(or_(*(column.icontains(wanted.q, autoescape=True) for column in (_C.email, _C.name))))
    return found
