"""One Chromium for all browser tests, and the running service they look at.

The browser is the system's; without one, or without playwright (requirements-dev.txt), the tests are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live_service import admin, editor, nobody, service, viewer

__all__ = ["admin", "editor", "nobody", "service", "viewer"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lives here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.thorough)


@pytest.fixture(scope="package")  # ended before other folders run event loops of their own
def chromium() -> Iterator[Any]:
    """A running Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
