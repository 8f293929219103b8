"""Every figure of the comparison can be asked of a warehouse, an empty one too."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Engine

from tests.scale.figures import COUNTS, ROWS, figures


def test_every_figure_can_be_asked(fresh_engine: Engine) -> None:
    found = figures(fresh_engine, datetime(2026, 3, 1, tzinfo=UTC))
    assert len(found) == len(COUNTS) + len(ROWS)
    assert found["contacts"] == "0"
    assert found["rows: messages"] == "0 (None)"
