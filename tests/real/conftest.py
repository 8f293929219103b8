"""Checks against real data, outside the default run: `make check-real DATA=<folder>` sets MAUTO_REAL_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.dags.conftest import airflow_database, dagbag, run_dag

__all__ = ["airflow_database", "dagbag", "data", "run_dag"]

# Without the data there is nothing to collect, and so nothing to skip.
collect_ignore_glob = [] if os.environ.get("MAUTO_REAL_DATA") else ["test_*.py"]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with the data and its golden numbers."""
    return Path(os.environ["MAUTO_REAL_DATA"])
