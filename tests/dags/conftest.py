"""A throw-away Airflow beside the throw-away warehouse: the environment is set before airflow is first imported."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

ROOT = Path(__file__).parents[2]
_HOME = tempfile.mkdtemp(prefix="mauto-airflow-")
os.environ.update(
    {
        "AIRFLOW_HOME": _HOME,
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Airflow's own warnings are not ours to fix."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Airflow's metadata, migrated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.utils.db import initdb

        initdb()


@pytest.fixture(scope="session")
def dagbag(airflow_database: None) -> Any:
    """All DAGs, parsed as the dag-processor does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.dag_processing.dagbag import DagBag

        return DagBag(ROOT / "dags")


@pytest.fixture
def run_dag(dagbag: Any, fresh_engine: Engine, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`run_dag("contact_import", path=...)`: one real run against the fresh warehouse; returns the finished run."""
    from airflow.dag_processing.dagbag import DagBag

    from mautolib.settings import variable

    url = fresh_engine.url.set(drivername="postgres").render_as_string(hide_password=False)
    monkeypatch.setenv("AIRFLOW_CONN_MAUTO_WAREHOUSE", url)
    monkeypatch.setenv("MAUTO_DATABASE_URL", url)
    for name in (
        "environment", "suppression_pepper", "home", "default_from_name", "default_from_email", "postal_address",
        "smtp_host", "smtp_port",
    ):  # fmt: skip
        monkeypatch.setenv(variable(name), str(getattr(settings, name)))
    monkeypatch.setenv("MAUTO_SECRET_KEYS", ",".join(settings.secret_keys))

    def run(dag_id: str, **conf: Any) -> Any:
        # Parsed anew: dag.test() writes the run's values into the DAG it is given.
        dag = DagBag(ROOT / "dags" / f"{dag_id}.py").dags[dag_id]
        dag.deadline = None  # dag.test() cannot finish a run with a deadline (apache/airflow#73428)
        return dag.test(run_conf=conf)

    yield run
