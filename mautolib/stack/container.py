"""One process of the stack in a container: `python -m mautolib.stack.container secrets|migrate|NAME`.

`docker-compose.yml` starts each part as a service of its own; here each finds the same settings as under `make up`,
with the services' names as hosts. Secrets are generated once into the shared volume (MAUTO_HOME), so that none has
a default. Not used by the local stack.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from mautolib import log
from mautolib.errors import MautoError, Misconfigured, ProviderUnavailable
from mautolib.settings import refuse_weak
from mautolib.stack import airflow_setup, databases
from mautolib.stack.home import Home
from mautolib.stack.plan import Plan, base_variables, database_urls

__all__ = ["broker_url", "container_plan", "main", "process", "scaled"]

#: Ports inside the containers; which ones are published is docker-compose.yml's matter.
_INSIDE = {"MAUTO_API_PORT": "8000", "MAUTO_AIRFLOW_PORT": "8080", "MAUTO_SMTP_PORT": "1025",
           "MAUTO_MAIL_PAGE_PORT": "8025"}  # fmt: skip
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - inside a container; published to this machine only
#: The profile of docker-compose.yml that adds Redis and workers.
_SCALE = "scale"


def container_plan(environ: Mapping[str, str]) -> Plan:
    """The plan of the composed stack, from the environment of any of its containers.

    Hosts are the services' names unless MAUTO_CONTAINER_POSTGRES, _AIRFLOW or _MAIL_SINK (host or
    host:port) say otherwise. With the profile `scale`, tasks go to Celery workers and the users of Airflow's UI are
    in its own database; AIRFLOW__ variables that are given win.

    Raises:
        Misconfigured: the profile is on and REDIS_PASSWORD is missing or weak.
    """
    home = Home.locate(environ)
    home.prepare()
    secrets = home.secrets()
    hosts = {name: environ.get(f"MAUTO_CONTAINER_{name}", default) for name, default in
             (("POSTGRES", "postgres:5432"), ("AIRFLOW", "airflow-api-server"), ("MAIL_SINK", "mail-sink"))}
    given = {name: value for name, value in environ.items()
             if name.startswith("MAUTO_") and not name.startswith("MAUTO_CONTAINER_") and value.strip()}
    has_sink = not given.get("MAUTO_SMTP_HOST")
    inside = {name: environ.get(f"MAUTO_CONTAINER_{name.removeprefix('MAUTO_')}", port)
              for name, port in _INSIDE.items()}
    variables = {
        "MAUTO_PUBLIC_BASE_URL": f"http://127.0.0.1:{given.get('MAUTO_API_PORT', '8000')}",
        "MAUTO_AIRFLOW_URL": f"http://127.0.0.1:{given.get('MAUTO_AIRFLOW_PORT', '8080')}",
        "MAUTO_STORAGE": str(home.path / "storage"),
        **base_variables(home, given, secrets),
        **{name: port for name, port in inside.items() if has_sink or name != "MAUTO_SMTP_PORT"},
        **({"MAUTO_SMTP_HOST": hosts["MAIL_SINK"], "MAUTO_SMTP_SECURITY": "none"} if has_sink else {}),
        "MAUTO_API_HOST": _EVERYWHERE,
        **database_urls({}, hosts["POSTGRES"], secrets),
    }
    outside = {**scaled(environ), **{name: value for name, value in environ.items() if name != "REDIS_PASSWORD"}}
    return Plan(home=home, variables=variables, given=given, outside=outside, secrets=secrets,
                is_embedded=True, has_sink=has_sink, has_roles=True, airflow_host=hosts["AIRFLOW"])  # fmt: skip


def is_scaled(environ: Mapping[str, str]) -> bool:
    """Whether the profile `scale` is on."""
    return _SCALE in [name.strip() for name in environ.get("COMPOSE_PROFILES", "").split(",")]


def broker_url(environ: Mapping[str, str]) -> str:
    """Where the Celery workers find Redis.

    Raises:
        Misconfigured: REDIS_PASSWORD is missing or weak.
    """
    password = environ.get("REDIS_PASSWORD", "")
    refuse_weak("REDIS_PASSWORD", password)
    server = environ.get("MAUTO_CONTAINER_REDIS", "redis:6379")
    return f"redis://:{urllib.parse.quote(password, safe='')}@{server}/0"


def scaled(environ: Mapping[str, str]) -> dict[str, str]:
    """What the profile `scale` asks of Airflow; nothing where it is off.

    Raises:
        Misconfigured: REDIS_PASSWORD is missing or weak.
    """
    if not is_scaled(environ):
        return {}
    return {"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "AIRFLOW__CELERY__BROKER_URL": broker_url(environ),
            "AIRFLOW__CORE__AUTH_MANAGER": airflow_setup.FAB}  # fmt: skip


def process(plan: Plan, name: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a part.

    Raises:
        Misconfigured: there is no such part.
    """
    if name == "api":
        return [sys.executable, "-m", "api"], plan.environment("api", "tracker", "analyst")
    if name == "mail-sink":
        ports = ["--smtp-port", str(plan.port("MAUTO_SMTP_PORT")) if plan.has_sink else _INSIDE["MAUTO_SMTP_PORT"],
                 "--http-port", str(plan.port("MAUTO_MAIL_PAGE_PORT"))]  # fmt: skip
        hosts = ["--smtp-host", _EVERYWHERE, "--http-host", _EVERYWHERE]
        return [sys.executable, "-m", "mautolib.stack.mailsink", *hosts, *ports,
                "--directory", str(plan.home.mail)], plan.environment()  # fmt: skip
    if name in airflow_setup.COMPONENTS:
        return airflow_setup.command(*airflow_setup.COMPONENTS[name][0]), airflow_setup.environment(plan)
    if name == "airflow-worker":
        if not is_scaled(plan.outside):
            raise Misconfigured("workers take no work from LocalExecutor; put COMPOSE_PROFILES=scale into .env")
        return airflow_setup.command(*airflow_setup.WORKER), airflow_setup.environment(plan)
    known = ", ".join(["secrets", "migrate", "api", "mail-sink", *airflow_setup.COMPONENTS, "airflow-worker"])
    raise Misconfigured(f"there is no part {name!r}; there are: {known}")


