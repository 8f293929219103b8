"""Render what someone is still writing: the same engine as sending, but in a process with limits.

Promise: whatever a template does, the caller gets an answer within seconds or an `InvalidInput` that says what is
wrong: at most 250 ms of CPU, 64 MB and 1 MB of output each time (see `worker`). Called by the API for previews and
validation; sending uses `compile.CompiledTemplate.render`. Safe to call from many threads.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mautolib
from mautolib.errors import InvalidInput, ProviderUnavailable
from mautolib.templates.compile import Rendered
from mautolib.templates.data import plain
from mautolib.templates.worker import MAX_REQUEST, read_frame, write_frame

log = logging.getLogger(__name__)

#: Passed on to the worker; nothing else of the environment is.
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ", "TZDIR", "SYSTEMROOT")


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A rendering and what the author should know about it."""

    rendered: Rendered
    warnings: tuple[str, ...]


def render_limited(
    subject: str, html_body: str, text_body: str, variables: Mapping[str, Any], *, strict: bool = False,
    language: str = "",
) -> Preview:  # fmt: skip
    """Compile and render a mail with the limits of a preview.

    Args:
        variables: everything the template may name; copied, never rendered.
        strict: a name without a value is an error instead of a warning.
        language: whose conventions dates and numbers follow; empty: those of no country.

    Raises:
        InvalidInput: `Template syntax error: ...`, `Template error: ...` or `Undefined variable: ...`.
        ProviderUnavailable: the worker process cannot be started.
    """
    request = {
        "subject": subject, "html_body": html_body, "text_body": text_body,
        "variables": plain(variables), "strict": strict, "language": language,
    }  # fmt: skip
    if sum(map(len, (subject, html_body, text_body))) > MAX_REQUEST // 4:
        raise InvalidInput("Template error: longer than 4 MB", code="template_error")
    found = _worker.ask(request)
    if "error" in found:
        raise InvalidInput(
            found["error"], code="template_error", path=tuple(found.get("path", ())), line=found.get("line")
        )
    rendered = Rendered(subject=found["subject"], html=found["html"], text=found["text"])
    return Preview(rendered=rendered, warnings=tuple(found["warnings"]))


class _Worker:
    """The worker process of this process; started when first needed, replaced when it is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer; tries once more with a new worker if this one is gone."""
        with self._lock:
            for _ in range(2):
                try:
                    found = self._exchange(self._running(), request)
                except OSError:
                    found = None
                if found is not None:
                    return found
                self.stop()
        raise ProviderUnavailable("The process that renders previews does not answer")

    @staticmethod
    def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any]) -> dict[str, Any] | None:
        assert process.stdin is not None and process.stdout is not None
        write_frame(process.stdin, request)  # type: ignore[arg-type]
        return read_frame(process.stdout)  # type: ignore[arg-type]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and (self._owner != os.getpid() or self._process.poll() is not None):
            self.stop()
        if self._process is None:
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            environment["PYTHONPATH"] = str(Path(mautolib.__file__).resolve().parents[1])
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "mautolib.templates.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            )  # fmt: skip
            self._owner = os.getpid()
            log.info("started the preview worker, pid %d", self._process.pid)
        return self._process

    def stop(self) -> None:
        """End the worker; after a fork only let go of it, for it is the parent's."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    log.debug("the preview worker had gone before its pipe was closed")
        if self._owner != os.getpid():
            process.returncode = 0  # not ours to wait for
            return
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_worker = _Worker()
atexit.register(_worker.stop)
os.register_at_fork(after_in_child=lambda: setattr(_worker, "_lock", threading.Lock()))
