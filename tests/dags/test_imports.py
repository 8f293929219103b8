"""The import DAG as people run it: files from S3, several at once, progress and links in the log, one event each."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib.contacts import imports
from mautolib.contacts.imports import remote, running
from mautolib.errors import InvalidInput, ProviderUnavailable
from mautolib.settings import Settings
from tests import s3_server

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FORM: dict[str, Any] = {
    "import_id": None, "path": None, "mapping": {}, "update_policy": "skip", "preset": "auto", "options": {},
    "dry_run": False,
}  # fmt: skip


@dataclass
class Outlet:
    """What a task told about assets."""

    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def add(self, asset: Any, extra: dict[str, Any]) -> None:
        self.told.append((asset.uri, extra))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3_server.Store]:
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server.working() as store:
        monkeypatch.setenv("MAUTO_S3_ENDPOINT_URL", store.url)
        yield store


@pytest.fixture
def take(run_dag: Any) -> Any:
    """The task's own function, in the environment of a run: `take(run_id, path=...)` -> (sums, what was told)."""

    def taken(run_id: str = "manual__1", **form: Any) -> tuple[dict[str, int], list[tuple[str, dict[str, Any]]]]:
        from mauto_airflow import runs

        outlet = Outlet()
        return runs.take_imports({**FORM, **form}, run_id, outlet), outlet.told

    return taken


def upload(engine: Engine, settings: Settings, lines: str, **options: Any) -> int:
    stored = imports.store_upload(settings, [lines.encode()])
    with engine.begin() as tx:
        return imports.request(tx, filename="a.csv", uri=stored.uri, options=options, actor="user:1", now=NOW)


