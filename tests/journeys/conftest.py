"""Journeys run the real DAGs, so they share the throw-away Airflow of tests/dags."""

from tests.dags.conftest import airflow_database, dagbag, run_dag

__all__ = ["airflow_database", "dagbag", "run_dag"]
