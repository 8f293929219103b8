"""The embedded server: safe by default, and back after everything that can be done to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from mautolib.db import localpg, pgprograms
from mautolib.db.localpg import Cluster, temporary_cluster
from mautolib.errors import Conflict, Misconfigured


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user may walk to (pytest's own is closed to others)."""
    path = Path(tempfile.mkdtemp(prefix="mauto-localpg-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    with temporary_cluster() as cluster:
        yield cluster


def ask(cluster: Cluster, statement: str, database: str = "postgres") -> str:
    return cluster.run_psql("-Atc", statement, database=database).strip()


def wait_until_gone(pid: int, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def test_asks_for_its_password_and_listens_on_this_machine_only(shared: Cluster) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(shared.url(password="wrong"))
    assert ask(shared, "show listen_addresses") == "127.0.0.1"
    assert ask(shared, "show unix_socket_directories") == ""
    assert ask(shared, "select distinct auth_method from pg_hba_file_rules") == "scram-sha-256"


def test_text_is_utf8_in_an_order_no_library_update_changes(shared: Cluster) -> None:
    row = ask(
        shared,
        "select pg_encoding_to_char(encoding), datlocprovider, datlocale from pg_database where datname = 'postgres'",
    )
    assert row == "UTF8|b|C.UTF-8"
    assert ask(shared, "select upper('straße ä'), version() like 'PostgreSQL 18.%'") == "STRAßE Ä|t"


def test_only_a_throwaway_server_is_careless(shared: Cluster, folder: Path) -> None:
    assert ask(shared, "show fsync") == "off"
    cluster = Cluster.ensure(folder / "cluster")
    try:
        assert ask(cluster, "show fsync") == "on"
        assert ask(cluster, "show full_page_writes") == "on"
        assert ask(cluster, "show jit") == "off"
    finally:
        cluster.stop()


def test_databases_are_created_once(shared: Cluster) -> None:
    assert shared.create_database("twice") is True
    assert shared.create_database("twice") is False


def test_own_settings_win_over_the_tuned_ones(folder: Path) -> None:
    cluster = Cluster.ensure(folder / "cluster", durable=False)
    cluster.stop()
    with (cluster.data / "postgresql.conf").open("a") as file:
        file.write("work_mem = '7MB'\n")
    cluster = Cluster.ensure(folder / "cluster", durable=False)
    try:
        assert ask(cluster, "show work_mem") == "7MB"
        assert ask(cluster, "show random_page_cost") == "1.1"
    finally:
        cluster.stop()


def test_comes_back_after_kill_9_though_the_process_id_was_given_away(folder: Path) -> None:
    cluster = Cluster.ensure(folder / "cluster", durable=False)
    password = cluster.password
    ask(cluster, "create table kept (n int); insert into kept values (42)")
    # A back-end in the middle of a statement outlives the server and keeps its shared memory.
    busy = threading.Thread(target=_sleep_inside, args=(cluster,), daemon=True)
    busy.start()
    while ask(cluster, "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%'") < "2":
        time.sleep(0.02)
    pid = cluster.pid
    assert pid is not None
    ask(cluster, "checkpoint")
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    cluster.stop()
    lock = cluster.data / "postmaster.pid"
    lock.write_text(lock.read_text().replace(str(pid), str(os.getpid()), 1))
    cluster = Cluster.ensure(folder / "cluster", durable=False)
    try:
        assert cluster.password == password
        assert ask(cluster, "select n from kept") == "42"
        assert cluster.pid != pid
    finally:
        cluster.stop()
    busy.join(10)


def _sleep_inside(cluster: Cluster) -> None:
    with (
        contextlib.suppress(psycopg2.Error),
        contextlib.closing(psycopg2.connect(cluster.url())) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("select pg_sleep(60)")


def test_a_killed_initdb_leaves_nothing_that_looks_finished(folder: Path) -> None:
    (folder / "cluster" / "data.new").mkdir(parents=True)
    (folder / "cluster" / "data.new" / "PG_VERSION").write_text("18\n")
    cluster = Cluster.ensure(folder / "cluster", durable=False)
    try:
        assert ask(cluster, "select 1") == "1"
        assert not (folder / "cluster" / "data.new").exists()
    finally:
        cluster.stop()


def test_a_directory_of_another_major_is_refused_with_the_way_out(folder: Path) -> None:
    data = folder / "cluster" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(Misconfigured, match=r"made by PostgreSQL 17, this version brings 18.*pg_dumpall"):
        Cluster.ensure(folder / "cluster")
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_two_servers_never_share_a_folder_or_a_port(folder: Path) -> None:
    first = Cluster.ensure(folder / "one", durable=False)
    try:
        with pytest.raises(Conflict, match="another process runs"):
            Cluster.ensure(folder / "one", durable=False)
        with pytest.raises(Misconfigured, match=f"port {first.port} is taken"):
            Cluster.ensure(folder / "two", durable=False, port=first.port)
        assert ask(first, "select 1") == "1"
    finally:
        first.stop()


def test_a_home_with_copied_secrets_leaves_the_server_of_the_other_alone(shared: Cluster, folder: Path) -> None:
    copy = Cluster.ensure(folder / "copy", password=shared.password, durable=False)
    try:
        localpg.end_leftovers(copy.path)
        assert copy.pid is None
    finally:
        copy.stop()
    assert ask(shared, "select 1") == "1"


def test_ends_with_its_parent_however_that_ends(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mautolib.db.localpg import Cluster\n"
        "cluster = Cluster.ensure(Path(sys.argv[1]), durable=False)\n"
        "print(cluster.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "cluster")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until_gone(pid)


def test_the_password_is_for_its_owner_only(folder: Path) -> None:
    cluster = Cluster.ensure(folder / "cluster", durable=False)
    cluster.stop()
    assert (cluster.path / "password").stat().st_mode & 0o777 == 0o600
    assert (cluster.path / "server.log").stat().st_mode & 0o777 == 0o600
    assert cluster.data.stat().st_mode & 0o777 == 0o700
    assert cluster.password not in repr(cluster)


if os.geteuid() == 0:

    def test_root_lends_an_unprivileged_user_a_place_it_can_reach(
        folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pgprograms, "SHARED", folder / "shared")
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        cluster = Cluster.ensure(closed / "cluster", durable=False)
        try:
            assert (closed / "cluster").is_symlink()
            assert cluster.path.is_relative_to(folder / "shared" / "clusters")
            assert cluster.data.stat().st_uid != 0
        finally:
            cluster.stop()

    def test_root_copies_programs_the_unprivileged_user_cannot_reach(
        folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pgprograms, "SHARED", folder / "shared")
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        package = pgprograms._package()
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.parent / name, closed / name)
        monkeypatch.setattr(pgprograms, "_package", lambda: closed / package.name)
        cluster = Cluster.ensure(folder / "cluster", durable=False)
        try:
            running = Path(f"/proc/{cluster.pid}/exe").resolve()
            assert running.is_relative_to(folder / "shared" / "postgresql")
            assert ask(cluster, "select 1") == "1"
        finally:
            cluster.stop()


def test_without_a_wheel_the_message_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgprograms.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Misconfigured, match="MAUTO_DATABASE_URL"):
        localpg.psql_binary()
