"""The sender's own journal: what it was about to hand over and what the other side said, before the database knows.

Promise: a line is in the file before the fact is anywhere else, so a killed sender leaves no more in doubt than the
one message per connection whose final dot had no answer yet. The file is locked as long as its sender lives (the
kernel lets go when it dies), and fsynced once a group. "Not begun" is believed only for a sender that is dead and
wrote on this boot of this machine; "accepted" always. Callers: the pump writes, `campaigns.recovery` reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import Any

from mautolib.errors import NoRoom
from mautolib.ledger.model import Outcome, Result, Stage, Verdict
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def journal_folder(settings: Settings) -> Path:
    """Where journals live: local disk always, also when uploads go to S3."""
    local = settings.home / "storage" if settings.storage.startswith("s3://") else settings.storage_path
    return local / "journal"


class Journal:
    """The journal of one sender; written by appending whole lines only.

    Every note raises `NoRoom` when it is not in the file as a whole: then what it is about must not happen.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._is_torn = False
        self._write(["boot", _boot_id()])

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """Start a new journal in `folder`, locked for this process."""
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = folder / f"{os.getpid()}-{secrets.token_hex(6)}.journal"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if _lock(descriptor) and _is_still(path, descriptor):
                return cls(path, descriptor)
            os.close(descriptor)  # somebody tidying up was faster; take another name

    def attempt(self, attempt_id: int) -> None:
        """Note an attempt before anything is claimed under it."""
        self._write(["attempt", attempt_id])

    def begins(self, attempt_id: int, contact_id: int, message_id: int) -> None:
        """Note that the next byte may make the other side accept this message."""
        self._append(f'["begins",{attempt_id},{contact_id},{message_id}]\n')

    def result(self, outcome: Outcome) -> None:
        """Note what became of a message."""
        contact_id, message_id, attempt_id, result, _ = outcome
        verdict, stage, code, enhanced, reply, provider_id, reason, retry = result
        self._append(
            f'["result",{attempt_id},{contact_id},{message_id},"{verdict}","{stage}",'
            f"{'null' if code is None else code},{_quoted(enhanced)},"
            f"{_quoted(reply)},{_quoted(provider_id)},{_json(reason)},{_json(retry)}]\n"
        )

    def sync(self) -> None:
        """Make everything noted so far survive a power cut."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise NoRoom(f"The journal {self.path} cannot be kept: {error.strerror}") from error

    def close(self, *, is_settled: bool) -> None:
        """End the journal; it is removed if the database knows everything in it."""
        if is_settled:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _write(self, line: list[Any]) -> None:
        self._append(json.dumps(line, separators=(",", ":")) + "\n")

    def _append(self, line: str) -> None:
        data = (f"\n{line}" if self._is_torn else line).encode()
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise NoRoom(f"The journal {self.path} cannot be written: {error.strerror}; see MAUTO_STORAGE") from error
        # A disk that is nearly full takes a part of a line, without an error.
        self._is_torn = written < len(data)
        if self._is_torn:
            raise NoRoom(f"The journal {self.path} cannot be written: the disk is full; see MAUTO_STORAGE")


def _json(value: object) -> str:
    return "null" if value is None else json.dumps(value)


@dataclass(kw_only=True)
class DeadJournal:
    """What a sender that is gone left behind.

    `unbegun_is_known`: the file cannot have lost lines, so what is not in `outcomes` was surely not handed over.
    """

    path: Path
    unbegun_is_known: bool = False
    attempts: list[int] = field(default_factory=list)
    #: By attempt and message: a doubt as soon as it was begun, the answer once there is one.
    outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)


def dead_journals(folder: Path) -> Iterator[DeadJournal]:
    """The journals in `folder` whose senders are gone, each held while the caller works on it.

    The caller writes what a journal says to the database and then removes `path`.
    """
    for path in sorted(folder.glob("*.journal")):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if _lock(descriptor) and _is_still(path, descriptor):
                yield _read(path)
        finally:
            os.close(descriptor)


def _read(path: Path) -> DeadJournal:
    journal, is_whole = DeadJournal(path=path), True
    for number, raw in enumerate(path.read_bytes().split(b"\n")[:-1]):
        try:
            _take(journal, json.loads(raw))
        except (ValueError, IndexError, TypeError):
            # Torn by a power cut or a full disk: what is readable still counts, what is missing is not concluded.
            _LOG.warning("journal %s: line %s cannot be read", path.name, number + 1)
            is_whole = False
    journal.unbegun_is_known &= is_whole
    return journal


def _take(journal: DeadJournal, line: list[Any]) -> None:
    word, *rest = line
    if word == "boot":
        journal.unbegun_is_known = bool(rest[0]) and rest[0] == _boot_id()
    elif word == "attempt":
        journal.attempts.append(int(rest[0]))
    elif word == "begins":
        attempt_id, contact_id, message_id = map(int, rest)
        doubt = Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply="the sender ended before the answer came")
        journal.outcomes[attempt_id, message_id] = Outcome(
            contact_id=contact_id, message_id=message_id, attempt_id=attempt_id, result=doubt
        )
    elif word == "result":
        outcome = _outcome(rest)
        journal.outcomes[outcome.attempt_id, outcome.message_id] = outcome


def _outcome(values: list[Any]) -> Outcome:
    attempt_id, contact_id, message_id, verdict, stage, code, enhanced, reply, provider_id, reason, retry = values
    result = Result(
        verdict=Verdict(verdict), stage=Stage(stage), code=code, enhanced=enhanced, reply=reply,
        provider_id=provider_id, reason=reason, retry_after_seconds=retry,
    )  # fmt: skip
    return Outcome(contact_id=contact_id, message_id=message_id, attempt_id=attempt_id, result=result)


def _lock(descriptor: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one under its name; a lock on a removed file protects nothing."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
