"""What one process remembers of the last second and minute: bursts of hits, and links that were not made here.

Both are bounded in memory and forget by themselves. Several processes each remember their own share, which only makes
them milder. Called by `api/tracking.py`.
"""

from __future__ import annotations

__all__ = ["Bursts", "WrongLinks"]

_MOST_KEYS = 20_000


class Bursts:
    """How often a key came within about the last second."""

    def __init__(self) -> None:
        self._second = 0
        self._now: dict[tuple[int | str, str], int] = {}
        self._before: dict[tuple[int | str, str], int] = {}

    def count(self, key: tuple[int | str, str], at: float) -> int:
        """Count this one (at `at`, seconds) and return how many came before it."""
        half = int(at * 2)
        if half != self._second:
            # Two generations of half a second each: what is older than a second is gone.
            self._before = self._now if half == self._second + 1 else {}
            self._now, self._second = {}, half
        earlier = self._now.get(key, 0)
        if earlier or len(self._now) < _MOST_KEYS:
            self._now[key] = earlier + 1
        return earlier + self._before.get(key, 0)


class WrongLinks:
    """Links with a wrong signature: few are kept, and one network may not try many."""

    #: A minute's share of raw hits that are kept as `invalid`, from everywhere together.
    KEPT_PER_MINUTE = 120
    #: A minute's share of one network; more are answered 429 (a MAC of 128 bits would hold anyway).
    ASKED_PER_MINUTE = 600

    def __init__(self) -> None:
        self._minute = 0
        self._kept = 0
        self._asked: dict[str, int] = {}

    def count(self, network: str, at: float) -> tuple[bool, bool]:
        """Count one more; returns whether it may be kept and whether its network may still ask."""
        minute = int(at // 60)
        if minute != self._minute:
            self._minute, self._kept, self._asked = minute, 0, {}
        self._kept += 1
        asked = self._asked.get(network, 0) + 1
        if asked > 1 or len(self._asked) < _MOST_KEYS:
            self._asked[network] = asked
        return self._kept <= self.KEPT_PER_MINUTE, asked <= self.ASKED_PER_MINUTE
