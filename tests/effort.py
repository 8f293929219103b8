"""How much of a long row of examples `make test` runs: the first; `make test-all` and the gate run all."""

from __future__ import annotations

from typing import Any

import pytest


def first_and_others(count: int) -> list[Any]:
    """The numbers 0 to count - 1 as parameters of a test, all but the first marked `thorough`."""
    return [0, *(pytest.param(number, marks=pytest.mark.thorough) for number in range(1, count))]
