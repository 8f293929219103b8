"""Disks that are full: a clear error, nothing lost, nothing told twice, and it goes on when there is room.

A full disk takes the part of a write that fits and refuses the rest; the limit of a file's size does the same for this
process and those it starts. A full disk of the database is its own error 53100.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from click.testing import Result as Ran
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from mautolib.campaigns import finishing, sending
from mautolib.channels.null import Null
from mautolib.cli.app import app
from mautolib.contacts import imports
from mautolib.db.engine import is_unavailable
from mautolib.errors import NoRoom, ProviderUnavailable
from mautolib.ledger import check, installation
from mautolib.ledger.journal import Journal, dead_journals
from mautolib.settings import Settings
from tests.integration.mailing import NOW, launched, rows, run_pump, states
from tests.live_service import as_role, live_settings, make_users, serve


@contextlib.contextmanager
def room(more: int) -> Iterator[None]:
    """No file of this process or its children grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def full_database(engine: Engine, table: str) -> Iterator[None]:
    """The database says that its disk is full whenever something is written to a table."""
    with engine.begin() as tx:
        said = "'could not extend file: No space left on device' using errcode = '53100'"
        tx.execute(text("create function no_room() returns trigger language plpgsql as "
                        f"$$ begin raise exception {said}; end $$"))  # fmt: skip
        tx.execute(text(f"create trigger no_room before insert or update on {table} "
                        "for each row execute function no_room()"))  # fmt: skip
    try:
        yield
    finally:
        with engine.begin() as tx:
            tx.execute(text("drop function no_room() cascade"))


