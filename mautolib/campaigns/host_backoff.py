"""How long a mail server that cannot be reached is left alone: longer each time, until it answers.

Promise: the first pause is about a minute, each further one twice as long up to a quarter of an hour, with jitter so
that senders do not come back all at once; an answer ends it. Senders of one machine share what they learn by a small
file beside the journals; nobody claims anything while a pause lasts. Another server begins anew. Called by the pump.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from mautolib.ledger.journal import journal_folder
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
FIRST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 900.0
#: A pause is up to this part shorter.
JITTER: Final = 0.2


class HostBackoff:
    """What is known of one mail server.

    Args:
        path: where it is kept; an unreadable file is as good as none.
        random: from 0 to 1, makes the jitter.
    """

    def __init__(self, path: Path, *, random: Callable[[], float] = random.random) -> None:
        self._path = path
        self._random = random
        self._lock = threading.Lock()
        self.failures = 0
        self.retry_at: datetime | None = None
        self._load()

    @classmethod
    def of(cls, settings: Settings) -> HostBackoff:
        """That of the server of the settings."""
        server = (settings.channel, settings.smtp_host, settings.smtp_port, settings.smtp_security, settings.ses_region)
        name = hashlib.sha256(repr(server).encode()).hexdigest()[:16]
        return cls(journal_folder(settings).parent / "mail-servers" / f"{name}.json")

    def is_waiting(self, now: datetime) -> bool:
        """Whether the server is to be left alone for now."""
        # A clock that was set back must not make a pause of hours.
        return self.retry_at is not None and now < self.retry_at <= now + timedelta(seconds=LONGEST_SECONDS)

    def failed(self, now: datetime, *, has_answered: bool = False) -> float:
        """Note that the server could not be reached; returns for how many seconds it is left alone.

        Args:
            has_answered: it did answer before, over the same connection: the row of failures begins anew.
        """
        with self._lock:
            self._load()
            if self.retry_at is not None and self.is_waiting(now):
                # Another sender has just noted the same.
                return (self.retry_at - now).total_seconds()
            self.failures = 1 if has_answered else self.failures + 1
            longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.failures - 1, 10))
            seconds = longest * (1 - JITTER * self._random())
            self.retry_at = now + timedelta(seconds=seconds)
            self._save()
        _LOG.warning("the mail server is left alone for %.0f s (failure %s in a row)", seconds, self.failures)
        return seconds

    def answered(self) -> None:
        """Note that it is there."""
        if not self.failures:
            return
        with self._lock:
            self.failures, self.retry_at = 0, None
            self._path.unlink(missing_ok=True)

    def _load(self) -> None:
        self.failures, self.retry_at = 0, None
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            retry_at = datetime.fromisoformat(kept["retry_at"])
            if retry_at.tzinfo is not None:
                self.failures, self.retry_at = max(0, int(kept["failures"])), retry_at

    def _save(self) -> None:
        kept = {"failures": self.failures, "retry_at": self.retry_at.isoformat() if self.retry_at else None}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            written = self._path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
            written.write_text(json.dumps(kept), encoding="utf-8")
            written.replace(self._path)
        except OSError as error:
            # Then only this sender knows.
            _LOG.warning("the pause of the mail server cannot be kept: %s", type(error).__name__)
