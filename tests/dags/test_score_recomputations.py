"""The scoring DAG and recomputations: worked on in any run, the only thing in a run they started; the nights stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from mautolib.contacts import NewContact, create
from mautolib.scoring import recomputations

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mautolib.scoring.recomputations import Recomputation


def ask(engine: Engine) -> int:
    """Two days of one contact."""
    now = datetime.now(UTC)
    yesterday = now.date() - timedelta(days=1)
    with engine.begin() as tx:
        create(tx, NewContact(email="anna@shop.example"), actor="test", now=now - timedelta(days=9))
        asked = recomputations.request(tx, from_day=yesterday, to_day=now.date(), actor="test", now=now)
    return asked.recomputation_id


def get(engine: Engine, recomputation_id: int) -> Recomputation:
    with engine.begin() as tx:
        return recomputations.get(tx, recomputation_id)


def test_a_run_works_on_what_was_asked_for(run_dag: Any, fresh_engine: Engine) -> None:
    asked = ask(fresh_engine)
    assert run_dag("score_recalculation", dry_run=True).state == "success"
    assert get(fresh_engine, asked).status == "queued", "a dry run leaves it"
    assert run_dag("score_recalculation").state == "success"
    done = get(fresh_engine, asked)
    assert (done.status, done.contacts, done.snapshots) == ("completed", 1, 2)


def test_a_run_that_a_recomputation_started_scores_nobody_else() -> None:
    from mauto_airflow import runs

    # No connection is there: it decides before it would need one.
    assert runs.settle_scores({"dag_run": SimpleNamespace(run_type="asset_triggered"), "params": {}}) == []


@pytest.fixture
def scheduled(dagbag: Any) -> Any:
    """The DAG as the scheduler has it."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(DagSerialization.to_dict(dagbag.dags["score_recalculation"]))


def test_the_nights_and_backfills_are_what_they_were(scheduled: Any) -> None:
    from airflow.models.backfill import _get_info_list

    assert scheduled.timetable.periodic and scheduled.timetable.can_be_scheduled
    assert [asset.name for _, asset in scheduled.timetable.asset_condition.iter_assets()] == [
        "mauto/queue/recomputations"
    ]
    first, last = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 4, tzinfo=UTC)
    days = _get_info_list(from_date=first, to_date=last, reverse=False, dag=scheduled)
    assert [(info.data_interval.start.isoformat(), info.data_interval.end.isoformat()) for info in days] == [
        (f"2026-03-0{day}T00:30:00+00:00", f"2026-03-0{day + 1}T00:30:00+00:00") for day in (1, 2, 3)
    ]
    following = scheduled.next_dagrun_info(last_automated_run_info=days[-1], restricted=False)
    assert following.run_after.isoformat() == "2026-03-05T00:30:00+00:00"
    assert following.data_interval.start.isoformat() == "2026-03-04T00:30:00+00:00"
