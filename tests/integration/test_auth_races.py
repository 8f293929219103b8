"""Sessions that would open while others end: whoever changes a password must be the last to have known the old one."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.auth import accounts, passwords, sessions, tokens, users
from mautolib.auth.accounts import UserChange
from mautolib.auth.sessions import Origin, Session
from mautolib.errors import MautoError, NotAuthenticated
from mautolib.settings import Settings

NOW = datetime(2026, 5, 1, 9, 0, tzinfo=UTC)
EMAIL, OLD, NEW = "kim@shop.example", "the old password", "the new password"
NEW_HASH = passwords.hash_password(NEW)


@pytest.fixture
def user_id(fresh_engine: Engine) -> int:
    with fresh_engine.begin() as tx:
        return users.create(tx, users.NewUser(email=EMAIL, password=OLD), now=NOW).user_id


def _reset(tx: Connection, user_id: int) -> None:
    change = UserChange(password_hash=NEW_HASH)
    accounts.change(tx, user_id, change, by=0, now=NOW + timedelta(seconds=2))


def _disable(tx: Connection, user_id: int) -> None:
    accounts.change(tx, user_id, UserChange(is_active=False), by=0, now=NOW + timedelta(seconds=2))


def _meanwhile(engine: Engine, first: Callable[[Connection], object], second: Callable[[], Session]) -> str | Session:
    """`second` while the transaction of `first` is open; what came of it once that has committed."""

    def attempt() -> str | Session:
        try:
            return second()
        except MautoError as error:
            return str(error)

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as tx:
            first(tx)
            waiting = pool.submit(attempt)
            _wait(engine, 1)
        return waiting.result(20)


def _is_dead(engine: Engine, settings: Settings, session: Session) -> bool:
    with engine.begin() as tx:
        try:
            sessions.resolve(tx, settings, tokens.Kind.ACCESS, session.access_token, now=NOW + timedelta(seconds=5))
        except NotAuthenticated:
            return True
    return False


@pytest.mark.parametrize(
    ("change", "answer"), [(_reset, "Invalid email or password"), (_disable, "Account is disabled")]
)
def test_a_sign_in_checked_before_a_change_opens_nothing_after_it(
    fresh_engine: Engine, settings: Settings, user_id: int, change: Callable[[Connection, int], None], answer: str
) -> None:
    def sign_in() -> Session:
        return sessions.sign_in(
            fresh_engine, settings, email=EMAIL, password=OLD, origin=Origin(), now=NOW + timedelta(seconds=3)
        )

    assert _meanwhile(fresh_engine, lambda tx: change(tx, user_id), sign_in) == answer
    with fresh_engine.begin() as tx:
        assert tx.scalar(text("select count(*) from refresh_tokens")) == 0
        statuses = tx.scalars(text("select status from audit_log order by audit_id")).all()
    assert statuses == [401 if change is _reset else 403]


@pytest.mark.parametrize("change", [_reset, _disable])
def test_a_refresh_under_way_renews_nothing_that_ended(
    fresh_engine: Engine, settings: Settings, user_id: int, change: Callable[[Connection, int], None]
) -> None:
    mine = sessions.sign_in(fresh_engine, settings, email=EMAIL, password=OLD, origin=Origin(), now=NOW)

    def refresh() -> Session:
        return sessions.refresh(
            fresh_engine, settings, token=mine.refresh_token, origin=Origin(), now=NOW + timedelta(seconds=3)
        )

    assert _meanwhile(fresh_engine, lambda tx: change(tx, user_id), refresh) == "Invalid or expired token"
    assert _is_dead(fresh_engine, settings, mine)


def test_ending_all_sessions_ends_one_that_is_just_being_renewed(
    fresh_engine: Engine, settings: Settings, user_id: int
) -> None:
    mine = sessions.sign_in(fresh_engine, settings, email=EMAIL, password=OLD, origin=Origin(), now=NOW)

    def refresh() -> Session:
        now = NOW + timedelta(seconds=3)
        return sessions.refresh(fresh_engine, settings, token=mine.refresh_token, origin=Origin(), now=now)

    def end() -> None:
        with fresh_engine.begin() as tx:
            _reset(tx, user_id)

    with ThreadPoolExecutor(2) as pool:
        with fresh_engine.begin() as gate:
            # The refresh has made its new token and cannot commit: it writes its audit entry last.
            gate.exec_driver_sql("lock table audit_log in share mode")
            renewing = pool.submit(refresh)
            _wait(fresh_engine, 1)
            ending = pool.submit(end)
            _wait(fresh_engine, 2)
        renewed = renewing.result(20)
        ending.result(20)
    assert _is_dead(fresh_engine, settings, renewed) and _is_dead(fresh_engine, settings, mine)
    with fresh_engine.begin() as tx:
        assert tx.scalar(text("select count(*) from refresh_tokens where revoked_at is null")) == 0


@pytest.mark.parametrize("change", [_reset, _disable])
def test_a_password_checked_before_a_change_is_not_replaced_after_it(
    fresh_engine: Engine, settings: Settings, user_id: int, change: Callable[[Connection, int], None]
) -> None:
    mine = sessions.sign_in(fresh_engine, settings, email=EMAIL, password=OLD, origin=Origin(), now=NOW)
    with fresh_engine.begin() as tx:
        who = sessions.resolve(tx, settings, tokens.Kind.ACCESS, mine.access_token, now=NOW)
    stolen = sessions.change_password(
        fresh_engine, settings, who, current=OLD, new="of a thief!", origin=Origin(), now=NOW
    )
    with fresh_engine.begin() as tx:
        change(tx, user_id)
        _, kept = users.get(tx, user_id) or (None, "")
    with fresh_engine.begin() as tx, pytest.raises(NotAuthenticated):
        sessions.replace_password(tx, who, new_hash=stolen, now=NOW + timedelta(seconds=3))
    with fresh_engine.begin() as tx:
        assert (users.get(tx, user_id) or (None, ""))[1] == kept


def test_of_two_changes_of_a_password_the_first_ends_the_other(
    fresh_engine: Engine, settings: Settings, user_id: int
) -> None:
    who = []
    for _ in range(2):
        mine = sessions.sign_in(fresh_engine, settings, email=EMAIL, password=OLD, origin=Origin(), now=NOW)
        with fresh_engine.begin() as tx:
            who.append(sessions.resolve(tx, settings, tokens.Kind.ACCESS, mine.access_token, now=NOW))
    with fresh_engine.begin() as tx:
        sessions.replace_password(tx, who[0], new_hash=NEW_HASH, now=NOW)
    with fresh_engine.begin() as tx, pytest.raises(NotAuthenticated):
        sessions.replace_password(tx, who[1], new_hash="another", now=NOW)
    with fresh_engine.begin() as tx:
        assert (users.get(tx, user_id) or (None, ""))[1] == NEW_HASH


def _wait(engine: Engine, count: int) -> None:
    """Until so many wait for a lock."""
    query = text("select count(*) from pg_locks where not granted")
    deadline = time.monotonic() + 20
    with engine.connect() as look:
        while look.scalar(query) < count:
            assert time.monotonic() < deadline, "nobody waits"
