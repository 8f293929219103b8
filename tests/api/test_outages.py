"""The database goes away in the middle of a call: 503, and asking again with the same key has one effect.

`make chaos-ops` (tests/chaos/operations.py) does it to a server under load; here each moment is hit on purpose.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg2
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from api.app import create_app
from mautolib.auth import idempotency
from mautolib.db.engine import connect, is_unavailable
from tests.live_service import ADMIN, PASSWORD, live_settings, make_users
from tests.tracked import serving

CONTACTS = "/api/v1/contacts/"


class Faults:
    """Breaks the next transaction with a statement like that, `times` often, before or after its COMMIT."""

    def __init__(self, engine: Engine) -> None:
        self.armed: list[tuple[str, bool]] = []
        self._met: set[int] = set()
        event.listen(engine, "before_cursor_execute", self._look)
        event.listen(engine, "commit", self._commit)

    def arm(self, statement: str, *, is_committed: bool, times: int = 1) -> None:
        """Break what matches, one after the other in the order armed."""
        self.armed += [(statement, is_committed)] * times

    def _look(self, connection: Connection, _: Any, statement: str, *rest: Any) -> None:
        if self.armed and re.search(self.armed[0][0], statement):
            self._met.add(id(connection))

    def _commit(self, connection: Connection) -> None:
        if id(connection) in self._met:
            self._met.discard(id(connection))
            _, is_committed = self.armed.pop(0)
            raw = connection.connection.dbapi_connection
            assert raw is not None
            if is_committed:
                raw.commit()
            raw.close()
            gone = psycopg2.OperationalError("server closed the connection unexpectedly")
            raise OperationalError(None, None, gone, connection_invalidated=True)


@pytest.fixture(scope="module")
def broken(
    cluster: Any, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, Faults]]:
    """A client of a server of its own, and what breaks its database."""
    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    make_users(engine)
    settings = live_settings(cluster.url(name), tmp_path_factory.mktemp("home"))
    with serving(create_app(settings, engine=engine)) as url, httpx.Client(
        base_url=url, timeout=20, trust_env=False, verify=False
    ) as client:
        token = client.post("/api/v1/auth/login", json={"email": ADMIN, "password": PASSWORD}).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client, Faults(engine)
    engine.dispose()
    cluster.drop(name)


def asked_again(client: httpx.Client, before: Callable[[], None]) -> httpx.Response:
    """The answer to the second of two calls with one key; the first is refused with 503."""
    body, headers = {"email": f"{uuid4().hex}@shop.example"}, {"Idempotency-Key": uuid4().hex}
    before()
    first = client.post(CONTACTS, json=body, headers=headers)
    assert (first.status_code, first.json()["code"]) == (503, "unavailable"), first.text
    assert int(first.headers["Retry-After"]) > 0
    began = time.monotonic()
    again = client.post(CONTACTS, json=body, headers=headers)
    assert again.status_code == 201, again.text
    assert time.monotonic() - began < 5
    made = client.get("/api/v1/audit-log/", params={"action": "contact.create", "resource_id": again.json()["id"]})
    assert [client.get(CONTACTS, params={"q": body["email"]}).headers["X-Total-Count"], len(made.json())] == ["1", 1]
    return again


def test_a_commit_that_was_not_heard_of_is_answered_from_the_key(broken: tuple[httpx.Client, Faults]) -> None:
    client, faults = broken
    again = asked_again(client, lambda: faults.arm("UPDATE idempotency_keys", is_committed=True))
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_claim_that_was_not_heard_of_is_given_back(broken: tuple[httpx.Client, Faults], is_committed: bool) -> None:
    client, faults = broken
    again = asked_again(client, lambda: faults.arm("INSERT INTO idempotency_keys", is_committed=is_committed))
    assert "Idempotency-Replayed" not in again.headers


def test_a_claim_is_given_back_once_the_database_is_there_again(broken: tuple[httpx.Client, Faults]) -> None:
    client, faults = broken

    def break_everything() -> None:
        faults.arm("UPDATE idempotency_keys", is_committed=False)
        faults.arm("DELETE FROM idempotency_keys .*completed_at IS NULL", is_committed=False, times=3)

    asked_again(client, break_everything)
    assert faults.armed == []


def test_what_the_driver_says_itself_counts_too() -> None:
    assert is_unavailable(psycopg2.OperationalError("server closed the connection unexpectedly"))
    assert not is_unavailable(psycopg2.ProgrammingError("no"))
    assert idempotency.ABANDONED.total_seconds() == 60
