"""The launcher: `Stack` brings the stack of a home up, down, and says how it is.

`up` returns when every part is well, repairs a stack that is half dead, and leaves nothing running when it fails or
is interrupted. Called by the command line of this package and by the demo. The work itself is done by the
supervisor, a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mautolib.db.localpg import end_leftovers
from mautolib.errors import Misconfigured, ProviderUnavailable
from mautolib.settings import Settings
from mautolib.stack import databases, health
from mautolib.stack.home import Home
from mautolib.stack.plan import Plan, make_plan
from mautolib.stack.processes import end_marked, rotate

__all__ = ["Stack"]

_UP_SECONDS = 180.0  # a quiet machine needs 15
_DOWN_SECONDS = 60.0
_HOPELESS_EXITS = 4

Progress = Callable[[float, str], None]


class Stack:
    """The stack of one home.

    Args:
        environ: replaces the process environment and `.env` (the demo keeps the user's mail settings out so).
    """

    def __init__(self, home: Home, environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        self._environ = environ
        self._plan: Plan | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None

    @property
    def plan(self) -> Plan:
        """Settings, ports and URLs; worked out once."""
        if self._plan is None:
            self._plan = make_plan(self.home, self._environ)
        return self._plan

    @property
    def settings(self) -> Settings:
        """The settings of the whole stack, with every role's database URL and the administrator."""
        return self.plan.settings

    def up(self, progress: Progress) -> None:
        """Start or repair the stack, and wait until every part is well; changed settings restart it.

        Args:
            progress: called with seconds since the start and one line of text.

        Raises:
            Misconfigured: a setting is wrong or a port taken; nothing was started.
            ProviderUnavailable: a part does not come up; what this call started is stopped again.
        """
        began = time.monotonic()

        def say(text: str) -> None:
            progress(time.monotonic() - began, text)

        was_running = self.home.is_running()
        if was_running and self._has_changed():
            say("settings or schema have changed since the start; stopping, to start with the new ones")
            self.down()
            self._plan, was_running = None, False
        if was_running:
            say("already running; waiting until every part is well")
            with contextlib.suppress(ProcessLookupError, KeyError):
                os.kill(self.home.read_state()["pid"], signal.SIGHUP)
        else:
            self._clear_away()
            if not self.plan.is_embedded:
                databases.check_server(self.plan)
            self._spawn(self.plan)
        plan = self.plan
        try:
            self._await(plan, say)
        except BaseException:
            if not was_running:
                with _uninterrupted():
                    self.down()
            raise

    def down(self) -> bool:
        """Stop everything of this home; data stays. Returns whether anything was running."""
        state = self.home.read_state()
        was_running = self.home.is_running()
        if was_running and isinstance(state.get("pid"), int):
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], signal.SIGTERM)
            until = time.monotonic() + _DOWN_SECONDS
            while self.home.is_running() and time.monotonic() < until:
                time.sleep(0.05)
            if self.home.is_running():
                os.kill(state["pid"], signal.SIGKILL)
        if self._supervisor is not None:
            self._supervisor.wait()
            self._supervisor = None
        return self._clear_away() or was_running

    def health(self) -> list[health.Health]:
        """How each part is now; empty when the stack is down."""
        if not self.home.is_running():
            return []
        return health.check(self.plan, self.home.read_state())

    def reset(self) -> None:
        """Stop the stack and remove the home with all its data."""
        self.down()
        self.home.empty()
        self._plan = None

    def _has_changed(self) -> bool:
        """Whether the running stack was started with other settings; unknown in its first moments."""
        return bool(self.home.read_state().get("fingerprint", self.plan.fingerprint) != self.plan.fingerprint)

    def _clear_away(self) -> bool:
        """End what a killed supervisor left behind, so that its ports are free again."""
        left = end_marked(self.home.path)
        if (self.home.cluster / "password").is_file():
            end_leftovers(self.home.cluster)
        return left > 0

    def _spawn(self, plan: Plan) -> None:
        home = self.home
        home.state_file.unlink(missing_ok=True)
        log_file = home.logs / "supervisor.log"
        rotate(log_file)
        environment = {**plan.outside, **plan.given, "MAUTO_HOME": str(home.path), "PYTHONSAFEPATH": "1"}
        with log_file.open("ab") as log:
            self._supervisor = subprocess.Popen([sys.executable, "-m", "mautolib.stack.supervisor"],
                                                env=environment, cwd=Path.cwd(), stdin=subprocess.DEVNULL,
                                                stdout=log, stderr=log, start_new_session=True)

    def _await(self, plan: Plan, say: Callable[[str], None]) -> None:
        until, well = time.monotonic() + _UP_SECONDS, set[str]()
        shown = len(self.home.read_state().get("steps", []))  # of an earlier `up`
        warming: threading.Thread | None = None
        exits_before: dict[str, int] | None = None
        while True:
            state = self.home.read_state()
            for _, text in state.get("steps", [])[shown:]:
                say(text)
            shown = max(shown, len(state.get("steps", [])))
            self._refuse_failure(state)
            parts = health.check(plan, state) if state.get("status") == "running" else []
            exits_before = exits_before or ({part.name: part.exits for part in parts} if parts else None)
            for part in parts:
                if part.is_well and part.name not in well:
                    well.add(part.name)
                    say(f"{part.name} is well")
                    if part.name == "airflow-api-server":
                        warming = threading.Thread(target=_warm_up, args=(plan,), daemon=True)
                        warming.start()
                if (exits_before or {}).get(part.name, 0) + _HOPELESS_EXITS <= part.exits and not part.is_well:
                    raise ProviderUnavailable(self._why(part.name, "ends again and again"))
            if parts and all(part.is_well for part in parts) and not (warming and warming.is_alive()):
                return
            if time.monotonic() > until:
                sick = next((part for part in parts if not part.is_well), None)
                raise ProviderUnavailable(self._why(sick.name if sick else "supervisor",
                                                    sick.detail if sick else "does not get ready"))
            time.sleep(0.1 if not parts else 0.3)

    def _refuse_failure(self, state: Mapping[str, Any]) -> None:
        if state.get("status") == "failed":
            raise ProviderUnavailable(state.get("message") or "the stack did not start")
        if state.get("status") == "stopped":
            raise ProviderUnavailable("the stack was stopped while it was starting")
        if self._supervisor is not None and self._supervisor.poll() is not None:
            raise ProviderUnavailable(self._why("supervisor", "ended"))

    def _why(self, name: str, what: str) -> str:
        log_file = self.home.logs / f"{name}.log"
        if name == "postgresql":
            log_file = self.home.cluster / "server.log"
        try:
            last = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        except OSError:
            last = []
        return "\n".join([f"{name} {what}; the end of {log_file}:", *last])


def _warm_up(plan: Plan) -> None:
    """Make Airflow build its execution API now: the first request costs seconds that the first task would pay."""
    with contextlib.suppress(OSError):
        health.get(f"{plan.airflow_url}/execution/health", timeout=30.0)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not stop the cleaning up after the first."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def require_running(stack: Stack) -> Plan:
    """The plan of a stack that runs.

    Raises:
        Misconfigured: it does not run.
    """
    if not stack.home.is_running():
        raise Misconfigured(f"no stack runs in {stack.home.path}; start it with `make up`")
    return stack.plan
