"""Logging: stdlib only, one line per verb with its counts, contact ids and never addresses.

`setup()` is called by the entry points (API process, launcher, command lines); inside Airflow tasks
Airflow's own logging is in charge and this module is not called. As text or as one JSON object a line
(MAUTO_LOG_FORMAT); `bound` names what every line within it belongs to, as the request.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Where `extra` puts further fields of one line: `extra=fields(status=200)`.
_FIELDS: Final = "mauto_fields"
#: What Airflow tells the processes a task starts, and our names for it.
_AIRFLOW: Final = {"dag": "AIRFLOW_CTX_DAG_ID", "task": "AIRFLOW_CTX_TASK_ID", "run": "AIRFLOW_CTX_DAG_RUN_ID"}
_BOUND: ContextVar[Mapping[str, Any]] = ContextVar("mauto_log_bound", default={})  # noqa: B039 - never changed in place


class _OneLine(logging.Formatter):
    """Keeps a record on one line, so that data can never fake a log entry (control characters escaped).

    A trace has lines of its own, each indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage().encode("unicode_escape").decode("ascii")
        record.asctime = self.formatTime(record, self.datefmt)
        text = self.formatMessage(record)
        if record.exc_info:
            # The message of an error may be somebody's data, too: indented, no line of it looks like an entry.
            trace = self.formatException(record.exc_info).split("\n")
            text += "".join(f"\n    {line.encode('unicode_escape').decode('ascii')}" for line in trace)
        return text


class _Json(logging.Formatter):
    """One object a line, whatever is in it: a line break within a value is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        shown: dict[str, Any] = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "level": record.levelname,
            "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        shown |= {name: os.environ[variable] for name, variable in _AIRFLOW.items() if variable in os.environ}
        shown |= _BOUND.get()
        shown |= getattr(record, _FIELDS, {})
        if record.exc_info and record.exc_info[0] is not None:
            shown |= {"error": record.exc_info[0].__name__, "trace": self.formatException(record.exc_info)}
        return json.dumps(shown, default=str)


def setup(level: str = "INFO", shape: str = "text") -> None:
    """Send every record to stderr in one format; safe to call twice.

    Args:
        shape: `json`, else text.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if shape == "json" else _OneLine(_FORMAT))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def fields(**values: Any) -> dict[str, Any]:
    """What to pass as `extra`, so that the line as JSON has these fields beside its message."""
    return {_FIELDS: values}


@contextmanager
def bound(**values: Any) -> Iterator[None]:
    """Every line logged within belongs to this: a request, a job."""
    token = _BOUND.set({**_BOUND.get(), **values})
    try:
        yield
    finally:
        _BOUND.reset(token)
