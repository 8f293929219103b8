"""Logging: stdlib only, one line per verb with its counts, contact ids and never addresses.

`setup()` is called by the entry points (API process, launcher, command lines); inside Airflow tasks
Airflow's own logging is in charge and this module is not called.
"""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


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


def setup(level: str = "INFO") -> None:
    """Send every record to stderr in one format; safe to call twice."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(_FORMAT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
