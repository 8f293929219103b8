"""The console channel: nothing leaves this machine; every message is appended to a file, for trying things out.

Promise: a message counts as sent once it is in the file, an mbox (RFC 4155, `mboxrd` quoting) that any mail program
opens. Registered as `console`; never a default.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mautolib.channels.protocol import Outgoing, Watch
from mautolib.channels.wire import check_data, unfit, wire_address
from mautolib.errors import Misconfigured, ProviderRejected, ProviderUnavailable
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)


class Console:
    """Appends messages to one mbox file."""

    name = "console"

    def __init__(self, path: Path) -> None:
        """`path` is created with the first message."""
        self.path = path

    @classmethod
    def from_settings(cls, settings: Settings) -> Console:
        """`console.mbox` in the local storage folder.

        Raises:
            Misconfigured: the storage is not a folder of this machine.
        """
        if settings.storage.startswith("s3://"):
            raise Misconfigured("MAUTO_CHANNEL=console needs a local folder in MAUTO_STORAGE")
        return cls(settings.storage_path / "console.mbox")

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        """Write `messages` one by one; see `Channel.deliver`."""
        for message in messages:
            kept = watch.before(message)
            yield kept if kept is not None else self._one(message, watch)

    def close(self) -> None:
        """Nothing is held open."""

    def _one(self, message: Outgoing, watch: Watch) -> Result:
        try:
            wire_address(message.recipient, smtputf8=True)
            sender = wire_address(message.sender)
            check_data(message.data)
        except ProviderRejected as error:
            return unfit(error)
        text = _FROM_LINE.sub(rb">\1", message.data.replace(b"\r\n", b"\n"))
        if not watch.begins(message):
            return Result(verdict=Verdict.RELEASED, stage=Stage.BODY, reply="stopped before the end")
        self._append(b"From " + sender.encode() + b"\n" + text + b"\n")
        _LOG.info("message %s to contact %s written to %s", message.message_id, message.contact_id, self.path)
        return Result(verdict=Verdict.SENT, stage=Stage.DOT, reply="written", provider_id=str(message.attempt_id))

    def _append(self, block: bytes) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, block)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ProviderUnavailable(f"{self.path} cannot be written: {error.strerror}") from error
