"""The whole stack at work: the tasks of `campaign_send` and the scheduler are killed in the middle of a campaign.

`python -m tests.chaos.airflow`: starts a stack of its own on free ports, prints what happened as JSON; exit code 0
only if nobody was lost and nobody mailed twice.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from mautolib.campaigns import launch
from mautolib.db.engine import connect
from mautolib.ledger import check
from mautolib.ledger.journal import journal_folder
from mautolib.ledger.settle import settle_from_log
from mautolib.settings import variable
from mautolib.stack.home import Home
from mautolib.stack.launcher import Stack
from tests.chaos.ground import recipients_of
from tests.integration.mailing import add_campaign, add_contacts

_MAIL = {"default_from_name": "Example Shop", "default_from_email": "news@shop.example",
         "postal_address": "Example Shop, 1 High Street, Berlin", "environment": "development"}  # fmt: skip
_PORTS = ("api_port", "airflow_port", "database_port", "smtp_port", "mail_page_port")


def main(arguments: Sequence[str] | None = None) -> int:
    """Start, kill, wait, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.airflow", description=__doc__.split("\n\n")[0])
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=15.0, help="it must have ended by then (15)")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="mauto-chaos-"))
    folder.chmod(0o711)
    home = Home(folder / "home")
    stack = Stack(home, {**os.environ, **{variable(name): value for name, value in _MAIL.items()},
                         **{variable(name): _free_port() for name in _PORTS}})  # fmt: skip
    try:
        stack.up(lambda _, line: print(line, file=sys.stderr, flush=True))
        told = _play(stack, home, given)
    finally:
        stack.down()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(told, indent=1))
    return 0 if told["is_clean"] else 1


def _play(stack: Stack, home: Home, given: argparse.Namespace) -> dict[str, Any]:
    engine = connect(stack.settings.url_for("owner"))
    log = home.path / "mail" / check.SINK_LOG
    begun = time.monotonic()
    with engine.begin() as tx:
        add_contacts(tx, given.recipients)
        campaign = add_campaign(tx)
        launch.request_send(tx, stack.settings, campaign.campaign_id, now=datetime.now(UTC))
    ends_at = begun + given.minutes * 60
    deaths = {"task": 0, "scheduler": 0}
    for share, who in ((0.05, "task"), (0.2, "task"), (0.35, "scheduler"), (0.5, "task"), (0.6, "both")):
        at = share * given.recipients
        _until(lambda at=at: _lines(log) >= at and bool(_sending(stack)), ends_at)  # type: ignore[misc]
        if who in ("task", "both"):
            for pid in _sending(stack):
                deaths["task"] += _kill(pid)
        if who in ("scheduler", "both"):
            deaths["scheduler"] += _kill(next(p.pid for p in stack.health() if p.name == "airflow-scheduler") or 0)
        print(f"{_lines(log)} accepted, killed so far: {deaths}", file=sys.stderr, flush=True)
    open_ones = "select count(*) from messages where status in ('queued', 'sending')"
    _until(lambda: _ask(engine, open_ones) == 0, ends_at, pause=0.5)
    seconds = round(time.monotonic() - begun, 1)
    doubts = _ask(engine, "select count(*) from messages where status = 'unknown'")
    with engine.begin() as tx:
        accepted = list(check.read_sink_log(home.path / "mail"))
        later = datetime.now(UTC) + timedelta(hours=1)
        settled = settle_from_log(tx, accepted, complete_until=later, now=datetime.now(UTC))
    is_finished = "select count(*) from campaigns where status = 'sent'"
    _until(lambda: _ask(engine, open_ones) == 0 and _ask(engine, is_finished) == 1, ends_at, pause=0.5)
    with engine.connect() as tx:
        findings = [f"{one.question}: {one.what}" for one in check.check(tx, check.read_sink_log(home.path / "mail"))]
    times = Counter(recipients_of(log))
    told = {
        "recipients": given.recipients, "killed": deaths, "seconds": seconds, "doubts": doubts, "settled": settled,
        "lost": given.recipients - len(times), "duplicated": sum(times.values()) - len(times), "findings": findings,
        "unknown_left": _ask(engine, "select count(*) from messages where status = 'unknown'"),
    }  # fmt: skip
    engine.dispose()
    wrong = ("lost", "duplicated", "findings", "unknown_left")
    return {**told, "is_clean": not any(told[name] for name in wrong) and all(deaths.values())}


def _sending(stack: Stack) -> list[int]:
    """The processes of the tasks that are sending: each journal is named after the one that writes it."""
    found = journal_folder(stack.settings).glob("*.journal")
    pids = {int(path.name.partition("-")[0]) for path in found}
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _kill(pid: int) -> int:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def _ask(engine: Engine, query: str) -> Any:
    with engine.connect() as tx:
        return tx.execute(text(query)).scalar_one()


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _until(holds: Callable[[], bool], ends_at: float, *, pause: float = 0.02) -> None:
    while not holds():
        if time.monotonic() > ends_at:
            raise TimeoutError("the campaign did not get so far in time")
        time.sleep(pause)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