def test_a_torn_line_of_a_journal_says_nothing_and_spoils_no_other(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.attempt(1)
    size = journal.path.stat().st_size
    with room(size + 5), pytest.raises(NoRoom, match="MAUTO_STORAGE"):
        journal.begins(1, 2, 3)
    assert journal.path.stat().st_size == size + 5, "a part of it is there"
    with room(size + 5), pytest.raises(NoRoom):
        journal.begins(1, 2, 3)
    journal.begins(1, 7, 8)
    journal.close(is_settled=False)
    (read,) = dead_journals(tmp_path)
    assert (read.attempts, list(read.outcomes)) == ([1], [(1, 8)])


@pytest.mark.parametrize("space", [60, 400, 700, 1500])
def test_a_sender_whose_journal_is_full_stops_and_tells_what_it_did(
    fresh_engine: Engine, settings: Settings, space: int
) -> None:
    campaign_id = launched(fresh_engine, settings, 30)
    channel = Null()
    with room(space), pytest.raises(NoRoom, match="journal"):
        run_pump(fresh_engine, settings, channel)
    accepted = [mail.recipient for mail in channel.accepted]
    assert len(accepted) < 30
    assert states(fresh_engine, campaign_id).get("sent", 0) == len(accepted), "the database knows each of them"
    fresh_engine.dispose()
    with fresh_engine.begin() as tx:
        tx.execute(text("update messages set lease_until = clock_timestamp() where status = 'sending'"))
    run_pump(fresh_engine, settings, channel, later=timedelta(hours=1))
    accepted = [mail.recipient for mail in channel.accepted]
    assert len(accepted) == len(set(accepted)) == 30
    assert states(fresh_engine, campaign_id) == {"sent": 30}
    assert finishing.finish(fresh_engine, NOW + timedelta(hours=1)) == [campaign_id]
    with fresh_engine.connect() as tx:
        assert check.check(tx) == []


def test_a_sender_of_a_full_database_gives_up_with_everything_in_its_journal(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PATIENCE_SECONDS", 0.2)
    campaign_id = launched(fresh_engine, settings, 12)
    channel = Null()
    with full_database(fresh_engine, "message_attempts"), pytest.raises(ProviderUnavailable, match="journal keeps"):
        run_pump(fresh_engine, settings, channel)
    accepted = len(channel.accepted)
    assert accepted <= 10, "one group"
    run_pump(fresh_engine, settings, channel)
    assert len({mail.recipient for mail in channel.accepted}) == len(channel.accepted) == 12
    assert states(fresh_engine, campaign_id) == {"sent": 12}
    with fresh_engine.connect() as tx:
        assert check.check(tx) == []


def test_the_mark_of_attempts_is_no_reason_to_stop(tmp_path: Path) -> None:
    mark = installation.Mark(tmp_path)
    mark.raise_to("x", 5)
    with room(0):
        mark.raise_to("x", 6)
    assert mark.read("x") == 5
    mark.raise_to("x", 7)
    assert mark.read("x") == 7


def test_an_import_waits_for_room_and_goes_on(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "contacts.csv"
    path.write_text("email\n" + "".join(f"p{number}@shop.example\n" for number in range(500)), encoding="utf-8")
    with fresh_engine.begin() as tx:
        import_id = imports.request_file(tx, str(path), {}, actor="test", now=NOW)
    with full_database(fresh_engine, "contacts"), pytest.raises(ProviderUnavailable, match="goes on") as caught:
        list(imports.run_waiting(fresh_engine, settings, clock=lambda: NOW))
    assert is_unavailable(caught.value.__cause__ or caught.value)
    assert [tuple(row) for row in rows(fresh_engine, "select status, error from imports")] == [("queued", None)]
    (done,) = imports.run_waiting(fresh_engine, settings, clock=lambda: NOW)
    assert (done.import_id, done.status, done.created, done.rejected) == (import_id, "completed", 500, 0)


def test_the_api_says_503_keeps_nothing_and_takes_it_later(fresh_engine: Engine, tmp_path: Path) -> None:
    make_users(fresh_engine)
    with as_role(fresh_engine, "mauto_api") as api_url:
        owner = fresh_engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        settings = live_settings(owner, tmp_path, api_database_url=api_url)
        url, stop = serve(settings)
        try:
            with httpx.Client(base_url=f"{url}/api/v1", timeout=20, trust_env=False) as client:
                login = client.post("/auth/login", json={
                    "email": "editor@shop.example", "password": "correct horse battery staple"})  # fmt: skip
                client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
                body, headers = {"email": "anna@shop.example"}, {"Idempotency-Key": "no-room"}
                with full_database(fresh_engine, "contacts"):
                    refused = client.post("/contacts/", json=body, headers=headers)
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
                assert refused.json()["code"] == "unavailable" and "no room" in refused.json()["detail"]
                assert "device" not in refused.text and str(tmp_path) not in refused.text
                assert client.post("/contacts/", json=body, headers=headers).status_code == 201

                file = {"file": ("c.csv", b"email\n" + b"bo@shop.example\n" * 10_000, "text/csv")}
                with room(50_000):
                    refused = client.post("/contacts/import", files=file)
                assert refused.status_code == 503 and "no room" in refused.json()["detail"]
                assert list((settings.storage_path / "uploads").iterdir()) == []
                assert rows(fresh_engine, "select from imports") == []
                assert client.post("/contacts/import", files=file).status_code == 202
        finally:
            stop()


def test_a_backup_without_room_leaves_nothing_that_looks_like_one(
    fresh_engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("database_url", "suppression_pepper", "home"):
        monkeypatch.setenv(f"MAUTO_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.setenv("MAUTO_SECRET_KEYS", settings.secret_keys[0])
    file = tmp_path / "backups" / "mauto.dump"
    file.parent.mkdir()
    with room(20_000):
        ran: Ran = CliRunner().invoke(app, ["backup", str(file)])
    assert ran.exit_code == 75 and "not done: pg_dump failed: " in ran.output, ran.output
    assert list(file.parent.iterdir()) == []
    assert rows(fresh_engine, "select from audit_log where action = 'warehouse.backup'") == []


def test_only_what_may_pass_is_tried_again() -> None:
    assert NoRoom.is_why(OSError(28, "No space left on device")) and not NoRoom.is_why(OSError(13, "Denied"))
