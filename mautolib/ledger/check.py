"""The ledger check: seven questions to the database and, if given, the log of the mail sink.

Promise: it only reads, and it says nothing is wrong only if nothing is. Every chaos test and `make check-ledger` run
it: `python -m mautolib.ledger.check [--sink-log DIR]`, exit code 0 clean, 1 findings, 2 not checked. Production code
never reads a sink's log; this is the one place that does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mautolib.db.engine import connect
from mautolib.db.statements import statement
from mautolib.errors import MautoError, Misconfigured
from mautolib.ledger.model import MARKETING, Status
from mautolib.settings import Settings

SINK_LOG: Final = "accepted.jsonl"
_QUESTIONS: Final = {
    "check_one_message_per_member": "1. one message per member of an audience",
    "check_keys_match": "1. every intention has one message",
    "check_nothing_open": "2. nothing open where a campaign is over",
    "check_transitions": "6. every state follows from its attempts",
    "check_events": "6. every sent message is told once",
    "check_totals": "7. figures equal the ledger",
}
#: How far a message came without being accepted; whatever else shows in the log must not.
_MAY_SHOW: Final = frozenset({Status.SENDING, Status.UNKNOWN})


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    question: str
    what: str


def check(tx: Connection, accepted: Mapping[str, int] | None = None) -> list[Finding]:
    """Everything that is wrong with the ledger.

    Args:
        accepted: how often each Message-ID (without <>) stands in the receiving side's log; None: not asked.
    """
    findings = [
        Finding(question=question, what=what)
        for name, question in _QUESTIONS.items()
        for what in tx.scalars(statement(f"ledger.{name}"))
    ]
    if accepted is not None:
        findings += _against_log(tx, accepted)
    return findings


def read_sink_log(folder: Path) -> Counter[str]:
    """How often each Message-ID (without <>) was accepted by the mail sink of a folder."""
    found: Counter[str] = Counter()
    with (folder / SINK_LOG).open(encoding="utf-8") as log:
        for line in log:
            if line.endswith("\n"):
                found[json.loads(line)["message_id"].strip().strip("<>")] += 1
    return found


def _against_log(tx: Connection, accepted: Mapping[str, int]) -> Iterator[Finding]:
    rows = tx.execute(statement("ledger.check_against_log"), execution_options={"yield_per": 10_000})
    for row in rows:
        times = accepted.get(row.rfc_message_id, 0)
        yield from _findings_of(row, times)


def _findings_of(row: Any, times: int) -> Iterator[Finding]:
    who = f"message {row.message_id} ({row.status}) stands {times} times in the log"
    if row.is_sent and times == 0:
        yield Finding(question="3. every sent message is in the log", what=who)
    if times and not row.is_sent and Status(row.status) not in _MAY_SHOW:
        yield Finding(question="4. nothing in the log that was not sent", what=who)
    if times > 1 and row.kind in MARKETING:
        yield Finding(question="5. marketing mail at most once", what=who)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mautolib.ledger.check", description="Check the send ledger.")
    parser.add_argument("--sink-log", type=Path, help="folder of the mail sink that received everything")
    parser.add_argument("--show", type=int, default=20, help="findings to show (20)")
    given = parser.parse_args(arguments)
    try:
        accepted = None if given.sink_log is None else read_sink_log(given.sink_log)
        engine = connect(Settings.from_env().url_for("owner"), application_name="mauto-check")
        with engine.connect() as tx:
            findings = check(tx, accepted)
    except OSError as error:
        return _not_checked(f"{error.filename}: {error.strerror}")
    except (MautoError, DBAPIError) as error:
        return _not_checked(str(error) if isinstance(error, Misconfigured) else "the database cannot be reached")
    for finding in findings[: given.show]:
        sys.stdout.write(f"{finding.question}: {finding.what}\n")
    asked = "with" if accepted is not None else "without"
    sys.stdout.write(f"{len(findings)} findings ({asked} the log of a sink)\n" if findings
                     else f"ledger clean ({asked} the log of a sink)\n")  # fmt: skip
    return 1 if findings else 0


def _not_checked(why: str) -> int:
    sys.stderr.write(f"not checked: {why}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
