"""Where the game is played: a durable PostgreSQL and a mail sink of its own, a campaign to everybody, the verdict."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from mautolib.campaigns import finishing, launch, planning, sending
from mautolib.db.engine import connect
from mautolib.db.localpg import Cluster
from mautolib.db.migrate import migrate
from mautolib.ledger import check
from mautolib.ledger.settle import settle_from_log
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.integration.mailing import add_campaign, add_contacts


@dataclass
class Ground:
    """A database, a sink, and how to ask them."""

    folder: Path
    cluster: Cluster
    sink: MailSink
    settings: Settings
    engine: Engine

    def ask(self, query: str, **parameters: Any) -> Any:
        """One value from the database."""
        with self.engine.connect() as tx:
            return tx.execute(text(query), parameters).scalar_one()

    def restart_database(self) -> None:
        """As a power cut would: no goodbye to anybody, recovery from the log at the start."""
        self.engine.dispose()
        pid, port = self.cluster.pid, self.cluster.port
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        while self.cluster.pid is not None:
            time.sleep(0.01)
        self.cluster.stop()
        self.cluster = Cluster.ensure(self.folder / "cluster", port=port)

    def launch(self, recipients: int) -> int:
        """A campaign to so many, planned and due; returns its id."""
        now = datetime.now(UTC)
        with self.engine.begin() as tx:
            add_contacts(tx, recipients)
            campaign = add_campaign(tx)
            launch.request_send(tx, self.settings, campaign.campaign_id, now=now)
        (plan,) = planning.plan_due(self.engine, self.settings, datetime.now(UTC))
        assert plan.problem is None
        return campaign.campaign_id

    def settle(self) -> tuple[int, int]:
        """What operators do afterwards: the log of the receiving side decides what is in doubt."""
        sending.pump(self.engine, self.settings, group_size=50)
        accepted = list(check.read_sink_log(self.folder / "sink"))
        with self.engine.begin() as tx:
            later = datetime.now(UTC) + timedelta(hours=1)  # every sender has ended, nothing can come any more
            found = settle_from_log(tx, accepted, complete_until=later, now=datetime.now(UTC))
        sending.pump(self.engine, self.settings, group_size=50)
        return found

    def verdict(self, recipients: int, campaign_id: int) -> dict[str, Any]:
        """How it ended: by the database, by the sink's log, and by the ledger check."""
        finished = finishing.finish(self.engine, datetime.now(UTC))
        log = check.read_sink_log(self.folder / "sink")
        with self.engine.connect() as tx:
            findings = check.check(tx, log)
            states = {row[0]: row[1] for row in tx.execute(text("select status, count(*) from messages group by 1"))}
        times = Counter(entry for entry in recipients_of(self.folder / "sink" / check.SINK_LOG))
        everybody = {f"person{number}@mail.example" for number in range(1, recipients + 1)}
        return {
            "lost": len(everybody - set(times)),
            "duplicated": sum(count - 1 for count in times.values()) + sum(count - 1 for count in log.values()),
            "strangers": len(set(times) - everybody),
            "unknown_left": states.get("unknown", 0),
            "states": states,
            "is_finished": finished == [campaign_id],
            "findings": [f"{finding.question}: {finding.what}" for finding in findings],
        }


def recipients_of(log: Path) -> Iterator[str]:
    """Everybody the sink accepted a message for, as often as it did."""
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            yield from json.loads(line)["rcpt"]


def is_clean(verdict: dict[str, Any]) -> bool:
    """Whether nobody was lost or mailed twice, nothing is in doubt and the ledger check has nothing to say."""
    wrong = ("lost", "duplicated", "strangers", "unknown_left", "findings")
    return not any(verdict[name] for name in wrong) and bool(verdict["is_finished"])


@contextmanager
def ground() -> Iterator[Ground]:
    """Everything made, and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mauto-chaos-"))
    folder.chmod(0o711)
    cluster = Cluster.ensure(folder / "cluster")
    made: Ground | None = None
    try:
        cluster.create_database("chaos")
        with MailSink(folder / "sink") as sink:
            settings = Settings(
                database_url=cluster.url("chaos"), secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",),
                suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e", environment="development",
                home=folder / "home", default_from_name="Example Shop", default_from_email="news@shop.example",
                postal_address="Example Shop, 1 High Street, Berlin", smtp_port=sink.smtp_port,
            )  # fmt: skip
            engine = connect(settings.database_url)
            migrate(engine)
            made = Ground(folder, cluster, sink, settings, engine)
            yield made
            engine.dispose()
    finally:
        (made.cluster if made else cluster).stop()
        real = (folder / "cluster").resolve()
        shutil.rmtree(real, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
