"""No hit is lost and none counts twice: with the database away, frozen, deaf, or back under another process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from api.tracking import GIF, TrackingApp
from mautolib.events.hits import Hit, to_json
from mautolib.events.spool import spool_folder
from mautolib.settings import Settings
from tests.builders import make_contact
from tests.tracked import BROWSER, Gate, count, links_of, not_here, path_of, rows, serving, tracked, until

TARGET = "https://shop.example/sale"


@pytest.fixture
def gate(fresh_database_url: str) -> Iterator[Gate]:
    gate = Gate(fresh_database_url)
    yield gate
    gate.close()


@pytest.fixture
def contact_id(fresh_engine: Engine) -> int:
    with fresh_engine.begin() as tx:
        return make_contact(tx)


def _spooled(settings: Settings) -> int:
    return sum(len(path.read_text().splitlines()) for path in spool_folder(settings).glob("*.ndjson"))


def test_hits_outlive_a_database_that_is_away_from_the_start(
    gate: Gate, settings: Settings, fresh_engine: Engine, contact_id: int
) -> None:
    links = links_of(settings, contact_id)
    gate.shut()
    with tracked(gate.through(settings)) as client:
        assert client.get(path_of(links.open())).content == GIF
        assert client.get(path_of(links.click(TARGET))).headers["location"] == TARGET
        assert (_spooled(settings), count(fresh_engine, "hits")) == (2, 0)
        gate.reopen()
        until(lambda: count(fresh_engine, "hits") == 2)
        until(lambda: _spooled(settings) == 0)
        assert client.get(path_of(links.open())).content == GIF
    assert rows(fresh_engine, "select kind, count(*) from hits group by kind order by kind") == [
        ("click", 1), ("open", 2)]  # fmt: skip
    assert count(fresh_engine, "events", "event_type = 'email_opened'") == 2
    assert rows(fresh_engine, "select sum(event_count) from event_pending") == [(3,)]


def test_a_connection_that_died_while_idle_costs_nothing(
    gate: Gate, settings: Settings, fresh_engine: Engine, contact_id: int
) -> None:
    path = path_of(links_of(settings, contact_id).open())
    with tracked(gate.through(settings)) as client:
        client.get(path)
        gate.reopen()
        client.get(path)
        assert (count(fresh_engine, "hits"), _spooled(settings)) == (2, 0)


def test_a_frozen_database_does_not_hold_the_reader(
    gate: Gate, settings: Settings, fresh_engine: Engine, contact_id: int
) -> None:
    path = path_of(links_of(settings, contact_id).open())
    with tracked(gate.through(settings)) as client:
        client.get(path)
        gate.freeze()
        began = time.monotonic()
        assert client.get(path).content == GIF
        assert time.monotonic() - began < 8
        began = time.monotonic()
        assert client.get(path).content == GIF
        assert time.monotonic() - began < 5
        gate.reopen()
        until(lambda: count(fresh_engine, "hits") == 3)
        until(lambda: _spooled(settings) == 0)
    assert count(fresh_engine, "hits") == 3


def test_a_batch_whose_commit_was_not_heard_of_is_not_counted_twice(
    gate: Gate, settings: Settings, fresh_engine: Engine, contact_id: int
) -> None:
    path = path_of(links_of(settings, contact_id).open())
    with tracked(gate.through(settings)) as client:
        client.get(path)
        gate.deafen()
        assert client.get(path).content == GIF
        assert (count(fresh_engine, "hits"), _spooled(settings)) == (2, 1)
        gate.reopen()
        until(lambda: _spooled(settings) == 0)
    assert (count(fresh_engine, "hits"), count(fresh_engine, "events")) == (2, 2)


def test_an_unsubscribe_request_outlives_the_database(
    gate: Gate, settings: Settings, fresh_engine: Engine, contact_id: int
) -> None:
    path = path_of(links_of(settings, contact_id, message_id=9).unsubscribe())
    gate.shut()
    with tracked(gate.through(settings)) as client:
        answer = client.post(path, data={"List-Unsubscribe": "One-Click"})
        assert (answer.status_code, "You have been unsubscribed" in answer.text) == (200, True)
        gate.reopen()
        until(lambda: rows(fresh_engine, "select subscribed from contacts") == [(False,)])
        until(lambda: _spooled(settings) == 0)
    assert count(fresh_engine, "suppressions", "reason = 'unsubscribe'") == 1
    assert count(fresh_engine, "events", "event_type = 'unsubscribed' and message_id = 9") == 1


def test_an_unsubscribe_request_outlives_a_frozen_database(
    gate: Gate, settings: Settings, fresh_engine: Engine, contact_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.unsubscribe._PATIENCE_SECONDS", 0.5)
    path = path_of(links_of(settings, contact_id).unsubscribe())
    with tracked(gate.through(settings)) as client:
        gate.freeze()
        began = time.monotonic()
        assert "You have been unsubscribed" in client.post(path, data={"List-Unsubscribe": "One-Click"}).text
        assert time.monotonic() - began < 8
        gate.reopen()
        until(lambda: rows(fresh_engine, "select subscribed from contacts") == [(False,)])
        until(lambda: _spooled(settings) == 0)
    assert count(fresh_engine, "events", "event_type = 'unsubscribed'") == 1


def test_the_next_process_takes_over_what_a_dead_one_left(
    gate: Gate, settings: Settings, fresh_engine: Engine, contact_id: int
) -> None:
    links = links_of(settings, contact_id)
    gate.shut()
    with tracked(gate.through(settings)) as client:
        for _ in range(3):
            client.get(path_of(links.open()))
    [left] = spool_folder(settings).glob("*.ndjson")
    kept = left.read_text()
    # A crash half-way through a write: that reader was never answered.
    left.write_text(kept + kept.splitlines()[0][:50])
    # And one after replaying, before the file was removed.
    (left.parent / "1-1.ndjson").write_text(kept)
    gate.reopen()
    with tracked(gate.through(settings)):
        until(lambda: not list(spool_folder(settings).glob("*.ndjson")))
    assert (count(fresh_engine, "hits"), count(fresh_engine, "events")) == (3, 3)


def test_a_record_nobody_can_apply_is_set_aside(settings: Settings, fresh_engine: Engine, contact_id: int) -> None:
    folder = spool_folder(settings)
    folder.mkdir(parents=True)
    wrong_types = '{"key": "k2", "rule": 2, "hits": [[1, "open", "human", "1},{2", null, 2, null, null, "", ""]]}'
    no_text = '{"key": "k3", "rule": 2, "hits": [[1, "open", "human", 1, null, 2, null, null, 5, ""]]}'
    (folder / "1-1.ndjson").write_text(
        f'{{"key": "k", "hits": [["never", 1]]}}\n{wrong_types}\n{no_text}\n{{"what": "is this"}}\n'
    )
    with tracked(settings) as client:
        client.get(path_of(links_of(settings, contact_id).open()))
        until(lambda: not (folder / "1-1.ndjson").exists())
    assert len((folder / "failed.ndjson").read_text().splitlines()) == 4
    assert count(fresh_engine, "hits") == 1


def test_a_batch_is_stored_to_the_letter(settings: Settings, fresh_engine: Engine, contact_id: int) -> None:
    """Texts that mean something to PostgreSQL, and nothing where there is nothing."""
    odd = ["", "NULL", "null", " a b ", '"', "\\", '\\"', "a,b", "{a}", "{", "None", "ü 漢 \U0001f600", "\t\x01\n"]
    at = int(time.time()) * 1_000_000 + 123_457
    kept = [Hit(at + n, "open", "human", contact_id, None, 7, None, None, one, one) for n, one in enumerate(odd)]
    kept += [Hit(at - n, "click", "bot", 0, 3, n, n, f"https://x.example/{one}", is_head=True, purpose=one)
             for n, one in enumerate(odd, start=1)]  # fmt: skip
    folder = spool_folder(settings)
    folder.mkdir(parents=True)
    (folder / "1-1.ndjson").write_text(json.dumps({"key": "k", "rule": 2, "hits": to_json(kept)}) + "\n")
    with tracked(settings):
        until(lambda: count(fresh_engine, "hits") == len(kept))
    stored = rows(fresh_engine, "select occurred_at, kind, verdict, contact_id, campaign_id, message_id, "
                  "link_position, url, user_agent, network, is_head, purpose from hits "
                  "join hit_verdicts using (hit_id)")  # fmt: skip
    moments = {hit: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=hit.at_microseconds) for hit in kept}
    assert sorted(map(repr, stored)) == sorted(repr((moments[hit], *hit[1:])) for hit in kept)


def test_the_trackers_role_is_enough_and_may_not_read(
    settings: Settings, fresh_engine: Engine, fresh_database_url: str, contact_id: int
) -> None:
    tracker_url = fresh_database_url + "?options=-c%20role%3Dmauto_tracker"
    with tracked(dataclasses.replace(settings, tracker_database_url=tracker_url)) as client:
        client.get(path_of(links_of(settings, contact_id).click(TARGET)))
    assert _spooled(settings) == 0
    assert rows(fresh_engine, "select contact_id from hits join events using (contact_id)") == [(contact_id,)]
    with fresh_engine.connect() as connection:
        connection.execute(text("set role mauto_tracker"))
        ids = "select contact_id from existing_contacts(array[0, :id])"
        assert connection.scalars(text(ids), {"id": contact_id}).all() == [contact_id]
        for forbidden in ("select 1 from contacts", "select 1 from hits", "delete from hits", "delete from events"):
            with pytest.raises(ProgrammingError, match="permission denied"), connection.begin_nested():
                connection.execute(text(forbidden))


def test_a_failing_spool_still_redirects_and_counts_the_loss(
    gate: Gate, settings: Settings, fresh_engine: Engine, contact_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    links = links_of(settings, contact_id)
    folder = spool_folder(settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("not a folder: nothing can be kept here")
    gate.shut()
    app = TrackingApp(not_here, gate.through(settings))
    with serving(app) as url, httpx.Client(base_url=url, timeout=20, trust_env=False, verify=False) as client:
        browser = {"User-Agent": BROWSER}
        assert client.get(path_of(links.open()), headers=browser).content == GIF
        assert client.get(path_of(links.click(TARGET)), headers=browser).headers["location"] == TARGET
        assert (app.writer.dropped, app.writer.spooled) == (2, 0)
        assert "hits lost" in caplog.text
        # A word of the person's is not dropped: who asks is told to come again (a mail provider does).
        for path, form in ((links.unsubscribe(), {"List-Unsubscribe": "One-Click"}),
                           (links.preferences(), {"action": "unsubscribe"})):  # fmt: skip
            refused = client.post(path_of(path), data=form)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
        told = client.post(path_of(links.unsubscribe()), headers={"Accept": "application/json"})
        assert (told.status_code, told.json()["code"]) == (503, "unavailable")
        gate.reopen()
        folder.unlink()
        until(lambda: client.post(path_of(links.unsubscribe())).status_code == 200)
        assert client.get(path_of(links.open()), headers=browser).content == GIF
        until(lambda: count(fresh_engine, "hits", "kind = 'open'") == 1)
    assert count(fresh_engine, "suppressions") == 1


def test_what_was_answered_is_on_disk(
    gate: Gate, settings: Settings, contact_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database away: the record is synced before the reader has an answer, and its folder once."""
    synced: list[str] = []
    real = os.fsync

    def fsync(number: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{number}"))
        real(number)

    monkeypatch.setattr("mautolib.events.spool.os.fsync", fsync)
    path = path_of(links_of(settings, contact_id).open())
    gate.shut()
    with tracked(gate.through(settings)) as client:
        for number in range(1, 4):
            client.get(path)
            files = [name for name in synced if name.endswith(".ndjson")]
            assert (len(files), _spooled(settings)) == (number, number)
    assert str(spool_folder(settings)) in synced, "the name of the file, too, survives a crash"


def test_an_answered_hit_survives_the_immediate_death_of_the_process(
    settings: Settings, fresh_engine: Engine, contact_id: int
) -> None:
    """Killed right after an answer, by a process that writes to the database: every answer is a row."""
    script = (
        "import sys, uvicorn; from api.tracking import TrackingApp; from tests.tracked import not_here; "
        "from mautolib.settings import Settings; from pathlib import Path; "
        "app = TrackingApp(not_here, Settings(**eval(sys.stdin.read()))); "
        "uvicorn.run(app, host='127.0.0.1', port=int(sys.argv[1]), log_level='error', access_log=False)"
    )
    given = {name: getattr(settings, name) for name in (
        "database_url", "home", "environment", "secret_keys", "suppression_pepper", "public_base_url")}  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    links = links_of(settings, contact_id)
    with subprocess.Popen([sys.executable, "-c", script, str(port)], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(repr(given).replace("PosixPath", "Path").encode())
        process.stdin.close()
        answered = 0
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, headers={"User-Agent": BROWSER}) as one:
            until(lambda: _is_up(port))
            for _ in range(20):
                assert one.get(path_of(links.click(TARGET))).headers["location"] == TARGET
                answered += 1
            process.kill()
    assert count(fresh_engine, "hits") == answered


def _is_up(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
