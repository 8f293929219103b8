"""Fixtures of every test: a real PostgreSQL, a migrated database, a transaction that is rolled back, settings.

`MAUTO_TEST_DATABASE_URL` (a role that may create databases) replaces the temporary server. Under CI=true a
skipped test is a failure.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from mautolib.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# The same examples in every run, on a machine however slow.
hypothesis.settings.register_profile(
    "house", deadline=None, derandomize=True, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("house")

UNDER_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# A developer's own settings (or a running stack's) must not reach the tests.
for _name in [name for name in os.environ if name.startswith("MAUTO_") and not name.startswith("MAUTO_TEST_")]:
    if _name != "MAUTO_REAL_DATA":
        del os.environ[_name]


class Server:
    """A PostgreSQL server for this run: makes databases, and drops those it made."""

    def __init__(self, admin_url: str) -> None:
        from mautolib.db.engine import connect, parse_url

        self._base = parse_url(admin_url)
        self._admin: Engine = connect(admin_url, pool_size=1)
        self._made: list[str] = []
        self._numbers = itertools.count()
        self._prefix = f"mauto_test_{secrets.token_hex(4)}"

    def url(self, database: str) -> str:
        """The URL of a database, as the administrator."""
        return self._base.set(drivername="postgresql", database=database).render_as_string(hide_password=False)

    def create(self, *, template: str = "template0") -> str:
        """Create a database and return its name."""
        name = f"{self._prefix}_{next(self._numbers)}"
        # Half the time of writing every page to the log first: 0.22 s instead of 0.42 s.
        self._run(f"create database {name} template {template} strategy file_copy")
        self._made.append(name)
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        from sqlalchemy.exc import ProgrammingError

        for patience in range(100, -1, -1):
            try:
                self._run(f"drop database if exists {name} with (force)")
                break
            except ProgrammingError as error:
                # Autovacuum is at work in it, and only a superuser may end that; it ends by itself soon.
                if "terminate process" not in str(error) or not patience:
                    raise
                time.sleep(0.1)
        self._made.remove(name)

    def close(self) -> None:
        """Drop what was made and disconnect."""
        for name in list(self._made):
            self.drop(name)
        self._admin.dispose()

    def _run(self, statement: str) -> None:
        with self._admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(statement)


def _in_memory() -> Path | None:
    """A folder in memory where there is plenty: copying a database takes 0.03 s there, on a busy disk up to 1.5 s."""
    place, most_old = Path("/dev/shm"), time.time() - 24 * 3600
    try:
        for left in place.glob("mauto-pg-*"):  # of a run that was killed
            if left.stat().st_mtime < most_old:
                shutil.rmtree(left, ignore_errors=True)
        known = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        spare = min(shutil.disk_usage(place).free, int(known["MemAvailable"].split()[0]) * 1024)
    except OSError:
        return None
    return place if spare >= 4 * 1024**3 else None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Server]:
    """The server of this run; a temporary one unless MAUTO_TEST_DATABASE_URL names another."""
    given = os.environ.get("MAUTO_TEST_DATABASE_URL")
    if given:
        server = Server(given)
        yield server
        server.close()
        return
    from mautolib.db.localpg import temporary_cluster

    with temporary_cluster(_in_memory()) as embedded:
        # As in the local stack and on managed servers the owner is no superuser. He may become the roles he makes.
        password = secrets.token_hex(16)
        embedded.run_psql(
            "-qc", f"create role mauto_owner login createdb createrole password '{password}'",
            "-qc", "alter role mauto_owner set createrole_self_grant = 'set, inherit'",
        )  # fmt: skip
        server = Server(embedded.url(user="mauto_owner", password=password))
        yield server
        server.close()


@pytest.fixture(scope="session")
def template_database(cluster: Server) -> str:
    """Name of a migrated database nobody is connected to; the others are copies of it."""
    from mautolib.db.engine import connect
    from mautolib.db.migrate import migrate

    name = cluster.create()
    engine = connect(cluster.url(name))
    migrate(engine)
    engine.dispose()
    return name


@pytest.fixture(scope="session")
def database_url(cluster: Server, template_database: str) -> str:
    """A migrated database for the session; tests leave nothing in it (see `tx`)."""
    return cluster.url(cluster.create(template=template_database))


@pytest.fixture(scope="session")
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the session's database; for reading, and for `tx`."""
    from mautolib.db.engine import connect

    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def tx(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that is rolled back after the test."""
    with engine.connect() as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


@pytest.fixture
def fresh_database_url(cluster: Server, template_database: str) -> Iterator[str]:
    """A migrated database for one test that commits; dropped after it."""
    name = cluster.create(template=template_database)
    yield cluster.url(name)
    cluster.drop(name)


@pytest.fixture
def fresh_engine(fresh_database_url: str) -> Iterator[Engine]:
    """An engine on a database of its own, for tests that commit."""
    from mautolib.db.engine import connect

    engine = connect(fresh_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Settings with good secrets and a home of its own; on the fresh database where the test has one."""
    url = ""
    if "fresh_database_url" in request.fixturenames:
        url = request.getfixturevalue("fresh_database_url")
    elif "database_url" in request.fixturenames:
        url = request.getfixturevalue("database_url")
    return Settings(
        database_url=url,
        secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",),
        suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
        environment="development",
        home=tmp_path / "home",
        public_base_url="http://127.0.0.1:8000",
        admin_email="admin@shop.example",
        admin_password="correct horse battery staple",
        default_from_name="Example Shop",
        default_from_email="news@shop.example",
        postal_address="Example Shop, 1 High Street, Berlin",
    )


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI a test or module that skips itself is a failure: nothing there may be missing."""
    if UNDER_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped under CI=true, which counts as a failure: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no core waits for another one's last file."""
    items.sort(key=lambda item: item.get_closest_marker("stack") is None)
