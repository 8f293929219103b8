"""Deliverers of webhooks are killed: the short version of tests/chaos/webhooks.py."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from mautolib.settings import Settings
from tests.chaos.webhooks import is_clean, play

pytestmark = pytest.mark.thorough


def test_killed_deliverers_lose_nothing(fresh_engine: Engine, settings: Settings) -> None:
    verdict = play(fresh_engine, settings, deliveries=1200, kills=4)
    assert is_clean(verdict), verdict
    assert verdict["kills"] >= 2, verdict
