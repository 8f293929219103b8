"""Imports run with the rights of the roles that run them: the worker for files, the API for lists and small files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from mautolib.contacts import imports
from mautolib.contacts.model import NewContact
from mautolib.db.engine import connect
from mautolib.settings import Settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["mauto_worker", "mauto_api"])
def role_engine(fresh_database_url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = connect(fresh_database_url)

    @event.listens_for(engine, "connect")
    def become(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"set role {request.param}")
        connection.commit()

    yield engine
    engine.dispose()


def test_a_file_and_a_list_are_taken(role_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("email,subscribed,tags,consent_status\na@x.co,,vip,pending\nb@x.co,no,,\nbad,,,\n")
    with role_engine.begin() as tx:
        assert tx.scalar(text("select current_user")) in ("mauto_worker", "mauto_api")
        import_id = imports.request_file(tx, path, {"update_policy": "merge"}, actor="a", now=NOW)
    done = imports.run(role_engine, settings, import_id, now=NOW)
    assert (done.status, done.error, done.created, done.rejected) == ("completed", None, 2, 1)
    with role_engine.begin() as tx:
        assert imports.import_items(tx, [NewContact(email="c@x.co")], actor="a", now=NOW).created == 1
