"""The mailbox bounces arrive in: a maildir folder or an IMAP folder, read without ever losing a mail.

Promise: a mail is stored as a notice before it is marked as read, and stays where it is; one that cannot be read goes
to `mauto-quarantine` beside it. A mail that comes up again is known by its hash. Called by `processing`.
"""

from __future__ import annotations

import contextlib
import hashlib
import imaplib
import json
import logging
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from sqlalchemy import Engine

from mautolib.classification import bounce_mails
from mautolib.errors import Misconfigured, ProviderUnavailable
from mautolib.feedback.notices import from_mail
from mautolib.feedback.receiving import keep_notice
from mautolib.settings import Settings

__all__ = ["Read", "read_mailbox"]

_LOG = logging.getLogger(__name__)
QUARANTINE: Final = "mauto-quarantine"
#: Of one run; the next one goes on.
MOST_MAILS: Final = 2000
_SECONDS: Final = 30
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a run did with the mailbox: mails stored, known before, and put into quarantine."""

    stored: int = 0
    known: int = 0
    quarantined: int = 0


class _Mailbox(Protocol):
    def waiting(self) -> Iterator[str]: ...

    def raw(self, handle: str) -> bytes: ...

    def done(self, handle: str) -> None: ...

    def quarantine(self, handle: str) -> None: ...


def read_mailbox(engine: Engine, settings: Settings, *, now: datetime) -> Read:
    """Store what the mails in the mailbox say, each once; nothing to do when none is configured.

    Raises:
        Misconfigured: MAUTO_BOUNCE_MAILBOX is no such place, or its login is refused.
        ProviderUnavailable: the IMAP server cannot be reached.
    """
    if not settings.bounce_mailbox:
        return Read()
    counts = {"stored": 0, "known": 0, "quarantined": 0}
    with _opened(settings) as mailbox:
        for _, handle in zip(range(MOST_MAILS), list(mailbox.waiting()), strict=False):
            counts[_take(engine, mailbox, handle, now)] += 1
    if any(counts.values()):
        _LOG.info("bounce mailbox: %s", counts)
    return Read(**counts)


def _take(engine: Engine, mailbox: _Mailbox, handle: str, now: datetime) -> str:
    raw = mailbox.raw(handle)
    try:
        body = json.dumps(from_mail(bounce_mails.read(raw)), ensure_ascii=True)
        # Nothing that a database cannot hold; what remains is printable text.
        body = body.replace("\\u0000", "")
    except Exception:  # noqa: BLE001 - see below
        # Poison: whatever a stranger has written must not keep the other mails from being read.
        _LOG.exception("a mail in the bounce mailbox cannot be read; it is in %s", QUARANTINE)
        mailbox.quarantine(handle)
        return "quarantined"
    with engine.begin() as tx:
        is_new = keep_notice(tx, "mail", hashlib.sha256(raw).hexdigest(), body, now=now)
    mailbox.done(handle)
    return "stored" if is_new else "known"


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[_Mailbox]:
    where = settings.bounce_mailbox
    if "://" not in where:
        yield _Maildir(Path(where))
        return
    try:
        with _imap(settings) as connection:
            yield _Imap(connection)
    except (OSError, imaplib.IMAP4.abort) as error:
        raise ProviderUnavailable(f"The bounce mailbox cannot be reached ({type(error).__name__})") from error
    except imaplib.IMAP4.error as error:
        raise Misconfigured(f"The bounce mailbox refuses us: {str(error)[:200]}") from error


class _Maildir:
    """A maildir: unread mails are in `new`, or in `cur` without the flag S."""

    def __init__(self, path: Path) -> None:
        if not (path / "new").is_dir():
            raise Misconfigured(f"MAUTO_BOUNCE_MAILBOX is {str(path)!r}, which is no maildir (it has no folder new)")
        self._path = path
        for folder in ("cur", "tmp"):
            (path / folder).mkdir(exist_ok=True)

    def waiting(self) -> Iterator[str]:
        for folder in ("new", "cur"):
            for path in sorted((self._path / folder).iterdir()):
                if path.is_file() and "S" not in path.name.partition(":2,")[2]:
                    yield f"{folder}/{path.name}"

    def raw(self, handle: str) -> bytes:
        with (self._path / handle).open("rb") as file:
            return file.read(bounce_mails.MAX_BYTES)

    def done(self, handle: str) -> None:
        self._move(handle, self._path / "cur")

    def quarantine(self, handle: str) -> None:
        box = self._path / f".{QUARANTINE}"
        for folder in ("new", "cur", "tmp"):
            (box / folder).mkdir(parents=True, exist_ok=True)
        self._move(handle, box / "cur")

    def _move(self, handle: str, folder: Path) -> None:
        base, _, flags = Path(handle).name.partition(":2,")
        marked = "".join(sorted({*flags, "S"}))
        # Somebody reading the same maildir may have been faster; the mail is there all the same.
        with contextlib.suppress(FileNotFoundError):
            (self._path / handle).rename(folder / f"{base}:2,{marked}")


@contextlib.contextmanager
def _imap(settings: Settings) -> Iterator[imaplib.IMAP4]:
    try:
        url = urlsplit(settings.bounce_mailbox)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise Misconfigured("MAUTO_BOUNCE_MAILBOX is not a URL like imaps://host/INBOX") from None
    if url.scheme not in ("imap", "imaps") or not host or url.username:
        raise Misconfigured("MAUTO_BOUNCE_MAILBOX is a folder or imaps://host/INBOX; the login has settings of its own")
    if url.scheme == "imap" and host not in _LOCAL:
        raise Misconfigured("MAUTO_BOUNCE_MAILBOX: without TLS (imap://) only this machine is spoken to")
    if url.scheme == "imaps":
        connection: imaplib.IMAP4 = imaplib.IMAP4_SSL(
            host, port or 993, ssl_context=ssl.create_default_context(), timeout=_SECONDS
        )
    else:
        connection = imaplib.IMAP4(host, port or 143, timeout=_SECONDS)
    with connection:
        connection.login(settings.bounce_mailbox_username, settings.bounce_mailbox_password)
        folder = unquote(url.path.lstrip("/")) or "INBOX"
        status, _ = connection.select(_quoted(folder))
        if status != "OK":
            raise Misconfigured(f"The bounce mailbox has no folder {folder!r}")
        yield connection


class _Imap:
    """An IMAP folder: unread mails are those without \\Seen."""

    def __init__(self, connection: imaplib.IMAP4) -> None:
        self._connection = connection

    def waiting(self) -> Iterator[str]:
        _, data = self._connection.uid("SEARCH", "UNSEEN")
        yield from (data[0] or b"").decode("ascii").split()

    def raw(self, handle: str) -> bytes:
        _, data = self._connection.uid("FETCH", handle, f"(BODY.PEEK[]<0.{bounce_mails.MAX_BYTES}>)")
        return next((part[1] for part in data or () if isinstance(part, tuple)), b"")

    def done(self, handle: str) -> None:
        self._connection.uid("STORE", handle, "+FLAGS.SILENT", r"(\Seen)")

    def quarantine(self, handle: str) -> None:
        self._connection.create(QUARANTINE)
        self._connection.uid("COPY", handle, QUARANTINE)
        self._connection.uid("STORE", handle, "+FLAGS.SILENT", r"(\Seen \Flagged)")


def _quoted(folder: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", folder) or not folder.isascii():
        raise Misconfigured("MAUTO_BOUNCE_MAILBOX: the folder's name has characters it must not have")
    escaped = folder.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