def make_secrets(plan: Plan, password_file: Path) -> None:
    """Write the secrets, and the superuser's password where the PostgreSQL image reads it.

    That image reads it as a user of its own, so the file is open to all who see its volume: PostgreSQL only.
    """
    airflow_setup.prepare_files(plan)
    password_file.write_text(plan.secrets["DATABASE_PASSWORD_SUPERUSER"], encoding="ascii")
    password_file.chmod(0o644)


def migrate_all(plan: Plan, environ: Mapping[str, str]) -> None:
    """Make databases and roles, and bring the warehouse and Airflow's metadata to the newest schema.

    Raises:
        ProviderUnavailable: Airflow's own migration failed.
    """
    server = environ.get("MAUTO_CONTAINER_POSTGRES", "postgres:5432")
    admin_url = f"postgresql://postgres:{plan.secrets['DATABASE_PASSWORD_SUPERUSER']}@{server}/postgres"
    databases.prepare(admin_url, plan)
    for name in databases.migrate_warehouse(plan, admin_url):
        print(f"applied {name}", flush=True)
    command = airflow_setup.command("db", "migrate")
    if subprocess.run(command, env=airflow_setup.environment(plan), check=False).returncode != 0:
        raise ProviderUnavailable("`airflow db migrate` failed; its message is above")
    airflow_setup.prepare_metadata(plan)
    airflow_setup.make_administrator(plan)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one step, or become one part; returns the exit code of a step."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        plan = container_plan(os.environ)
        log.setup(plan.settings.log_level, plan.settings.log_format)
        if given[:1] == ["secrets"] and len(given) == 2:
            make_secrets(plan, Path(given[1]))
        elif given == ["migrate"]:
            migrate_all(plan, os.environ)
        elif len(given) == 1:
            _become(plan, given[0])
        else:
            raise Misconfigured("say which part: secrets FILE, migrate, api, mail-sink or airflow-...")
    except MautoError as error:
        sys.stderr.write(f"container: {error}\n")
        return 2
    return 0


def _become(plan: Plan, name: str) -> NoReturn:
    command, environment = process(plan, name)
    if name in airflow_setup.COMPONENTS:
        airflow_setup.bury_jobs(plan, name)
    os.execve(command[0], command, environment)  # noqa: S606


if __name__ == "__main__":
    raise SystemExit(main())
