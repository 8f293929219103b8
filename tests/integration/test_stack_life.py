"""A whole stack: up, killed part by part, repaired, held against a second one, down with nothing left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from mautolib.errors import Misconfigured, ProviderUnavailable
from mautolib.stack import health
from mautolib.stack.home import Home
from mautolib.stack.launcher import Stack
from mautolib.stack.processes import marked_processes

pytestmark = pytest.mark.stack


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def surroundings() -> dict[str, str]:
    names = ("MAUTO_API_PORT", "MAUTO_AIRFLOW_PORT", "MAUTO_DATABASE_PORT", "MAUTO_SMTP_PORT",
             "MAUTO_MAIL_PAGE_PORT")  # fmt: skip
    return {**os.environ, **{name: free_port() for name in names}}


@pytest.fixture
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="mauto-stack-"))
    folder.chmod(0o711)
    yield Home(folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stack(home: Home) -> Iterator[Stack]:
    stack = Stack(home, surroundings())
    yield stack
    stack.down()


def command(home: Home, *arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mautolib.stack", "--home", str(home.path), *arguments],
                          capture_output=True, text=True, env=environ or dict(os.environ), cwd=home.path.parent,
                          timeout=120, check=False)  # fmt: skip


def test_a_stack_lives_through_the_death_of_its_parts(stack: Stack, home: Home) -> None:
    lines: list[str] = []
    stack.up(lambda _, text: lines.append(text))
    assert lines[0].startswith("PostgreSQL 18 answers on port")
    parts = {part.name: part for part in stack.health()}
    assert set(parts) == {"postgresql", "api", "mail-sink", "airflow-api-server", "airflow-scheduler",
                          "airflow-dag-processor", "airflow-triggerer"}  # fmt: skip
    assert all(part.is_well for part in parts.values())
    _check_roles(stack)
    _check_pools(stack)
    _check_nobody_is_administrator_without_a_password(stack)
    second = command(home, "up", environ={**os.environ, **stack.plan.given})
    assert second.returncode == 0
    assert "already running" in second.stdout
    assert {part.pid for part in stack.health()} == {part.pid for part in parts.values()}

    killed = ("postgresql", "airflow-scheduler", "api")
    for name in killed:
        os.kill(parts[name].pid or 0, signal.SIGKILL)
    stack.up(lambda _, text: lines.append(text))
    after = {part.name: part for part in stack.health()}
    assert all(part.is_well for part in after.values())
    assert all(after[name].pid != parts[name].pid for name in killed)

    # The triggerer outlived its database: its next heartbeat may take its time.
    until = time.monotonic() + 60
    while (shown := command(home, "status", environ=dict(stack.plan.given) | dict(os.environ))).returncode:
        if time.monotonic() > until:
            break
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for text in ("airflow-scheduler", "restarted 1 times", str(home.secrets_file), str(home.logs)):
        assert text in shown.stdout
    assert stack.settings.admin_password not in shown.stdout

    os.kill(home.read_state()["pid"], signal.SIGKILL)  # the supervisor itself: everything goes with it
    until = time.monotonic() + 20
    while marked_processes(home.path) and time.monotonic() < until:
        time.sleep(0.1)
    assert command(home, "status").returncode == 1
    stack.down()
    assert marked_processes(home.path) == []
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(stack.settings.url_for("owner"))
    assert (home.cluster / "data").exists()


def _check_roles(stack: Stack) -> None:
    for role in ("api", "worker", "tracker", "analyst", "eraser"):
        connection = psycopg2.connect(stack.settings.url_for(role))
        with connection, connection.cursor() as cursor:
            cursor.execute("select current_user, usesuper from pg_user where usename = current_user")
            assert cursor.fetchone() == (f"mauto_{role}", False)
            # The analyst's sessions are read-only, which PostgreSQL notices first.
            with pytest.raises((psycopg2.errors.InsufficientPrivilege, psycopg2.errors.ReadOnlySqlTransaction)):
                cursor.execute("create table public.mine (n int)")
        connection.close()


def _check_pools(stack: Stack) -> None:
    connection = psycopg2.connect(stack.settings.airflow_database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("select pool, slots from slot_pool where pool <> 'default_pool' order by pool")
        assert cursor.fetchall() == [("bulk", 2), ("transactional", 2), ("warehouse", 2)]
    connection.close()


def _check_nobody_is_administrator_without_a_password(stack: Stack) -> None:
    with pytest.raises(OSError, match="401"):
        health.get(f"{stack.plan.airflow_url}/api/v2/dags")
    for password, expected in (("wrong", None), (stack.settings.admin_password, "access_token")):
        request = health.urllib.request.Request(
            f"{stack.plan.airflow_url}/auth/token", headers={"content-type": "application/json"},
            data=json.dumps({"username": stack.settings.admin_email, "password": password}).encode(),
        )  # fmt: skip
        try:
            with health._OPENER.open(request, timeout=10) as answer:
                assert expected is not None
                assert expected in json.load(answer)
        except health.urllib.error.HTTPError as error:
            assert (error.code, expected) == (401, None)


def test_what_cannot_start_leaves_nothing_running(home: Home) -> None:
    environ = surroundings()
    stack = Stack(home, environ)
    plan = stack.plan
    # A data directory of another major version is found out only by the supervisor.
    (home.cluster / "data").mkdir(parents=True)
    (home.cluster / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(ProviderUnavailable, match="made by PostgreSQL 17"):
        stack.up(lambda _, text: None)
    assert not home.is_running()
    assert marked_processes(home.path) == []
    assert plan.has_sink


def test_an_unreachable_database_is_named_before_anything_starts(home: Home) -> None:
    url = f"postgresql://me:topsecret@127.0.0.1:{free_port()}/shop"
    done = command(home, "up", environ={**surroundings(), "MAUTO_DATABASE_URL": url})
    assert done.returncode == 2
    assert "the database of MAUTO_DATABASE_URL (127.0.0.1:" in done.stderr
    assert "/shop) cannot be reached" in done.stderr
    assert "topsecret" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not home.is_running()


def test_an_interrupted_start_leaves_nothing_running(home: Home) -> None:
    starting = subprocess.Popen(
        [sys.executable, "-m", "mautolib.stack", "--home", str(home.path), "up"], env=surroundings(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell ignores Ctrl-C for what it starts in the background, these tests perhaps, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert starting.stdout is not None
    assert "PostgreSQL 18 answers" in starting.stdout.readline()
    starting.send_signal(signal.SIGINT)
    _, said = starting.communicate(timeout=60)
    assert starting.returncode == 130
    assert "interrupted" in said
    assert not home.is_running()
    assert marked_processes(home.path) == []


def test_commands_that_need_a_stack_say_how_to_start_it(home: Home) -> None:
    for arguments in (("psql",), ("migrate",), ("run", "--", "true"), ("airflow", "--", "version")):
        done = command(home, *arguments, environ=surroundings())
        assert done.returncode == 2
        assert "start it with `make up`" in done.stderr
    assert command(home, "down").returncode == 0
    assert command(home, "status").returncode == 1
    assert command(home, "logs").returncode == 2


def test_only_the_demo_is_emptied_without_asking(home: Home) -> None:
    home.prepare()
    home.secrets()
    done = command(home, "reset")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert home.secrets_file.exists()
    assert command(home, "reset", "--yes").returncode == 0
    assert not home.path.exists()


def test_a_taken_port_is_one_line(home: Home) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        stack = Stack(home, {**surroundings(), "MAUTO_AIRFLOW_PORT": str(port)})
        with pytest.raises(Misconfigured, match=f"MAUTO_AIRFLOW_PORT={port} is taken"):
            stack.up(lambda _, text: None)
    assert not home.is_running()
