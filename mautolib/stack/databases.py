"""The databases of a stack: the embedded server with its roles, or the server the user named.

Promises that after `prepare` and `migrate_warehouse` each role of the plan can sign in and may do no more than
`sql/roles.sql` says. Only the embedded server is given roles and passwords: on a user's server they are the
user's matter, and without them every process works as the owner (single-role mode).
"""

from __future__ import annotations

import contextlib
import urllib.parse
from datetime import UTC, datetime

import psycopg2
from psycopg2 import sql

from mautolib.db.engine import connect, parse_url
from mautolib.db.localpg import Cluster
from mautolib.db.migrate import migrate
from mautolib.errors import Misconfigured, ProviderUnavailable
from mautolib.stack import first_start
from mautolib.stack.plan import LOGIN_ROLES, METADATA, OWNER, WAREHOUSE, Plan

__all__ = ["check_server", "migrate_warehouse", "prepare", "start"]


def start(plan: Plan) -> Cluster:
    """Start the embedded server of the plan; it ends with the calling process."""
    password = plan.secrets["DATABASE_PASSWORD_SUPERUSER"]
    return Cluster.ensure(plan.home.cluster, port=plan.port("MAUTO_DATABASE_PORT"), password=password)


def prepare(admin_url: str, plan: Plan) -> None:
    """Make the two databases and their owners, with the passwords of this home.

    Args:
        admin_url: a superuser on a server of ours.
    """
    owners = ((OWNER, plan.secrets["DATABASE_PASSWORD_OWNER"], "login createrole", WAREHOUSE),
              (METADATA, plan.secrets["DATABASE_PASSWORD_AIRFLOW"], "login", METADATA))  # fmt: skip
    with contextlib.closing(psycopg2.connect(admin_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for role, password, rights, database in owners:
                cursor.execute("select 1 from pg_roles where rolname = %s", (role,))
                verb = "alter" if cursor.fetchone() else "create"
                statement = f"{verb} role {{}} {rights} password {{}}"
                cursor.execute(sql.SQL(statement).format(sql.Identifier(role), sql.Literal(password)))
                cursor.execute("select 1 from pg_database where datname = %s", (database,))
                if not cursor.fetchone():
                    statement = "create database {} owner {} template template0"
                    cursor.execute(sql.SQL(statement).format(sql.Identifier(database), sql.Identifier(role)))


def migrate_warehouse(plan: Plan, admin_url: str | None) -> list[str]:
    """Bring the warehouse to the newest schema, and furnish a new one; returns the files applied.

    Args:
        admin_url: a superuser on a server of ours, to let the process roles sign in; None leaves them.
    """
    engine = connect(plan.settings.url_for("owner"), pool_size=1, connect_timeout_seconds=5)
    try:
        applied = migrate(engine)
        if first_start.FIRST_MIGRATION in applied:
            first_start.furnish(engine, plan.settings, datetime.now(UTC))
    finally:
        engine.dispose()
    if admin_url is not None:
        _let_sign_in(plan, admin_url)
    return applied


def _let_sign_in(plan: Plan, admin_url: str) -> None:
    with contextlib.closing(psycopg2.connect(admin_url)) as connection, connection.cursor() as cursor:
        for role in LOGIN_ROLES:
            password = sql.Literal(plan.secrets[f"DATABASE_PASSWORD_{role.upper()}"])
            name = sql.Identifier(f"mauto_{role}")
            cursor.execute(sql.SQL("alter role {} login password {}").format(name, password))
        connection.commit()


def check_server(plan: Plan) -> None:
    """See that the user's server answers, and make Airflow's database on it if it may be made.

    Raises:
        ProviderUnavailable: it cannot be reached.
        Misconfigured: Airflow's database is not there and cannot be made.
    """
    settings = plan.settings
    parse_url(settings.database_url)
    _try(settings.database_url, "MAUTO_DATABASE_URL")
    try:
        _try(settings.airflow_database_url, "MAUTO_AIRFLOW_DATABASE_URL")
    except ProviderUnavailable as missing:
        name = urllib.parse.unquote(urllib.parse.urlsplit(settings.airflow_database_url).path.lstrip("/"))
        try:
            with contextlib.closing(psycopg2.connect(settings.database_url)) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        except psycopg2.Error as error:
            raise Misconfigured(f"{missing}; it could not be made either ({_first_line(error)}): create database "
                                f"{name} or set MAUTO_AIRFLOW_DATABASE_URL") from error


def _try(url: str, name: str) -> None:
    try:
        psycopg2.connect(url, connect_timeout=3).close()
    except psycopg2.Error as error:
        parts = urllib.parse.urlsplit(url)
        place = f"{parts.hostname}:{parts.port or 5432}{parts.path}"
        message = f"the database of {name} ({place}) cannot be reached: {_first_line(error)}"
        raise ProviderUnavailable(message) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
