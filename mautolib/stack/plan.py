"""The plan of one stack: which settings hold, which ports are used, and the environment of each process.

Order of settings: those pinned in the home, else the process environment, then `.env` in the working directory,
then what the home generated.
Guards that every process gets only the database roles it needs. Nothing is started here.
"""

from __future__ import annotations

import hashlib
import os
import socket
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mautolib.db import migrate
from mautolib.errors import Misconfigured
from mautolib.settings import Settings
from mautolib.stack.home import Home, read_assignments

__all__ = ["LOOPBACK", "Plan", "base_variables", "database_urls", "make_plan"]

LOOPBACK = "127.0.0.1"
WAREHOUSE = "mauto"
METADATA = "airflow"
OWNER = "mauto_owner"
LOGIN_ROLES = ("api", "worker", "tracker", "analyst", "eraser")

_PORTS = {"MAUTO_DATABASE_PORT": 54329, "MAUTO_API_PORT": 8000, "MAUTO_AIRFLOW_PORT": 8080,
          "MAUTO_SMTP_PORT": 1025, "MAUTO_MAIL_PAGE_PORT": 8025}  # fmt: skip
#: What only the owner's process may know.
_OWNER_ONLY = ("MAUTO_DATABASE_URL", "MAUTO_AIRFLOW_DATABASE_URL")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One stack as it shall run.

    Attributes:
        variables: every MAUTO_ variable, given or derived; `environment()` hands them out.
        given: those the user set; they and `outside` (everything else in the environment) make this plan again.
        secrets: the generated secrets of the home.
        is_embedded: the PostgreSQL server is ours alone; else the one of MAUTO_DATABASE_URL is used.
        has_sink: mail goes to the sink of this stack.
        airflow_host: where the other processes find Airflow's API server.
    """

    home: Home
    variables: Mapping[str, str]
    given: Mapping[str, str]
    outside: Mapping[str, str]
    secrets: Mapping[str, str]
    is_embedded: bool
    has_sink: bool
    has_roles: bool
    airflow_host: str = LOOPBACK

    @property
    def settings(self) -> Settings:
        """The settings of the whole stack, with every role's URL."""
        return Settings.from_env(self.variables)

    @property
    def fingerprint(self) -> str:
        """Differs when a running stack would have to be restarted: other settings, or another schema."""
        parts = [f"{name}={value}" for name, value in sorted(self.variables.items())]
        parts += [f"{item.name} {item.checksum}" for item in migrate.files()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def airflow_url(self) -> str:
        """Airflow's API server, from inside the stack."""
        return f"http://{self.airflow_host}:{self.port('MAUTO_AIRFLOW_PORT')}"

    @property
    def api_url(self) -> str:
        host = self.variables["MAUTO_API_HOST"]
        return f"http://{LOOPBACK if host in ('0.0.0.0', '::') else host}:{self.port('MAUTO_API_PORT')}"  # noqa: S104

    @property
    def mail_page_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port('MAUTO_MAIL_PAGE_PORT')}"

    def port(self, name: str) -> int:
        """A port by its setting."""
        return int(self.variables[name])

    def environment(self, *roles: str) -> dict[str, str]:
        """The environment of a process that works as these roles (`owner`, `api`, `worker`, ...) and no other.

        In single-role mode every process works as the owner.
        """
        hidden = {f"MAUTO_{role.upper()}_DATABASE_URL" for role in LOGIN_ROLES if role not in roles}
        if "owner" not in roles and self.has_roles:
            hidden |= set(_OWNER_ONLY)
        shown = {name: value for name, value in self.variables.items() if name not in hidden}
        kept = {name: value for name, value in self.outside.items()
                if not name.startswith(("MAUTO_", "AIRFLOW", "PG"))}
        local = ",".join(filter(None, (kept.get("NO_PROXY") or kept.get("no_proxy"), "127.0.0.1,localhost")))
        # PYTHONSAFEPATH: a folder of the caller's must not shadow a package.
        return {**kept, **shown, "NO_PROXY": local, "no_proxy": local, "PYTHONUNBUFFERED": "1",
                "PYTHONSAFEPATH": "1"}  # fmt: skip


