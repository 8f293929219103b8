"""Sessions: signing in, staying signed in, signing out, and asking who a token stands for.

A session is a family of refresh tokens, each used once; the access tokens handed out beside them end with the
family. User and revocation are looked up on every call, so logout, disabling, role and password changes act at once.
Called by the API and the pages. `sign_in` and `refresh` own their transactions: hashing a password must not hold a
connection.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mautolib.auth import attempts, audit, passwords, tokens, users
from mautolib.auth.roles import Role
from mautolib.auth.users import User
from mautolib.db import tables
from mautolib.errors import InvalidInput, MautoError, NotAllowed, NotAuthenticated, RateLimited
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_REFRESH, _REVOKED = tables.refresh_tokens, tables.revoked_tokens
#: Sign-ins under way in this process; bounds memory and what parallel guesses can gain.
_SLOTS = threading.BoundedSemaphore(passwords.CONCURRENT_HASHES)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a call came from: the caller's address (as connected, not as claimed) and the id of the request."""

    address: str = ""
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a successful sign-in or refresh hands out; `jti` names the access token."""

    user: User
    jti: UUID
    access_token: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int


@dataclass(frozen=True, kw_only=True)
class SignedIn:
    """Who a valid token stands for, as the database knows the user now."""

    user: User
    jti: UUID
    expires_at: datetime

    @property
    def role(self) -> Role:
        """What the user may do."""
        return self.user.role

    @property
    def actor(self) -> audit.Actor:
        """The user as the audit log names them."""
        return actor_of(self.user)


def actor_of(user: User) -> audit.Actor:
    """A user as the audit log names them."""
    return audit.Actor(type=audit.ActorType.USER, id=user.user_id, label=user.email)


def sign_in(
    engine: Engine, settings: Settings, *, email: str, password: str, origin: Origin, now: datetime
) -> Session:
    """Check an address and a password and open a session; every attempt is audited.

    Raises:
        RateLimited: too many failures of this account from this network, or from this network.
        NotAuthenticated: `Invalid email or password`; takes as long for an unknown user as for a wrong password.
        NotAllowed: `Account is disabled`, told only after a right password.
    """
    attempt = attempts.attempt_of(settings, user_key=users.user_key(email), address=origin.address)
    with _SLOTS:
        try:
            with engine.begin() as tx:
                attempts.check(tx, attempt, now=now)
                found = users.find_for_sign_in(tx, email)
            user, stored = _right_user(found, password)
            new_hash = passwords.hash_password(password) if passwords.needs_rehash(stored) else None
            with engine.begin() as tx:
                user = _still_right(tx, user, stored, password)
                session = _open(tx, settings, user, family=uuid4(), now=now)
                users.signed_in(tx, user.user_id, now=now, new_hash=new_hash)
                audit.write(tx, _entry(audit_actor=actor_of(user), action="auth.login", status=200, origin=origin))
        except MautoError as error:
            _refused(engine, error, email, attempt, origin, now)
            raise
    _LOG.info("sign_in: user %s", user.user_id)
    return session


def refresh(engine: Engine, settings: Settings, *, token: str, origin: Origin, now: datetime) -> Session:
    """Trade a refresh token for a new pair; a token used a second time ends its whole family.

    Raises:
        NotAuthenticated: unknown, expired, revoked or used before, or the user is not active.
    """
    digest = _digest(token)
    with engine.begin() as tx:
        owner = tx.scalar(select(_REFRESH.c.user_id).where(_REFRESH.c.token_hash == digest))
        # The user is locked before the token, as by everybody who ends sessions: none can be opened meanwhile.
        found = users.get(tx, owner, for_update=True) if owner is not None else None
        row = tx.execute(select(_REFRESH).where(_REFRESH.c.token_hash == digest).with_for_update()).one_or_none()
        actor = actor_of(found[0]) if found else audit.PUBLIC
        usable = row is not None and row.revoked_at is None and row.expires_at > now
        if row is not None and row.used_at is not None:
            end_families(tx, user_id=row.user_id, now=now, only=row.family)
            usable = False
        if row is None or found is None or not usable or not found[0].is_active:
            audit.write(tx, _entry(audit_actor=actor, action="auth.refresh", status=401, origin=origin))
            session = None
        else:
            tx.execute(update(_REFRESH).where(_REFRESH.c.token_hash == digest).values(used_at=now))
            session = _open(tx, settings, found[0], family=row.family, now=now)
            audit.write(tx, _entry(audit_actor=actor, action="auth.refresh", status=200, origin=origin))
    if session is None:
        raise NotAuthenticated("Invalid or expired token", code="invalid_token")
    return session


def resolve(tx: Connection, settings: Settings, kind: tokens.Kind, token: str, *, now: datetime) -> SignedIn:
    """Who the token stands for, now.

    Raises:
        NotAuthenticated: bad or ended token, or `User not found or inactive`.
    """
    longest = access_life(settings) if kind is tokens.Kind.ACCESS else PAGE_LIFE
    claims = tokens.read(settings, kind, token, now=now, longest=longest)
    found = users.get(tx, claims.user_id)
    if found is None or not found[0].is_active:
        raise NotAuthenticated("User not found or inactive", code="invalid_token")
    user = found[0]
    ended = claims.issued_at < user.sessions_valid_from or claims.role is not user.role
    if ended or tx.scalar(select(_REVOKED.c.jti).where(_REVOKED.c.jti == claims.jti)) is not None:
        raise NotAuthenticated("Invalid or expired token", code="invalid_token")
    return SignedIn(user=user, jti=claims.jti, expires_at=claims.expires_at)


def sign_out(tx: Connection, who: SignedIn, *, all_sessions: bool, now: datetime) -> None:
    """End the session of the token in hand, or all sessions of its user."""
    users.get(tx, who.user.user_id, for_update=True)
    family = tx.scalar(select(_REFRESH.c.family).where(_REFRESH.c.access_jti == who.jti))
    _revoke(tx, [(who.jti, who.expires_at)])
    if all_sessions:
        end_families(tx, user_id=who.user.user_id, now=now)
    elif family is not None:
        end_families(tx, user_id=who.user.user_id, now=now, only=family)


def change_password(
    engine: Engine, settings: Settings, who: SignedIn, *, current: str, new: str, origin: Origin, now: datetime
) -> str:
    """Check the present password and return the hash of the new one, to be stored with `replace_password`.

    Raises:
        InvalidInput: the new password is too short or too long.
        RateLimited: as `sign_in`; a stolen token must not be a way to guess.
        NotAllowed: `wrong_password`.
    """
    passwords.check_new(new, path=("body", "new_password"))
    attempt = attempts.attempt_of(settings, user_key=users.user_key(who.user.email), address=origin.address)
    with _SLOTS:
        with engine.begin() as tx:
            attempts.check(tx, attempt, now=now)
            found = users.get(tx, who.user.user_id)
        if found is None or not passwords.verify(found[1], current):
            with engine.begin() as tx:
                attempts.failed(tx, attempt, now=now)
            raise NotAllowed("The current password is wrong", code="wrong_password")
    if current == new:
        raise InvalidInput("The new password is the old one", path=("body", "new_password"))
    return passwords.hash_password(new)


def replace_password(tx: Connection, who: SignedIn, *, new_hash: str, now: datetime) -> None:
    """Store a new password and end the user's other sessions; the one in hand goes on.

    Raises:
        NotAuthenticated: the session ended while the passwords were checked.
    """
    found = users.get(tx, who.user.user_id, for_update=True)
    is_over = found is None or found[0].sessions_valid_from != who.user.sessions_valid_from
    if is_over or tx.scalar(select(_REVOKED.c.jti).where(_REVOKED.c.jti == who.jti)) is not None:
        raise NotAuthenticated("Invalid or expired token", code="invalid_token")
    users.store_hash(tx, who.user.user_id, new_hash, now=now)
    family = tx.scalar(select(_REFRESH.c.family).where(_REFRESH.c.access_jti == who.jti))
    end_families(tx, user_id=who.user.user_id, now=now, but=family)


def end_all(tx: Connection, user_id: int, *, now: datetime) -> None:
    """End every session of a user: tokens handed out until now are dead."""
    tx.execute(update(tables.users).where(tables.users.c.user_id == user_id).values(sessions_valid_from=now))
    end_families(tx, user_id=user_id, now=now)


def end_families(
    tx: Connection, *, user_id: int, now: datetime, only: UUID | None = None, but: UUID | None = None
) -> int:
    """End refresh families of a user (all, one, or all but one) with their access tokens; returns tokens ended."""
    # Who signs in or refreshes holds this lock too, so no session opens unseen while the others end.
    users.get(tx, user_id, for_update=True)
    chosen = (_REFRESH.c.user_id == user_id) & (_REFRESH.c.expires_at > now)
    if only is not None:
        chosen &= _REFRESH.c.family == only
    if but is not None:
        chosen &= _REFRESH.c.family != but
    rows = tx.execute(select(_REFRESH.c.access_jti, _REFRESH.c.expires_at).where(chosen)).all()
    tx.execute(update(_REFRESH).where(chosen, _REFRESH.c.revoked_at.is_(None)).values(revoked_at=now))
    _revoke(tx, [(row.access_jti, row.expires_at) for row in rows])
    return len(rows)


#: How long the cookie of the pages lives.
PAGE_LIFE = timedelta(hours=12)


def access_life(settings: Settings) -> timedelta:
    """How long an access token lives."""
    return timedelta(minutes=settings.access_token_ttl_minutes)


def page_token(settings: Settings, session: Session, *, now: datetime) -> str:
    """The cookie of the pages for a session; it ends with the session."""
    return tokens.sign(
        settings, tokens.Kind.PAGE, user_id=session.user.user_id, role=session.user.role, jti=session.jti,
        now=now, life=PAGE_LIFE,
    )  # fmt: skip


def _right_user(found: tuple[User, str] | None, password: str) -> tuple[User, str]:
    right = passwords.verify(found[1] if found else None, password)
    if found is None or not right:
        raise NotAuthenticated("Invalid email or password", code="invalid_credentials")
    if not found[0].is_active:
        raise NotAllowed("Account is disabled", code="account_disabled")
    return found


def _still_right(tx: Connection, user: User, stored: str, password: str) -> User:
    """The user as of now, locked: checking took its time, and the password may have been changed meanwhile."""
    found = users.get(tx, user.user_id, for_update=True)
    if found is not None and found[1] == stored and found[0].is_active:
        return found[0]
    return _right_user(found, password)[0]


def _refused(
    engine: Engine, error: MautoError, email: str, attempt: attempts.Attempt, origin: Origin, now: datetime
) -> None:
    status = 429 if isinstance(error, RateLimited) else 401 if isinstance(error, NotAuthenticated) else 403
    if status not in (401, 403, 429):
        return
    with engine.begin() as tx:
        if status == 401:
            attempts.failed(tx, attempt, now=now)
        found = users.find_for_sign_in(tx, email)
        # The typed address is kept only where it is a user's: people type passwords into the wrong field.
        actor = actor_of(found[0]) if found else audit.PUBLIC
        audit.write(tx, _entry(audit_actor=actor, action="auth.login", status=status, origin=origin))


def _open(tx: Connection, settings: Settings, user: User, *, family: UUID, now: datetime) -> Session:
    refresh_token, jti = secrets.token_urlsafe(32), uuid4()
    refresh_life = timedelta(days=settings.refresh_token_ttl_days)
    tx.execute(
        insert(_REFRESH).values(
            token_hash=_digest(refresh_token), family=family, user_id=user.user_id, access_jti=jti, issued_at=now,
            expires_at=now + refresh_life,
        )
    )  # fmt: skip
    life = access_life(settings)
    access_token = tokens.sign(
        settings, tokens.Kind.ACCESS, user_id=user.user_id, role=user.role, jti=jti, now=now, life=life
    )
    return Session(
        user=user, jti=jti, access_token=access_token, expires_in=int(life.total_seconds()),
        refresh_token=refresh_token, refresh_expires_in=int(refresh_life.total_seconds()),
    )  # fmt: skip


def _revoke(tx: Connection, ended: list[tuple[UUID, datetime]]) -> None:
    if ended:
        rows = [{"jti": jti, "expires_at": expires_at} for jti, expires_at in ended]
        tx.execute(upsert(_REVOKED).on_conflict_do_nothing(), rows)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _entry(*, audit_actor: audit.Actor, action: str, status: int, origin: Origin) -> audit.Entry:
    return audit.Entry(
        actor=audit_actor, action=action, resource_type="auth", status=status, request_id=origin.request_id
    )
