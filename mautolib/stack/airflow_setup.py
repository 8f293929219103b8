"""Airflow as this project runs it: its environment, its commands, and the few facts set in its metadata.

The settings make task slots free at once and keep everything on this machine (no log servers, no examples, no
anonymous admin); the numbers were measured with Airflow 3.3. Metadata is touched by SQL for three things only, each
of which would cost seconds through Airflow's own command line: pools, dead jobs, and "is it migrated".
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg2

from mautolib.errors import ProviderUnavailable
from mautolib.settings import Settings
from mautolib.stack.home import CHECKOUT, write_private
from mautolib.stack.plan import LOOPBACK, Plan

__all__ = ["COMPONENTS", "FAB", "POOLS", "WORKER", "command", "dags_folder", "environment", "is_migrated",
           "make_administrator", "prepare_metadata", "remember_migration"]  # fmt: skip

#: Component -> (arguments of `airflow`, its job type in the metadata).
COMPONENTS: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    "airflow-api-server": (("api-server",), None),
    "airflow-scheduler": (("scheduler", "--skip-serve-logs"), "SchedulerJob"),
    "airflow-dag-processor": (("dag-processor",), "DagProcessorJob"),
    "airflow-triggerer": (("triggerer", "--skip-serve-logs"), "TriggererJob"),
}
#: Takes tasks from CeleryExecutor's queue, on any machine; logs are read from the folder all machines share.
WORKER = ("celery", "worker", "--skip-serve-logs")
_SIMPLE = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
#: Users of the Airflow UI in Airflow's own database (requirements-scale.txt).
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
POOLS = {"bulk": (2, "imports and marketing mail"), "transactional": (2, "mail and webhooks that must not wait"),
         "warehouse": (2, "set-based work inside the database")}  # fmt: skip


def command(*arguments: str) -> list[str]:
    """The command line of an `airflow` subcommand in this environment."""
    return [sys.executable, "-m", "airflow", *arguments]


def environment(plan: Plan) -> dict[str, str]:
    """The environment of every Airflow process; the user's own AIRFLOW__ variables win over our tuning."""
    own = {name: value for name, value in plan.outside.items() if name.startswith("AIRFLOW__")}
    return {
        **plan.environment("worker", "eraser"),
        **{f"AIRFLOW__{name}": value for name, value in _tuned(plan.settings).items()},
        **own,
        **{f"AIRFLOW__{name}": value for name, value in _fixed(plan).items()},
        "AIRFLOW_HOME": str(plan.home.airflow),
        "AIRFLOW_CONN_MAUTO_WAREHOUSE": plan.settings.url_for("worker").replace("postgresql://", "postgres://", 1),
        # Deprecations inside Airflow's own dependencies; ours are errors in the tests.
        "PYTHONWARNINGS": "ignore",
    }


def _tuned(settings: Settings) -> dict[str, str]:
    return {
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": str(settings.airflow_parallelism),
        # The default asks the resolver for a full name: seconds on a machine without a network.
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        # A task slot is held for this long after its task ended; 5 by default, 1 is the least.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "15",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "LOGGING__LOGGING_LEVEL": "INFO",
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        "API__INSTANCE_NAME": "MarketingAutomation-Lite",
    }


def _fixed(plan: Plan) -> dict[str, str]:
    """Where it connects and who may sign in: what a user's variable must not change by accident.

    Another auth manager is no accident.
    """
    settings, secrets, is_local = plan.settings, plan.secrets, plan.airflow_host == LOOPBACK
    return {
        "CORE__DAGS_FOLDER": str(dags_folder()),
        "CORE__PLUGINS_FOLDER": str(plugins_folder(plan)),
        "CORE__FERNET_KEY": secrets["AIRFLOW_FERNET_KEY"],
        "CORE__EXECUTION_API_SERVER_URL": f"{plan.airflow_url}/execution/",
        "CORE__AUTH_MANAGER": plan.outside.get("AIRFLOW__CORE__AUTH_MANAGER") or _SIMPLE,
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.admin_email}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_passwords_file(plan)),
        "API__HOST": LOOPBACK if is_local else "0.0.0.0",  # noqa: S104 - in a container, published by choice
        "API__PORT": str(plan.port("MAUTO_AIRFLOW_PORT")),
        "API__BASE_URL": plan.airflow_url if is_local else settings.airflow_url,
        "API__SECRET_KEY": secrets["AIRFLOW_API_SECRET_KEY"],
        "API_AUTH__JWT_SECRET": secrets["AIRFLOW_JWT_SECRET"],
        "DATABASE__SQL_ALCHEMY_CONN": _sqlalchemy_url(settings.airflow_database_url),
        "LOGGING__BASE_LOG_FOLDER": str(plan.home.logs / "tasks"),
        "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(plan.home.logs / "dag-files"),
    }


