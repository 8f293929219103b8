"""Imports run with the rights of the roles that run them: the worker for files, the API for lists and small files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from mautolib.contacts import imports
from mautolib.contacts.imports import filling
from mautolib.contacts.model import NewContact
from mautolib.db.engine import connect
from mautolib.settings import Settings
from tests.live_service import as_role

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


LINES = "email,subscribed,tags,consent_status\na@x.co,,vip,pending\nb@x.co,no,,\nbad,,,\n"


def test_a_small_file_and_a_list_are_taken(role_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(LINES)
    options = imports.ImportOptions.parse({"update_policy": "merge"})
    with role_engine.begin() as tx:
        assert tx.scalar(text("select current_user")) in ("mauto_worker", "mauto_api")
        done = imports.take_file(tx, path, options, filename="c.csv", format="csv", sha256="", actor="a", now=NOW,
                                 settings=settings).request  # fmt: skip
        assert (done.status, done.error, done.created, done.rejected) == ("completed", None, 2, 1)
        assert imports.import_items(tx, [NewContact(email="c@x.co")], actor="a", now=NOW).created == 1


@pytest.mark.parametrize("role_engine", ["mauto_worker"], indirect=True)
def test_a_worker_takes_a_file(role_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(LINES)
    with role_engine.begin() as tx:
        import_id = imports.request_file(tx, path, {"update_policy": "merge"}, actor="a", now=NOW)
    done = imports.run(role_engine, settings, import_id, now=NOW)
    assert (done.status, done.error, done.created, done.rejected) == ("completed", None, 2, 1)


def test_another_login_goes_on_where_one_was_killed(
    fresh_engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker keeps belongs to its role, not to its login; the eraser may clean it."""
    path = tmp_path / "c.csv"
    path.write_text("email\n" + "".join(f"c{n}@x.co\n" for n in range(6000)))
    with fresh_engine.begin() as tx:
        import_id = imports.request_file(tx, path, {}, actor="a", now=NOW)
    monkeypatch.setattr(filling, "CHUNK_ROWS", 2000)

    def die(rows: int) -> None:
        if rows > 3000:
            raise KeyboardInterrupt

    for stops in (die, None):
        with as_role(fresh_engine, "mauto_worker") as url:
            engine = connect(url)
            if stops:
                with pytest.raises(KeyboardInterrupt):
                    imports.run(engine, settings, import_id, now=NOW, progress=stops)
                with fresh_engine.begin() as tx:
                    [(name, owner, may)] = tx.execute(text(
                        "select relname, pg_get_userbyid(relowner), has_table_privilege('mauto_eraser', oid, 'update') "
                        "from pg_class where relname ~ '^import_[0-9]+_[0-9]+$'")).all()  # fmt: skip
                    assert (owner, may) == ("mauto_worker", True)
                    assert tx.scalar(text(f"select count(*) from staging.{name}")) == 2100
                    tx.execute(text("update imports set lease_until = clock_timestamp() - interval '1 second'"))
            else:
                assert imports.run(engine, settings, import_id, now=NOW).created == 6000
            engine.dispose()
    with fresh_engine.begin() as tx:
        assert tx.scalar(text("select count(*) from pg_class where relname ~ '^import_[0-9]'")) == 0
