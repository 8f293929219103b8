"""A short game of killed workers; the long one is `python -m tests.chaos.workflows`."""

from __future__ import annotations

import pytest

from tests.chaos.workflows import play

pytestmark = pytest.mark.thorough


def test_killed_workers_and_edits_lose_and_repeat_nothing() -> None:
    told = play(people=300, kills=6, edits=5, workers=2, seed=7)
    assert told["wrong"] == {}
    assert told["logs"] == 300 * 7 + 150
    assert told["versions_in_use"] > 1