def make_plan(home: Home, environ: Mapping[str, str] | None = None) -> Plan:
    """Work out the plan of the stack in `home` and make the home.

    Args:
        environ: overrides the process environment (the demo shuts out the user's mail settings so).

    Raises:
        Misconfigured: a setting is wrong, or a port asked for is taken.
    """
    outside = dict(os.environ if environ is None else environ)
    dotenv = read_assignments(Path(".env").absolute()) if environ is None else {}
    given = {name: value for name, value in {**dotenv, **outside}.items()
             if name.startswith("MAUTO_") and value.strip()}  # fmt: skip
    if pinned := read_assignments(home.settings_file):
        # A home with settings of its own takes nothing but ports from outside: a demo stays a demo.
        given = {**{name: value for name, value in given.items() if name in _PORTS}, **pinned}
    outside = {**{name: value for name, value in dotenv.items() if name.startswith("AIRFLOW")}, **outside}
    Settings.from_env(given)  # a wrong value is named before anything is made
    is_embedded = not given.get("MAUTO_DATABASE_URL")
    has_sink = not given.get("MAUTO_SMTP_HOST") and given.get("MAUTO_CHANNEL", "smtp") == "smtp"
    home.prepare()
    secrets = home.secrets()
    wanted = [name for name in _PORTS
              if (name != "MAUTO_DATABASE_PORT" or is_embedded)
              and (name not in ("MAUTO_SMTP_PORT", "MAUTO_MAIL_PAGE_PORT") or has_sink)]  # fmt: skip
    ports = _choose_ports(home, given, wanted)
    variables = {
        **base_variables(home, given, secrets),
        **{name: str(port) for name, port in ports.items()},
    }
    variables.update(_derived(variables, given, home, has_sink))
    if is_embedded:
        server = f"{LOOPBACK}:{ports['MAUTO_DATABASE_PORT']}"
        variables.update(database_urls(given, server, secrets))
    else:
        variables.update(_own_server(given))
    plan = Plan(home=home, variables=variables, given=given, outside=outside, secrets=secrets,
                is_embedded=is_embedded, has_sink=has_sink,
                has_roles=is_embedded or bool(given.get("MAUTO_API_DATABASE_URL")))
    plan.settings.check_secrets()
    return plan


def base_variables(home: Home, given: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """What every stack has: the generated secrets, what the user gave, the home."""
    return {
        "MAUTO_ENVIRONMENT": "development",
        "MAUTO_API_HOST": LOOPBACK,
        **{name: value for name, value in secrets.items() if name.startswith("MAUTO_")},
        **given,
        "MAUTO_HOME": str(home.path),
    }


def _derived(
    variables: Mapping[str, str], given: Mapping[str, str], home: Home, has_sink: bool
) -> dict[str, str]:
    """Settings that follow from others unless they were given."""
    found: dict[str, str] = {}
    storage = given.get("MAUTO_STORAGE", str(home.path / "storage"))
    found["MAUTO_STORAGE"] = str(Path(storage).absolute())
    if "MAUTO_PUBLIC_BASE_URL" not in given:
        found["MAUTO_PUBLIC_BASE_URL"] = f"http://{LOOPBACK}:{variables['MAUTO_API_PORT']}"
    if "MAUTO_AIRFLOW_URL" not in given:
        found["MAUTO_AIRFLOW_URL"] = f"http://{LOOPBACK}:{variables['MAUTO_AIRFLOW_PORT']}"
    if has_sink:
        found |= {"MAUTO_SMTP_HOST": LOOPBACK, "MAUTO_SMTP_SECURITY": "none"}
    return found


def database_urls(given: Mapping[str, str], server: str, secrets: Mapping[str, str]) -> dict[str, str]:
    """The URL of each role on a server of ours (`host:port`)."""

    def url(user: str, role: str, database: str) -> str:
        return f"postgresql://{user}:{secrets[f'DATABASE_PASSWORD_{role}']}@{server}/{database}"

    return {
        "MAUTO_DATABASE_URL": url(OWNER, "OWNER", WAREHOUSE),
        **{f"MAUTO_{role.upper()}_DATABASE_URL": url(f"mauto_{role}", role.upper(), WAREHOUSE)
           for role in LOGIN_ROLES},
        "MAUTO_AIRFLOW_DATABASE_URL": given.get("MAUTO_AIRFLOW_DATABASE_URL") or url(METADATA, "AIRFLOW", METADATA),
    }  # fmt: skip


def _own_server(given: Mapping[str, str]) -> dict[str, str]:
    """The server of MAUTO_DATABASE_URL; Airflow's database is named `airflow` there unless told."""
    if given.get("MAUTO_AIRFLOW_DATABASE_URL"):
        return {}
    parts = urllib.parse.urlsplit(given["MAUTO_DATABASE_URL"])
    return {"MAUTO_AIRFLOW_DATABASE_URL": parts._replace(path=f"/{METADATA}").geturl()}


def _choose_ports(home: Home, given: Mapping[str, str], wanted: list[str]) -> dict[str, int]:
    """Ports asked for as they are; others: the one used last time, else the usual one, else a free one.

    Raises:
        Misconfigured: a port asked for is taken by another program.
    """
    known, is_running = home.ports(), home.is_running()
    chosen: dict[str, int] = {}
    for name in wanted:
        asked = given.get(name)
        candidate = int(asked) if asked else known.get(name, _PORTS[name])
        if not (is_running and known.get(name) == candidate):
            host = given.get(name.replace("_PORT", "_HOST"), LOOPBACK)
            if asked and not _is_free(host, candidate):
                raise Misconfigured(f"{name}={candidate} is taken by another program; stop it or choose another")
            while not asked and (candidate in chosen.values() or not _is_free(host, candidate)):
                candidate = candidate + 1 if candidate < _PORTS[name] + 50 else _any_free(host)
        chosen[name] = candidate
    if not is_running:
        home.remember_ports(chosen)
    return chosen


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As a server would: ports of connections that linger after a stop do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _any_free(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