def statuses(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.begin() as tx:
        return [tuple(row) for row in tx.execute(text("select status, created, created_by from imports order by 1, 2"))]


def asset_events(since: datetime) -> list[dict[str, Any]]:
    """The extras of the events of `mauto/contacts` in Airflow's own database."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        query = session.query(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        found = query.filter(AssetModel.name == "mauto/contacts", AssetEvent.timestamp >= since)
        return [row[0] for row in found.order_by(AssetEvent.id)]


def test_a_form_names_an_object_in_s3(run_dag: Any, bucket: s3_server.Store, fresh_engine: Engine) -> None:
    uri = bucket.put("lists/members.csv", b"Mail,Vorname\nanna@shop.example,Anna\nbroken,Bo\n")
    run = run_dag("contact_import", path=uri, mapping={"Vorname": "first_name"}, options={"subscribed_default": False})
    assert run.state == "success"
    assert [row[:2] for row in statuses(fresh_engine)] == [("completed", 1)]
    with fresh_engine.begin() as tx:
        assert tx.execute(text("select first_name, subscribed from contacts")).one() == ("Anna", False)
        assert tx.scalar(text("select length(content_sha256) from imports")) == 64
        assert tx.scalar(text("select created_by from imports")) == f"airflow:{run.run_id}"


def test_an_object_that_is_not_there_fails_the_run_at_once(
    run_dag: Any, bucket: s3_server.Store, fresh_engine: Engine
) -> None:
    run = run_dag("contact_import", path="s3://lists/nothing.csv")
    (task,) = run.get_task_instances()
    assert (run.state, task.state, task.try_number) == ("failed", "failed", 1)
    assert [row[0] for row in statuses(fresh_engine)] == ["failed"]


def test_each_finished_import_is_an_event_and_an_idle_run_is_none(
    run_dag: Any, fresh_engine: Engine, settings: Settings
) -> None:
    since = datetime.now(UTC)
    first = upload(fresh_engine, settings, "email\na@x.co\nb@x.co\nbad\n")
    second = upload(fresh_engine, settings, "email\na@x.co\nc@x.co\n")
    upload(fresh_engine, settings, "email\nd@x.co\n", dry_run=True)
    upload(fresh_engine, settings, "name\nnobody\n")
    assert run_dag("contact_import").state == "success"
    assert asset_events(since) == [
        {"import_id": str(first), "total_rows": 3, "created": 2, "updated": 0, "skipped": 1, "rejected": 1,
         "suppressed": 0},
        {"import_id": str(second), "total_rows": 2, "created": 1, "updated": 0, "skipped": 1, "rejected": 0,
         "suppressed": 0},
    ]  # fmt: skip
    assert run_dag("contact_import").state == "success"
    assert len(asset_events(since)) == 2, "nothing was imported, nobody is told"


def test_the_log_says_how_far_it_is_and_where_the_rejects_are(
    take: Any, fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.02)
    slow = running.fill

    def slowly(*given: Any, heard: Any, **more: Any) -> Any:
        def waited(rows: int) -> None:
            heard(rows)
            threading.Event().wait(0.1)

        return slow(*given, heard=waited, **more)

    monkeypatch.setattr(running, "fill", slowly)
    import_id = upload(fresh_engine, settings, "email\nbad\n" + "".join(f"p{n}@x.co\n" for n in range(5000)))
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        # What GET /imports/{id} shows meanwhile.
        while not done.wait(0.02):
            with fresh_engine.begin() as tx:
                now = imports.get(tx, import_id)
            if now.status == "running":
                seen.append(now.total_rows or 0)

    watcher = threading.Thread(target=look)
    watcher.start()
    with caplog.at_level(logging.INFO):
        totals, _ = take()
    done.set()
    watcher.join()
    assert totals == {"imports": 1, "created": 5000, "updated": 0, "skipped": 1, "rejected": 1, "suppressed": 0}
    said = [record.getMessage() for record in caplog.records]
    progress = [line for line in said if line.startswith(f"import {import_id} reads: ")]
    assert len(progress) >= 3 and len(set(progress)) >= 2, said
    assert len(set(seen)) >= 2 and max(seen) <= 5001
    link = f"{settings.public_base_url}/api/v1/imports/{import_id}/errors.csv"
    assert f"Rejected rows of import {import_id}: {link}" in said


def test_counters_and_the_log_are_at_most_five_seconds_old() -> None:
    assert running.BEAT_SECONDS <= 5


def test_a_running_import_is_cancelled(
    take: Any, fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.02)
    import_id = upload(fresh_engine, settings, "email\n" + "".join(f"p{n}@x.co\n" for n in range(4000)))
    other = upload(fresh_engine, settings, "email\nlast@x.co\n")
    slow, asked = running.fill, threading.Event()

    def slowly(*given: Any, heard: Any, **more: Any) -> Any:
        def waited(rows: int) -> None:
            if not asked.is_set():
                asked.set()
                with fresh_engine.begin() as tx:
                    assert imports.cancel(tx, import_id, now=NOW).status == "cancelling"
                threading.Event().wait(0.5)
            heard(rows)

        return slow(*given, heard=waited, **more)

    monkeypatch.setattr(running, "fill", slowly)
    totals, told = take()
    assert totals["imports"] == 2
    assert [extra["import_id"] for _, extra in told] == [str(other)]
    assert [row[:2] for row in statuses(fresh_engine)] == [("cancelled", 0), ("completed", 1)]


def test_two_runs_share_what_waits(take: Any, fresh_engine: Engine, settings: Settings) -> None:
    wanted = {
        upload(fresh_engine, settings, "email\n" + "".join(f"p{n}@x{i}.co\n" for n in range(3000))) for i in range(4)
    }
    results: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: results.append(take(f"scheduled__{n}"))) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(totals["created"] for totals, _ in results) == 12_000
    told = [extra["import_id"] for _, events in results for _, extra in events]
    assert sorted(told) == sorted(str(one) for one in wanted)
    assert min(totals["imports"] for totals, _ in results) >= 1, "both had work"


def test_a_run_that_is_tried_again_imports_its_file_once(
    take: Any, fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "_TRIES", 1)
    monkeypatch.setattr(running, "_PAUSE_SECONDS", 0.0)
    with s3_server.scripted() as script:
        monkeypatch.setenv("MAUTO_S3_ENDPOINT_URL", script.url)
        script.errors = [(503, "SlowDown")]
        with pytest.raises(ProviderUnavailable, match="SlowDown") as failure:
            take("manual__7", path="s3://lists/a.csv")
        from mauto_airflow.failures import RETRY_POLICY

        assert RETRY_POLICY.evaluate(failure.value, 1, 3).action.value == "retry"
        assert [row[0] for row in statuses(fresh_engine)] == ["queued"]
        script.errors, script.content = [], b"email\na@x.co\n"
        totals, told = take("manual__7", path="s3://lists/a.csv")
        assert (totals["imports"], totals["created"], len(told)) == (1, 1, 1)
        # Tried again because its end was not heard: told once more, imported no more.
        totals, told = take("manual__7", path="s3://lists/a.csv")
        assert (totals["imports"], len(told)) == (1, 1)
        assert statuses(fresh_engine) == [("completed", 1, "airflow:manual__7")]
        script.errors = [(403, "AccessDenied")]
        with pytest.raises(InvalidInput, match=r"S3 refuses s3://lists/b.csv \(AccessDenied\)"):
            take("manual__8", path="s3://lists/b.csv")
        with pytest.raises(InvalidInput, match="AccessDenied"):
            take("manual__8", path="s3://lists/b.csv")
    assert [row[0] for row in statuses(fresh_engine)] == ["completed", "failed", "failed"]


def test_what_is_done_is_told_although_another_file_cannot_be_fetched(
    take: Any, fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_TRIES", 1)
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MAUTO_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    with fresh_engine.begin() as tx:
        imports.request_file(tx, "s3://lists/away.csv", {}, actor="user:1", now=NOW)
    upload(fresh_engine, settings, "email\na@x.co\n")
    totals, told = take()
    assert (totals["imports"], len(told)) == (1, 1)
    assert sorted(row[0] for row in statuses(fresh_engine)) == ["completed", "queued"]


def test_a_file_on_the_worker_is_named_as_before(take: Any, tmp_path: Path, fresh_engine: Engine) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email\na@x.co\n", encoding="utf-8")
    assert take("manual__1", path=str(path), dry_run=True)[0]["created"] == 1
    assert take("manual__2", path=str(path))[0]["created"] == 1
    for wrong in ("http://shop.example/list.csv", "file:///etc/passwd", str(tmp_path / "no.csv")):
        with pytest.raises(InvalidInput):
            take("manual__3", path=wrong)
    assert os.path.exists(path)
