"""The supervisor: one process that starts the stack in order, keeps it alive and ends it.

Promises that a dead process is started again with growing patience, that everything ends with it (also when it is
killed), and that `state.json` in the home says what runs. Started by `launcher.Stack.up` in a session of its own;
SIGTERM stops the stack, SIGHUP retries at once. It judges whether processes live, not whether they are well: that
is `health`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from types import FrameType

import psycopg2

from mautolib import log
from mautolib.db.localpg import Cluster
from mautolib.errors import MautoError, ProviderUnavailable
from mautolib.stack import airflow_setup, databases
from mautolib.stack.home import Home
from mautolib.stack.plan import Plan, make_plan
from mautolib.stack.processes import MARK, Program, end_all, end_marked
from mautolib.stack.pruning import Pruning

__all__ = ["Supervisor", "main"]

_LOG = logging.getLogger(__name__)
# The scheduler waits for running tasks, which can be killed without harm but then run again.
_STOP_SECONDS = {"airflow-scheduler": 8.0}
_STAGGER_SECONDS = {"airflow-triggerer": 2.0, "airflow-scheduler": 4.0}


class _Stop(BaseException):
    """SIGTERM came while the stack was still starting."""


class Supervisor:
    """The running stack of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cluster: Cluster | None = None
        self.programs: list[Program] = []
        self._pruning = Pruning(plan)
        self._steps: list[tuple[float, str]] = []
        self._began = time.time()
        self._starting = self._stopping = False
        self._database_retry = 0.0

    def run(self) -> int:
        """Start, tend until told to stop, end; returns the exit code."""
        wake = self._listen()
        message = ""
        try:
            self._starting = True
            self._start_all()
            self._starting = False
            self._save("running")
            _LOG.info("stack: %s programs started in %.1f s", len(self.programs), time.time() - self._began)
            while not self._stopping:
                if self._tend():
                    self._save("running")
                if select.select([wake], [], [], 0.5)[0]:
                    wake.recv(4096)
        except _Stop:
            pass
        except (MautoError, psycopg2.Error, OSError) as error:
            message = str(error).strip() or type(error).__name__
            _LOG.error("stack: %s", message)
        finally:
            self._starting = False
            self._save("stopping", message)
            self._end()
        self._save("failed" if message else "stopped", message)
        return 1 if message else 0

    def _listen(self) -> socket.socket:
        """Let signals wake the loop: SIGCHLD among them, so that a death is seen at once."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._writer = writer  # kept from the garbage collector
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hurry)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return reader

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        if self._starting:
            self._starting = False
            raise _Stop

    def _on_hurry(self, _number: int, _frame: FrameType | None) -> None:
        self._database_retry = 0.0
        for program in self.programs:
            program.hurry()

    def _start_all(self) -> None:
        plan = self.plan
        self._save("starting")
        if left := end_marked(plan.home.path):
            self._step(f"ended {left} processes of an earlier start")
        if plan.has_sink:
            self._add("mail-sink", [sys.executable, "-m", "mautolib.stack.mailsink",
                                    "--smtp-port", str(plan.port("MAUTO_SMTP_PORT")),
                                    "--http-port", str(plan.port("MAUTO_MAIL_PAGE_PORT")),
                                    "--directory", str(plan.home.mail)], plan.environment())
        if plan.is_embedded:
            self.cluster = databases.start(plan)
            databases.prepare(self.cluster.url(), plan)
            self._step(f"PostgreSQL 18 answers on port {self.cluster.port}")
        migration = None
        if not airflow_setup.is_migrated(plan):
            migration = self._add("airflow-migrate", airflow_setup.command("db", "migrate"),
                                  airflow_setup.environment(plan))
            self.programs.remove(migration)
        try:
            applied = databases.migrate_warehouse(plan, self.cluster.url() if self.cluster else None)
            self._step(f"warehouse is at the newest schema ({len(applied)} files applied)")
            self._add("api", [sys.executable, "-m", "api"], plan.environment("api", "tracker", "analyst"))
            if migration is not None:
                self._await(migration)
        except BaseException:
            end_all([migration] if migration else [])
            raise
        self._start_airflow()

    def _await(self, migration: Program) -> None:
        process = migration.process
        assert process is not None
        if process.wait() != 0:
            raise ProviderUnavailable(f"`airflow db migrate` failed; see {migration.log_file}")
        airflow_setup.make_administrator(self.plan)
        airflow_setup.remember_migration(self.plan)
        self._step("Airflow's metadata is migrated")

    def _start_airflow(self) -> None:
        airflow_setup.prepare_metadata(self.plan)
        airflow_setup.prepare_files(self.plan)
        environment = airflow_setup.environment(self.plan)
        # Each burns 3 to 7 seconds of processor time before it is of use. All at once on two cores the API server,
        # which everything waits for, would come last; tasks started much before it would ask for it in vain.
        delays = _STAGGER_SECONDS if (os.cpu_count() or 1) < 4 else {}
        for name, (arguments, _) in airflow_setup.COMPONENTS.items():
            program = self._program(name, airflow_setup.command(*arguments), environment)
            program.before_restart = lambda name=name: self._bury(name)
            program.stop_seconds = _STOP_SECONDS.get(name, program.stop_seconds)
            program.defer(delays.get(name, 0.0))
        self._step("Airflow is starting")

    def _add(self, name: str, command: list[str], environment: dict[str, str]) -> Program:
        program = self._program(name, command, environment)
        program.start()
        self._save("starting")
        return program

    def _program(self, name: str, command: list[str], environment: dict[str, str]) -> Program:
        home = self.plan.home
        program = Program(name=name, command=command, log_file=home.logs / f"{name}.log", folder=home.path,
                          environment={**environment, MARK: str(home.path)})
        self.programs.append(program)
        return program

    def _bury(self, component: str) -> None:
        try:
            airflow_setup.bury_jobs(self.plan, component)
        except psycopg2.Error as error:
            _LOG.warning("stack: jobs of %s not marked dead: %s", component, error)

    def _tend(self) -> bool:
        """One round; returns whether the state changed."""
        now, changed = time.monotonic(), False
        if self.cluster is not None and self.cluster.pid is None:
            changed = self._restart_database(now)
        for program in self.programs:
            was_alive = program.process is not None
            if program.tend(now):
                changed = True
                if was_alive:
                    _LOG.warning("stack: %s ended, %s times now", program.name, program.exits)
                else:
                    _LOG.info("stack: %s started", program.name)
        self._pruning.tend(now)
        return changed

    def _restart_database(self, now: float) -> bool:
        if now < self._database_retry or self.cluster is None:
            return False
        _LOG.warning("stack: PostgreSQL has ended; starting it again")
        self.cluster.stop()
        try:
            self.cluster = databases.start(self.plan)
        except MautoError as error:
            self._database_retry = now + 5.0
            _LOG.error("stack: %s", error)
            return False
        for program in self.programs:
            program.hurry()
        return True

    def _end(self) -> None:
        self._pruning.end()
        # Running tasks report their end to the API server: it goes last, or they would wait for it in vain.
        last = [program for program in self.programs if program.name == "airflow-api-server"]
        end_all([program for program in self.programs if program not in last])
        end_all(last)
        end_marked(self.plan.home.path)
        if self.cluster is not None:
            self.cluster.stop()
        self.programs = []

    def _step(self, text: str) -> None:
        self._steps.append((round(time.time() - self._began, 1), text))
        _LOG.info("stack: %s", text)
        self._save("starting")

    def _save(self, status: str, message: str = "") -> None:
        programs = {
            program.name: {"pid": program.process.pid if program.process else None,
                           "since": program.started_at, "exits": program.exits}
            for program in self.programs
        }  # fmt: skip
        if self.cluster is not None:
            programs = {"postgresql": {"pid": self.cluster.pid, "since": self._began, "exits": 0}, **programs}
        self.plan.home.write_state({
            "status": status, "message": message, "pid": os.getpid(), "began": self._began,
            "fingerprint": self.plan.fingerprint, "steps": self._steps, "programs": programs,
        })  # fmt: skip


def main() -> int:
    """`python -m mautolib.stack.supervisor`: run the stack of MAUTO_HOME with the settings of the environment."""
    home = Home.locate(os.environ)
    home.prepare()
    try:
        lock = home.lock()
    except MautoError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    with lock:
        plan = make_plan(home, dict(os.environ))
        log.setup(plan.settings.log_level, plan.settings.log_format)
        return Supervisor(plan).run()


if __name__ == "__main__":
    raise SystemExit(main())
