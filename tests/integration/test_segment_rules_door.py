"""The read-only door that previews and counts go through."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from mautolib.db.engine import connect
from mautolib.errors import InvalidInput
from mautolib.segments.reading import ROLE, reading
from tests.live_service import as_role


def test_the_door_reads_as_its_role_for_two_seconds_and_only_reads(engine: Engine) -> None:
    with as_role(engine, "mauto_api") as url:
        own = connect(url)
        with reading(own) as tx:
            row = tx.execute(text("select current_user, current_setting('statement_timeout') as patience, "
                                  "current_setting('transaction_read_only') as is_read_only, "
                                  "current_setting('transaction_isolation') as isolation")).one()  # fmt: skip
        with own.connect() as after:
            role = after.scalar(text("select current_user"))
        own.dispose()
    assert tuple(row) == (ROLE, "2s", "on", "repeatable read")
    assert role not in (ROLE, None)  # the role ends with the transaction, also on a pooled connection


def test_a_statement_that_takes_too_long_is_the_callers_to_shorten(engine: Engine) -> None:
    too_slow = pytest.raises(InvalidInput, match=r"longer than 0\.1 seconds.*within_days")
    with too_slow as refused, reading(engine, timeout_ms=100, path=("query", "contact_id")) as tx:
        tx.execute(text("select pg_sleep(5)"))
    assert refused.value.path == ("query", "contact_id")


def test_other_errors_of_the_database_pass_unchanged(engine: Engine) -> None:
    with pytest.raises(DBAPIError, match="division by zero"), reading(engine) as tx:
        tx.execute(text("select 1 / 0"))


@pytest.mark.parametrize("sql", [
    "insert into tags (name) values ('x')", "update contacts set first_name = ''", "delete from events",
    "create table mine (x int)", "create temp table mine (x int)", "select nextval('event_ids')",
])  # fmt: skip
def test_nothing_can_be_written_through_the_door(engine: Engine, sql: str) -> None:
    with pytest.raises(DBAPIError, match=r"read-only transaction|permission denied"), reading(engine) as tx:
        tx.execute(text(sql))


def test_without_the_role_the_door_still_only_reads(cluster: object, engine: Engine) -> None:
    """Single-role mode: whoever may not become the role keeps its own rights."""
    with as_role(engine, "mauto_analyst") as url:
        own = connect(url)
        with reading(own) as tx:
            row = tx.execute(text("select current_user = session_user, "
                                  "current_setting('transaction_read_only')")).one()  # fmt: skip
        own.dispose()
    assert tuple(row) == (True, "on")
