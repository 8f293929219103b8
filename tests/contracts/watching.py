"""A watch that notes what it was asked and can be told what to answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from mautolib.channels.protocol import Outgoing
from mautolib.ledger.model import Result


@dataclass
class NotingWatch:
    """Lets everything pass, except message ids in `keep` (before) and `stop` (at the last moment)."""

    keep: dict[int, Result] = field(default_factory=dict)
    stop: set[int] = field(default_factory=set)
    begun: list[int] = field(default_factory=list)

    def before(self, message: Outgoing) -> Result | None:
        return self.keep.get(message.message_id)

    def begins(self, message: Outgoing) -> bool:
        if message.message_id in self.stop:
            return False
        self.begun.append(message.message_id)
        return True


def outgoing(number: int = 1, recipient: str = "", data: bytes = b"", sender: str = "news@shop.example") -> Outgoing:
    """A small message to somebody who does not exist."""
    return Outgoing(
        message_id=number, contact_id=number, attempt_id=7, sender=sender,
        recipient=recipient or f"person{number}@mail.example",
        data=data or b"From: <news@shop.example>\r\nSubject: Hello\r\n\r\nText\r\n",
    )  # fmt: skip
