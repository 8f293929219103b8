"""Lanes: what a run holds for each endpoint, and how much of it may be under way.

Promise: an endpoint that answers gets more at a time, one that fails or hangs soon only one, and all that fail share
half of the run's connections at most, so that nobody waits for somebody else's receiver. No I/O; belongs to one run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mautolib.webhooks.model import InHand, Receiver

#: Requests under way to one endpoint: at first, and at most.
FIRST_AT_ONCE: Final = 4
MOST_AT_ONCE: Final = 32
#: Deliveries held of one endpoint: at first, and at most.
FIRST_WINDOW: Final = 32
MOST_WINDOW: Final = 1024
FAILING_WINDOW: Final = 2
#: Requests under way of one run, and those of them to endpoints that fail.
MOST_UNDER_WAY: Final = 300
MOST_FAILING_UNDER_WAY: Final = 150
#: With more endpoints than these, a connection is kept only while there is more to say to its receiver: a process may
#: have 1,024 files open.
LANES_KEPT_OPEN: Final = 8


class Held(NamedTuple):
    """A delivery and the moment of the monotonic clock until which it may be begun."""

    delivery: InHand
    begin_by: float


@dataclass
class Lane:
    """The deliveries of one endpoint in the hands of a run."""

    receiver: Receiver
    at_once: int = FIRST_AT_ONCE
    window: int = FIRST_WINDOW
    under_way: int = 0
    is_failing: bool = False
    waiting: deque[Held] = field(default_factory=deque)

    @classmethod
    def of(cls, receiver: Receiver) -> Lane:
        """A lane that begins as what is known of the endpoint says."""
        if receiver.is_failing:
            return cls(receiver, at_once=1, window=FAILING_WINDOW, is_failing=True)
        return cls(receiver)

    @property
    def room(self) -> int:
        """How many more it may hold."""
        return self.window - self.under_way - len(self.waiting)

    def widen(self) -> None:
        """It ran nearly dry: hold more the next time."""
        if not self.is_failing and self.under_way + len(self.waiting) < self.window // 2:
            self.window = min(self.window * 2, MOST_WINDOW)

    def note(self, is_success: bool) -> None:
        """Learn from what became of an attempt."""
        self.is_failing = not is_success
        if is_success:
            self.at_once = min(self.at_once + 1, MOST_AT_ONCE)
            self.window = max(self.window, FIRST_WINDOW)
        else:
            self.at_once = max(1, self.at_once // 2)
            self.window = max(FAILING_WINDOW, self.window // 2)


@dataclass
class Lanes:
    """All lanes of a run."""

    by_endpoint: dict[int, Lane] = field(default_factory=dict)
    under_way: int = 0
    failing_under_way: int = 0

    def add(self, receiver: Receiver) -> Lane:
        """The lane of an endpoint, as it is now."""
        lane = self.by_endpoint.get(receiver.endpoint_id)
        if lane is None:
            lane = self.by_endpoint[receiver.endpoint_id] = Lane.of(receiver)
        lane.receiver = receiver
        return lane

    def begin(self, lane: Lane) -> bool:
        """Count one more attempt of a lane as under way, if it may be."""
        if not lane.waiting or lane.under_way >= lane.at_once or self.under_way >= MOST_UNDER_WAY:
            return False
        if lane.is_failing and self.failing_under_way >= MOST_FAILING_UNDER_WAY:
            return False
        lane.under_way += 1
        self.under_way += 1
        self.failing_under_way += lane.is_failing
        return True

    def end(self, lane: Lane, *, was_failing: bool) -> None:
        """An attempt of a lane ended."""
        lane.under_way -= 1
        self.under_way -= 1
        self.failing_under_way -= was_failing

    def keeps_open(self, lane: Lane) -> bool:
        """Whether the connection of an attempt is worth keeping."""
        return bool(lane.waiting) or len(self.by_endpoint) <= LANES_KEPT_OPEN

    def startable(self) -> Iterator[Lane]:
        """Lanes with something to begin."""
        return (lane for lane in list(self.by_endpoint.values()) if lane.waiting)

    @property
    def held(self) -> int:
        """Deliveries in the hands of the run."""
        return self.under_way + sum(len(lane.waiting) for lane in self.by_endpoint.values())

    def drain(self) -> list[InHand]:
        """All that was not begun; it is no longer held."""
        found = [held.delivery for lane in self.by_endpoint.values() for held in lane.waiting]
        for lane in self.by_endpoint.values():
            lane.waiting.clear()
        return found
