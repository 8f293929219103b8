"""Which moment a run is about, with the run types as a task sees them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType

from mauto_airflow import moments


def context(run_type: DagRunType, as_of: str | None = None) -> dict[str, Any]:
    return {"dag_run": SimpleNamespace(run_type=run_type), "params": {"as_of": as_of}}


@pytest.mark.parametrize("run_type", DagRunType)
def test_a_backfill_and_nothing_else_is_about_the_past_by_itself(run_type: DagRunType) -> None:
    assert moments.is_past(context(run_type)) is (run_type is DagRunType.BACKFILL)


def test_a_moment_given_by_hand_is_about_the_past() -> None:
    assert moments.is_past(context(DagRunType.MANUAL, "2026-03-01"))
