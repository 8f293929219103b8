"""What the mail sink keeps: raw messages, one log line each, and an index that can be made again.

Promise: once `append` returns, the message survives the end of this process, however it ends: first the bytes go to
a segment file, then one JSON line to `accepted.jsonl`, which is the truth (time, message_id, sender, rcpt, size,
path, offset). The SQLite index only answers questions and catches up from the log at the next start. One process a
directory, guarded by a lock; safe to use from several threads. It knows no protocol.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any, Final

from mautolib.errors import Misconfigured, NotFound

SEGMENT_BYTES: Final = 64 * 1024 * 1024
_PENDING: Final = 500
_HEADER = re.compile(rb"^(message-id|subject):[ \t]*((?:.*)(?:\r?\n[ \t].*)*)", re.I | re.M)
_SCHEMA = """
create table if not exists messages (
    id integer primary key, time text not null, message_id text not null, sender text not null,
    rcpt text not null, subject text not null, size integer not null, path text not null, offset integer not null
);
create table if not exists progress (
    only_row integer primary key check (only_row = 1), log_end integer, last_id integer
);
insert or ignore into progress values (1, 0, 0);
"""
_SELECT = r"""
select * from messages
where id > :after
  and (:pattern = '' or rcpt like :pattern escape '\' or subject like :pattern escape '\'
       or message_id like :pattern escape '\')
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One accepted message as the log tells it; the message itself is at `offset` of the file `path`."""

    id: int
    time: str
    message_id: str
    sender: str
    rcpt: tuple[str, ...]
    subject: str
    size: int
    path: str
    offset: int


class Mailbox:
    """The messages of one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._lock = threading.RLock()
        self.arrived = threading.Condition(self._lock)
        self._owner = (directory / "lock").open("w")
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._owner.close()
            raise Misconfigured(f"{directory} is in use by another mail sink; give each its own --directory") from None
        self._pending: list[Entry] = []
        self._index = sqlite3.connect(directory / "index.sqlite", check_same_thread=False, isolation_level=None)
        self._index.executescript("pragma journal_mode = wal; pragma synchronous = off;" + _SCHEMA)
        self._log = os.open(self._log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._catch_up()
        self._segment = -1
        self._segment_name = ""
        self._segment_size = 0

    @property
    def _log_path(self) -> Path:
        return self._directory / "accepted.jsonl"

    def _catch_up(self) -> None:
        """Bring the index to the end of the log; a half-written last line (a crash) is cut off."""
        end = os.fstat(self._log).st_size
        indexed, self._last_id = self._index.execute("select log_end, last_id from progress").fetchone()
        if indexed > end:
            self._index.execute("delete from messages")
            indexed = 0
        with self._log_path.open("rb") as log:
            log.seek(indexed)
            for line in log:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._log, indexed)
                    break
                indexed += len(line)
                fields = json.loads(line)
                entry = Entry(**fields | {"rcpt": tuple(fields["rcpt"])})
                self._last_id = max(self._last_id, entry.id)
                self._pending.append(entry)
        self._log_end = indexed
        self._flush()

    def append(self, sender: str, rcpt: Sequence[str], content: bytes, *, now: datetime) -> Entry:
        """Keep one message; returns once it would survive a kill."""
        headers = _headers(content)
        with self._lock:
            if self._segment < 0 or self._segment_size + len(content) > SEGMENT_BYTES:
                self._open_segment()
            entry = Entry(
                id=self._last_id + 1, time=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                message_id=headers.get("message-id", ""), sender=sender, rcpt=tuple(rcpt),
                subject=headers.get("subject", ""), size=len(content),
                path=self._segment_name, offset=self._segment_size,
            )  # fmt: skip
            _write(self._segment, content)
            self._segment_size += len(content)
            line = json.dumps({name: getattr(entry, name) for name in Entry.__slots__}).encode() + b"\n"
            _write(self._log, line)
            self._log_end += len(line)
            self._last_id = entry.id
            self._pending.append(entry)
            if len(self._pending) >= _PENDING:
                self._flush()
            self.arrived.notify_all()
        return entry

    def _open_segment(self) -> None:
        """Begin a file of its own for this run, so that what a crash left half-written is never appended to."""
        if self._segment >= 0:
            os.close(self._segment)
        number = 1 + max((int(path.stem[5:]) for path in self._directory.glob("mail-*.bin")), default=0)
        self._segment_name = f"mail-{number:06d}.bin"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._segment = os.open(self._directory / self._segment_name, flags, 0o600)
        self._segment_size = 0

    def _flush(self) -> None:
        rows = [(*(getattr(entry, name) for name in Entry.__slots__[:4]), "\n".join(entry.rcpt),
                 entry.subject, entry.size, entry.path, entry.offset) for entry in self._pending]  # fmt: skip
        self._pending.clear()
        self._index.execute("begin")
        self._index.executemany("insert or replace into messages values (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._index.execute("update progress set log_end = ?, last_id = ?", (self._log_end, self._last_id))
        self._index.execute("commit")

    def count(self, search: str = "") -> int:
        """How many messages are kept, or match (see `newest`)."""
        with self._lock:
            return int(self._asked(_SELECT.replace("*", "count(*)", 1), _matching(search))[0][0])

    def newest(self, *, search: str = "", skip: int = 0, limit: int = 50) -> list[Entry]:
        """The newest first; `search` is looked for in recipients, subject and Message-ID, whatever the case."""
        values = _matching(search) | {"limit": limit, "skip": skip}
        return self._entries(_SELECT + "order by id desc limit :limit offset :skip", values)

    def after(self, message: int, *, search: str = "", limit: int = 50) -> list[Entry]:
        """Those that came after the message of that id, oldest first; a limit of -1 is none."""
        values = _matching(search, after=message) | {"limit": limit}
        return self._entries(_SELECT + "order by id limit :limit", values)

    def entry(self, message: int) -> Entry:
        """The message of that id.

        Raises:
            NotFound: there is none.
        """
        found = self._entries("select * from messages where id = :id", {"id": message})
        if not found:
            raise NotFound("Message not found")
        return found[0]

    def neighbours(self, message: int) -> tuple[int | None, int | None]:
        """The ids of the next newer and the next older message."""
        with self._lock:
            newer, older = self._asked(
                "select (select min(id) from messages where id > :id), (select max(id) from messages where id < :id)",
                {"id": message},
            )[0]
        return newer, older

    def content(self, entry: Entry) -> bytes:
        """The message as it was received.

        Raises:
            NotFound: it was deleted.
        """
        try:
            with (self._directory / entry.path).open("rb") as segment:
                segment.seek(entry.offset)
                return segment.read(entry.size)
        except FileNotFoundError:
            raise NotFound("Message not found") from None

    def clear(self) -> int:
        """Delete everything; ids go on from where they were. Returns how many messages there were."""
        with self._lock:
            kept = self.count()
            os.ftruncate(self._log, 0)
            self._log_end = 0
            self._index.execute("delete from messages")
            self._flush()
            if self._segment >= 0:
                os.close(self._segment)
            self._segment, self._segment_size = -1, 0
            for path in self._directory.glob("mail-*.bin"):
                path.unlink()
        return kept

    def close(self) -> None:
        """Write the index and let go of the directory."""
        with self._lock:
            self._flush()
            self._index.close()
            os.close(self._log)
            if self._segment >= 0:
                os.close(self._segment)
            self._owner.close()

    def _asked(self, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        with self._lock:
            if self._pending:
                self._flush()
            return self._index.execute(query, values).fetchall()

    def _entries(self, query: str, values: dict[str, Any]) -> list[Entry]:
        rows = (dict(zip(Entry.__slots__, row, strict=True)) for row in self._asked(query, values))
        return [Entry(**row | {"rcpt": tuple(row["rcpt"].split("\n"))}) for row in rows]


def _matching(search: str, *, after: int = 0) -> dict[str, Any]:
    pattern = "%" + re.sub(r"([%_\\])", r"\\\1", search) + "%" if search else ""
    return {"pattern": pattern, "after": after}


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _headers(content: bytes) -> dict[str, str]:
    """The first Message-ID and Subject, decoded."""
    end = content.find(b"\r\n\r\n")
    block = content[: end if 0 <= end <= 65_536 else 65_536]
    found: dict[str, str] = {}
    for name, value in _HEADER.findall(block):
        found.setdefault(name.decode().lower(), decoded(value.decode("utf-8", "replace")))
    return found


def decoded(value: str) -> str:
    """A header value on one line with its encoded words read."""
    flat = " ".join(value.split())
    if "=?" not in flat:
        return flat
    try:
        return " ".join(str(make_header(decode_header(flat))).split())
    except (HeaderParseError, LookupError, ValueError):
        return flat
