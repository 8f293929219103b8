"""Imports that are killed, frozen, cancelled or lose their database go on where they were, with the same result."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from mautolib import maintenance
from mautolib.contacts import consent, imports
from mautolib.contacts.imports import filling, reading, running, staging
from mautolib.contacts.imports.files import OpenFile
from mautolib.contacts.model import SuppressionReason
from mautolib.db.engine import connect
from mautolib.db.localpg import Cluster
from mautolib.db.migrate import migrate
from mautolib.settings import Settings
from tests import poison
from tests.conftest import Server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
ROOT = Path(__file__).parents[2]
#: A part of a file that is read 32 KB at a time has at most so many rows.
ROWS, CHUNK, PART = 20_000, 4000, 2001
TABLES = "select relname from pg_class where relname ~ '^import_[0-9]+_[0-9]+$' order by 1"
INSERTS, ENDS = "insert into contacts", "status = cast(%(status)s as text)"
#: Everything that an import leaves, without the numbers that sequences give.
RESULT = {
    "imports": "select status, error, options, total_rows, created, updated, skipped, rejected, suppressed, started_at "
               "from imports order by 1, 4",
    "contacts": "select to_jsonb(contacts) - 'contact_id' - 'updated_at' from contacts order by email_key",
    "rejects": "select line, column_name, code, reason, value from import_rejects order by 1, 2, 3",
    "events": "select email_key, event_type, occurred_at, events.source, events.properties from events "
              "inner join contacts using (contact_id) order by 1, 2",
    "waiting": "select email_key, event_type from event_pending, unnest(event_ids) as event_id "
               "inner join events using (event_id) inner join contacts using (contact_id) order by 1, 2",
}  # fmt: skip


class Bed:
    """A database of its own, and files."""

    def __init__(self, engine: Engine, settings: Settings, folder: Path) -> None:
        self.engine, self.settings, self.folder = engine, settings, folder

    def ask(self, path: Path, **options: Any) -> int:
        with self.engine.begin() as tx:
            return imports.request_file(tx, path, options, actor="user:1", now=NOW)

    def lines(self, count: int, name: str = "c") -> Path:
        path = self.folder / f"{name}.csv"
        path.write_text("email,first_name\n" + "".join(f"{name}{n}@x.co,N{n}\n" for n in range(count)))
        return path

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine.begin() as tx:
            return [tuple(row) for row in tx.execute(text(query))]

    def one(self, query: str) -> Any:
        [(value,)] = self.rows(query)
        return value

    def lose_lease(self) -> None:
        """What 60 seconds do to the import of a worker that is gone."""
        with self.engine.begin() as tx:
            tx.execute(text("update imports set lease_until = clock_timestamp() - interval '1 s' where status in "
                            "('running', 'cancelling')"))  # fmt: skip

    def checkpoint(self) -> tuple[int, int, bool]:
        """Rows and last line kept, and whether that is all."""
        [(rows, line, is_whole)] = self.rows("select row_count, last_line, is_whole from staging.import_checkpoints")
        return rows, line, is_whole

    def result(self) -> dict[str, list[tuple[Any, ...]]]:
        """Those, row by row."""
        return {name: self.rows(query) for name, query in RESULT.items()}

    def digests(self) -> dict[str, tuple[int, Any]]:
        """`result` of a million rows: how many there are, and a sum over what they say."""
        with_sums = "select count(*), sum(hashtextextended(cast(one as text), 0)) from ({}) as one"
        return {name: self.rows(with_sums.format(query))[0] for name, query in RESULT.items()}

    def clear(self) -> None:
        with self.engine.begin() as tx:
            tx.execute(text("truncate contacts, contact_history, consents, suppressions, tags, imports, "
                            "import_rejects, events, event_pending, outbox restart identity cascade"))  # fmt: skip
        maintenance.run(self.engine, self.settings, now=NOW, task="imports")

    def suppress(self, truth: poison.Truth) -> None:
        with self.engine.begin() as tx:
            consent.suppress_many(tx, truth.suppressed, SuppressionReason.UNSUBSCRIBE, actor="test", now=NOW,
                                  settings=self.settings)  # fmt: skip


@pytest.fixture(scope="module")
def own_engine(cluster: Server, template_database: str) -> Iterator[Engine]:
    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    yield engine
    engine.dispose()
    cluster.drop(name)


@pytest.fixture
def bed(own_engine: Engine, settings: Settings, tmp_path: Path) -> Bed:
    url = own_engine.url.render_as_string(hide_password=False)
    made = Bed(own_engine, replace(settings, database_url=url), tmp_path)
    made.clear()
    return made


class Staged:
    """Counts the rows that this process turns into lines of COPY."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        stage = OpenFile.stage

        def counted(file: OpenFile, part: Any) -> bytes:
            self.rows += part.rows
            return stage(file, part)

        monkeypatch.setattr(OpenFile, "stage", counted)


