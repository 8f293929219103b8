"""The API while its database is killed under load: the short version of tests/chaos/operations.py."""

from __future__ import annotations

import pytest

from tests.chaos.ground import ground
from tests.chaos.operations import is_clean, play


@pytest.mark.slow
def test_a_database_that_dies_under_load_costs_nothing_but_503s() -> None:
    with ground() as place:
        verdict = play(place, restarts=1, between_seconds=3.0)
    assert is_clean(verdict), verdict
    assert verdict["statuses"]["campaigns"]["503"] and verdict["acknowledged"]["events"], verdict
