"""What a run on several workers needs beside the stack: Debian's redis-server with a password, and Celery workers.

Everything carries the mark of the stack's home and ends with it.
"""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mautolib.stack import airflow_setup
from mautolib.stack.plan import Plan
from mautolib.stack.processes import MARK, Program, end_all

#: Celery's own word in a worker's log for a task that it ran to its end.
_RAN = re.compile(rb"Task \S+\[[0-9a-f-]+\] succeeded")


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A running Redis."""

    password: str
    address: str
    version: str

    @property
    def environ(self) -> dict[str, str]:
        """What docker-compose.yml gives a container, for a Redis that is elsewhere."""
        return {"COMPOSE_PROFILES": "scale", "REDIS_PASSWORD": self.password, "MAUTO_CONTAINER_REDIS": self.address}


@contextmanager
def redis(folder: Path) -> Iterator[Broker]:
    """Redis on a free port of this machine, memory only, with a password that no process list shows.

    Raises:
        FileNotFoundError: there is no redis-server on this machine.
        TimeoutError: it does not answer.
    """
    binary = shutil.which("redis-server")
    if binary is None:
        raise FileNotFoundError("redis-server is not on PATH; on Debian: apt-get install redis-server")
    folder.mkdir(parents=True)
    port, password = free_port(), secrets.token_hex(24)
    settings = folder / "redis.conf"
    settings.touch(mode=0o600)
    settings.write_text(f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\n'
                        f"maxmemory-policy noeviction\ndir {folder}\n")  # fmt: skip
    with (folder / "redis.log").open("ab") as log:
        process = subprocess.Popen([binary, str(settings)], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 20
        while b"Ready to accept connections" not in (folder / "redis.log").read_bytes():
            if process.poll() is not None or time.monotonic() > until:
                raise TimeoutError(f"redis-server does not answer: {(folder / 'redis.log').read_text()[-500:]}")
            time.sleep(0.05)
        version = subprocess.check_output([binary, "--version"], text=True).split("v=")[1].split()[0]
        yield Broker(password=password, address=f"127.0.0.1:{port}", version=version)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def workers(plan: Plan, count: int, *, slots: int) -> Iterator[list[Program]]:
    """`airflow celery worker` that many times, each with a name of its own; returns when all take work.

    Args:
        slots: how many tasks each may run at once.

    Raises:
        TimeoutError: one of them did not get ready.
    """
    programs = [
        Program(
            name=f"worker-{number}", folder=plan.home.path, log_file=plan.home.logs / f"worker-{number}.log",
            command=airflow_setup.command("celery", "worker", "--skip-serve-logs", "--concurrency", str(slots),
                                          "--celery-hostname", f"celery@worker-{number}"),
            environment={**airflow_setup.environment(plan), MARK: str(plan.home.path),
                         "SCALE_HOST": f"worker-{number}"}, stop_seconds=20.0,
        )
        for number in range(1, count + 1)
    ]  # fmt: skip
    try:
        for program in programs:
            program.start()
        until = time.monotonic() + 120
        for program in programs:
            while b" ready." not in program.log_file.read_bytes():
                if not program.is_alive() or time.monotonic() > until:
                    raise TimeoutError(f"{program.name} does not get ready: {program.log_file.read_text()[-2000:]}")
                time.sleep(0.1)
        yield programs
    finally:
        end_all(programs)


def ran(program: Program) -> int:
    """How many tasks a worker says it ran."""
    return len(_RAN.findall(program.log_file.read_bytes()))


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
