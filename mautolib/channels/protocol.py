"""What a channel is: it takes finished messages one after another and says what became of each.

Promise of every channel: exactly one result per message taken, in order; never a second hand-over of a message
whose acceptance is in doubt; nothing handed over that its watch refused. What ails the connection, not one message,
is raised, and every message without a result was surely not handed over. The contract suite checks all of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

from mautolib.ledger.model import Result


class Outgoing(NamedTuple):
    """A finished message: envelope and bytes.

    Args:
        sender: envelope sender (MAIL FROM).
        recipient: the one address it goes to, as stored.
        data: headers and body with CRLF line ends, not dot-stuffed.
        is_checked: whoever wrote `data` has proved that it is plain ASCII with CRLF line ends and a final one, and
            that no line begins with a dot; channels need not look again.
    """

    message_id: int
    contact_id: int
    attempt_id: int
    sender: str
    recipient: str
    data: bytes
    is_checked: bool = False


class Watch(Protocol):
    """The sender's say in the two moments that matter; asked for every message."""

    def before(self, message: Outgoing) -> Result | None:
        """Asked before anything about `message` is told to the other side; a result keeps it here."""
        ...

    def begins(self, message: Outgoing) -> bool:
        """Asked right before the bytes that may make the other side accept `message`; False stops it."""
        ...


class Channel(Protocol):
    """One way out; belongs to one thread."""

    #: The name in settings and logs.
    name: str

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        """Hand over `messages` in order, yielding the result of each before the next one can be accepted.

        A few messages may be taken ahead; what was taken and has no result was surely not handed over.

        Raises:
            TransientError: the way is closed for now; the messages without a result were not handed over.
            PermanentError: and it will stay closed until a setting changes.
        """
        ...

    def close(self) -> None:
        """Say goodbye politely; never raises."""
        ...


class Pause(Enum):
    """Between handing a message over and its result, when the other side is at work and we need not wait for it."""

    #: A message has just been handed over.
    BEGUN = "begun"
    #: There is still no answer to it.
    WAITING = "waiting"


@runtime_checkable
class TurnTaking(Channel, Protocol):
    """A channel that shares its thread with others of its kind, so that several connections need no threads."""

    def deliver_by_turns(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result | Pause]:
        """As `deliver`, but pauses while the other side is at work; it has to be resumed until it ends."""
        ...
