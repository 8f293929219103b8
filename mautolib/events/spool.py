"""A local, fsynced file for what cannot reach the database just now, replayed when it can.

`add` returns when the record is on disk. Every process writes files of its own, locked while it lives; `replay` also
takes over those of processes that died. A record that is refused for good goes to `failed.ndjson`, for a person to
look at: nothing is dropped silently. Called by `hit_writer`. It knows nothing of what the records mean; whoever
replays them must bear a record twice (a crash between its effect and the end of its file).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from mautolib.settings import Settings

__all__ = ["Refused", "Spool", "spool_folder"]

_LOG = logging.getLogger(__name__)
_FAILED = "failed.ndjson"

Record = dict[str, Any]


class Refused(Exception):
    """Raised by a replaying function: this record can never be applied."""


def spool_folder(settings: Settings) -> Path:
    """Where the spool lives: always on this machine, even when storage is in S3."""
    base = settings.home / "storage" if settings.storage.startswith("s3://") else settings.storage_path
    return base / "spool"


class Spool:
    """One process's end of the spool. Its methods block on the disk; `add` and `close` belong to one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    def add(self, record: Record) -> None:
        """Keep a record; on return it survives a crash.

        Raises:
            OSError: the disk is full or not writable.
        """
        if self._file is None:
            self._file = self._open()
        try:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            # Half a line may be there, and what a failed fsync left behind is unknown: the next record gets a new file.
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                file.close()
            raise

    def is_empty(self) -> bool:
        """Whether there is no file at all, of this process or another."""
        return next(self._files(), None) is None

    def replay(self, apply: Callable[[Record], None]) -> int:
        """Hand every record to `apply`, file by file, and remove what was applied; returns their number.

        Files still being written are left alone: `close` first. An exception of `apply` other than `Refused`
        ends the replay; the file it came from stays whole for the next time.
        """
        count = 0
        for path in list(self._files()):
            count += self._replay_file(path, apply)
        if count:
            _LOG.info("spool: %s records replayed", count)
        return count

    def close(self) -> None:
        """Let go of the file being written; the next `add` begins another one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> IO[str]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{time.time_ns()}-{os.getpid()}.ndjson"
        file = path.open("x", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX)
        directory = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(directory)  # the name of a new file is on disk only after its folder is
        finally:
            os.close(directory)
        return file

    def _files(self) -> Iterator[Path]:
        if self._folder.is_dir():
            yield from sorted(path for path in self._folder.glob("*.ndjson") if path.name != _FAILED)

    def _replay_file(self, path: Path, apply: Callable[[Record], None]) -> int:
        try:
            file = path.open("r+", encoding="utf-8")
        except FileNotFoundError:
            return 0
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0  # its process lives and will replay it
            count = 0
            for line in file:
                count += self._replay_line(line, apply)
            path.unlink(missing_ok=True)
            return count

    def _replay_line(self, line: str, apply: Callable[[Record], None]) -> int:
        try:
            record = json.loads(line)
        except ValueError:
            # Torn by a crash before fsync returned: nobody was told that it was kept.
            _LOG.warning("spool: an unfinished record was left out")
            return 0
        try:
            apply(record)
        except Refused as error:
            _LOG.error("spool: a record cannot be applied and is kept in %s: %s", _FAILED, error)
            with (self._folder / _FAILED).open("a", encoding="utf-8") as failed:
                failed.write(line)
        return 1