def start(bed: Bed, point: str, *, chunk: int = CHUNK, settings: Settings | None = None) -> subprocess.Popen[str]:
    settings = settings or bed.settings
    return subprocess.Popen(
        [sys.executable, "-m", "tests.import_worker", settings.database_url, str(settings.home), str(chunk),
         str(reading._BLOCK), point],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def kill(worker: subprocess.Popen[str]) -> None:
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert worker.stdout is not None
    worker.stdout.close()


def killed_at(bed: Bed, point: str, *, chunk: int = CHUNK) -> int:
    """Let a worker come to a point and kill it there; returns how many rows it staged itself."""
    worker = start(bed, point, chunk=chunk)
    assert worker.stdout is not None
    said = worker.stdout.readline().split()
    kill(worker)
    assert len(said) == 1, said
    bed.lose_lease()
    return int(said[0])


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


def died_after(bed: Bed, checkpoints: int = 1, *, chunk: int = CHUNK) -> None:
    """A worker in this process, gone after some checkpoints: much sooner there than a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        next_chunk, made = filling._next_chunk, [0]

        def counted(*given: Any) -> Any:
            kept = next_chunk(*given)
            made[0] += 1
            if made[0] == checkpoints:
                raise Killed
            return kept

        patch.setattr(filling, "CHUNK_ROWS", chunk)
        patch.setattr(filling, "_next_chunk", counted)
        with pytest.raises(Killed):
            list(imports.run_waiting(bed.engine, bed.settings, clock=lambda: NOW))
    bed.lose_lease()


def check(bed: Bed, truth: poison.Truth, done: imports.Import) -> None:
    """What was imported is the truth: 0 missed, 0 falsely refused, every line right, every row accounted for."""
    assert (done.status, done.error) == ("completed", None)
    found = bed.rows("select line, column_name, code from import_rejects order by line")
    assert set(truth.rejects) - set(found) == set(), "missed"
    assert set(found) - set(truth.rejects) == set(), "falsely refused, or on another line"
    assert found == truth.rejects
    counts = (done.total_rows, done.created, done.updated, done.skipped, done.rejected, done.suppressed)
    assert counts == truth.counts
    assert len(truth.names) + truth.repeated + len(truth.rejects) == truth.rows
    assert dict(bed.rows("select email_key, first_name from contacts")) == truth.names
    out = bed.rows("select email_key from contacts where not subscribed and custom_fields ->> 'Note' is not null")
    assert {key for (key,) in out} <= truth.names.keys()
    in_spite = bed.rows("select email_key from contacts inner join suppressions using (email_key) where subscribed")
    assert in_spite == []
    assert bed.one("select count(*) from events") == bed.one("select sum(event_count) from event_pending")
    assert bed.one("select count(*) from events where event_type = 'contact_created'") == len(truth.names)


# --- poison with known truth -----------------------------------------------------------------------------------------


def test_poison_of_thirty_kinds_is_all_found_and_nothing_else(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are small here, so that a short file is read in both ways, some stretches in each."""
    monkeypatch.setattr(reading, "_BLOCK", 1 << 15)
    path = bed.folder / "poison.csv"
    truth = poison.write(path, ROWS)
    assert set(truth.kinds) == set(poison.KINDS), "a kind is missing"
    assert len(truth.kinds) >= 30 and len(truth.rejects) > ROWS * poison.SHARE * 0.9
    assert len({line for line, _, _ in truth.rejects}) == len(truth.rejects)
    assert truth.rejects[-1][0] > ROWS + 1000, "physical lines are not row numbers"
    bed.suppress(truth)
    check(bed, truth, imports.run(bed.engine, bed.settings, bed.ask(path), now=NOW))


@pytest.mark.thorough
def test_five_kills_change_nothing(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK", 1 << 15)
    path = bed.folder / "poison.csv"
    truth = poison.write(path, ROWS, seed=2)
    bed.suppress(truth)
    imports.run(bed.engine, bed.settings, bed.ask(path), now=NOW)
    undisturbed = bed.result()
    bed.clear()
    bed.suppress(truth)
    import_id = bed.ask(path)

    assert 3000 <= killed_at(bed, "rows 3000") < CHUNK, "in the first chunk"
    assert bed.checkpoint() == (0, 0, False)
    assert killed_at(bed, "kept 1") >= CHUNK, "between two chunks"
    first, line, _ = bed.checkpoint()
    assert CHUNK <= first < CHUNK + PART and line > first
    staged = killed_at(bed, f"rows {first + 2 * CHUNK}")
    second, _, is_whole = bed.checkpoint()
    assert second > first and not is_whole
    assert 2 * CHUNK <= staged < 2 * CHUNK + PART, "what was kept is not staged again"
    assert killed_at(bed, f"after {INSERTS}") == truth.rows - second, "all the rest, and nothing twice"
    assert bed.checkpoint()[::2] == (truth.rows, True)
    assert killed_at(bed, f"after {ENDS}") == 0, "straight to the merge, and killed before its commit"
    assert bed.one("select count(*) from contacts") == 0
    assert bed.one("select status from imports") == "running"

    own = Staged(monkeypatch)
    done = imports.run(bed.engine, bed.settings, import_id, now=NOW)
    assert own.rows == 0
    check(bed, truth, done)
    assert bed.result() == undisturbed
    assert bed.rows(TABLES) == bed.rows("select import_id from staging.import_checkpoints") == []


@pytest.mark.slow
def test_a_million_rows_with_poison_killed_five_times_at_random(bed: Bed) -> None:
    path, million = bed.folder / "million.csv", 1_000_000
    truth = poison.write(path, million, seed=3)
    bed.suppress(truth)
    began = time.monotonic()
    check(bed, truth, imports.run(bed.engine, bed.settings, bed.ask(path), now=NOW))
    took = time.monotonic() - began
    undisturbed = bed.digests()
    bed.clear()
    bed.suppress(truth)
    import_id, rng, marks = bed.ask(path), random.Random(4), list[tuple[float, int]]()
    for _ in range(5):
        worker, seconds = start(bed, "never", chunk=filling.CHUNK_ROWS), rng.uniform(0.1, 0.45) * took
        time.sleep(seconds)
        kill(worker)
        bed.lose_lease()
        kept = bed.rows("select row_count from staging.import_checkpoints")
        marks.append((round(seconds, 1), kept[0][0] if kept else 0))
    done = imports.run(bed.engine, bed.settings, import_id, now=NOW)
    print(f"\n{million} rows, {len(truth.rejects)} poisoned, undisturbed {took:.0f} s; killed after {marks}")
    check(bed, truth, done)
    assert bed.digests() == undisturbed


# --- what is kept, and when it is not used ----------------------------------------------------------------------------


def test_kept_rows_are_used_only_for_the_same_file(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bed.lines(12_000)
    import_id = bed.ask(path)
    died_after(bed)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(len("email,first_name\n"))
        file.write(b"d")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    own = Staged(monkeypatch)
    done = imports.run(bed.engine, bed.settings, import_id, now=NOW)
    assert (own.rows, done.created) == (12_000, 12_000)
    assert bed.rows("select email from contacts where email_key in ('c0@x.co', 'd0@x.co')") == [("d0@x.co",)]
    assert bed.rows(TABLES) == []


@pytest.mark.parametrize("loss", [
    "drop table staging.{0} cascade", "delete from staging.{0} where line = 7", "truncate staging.{0}",
    "truncate staging.import_checkpoints", "update staging.import_checkpoints set fingerprint = ''",
    "update staging.import_checkpoints set last_line = last_line + 1",
    "update staging.import_checkpoints set part_count = part_count - 1",
])  # fmt: skip
def test_what_does_not_fit_together_is_not_used(bed: Bed, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    import_id = bed.ask(bed.lines(12_000))
    died_after(bed)
    with bed.engine.begin() as tx:
        tx.execute(text(loss.format(bed.one(TABLES))))
    own = Staged(monkeypatch)
    done = imports.run(bed.engine, bed.settings, import_id, now=NOW)
    assert (own.rows, done.total_rows, done.created, bed.one("select count(*) from contacts")) == (12_000,) * 4
    assert bed.rows(TABLES) == bed.rows("select import_id from staging.import_checkpoints") == []


def test_a_whole_file_is_not_needed_any_more(bed: Bed) -> None:
    path = bed.lines(3000)
    import_id = bed.ask(path)
    died_after(bed, chunk=100_000)
    assert bed.checkpoint() == (3000, 3001, True)
    path.unlink()
    assert imports.run(bed.engine, bed.settings, import_id, now=NOW).created == 3000


def test_what_the_first_worker_found_in_the_file_holds(bed: Bed) -> None:
    """Bounds of times are those of the first try, and the options are noted as they were found."""
    path = bed.folder / "times.csv"
    soon = (NOW + timedelta(hours=30)).isoformat()
    path.write_text("email,created_at\n" + "".join(f"c{n}@x.co,{soon}\n" for n in range(6000)))
    import_id = bed.ask(path)
    died_after(bed, chunk=2000)
    done = imports.run(bed.engine, bed.settings, import_id, now=LATER)
    assert (done.rejected, done.created, done.options["preset"]) == (6000, 0, "none")


def test_a_frozen_worker_adds_nothing_to_what_another_one_reads(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK_ROWS", 2000)
    import_id = bed.ask(bed.lines(7000))
    taken: list[imports.Import] = []

    def freeze(rows: int) -> None:
        # With a chunk half copied; the other worker goes on behind the last checkpoint.
        if rows >= 5000 and not taken:
            bed.lose_lease()
            taken.extend(imports.run_waiting(bed.engine, bed.settings, clock=lambda: NOW))

    ended = imports.run(bed.engine, bed.settings, import_id, now=LATER, progress=freeze)
    assert ended == taken[0]
    assert (ended.status, ended.total_rows, ended.created) == ("completed", 7000, 7000)
    assert bed.one("select count(*) from contacts") == bed.one("select count(*) from events") == 7000
    # The frozen one still held the table when the other one wanted to drop it.
    assert len(bed.rows(TABLES)) == 1
    assert maintenance.run(bed.engine, bed.settings, now=NOW, task="imports") == {"import_tables": 1, "uploads": 0}
    assert bed.rows(TABLES) == bed.rows("select import_id from staging.import_checkpoints") == []


def test_a_frozen_worker_moves_no_checkpoint_of_another_one(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    import_id = bed.ask(bed.lines(12_000))
    seen: list[tuple[int, int, bool]] = []

    def freeze(rows: int) -> None:
        # The other one takes the import over, gets further and dies; nobody has ended it yet.
        if rows >= 1000 and not seen:
            bed.lose_lease()
            died_after(bed, 2)
            seen.append(bed.checkpoint())

    monkeypatch.setattr(filling, "CHUNK_ROWS", CHUNK)
    ended = imports.run(bed.engine, bed.settings, import_id, now=NOW, progress=freeze)
    assert ended.status == "running"
    assert seen == [bed.checkpoint()]
    assert bed.one(f"select count(*) from staging.{bed.one(TABLES)}") == seen[0][0] >= 2 * CHUNK
    own = Staged(monkeypatch)
    assert imports.run(bed.engine, bed.settings, import_id, now=NOW).created == 12_000
    assert own.rows == 12_000 - seen[0][0]


def test_a_worker_frozen_before_its_first_row_drops_nothing_of_another_one(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_id = bed.ask(bed.lines(12_000))
    begin = staging.begin

    def late(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(staging, "begin", begin)
        bed.lose_lease()
        died_after(bed)
        return begin(*given, **named)

    monkeypatch.setattr(staging, "begin", late)
    assert imports.run(bed.engine, bed.settings, import_id, now=NOW).status == "running"
    kept = bed.checkpoint()[0]
    assert bed.one(f"select count(*) from staging.{bed.one(TABLES)}") == kept >= CHUNK
    own = Staged(monkeypatch)
    assert imports.run(bed.engine, bed.settings, import_id, now=NOW).created == 12_000
    assert own.rows == 12_000 - kept


def test_an_import_that_kills_every_worker_ends(bed: Bed) -> None:
    import_id = bed.ask(bed.lines(100))
    for _ in range(5):
        assert imports.claim_next(bed.engine, now=NOW) is not None
        bed.lose_lease()
    [done] = imports.run_waiting(bed.engine, bed.settings, clock=lambda: LATER)
    assert (done.import_id, done.status, done.finished_at) == (import_id, "failed", LATER)
    assert "5 workers in a row ended while they were at it" in (done.error or "")
    assert bed.one("select count(*) from contacts") == 0


def test_getting_further_counts(bed: Bed) -> None:
    import_id = bed.ask(bed.lines(12_000))
    for kept in (1, 2):
        for _ in range(3):
            assert imports.claim_next(bed.engine, now=NOW) is not None
            bed.lose_lease()
        died_after(bed)
        assert bed.one("select stalled_attempts from imports") == 0
        assert bed.checkpoint()[0] >= kept * CHUNK
    # Beginning anew is no progress: what was kept once already does not count again.
    with bed.engine.begin() as tx:
        tx.execute(text("truncate staging.import_checkpoints"))
    for times in (1, 2):
        died_after(bed)
        assert bed.one("select stalled_attempts from imports") == times
        with bed.engine.begin() as tx:
            tx.execute(text("truncate staging.import_checkpoints"))
    assert imports.run(bed.engine, bed.settings, import_id, now=NOW).created == 12_000


def test_a_worker_that_gives_back_did_not_die(bed: Bed) -> None:
    bed.ask(bed.lines(10))
    for _ in range(8):
        claim = imports.claim_next(bed.engine, now=NOW)
        assert claim is not None and claim.stalled == 1
        running._give_back(bed.engine, claim)


# --- cancelling, side by side, the database ---------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["waits", "reads", "between chunks", "merges", "killed"])
def test_cancelled_in_any_phase_leaves_nothing(bed: Bed, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    monkeypatch.setattr(filling, "CHUNK_ROWS", 2000)
    import_id = bed.ask(bed.lines(7000))
    is_cancelled: list[bool] = []

    def cancel(*_: Any) -> None:
        if not is_cancelled:
            is_cancelled.append(True)
            with bed.engine.begin() as tx:
                imports.cancel(tx, import_id, now=NOW)

    if phase in ("waits", "killed"):
        died_after(bed, chunk=2000)
        assert len(bed.rows(TABLES)) == 1
        if phase == "waits":
            claim = imports.claim_next(bed.engine, now=NOW)
            assert claim is not None
            running._give_back(bed.engine, claim)
        cancel()
        ended = list(imports.run_waiting(bed.engine, bed.settings, clock=lambda: NOW))
        assert len(ended) == (phase == "killed")
    else:
        if phase == "between chunks":
            next_chunk = filling._next_chunk
            monkeypatch.setattr(filling, "_next_chunk", lambda *given: (next_chunk(*given), cancel())[0])
        if phase == "merges":
            event.listen(bed.engine, "after_cursor_execute", lambda *given: cancel() if INSERTS in given[2] else None)
        progress = cancel if phase == "reads" else None
        imports.run(bed.engine, bed.settings, import_id, now=NOW, progress=progress)
        bed.engine.dispatch._clear()
    assert bed.rows("select status, created from imports") == [("cancelled", 0)]
    assert bed.one("select count(*) from contacts") == bed.one("select count(*) from events") == 0
    # The API may cancel what waits but not drop its rows: that is left to maintenance.
    left = maintenance.run(bed.engine, bed.settings, now=NOW, task="imports")["import_tables"]
    assert left == (phase == "waits")
    assert bed.rows(TABLES) == bed.rows("select import_id from staging.import_checkpoints") == []


def test_two_at_once_one_of_them_killed(bed: Bed) -> None:
    truths = []
    for seed in (11, 12):
        path = bed.folder / f"p{seed}.csv"
        truths.append(poison.write(path, 6000, seed=seed))
        bed.ask(path)
    died_after(bed, chunk=2000)
    done: list[imports.Import] = []
    threads = [threading.Thread(target=lambda: done.extend(imports.run_waiting(bed.engine, bed.settings)))
               for _ in range(2)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.sort(key=lambda one: one.import_id)
    assert [(one.status, one.total_rows, one.rejected) for one in done] == [
        ("completed", 6000, len(truth.rejects)) for truth in truths]  # fmt: skip
    for one, truth in zip(done, truths, strict=True):
        found = bed.rows(f"select line, column_name, code from import_rejects where import_id = {one.import_id} "
                         "order by line")  # fmt: skip
        assert found == truth.rejects
    everybody = truths[0].names.keys() | truths[1].names.keys()
    assert {key for (key,) in bed.rows("select email_key from contacts")} == everybody
    assert sum(one.created for one in done) == len(everybody) == bed.one("select count(*) from events")
    assert bed.rows(TABLES) == []


@pytest.mark.thorough
def test_a_crash_of_the_database_empties_rows_and_checkpoint_together(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cluster"
    server = Cluster.ensure(folder, durable=False)
    try:
        server.create_database("crash")
        url = server.url("crash")
        engine = connect(url)
        migrate(engine)
        bed = Bed(engine, replace(settings, database_url=url), tmp_path)
        path = tmp_path / "poison.csv"
        truth = poison.write(path, 9000, seed=5)
        bed.suppress(truth)
        import_id = bed.ask(path)
        worker = start(bed, "kept 2", chunk=2000)
        assert worker.stdout is not None
        assert int(worker.stdout.readline()) >= 4000
        [(table,)] = bed.rows(TABLES)
        assert bed.one(f"select count(*) from staging.{table}") == bed.checkpoint()[0] >= 4000
        # As `pg_ctl stop -m immediate`: unlogged tables are emptied when it comes back.
        assert server._process is not None
        server._process.send_signal(signal.SIGQUIT)
        server._process.wait(30)
        kill(worker)
        engine.dispose()
        server.stop()
        server = Cluster.ensure(folder, port=server.port, durable=False)
        assert bed.one(f"select count(*) from staging.{table}") == 0
        assert bed.rows("select import_id from staging.import_checkpoints") == []
        bed.lose_lease()
        own = Staged(monkeypatch)
        done = imports.run(engine, bed.settings, import_id, now=NOW)
        assert own.rows == 9000
        check(bed, truth, done)
        assert bed.rows(TABLES) == []
        engine.dispose()
    finally:
        server.stop()
