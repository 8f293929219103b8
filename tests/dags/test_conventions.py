"""What every DAG must be, asserted over the DagBag: a new DAG is covered without writing a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path.stem for path in (ROOT / "dags").glob("*.py"))
#: The face of the product in Airflow (ARCHITECTURE.md): dag_id -> (params, pools, asset it emits).
FACE = {
    "contact_import": (
        {"import_id", "path", "mapping", "update_policy", "preset", "options", "dry_run"}, {"bulk"},
        "mauto/contacts/imported",
    ),
    "score_recalculation": ({"as_of", "rule_version", "buckets", "dry_run"}, {"warehouse"}, "mauto/scores"),
    "campaign_send": ({"campaign_id", "senders", "group_size", "dry_run"}, {"bulk", "transactional"}, "mauto/messages"),
    "workflow_advance": ({"workflow_id", "dry_run"}, {"warehouse"}, "mauto/enrollments"),
    "cohort_analytics": ({"as_of", "from", "to", "rebuild"}, {"warehouse"}, "mauto/analytics"),
    "feedback_processing": ({"recompute_verdicts"}, {"warehouse"}, "mauto/feedback"),
    "webhook_delivery": ({"endpoint_id"}, {"transactional"}, None),
    "maintenance": ({"task"}, {"warehouse"}, None),
}


def test_every_file_is_one_dag_of_its_name(dagbag: Any) -> None:
    assert dagbag.import_errors == {}
    assert sorted(dagbag.dags) == FILES
    assert sorted(FACE) == FILES


def test_parsing_is_quick(dagbag: Any) -> None:
    slowest = max(dagbag.dagbag_stats, key=lambda stat: stat.duration)
    assert slowest.duration.total_seconds() < 2, slowest


@pytest.mark.parametrize("dag_id", FILES)
def test_a_dag_has_the_face_of_the_house(dagbag: Any, dag_id: str) -> None:
    dag = dagbag.dags[dag_id]
    params, pools, asset = FACE[dag_id]
    assert set(dag.params) == params
    assert {task.pool for task in dag.tasks} - {"default_pool"} == pools
    emitted = {outlet.name for task in dag.tasks for outlet in task.outlets}
    assert emitted == ({asset} if asset else set())


@pytest.mark.parametrize("dag_id", FILES)
def test_a_dag_keeps_the_conventions(dagbag: Any, dag_id: str) -> None:
    from mauto_airflow.conventions import TAGS

    dag = dagbag.dags[dag_id]
    # Mail that people wait for begins though two runs are at a large campaign.
    # A second run of webhooks would only take the slot such mail needs: the first goes on while anything is due.
    assert dag.max_active_runs == {"campaign_send": 4, "webhook_delivery": 1}.get(dag_id, 2)
    assert not dag.catchup
    assert dag.tags and set(dag.tags) <= TAGS
    for heading in ("**What it does.**", "**When it runs.**", "**Safe to run again.**", "**A failure means**"):
        assert heading in dag.doc_md
    for task in dag.tasks:
        assert task.owner == "mauto"
        assert task.retries == 3
        assert task.execution_timeout is not None
        assert task.retry_policy is not None
        assert task.has_on_failure_callback or task.on_failure_callback


@pytest.mark.parametrize("dag_id", FILES)
def test_every_form_field_explains_itself(dagbag: Any, dag_id: str) -> None:
    params = dagbag.dags[dag_id].params
    for name, param in ((name, params.get_param(name)) for name in params):
        assert param.schema.get("title"), name
        assert param.description, name


def test_a_queue_dag_also_looks_by_itself(dagbag: Any) -> None:
    for dag_id in ("contact_import", "campaign_send", "workflow_advance"):
        assert dagbag.dags[dag_id].timetable.timetable.expression == "*/10 * * * *"


def test_what_people_wait_for_needs_no_slot_of_the_bulk_pool(dagbag: Any) -> None:
    dag = dagbag.dags["campaign_send"]
    urgent = dag.get_task("urgent")
    assert (urgent.pool, urgent.upstream_task_ids, urgent.downstream_task_ids) == ("transactional", set(), {"plan"})
    assert {name for name in dag.task_ids if dag.get_task(name).pool == "bulk"} == {"plan", "send"}
