"""Pruning: once a day the supervisor removes old Airflow runs and task logs and cuts logs that have grown large.

Without it a stack that runs every ten minutes for a year keeps 50,000 runs. Nothing of the warehouse is touched
here: that is the `maintenance` DAG.
"""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mautolib.stack import airflow_setup
from mautolib.stack.plan import Plan
from mautolib.stack.processes import MARK, Program, end_all

__all__ = ["Pruning", "cut_large_logs", "remove_old_files"]

_LOG = logging.getLogger(__name__)
_FIRST_SECONDS = 900.0
_EVERY_SECONDS = 86400.0
_LARGE_BYTES = 50 * 1024**2


class Pruning:
    """The daily round of one stack."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._due = time.monotonic() + _FIRST_SECONDS
        self._program: Program | None = None

    def tend(self, now: float) -> None:
        """Begin the round when it is due; called in every round of the supervisor."""
        if self._program is not None and not self._program.is_alive():
            self._program = None
        if now < self._due:
            return
        self._due = now + _EVERY_SECONDS
        keep = timedelta(days=self._plan.settings.airflow_keep_days)
        before = datetime.now(UTC) - keep
        home = self._plan.home
        removed = remove_old_files(home.logs / "tasks", before) + remove_old_files(home.logs / "dag-files", before)
        cut_large_logs(home.logs)
        _LOG.info("pruning: %s log files removed, runs before %s go", removed, before.date())
        self._program = Program(
            name="airflow-prune", folder=home.path, log_file=home.logs / "airflow-prune.log",
            command=airflow_setup.command("db", "clean", "--clean-before-timestamp", before.isoformat(),
                                          "--skip-archive", "--yes"),
            environment={**airflow_setup.environment(self._plan), MARK: str(home.path)},
        )  # fmt: skip
        self._program.start()

    def end(self) -> None:
        """End a round that is under way."""
        if self._program is not None:
            end_all([self._program])


def remove_old_files(folder: Path, before: datetime) -> int:
    """Remove files last written before a moment, and the folders that become empty; returns how many files."""
    removed = 0
    for path in sorted(folder.rglob("*"), reverse=True):  # children before their folder
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()  # fails, and stays, unless empty
            elif path.lstat().st_mtime < before.timestamp():
                path.unlink()
                removed += 1
    return removed


def cut_large_logs(folder: Path) -> None:
    """Empty logs above 50 MB in place (their writers append), keeping the old text once beside them."""
    for path in folder.glob("*.log"):
        if path.stat().st_size > _LARGE_BYTES:
            aside = path.with_suffix(".log.1")
            aside.write_bytes(path.read_bytes())
            aside.chmod(0o600)
            with path.open("r+b") as file:
                file.truncate(0)
