"""The two messy contact exports give exactly their golden counts, one after the other and side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib.contacts import imports
from mautolib.settings import Settings

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def golden(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / "golden" / "contacts.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def real_settings(settings: Settings, data: Path) -> Settings:
    return replace(settings, disposable_domains=(str(data / "disposable_domains.json.gz"),))


def files(golden: dict[str, Any]) -> list[str]:
    return [name for name in golden if name.endswith(".csv")]


def ask(engine: Engine, path: Path) -> int:
    with engine.begin() as tx:
        return imports.request_file(tx, path, {}, actor="check", now=NOW)


def scalar(engine: Engine, query: str) -> Any:
    with engine.begin() as tx:
        return tx.scalar(text(query))


def check_totals(engine: Engine, golden: dict[str, Any]) -> None:
    total = golden["total_of_these_two"]["new_contacts"]
    assert scalar(engine, "select count(*) from contacts") == total
    assert scalar(engine, "select count(*) from events where event_type = 'contact_created'") == total
    disposable = sum(golden[name]["expected"]["of_these_disposable"] for name in files(golden))
    assert scalar(engine, "select count(*) from contacts where is_disposable") == disposable
    assert scalar(engine, "select count(*) from contacts where custom_fields ->> 'Source' = 'newline' "
                          "and custom_fields ->> 'Area' like E'Line one\\nLine \"two\"%'") == 1600  # fmt: skip


def test_one_after_the_other(
    fresh_engine: Engine, real_settings: Settings, data: Path, golden: dict[str, Any]
) -> None:
    for name in files(golden):
        expected = golden[name]["expected"]
        before = scalar(fresh_engine, "select count(*) from contacts where is_disposable")
        import_id = ask(fresh_engine, data / "contacts" / f"{name}.gz")
        done = imports.run(fresh_engine, real_settings, import_id, now=NOW)
        rejected = expected["rejected_invalid"] + expected["rejected_empty"]
        assert (done.status, done.total_rows) == ("completed", golden[name]["rows"])
        assert (done.created, done.updated, done.rejected) == (expected["new_contacts"], 0, rejected)
        assert done.skipped == expected["duplicates"] + rejected
        after = scalar(fresh_engine, "select count(*) from contacts where is_disposable")
        assert after - before == expected["of_these_disposable"]
        with fresh_engine.begin() as tx:
            listed = imports.rejects(tx, import_id, limit=100_000)
        kinds = Counter((reject.code, bool(reject.value)) for reject in listed)
        assert kinds == {("invalid_email", True): expected["rejected_invalid"],
                         ("invalid_email", False): expected["rejected_empty"]}  # fmt: skip
        assert {reject.value for reject in listed if reject.value} <= {
            one[:200] for one in golden["invalid_addresses_used"]}  # fmt: skip
    check_totals(fresh_engine, golden)


@pytest.mark.filterwarnings("default")
def test_through_the_dag(
    run_dag: Any, fresh_engine: Engine, data: Path, golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAUTO_DISPOSABLE_DOMAINS", str(data / "disposable_domains.json.gz"))
    for name in files(golden):
        assert run_dag("contact_import", path=str(data / "contacts" / f"{name}.gz")).state == "success"
    with fresh_engine.begin() as tx:
        done = imports.list_imports(tx)[::-1]
    expected = [golden[name]["expected"] for name in files(golden)]
    assert [one.created for one in done] == [one["new_contacts"] for one in expected]
    assert [one.rejected for one in done] == [one["rejected_invalid"] + one["rejected_empty"] for one in expected]
    check_totals(fresh_engine, golden)


def check_sums(done: list[imports.Import], golden: dict[str, Any]) -> None:
    """What both files give together, whichever of them made the contacts they share."""
    assert [one.status for one in done] == ["completed"] * len(files(golden))
    assert sum(one.created for one in done) == golden["total_of_these_two"]["new_contacts"]
    assert sum(one.total_rows or 0 for one in done) == golden["total_of_these_two"]["rows"]
    sums = {key: sum(golden[name]["expected"][key] for name in files(golden))
            for key in ("duplicates", "rejected_invalid", "rejected_empty")}  # fmt: skip
    assert sum(one.rejected for one in done) == sums["rejected_invalid"] + sums["rejected_empty"]
    assert sum(one.skipped for one in done) == sum(sums.values())


WORKER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from mautolib.contacts import imports
from mautolib.db.engine import connect
from mautolib.settings import Settings
url, home, domains, wait = sys.argv[1:]
time.sleep(float(wait))
settings = Settings(database_url=url, home=Path(home), disposable_domains=(domains,))
for done in imports.run_waiting(connect(url), settings):
    print(done.import_id, flush=True)
"""


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("wait", [0.0, 0.4, 0.8, 1.6])
def test_two_workers_at_once(
    fresh_engine: Engine, real_settings: Settings, data: Path, golden: dict[str, Any], first: int, wait: float
) -> None:
    """Two processes, one of them later by more and more, with the files in both orders."""
    names = files(golden)[::-1] if first else files(golden)
    for name in names:
        ask(fresh_engine, data / "contacts" / f"{name}.gz")
    url = fresh_engine.url.render_as_string(hide_password=False)
    given = [url, str(real_settings.home), *real_settings.disposable_domains]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, *given, str(late)], stdout=subprocess.PIPE, text=True,
                         env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
        for late in (0.0, wait)
    ]  # fmt: skip
    taken = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(one for ids in taken for one in ids) == ["1", "2"]
    with fresh_engine.begin() as tx:
        check_sums(imports.list_imports(tx), golden)
        began = tx.execute(text("select max(started_at), min(finished_at) from imports")).one()
    print(f"{taken}, overlapping by {(began[1] - began[0]).total_seconds():.2f} s")
    check_totals(fresh_engine, golden)


def test_side_by_side(fresh_engine: Engine, real_settings: Settings, data: Path, golden: dict[str, Any]) -> None:
    wanted = [ask(fresh_engine, data / "contacts" / f"{name}.gz") for name in files(golden)]
    done: list[imports.Import] = []
    threads = [
        threading.Thread(target=lambda: done.extend(imports.run_waiting(fresh_engine, real_settings))) for _ in wanted
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_sums(done, golden)
    check_totals(fresh_engine, golden)
