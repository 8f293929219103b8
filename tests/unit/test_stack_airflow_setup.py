"""Airflow's environment: nobody is admin without a password, slots are free at once, only our metadata is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mautolib.stack import airflow_setup
from mautolib.stack.home import CHECKOUT, Home
from mautolib.stack.plan import Plan, make_plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(Home(tmp_path / "home"), {"PATH": "/bin", "AIRFLOW__CORE__PARALLELISM": "3",
                                               "AIRFLOW__CORE__FERNET_KEY": "theirs",
                                               "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite://"})  # fmt: skip


def test_there_is_no_anonymous_administrator_and_no_example(plan: Plan) -> None:
    seen = airflow_setup.environment(plan)
    assert seen["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    assert seen["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert seen["AIRFLOW__API__HOST"] == "127.0.0.1"
    airflow_setup.prepare_files(plan)
    file = Path(seen["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()) == {plan.settings.admin_email: plan.settings.admin_password}
    assert seen["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] == f"{plan.settings.admin_email}:admin"


def test_tuning_may_be_changed_but_not_where_it_connects(plan: Plan) -> None:
    seen = airflow_setup.environment(plan)
    assert seen["AIRFLOW__CORE__PARALLELISM"] == "3"
    assert seen["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] == "1"
    assert seen["AIRFLOW__CORE__FERNET_KEY"] == plan.secrets["AIRFLOW_FERNET_KEY"]
    assert seen["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg2://airflow:")
    port = plan.port("MAUTO_AIRFLOW_PORT")
    assert seen["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"http://127.0.0.1:{port}/execution/"


def test_tasks_work_as_the_worker_and_never_as_the_owner(plan: Plan) -> None:
    seen = airflow_setup.environment(plan)
    assert seen["AIRFLOW_CONN_MAUTO_WAREHOUSE"].startswith("postgres://mauto_worker:")
    assert "MAUTO_DATABASE_URL" not in seen
    assert plan.secrets["DATABASE_PASSWORD_OWNER"] not in "".join(seen.values())


def test_the_dags_of_this_checkout_are_run(plan: Plan) -> None:
    assert CHECKOUT is not None
    assert airflow_setup.environment(plan)["AIRFLOW__CORE__DAGS_FOLDER"] == str(CHECKOUT / "dags")