def dags_folder() -> Path:
    """The DAG files: the checkout's, or those inside the installed package."""
    return CHECKOUT / "dags" if CHECKOUT else Path(__file__).parents[1] / "_files" / "dags"


def plugins_folder(plan: Plan) -> Path:
    """The plugin files: the checkout's, or a folder with a link to the installed ones."""
    return CHECKOUT / "plugins" if CHECKOUT else plan.home.airflow / "plugins"


def prepare_files(plan: Plan) -> None:
    """Give Airflow the same administrator as the API, and its plugins where there is no checkout."""
    settings = plan.settings
    write_private(_passwords_file(plan), json.dumps({settings.admin_email: settings.admin_password}))
    package = importlib.util.find_spec("mauto_airflow")
    if CHECKOUT is None and package is not None and package.submodule_search_locations:
        folder = plugins_folder(plan)
        folder.mkdir(exist_ok=True)
        link = folder / "mauto_airflow"
        link.unlink(missing_ok=True)
        link.symlink_to(package.submodule_search_locations[0])


def is_migrated(plan: Plan) -> bool:
    """Whether the metadata is where `remember_migration` left it for this very version of Airflow."""
    stamp = _stamp(plan)
    revision = _revision(plan)
    return bool(revision) and stamp.is_file() and stamp.read_text(encoding="utf-8") == _mark(revision)


def remember_migration(plan: Plan) -> None:
    """Note the revision of the metadata, so that the next start can skip seconds of checking."""
    write_private(_stamp(plan), _mark(_revision(plan)))


def prepare_metadata(plan: Plan) -> None:
    """Create the pools (sizes changed by a user stay)."""
    _execute(
        plan,
        "insert into slot_pool (pool, slots, description, include_deferred) values (%s, %s, %s, false)"
        " on conflict (pool) do nothing",
        [(name, slots, text) for name, (slots, text) in POOLS.items()],
    )


def make_administrator(plan: Plan) -> None:
    """Where Airflow keeps its users itself, make the administrator one of them; who is there already stays as is.

    Raises:
        ProviderUnavailable: Airflow refused.
    """
    given, settings = environment(plan), plan.settings
    if given["AIRFLOW__CORE__AUTH_MANAGER"] != FAB:
        return
    email, password = settings.admin_email, settings.admin_password
    user = ["--username", email, "--email", email, "--firstname", "Admin", "--lastname", "mauto", "--role", "Admin"]
    # A session of its own has no terminal: the password is asked for on the standard input, and in no process list.
    done = subprocess.run(command("users", "create", *user), env=given, input=f"{password}\n{password}\n", text=True,
                          capture_output=True, check=False, start_new_session=True)  # fmt: skip
    if done.returncode != 0:
        raise ProviderUnavailable(f"`airflow users create` failed: {done.stderr.strip()[-500:]}")


def bury_jobs(plan: Plan, component: str) -> None:
    """Mark the jobs of a component that has ended as failed, so that its successor takes its tasks over at once.

    Airflow would find out by itself, by heartbeats that stay away for 30 s. Only where the metadata is
    ours alone: elsewhere another scheduler may be alive.
    """
    job_type = COMPONENTS[component][1]
    if job_type is None or not plan.is_embedded:
        return
    _execute(
        plan,
        "update job set state = 'failed', end_date = now() where job_type = %s and state = 'running'",
        [(job_type,)],
    )


def _execute(plan: Plan, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    url = plan.settings.airflow_database_url
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.executemany(statement, rows)
        connection.commit()


def _passwords_file(plan: Plan) -> Path:
    return plan.home.airflow / "passwords.json"


def _stamp(plan: Plan) -> Path:
    return plan.home.airflow / "migrated"


def _mark(revision: str) -> str:
    return f"{importlib.metadata.version('apache-airflow-core')} {revision}"


def _revision(plan: Plan) -> str:
    url = plan.settings.airflow_database_url
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass('alembic_version') is not null")
        if cursor.fetchone() != (True,):
            return ""
        cursor.execute("select version_num from alembic_version")
        row = cursor.fetchone()
        return str(row[0]) if row else ""


def _sqlalchemy_url(url: str) -> str:
    return urllib.parse.urlsplit(url)._replace(scheme="postgresql+psycopg2").geturl()
