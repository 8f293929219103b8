"""Users: who may sign in, with which role.

Guards one user per address (whatever its case, width or surrounding spaces). Called by sessions, the API and the
launcher (first administrator). Sessions and tokens are in `sessions`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects.postgresql import insert as upsert

from mautolib.auth import passwords
from mautolib.auth.roles import Role
from mautolib.contacts.address import address_key
from mautolib.db import tables
from mautolib.errors import Conflict, InvalidInput, Misconfigured
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_TABLE = tables.users


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody who may sign in (while active)."""

    user_id: int
    email: str
    name: str
    role: Role
    is_active: bool
    sessions_valid_from: datetime
    last_login_at: datetime | None
    created_at: datetime
    updated_at: datetime | None

    @property
    def key(self) -> str:
        """What users are compared and listed by."""
        return user_key(self.email)


@dataclass(frozen=True, kw_only=True)
class NewUser:
    """What is needed to make a user."""

    email: str
    password: str
    name: str = ""
    role: Role = Role.VIEWER


def user_key(email: str) -> str:
    """What decides whether two spellings name one user: the same key as for contacts. Any text has one."""
    return address_key(email)


def create(tx: Connection, new: NewUser, *, now: datetime, password_hash: str | None = None) -> User:
    """Make a user.

    Args:
        password_hash: of `new.password`, by `passwords.hash_new`, where it was made before the transaction.
    Raises:
        InvalidInput: no address, or a password of unacceptable length.
        Conflict: the address has a user.
    """
    passwords.check_new(new.password)
    email = new.email.strip()
    if not 3 <= len(email) <= 320 or "@" not in email[1:-1]:
        raise InvalidInput("A user has an e-mail address of at most 320 characters", path=("body", "email"))
    statement = upsert(_TABLE).values(
        email=email, email_key=user_key(email), name=new.name.strip(), role=str(new.role),
        password_hash=password_hash or passwords.hash_password(new.password), sessions_valid_from=now, created_at=now,
    )  # fmt: skip
    row = tx.execute(statement.on_conflict_do_nothing().returning(_TABLE)).one_or_none()
    if row is None:
        raise Conflict("User with this email already exists", code="duplicate")
    return user_of(row)


def ensure_admin(tx: Connection, settings: Settings, now: datetime) -> User | None:
    """Make the first administrator from ADMIN_EMAIL and ADMIN_PASSWORD, if there is no user yet.

    Returns: the user made now; `None` when there was somebody already.
    Raises:
        Misconfigured: there is nobody and the settings name nobody, or the password is too short.
    """
    if tx.scalar(select(_TABLE.c.user_id).limit(1)) is not None:
        return None
    if not settings.admin_email or not settings.admin_password:
        raise Misconfigured("there is no user yet: set MAUTO_ADMIN_EMAIL and MAUTO_ADMIN_PASSWORD for the first one")
    new = NewUser(email=settings.admin_email, password=settings.admin_password, name="Admin", role=Role.ADMIN)
    try:
        user = create(tx, new, now=now)
    except InvalidInput as error:
        name = "MAUTO_ADMIN_EMAIL" if "address" in str(error) else "MAUTO_ADMIN_PASSWORD"
        raise Misconfigured(f"{name}: {error}") from None
    except Conflict:
        return None  # another process was a moment faster
    _LOG.info("ensure_admin: user %s made", user.user_id)
    return user


def find_for_sign_in(tx: Connection, email: str) -> tuple[User, str] | None:
    """The user of an address and the stored hash of the password."""
    query = select(_TABLE).where(_TABLE.c.email_key == user_key(email))
    row = tx.execute(query).one_or_none()
    return None if row is None else (user_of(row), str(row.password_hash))


def get(tx: Connection, user_id: int, *, for_update: bool = False) -> tuple[User, str] | None:
    """A user and the stored hash of the password, or None; `for_update` keeps others from changing the user."""
    query = select(_TABLE).where(_TABLE.c.user_id == user_id)
    row = tx.execute(query.with_for_update(key_share=True) if for_update else query).one_or_none()
    return None if row is None else (user_of(row), str(row.password_hash))


def signed_in(tx: Connection, user_id: int, *, now: datetime, new_hash: str | None = None) -> None:
    """Note a successful sign-in, and a hash made with today's parameters where the old one was weaker."""
    values: dict[str, object] = {"last_login_at": now}
    if new_hash is not None:
        values["password_hash"] = new_hash
    tx.execute(_TABLE.update().where(_TABLE.c.user_id == user_id).values(values))


def store_hash(tx: Connection, user_id: int, new_hash: str, *, now: datetime) -> None:
    """Replace the stored hash of a user's password; ending sessions is the caller's part."""
    values = {"password_hash": new_hash, "updated_at": now}
    tx.execute(_TABLE.update().where(_TABLE.c.user_id == user_id).values(values))


def user_of(row: Row[Any]) -> User:
    """A row of the table as a user."""
    return User(
        user_id=row.user_id, email=row.email, name=row.name, role=Role(row.role), is_active=row.is_active,
        sessions_valid_from=row.sessions_valid_from, last_login_at=row.last_login_at, created_at=row.created_at,
        updated_at=row.updated_at,
    )  # fmt: skip
