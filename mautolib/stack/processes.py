"""Processes of a stack: start one in a session of its own, end it with all its children, wait longer each time it dies.

Every process carries MAUTO_STACK_HOME in its environment, so that what a killed supervisor left behind can be told
from everything else on the machine. Used by the supervisor and by `down`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mautolib.db.pgprograms import die_with_parent

__all__ = ["MARK", "Program", "end_all", "marked_processes"]

_LOG = logging.getLogger(__name__)
MARK = "MAUTO_STACK_HOME"
_PATIENCE_SECONDS = (0.2, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
_SETTLED_SECONDS = 60.0
_LOG_BYTES = 20 * 1024**2


@dataclass(kw_only=True)
class Program:
    """One long-running process and its history.

    Attributes:
        stop_seconds: how long it may take to end when asked; then it is killed.
        before_restart: called after the old process group is gone and before a new one starts.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path
    folder: Path
    stop_seconds: float = 3.0
    before_restart: Callable[[], None] | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    exits: int = 0
    _next_start: float = 0.0
    _patience: int = field(default=0, repr=False)

    def start(self) -> None:
        """Start it; its output is appended to its log file."""
        rotate(self.log_file)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=dict(self.environment), cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent(signal.SIGTERM),
            )  # fmt: skip
        self.log_file.chmod(0o600)
        self.started_at = time.time()

    def is_alive(self) -> bool:
        """Whether the process itself runs (its children are not asked)."""
        return self.process is not None and self.process.poll() is None

    def tend(self, now: float) -> bool:
        """Notice that it died, and start it again when its time has come; returns whether anything changed."""
        if self.process is not None:
            if self.process.poll() is None:
                if self._patience and time.time() - self.started_at > _SETTLED_SECONDS:
                    self._patience = 0
                return False
            signal_group(self.process.pid, signal.SIGKILL)  # workers it left behind
            self.process = None
            self.exits += 1
            self._next_start = now + _PATIENCE_SECONDS[min(self._patience, len(_PATIENCE_SECONDS) - 1)]
            self._patience += 1
            return True
        if now < self._next_start:
            return False
        if self.before_restart is not None:
            self.before_restart()
        self.start()
        return True

    def defer(self, seconds: float) -> None:
        """Let `tend` start it, some seconds from now."""
        self._next_start = time.monotonic() + seconds

    def hurry(self) -> None:
        """Forget the waiting: the next `tend` starts it."""
        self._patience, self._next_start = 0, 0.0


def end_all(programs: Sequence[Program]) -> None:
    """End programs together: ask each, wait as long as it may take, kill what is left of its group."""
    running = [(program, program.process) for program in programs if program.process is not None]
    began = time.monotonic()
    for _, process in running:
        # Asked alone: Airflow's scheduler ends its own workers in order.
        process.terminate()
    for program, process in running:
        try:
            process.wait(max(0.0, began + program.stop_seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            _LOG.warning("stack: %s is killed, it did not end within %s s", program.name, program.stop_seconds)
        signal_group(process.pid, signal.SIGKILL)
        process.wait()
        _LOG.info("stack: %s ended after %.1f s", program.name, time.monotonic() - began)


def signal_group(group: int, number: int) -> None:
    """Signal every process of a group; none left is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def marked_processes(home: Path) -> list[int]:
    """Processes started for the stack of a home, however far down (Linux; elsewhere none are found)."""
    mark = f"{MARK}={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def end_marked(home: Path, seconds: float = 5.0) -> int:
    """End what an earlier supervisor left behind; returns how many there were."""
    first = marked_processes(home)
    until, left = time.monotonic() + seconds, first
    number = signal.SIGTERM
    while left:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        time.sleep(0.1)
        left = marked_processes(home)
        if time.monotonic() > until:
            number = signal.SIGKILL
        if time.monotonic() > until + seconds:
            break
    return len(first)


def rotate(log_file: Path) -> None:
    """Put a log that has grown large aside; one old one is kept."""
    if log_file.exists() and log_file.stat().st_size > _LOG_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))

