"""Tokens: what is accepted, and that everything else is one kind of error."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from mautolib.auth import tokens
from mautolib.auth.roles import Role
from mautolib.errors import NotAuthenticated
from mautolib.settings import Settings

NOW = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
DAY = timedelta(days=1)
SETTINGS = Settings(
    secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e"
)
JTI = UUID("11111111-2222-3333-4444-555555555555")


def token(**changes: Any) -> str:
    """A token signed with the right key, with some claims changed (None: left out)."""
    claims: dict[str, Any] = {
        "sub": "7", "iat": NOW.timestamp(), "exp": int((NOW + DAY).timestamp()), "jti": str(JTI), "role": "editor",
        "is_superuser": False, "typ": "access", "aud": "mauto-api", "iss": "mauto", **changes,
    }  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, SETTINGS.keys("access-token")[0], algorithm="HS256")


def read(given: str, settings: Settings = SETTINGS, now: datetime = NOW) -> tokens.Claims:
    return tokens.read(settings, tokens.Kind.ACCESS, given, now=now, longest=DAY)


def test_what_was_signed_is_read_back_to_the_microsecond() -> None:
    made = tokens.sign(SETTINGS, tokens.Kind.ACCESS, user_id=7, role=Role.EDITOR, jti=JTI, now=NOW, life=DAY)
    assert read(made) == tokens.Claims(
        user_id=7, role=Role.EDITOR, jti=JTI, issued_at=NOW,
        expires_at=datetime(2026, 5, 2, 12, 0, 1, tzinfo=UTC),
    )  # fmt: skip


def test_a_token_ends_when_it_says() -> None:
    assert read(token(), now=NOW + DAY - timedelta(seconds=1)).user_id == 7
    with pytest.raises(NotAuthenticated, match="Invalid or expired token"):
        read(token(), now=NOW + DAY)


@pytest.mark.parametrize("claim", ["sub", "iat", "exp", "jti", "role", "is_superuser", "typ", "aud", "iss"])
def test_every_claim_is_required(claim: str) -> None:
    with pytest.raises(NotAuthenticated):
        read(token(**{claim: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 10**30}, {"exp": float("inf")}, {"exp": float("nan")}, {"exp": "1800000000"}, {"exp": -1},
        {"exp": True}, {"exp": []}, {"exp": (NOW + timedelta(days=400)).timestamp()},
        {"iat": "now"}, {"iat": -1e30}, {"iat": (NOW + timedelta(seconds=61)).timestamp()},
        {"nbf": 1}, {"nbf": (NOW + DAY).timestamp()},
        {"sub": 7}, {"sub": ""}, {"sub": "seven"}, {"sub": "-7"}, {"sub": "9" * 5000}, {"jti": "x"}, {"jti": 5},
        {"role": "root"}, {"is_superuser": True}, {"is_superuser": 0}, {"typ": "refresh"}, {"typ": "unsubscribe"},
        {"aud": "mauto-pages"}, {"iss": "somebody"},
    ],
)  # fmt: skip
def test_an_odd_claim_makes_the_token_invalid(changes: dict[str, Any]) -> None:
    with pytest.raises(NotAuthenticated):
        read(token(**changes))


def test_a_token_of_another_purpose_is_none_of_this() -> None:
    page = tokens.sign(SETTINGS, tokens.Kind.PAGE, user_id=7, role=Role.ADMIN, jti=uuid4(), now=NOW, life=DAY)
    with pytest.raises(NotAuthenticated):
        read(page)


def test_the_ring_verifies_with_every_key_and_signs_with_the_first() -> None:
    new = "b7e151628aed2a6abf7158809cf4f3c7"
    ring = dataclasses.replace(SETTINGS, secret_keys=(new, *SETTINGS.secret_keys))
    assert read(token(), ring).user_id == 7
    only_new = dataclasses.replace(SETTINGS, secret_keys=(new,))
    made = tokens.sign(ring, tokens.Kind.ACCESS, user_id=8, role=Role.VIEWER, jti=JTI, now=NOW, life=DAY)
    assert read(made, only_new).user_id == 8
    with pytest.raises(NotAuthenticated):
        read(token(), only_new)


@pytest.mark.parametrize(
    "given", ["", ".", "..", "a.b.c", "é.é.é", "\0", "x" * 100_000, "eyJ.eyJ.", "A" * 10 + "." * 3]
)
def test_rubbish_is_an_invalid_token(given: str) -> None:
    with pytest.raises(NotAuthenticated, match="Invalid or expired token"):
        read(given)
