"""Signed tokens: the access token of the API and the cookie of the pages.

One algorithm (HS256), one key ring per purpose, all claims required; whatever is odd about a token makes it
invalid, never an error of another kind. Called by sessions. Whether a token was revoked, and what its user may
still do, is asked of the database by `sessions`, not here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import jwt

from mautolib.auth.roles import Role
from mautolib.errors import NotAuthenticated
from mautolib.settings import Settings

ISSUER = "mauto"
_REQUIRED = ["sub", "iat", "exp", "jti", "role", "is_superuser", "typ", "aud", "iss"]
#: A clock of another machine may be this far ahead.
_SKEW_SECONDS = 60


class Kind(StrEnum):
    """What a token is for; the value is its `typ`, its audience and the purpose of its key."""

    ACCESS = "access"
    PAGE = "page"


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a valid token says."""

    user_id: int
    role: Role
    jti: UUID
    issued_at: datetime
    expires_at: datetime


def sign(settings: Settings, kind: Kind, *, user_id: int, role: Role, jti: UUID, now: datetime, life: timedelta) -> str:
    """Make a token. `iat` keeps its fraction, so that "issued before" can be told within one second."""
    claims = {
        "sub": str(user_id), "iat": now.timestamp(), "exp": math.ceil((now + life).timestamp()), "jti": str(jti),
        "role": str(role), "is_superuser": role is Role.ADMIN, "typ": str(kind), "aud": _audience(kind), "iss": ISSUER,
    }  # fmt: skip
    return jwt.encode(claims, settings.keys(_purpose(kind))[0], algorithm="HS256")


def read(settings: Settings, kind: Kind, token: str, *, now: datetime, longest: timedelta) -> Claims:
    """Check a token's signature (any key of the ring), claims and times.

    Args:
        longest: the longest life a token of this kind may have; one that claims more was not made by us.
    Raises:
        NotAuthenticated: `Invalid or expired token`, or `Invalid token payload`.
    """
    payload = _verified(settings, kind, token)
    try:
        claims = _claims(payload, kind)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise NotAuthenticated("Invalid token payload", code="invalid_token") from None
    too_long = claims.expires_at - claims.issued_at > longest + timedelta(seconds=_SKEW_SECONDS)
    early = claims.issued_at > now + timedelta(seconds=_SKEW_SECONDS)
    if too_long or early or claims.expires_at <= now:
        raise _invalid()
    return claims


def _verified(settings: Settings, kind: Kind, token: str) -> dict[str, Any]:
    try:
        # `kid`, `jku`, `x5u`, `jwk`, `crit`, `b64`: nothing in a header may steer how it is checked.
        if not set(jwt.get_unverified_header(token)) <= {"alg", "typ"}:
            raise _invalid()
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise _invalid() from None
    for key in settings.keys(_purpose(kind)):
        try:
            return jwt.decode(
                token, key, algorithms=["HS256"], audience=_audience(kind), issuer=ISSUER,
                # Times are compared with the caller's `now`, strictly typed, in `read`.
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )  # fmt: skip
        except jwt.InvalidSignatureError:
            continue
        except jwt.MissingRequiredClaimError:
            raise NotAuthenticated("Invalid token payload", code="invalid_token") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise _invalid() from None
    raise _invalid()


def _claims(payload: dict[str, Any], kind: Kind) -> Claims:
    if payload["typ"] != kind or "nbf" in payload or not str(payload["sub"]).isdecimal():
        raise ValueError
    role = Role(payload["role"])
    if payload["is_superuser"] is not (role is Role.ADMIN):
        raise ValueError
    return Claims(
        user_id=int(payload["sub"]), role=role, jti=UUID(payload["jti"]),
        issued_at=_moment(payload["iat"]), expires_at=_moment(payload["exp"]),
    )  # fmt: skip


def _moment(value: object) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return datetime.fromtimestamp(value, UTC)


def _audience(kind: Kind) -> str:
    return "mauto-api" if kind is Kind.ACCESS else "mauto-pages"


def _purpose(kind: Kind) -> str:
    return "access-token" if kind is Kind.ACCESS else "page-session"


def _invalid() -> NotAuthenticated:
    return NotAuthenticated("Invalid or expired token", code="invalid_token")
