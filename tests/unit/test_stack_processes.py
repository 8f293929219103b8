"""Processes of a stack: restarted with patience, ended with everything they started, told apart by their mark."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mautolib.stack.processes import MARK, Program, end_all, end_marked, marked_processes, rotate
from mautolib.stack.pruning import cut_large_logs, remove_old_files

Make = Callable[[str], Program]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Program] = []

    def program(code: str) -> Program:
        made.append(Program(name="probe", command=[sys.executable, "-c", code], folder=tmp_path,
                            environment={**os.environ, MARK: str(tmp_path)}, log_file=tmp_path / "probe.log",
                            stop_seconds=0.5))  # fmt: skip
        return made[-1]

    yield program
    end_all(made)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def test_each_death_makes_the_next_start_wait_longer(make: Make) -> None:
    program, now, waits = make("raise SystemExit(1)"), 1000.0, []
    program.start()
    for _ in range(3):
        wait_for(lambda: not program.is_alive())
        assert program.tend(now) is True
        died = now
        while not program.tend(now):
            now += 0.1
        waits.append(round(now - died, 1))
    assert waits == [0.2, 1.0, 2.0]
    assert program.exits == 3
    wait_for(lambda: not program.is_alive())
    program.tend(now)
    assert program.tend(now) is False
    program.hurry()
    assert program.tend(now) is True


def test_what_must_be_done_before_a_restart_is_done_before(make: Make) -> None:
    program, seen = make("import time; time.sleep(60)"), []
    program.before_restart = lambda: seen.append(program.process)
    program.start()
    assert seen == []
    assert program.process is not None
    os.kill(program.process.pid, signal.SIGKILL)
    wait_for(lambda: not program.is_alive())
    program.tend(time.monotonic())
    program.hurry()
    program.tend(time.monotonic())
    assert seen == [None]
    assert program.is_alive()


def test_a_deferred_program_starts_when_its_time_has_come(make: Make) -> None:
    program = make("import time; time.sleep(60)")
    program.defer(5.0)
    assert program.tend(time.monotonic()) is False
    assert program.tend(time.monotonic() + 5.1) is True
    assert program.exits == 0


def test_children_go_with_their_program_even_when_they_refuse(make: Make, tmp_path: Path) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    program = make(
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    program.start()
    wait_for(lambda: program.log_file.read_text().strip())
    pid = int(program.log_file.read_text())
    assert set(marked_processes(tmp_path)) == {program.process.pid, pid}  # type: ignore[union-attr]
    end_all([program])
    wait_for(lambda: pid not in marked_processes(tmp_path))
    assert not program.is_alive()


def test_what_a_killed_supervisor_left_is_found_by_its_mark(make: Make, tmp_path: Path) -> None:
    ours, theirs = make("import time; time.sleep(60)"), make("import time; time.sleep(60)")
    theirs.environment = {**os.environ, MARK: str(tmp_path / "other")}
    ours.start()
    theirs.start()
    wait_for(lambda: len(marked_processes(tmp_path)) == 1)
    assert end_marked(tmp_path) == 1
    assert not ours.is_alive()
    assert theirs.is_alive()


def test_logs_are_for_their_owner_and_do_not_grow_for_ever(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    program = make("print('hello')")
    program.start()
    wait_for(lambda: not program.is_alive())
    assert program.log_file.read_text() == "hello\n"
    assert program.log_file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr("mautolib.stack.processes._LOG_BYTES", 3)
    rotate(program.log_file)
    assert not program.log_file.exists()
    assert program.log_file.with_suffix(".log.1").read_text() == "hello\n"


def test_pruning_removes_what_is_old_and_nothing_else(tmp_path: Path) -> None:
    old, young = tmp_path / "dag=a" / "run=1" / "task.log", tmp_path / "dag=a" / "run=2" / "task.log"
    for path in (old, young):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    now = datetime.now(UTC)
    os.utime(old, ((now - timedelta(days=40)).timestamp(),) * 2)
    assert remove_old_files(tmp_path, now - timedelta(days=30)) == 1
    assert not old.parent.exists()
    assert young.exists()
    assert remove_old_files(tmp_path / "nowhere", now) == 0


def test_a_large_log_is_cut_under_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mautolib.stack.pruning._LARGE_BYTES", 5)
    path = tmp_path / "api.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old text")
        cut_large_logs(tmp_path)
        writer.write(b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "api.log.1").read_bytes() == b"old text"
